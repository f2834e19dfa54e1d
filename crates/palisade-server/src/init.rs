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
use crate::sources;

pub(crate) fn run(cli: &Cli, output: Output, production: bool) -> Result<(), Failure> {
    let config = sources::path(cli);
    // A file `.env` is read from the same directory.
    let example = config.with_file_name(".env.example");
    for path in [config, &example] {
        // A dangling symbolic link counts as an existing file too.
        if path.symlink_metadata().is_ok() {
            return Err(Failure::failed(format!(
                "{} already exists; nothing was written",
                path.display()
            )));
        }
    }
    // The file to write determines where the key is stored. It is written last, so that the command can run again if
    // the key can't be written.
    let text = template(production);
    let loaded = sources::settings_with(cli, Some((config.to_owned(), text.clone())))?;
    let settings = &loaded.settings;
    opening::data_directory(&settings.data.directory)?;
    let mut written = vec![config.display().to_string(), example.display().to_string()];
    if let RootKey::File(path) = &settings.keys.root_key
        && opening::read_root_key(path, &settings.data.directory)?.is_none()
    {
        opening::create_root_key(path, &settings.data.directory)?;
        written.push(path.display().to_string());
    }
    write_new(&example, &environment_example(production))?;
    write_new(config, &text)?;
    output.result(&json!({ "written": written }), || {
        format!(
            "Written: {}\nStore the root key separately from the database and its backups. Without \
             it, the server does not start.\n{}",
            written.join(", "),
            next_steps(cli, production)
        )
    });
    Ok(())
}

fn next_steps(cli: &Cli, production: bool) -> String {
    let file = sources::path(cli).display();
    let palisade = match &cli.config {
        Some(_) => format!("palisade --config {file}"),
        None => "palisade".to_owned(),
    };
    if !production {
        return format!("Next: review {file}, then run: {palisade} serve");
    }
    format!(
        "Next:\n\
         1. In {file}, set server.public_url, mail.smtp_url and mail.from. Name the proxy that \
         terminates TLS in server.trusted_proxies, or set server.tls.certificate and \
         server.tls.key.\n\
         2. Check the settings: {palisade} config check\n\
         3. Create the tables: {palisade} migrate up\n\
         4. Start the server: {palisade} serve\n\
         5. Print the link that creates the first administrator: {palisade} setup-link"
    )
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
