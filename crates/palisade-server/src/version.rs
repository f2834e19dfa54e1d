//! `palisade version`: what this program is and what it was built with.

use std::collections::BTreeMap;

use palisade::settings::{Settings, Sources};
use palisade::{Builder, MODULES};
use palisade_db::Migration;
use serde_json::json;

use crate::failure::Failure;
use crate::opening;
use crate::output::Output;

/// The commit, if the build was told in the environment variable `BUILD_COMMIT`.
const COMMIT: Option<&str> = option_env!("BUILD_COMMIT");
const VERSION: &str = env!("CARGO_PKG_VERSION");
const TARGET: &str = env!("BUILD_TARGET");
const RUSTC: &str = env!("BUILD_RUSTC");
const PROFILE: &str = env!("BUILD_PROFILE");

/// Prints the version.
pub(crate) async fn run(output: Output) -> Result<(), Failure> {
    let commit = COMMIT.filter(|commit| !commit.is_empty());
    let builder = opening::builder(Settings::load(Sources::default())?.settings);
    let result = json!({
        "version": VERSION,
        "commit": commit,
        "target": TARGET,
        "rustc": RUSTC,
        "profile": PROFILE,
        "sqlite": palisade_db::sqlite_version().await?,
        "tls": { "library": "rustls", "cryptography": "aws-lc-rs", "versions": ["1.3", "1.2"] },
        "schema": schema(&builder),
    });
    output.result(&result, || {
        let commit = commit.map_or_else(String::new, |commit| format!("commit {commit}, "));
        format!("palisade {VERSION} ({commit}{TARGET}, {PROFILE}, {RUSTC})")
    });
    Ok(())
}

/// Returns the number of the newest migration of each module, whether or not the settings switch the module on.
fn schema(builder: &Builder) -> BTreeMap<&'static str, i64> {
    let mut newest = BTreeMap::new();
    let all = MODULES.iter().flat_map(|module| module.migrations).copied();
    for Migration { module, number, .. } in builder.migrations().into_iter().chain(all) {
        let known = newest.entry(module).or_insert(number);
        *known = number.max(*known);
    }
    newest
}
