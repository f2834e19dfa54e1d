//! `palisade migrate status`, `migrate plan` and `migrate up`.

use std::process::ExitCode;

use palisade::clock::Clock;
use palisade_db::{Pending, SchemaStatus, Status};
use serde_json::{Value, json};

use crate::cli::{Cli, MigrateAction};
use crate::failure::{FAILED, Failure};
use crate::opening;
use crate::output::{Output, table};
use crate::sources;
use palisade::visible::visible;

pub(crate) async fn run(
    cli: &Cli,
    output: Output,
    action: MigrateAction,
) -> Result<ExitCode, Failure> {
    let loaded = sources::settings(cli)?;
    let (builder, db) = opening::database(&loaded.settings).await?;
    let migrations = builder.migrations();
    let code = match action {
        MigrateAction::Up => {
            let applied = db.migrate(&migrations, Clock::system().now()).await?;
            output.result(&json!({ "applied": items(&applied) }), || match applied.len() {
                0 => UP_TO_DATE.to_owned(),
                count => format!("Migrations applied: {count}."),
            });
            ExitCode::SUCCESS
        }
        MigrateAction::Plan => {
            let pending = db.pending(&migrations).await?;
            output.result(&json!({ "items": plan(&pending) }), || script(&pending));
            ExitCode::SUCCESS
        }
        MigrateAction::Status => {
            let status = db.migrations(&migrations).await?;
            let missing = status.missing();
            let shown = json!({
                "items": items(&status.migrations), "missing": missing, "unknown_modules": &status.unknown_modules,
            });
            output.result(&shown, || text(&status));
            if missing == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
        }
    };
    db.close().await;
    Ok(code)
}

const UP_TO_DATE: &str = "The schema is up to date.";

fn plan(pending: &[Pending]) -> Vec<Value> {
    let item = |pending: &Pending| {
        let Status { module, number, name, .. } = &pending.status;
        json!({ "module": module, "number": number, "name": name, "sql": pending.sql })
    };
    pending.iter().map(item).collect()
}

/// Returns the pending migrations as an SQL script, each below a comment that names it.
fn script(pending: &[Pending]) -> String {
    if pending.is_empty() {
        return UP_TO_DATE.to_owned();
    }
    let item = |pending: &Pending| {
        let Status { module, number, name, .. } = &pending.status;
        format!("-- migration {number} of {module} ({name})\n{}\n", pending.sql.trim_end())
    };
    let items: Vec<String> = pending.iter().map(item).collect();
    format!(
        "-- palisade migrate up applies these migrations and records them in schema_migrations.\n\n{}",
        items.join("\n")
    )
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
