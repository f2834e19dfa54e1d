#![no_main]
//! A configuration file and environment variables: loading returns settings, or problems that name a key.

use libfuzzer_sys::fuzz_target;
use palisade::settings::{Settings, Sources};

fuzz_target!(|input: (String, Vec<(String, String)>)| {
    let (file, environment) = input;
    let environment = environment
        .into_iter()
        .map(|(name, value)| (format!("PALISADE_{name}"), value))
        // Reading the machine's files isn't what is tested.
        .filter(|(name, _)| !name.ends_with("_FILE"))
        .collect();
    let sources = Sources {
        file: Some(("palisade.toml".into(), file)),
        environment,
        ..Sources::default()
    };
    if let Err(problems) = Settings::load(sources) {
        let _ = format!("{problems:?}");
    }
});
