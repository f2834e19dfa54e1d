//! `palisade audit verify`.

use std::process::ExitCode;

use palisade::audit;
use serde_json::json;

use crate::cli::{AuditAction, Cli};
use crate::failure::Failure;
use crate::opening;
use crate::output::Output;

pub(crate) async fn run(
    cli: &Cli,
    output: Output,
    AuditAction::Verify: AuditAction,
) -> Result<ExitCode, Failure> {
    let loaded = opening::settings(cli)?;
    let app = opening::open(&loaded.settings).await?.app;
    let found = audit::verify(&app.db, &app.audit_keys).await?;
    app.db.close().await;
    match found {
        Ok(records) => {
            let result = json!({ "intact": true, "records": records });
            output.result(&result, || format!("The audit log is intact: {records} records."));
            Ok(ExitCode::SUCCESS)
        }
        Err(fault) => {
            let event = fault.event.map(|id| id.to_string());
            let result = json!({
                "intact": false, "position": fault.position, "event": event, "says": fault.says,
            });
            output.result(&result, || {
                let place = fault
                    .position
                    .map_or("outside the chain".to_owned(), |at| format!("at position {at}"));
                let event = event.unwrap_or_else(|| "unknown".to_owned());
                format!(
                    "The audit log was tampered with: {} ({place}, record {event}).",
                    fault.says
                )
            });
            Ok(ExitCode::FAILURE)
        }
    }
}
