//! The routes `/users/me/api-keys` and, for administrators, `/users/{id}/api-keys` and `/service-accounts`.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use ipnet::IpNet;
use palisade_crypto::secret::SecretString;
use palisade_db::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApiKeyView, NewKey, USE, Why, create, kept, list, revoke};
use crate::access::{Caller, SIGNED_IN, needs};
use crate::app::{App, Change, Hold};
use crate::error::{Broken, Error, Kind, Result, Rules};
use crate::http::{Body, Created, Id, List, NoContent, Paging, Params, Routes, Segments, limit};
use crate::id::{ApiKeyId, UserId};
use crate::limits::{Key, Rule};
use crate::shape;
use crate::users::{self, AllPermissions, Authority, User, UserView, exceeds_own};

/// Limits how many API keys a user creates, because an email is sent for each key.
pub(super) const MAKE: Rule = Rule {
    name: "api_key_create_account",
    burst: 100,
    per: Duration::from_secs(3600),
    key: Key::Account,
    summary: "Too many API keys were created. Try again later.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/users/me/api-keys")
        .get("/", SIGNED_IN, mine)
        .summary("Lists your active API keys.")
        .post("/", SIGNED_IN.fresh(), make_mine)
        .summary(
            "Creates an API key.\n\nYou must hold all its permissions. The key is shown only once.",
        )
        .or(Kind::Denied, "access.exceeds_own")
        .or(Kind::Conflict, "api_keys.too_many")
        .or(Kind::TooMany, "request.too_many")
        .delete("/{id}", SIGNED_IN.uncounted(), revoke_mine)
        .summary("Revokes one of your API keys.")
        .and(
            Routes::at("/users/{id}/api-keys")
                .get("/", needs(users::WRITE), theirs)
                .summary("Lists the active API keys of a user.")
                .or(Kind::Denied, "access.exceeds_own")
                .post("/", needs(users::WRITE).fresh(), make_theirs)
                .summary(
                    "Creates an API key for a service account.\n\nThe account and you must both \
                     hold all its permissions. The key is shown only once.",
                )
                .or(Kind::Denied, "access.exceeds_own")
                .or(Kind::Conflict, "api_keys.too_many")
                .or(Kind::Conflict, "api_keys.not_a_service_account")
                .or(Kind::TooMany, "request.too_many")
                .delete("/{key}", needs(users::WRITE), revoke_theirs)
                .summary("Revokes an API key of a user.")
                .or(Kind::Denied, "access.exceeds_own"),
        )
        .and(
            Routes::at("/service-accounts")
                .get("/", needs(users::READ), services)
                .summary("Lists all service accounts, oldest first.")
                .post("/", needs(users::WRITE).fresh(), make_service)
                .summary(
                    "Creates a service account: a user for a program.\n\nA service account has \
                     roles and API keys, and can't sign in.",
                ),
        )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ApiKeyBody {
    #[schemars(with = "shape::Label")]
    name: String,
    /// The permissions of the key: names from `GET /permissions`. A key with an empty list can only
    /// perform operations that require no permission.
    #[schemars(with = "Vec<shape::Permission>", length(max = 200))]
    permissions: Vec<String>,
    /// When the key expires, at most 366 days from now. Defaults to 90 days from now if
    /// `expires_in` is also omitted.
    #[schemars(with = "Option<shape::DateTime>")]
    expires_at: Option<String>,
    /// The number of seconds until the key expires. Can be sent instead of `expires_at`.
    #[schemars(range(min = 1, max = 31_622_400))]
    expires_in: Option<u64>,
    /// The networks (`192.0.2.0/24`) or IP addresses from which the key can be used. Omit to allow
    /// any.
    #[schemars(with = "Option<Vec<shape::Network>>", length(min = 1, max = 50))]
    allowed_networks: Option<Vec<String>>,
    /// The maximum number of requests per minute. Only a service account's key may exceed the
    /// server's limit `api_key`. Defaults to that limit.
    #[schemars(range(min = 1, max = 60_000))]
    requests_per_minute: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ServiceAccountBody {
    /// The name of the service account.
    #[schemars(with = "shape::Label")]
    name: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ServiceAccountParams {
    /// The maximum number of items on a page.
    #[schemars(with = "Option<shape::PageSize>")]
    limit: Option<String>,
    /// The `next_cursor` of the previous page.
    #[schemars(with = "Option<shape::PageCursor>")]
    cursor: Option<String>,
}

/// A newly created key.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NewApiKey")]
struct NewKeyView {
    /// The key, shown only once. Send it as `Authorization: Bearer …`.
    api_key: String,
    #[serde(flatten)]
    key: ApiKeyView,
}

const DEFAULT_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
const LONGEST_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);
/// The maximum number of permissions of a key.
const MOST_PERMISSIONS: usize = 200;
/// The maximum number of networks from which a key may be used.
const MOST_NETWORKS: usize = 50;
/// The maximum number of requests per minute that an administrator may allow a service account.
const FASTEST: u32 = 60_000;

/// Validates a body and returns the key to create. Checks that depend on the state of the database follow later.
fn checked(app: &App, owner: &User, body: ApiKeyBody) -> Result<NewKey> {
    let mut rules = Rules::new();
    let name = rules.check("/name", users::check_name(&body.name));
    let permissions = permissions(app, &mut rules, &body.permissions);
    // The field that was given. If both were given, the error names `expires_in`.
    let end = if body.expires_in.is_some() { "/expires_in" } else { "/expires_at" };
    let expires_at = rules.check(end, expiry(app, &body));
    let allowed_networks = rules
        .check("/allowed_networks", body.allowed_networks.as_deref().map(networks).transpose());
    let fastest = if owner.service { FASTEST } else { app.limiter.burst(&USE).max(1) };
    let rate = rules.check(
        "/requests_per_minute",
        match body.requests_per_minute {
            Some(rate) if rate == 0 || rate > fastest => {
                let detail = format!("Use a whole number from 1 to {fastest}.");
                Err(Broken::new("request.out_of_range", detail))
            }
            rate => Ok(rate),
        },
    );
    let all = name.zip(expires_at).zip(allowed_networks.zip(rate));
    let ((name, expires_at), (allowed_networks, requests_per_minute)) = rules.all(all)?;
    Ok(NewKey {
        owner: owner.id,
        name,
        permissions,
        allowed_networks,
        requests_per_minute,
        expires_at,
    })
}

fn permissions(app: &App, rules: &mut Rules, names: &[String]) -> BTreeSet<String> {
    let existing = &app.state::<AllPermissions>().0;
    if names.len() > MOST_PERMISSIONS {
        let many = Broken::new("api_keys.too_many_permissions", "Use at most 200 permissions.");
        rules.check::<()>("/permissions", Err(many));
        return BTreeSet::new();
    }
    for (number, name) in names.iter().enumerate() {
        if !existing.contains(name) {
            let detail = "This permission does not exist. See GET /api/v1/permissions.";
            let unknown = Broken::new("api_keys.unknown_permission", detail);
            rules.check::<()>(&format!("/permissions/{number}"), Err(unknown));
        }
    }
    names.iter().cloned().collect()
}

fn expiry(app: &App, body: &ApiKeyBody) -> Result<Timestamp, Broken> {
    let now = app.clock.now();
    let at = match (&body.expires_at, body.expires_in) {
        (None, None) => Some(now.plus(DEFAULT_LIFE)),
        (Some(at), None) => Timestamp::parse_rfc3339(at).ok(),
        (None, Some(life)) if life <= LONGEST_LIFE.as_secs() => {
            Some(now.plus(Duration::from_secs(life)))
        }
        _ => None,
    };
    at.filter(|at| *at > now && at.since(now) <= LONGEST_LIFE).ok_or_else(|| {
        let detail =
            "Use either a future time (RFC 3339) or a number of seconds, up to 366 days ahead.";
        Broken::new("api_keys.bad_expiry", detail)
    })
}

fn networks(texts: &[String]) -> Result<Vec<IpNet>, Broken> {
    let parse = |text: &String| {
        let network = text.parse::<IpNet>();
        network.or_else(|_| text.parse::<std::net::IpAddr>().map(|a| a.to_canonical().into()))
    };
    let detail = "Use 1 to 50 networks, such as 192.0.2.0/24 or 2001:db8::/32, or omit the field.";
    let bad = || Broken::new("api_keys.bad_address", detail);
    if texts.is_empty() || texts.len() > MOST_NETWORKS {
        return Err(bad());
    }
    let parsed: Result<Vec<IpNet>, _> = texts.iter().map(parse).collect();
    Ok(parsed.map_err(|_| bad())?.iter().map(IpNet::trunc).collect())
}

/// Creates a key for a user. Both the caller and the user must hold all its permissions.
async fn make(mut change: Change, owner: &User, new: NewKey) -> Result<Created<NewKeyView>> {
    let app = change.app().clone();
    let authority = Authority::of(&mut change).await?;
    // SECURITY: (test: an_api_key_never_exceeds_its_maker)
    let held = |name: &String| authority.holds(name) && owner.permissions.contains(name);
    if !new.permissions.iter().all(held) {
        return Err(exceeds_own());
    }
    let (id, secret): (ApiKeyId, SecretString) = create(change, new).await?;
    let made = kept(&app, owner.id).await?.into_iter().find(|kept| kept.key.id == id);
    let key = made.ok_or_else(Error::not_found)?.key;
    Ok(Created(NewKeyView { api_key: secret.expose().to_owned(), key }))
}

async fn mine(State(app): State<App>, caller: Caller) -> Result<Json<List<ApiKeyView>>> {
    let items = list(&app, caller.signed_in()?.user).await?;
    Ok(Json(List { items, next_cursor: None }))
}

async fn make_mine(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ApiKeyBody>,
) -> Result<Created<NewKeyView>> {
    let id = caller.signed_in()?.user;
    limit(&app, &MAKE, app.limiter.account(&id.to_string()))?;
    let holds = [Hold::Shared(id), Hold::RolesShared];
    let mut change = app.change_holding(&caller.actor, &holds).await?;
    let me = users::find_now(&mut change, id).await?.ok_or_else(Error::not_found)?;
    let new = checked(&app, &me, body)?;
    make(change, &me, new).await
}

async fn revoke_mine(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ApiKeyId>,
) -> Result<NoContent> {
    let me = caller.signed_in()?;
    let mut change = app.change_holding(&caller.actor, &[Hold::Alone(me.user)]).await?;
    revoke(&mut change, me.user, id, Why::RevokedByUser).await?;
    change.commit_quietly("revoking an API key records its own event").await?;
    Ok(NoContent)
}

async fn theirs(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<UserId>,
) -> Result<Json<List<ApiKeyView>>> {
    let user = users::stoppable(&app, &caller, id).await?;
    Ok(Json(List { items: list(&app, user.id).await?, next_cursor: None }))
}

async fn make_theirs(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<UserId>,
    Body(body): Body<ApiKeyBody>,
) -> Result<Created<NewKeyView>> {
    let (change, user) = users::change_manageable(&app, &caller, id, &[Hold::Shared(id)]).await?;
    // SECURITY: only that person creates a person's keys (test: nobody_makes_an_api_key_for_another_person).
    if !user.service {
        let detail = "This is not a service account. Users create their own API keys.";
        return Err(Error::new(Kind::Conflict, "api_keys.not_a_service_account", detail));
    }
    limit(&app, &MAKE, app.limiter.account(&caller.signed_in()?.user.to_string()))?;
    let new = checked(&app, &user, body)?;
    make(change, &user, new).await
}

async fn revoke_theirs(
    State(app): State<App>,
    caller: Caller,
    Segments((user, key)): Segments<(UserId, ApiKeyId)>,
) -> Result<NoContent> {
    let holds = [Hold::Alone(user)];
    let mut change = users::change_stoppable(&app, &caller, user, &holds).await?;
    revoke(&mut change, user, key, Why::Revoked).await?;
    change.commit_quietly("revoking an API key records its own event").await?;
    Ok(NoContent)
}

async fn services(
    State(app): State<App>,
    Params(params): Params<ServiceAccountParams>,
) -> Result<Json<List<UserView>>> {
    let paging = Paging::new(params.limit.as_deref(), params.cursor.as_deref())?;
    let now = app.clock.now();
    let found = users::service_page(&app, &paging).await?;
    Ok(Json(found.map(|user| UserView::new(&user, now))))
}

async fn make_service(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ServiceAccountBody>,
) -> Result<Created<UserView>> {
    let name = users::check_name(&body.name).map_err(|broken| broken.at("/name"))?;
    let made = users::create_service(&app, &caller.actor, name).await?;
    Ok(Created(UserView::new(&made, app.clock.now())))
}
