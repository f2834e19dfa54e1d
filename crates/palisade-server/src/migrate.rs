//! `palisade migrate status` and `migrate up`.

use std::process::ExitCode;

use palisade::clock::Clock;
use palisade_db::{SchemaStatus, Status};
use serde_json::{Value, json};

use crate::cli::{Cli, MigrateAction};
use crate::failure::{FAILED, Failure};
use crate::opening;
use crate::output::{Output, table};
use palisade::visible::visible;

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
            count => format!("Migrations applied: {count}."),
        });
        db.close().await;
        return Ok(ExitCode::SUCCESS);
    }
    let status = db.migrations(&migrations).await?;
    let missing = status.missing();
    let shown = json!({
        "items": items(&status.migrations), "missing": missing, "unknown_modules": &status.unknown_modules,
    });
    output.result(&shown, || text(&status));
    db.close().await;
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn items(all: &[Status]) -> Vec<Value> {
    all.iter()
        .map(|status| {
            json!({
                "module": status.module, "number": status.number, "name": status.name,
                "applied_at": status.applied_at,
            })
        })
        .collect()
}

fn text(status: &SchemaStatus) -> String {
    let row = |status: &Status| {
        let at = status.applied_at.map(|at| at.to_string());
        let at = at.unwrap_or_else(|| "missing".to_owned());
        vec![status.module.clone(), status.number.to_string(), status.name.clone(), at]
    };
    let rows: Vec<Vec<String>> = status.migrations.iter().map(row).collect();
    let table = table(&["MODULE", "NUMBER", "NAME", "APPLIED"], &rows);
    if status.unknown_modules.is_empty() {
        return table;
    }
    let unknown = visible(&status.unknown_modules.join(", ")).into_owned();
    format!(
        "{table}\n\nModules in the database that are not part of this server (their tables stay unchanged): {unknown}"
    )
}
