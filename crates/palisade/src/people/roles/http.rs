//! `/roles`, `/permissions`, `/users/{id}/roles/{role}`.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    READ, Role, RoleName, WRITE, Wanted, change, create, delete, find, grant, held_for_revoking,
    list, revoke,
};
use crate::access::{Caller, needs};
use crate::app::{App, Hold};
use crate::error::{Broken, Error, Kind, Result, Rules};
use crate::http::{Body, Created, Id, List, NoContent, Routes, Segments};
use crate::id::UserId;
use crate::shape;
use crate::users::{self, AllPermissions};

pub(super) fn routes() -> Routes {
    Routes::at("/roles")
        .get("/", needs(READ), all)
        .summary("Lists all roles, by name.")
        .post("/", needs(WRITE).fresh(), make)
        .summary("Creates a role.\n\nYou must hold all its permissions.")
        .or(Kind::Denied, "access.exceeds_own")
        .or(Kind::Conflict, "roles.taken")
        .or(Kind::Conflict, "roles.too_many")
        .get("/{role}", needs(READ), one)
        .summary("Returns a role.")
        .patch("/{role}", needs(WRITE).fresh(), alter)
        .summary(
            "Updates the given fields of a role.\n\nYou must hold every permission that you add or \
             remove.",
        )
        .or(Kind::Denied, "access.exceeds_own")
        .or(Kind::Conflict, "roles.built_in")
        .delete("/{role}", needs(WRITE).fresh(), remove)
        .summary(
            "Deletes a role and removes it from every user.\n\nYou must hold all permissions of \
             the role. If the role has grants on resources, you must also hold the role itself or \
             the permission `resources:write`.",
        )
        .or(Kind::Denied, "access.exceeds_own")
        .or(Kind::Conflict, "roles.built_in")
        .and(
            Routes::at("/permissions")
                .get("/", needs(READ), permissions)
                .summary("Lists the permissions that exist."),
        )
        .and(
            Routes::at("/users/{id}/roles")
                .put("/{role}", needs(users::WRITE).fresh(), give)
                .summary(
                    "Gives a user a role.\n\nYou must hold all permissions of the role. If the \
                     role has grants on resources, you must also hold the role itself or the \
                     permission `resources:write`.",
                )
                .or(Kind::Denied, "access.exceeds_own")
                .delete("/{role}", needs(users::WRITE).fresh(), take)
                .summary("Removes a role from a user.")
                .or(Kind::Denied, "access.exceeds_own")
                .or(Kind::Conflict, "roles.built_in")
                .or(Kind::Conflict, "users.last_admin"),
        )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RoleBody {
    #[schemars(with = "shape::Name")]
    name: String,
    /// What the role is for.
    #[schemars(with = "Option<shape::Label>")]
    description: Option<String>,
    /// The permissions of the role: names from `GET /permissions`.
    #[schemars(with = "Vec<shape::Permission>", length(max = 200))]
    permissions: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RoleChangeBody {
    /// Omit to leave unchanged.
    #[schemars(with = "Option<shape::Label>")]
    description: Option<String>,
    /// Omit to leave unchanged.
    #[schemars(with = "Option<Vec<shape::Permission>>", length(max = 200))]
    permissions: Option<Vec<String>>,
}

/// The maximum number of permissions in a request.
const MOST_PERMISSIONS: usize = 200;

/// A permission that a role can have.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Permission")]
struct PermissionView {
    /// `area:verb`.
    name: &'static str,
    /// What the permission allows.
    description: &'static str,
}

fn known(app: &App, names: Vec<String>) -> Result<BTreeSet<String>> {
    if names.len() > MOST_PERMISSIONS {
        let detail = "Use at most 200 permissions.";
        return Err(Error::bad_field("/permissions", "roles.too_many_permissions", detail));
    }
    let existing = app.state::<AllPermissions>();
    let mut rules = Rules::new();
    let mut good = BTreeSet::new();
    for (number, name) in names.into_iter().enumerate() {
        let there = if existing.0.contains(&name) {
            Ok(name)
        } else {
            let detail = "This permission does not exist. See GET /api/v1/permissions.";
            Err(Broken::new("roles.unknown_permission", detail))
        };
        good.extend(rules.check(&format!("/permissions/{number}"), there));
    }
    rules.all(Some(good))
}

fn description(text: Option<&str>) -> Result<Option<String>> {
    text.map(users::check_name).transpose().map_err(|_| {
        let detail = "Use a description of 1 to 200 characters, without invisible characters.";
        Error::bad_field("/description", "roles.bad_description", detail)
    })
}

async fn all(State(app): State<App>) -> Result<Json<List<Role>>> {
    Ok(Json(List { items: list(&app).await?, next_cursor: None }))
}

async fn make(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<RoleBody>,
) -> Result<Created<Role>> {
    let name: RoleName = body.name.parse().map_err(|()| {
        let detail =
            "Use 1 to 50 characters: lowercase letters, digits, - and _, starting with a letter.";
        Error::bad_field("/name", "roles.bad_name", detail)
    })?;
    let description = description(body.description.as_deref())?.unwrap_or_default();
    let wanted = Wanted { description, permissions: known(&app, body.permissions)? };
    create(app.change(&caller.actor).await?, &name, wanted).await?;
    find(&app, &name).await?.map(Created).ok_or_else(Error::not_found)
}

async fn one(State(app): State<App>, Id(name): Id<RoleName>) -> Result<Json<Role>> {
    find(&app, &name).await?.map(Json).ok_or_else(Error::not_found)
}

async fn alter(
    State(app): State<App>,
    caller: Caller,
    Id(name): Id<RoleName>,
    Body(body): Body<RoleChangeBody>,
) -> Result<Json<Role>> {
    let description = description(body.description.as_deref())?;
    let permissions = body.permissions.map(|names| known(&app, names)).transpose()?;
    let held = app.change_holding(&caller.actor, &[Hold::Roles]).await?;
    change(held, &name, description, permissions).await?;
    find(&app, &name).await?.map(Json).ok_or_else(Error::not_found)
}

async fn remove(
    State(app): State<App>,
    caller: Caller,
    Id(name): Id<RoleName>,
) -> Result<NoContent> {
    // Looked up before the lock that all roles share is taken.
    find(&app, &name).await?.ok_or_else(Error::not_found)?;
    delete(app.change_holding(&caller.actor, &[Hold::Roles]).await?, &name).await?;
    Ok(NoContent)
}

async fn permissions(State(app): State<App>) -> Json<List<PermissionView>> {
    let view = |permission: &crate::module::Permission| PermissionView {
        name: permission.name,
        description: permission.summary,
    };
    let items = app.state::<AllPermissions>().1.iter().map(view).collect();
    Json(List { items, next_cursor: None })
}

async fn give(
    State(app): State<App>,
    caller: Caller,
    Segments((id, role)): Segments<(UserId, RoleName)>,
) -> Result<NoContent> {
    let (change, _) = users::change_manageable(&app, &caller, id, &[Hold::Shared(id)]).await?;
    grant(change, id, &role).await?;
    Ok(NoContent)
}

async fn take(
    State(app): State<App>,
    caller: Caller,
    Segments((id, role)): Segments<(UserId, RoleName)>,
) -> Result<NoContent> {
    let holds = held_for_revoking(id);
    let (change, _) = users::change_manageable(&app, &caller, id, &holds).await?;
    revoke(change, id, &role).await?;
    Ok(NoContent)
}
