//! The TLS configuration of a listener, and its certificate, which is replaced when its files change.
//!
//! # Promises
//!
//! - TLS 1.3 and 1.2 only, with cipher suites that have forward secrecy and authenticated encryption (the intermediate
//!   profile of Mozilla's recommendations).
//! - A new certificate and its key are used only if they belong together, can be used now, and are valid for the host of
//!   the public URL if the previous certificate is. Otherwise the previous ones stay in use.
//! - Replacing a certificate ends no connection and fails no handshake.

mod pair;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use palisade_db::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer, cipher_suite as suite};
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedCipherSuite};
use tokio::time::sleep;

use crate::clock::Clock;
use crate::files::Process;
use pair::{Content, Pair};
pub use pair::{Files, TlsError};

/// The cipher suites, those of TLS 1.3 first. Every one has forward secrecy and authenticated encryption.
const CIPHER_SUITES: [SupportedCipherSuite; 9] = [
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// How often the files are read. A new pair is used once it was found twice.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How long the files may be unusable before this is a failure: the two are written one after the other.
const SETTLING: Duration = Duration::from_secs(5);
/// The largest number of different failures that are logged before the files can be used again.
const MOST_TOLD: usize = 8;
/// How long before its end the renewal of a certificate is late, if this is less than a third of its lifetime.
const LATE: Duration = Duration::from_secs(14 * 24 * 3600);
/// How often a late renewal is logged.
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The certificate of a listener with its key. It is replaced when its files change, while the listener serves.
pub struct ServerCertificate {
    files: Files,
    process: Process,
    clock: Clock,
    /// The host of the public URL.
    host: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
    config: Arc<ServerConfig>,
    current: Arc<Current>,
    /// Whether the files have failed since they could last be used.
    failed: AtomicBool,
    watch: Mutex<Watch>,
}

/// The pair that new handshakes use.
#[derive(Debug)]
struct Current(RwLock<Arc<Pair>>);

impl Current {
    fn get(&self) -> Arc<Pair> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, pair: Pair) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.get().certified))
    }
}

/// What is known about the files.
struct Watch {
    /// What they contained when the pair in use was read.
    used: Content,
    /// What they contained the last time, if it is something else.
    seen: Option<Content>,
    trouble: Option<Trouble>,
    /// Whether the end of the pair in use has been logged.
    expiry_told: bool,
    /// When the log last said that the renewal is late.
    warned_at: Option<Duration>,
}

/// Failures since the files could last be used.
struct Trouble {
    since: Duration,
    told: Vec<String>,
}

impl ServerCertificate {
    /// Reads the certificate and its key. `host` is the host of the public URL. What makes clients refuse the certificate
    /// is logged, and stops nothing.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or is not of the expected kind, if the key file is not private for
    /// `process`, if the key and the certificate do not match, or if the TLS library refuses them.
    pub fn open(
        files: Files,
        process: Process,
        clock: Clock,
        host: &str,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let used = files.read(&process)?;
        let pair = Pair::new(&files, &used, &provider)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(pair))));
        let config = config(&provider, &current).map_err(|error| {
            TlsError::Refused(files.certificate.clone(), files.key.clone(), error)
        })?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let watch = Watch { used, seen: None, trouble: None, expiry_told: false, warned_at: None };
        let opened = Self {
            files,
            process,
            clock,
            host: ServerName::try_from(host).ok(),
            provider,
            config: Arc::new(config),
            current,
            failed: AtomicBool::new(false),
            watch: Mutex::new(watch),
        };
        let now = opened.clock.now();
        opened.describe(&mut opened.lock(), now);
        opened.warn_of_end(&mut opened.lock());
        Ok(opened)
    }

    /// Returns the configuration for TLS 1.2 and 1.3 with HTTP/2 and HTTP/1.1. It stays the same when the certificate is
    /// replaced.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Returns when the server's own certificate ends. `None` if that can't be read from it.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.current.get().validity.map(|validity| validity.until)
    }

    /// Returns what makes clients refuse the chain in use at the time `now`, as messages for the operator.
    #[must_use]
    pub fn concerns(&self, now: Timestamp) -> Vec<String> {
        self.current.get().concerns(now)
    }

    /// Returns whether the files could be used the last time, apart from the seconds in which they are written.
    #[must_use]
    pub fn last_reload_succeeded(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }

    /// Reads the files every second, and uses a new pair within five seconds. Never returns.
    pub async fn watch(self: Arc<Self>) -> Infallible {
        loop {
            sleep(READ_EVERY).await;
            let this = Arc::clone(&self);
            // It panics only if a lock is poisoned, and then the pair in use stays.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    /// Reads the files, and uses a new pair if it was found the last time too: one that is being written is not used.
    pub fn look(&self) {
        self.read(false);
    }

    /// Reads the files, uses a new pair immediately, and logs the result.
    pub fn reload(&self) {
        self.read(true);
    }

    /// `asked` means that the operator asked for it: the files are complete, and the result is logged in any case.
    fn read(&self, asked: bool) {
        let mut watch = self.lock();
        match self.files.read(&self.process) {
            Ok(found) if found == watch.used => {
                watch.seen = None;
                self.forget_trouble(&mut watch);
                if asked {
                    tracing::info!("server.tls: the certificate and the key have not changed");
                }
            }
            Ok(found) => {
                let complete = asked || watch.seen.as_ref() == Some(&found);
                if complete {
                    match self.candidate(&found) {
                        Ok(pair) => self.replace(&mut watch, found, pair),
                        Err(problem) => {
                            watch.seen = Some(found);
                            self.note_trouble(&mut watch, problem, asked);
                        }
                    }
                } else {
                    watch.seen = Some(found);
                }
            }
            Err(error) => self.note_trouble(&mut watch, error.to_string(), asked),
        }
        self.warn_of_end(&mut watch);
    }

    /// Returns the pair in the files if it can replace the one in use, and otherwise the reason.
    fn candidate(&self, found: &Content) -> Result<Pair, String> {
        let pair =
            Pair::new(&self.files, found, &self.provider).map_err(|error| error.to_string())?;
        // SECURITY: a pair that clients would refuse never replaces one that they accept
        // (test: a_pair_that_clients_would_refuse_replaces_nothing).
        let host = self.host.as_ref().filter(|host| self.current.get().covers(host));
        match pair.unfit(self.clock.now(), host) {
            Some(problem) => Err(problem),
            None => Ok(pair),
        }
    }

    fn replace(&self, watch: &mut Watch, found: Content, pair: Pair) {
        let until = pair.validity.map(|validity| validity.until.to_string());
        self.current.set(pair);
        *watch =
            Watch { used: found, seen: None, trouble: None, expiry_told: false, warned_at: None };
        self.failed.store(false, Ordering::Relaxed);
        let path = self.files.certificate.display();
        tracing::info!(%path, valid_until = until, "server.tls: the new certificate is in use");
        self.describe(watch, self.clock.now());
    }

    /// Logs what makes clients refuse the pair in use.
    fn describe(&self, watch: &mut Watch, now: Timestamp) {
        let pair = self.current.get();
        for concern in pair.concerns(now) {
            tracing::error!("server.tls: {concern}");
        }
        watch.expiry_told = pair.validity.is_some_and(|validity| validity.until < now);
        if let Some(host) = self.host.as_ref().filter(|host| !pair.covers(host)) {
            tracing::warn!(
                "server.tls: the certificate in {} is not valid for {}, the host of server.public_url; \
                 clients that use this URL refuse it",
                self.files.certificate.display(),
                host.to_str()
            );
        }
    }

    fn note_trouble(&self, watch: &mut Watch, problem: String, asked: bool) {
        let now = self.clock.monotonic();
        let trouble = watch.trouble.get_or_insert(Trouble { since: now, told: Vec::new() });
        let settled = asked || now.saturating_sub(trouble.since) >= SETTLING;
        let told = trouble.told.contains(&problem) || trouble.told.len() >= MOST_TOLD;
        if !settled || (told && !asked) {
            return;
        }
        self.failed.store(true, Ordering::Relaxed);
        tracing::error!(
            "server.tls: {problem}. The previous certificate stays in use; the files are read again \
             every second"
        );
        if !told {
            trouble.told.push(problem);
        }
    }

    fn forget_trouble(&self, watch: &mut Watch) {
        watch.trouble = None;
        if self.failed.swap(false, Ordering::Relaxed) {
            tracing::info!(
                "server.tls: the files contain the certificate and the key in use again"
            );
        }
    }

    /// Logs that the certificate in use has expired, once, and before that, once a day, that its renewal is late.
    fn warn_of_end(&self, watch: &mut Watch) {
        let pair = self.current.get();
        let Some(validity) = pair.validity else { return };
        let (until, now) = (validity.until, self.clock.now());
        if until < now {
            if !std::mem::replace(&mut watch.expiry_told, true) {
                tracing::error!("server.tls: {}", pair::expired(1, &self.files.certificate, until));
            }
            return;
        }
        let at = self.clock.monotonic();
        let warned = watch.warned_at.is_some_and(|before| at.saturating_sub(before) < WARN_EVERY);
        if until.since(now) < LATE.min(validity.length() / 3) && !warned {
            watch.warned_at = Some(at);
            tracing::warn!(
                "server.tls: the certificate in {} expires at {until}; renew it",
                self.files.certificate.display()
            );
        }
    }

    /// Returns whether new handshakes get this certificate.
    #[cfg(test)]
    pub(super) fn serves(&self, certificate: &rustls::pki_types::CertificateDer<'_>) -> bool {
        self.current.get().certified.end_entity_cert().ok() == Some(certificate)
    }

    fn lock(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ServerCertificate").field("files", &self.files).finish_non_exhaustive()
    }
}

fn provider() -> CryptoProvider {
    CryptoProvider { cipher_suites: CIPHER_SUITES.to_vec(), ..aws_lc_rs::default_provider() }
}

/// The keys of session tickets are random, replaced every six hours, and never leave the process.
fn config(
    provider: &Arc<CryptoProvider>,
    current: &Arc<Current>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::<Current>::clone(current));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new()?;
    Ok(config)
}
