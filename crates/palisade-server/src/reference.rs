//! `palisade openapi`, `completions` and `man`: documentation of the server and its command line.

use std::io::Write as _;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::json;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::opening;
use crate::output::Output;
use crate::sources;

/// Prints the description of the API. It is JSON with or without `--json`.
pub(crate) fn openapi(cli: &Cli, output: Output) -> Result<(), Failure> {
    let settings = sources::settings(cli)?.settings;
    let document = opening::builder(settings).openapi();
    output.result(&document, || serde_json::to_string_pretty(&document).unwrap_or_default());
    Ok(())
}

/// Prints the completion script for a shell.
pub(crate) fn completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "palisade", &mut script);
    print(&script);
}

/// Prints the manual page, or writes one for every command into a directory.
pub(crate) fn man(output: Output, directory: Option<&Path>) -> Result<(), Failure> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(|error| Failure::failed("the manual page can't be written").because(error))?;
        print(&page);
        return Ok(());
    };
    clap_mangen::generate_to(Cli::command(), directory).map_err(|error| {
        let detail = format!("the manual pages can't be written into {}", directory.display());
        Failure::failed(detail).because(error)
    })?;
    let written = json!({ "directory": directory });
    output.result(&written, || format!("Wrote the manual pages into {}.", directory.display()));
    Ok(())
}

/// Prints bytes unchanged. If the reader has gone away, this is not an error.
fn print(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes);
    let _ = out.flush();
}
