//! The certificate and key of a listener, and its TLS configuration.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use palisade_db::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};
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

/// A certificate chain with its key, ready to serve.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration for TLS 1.2 and 1.3 with HTTP/2 and HTTP/1.1.
    pub config: Arc<ServerConfig>,
    path: PathBuf,
    chain: Vec<CertificateDer<'static>>,
}

/// Reads a certificate chain in PEM, which begins with the server's own certificate, and the private key of that
/// certificate in PEM.
///
/// # Errors
/// Returns an error if a file cannot be read or is not of the expected kind, if the key file is not private for
/// `process`, if the key and the certificate do not match, or if the TLS library refuses them.
pub fn load(certificate: &Path, key: &Path, process: &Process) -> Result<Loaded, TlsError> {
    let pem = read(certificate, None)?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::NotPem(certificate.to_owned(), error))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(
            certificate.to_owned(),
            holds(&pem, "PRIVATE KEY-----"),
        ));
    }
    let private = private_key(key, &read(key, Some(process))?)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| TlsError::Refused(certificate.to_owned(), key.to_owned(), error))?
        .with_no_client_auth()
        .with_single_cert(chain.clone(), private.clone_key())
        .map_err(|error| {
            let (certificate, key) = (certificate.to_owned(), key.to_owned());
            let fits = |of: &CertificateDer<'static>| {
                CertifiedKey::from_der(vec![of.clone()], private.clone_key(), &provider).is_ok()
            };
            match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    if chain.iter().skip(1).any(fits) {
                        TlsError::WrongOrder(certificate, key)
                    } else {
                        TlsError::Mismatch(certificate, key)
                    }
                }
                other => TlsError::Refused(certificate, key, other),
            }
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Loaded { config: Arc::new(config), path: certificate.to_owned(), chain })
}

impl Loaded {
    /// Returns what makes clients refuse the chain at the time `now`, as messages for the operator.
    ///
    /// None of this stops a server: without it, clients would not reach the service either.
    pub fn concerns(&self, now: Timestamp) -> Vec<String> {
        let path = self.path.display();
        let mut concerns = Vec::new();
        // A certificate that can't be parsed here is left to the clients.
        let parsed = self.chain.iter().map(|der| X509Certificate::from_der(der).ok());
        let parsed: Vec<_> =
            parsed.map(|found| found.map(|(_, certificate)| certificate)).collect();
        for (index, certificate) in parsed.iter().enumerate() {
            let Some(certificate) = certificate else { continue };
            let validity = certificate.validity();
            let (from, until) = (time(validity.not_before), time(validity.not_after));
            let number = index + 1;
            if until < now {
                concerns.push(format!(
                    "certificate {number} in {path} expired at {until}; clients refuse it. Renew \
                     it and restart the server"
                ));
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
        let file = File::open(path)?;
        if let Some(process) = secret_of {
            process.require_private(path, &file)?;
        }
        let mut content = Vec::new();
        file.take(LARGEST_FILE).read_to_end(&mut content)?;
        files::without_mark(content)
    };
    read().map_err(|error| TlsError::Unreadable(path.to_owned(), error))
}
