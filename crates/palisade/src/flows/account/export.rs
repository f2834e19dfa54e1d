//! Everything that is kept of a person, as one JSON object (GDPR articles 15 and 20).

use palisade_db::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::EXPORTED;
use crate::access::Caller;
use crate::api_keys::{self, KeptKey};
use crate::app::App;
use crate::audit::{self, EventView, Filter};
use crate::error::{Result, bad_token};
use crate::grants::{self, GrantView};
use crate::mfa::{self, PasskeyView};
use crate::recovery::{self, AddressChange};
use crate::sessions::{self, KeptSession};
use crate::shape;
use crate::users::{self, UserView};

/// Everything that is kept of a person.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Export")]
pub(super) struct Export {
    #[schemars(with = "shape::DateTime")]
    exported_at: Timestamp,
    user: UserView,
    /// The sessions that are alive, and those that were and aren't forgotten yet.
    sessions: Vec<KeptSession>,
    /// The API keys, without what they are shown by: those that work, and those that did and aren't forgotten yet.
    api_keys: Vec<KeptKey>,
    /// Their passkeys.
    passkeys: Vec<PasskeyView>,
    /// Changes of address that wait or can be undone.
    address_changes: Vec<AddressChange>,
    /// What they were granted on single resources.
    grants: Vec<GrantView>,
    /// What they did and what was done to them, newest first.
    activity: Vec<EventView>,
}

/// So many events are read at once.
const PAGE: i64 = 1000;

/// Gathers it.
pub(super) async fn export(app: &App, caller: &Caller) -> Result<Export> {
    let me = caller.signed_in()?;
    let user = users::find(app, me.user).await?.ok_or_else(bad_token)?;
    let now = app.clock.now();
    let export = Export {
        exported_at: now,
        user: UserView::new(&user, now),
        sessions: sessions::kept(app, me.user).await?,
        api_keys: api_keys::kept(app, me.user).await?,
        passkeys: mfa::passkeys_of(app, me.user).await?,
        address_changes: recovery::kept_changes(app, me.user).await?,
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
        let page = audit::list(app, Filter { person, before, ..Filter::default() }, PAGE).await?;
        let last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
}
