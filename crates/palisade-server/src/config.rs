//! `palisade config check` and `config show`.

use palisade::settings::{Concern, Severity};
use serde_json::{Value, json};

use crate::cli::{Cli, ConfigAction};
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::sources;

pub(crate) fn run(cli: &Cli, output: Output, action: ConfigAction) -> Result<(), Failure> {
    let loaded = sources::settings(cli)?;
    match action {
        ConfigAction::Check => check(output, &loaded.concerns)?,
        ConfigAction::Show => {
            let rows = loaded.effective.iter().map(|setting| {
                let origin = setting.origin.to_string();
                (setting, origin)
            });
            let values: Vec<Value> = rows
                .clone()
                .map(|(setting, origin)| {
                    json!({
                        "key": setting.key, "value": setting.value, "origin": origin,
                        "secret": setting.secret,
                    })
                })
                .collect();
            output.result(&json!({ "settings": values }), || {
                let rows: Vec<Vec<String>> = rows
                    .map(|(setting, origin)| {
                        vec![setting.key.clone(), setting.value.clone(), origin]
                    })
                    .collect();
                table(&["KEY", "VALUE", "ORIGIN"], &rows)
            });
        }
    }
    Ok(())
}

/// Reports concerns. Those that are errors make the command fail.
fn check(output: Output, concerns: &[Concern]) -> Result<(), Failure> {
    let of = |wanted: Severity| -> Vec<String> {
        let found = concerns.iter().filter(|concern| concern.severity == wanted);
        found.map(|concern| concern.problem.to_string()).collect()
    };
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let warning = |text: &String| format!("warning: {text}");
    if errors.is_empty() {
        output.result(&json!({ "valid": true, "warnings": warnings }), || {
            let mut lines: Vec<String> = warnings.iter().map(warning).collect();
            lines.push("The settings are valid.".to_owned());
            lines.join("\n")
        });
        return Ok(());
    }
    let details = errors.into_iter().chain(warnings.iter().map(warning)).collect();
    Err(Failure { details, ..Failure::invalid_settings() })
}
