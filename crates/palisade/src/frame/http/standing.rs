//! Headers that are the same for the whole server and follow from its settings.

use axum::http::header::{
    CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY,
};

use crate::settings::{Hsts, Settings};

const REPORTING_ENDPOINTS: HeaderName = HeaderName::from_static("reporting-endpoints");
/// The name of the reporting endpoint, used in both headers that refer to it.
const ENDPOINT: &str = "csp";

/// The headers that the settings add to responses.
pub(super) struct Standing {
    /// `Strict-Transport-Security`, if `server.public_url` uses HTTPS.
    hsts: Option<HeaderValue>,
    reports: Option<Reports>,
}

/// The headers that make browsers report what a page's policy blocks.
struct Reports {
    /// `Reporting-Endpoints` (Reporting API, section 3.2).
    endpoints: HeaderValue,
    /// The policy directives that refer to the endpoint (CSP level 3, section 6.5); `report-uri` is for browsers that
    /// don't support `report-to`.
    directives: String,
}

impl Standing {
    /// Creates the headers for these settings.
    pub(super) fn new(settings: &Settings) -> Self {
        let server = &settings.server;
        let hsts = server.public_url.is_https().then(|| hsts(&server.hsts));
        let reports = server.csp_report_to.as_ref().and_then(|url| {
            let url = url.as_str();
            let endpoints = HeaderValue::from_str(&format!("{ENDPOINT}=\"{url}\"")).ok()?;
            Some(Reports {
                endpoints,
                directives: format!("; report-uri {url}; report-to {ENDPOINT}"),
            })
        });
        Self { hsts: hsts.and_then(|text| HeaderValue::from_str(&text).ok()), reports }
    }

    /// Writes the headers of every response. Browsers ignore HSTS in a plain-text response (RFC 6797, section 8.1), so
    /// it does no harm there, and a proxy that terminates TLS forwards it.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        if let Some(hsts) = &self.hsts {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }

    /// Writes the policy of a page.
    pub(super) fn write_page(&self, headers: &mut HeaderMap, mut policy: String) {
        if let Some(reports) = &self.reports {
            policy.push_str(&reports.directives);
            headers.insert(REPORTING_ENDPOINTS, reports.endpoints.clone());
        }
        // If the policy isn't a valid header value, the stricter policy of the API stays, which allows nothing.
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            headers.insert(CONTENT_SECURITY_POLICY, policy);
        }
    }
}

fn hsts(hsts: &Hsts) -> String {
    let subdomains = if hsts.include_subdomains { "; includeSubDomains" } else { "" };
    let preload = if hsts.preload { "; preload" } else { "" };
    format!("max-age={}{subdomains}{preload}", hsts.max_age.as_secs())
}
