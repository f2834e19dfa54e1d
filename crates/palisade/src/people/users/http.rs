//! `/users/me`, and the routes with which administrators view and enable users.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::email;
use super::{
    CHANGED, READ, UserView, WRITE, change_manageable, check_name, current, enable, find, page,
    set_name,
};
use crate::access::{Caller, SIGNED_IN, needs};
use crate::app::{App, Hold};
use crate::error::{Error, Kind, Result, bad_token};
use crate::http::{Body, Id, List, NoContent, Paging, Params, Routes, Written};
use crate::id::UserId;
use crate::shape;

pub(super) fn routes() -> Routes {
    Routes::at("/users")
        .get("/me", SIGNED_IN.keys().enrolling(), me)
        .summary("Returns the signed-in user.")
        .patch("/me", SIGNED_IN, change_me)
        .summary("Updates the given fields of the signed-in user.")
        .get("/", needs(READ), all)
        .summary(
            "Lists all users, oldest first.\n\nIf `query` is set, lists the users whose email \
             address starts with it, sorted by email address, and then the users whose name starts \
             with it, sorted by name.",
        )
        .get("/{id}", needs(READ), one)
        .summary("Returns a user.")
        .post("/{id}/enable", needs(WRITE).fresh(), enable_user)
        .summary("Enables a disabled user.\n\nThe user can sign in again.")
        .or(Kind::Denied, "access.exceeds_own")
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    /// Omit to leave unchanged; null removes it.
    #[serde(default, deserialize_with = "absent_or_null")]
    #[schemars(with = "Option<shape::Label>")]
    name: Option<Option<String>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// The maximum number of items on a page.
    #[schemars(with = "Option<shape::PageSize>")]
    limit: Option<String>,
    /// The `next_cursor` of the previous page.
    #[schemars(with = "Option<shape::PageCursor>")]
    cursor: Option<String>,
    /// Only users whose email address or name starts with this text.
    #[schemars(with = "Option<shape::Label>")]
    query: Option<String>,
}

async fn me(State(app): State<App>, caller: Caller) -> Result<Written<UserView>> {
    view(&app, caller.signed_in()?.user).await
}

async fn change_me(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ChangeBody>,
) -> Result<Written<UserView>> {
    let user = caller.signed_in()?.user;
    if let Some(name) = body.name {
        let name = name.map(|name| check_name(&name)).transpose();
        let name = name.map_err(|broken| broken.at("/name"))?;
        let mut change = app.change(&caller.actor).await?;
        if set_name(&mut change, user, name).await? {
            change.commit(CHANGED.about(user).detail("field", "name")).await?;
        }
    }
    view(&app, user).await
}

async fn all(
    State(app): State<App>,
    Params(params): Params<ListParams>,
) -> Result<Json<List<UserView>>> {
    let paging = Paging::new(params.limit.as_deref(), params.cursor.as_deref())?;
    let query = params.query.as_deref().map(|query| query.trim_matches(email::is_margin));
    let query = query.map(check_name).transpose().map_err(|_| {
        let detail = "Use the beginning of an email address or a name, 1 to 200 characters.";
        Error::bad_field("query", "request.bad_query", detail)
    })?;
    let now = app.clock.now();
    let found = page(&app, query.as_deref(), &paging).await?;
    Ok(Json(found.map(|user| UserView::new(&user, now))))
}

async fn one(State(app): State<App>, Id(id): Id<UserId>) -> Result<Json<UserView>> {
    let user = find(&app, id).await?.ok_or_else(Error::not_found)?;
    Ok(Json(UserView::new(&user, app.clock.now())))
}

async fn enable_user(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<UserId>,
) -> Result<NoContent> {
    let (change, _) = change_manageable(&app, &caller, id, &[Hold::Shared(id)]).await?;
    enable(change, id).await?;
    Ok(NoContent)
}

async fn view(app: &App, user: UserId) -> Result<Written<UserView>> {
    current(app, user).await?.ok_or_else(bad_token)?.written(app.clock.now())
}

/// Distinguishes an absent field from a field that is null.
///
/// # Errors
/// Returns an error if the field is neither null nor text.
pub fn absent_or_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
