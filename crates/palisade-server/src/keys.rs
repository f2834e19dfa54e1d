//! `palisade key list` and `key rotate`.

use palisade::app::Actor;
use palisade::keys::{KeyState, KeyView};
use palisade::{App, keys};
use palisade_db::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::cli::{Cli, KeyAction, KeyPurpose};
use crate::failure::Failure;
use crate::opening;
use crate::output::{Output, table};
use crate::sources;

pub(crate) async fn run(cli: &Cli, output: Output, action: KeyAction) -> Result<(), Failure> {
    let loaded = sources::settings(cli)?;
    opening::with_app(&loaded.settings, output, async |app| act(app, output, action).await).await
}

async fn act(app: &App, output: Output, action: KeyAction) -> Result<(), Failure> {
    match action {
        KeyAction::List => list(app, output).await,
        KeyAction::Rotate { purpose: KeyPurpose::Signing, now } => rotate(app, output, now).await,
    }
}

/// A key with its state.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    key: KeyView,
    state: KeyState,
}

async fn list(app: &App, output: Output) -> Result<(), Failure> {
    let now = app.clock.now();
    let listed = |key: KeyView| Listed { state: key.state(now), key };
    let all: Vec<Listed> = keys::list(&app.db).await?.into_iter().map(listed).collect();
    output.result(&json!({ "items": all }), || {
        let rows: Vec<Vec<String>> = all
            .iter()
            .map(|Listed { key, state }| {
                let (kid, created_at) = (key.kid.clone(), key.created_at.to_string());
                let (purpose, algorithm) = (key.purpose.clone(), key.algorithm.clone());
                vec![kid, purpose, algorithm, created_at, described(key, *state)]
            })
            .collect();
        table(&["KID", "PURPOSE", "ALGORITHM", "CREATED", "STATE"], &rows)
    });
    Ok(())
}

fn described(key: &KeyView, state: KeyState) -> String {
    let since = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    match (state, key.retired_at) {
        (KeyState::Published, _) => format!("published, signs from {}", key.signs_from),
        (KeyState::InUse, Some(at)) => format!("in use until {at}"),
        (KeyState::InUse, None) => "in use".to_owned(),
        (KeyState::Retired, at) => format!("retired {}", since(at)),
        (KeyState::Dropped, _) => format!("dropped {}", since(key.dropped_at)),
    }
}

async fn rotate(app: &App, output: Output, now: bool) -> Result<(), Failure> {
    let operator = Actor::operator();
    let made = match now {
        true => keys::replace(app, &operator).await?,
        false => keys::rotate(app, &operator).await?,
    };
    output.result(&json!({ "keys": made }), || {
        let mut lines: Vec<String> =
            made.iter().map(|key| format!("{} signs from {}", key.kid, key.signs_from)).collect();
        lines.push(
            match now {
                true => "Every other signing key was dropped. Tokens signed with one are refused.",
                false => "Tokens signed with the old keys stay valid until they expire.",
            }
            .to_owned(),
        );
        lines.join("\n")
    });
    Ok(())
}
