//! `palisade config check` and `config show`.

use serde_json::{Value, json};

use crate::cli::{Cli, ConfigAction};
use crate::failure::Failure;
use crate::opening;
use crate::output::{Output, table};

pub(crate) fn run(cli: &Cli, output: Output, action: ConfigAction) -> Result<(), Failure> {
    let loaded = opening::settings(cli)?;
    match action {
        ConfigAction::Check => {
            output.result(&json!({ "valid": true }), || "The settings are valid.".to_owned());
        }
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
