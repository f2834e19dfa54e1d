//! The certificate and key of a listener, and its TLS configuration.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};

/// The maximum number of bytes read from a file. No chain or key needs more.
const LARGEST_FILE: u64 = 1024 * 1024;
/// The permission bits that give anyone other than the owner access to a file.
#[cfg(unix)]
const OTHERS: u32 = 0o077;

/// Why a certificate and its key cannot be used.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The key file is open to other users of the system; these are its permission bits.
    KeyOpenToOthers(PathBuf, u32),
    /// A file does not contain valid PEM of the expected kind.
    NotPem(PathBuf, pem::Error),
    /// The certificate file contains no certificate.
    NoCertificate(PathBuf),
    /// The key does not belong to the chain's first certificate.
    Mismatch(PathBuf, PathBuf),
    /// The TLS library refuses the certificate or the key.
    Refused(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(out, "cannot read {}: {error}", path.display()),
            Self::KeyOpenToOthers(path, mode) => write!(
                out,
                "the private key {0} is open to other users (mode {mode:03o}); run: chmod 600 {0}",
                path.display()
            ),
            Self::NotPem(path, error) => {
                write!(out, "{} is not usable PEM: {error}", path.display())
            }
            Self::NoCertificate(path) => {
                write!(out, "{} contains no certificate", path.display())
            }
            Self::Mismatch(certificate, key) => write!(
                out,
                "the private key {} does not belong to the first certificate in {}",
                key.display(),
                certificate.display()
            ),
            Self::Refused(error) => write!(out, "the certificate or key is rejected: {error}"),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(_, error) => Some(error),
            Self::NotPem(_, error) => Some(error),
            Self::Refused(error) => Some(error),
            Self::KeyOpenToOthers(..) | Self::NoCertificate(_) | Self::Mismatch(..) => None,
        }
    }
}

/// Reads a certificate chain in PEM, which begins with the server's own certificate, and the private key of that
/// certificate in PEM. Sets up TLS 1.2 and 1.3 for HTTP/2 and HTTP/1.1.
///
/// # Errors
/// Returns an error if a file cannot be read or is not of the expected kind, if other users of the system have any
/// access to the key file (on Unix), if the key and the certificate do not match, or if the TLS library refuses them.
pub fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&read(certificate, false)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::NotPem(certificate.to_owned(), error))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(certificate.to_owned()));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key, true)?)
        .map_err(|error| TlsError::NotPem(key.to_owned(), error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::Refused)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch(certificate.to_owned(), key.to_owned())
            }
            other => TlsError::Refused(other),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read(path: &Path, secret: bool) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error| TlsError::Unreadable(path.to_owned(), error);
    let file = File::open(path).map_err(unreadable)?;
    if secret {
        refuse_if_open_to_others(path, &file)?;
    }
    let mut content = Vec::new();
    file.take(LARGEST_FILE).read_to_end(&mut content).map_err(unreadable)?;
    Ok(content)
}

/// SECURITY: checks the opened file, not its path, so that the checked file is the one read (test:
/// a_key_open_to_others_is_refused).
#[cfg(unix)]
fn refuse_if_open_to_others(path: &Path, file: &File) -> Result<(), TlsError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata().map_err(|error| TlsError::Unreadable(path.to_owned(), error))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(TlsError::KeyOpenToOthers(path.to_owned(), mode));
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_if_open_to_others(_: &Path, _: &File) -> Result<(), TlsError> {
    Ok(())
}
