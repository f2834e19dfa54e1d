//! TLS to the mail server.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Failure;
use crate::error::{Error, Result};
use crate::files;
use crate::settings::SmtpUrl;

/// How TLS is established with the mail server.
pub(super) struct Tls {
    connector: TlsConnector,
    host: String,
    name: ServerName<'static>,
}

impl Tls {
    /// Verifies the certificate against the public certificate authorities and the `named` certificates.
    pub(super) fn verified(url: &SmtpUrl, named: Vec<CertificateDer<'static>>) -> Result<Self> {
        let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in &named {
            store.add(certificate.clone()).map_err(|error| {
                Error::internal(format!(
                    "a certificate in mail.root_certificate can't be used: {error}"
                ))
            })?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
                .build()
                .map_err(Error::internal)?;
        Self::new(url, provider, Arc::new(Verified { verifier, named }))
    }

    /// Accepts any certificate.
    pub(super) fn unverified(url: &SmtpUrl) -> Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        Self::new(url, Arc::clone(&provider), Arc::new(Unverified(provider)))
    }

    fn new(
        url: &SmtpUrl,
        provider: Arc<CryptoProvider>,
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<Self> {
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::internal)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let host = url.host().to_owned();
        let name = ServerName::try_from(host.clone()).map_err(Error::internal)?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), host, name })
    }

    pub(super) async fn connect<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.connector.connect(self.name.clone(), stream).await
    }

    /// Describes why a handshake failed.
    pub(super) fn failure(&self, error: &io::Error) -> Failure {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        Failure::mend(match cause {
            Some(rustls::Error::InvalidCertificate(error)) => {
                format!("the certificate of the mail server {}", self.why_refused(error))
            }
            Some(rustls::Error::InvalidMessage(_)) => "the mail server does not speak TLS on this \
                 port; if it offers STARTTLS, use smtp:// in mail.smtp_url"
                .to_owned(),
            Some(other) => format!("TLS with the mail server failed: {other}"),
            None => {
                return Failure::retry(
                    "the mail server closed the connection during the TLS handshake",
                );
            }
        })
    }

    fn why_refused(&self, error: &CertificateError) -> String {
        let host = &self.host;
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "is not valid yet".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("is not valid for {host}")
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "is not issued by a trusted certificate authority; \
                 mail.root_certificate adds one"
                    .to_owned()
            }
            other if is_authority(other) => {
                "is self-signed; add it to mail.root_certificate to trust it".to_owned()
            }
            other => format!("can't be used ({other})"),
        }
    }
}

/// Returns whether the server's certificate is one of an authority, as most self-signed certificates are.
fn is_authority(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Other(_))
        && format!("{error:?}").contains("CaUsedAsEndEntity")
}

/// Reads the file of `mail.root_certificate`.
///
/// # Errors
/// Returns an error if the file can't be read or contains no certificate.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unusable = |why: &dyn std::fmt::Display| {
        let path = path.display();
        Error::internal(format!("mail.root_certificate: the file {path} can't be used: {why}"))
    };
    let pem = files::read(path).map_err(|error| unusable(&error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| unusable(&error))?;
    if found.is_empty() {
        return Err(unusable(&"it contains no certificate"));
    }
    Ok(found)
}

/// Verifies certificates. In addition to what is usual, a server may present a certificate from the file in
/// `mail.root_certificate` itself, even if it is marked as one of an authority: `openssl req -x509` does that.
#[derive(Debug)]
struct Verified {
    verifier: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.verifier.verify_server_cert(certificate, intermediates, name, ocsp, now);
        match &verified {
            Err(rustls::Error::InvalidCertificate(error))
                if is_authority(error) && self.named.iter().any(|named| named == certificate) =>
            {
                let parsed = ParsedCertificate::try_from(certificate)?;
                rustls::client::verify_server_name(&parsed, name)?;
                Ok(ServerCertVerified::assertion())
            }
            _ => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Accepts any certificate, also one that can't be parsed.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
