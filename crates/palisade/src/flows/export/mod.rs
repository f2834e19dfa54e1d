//! The export: everything stored about a person, as one JSON object (GDPR articles 15 and 20).
//!
//! # Promises
//!
//! - The export contains a person's details, sessions, API keys, passkeys, changes of email address, grants and events,
//!   but no secrets.

mod http;

use palisade_db::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::access::Caller;
use crate::api_keys::{self, KeptKey};
use crate::app::App;
use crate::audit_log::{self, EventView, Filter};
use crate::email_change::{self, EmailChange};
use crate::error::{Result, bad_token};
use crate::grants::{self, GrantView};
use crate::mfa::{self, PasskeyView};
use crate::module::Module;
use crate::record::Event;
use crate::sessions::{self, KeptSession};
use crate::shape;
use crate::users::{self, UserView};

/// A user exported the data that is stored about them.
pub const EXPORTED: Event = Event {
    name: "account.exported",
    summary: "A user exported the data that is stored about them",
};

/// The slice's table of contents.
pub const MODULE: Module = Module {
    name: "export",
    routes: http::routes,
    limits: &[&http::EXPORT],
    events: &[EXPORTED],
    ..Module::EMPTY
};

/// All data stored about a user.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Export")]
struct Export {
    #[schemars(with = "shape::DateTime")]
    exported_at: Timestamp,
    user: UserView,
    /// The active sessions, and the ended ones that are still stored.
    sessions: Vec<KeptSession>,
    /// The API keys, without their secrets: the active ones, and the inactive ones that are still
    /// stored.
    api_keys: Vec<KeptKey>,
    /// The passkeys.
    passkeys: Vec<PasskeyView>,
    /// The changes of email address that are pending or can be undone.
    email_changes: Vec<EmailChange>,
    /// The grants on individual resources.
    grants: Vec<GrantView>,
    /// The events that the user caused or that concern them, newest first.
    activity: Vec<EventView>,
}

/// The number of events read at a time.
const PAGE: i64 = 1000;

/// Gathers the export, and records the event.
async fn export(app: &App, caller: &Caller) -> Result<Export> {
    let me = caller.signed_in()?;
    let user = users::find(app, me.user).await?.ok_or_else(bad_token)?;
    let now = app.clock.now();
    let export = Export {
        exported_at: now,
        user: UserView::new(&user, now),
        sessions: sessions::kept(app, me.user).await?,
        api_keys: api_keys::kept(app, me.user).await?,
        passkeys: mfa::passkeys_of(app, me.user).await?,
        email_changes: email_change::kept_changes(app, me.user).await?,
        grants: grants::of_user(app, me.user).await?,
        activity: activity(app, caller).await?,
    };
    app.change(&caller.actor).await?.commit(EXPORTED.about(me.user)).await?;
    Ok(export)
}

async fn activity(app: &App, caller: &Caller) -> Result<Vec<EventView>> {
    let person = Some(caller.signed_in()?.user.0);
    let mut all: Vec<EventView> = Vec::new();
    loop {
        let before = all.last().map(|event| (event.at, event.id.0));
        let page =
            audit_log::list(app, Filter { person, before, ..Filter::default() }, PAGE).await?;
        let last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
}
