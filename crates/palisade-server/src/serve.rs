//! `palisade serve`.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use palisade::app::Actor;
use palisade::error::Kind;
use palisade::http::client::TrustedProxies;
use palisade::http::serve::{Drained, Limits, serve, tls};
use palisade::settings::Settings;
use palisade::{App, registration};
use palisade_db::{Backend, ServerLock, ServerLockError};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::log;
use crate::opening::{self, Open};
use crate::output::Output;

/// Runs the server until it is told to stop.
pub(crate) async fn run(cli: &Cli, output: Output) -> Result<(), Failure> {
    let loaded = opening::settings(cli)?;
    let settings = &loaded.settings;
    let log = log::start(settings)?;
    opening::data_directory(&settings.data.directory)?;
    let lock = lock(settings)?;
    let Open { app, builder } = opening::open(settings).await?;
    let public = bind("server.listen", settings.server.listen).await?;
    let admin = bind("server.admin_listen", settings.server.admin_listen).await?;
    let tls = match (&settings.server.tls.certificate, &settings.server.tls.key) {
        (Some(certificate), Some(key)) => Some(tls::load(certificate, key).map_err(|error| {
            Failure::failed("server.tls: the certificate and key can't be used").because(error)
        })?),
        _ => None,
    };
    let running = builder.run(&app).await?;
    greet(&app, output, &public, tls.is_some()).await?;
    warn_of_weaknesses(settings);
    let (stop, stopped) = watch::channel(false);
    let limits = limits(settings);
    let both = tokio::spawn({
        let (public_service, admin_service) = (builder.service(&app), builder.admin_service(&app));
        let (first, second) = (until(stopped.clone()), until(stopped));
        async move {
            tokio::join!(
                serve(public, tls, public_service, limits.clone(), first),
                serve(admin, None, admin_service, limits, second),
            )
        }
    });
    told_to_stop().await?;
    tracing::info!("stopping: no new connections, requests in flight are finished");
    stop.send_replace(true);
    let ends = both.await.map_err(|error| Failure::failed("a listener failed").because(error))?;
    for end in [ends.0, ends.1] {
        match end {
            Ok(Drained::Finished) => {}
            Ok(Drained::Cut(count)) => tracing::warn!(count, "connections were cut"),
            Err(error) => return Err(Failure::failed("a listener failed").because(error)),
        }
    }
    running.stop().await;
    app.db.close().await;
    drop(lock);
    tracing::info!("stopped");
    log.flush();
    Ok(())
}

/// SQLite belongs to one server at a time.
fn lock(settings: &Settings) -> Result<Option<ServerLock>, Failure> {
    let Some(path) = settings.database_url().expose().strip_prefix("sqlite:") else {
        return Ok(None);
    };
    let directory = Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty());
    match ServerLock::acquire(directory.unwrap_or(Path::new("."))) {
        Ok(lock) => Ok(Some(lock)),
        Err(ServerLockError::Held { directory, process }) => {
            let who = process.map_or("another process".to_owned(), |id| format!("process {id}"));
            Err(Failure::failed(format!(
                "{who} already serves from {}; stop it first, or give this server a data.directory of \
                 its own. Several servers on the same data need PostgreSQL (database.url).",
                directory.display()
            )))
        }
        Err(error) => Err(Failure::failed("the data directory can't be locked").because(error)),
    }
}

async fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let says = format!("can't listen on {address}; choose another address with {setting}");
        Failure::failed(says).because(error)
    })
}

fn limits(settings: &Settings) -> Limits {
    let trusted = TrustedProxies::new(settings.server.trusted_proxies.clone());
    Limits {
        exempt: Arc::new(move |address| address.is_loopback() || trusted.contains(address)),
        drain: settings.server.shutdown_timeout,
        ..Limits::default()
    }
}

/// Says where the server is and, while there is no administrator, how to make one.
async fn greet(
    app: &App,
    output: Output,
    listener: &TcpListener,
    tls: bool,
) -> Result<(), Failure> {
    let address = listener.local_addr().map_err(|e| Failure::failed("no address").because(e))?;
    let scheme = if tls { "https" } else { "http" };
    let link = match registration::setup_link(app, &Actor::operator()).await {
        Ok(link) => Some(link),
        Err(error) if error.kind() == Kind::Gone => None,
        Err(error) => return Err(error.into()),
    };
    let url = &app.settings.server.public_url;
    let database = match app.db.backend() {
        Backend::Sqlite => "SQLite",
        Backend::Postgres => "PostgreSQL",
    };
    let setup_link = link.as_ref().map(|link| link.expose().to_owned());
    let listening = format!("{scheme}://{address}");
    let result = json!({
        "listening": listening, "public_url": url.as_str(), "database": database,
        "setup_link": setup_link,
    });
    output.result(&result, || {
        let mut text = format!("Palisade is running on {listening} ({database}).\n");
        text.push_str(&format!("Public URL: {}\n", url.as_str()));
        if let Some(link) = &setup_link {
            text.push_str(
                "\nThere is no administrator yet. Create one, once, within 30 minutes:\n",
            );
            text.push_str(&format!("  {link}\n"));
        }
        text.push_str("\nStop with Ctrl-C.");
        text
    });
    Ok(())
}

fn warn_of_weaknesses(settings: &Settings) {
    if !settings.limits.enabled {
        tracing::warn!("limits.enabled is false: no rate limits are applied");
    }
    for (name, _) in settings.limits.rules.iter().filter(|(_, rule)| !rule.enabled) {
        tracing::warn!(rule = name, "a rate limit is switched off");
    }
}

fn until(mut stopped: watch::Receiver<bool>) -> impl Future<Output = ()> {
    async move {
        // The sender lives as long as the server.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn told_to_stop() -> Result<(), Failure> {
    let failed = |error| Failure::failed("signals can't be received").because(error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
