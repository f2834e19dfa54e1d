//! `/resources/{type}/{id}/grants` and `/access/check`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use palisade_db::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Action, FIRST, GrantView, Looked, READ, Resource, ResourceId, ResourceType, SHARE, Subject,
    WRITE, because, given_now, held, held_now, list, next, put, visible, withdraw,
};
use crate::access::{Caller, SIGNED_IN};
use crate::app::{App, Change, Hold};
use crate::error::{Broken, Error, Kind, Result, Rules};
use crate::http::{Body, Id, NoContent, Paging, Params, Routes, Segments};
use crate::shape;
use crate::users::{self, Authority, User};

pub(super) fn routes() -> Routes {
    Routes::at("/resources/{type}")
        .get("/", SIGNED_IN.keys(), mine)
        .summary(
            "Lists the ids of the resources of a type on which you may perform an action, sorted.",
        )
        .get("/{id}/grants", SIGNED_IN.keys(), all)
        .summary(
            "Lists the grants on a resource.\n\nYou need `share` on the resource, or the \
             permission `resources:read`. Without either, the response is 404.",
        )
        .put("/{id}/grants/{subject}", SIGNED_IN.keys(), give)
        .summary(
            "Grants a subject exactly the given actions on a resource.\n\nYou need `share` on the \
             resource. You can grant only actions that you hold, for no longer than you hold \
             them, and can replace only actions that you hold for at least as long as the \
             subject. With the permission `resources:write`, you can grant any action. An API \
             key needs this permission.",
        )
        .or(Kind::Denied, "access.exceeds_own")
        .or(Kind::Conflict, "grants.no_such_subject")
        .delete("/{id}/grants/{subject}", SIGNED_IN.keys(), take)
        .summary(
            "Withdraws every action that a subject was granted on a resource.\n\nYou need \
             `share` on the resource, and must hold each of the actions for at least as long as \
             the subject. With the permission `resources:write`, you can withdraw any action. An \
             API key needs this permission.",
        )
        .or(Kind::Denied, "access.exceeds_own")
        .and(
            Routes::at("/access")
                .post("/check", SIGNED_IN.keys(), check)
                .summary(
                    "Checks whether a subject may perform an action on a resource.\n\nTo check \
                     another user or a role, you need the permission `resources:read`.",
                )
                .or(Kind::Denied, "access.denied"),
        )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GrantBody {
    /// The actions that the subject may perform. They replace the actions granted earlier. `share` allows the subject
    /// to grant the actions that it holds.
    #[schemars(with = "Vec<Action>", length(min = 1, max = 50))]
    actions: Vec<String>,
    /// When the grant expires. Omit for a grant that does not expire.
    #[schemars(with = "Option<shape::DateTime>")]
    expires_at: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CheckBody {
    /// The subject to check. Defaults to the caller.
    #[schemars(with = "Option<Subject>")]
    subject: Option<String>,
    #[schemars(with = "Action")]
    action: String,
    #[schemars(with = "ResourceType")]
    resource_type: String,
    #[schemars(with = "ResourceId")]
    resource_id: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Verdict")]
struct CheckAnswer {
    allowed: bool,
    /// The subject whose grant allows the action; null if none does.
    because: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MineParams {
    /// The action to perform on the resources. Defaults to `read`.
    #[schemars(with = "Option<Action>")]
    action: Option<String>,
    /// The maximum number of items on a page.
    #[schemars(with = "Option<shape::PageSize>")]
    limit: Option<String>,
    /// The `next_cursor` of the previous page.
    #[schemars(with = "Option<ResourceId>")]
    cursor: Option<String>,
}

/// One page of ids.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ResourceIds")]
struct Ids {
    #[schemars(with = "Vec<ResourceId>")]
    items: Vec<String>,
    /// The cursor of the next page; null on the last page.
    #[schemars(with = "Option<ResourceId>")]
    next_cursor: Option<String>,
}

/// The grants on a resource.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GrantList")]
struct Grants {
    items: Vec<GrantView>,
    /// Always null: the list is complete.
    next_cursor: Option<String>,
}

fn word<T>(
    value: std::result::Result<T, ()>,
    detail: &'static str,
) -> std::result::Result<T, Broken> {
    value.map_err(|()| Broken::new("grants.bad_word", detail))
}

const NAME: &str = "Use 1 to 50 characters: lowercase letters, digits, - and _, starting with a \
                    letter.";

/// Refuses a caller who may neither see the grants on a resource nor share it, as if the resource didn't exist.
async fn may_look(app: &App, caller: &Caller, resource: &Resource) -> Result<()> {
    let me = caller.signed_in()?;
    let may = me.permissions.contains(READ.name)
        || held(app, me.user, resource).await?.contains_key(SHARE);
    if may { Ok(()) } else { Err(Error::not_found()) }
}

/// What a request grants: the actions, and when they expire. A request that withdraws a grant has no actions.
struct Handed<'a> {
    actions: Vec<&'a str>,
    until: Option<Timestamp>,
}

/// Refuses a caller who may not change what the subject was granted. The check runs within the change, so no other
/// change can intervene.
async fn may_change(
    change: &mut Change,
    caller: &Caller,
    resource: &Resource,
    subject: &Subject,
    handed: Handed<'_>,
) -> Result<()> {
    let me = caller.signed_in()?;
    let own = held_now(change, me.user, resource).await?;
    // SECURITY: (test: rights_that_were_taken_away_do_nothing_for_what_is_under_way)
    if Authority::of(change).await?.holds(WRITE.name) {
        return Ok(());
    }
    // SECURITY: (test: sharing_gives_only_what_the_sharer_holds)
    let Some(share) = own.get(SHARE).filter(|_| me.credential.kind.session) else {
        // An API key can't share: it can change grants only with the permission for all of them.
        return Err(Error::not_found());
    };
    let holds = |action: &str, until| own.get(action).is_some_and(|mine| lasts(*mine, until));
    let given = given_now(change, resource, subject).await?;
    // SECURITY: replacing a grant withdraws it, so the caller must hold its actions for as long as it had left (test:
    // sharing_removes_only_what_the_sharer_holds).
    let taken_is_held = given.iter().all(|(action, until)| holds(action, *until));
    // What is given ends no later than what its giver holds.
    let given_is_held = handed.actions.iter().all(|action| holds(action, handed.until));
    if taken_is_held && given_is_held && (handed.actions.is_empty() || lasts(*share, handed.until))
    {
        return Ok(());
    }
    let detail = "This requires rights that you don't hold, or don't hold for that long. Ask the \
                owner of the resource.";
    Err(Error::new(Kind::Denied, "access.exceeds_own", detail))
}

/// Returns whether a right that lasts until `mine` lasts at least until `until`. `None` means that there is no time
/// limit.
fn lasts(mine: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    match (mine, until) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(mine), Some(until)) => until <= mine,
    }
}

async fn mine(
    State(app): State<App>,
    caller: Caller,
    Id(kind): Id<ResourceType>,
    Params(params): Params<MineParams>,
) -> Result<Json<Ids>> {
    let paging = Paging::new(params.limit.as_deref(), None)?;
    let action: Action = params
        .action
        .as_deref()
        .unwrap_or("read")
        .parse()
        .map_err(|()| Error::bad_field("action", "grants.bad_word", NAME))?;
    let after =
        params.cursor.as_deref().map(str::parse::<ResourceId>).transpose().map_err(|()| {
            let detail = "Use the next_cursor of an earlier page, or omit it.";
            Error::bad_field("cursor", "request.bad_cursor", detail)
        })?;
    let after = after.as_ref().map_or(FIRST, ResourceId::as_str);
    let user = caller.signed_in()?.user;
    let looked = Looked { kind: &kind, action: &action, after };
    let ids = visible(&app, user, looked, paging.rows()).await?;
    let (items, next_cursor) = next(ids, paging.size());
    Ok(Json(Ids { items, next_cursor }))
}

async fn all(
    State(app): State<App>,
    caller: Caller,
    Segments((kind, id)): Segments<(ResourceType, ResourceId)>,
) -> Result<Json<Grants>> {
    let resource = Resource { kind, id };
    may_look(&app, &caller, &resource).await?;
    Ok(Json(Grants { items: list(&app, &resource).await?, next_cursor: None }))
}

/// Returns the holds of a change to a subject's grants. Such a change depends on rights, but its route requires no
/// permission, so the hold on roles isn't automatic.
fn held_for(subject: &Subject) -> Vec<Hold> {
    subject.user().map(Hold::Shared).into_iter().chain([Hold::RolesShared]).collect()
}

async fn give(
    State(app): State<App>,
    caller: Caller,
    Segments((kind, id, subject)): Segments<(ResourceType, ResourceId, Subject)>,
    Body(body): Body<GrantBody>,
) -> Result<NoContent> {
    let resource = Resource { kind, id };
    let (actions, expires_at) = checked(&app, body)?;
    let mut change = app.change_holding(&caller.actor, &held_for(&subject)).await?;
    let handed =
        Handed { actions: actions.iter().map(Action::as_str).collect(), until: expires_at };
    may_change(&mut change, &caller, &resource, &subject, handed).await?;
    put(&mut change, &resource, &subject, &actions, expires_at).await?;
    change.commit_quietly("giving or withdrawing a grant records its own event").await?;
    Ok(NoContent)
}

fn checked(app: &App, body: GrantBody) -> Result<(BTreeSet<Action>, Option<Timestamp>)> {
    if body.actions.is_empty() || body.actions.len() > 50 {
        let detail = "Use 1 to 50 actions. To withdraw all of them, DELETE the grant.";
        return Err(Error::bad_field("/actions", "grants.bad_actions", detail));
    }
    let mut rules = Rules::new();
    let mut actions = BTreeSet::new();
    for (number, action) in body.actions.iter().enumerate() {
        actions.extend(rules.check(&format!("/actions/{number}"), word(action.parse(), NAME)));
    }
    let time = |text: &str| match Timestamp::parse_rfc3339(text) {
        Ok(at) if at > app.clock.now() => Ok(at),
        _ => {
            let detail = "Use a future time, like 2031-01-31T12:00:00Z (RFC 3339).";
            Err(Broken::new("grants.bad_expiry", detail))
        }
    };
    let expires_at = rules.check("/expires_at", body.expires_at.as_deref().map(time).transpose());
    rules.all(expires_at.map(|expires_at| (actions, expires_at)))
}

async fn take(
    State(app): State<App>,
    caller: Caller,
    Segments((kind, id, subject)): Segments<(ResourceType, ResourceId, Subject)>,
) -> Result<NoContent> {
    let resource = Resource { kind, id };
    let mut change = app.change_holding(&caller.actor, &held_for(&subject)).await?;
    let handed = Handed { actions: Vec::new(), until: None };
    may_change(&mut change, &caller, &resource, &subject, handed).await?;
    withdraw(&mut change, &resource, &subject).await?;
    change.commit_quietly("giving or withdrawing a grant records its own event").await?;
    Ok(NoContent)
}

async fn check(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<CheckBody>,
) -> Result<Json<CheckAnswer>> {
    let me = caller.signed_in()?;
    let mut rules = Rules::new();
    let subject =
        body.subject.as_deref().map(|text| word(text.parse(), "Use user:ID, role:NAME or anyone."));
    let subject = rules.check("/subject", subject.transpose());
    let action = rules.check("/action", word(body.action.parse(), NAME));
    let kind = rules.check("/resource_type", word(body.resource_type.parse(), NAME));
    let id = "Use 1 to 200 of the characters A-Z a-z 0-9 - . _ ~, not starting with a dot.";
    let id = rules.check("/resource_id", word(body.resource_id.parse(), id));
    let all = subject.zip(action).zip(kind.zip(id));
    let ((subject, action), (kind, id)) = rules.all(all)?;
    let subject = subject.unwrap_or(Subject::User(me.user));
    if subject != Subject::User(me.user)
        && subject != Subject::Anyone
        && !me.permissions.contains(READ.name)
    {
        let detail = "You are not allowed to check other subjects.";
        return Err(Error::new(Kind::Denied, "access.denied", detail));
    }
    let resource = Resource { kind, id };
    let because = match &subject {
        Subject::User(user) => {
            // A user who is disabled or deleted, or must set up a second factor first, may do only what anyone may.
            let may_act = |user: &Arc<User>| !user.disabled && !user.must_enrol(&app);
            let user = users::current(&app, *user).await?.filter(may_act);
            because(&app, user.map(|user| user.id), &resource, &action).await?
        }
        Subject::Anyone => because(&app, None, &resource, &action).await?,
        Subject::Role(_) => of_role(&app, &subject, &resource, &action).await?,
    };
    Ok(Json(CheckAnswer { allowed: because.is_some(), because }))
}

async fn of_role(
    app: &App,
    subject: &Subject,
    resource: &Resource,
    action: &Action,
) -> Result<Option<String>> {
    let names = [subject.to_string(), Subject::Anyone.to_string()];
    let given = list(app, resource).await?;
    let found = given
        .into_iter()
        .filter(|grant| grant.action == action.as_str() && names.contains(&grant.subject));
    // `role:…` before `anyone`.
    Ok(found.map(|grant| grant.subject).max())
}
