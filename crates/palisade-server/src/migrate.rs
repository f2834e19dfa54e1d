//! `palisade migrate status` and `migrate up`.

use std::process::ExitCode;

use palisade::clock::Clock;
use palisade_db::Status;
use serde_json::{Value, json};

use crate::cli::{Cli, MigrateAction};
use crate::failure::{FAILED, Failure};
use crate::opening;
use crate::output::{Output, table};

pub(crate) async fn run(
    cli: &Cli,
    output: Output,
    action: MigrateAction,
) -> Result<ExitCode, Failure> {
    let loaded = opening::settings(cli)?;
    let (builder, db) = opening::database(&loaded.settings).await?;
    let migrations = builder.migrations();
    if let MigrateAction::Up = action {
        let applied = db.migrate(&migrations, Clock::system().now()).await?;
        output.result(&json!({ "applied": items(&applied) }), || match applied.len() {
            0 => "The schema is up to date.".to_owned(),
            count => format!("Applied {count} migrations."),
        });
        db.close().await;
        return Ok(ExitCode::SUCCESS);
    }
    let status = db.migrations(&migrations).await?;
    let missing = status.iter().filter(|status| status.applied_at.is_none()).count();
    output.result(&json!({ "items": items(&status), "missing": missing }), || {
        let rows: Vec<Vec<String>> = status
            .iter()
            .map(|status| {
                let at = status.applied_at.map(|at| at.to_string());
                let at = at.unwrap_or_else(|| "missing".to_owned());
                vec![status.version.to_string(), status.name.clone(), at]
            })
            .collect();
        table(&["VERSION", "NAME", "APPLIED"], &rows)
    });
    db.close().await;
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn items(all: &[Status]) -> Vec<Value> {
    all.iter()
        .map(|status| {
            json!({
                "version": status.version, "name": status.name, "applied_at": status.applied_at,
            })
        })
        .collect()
}
