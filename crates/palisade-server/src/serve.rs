//! `palisade serve`.

use std::convert::Infallible;
use std::fs::DirBuilder;
use std::future::pending;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use palisade::app::Actor;
use palisade::clock::Clock;
use palisade::http::client::TrustedProxies;
use palisade::http::serve::tls::{self, ServerCertificate};
use palisade::http::serve::{Drained, Exempt, Limits, serve};
use palisade::module::Module;
use palisade::settings::{Concern, Settings, Severity};
use palisade::telemetry::{CERTIFICATE_EXPIRY, CERTIFICATE_RELOADED};
use palisade::{App, registration};
use palisade_db::{Backend, ServerLock, ServerLockError};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::cli::Cli;
use crate::failure::Failure;
use crate::filtered;
use crate::log;
use crate::notify::Manager;
use crate::opening::{self, Open};
use crate::output::Output;
use crate::process;
use crate::signals::Signals;
use crate::sources;

/// Runs the server until it is told to stop.
pub(crate) async fn run(cli: &Cli, output: Output) -> Result<(), Failure> {
    // From here on, a signal requests a graceful shutdown and no longer kills the process.
    let signals = Signals::install()?;
    let loaded = sources::settings(cli)?;
    let log = log::start(&loaded.settings)?;
    filtered::report();
    warn_of(&loaded.concerns);
    let served = serve_until_told(&loaded.settings, output, signals).await;
    if served.is_ok() {
        tracing::info!("stopped");
    }
    log.flush();
    served
}

async fn serve_until_told(
    settings: &Settings,
    output: Output,
    mut signals: Signals,
) -> Result<(), Failure> {
    let limits = limits(settings, process::raise_open_files());
    opening::data_directory(&settings.data.directory)?;
    let lock = lock(settings)?;
    let mut manager = Manager::from_environment();
    let opening = manager.while_starting(opening::open(settings));
    let Some(open) = unless_told(&mut signals, opening).await else {
        tracing::info!("stopping before the start is complete");
        manager.stopping(Duration::ZERO);
        return Ok(());
    };
    let open = open?;
    let service = Service { limits, signals, manager: &mut manager };
    let served = serve_open(settings, output, &open, service).await;
    if let Err(failure) = opening::close(&open.app).await {
        tracing::error!(cause = failure.details.join(": "), "{}", failure.detail);
    }
    drop(lock);
    served
}

/// Returns `None` if a signal arrives before the start is complete. The start is then abandoned, and the database rolls
/// the open transaction back: another process may hold a lock for as long as it likes (test:
/// service::a_start_that_waits_is_stopped_by_a_signal).
async fn unless_told<T>(signals: &mut Signals, start: impl Future<Output = T>) -> Option<T> {
    let reload = || tracing::info!("SIGHUP has no effect before the start is complete");
    tokio::select! {
        biased;
        () = signals.stopped(reload) => None,
        started = start => Some(started),
    }
}

async fn serve_open(
    settings: &Settings,
    output: Output,
    open: &Open,
    service: Service<'_>,
) -> Result<(), Failure> {
    let listeners = Listeners::bind(settings).await?;
    let running = open.builder.run(&open.app).await?;
    let served = match greet(&open.app, output, &listeners).await {
        Ok(()) => {
            warn_of_exposure(settings);
            warn_of_weaknesses(settings);
            listeners.serve(open, service).await
        }
        Err(failure) => Err(failure),
    };
    running.stop().await;
    served
}

/// What the process around the server has to do with it.
struct Service<'a> {
    limits: Limits,
    signals: Signals,
    manager: &'a mut Manager,
}

/// The sockets that the server listens on.
struct Listeners {
    public: TcpListener,
    admin: TcpListener,
    /// For plain HTTP, which is redirected.
    plain: Option<TcpListener>,
    certificate: Option<Arc<ServerCertificate>>,
}

impl Listeners {
    async fn bind(settings: &Settings) -> Result<Self, Failure> {
        let server = &settings.server;
        let certificate = certificate(settings)?.map(Arc::new);
        let plain = match server.tls.redirect_from {
            Some(address) => Some(bind("server.tls.redirect_from", address).await?),
            None => None,
        };
        Ok(Self {
            public: bind("server.listen", server.listen).await?,
            admin: bind("server.admin_listen", server.admin_listen).await?,
            plain,
            certificate,
        })
    }

    /// Serves until a signal arrives, then finishes the requests in flight.
    async fn serve(self, open: &Open, service: Service<'_>) -> Result<(), Failure> {
        let Service { limits, mut signals, manager } = service;
        let (stop, stopped) = watch::channel(false);
        let tls = self.certificate.as_ref().map(|certificate| certificate.config());
        if let Some(certificate) = &self.certificate {
            // Set once: a process has one public listener.
            let _ = CERTIFICATE.set(Arc::clone(certificate));
        }
        let public = open.builder.service(&open.app);
        let public = serve(self.public, tls, public, limits.clone(), until(stopped.clone()));
        let plain_limits = Limits { connections: REDIRECTED_CONNECTIONS, ..limits.clone() };
        let plain = redirect(self.plain, open, plain_limits, until(stopped.clone()));
        let admin = open.builder.admin_service(&open.app);
        let drain = limits.drain;
        // The operator's own network has no such proxy.
        let limits = Limits { connections: ADMIN_CONNECTIONS, proxy_protocol: None, ..limits };
        manager.ready(&admin);
        let manager = &*manager;
        let admin = serve(self.admin, None, admin, limits, until(stopped));
        let reload = Notify::new();
        let told = async {
            signals.stopped(|| reload.notify_one()).await;
            tracing::info!(
                "stopping: no new connections are accepted, and requests in flight are finished"
            );
            manager.stopping(drain);
            stop.send_replace(true);
        };
        let served = async { tokio::join!(public, plain, admin, told) };
        let (public, plain, admin, ()) = tokio::select! {
            biased;
            served = served => served,
            never = reload_when_told(self.certificate.as_ref(), &reload, manager) => match never {},
            never = watch_files(self.certificate.clone()) => match never {},
        };
        note(public).and(note(plain)).and(note(admin))
    }
}

/// The certificate of this process, if it has one.
static CERTIFICATE: OnceLock<Arc<ServerCertificate>> = OnceLock::new();

/// Reports the state of the certificate.
pub(crate) const MODULE: Module = Module {
    name: "certificate",
    readings: &[|app| {
        let Some(certificate) = CERTIFICATE.get() else { return };
        if let Some(end) = certificate.expires_at() {
            app.metrics.set(&CERTIFICATE_EXPIRY, end.as_micros() as f64 / 1e6, &[]);
        }
        let reloaded = u8::from(certificate.last_reload_succeeded());
        app.metrics.set(&CERTIFICATE_RELOADED, f64::from(reloaded), &[]);
    }],
    ..Module::EMPTY
};

/// Reads the certificate and key of the public listener, if the settings name them.
fn certificate(settings: &Settings) -> Result<Option<ServerCertificate>, Failure> {
    let (Some(certificate), Some(key)) =
        (&settings.server.tls.certificate, &settings.server.tls.key)
    else {
        return Ok(None);
    };
    let files = tls::Files { certificate: certificate.clone(), key: key.clone() };
    let host = settings.server.public_url.host();
    ServerCertificate::open(files, sources::this_process()?, Clock::system(), host)
        .map(Some)
        .map_err(|error| {
            Failure::failed("server.tls: the certificate and key can't be used").because(error)
        })
}

/// Redirects plain HTTP to the public URL, if there is a listener for it.
async fn redirect(
    listener: Option<TcpListener>,
    open: &Open,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> std::io::Result<Drained> {
    let Some(listener) = listener else { return Ok(Drained::Finished) };
    let from = listener.local_addr()?;
    let to = &open.app.settings.server.public_url;
    tracing::info!(%from, %to, "plain HTTP is redirected");
    serve(listener, None, open.builder.redirect_service(&open.app), limits, stop).await
}

/// Reloads the certificate for each notification, and reports it to the service manager. Never returns.
async fn reload_when_told(
    certificate: Option<&Arc<ServerCertificate>>,
    told: &Notify,
    manager: &Manager,
) -> Infallible {
    loop {
        told.notified().await;
        manager.reloading();
        if let Some(certificate) = certificate.cloned() {
            // It can't fail: the runtime doesn't stop before this task.
            let _ = tokio::task::spawn_blocking(move || certificate.reload()).await;
        } else {
            tracing::info!(
                "SIGHUP has no effect without server.tls.certificate: settings are read when the server \
                 starts"
            );
        }
        manager.reloaded();
    }
}

/// Uses a new certificate when its files change. Never returns.
async fn watch_files(certificate: Option<Arc<ServerCertificate>>) -> Infallible {
    match certificate {
        Some(certificate) => certificate.watch().await,
        None => pending().await,
    }
}

fn local_addr(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| {
        Failure::failed("the IP address and port of the listener can't be read").because(error)
    })
}

/// Reports how a listener ended.
fn note(end: std::io::Result<Drained>) -> Result<(), Failure> {
    match end {
        Ok(Drained::Finished) => Ok(()),
        Ok(Drained::Cut(count)) => {
            tracing::warn!(count, "connections were closed because they took too long to finish");
            Ok(())
        }
        Err(error) => Err(Failure::failed("a listener failed").because(error)),
    }
}

/// Locks the directory of the database file if the database is SQLite: only one server at a time can use it.
fn lock(settings: &Settings) -> Result<Option<ServerLock>, Failure> {
    let Some(path) = palisade_db::sqlite_file(settings.database_url().expose()) else {
        return Ok(None);
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    // The database would create it, but is opened later.
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
        let detail =
            format!("the directory {} of the database can't be created", directory.display());
        Failure::failed(detail).because(error)
    })?;
    match ServerLock::acquire(directory) {
        Ok(lock) => Ok(Some(lock)),
        Err(ServerLockError::Held { directory, process }) => {
            let who = process.map_or("another process".to_owned(), |id| format!("process {id}"));
            Err(Failure::failed(format!(
                "{who} is already serving from {}; stop it first, or give this server its own \
                 data.directory, and its own database.url if that is set. Several servers on the \
                 same data require PostgreSQL (database.url).",
                directory.display()
            )))
        }
        Err(error) => Err(Failure::failed("can't lock the database directory").because(error)),
    }
}

async fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::failed(unbound(setting, address, error.kind())).because(error))
}

/// Describes why the server can't listen on an IP address and port.
fn unbound(setting: &str, address: SocketAddr, error: ErrorKind) -> String {
    if error == ErrorKind::PermissionDenied {
        return format!(
            "can't listen on {address}: this user may not use port {0}. Set {setting} to a port from \
             1024, or allow it with AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or \
             with: setcap cap_net_bind_service=+ep PATH_OF_PALISADE",
            address.port()
        );
    }
    format!("can't listen on {address}; set {setting} to another IP address or port")
}

/// The number of connections of the admin listener, in addition to all others, so that health checks work during a
/// flood too.
const ADMIN_CONNECTIONS: usize = 64;
/// The number of connections of the listener for plain HTTP, in addition to all others. Its responses take no time.
const REDIRECTED_CONNECTIONS: usize = 256;
/// The number of files that are always open: the log, the listeners, libraries, mail.
const OWN_FILES: usize = 64;
/// The minimum number of connections, even if the system allows very few open files.
const FEWEST_CONNECTIONS: usize = 16;

/// Returns the number of files that a connection to the database has open.
fn files_per_connection(settings: &Settings) -> usize {
    match settings.database.plaintext_networks.is_empty() {
        // On SQLite, the database and its write-ahead log.
        true => 2,
        // The driver's connection to the relay, its other end, and the relay's connection to the server.
        false => 3,
    }
}

/// Returns the limits of the public listener, given this limit on open files.
fn limits(settings: &Settings, open_files: usize) -> Limits {
    let database = usize::try_from(settings.database.max_connections).unwrap_or(usize::MAX);
    let files = files_per_connection(settings);
    let redirected = settings.server.tls.redirect_from.map_or(0, |_| REDIRECTED_CONNECTIONS + 1);
    let own = OWN_FILES + ADMIN_CONNECTIONS + redirected;
    let reserved = database.saturating_mul(files).saturating_add(own);
    let by_default = Limits::default();
    let connections = open_files.saturating_sub(reserved).max(FEWEST_CONNECTIONS);
    if connections < by_default.connections {
        tracing::warn!(
            connections,
            open_files,
            "connections are limited because the system allows few open files (LimitNOFILE=, ulimit -Hn)"
        );
    }
    let trusted = TrustedProxies::new(settings.server.trusted_proxies.clone());
    let proxies = trusted.clone();
    let proxies: Exempt = Arc::new(move |ip| proxies.contains(ip));
    Limits {
        exempt: Arc::new(move |ip| ip.is_loopback() || trusted.contains(ip)),
        proxy_protocol: settings.server.proxy_protocol.then_some(proxies),
        drain: settings.server.shutdown_timeout,
        connections: connections.min(by_default.connections),
        ..by_default
    }
}

/// Prints where the server listens and, as long as there is no administrator, how to create one.
async fn greet(app: &App, output: Output, listeners: &Listeners) -> Result<(), Failure> {
    let address = local_addr(&listeners.public)?;
    let scheme = if listeners.certificate.is_some() { "https" } else { "http" };
    let needs_setup = registration::needs_setup(app).await?;
    // SECURITY: where output is collected, people other than the operator could use the link
    // (test: test_the_link_is_not_printed_in_production).
    let link = if needs_setup && !app.settings.is_production() {
        Some(registration::setup_link(app, &Actor::operator()).await?)
    } else {
        None
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
        text.push_str(&format!("Public URL: {url}\n"));
        if app.settings.reference.enabled {
            text.push_str(&format!("API reference: {url}/docs\n"));
        }
        if let Some(link) = &setup_link {
            text.push_str(
                "\nThere is no administrator yet. To create one, open this link within 30 minutes:\n",
            );
            text.push_str(&format!("  {link}\n"));
        } else if needs_setup {
            text.push_str(&format!("\n{HOW_TO_SET_UP}\n"));
        }
        text.push_str("\nStop with Ctrl-C.");
        text
    });
    if needs_setup && link.is_none() {
        tracing::warn!("{HOW_TO_SET_UP}");
    }
    Ok(())
}

const HOW_TO_SET_UP: &str =
    "There is no administrator yet. To print a link that creates one, run: palisade setup-link";

fn warn_of(concerns: &[Concern]) {
    for Concern { severity, problem } in concerns {
        match severity {
            Severity::Error => tracing::error!("{problem}"),
            Severity::Warning => tracing::warn!("{problem}"),
        }
    }
}

fn warn_of_exposure(settings: &Settings) {
    if settings.server.expose_development {
        tracing::warn!(
            "server.expose_development is true: other machines may reach this development server, \
             which does not have the protections of production"
        );
    }
}

fn warn_of_weaknesses(settings: &Settings) {
    if !settings.limits.enabled {
        tracing::warn!("limits.enabled is false: no rate limits are applied");
    }
    if !settings.lockout.enabled {
        tracing::warn!("lockout.enabled is false: the number of password guesses is not limited");
    }
    for (name, _) in settings.limits.rules.iter().filter(|(_, rule)| !rule.enabled) {
        tracing::warn!(rule = name, "a rate limit is switched off");
    }
    warn_of_plaintext(settings);
}

fn warn_of_plaintext(settings: &Settings) {
    for plaintext in settings.database.plaintext_networks.iter() {
        tracing::warn!(
            network = %plaintext.network,
            reason = plaintext.reason,
            "the database server may be reached without TLS in a network (database.plaintext_networks)"
        );
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // The sender lives as long as the server.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

#[cfg(test)]
mod tests {
    use palisade::settings::Sources;

    use super::*;

    #[test]
    fn connections_leave_files_for_everything_else() {
        let settings = Settings::load(Sources::default()).unwrap().settings;
        let database = usize::try_from(settings.database.max_connections).unwrap();
        let others = 2 * database + OWN_FILES + ADMIN_CONNECTIONS;
        let connections = |files: usize| limits(&settings, files).connections;
        assert_eq!(connections(0), FEWEST_CONNECTIONS);
        assert_eq!(connections(others + 17), 17);
        assert_eq!(connections(1024), 1024 - others);
        assert_eq!(connections(1 << 20), 10_000);
        assert_eq!(connections(usize::MAX), 10_000);
    }

    #[test]
    fn a_port_that_needs_a_privilege_is_named_with_the_fix() {
        let address = SocketAddr::from(([0, 0, 0, 0], 80));
        let said = unbound("server.tls.redirect_from", address, ErrorKind::PermissionDenied);
        assert!(said.contains("server.tls.redirect_from") && said.contains("NET_BIND"), "{said}");
        let said = unbound("server.listen", address, ErrorKind::AddrInUse);
        assert!(said.contains("set server.listen to another"), "{said}");
    }

    #[test]
    fn a_connection_without_tls_has_three_files() {
        let networks = r#"[{"network": "10.1.0.0/16", "reason": "wired by hand"}]"#;
        let url = "postgres://palisade@127.0.0.1/palisade";
        let environment = [("URL", url), ("PLAINTEXT_NETWORKS", networks)];
        let environment = environment
            .map(|(name, value)| (format!("PALISADE_DATABASE__{name}"), value.to_owned()));
        let sources = Sources { environment: environment.into(), ..Sources::default() };
        let settings = Settings::load(sources).unwrap().settings;
        let database = usize::try_from(settings.database.max_connections).unwrap();
        let others = 3 * database + OWN_FILES + ADMIN_CONNECTIONS;
        assert_eq!(limits(&settings, 1024).connections, 1024 - others);
    }
}
