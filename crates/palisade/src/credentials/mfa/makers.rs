//! The manufacturers whose passkeys are accepted, if `mfa.attestation_roots` is set.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::error::{Error, Result};
use crate::files;
use crate::settings::Settings;

/// The certificates of the accepted manufacturers.
pub(super) struct Makers(pub(super) Vec<Vec<u8>>);

impl Makers {
    /// Reads the certificates from the file named in the settings.
    pub(super) fn read(settings: &Settings) -> Result<Self> {
        let Some(path) = &settings.mfa.attestation_roots else { return Ok(Self(Vec::new())) };
        let unusable = |why: &dyn std::fmt::Display| {
            let detail = "The file in mfa.attestation_roots can't be read as PEM certificates.";
            Error::unavailable("mfa.attestation_roots_unreadable", detail)
                .because(format!("{}: {why}", path.display()))
        };
        let pem = files::read(path).map_err(|error| unusable(&error))?;
        let roots: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(&pem)
            .map(|root| root.map(|root| root.to_vec()))
            .collect::<Result<_, _>>()
            .map_err(|error| unusable(&error))?;
        if roots.is_empty() {
            return Err(unusable(&"it contains no certificate"));
        }
        Ok(Self(roots))
    }
}
