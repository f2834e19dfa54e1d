//! `palisade init`: writes a commented configuration, an example of the environment variables and a root key.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use palisade::settings::{RootKey, environment_example, template};
use serde_json::json;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::opening;
use crate::output::Output;

pub(crate) fn run(cli: &Cli, output: Output, production: bool) -> Result<(), Failure> {
    let config = cli.config.as_deref().unwrap_or(Path::new("palisade.toml"));
    let example = Path::new(".env.example");
    for path in [config, example] {
        // A dangling symbolic link counts as an existing file too.
        if path.symlink_metadata().is_ok() {
            return Err(Failure::failed(format!(
                "{} already exists; nothing was written",
                path.display()
            )));
        }
    }
    write_new(config, &template(production))?;
    write_new(example, &environment_example())?;
    // The file that was just written determines where the key is stored.
    let settings = opening::settings(cli)?.settings;
    opening::data_directory(&settings.data.directory)?;
    let mut written = vec![config.display().to_string(), example.display().to_string()];
    if let RootKey::File(path) = &settings.keys.root_key
        && opening::read_root_key(path, &settings.data.directory)?.is_none()
    {
        opening::create_root_key(path, &settings.data.directory)?;
        written.push(path.display().to_string());
    }
    output.result(&json!({ "written": written }), || {
        format!(
            "Written: {}\nStore the root key separately from the database and its backups. Without \
             it, the server does not start.\nNext: review {}, then run: palisade serve",
            written.join(", "),
            config.display()
        )
    });
    Ok(())
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        let detail = match error.kind() {
            ErrorKind::AlreadyExists => format!("{} already exists", path.display()),
            _ => format!("{} can't be written", path.display()),
        };
        Failure::failed(detail).because(error)
    })
}
