//! A certificate and its key: the files, and whether they can be used together.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use palisade_crypto::secret::SecretBytes;
use palisade_db::Timestamp;
use rustix::fs::OFlags;
use rustls::InconsistentKeys;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

use crate::files::{self, Process};

/// The maximum number of bytes read from a file. No chain or key needs more.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Why a certificate and its key cannot be used.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read, or the key file is not private.
    Unreadable(PathBuf, io::Error),
    /// A file does not contain valid PEM of the expected kind.
    NotPem(PathBuf, pem::Error),
    /// The certificate file contains no certificate. `true` means that it contains a private key.
    NoCertificate(PathBuf, bool),
    /// The key file contains no private key. `true` means that it contains a certificate.
    NoKey(PathBuf, bool),
    /// The private key is encrypted.
    EncryptedKey(PathBuf),
    /// The key does not belong to a certificate of the chain.
    Mismatch(PathBuf, PathBuf),
    /// The key belongs to a certificate of the chain that is not the first.
    WrongOrder(PathBuf, PathBuf),
    /// The TLS library refuses the certificate or the key.
    Refused(PathBuf, PathBuf, rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SWAPPED: &str =
            "; check that server.tls.certificate and server.tls.key are not swapped";
        match self {
            Self::Unreadable(path, error) => {
                write!(out, "the file {} can't be read: {error}", path.display())
            }
            Self::NotPem(path, error) => {
                write!(out, "the file {} is not valid PEM: {error}", path.display())
            }
            Self::NoCertificate(path, swapped) => write!(
                out,
                "the file {} contains no certificate in PEM{}",
                path.display(),
                if *swapped { SWAPPED } else { "" }
            ),
            Self::NoKey(path, swapped) => write!(
                out,
                "the file {} contains no private key in PEM{}",
                path.display(),
                if *swapped { SWAPPED } else { "" }
            ),
            Self::EncryptedKey(path) => write!(
                out,
                "the private key {0} is encrypted, and the server can't ask for its passphrase; \
                 decrypt it with: (umask 077; openssl pkey -in {0} -out {0}.decrypted), and set \
                 server.tls.key to the new file",
                path.display()
            ),
            Self::Mismatch(certificate, key) => write!(
                out,
                "the private key {} does not belong to the certificate in {}",
                key.display(),
                certificate.display()
            ),
            Self::WrongOrder(certificate, key) => write!(
                out,
                "the certificate of the private key {} is not the first in {}; put the server's \
                 own certificate first, then the one that signed it, and so on",
                key.display(),
                certificate.display()
            ),
            Self::Refused(certificate, key, error) => write!(
                out,
                "the certificate {} with the private key {} can't be used: {error}",
                certificate.display(),
                key.display()
            ),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(_, error) => Some(error),
            Self::NotPem(_, error) => Some(error),
            Self::Refused(_, _, error) => Some(error),
            _ => None,
        }
    }
}

/// The files of a certificate and its key, both in PEM.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate chain. It begins with the server's own certificate.
    pub certificate: PathBuf,
    /// The private key of that certificate.
    pub key: PathBuf,
}

/// What the files contain.
#[derive(PartialEq, Eq)]
pub(super) struct Content {
    certificate: Vec<u8>,
    key: SecretBytes,
}

impl Files {
    /// Reads both files. The key file must be private for `process`.
    pub(super) fn read(&self, process: &Process) -> Result<Content, TlsError> {
        let certificate = read(&self.certificate, None)?;
        let key = SecretBytes::from(read(&self.key, Some(process))?);
        Ok(Content { certificate, key })
    }
}

/// A certificate chain with its key, ready to serve.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    /// When the server's own certificate is valid. `None` if it can't be parsed here, which is left to the clients.
    pub(super) validity: Option<Validity>,
    path: PathBuf,
}

/// The first and the last moment at which a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validity {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

impl Validity {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { from: time(validity.not_before), until: time(validity.not_after) }
    }

    pub(super) fn length(self) -> Duration {
        self.until.since(self.from)
    }
}

impl Pair {
    /// Checks that the certificate and the key can be used together.
    pub(super) fn new(
        files: &Files,
        content: &Content,
        provider: &CryptoProvider,
    ) -> Result<Self, TlsError> {
        let (path, key_path) = (files.certificate.clone(), files.key.clone());
        let chain = chain(&path, &content.certificate)?;
        let private = private_key(&key_path, content.key.expose())?;
        // SECURITY: the key is compared with the certificate before it is used
        // (test: a_key_of_another_certificate_is_refused).
        let certified = CertifiedKey::from_der(chain.clone(), private.clone_key(), provider);
        let certified = certified.map_err(|error| {
            let fits = |of: &CertificateDer<'static>| {
                CertifiedKey::from_der(vec![of.clone()], private.clone_key(), provider).is_ok()
            };
            match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    if chain.iter().skip(1).any(fits) {
                        TlsError::WrongOrder(path.clone(), key_path)
                    } else {
                        TlsError::Mismatch(path.clone(), key_path)
                    }
                }
                other => TlsError::Refused(path.clone(), key_path, other),
            }
        })?;
        let own = certified.cert.first().and_then(|der| X509Certificate::from_der(der).ok());
        let validity = own.map(|(_, own)| Validity::of(&own));
        Ok(Self { certified: Arc::new(certified), validity, path })
    }

    /// Returns whether the server's own certificate is valid for this host.
    pub(super) fn covers(&self, host: &ServerName<'_>) -> bool {
        let own = self.certified.end_entity_cert().ok();
        let parsed = own.and_then(|own| ParsedCertificate::try_from(own).ok());
        parsed.is_some_and(|parsed| rustls::client::verify_server_name(&parsed, host).is_ok())
    }

    /// Returns why this pair can't replace another one at the time `now`. `None` means that it can.
    ///
    /// `host` is the host that the server's own certificate must cover if that of the other pair does.
    pub(super) fn unfit(&self, now: Timestamp, host: Option<&ServerName<'_>>) -> Option<String> {
        let path = self.path.display();
        match self.validity {
            Some(Validity { until, .. }) if until < now => {
                return Some(format!("the certificate in {path} expired at {until}"));
            }
            Some(Validity { from, .. }) if from > now => {
                return Some(format!(
                    "the certificate in {path} is not valid before {from}; it is used from then on"
                ));
            }
            _ => {}
        }
        let host = host.filter(|host| !self.covers(host))?;
        Some(format!(
            "the certificate in {path} is not valid for {}, the host of server.public_url",
            host.to_str()
        ))
    }

    /// Returns what makes clients refuse the chain at the time `now`, as messages for the operator.
    ///
    /// None of this stops a server: without it, clients would not reach the service either.
    pub(super) fn concerns(&self, now: Timestamp) -> Vec<String> {
        let path = self.path.display();
        let mut concerns = Vec::new();
        // A certificate that can't be parsed here is left to the clients.
        let parsed = self.certified.cert.iter().map(|der| X509Certificate::from_der(der).ok());
        let parsed: Vec<_> =
            parsed.map(|found| found.map(|(_, certificate)| certificate)).collect();
        for (index, certificate) in parsed.iter().enumerate() {
            let Some(certificate) = certificate else { continue };
            let Validity { from, until } = Validity::of(certificate);
            let number = index + 1;
            if until < now {
                concerns.push(expired(number, &self.path, until));
            } else if from > now {
                concerns.push(format!(
                    "certificate {number} in {path} is not valid before {from}; clients refuse it \
                     until then. Check the clock of this machine"
                ));
            }
            let signer = parsed.get(number).and_then(Option::as_ref);
            if signer.is_some_and(|signer| signer.subject() != certificate.issuer()) {
                concerns.push(format!(
                    "certificate {number} in {path} is not signed by certificate {0}; some clients \
                     refuse the chain. Put each certificate before the one that signed it",
                    number + 1
                ));
            }
        }
        concerns
    }
}

/// Describes a certificate that has expired. `number` is its place in the file, from 1.
pub(super) fn expired(number: usize, path: &Path, until: Timestamp) -> String {
    format!(
        "certificate {number} in {} expired at {until}; clients refuse it. Renew it: the server uses \
         the new files without a restart",
        path.display()
    )
}

fn chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::NotPem(path.to_owned(), error))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned(), holds(pem, "PRIVATE KEY-----")));
    }
    Ok(chain)
}

fn time(of: ASN1Time) -> Timestamp {
    Timestamp::from_micros(of.timestamp().saturating_mul(1_000_000))
}

/// Reads the first private key. A file can also contain certificates and parameters.
fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let path = path.to_owned();
        // The two forms of encrypted keys: PKCS #8 (RFC 7468 section 11) and OpenSSL's own.
        if holds(pem, "-----BEGIN ENCRYPTED PRIVATE KEY-----")
            || holds(pem, "Proc-Type: 4,ENCRYPTED")
        {
            return TlsError::EncryptedKey(path);
        }
        match error {
            pem::Error::NoItemsFound => TlsError::NoKey(path, holds(pem, "BEGIN CERTIFICATE-----")),
            other => TlsError::NotPem(path, other),
        }
    })
}

fn holds(pem: &[u8], words: &str) -> bool {
    pem.windows(words.len()).any(|found| found == words.as_bytes())
}

/// Reads a file; one that must be private for `secret_of`, if that is given.
fn read(path: &Path, secret_of: Option<&Process>) -> Result<Vec<u8>, TlsError> {
    let read = || {
        // Without this flag, opening a FIFO would wait for its other end.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        if let Some(process) = secret_of {
            process.require_private(path, &file)?;
        }
        // Enough space for everything, so that no copy of a key stays behind.
        let most = about.len().min(LARGEST_FILE);
        let mut content = Vec::with_capacity(usize::try_from(most + 1).unwrap_or_default());
        file.take(LARGEST_FILE).read_to_end(&mut content)?;
        files::without_mark(content)
    };
    read().map_err(|error| TlsError::Unreadable(path.to_owned(), error))
}
