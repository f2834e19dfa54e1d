//! The binary `palisade`: the server and its command line.
//!
//! The library does the work. This crate reads the settings and the root key, prints, logs and sets the exit code.

mod audit;
mod cli;
mod config;
mod failure;
mod filtered;
mod front;
mod health;
mod init;
mod keys;
mod log;
mod migrate;
mod notify;
mod opening;
mod output;
mod process;
mod reference;
mod serve;
mod signals;
mod sources;
mod users;
mod version;

use std::process::ExitCode;
use std::time::Duration;

use cli::{Cli, Command};
use failure::Failure;
use output::Output;

/// jemalloc returns unused memory to the system from a background thread, even while nothing is allocated
/// (`docs/decisions/0014`).
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long an exiting process waits for its threads.
const LINGERING: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if let Some(code) = filtered::tried() {
        return code;
    }
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let output = Output { json: cli.json };
    match start(&cli, output) {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit_code)
        }
    }
}

fn start(cli: &Cli, output: Output) -> Result<ExitCode, Failure> {
    // Before any secret is read.
    process::forbid_core_dumps()?;
    // Before the first thread.
    filtered::leave_out_what_is_forbidden(matches!(cli.command, Command::Serve));
    // Before the first connection, so that rustls doesn't have to guess the provider.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return Err(Failure::failed("the TLS provider was installed twice"));
    }
    let runtime = palisade::runtime::new()
        .map_err(|error| Failure::failed("can't start threads").because(error))?;
    let done = runtime.block_on(run(cli, output));
    // A blocking call that doesn't return, such as the look-up of a host name, must not keep the process.
    runtime.shutdown_timeout(LINGERING);
    done
}

async fn run(cli: &Cli, output: Output) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Serve => serve::run(cli, output).await?,
        Command::Init { production } => init::run(cli, output, *production)?,
        Command::Config { action } => config::run(cli, output, *action)?,
        Command::SetupLink => users::setup_link(cli, output).await?,
        Command::User { action } => users::run(cli, output, action).await?,
        Command::Key { action } => keys::run(cli, output, *action).await?,
        Command::Openapi => reference::openapi(cli, output)?,
        Command::Completions { shell } => reference::completions(*shell),
        Command::Man { directory } => reference::man(output, directory.as_deref())?,
        Command::Audit { action } => return audit::run(cli, output, *action).await,
        Command::Health => health::run(cli, output)?,
        Command::Version => version::run(output).await?,
        Command::Migrate { action } => return migrate::run(cli, output, *action).await,
    }
    Ok(ExitCode::SUCCESS)
}
