//! `palisade key list` and `key rotate`.

use palisade::app::Actor;
use palisade::{App, keys};
use serde_json::json;

use crate::cli::{Cli, KeyAction};
use crate::failure::Failure;
use crate::opening;
use crate::output::{Output, table};

pub(crate) async fn run(cli: &Cli, output: Output, action: KeyAction) -> Result<(), Failure> {
    let loaded = opening::settings(cli)?;
    opening::with_app(&loaded.settings, output, async |app| act(app, output, action).await).await
}

async fn act(app: &App, output: Output, action: KeyAction) -> Result<(), Failure> {
    match action {
        KeyAction::List => {
            let all = keys::list(&app.db).await?;
            output.result(&json!({ "items": all }), || {
                let rows: Vec<Vec<String>> = all
                    .iter()
                    .map(|key| {
                        let retired = key.retired_at.map(|at| at.to_string());
                        vec![
                            key.kid.clone(),
                            key.purpose.clone(),
                            key.algorithm.clone(),
                            key.created_at.to_string(),
                            retired.unwrap_or_else(|| "in use".to_owned()),
                        ]
                    })
                    .collect();
                table(&["KID", "PURPOSE", "ALGORITHM", "CREATED", "RETIRED"], &rows)
            });
        }
        KeyAction::Rotate => {
            let made = keys::rotate(app, &Actor::operator()).await?;
            output.result(&json!({ "kids": made }), || {
                format!(
                    "New signing keys: {}\nTokens signed with the old keys stay valid until they \
                     expire.",
                    made.join(", ")
                )
            });
        }
    }
    Ok(())
}
