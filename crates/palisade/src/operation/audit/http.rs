//! `GET /audit`, for users who may read the log, and `GET /users/me/activity`, for users to view their own activity.

use axum::Json;
use axum::extract::State;
use palisade_db::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::READ;
use crate::access::{Caller, SIGNED_IN, needs};
use crate::app::App;
use crate::audit_log::{EventView, Filter, list};
use crate::error::{Error, Result};
use crate::http::{Cursor, List, Paging, Params, Routes};
use crate::shape;

pub(super) fn routes() -> Routes {
    Routes::at("/audit")
        .get("/", needs(READ), all)
        .summary("Lists the events of the audit log, newest first.")
        .and(Routes::at("/users/me").get("/activity", SIGNED_IN, activity).summary(
            "Lists the events that the signed-in user caused or that concern them, newest first.",
        ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AuditParams {
    /// Only events caused by this user.
    #[schemars(with = "Option<shape::Uuid>")]
    actor: Option<String>,
    /// Only events that concern this user or object.
    #[schemars(with = "Option<shape::Uuid>")]
    target: Option<String>,
    /// Only events with this name, such as `login.denied`.
    #[schemars(length(max = 100))]
    action: Option<String>,
    /// Only events at or after this time.
    #[schemars(with = "Option<shape::DateTime>")]
    since: Option<String>,
    /// Only events before this time.
    #[schemars(with = "Option<shape::DateTime>")]
    until: Option<String>,
    /// The maximum number of items on a page.
    #[schemars(with = "Option<shape::PageSize>")]
    limit: Option<String>,
    /// The `next_cursor` of the previous page.
    #[schemars(with = "Option<shape::PageCursor>")]
    cursor: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ActivityParams {
    /// The maximum number of items on a page.
    #[schemars(with = "Option<shape::PageSize>")]
    limit: Option<String>,
    /// The `next_cursor` of the previous page.
    #[schemars(with = "Option<shape::PageCursor>")]
    cursor: Option<String>,
}

/// The maximum length of an event name.
const LONGEST_NAME: usize = 100;

fn event(parameter: &str, name: Option<String>) -> Result<Option<String>> {
    if name.as_ref().is_some_and(|name| name.chars().count() > LONGEST_NAME) {
        let detail = format!("Use at most {LONGEST_NAME} characters.");
        return Err(Error::bad_field(parameter, "request.too_long", detail));
    }
    Ok(name)
}

async fn all(
    State(app): State<App>,
    Params(params): Params<AuditParams>,
) -> Result<Json<List<EventView>>> {
    let paging = Paging::new(params.limit.as_deref(), params.cursor.as_deref())?;
    let filter = Filter {
        actor: id("actor", params.actor.as_deref())?,
        about: id("target", params.target.as_deref())?,
        event: event("action", params.action)?,
        since: time("since", params.since.as_deref())?,
        until: time("until", params.until.as_deref())?,
        ..Filter::default()
    };
    page(&app, filter, &paging).await
}

async fn activity(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ActivityParams>,
) -> Result<Json<List<EventView>>> {
    let paging = Paging::new(params.limit.as_deref(), params.cursor.as_deref())?;
    let person = Some(caller.signed_in()?.user.0);
    page(&app, Filter { person, ..Filter::default() }, &paging).await
}

async fn page(app: &App, mut filter: Filter, paging: &Paging) -> Result<Json<List<EventView>>> {
    filter.before = paging.after.map(|Cursor(at, id)| (at, id));
    let events = list(app, filter, paging.rows()).await?;
    Ok(Json(List::page(events, paging, |event| Cursor(event.at, event.id.0))))
}

fn id(name: &str, text: Option<&str>) -> Result<Option<Uuid>> {
    text.map(Uuid::try_parse)
        .transpose()
        .map_err(|_| Error::bad_field(name, "request.bad_id", "Use an id that the API returned."))
}

fn time(name: &str, text: Option<&str>) -> Result<Option<Timestamp>> {
    let wrong = || {
        let detail = "Use a time like 2026-01-31T12:00:00Z (RFC 3339).";
        Error::bad_field(name, "request.bad_time", detail)
    };
    text.map(Timestamp::parse_rfc3339).transpose().map_err(|_| wrong())
}
