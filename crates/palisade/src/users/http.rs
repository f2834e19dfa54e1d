//! `/users/me` and the administrators' view of users.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer};

use super::{READ, UserView, WRITE, check_name, current, enable, find, page, rename};
use crate::access::{Caller, SIGNED_IN, needs};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::{Body, Id, List, Paging, Params, Routes};
use crate::id::UserId;

pub(super) fn routes() -> Routes {
    Routes::at("/users")
        .get("/me", SIGNED_IN, me)
        .patch("/me", SIGNED_IN, change_me)
        .get("/", needs(READ), all)
        .get("/{id}", needs(READ), one)
        .post("/{id}/enable", needs(WRITE), enable_user)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    /// Absent: unchanged. Null: removed.
    #[serde(default, deserialize_with = "absent_or_null")]
    name: Option<Option<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    limit: Option<String>,
    cursor: Option<String>,
}

async fn me(State(app): State<App>, caller: Caller) -> Result<Json<UserView>> {
    view(&app, caller.signed_in()?.user).await
}

async fn change_me(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ChangeBody>,
) -> Result<Json<UserView>> {
    let user = caller.signed_in()?.user;
    if let Some(name) = body.name {
        let name = name.map(|name| check_name(&name)).transpose();
        let name = name.map_err(|broken| broken.at("/name"))?;
        rename(app.change(&caller.actor).await?, user, name).await?;
    }
    view(&app, user).await
}

async fn all(
    State(app): State<App>,
    Params(params): Params<ListParams>,
) -> Result<Json<List<UserView>>> {
    let paging = Paging::new(params.limit.as_deref(), params.cursor.as_deref())?;
    Ok(Json(page(&app, &paging).await?.map(|user| UserView::from(&user))))
}

async fn one(State(app): State<App>, Id(id): Id<UserId>) -> Result<Json<UserView>> {
    let user = find(&app, id).await?.ok_or_else(Error::not_found)?;
    Ok(Json(UserView::from(&user)))
}

async fn enable_user(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<UserId>,
) -> Result<StatusCode> {
    enable(app.change(&caller.actor).await?, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn view(app: &App, user: UserId) -> Result<Json<UserView>> {
    let user = current(app, user).await?.ok_or_else(Error::not_found)?;
    Ok(Json(UserView::from(&*user)))
}

/// Tells a field that is absent from one that is null.
fn absent_or_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
