//! `palisade audit verify` and `palisade audit reseal`.

use std::process::ExitCode;

use palisade::App;
use palisade::audit::{self, Fault};
use palisade::audit_log;
use serde_json::{Value, json};

use crate::cli::{AuditAction, Cli};
use crate::failure::Failure;
use crate::opening;
use crate::output::Output;
use crate::sources;

pub(crate) async fn run(
    cli: &Cli,
    output: Output,
    action: AuditAction,
) -> Result<ExitCode, Failure> {
    let loaded = sources::settings(cli)?;
    let act = async |app: &App| match action {
        AuditAction::Verify => verify(app, output).await,
        AuditAction::Reseal => reseal(app, output).await,
    };
    opening::with_app(&loaded.settings, output, act).await
}

async fn verify(app: &App, output: Output) -> Result<ExitCode, Failure> {
    match audit::verify(&app.db, &app.audit_keys).await? {
        Ok(records) => {
            let result = json!({ "intact": true, "records": records, "first_bad": null });
            output.result(&result, || format!("The audit log is intact. Records: {records}."));
            Ok(ExitCode::SUCCESS)
        }
        Err(fault) => {
            let result =
                json!({ "intact": false, "records": fault.good, "first_bad": first_bad(&fault) });
            output.result(&result, || {
                format!("The audit log was tampered with: {}.", for_people(&fault))
            });
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn reseal(app: &App, output: Output) -> Result<ExitCode, Failure> {
    let found = audit_log::reseal(app).await?;
    let (kind, detail) = found.map(|(kind, detail)| (kind.as_str(), detail)).unzip();
    let result = json!({ "resealed": found.is_some(), "kind": kind, "detail": detail });
    output.result(&result, || match detail {
        None => "The end of the audit log is intact. Nothing was changed.".to_owned(),
        Some(detail) => format!(
            "The audit log has a new head, because {detail}. Verify the log again with: palisade audit verify"
        ),
    });
    Ok(ExitCode::SUCCESS)
}

fn first_bad(fault: &Fault) -> Value {
    json!({
        "index": fault.index,
        "id": fault.id.map(|id| id.to_string()),
        "kind": fault.kind.as_str(),
        "detail": fault.detail,
    })
}

fn for_people(fault: &Fault) -> String {
    let place = fault.index.map(|index| format!("position {index}"));
    let record = fault.id.map(|id| format!("record {id}"));
    let place: Vec<String> =
        [Some(fault.kind.as_str().to_owned()), place, record].into_iter().flatten().collect();
    format!("{} ({})", fault.detail, place.join(", "))
}
