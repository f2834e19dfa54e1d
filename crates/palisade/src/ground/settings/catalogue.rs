//! Every setting, declared once: key, type, default, bounds and help.
//!
//! The typed [`Settings`](super::Settings), validation, `config show`, the commented
//! `palisade.toml`, `.env.example` and the reference page are all generated from this list. To add
//! a setting, add its line here and use the resulting field.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::cors::{CorsHeader, CorsOrigin};
use super::database::{PlaintextNetworks, SchemaName};
use super::load::Reader;
use super::log_levels::LogLevels;
use super::origin::{PasskeyOrigin, ReportUrl, WebOrigin};
use super::secret::{DatabaseUrl, RootKey, Secret};
use super::site::SiteName;
use super::smtp::{HeloName, Mailbox, SmtpUrl};
use super::value::{Shape, Value};
use super::words::{
    AdminMfa, Attestation, EmailVerification, Environment, LogFormat, Migrate, Paseto,
    PasswordAlgorithm, PasswordCost, RegistrationMode, TokenAlgorithm, TokenClaim, TokenFormat,
};

use Preset::{ByEnvironment, Fixed, HostOf, IfSet, InDataDirectory, OfRule, SameAs, Unset};

/// The default of a setting, used if no source sets it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Preset {
    /// This value.
    Fixed(&'static str),
    /// One value for each `server.environment`.
    ByEnvironment { development: &'static str, production: &'static str },
    /// The value of another setting.
    SameAs(&'static str),
    /// The host of the origin that another setting has.
    HostOf(&'static str),
    /// The path of a file in the data directory, after a prefix.
    InDataDirectory { prefix: &'static str, file: &'static str },
    /// One value when another setting is set, a different one when it isn't.
    IfSet { key: &'static str, then: &'static str, otherwise: &'static str },
    /// The value of the limit rule itself; the text is an example.
    OfRule(&'static str),
    /// No value; the text is an example.
    Unset(&'static str),
}

/// One setting.
#[derive(Debug)]
pub(super) struct Entry {
    /// The full key. `NAME` in it stands for the name of a limit rule.
    pub(super) key: &'static str,
    /// One or two sentences for the person who sets it.
    pub(super) help: &'static str,
    /// What is expected, as it reads after "expected".
    pub(super) expected: &'static str,
    /// How it is written in the configuration file.
    pub(super) shape: Shape,
    /// The default.
    pub(super) preset: Preset,
    /// The minimum and the maximum.
    pub(super) bounds: Option<(&'static str, &'static str)>,
    /// Whether its value, or a part of it, must never be shown.
    pub(super) secret: bool,
    /// The value in the configuration file template for production.
    pub(super) in_production: Option<&'static str>,
}

impl Entry {
    /// The base for entries, with the values of the optional fields.
    const PLAIN: Self = Self {
        key: "",
        help: "",
        expected: "",
        shape: Shape::Text,
        preset: Unset(""),
        bounds: None,
        secret: false,
        in_production: None,
    };
}

/// Creates the typed structs, the functions that read them and the [`CATALOGUE`].
macro_rules! catalogue {
    ($(
        $(#[$about:meta])*
        $section:ident at $prefix:literal {
            $(
                $field:ident: $type:ty = $preset:expr,
                $help:literal
                $(, $option:ident: $value:expr)*;
            )*
            $( $(#[$part_about:meta])* part $part:ident: $part_type:ty = $read:path; )*
        }
    )*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Debug)]
            pub struct $section {
                $( #[doc = $help] pub $field: $type, )*
                $( $(#[$part_about])* pub $part: $part_type, )*
            }

            impl $section {
                /// Reads every setting of the section, so that all problems are found in one pass.
                pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
                    $( let $field = reader.read(concat!($prefix, stringify!($field))); )*
                    $( let $part = $read(reader); )*
                    Some(Self { $( $field: $field?, )* $( $part: $part?, )* })
                }
            }
        )*

        /// Every setting, in the order of the reference page.
        pub(super) const CATALOGUE: &[Entry] = &[$($(
            Entry {
                key: concat!($prefix, stringify!($field)),
                help: $help,
                expected: <$type as Value>::EXPECTED,
                shape: <$type as Value>::SHAPE,
                preset: $preset,
                $( $option: $value, )*
                ..Entry::PLAIN
            },
        )*)*];
    };
}

catalogue! {
    /// Every setting of the server, checked.
    Settings at "" {
        /// The name under which users know the site.
        part site: Site = Site::read;
        /// How the server listens and which proxies it trusts.
        part server: Server = Server::read;
        /// The API's description.
        part reference: Reference = Reference::read;
        /// Where the server keeps its files.
        part data: Data = Data::read;
        /// The database.
        part database: Database = Database::read;
        /// Access tokens.
        part tokens: Tokens = Tokens::read;
        /// Sessions.
        part sessions: Sessions = Sessions::read;
        /// Passwords.
        part passwords: Passwords = Passwords::read;
        /// Who may register.
        part registration: Registration = Registration::read;
        /// Rate limits.
        part limits: Limits = Limits::read;
        /// Lockout after wrong passwords.
        part lockout: Lockout = Lockout::read;
        /// Requirements for administrators.
        part access: Access = Access::read;
        /// Second factors.
        part mfa: Mfa = Mfa::read;
        /// Users.
        part users: Users = Users::read;
        /// Request formats of other servers.
        part compat: Compat = Compat::read;
        /// Mail.
        part mail: Mail = Mail::read;
        /// The root key.
        part keys: Keys = Keys::read;
        /// Calls from browser pages on other origins.
        part cors: Cors = Cors::read;
        /// Logs and metrics.
        part telemetry: Telemetry = Telemetry::read;
    }

    /// The name under which users know the site.
    Site at "site." {
        name: SiteName = HostOf("server.public_url"),
            "The name of the site, as users see it in authenticator apps, in passkey dialogs, in emails \
             and on pages.";
    }

    /// How the server listens and which proxies it trusts.
    Server at "server." {
        listen: SocketAddr = Fixed("127.0.0.1:8000"),
            "The IP address and port of the API and the pages. In development it must be loopback, \
             unless `server.expose_development` is set.";
        admin_listen: SocketAddr = Fixed("127.0.0.1:9000"),
            "The IP address and port of the health endpoints, for the operator only. In production \
             it must be a loopback or private IP address.";
        public_url: WebOrigin = Fixed("http://localhost:8000"),
            "The origin at which users reach the server. Links are built from it. It has no path: to \
             serve users beside another application, use a subdomain. `http` is accepted only in \
             development, and only if the host is this machine.",
            in_production: Some("https://app.example.com");
        environment: Environment = Fixed("development"),
            "The environment that the server runs in. In `production`, the server refuses to start \
             while an essential setting is missing. In `development`, it refuses to listen on \
             anything but loopback, unless `server.expose_development` is set.",
            in_production: Some("production");
        expose_development: bool = Fixed("false"),
            "Whether a development server may listen on other IP addresses than loopback, for \
             example in a container. Anyone who reaches the port then uses a server without the \
             protections of production. Production refuses this.";
        trusted_proxies: Vec<IpNet> = Fixed(""),
            "The networks of the reverse proxies in front of the server. Forwarded headers are \
             accepted only from them. If `server.public_url` uses `https`, a proxy that connects \
             without TLS must set `X-Forwarded-Proto`, or `proto` in `Forwarded`.",
            in_production: Some("127.0.0.1/32");
        proxy_protocol: bool = Fixed("false"),
            "Whether the trusted proxies use the PROXY protocol, version 1 or 2, on `server.listen`. \
             If so, every connection from them must begin with its header, and the client that it \
             names counts as the sender. Other clients can't send this header.";
        max_body: u64 = Fixed("1MiB"),
            "The maximum size of a request body.",
            bounds: Some(("1KiB", "64MiB"));
        request_timeout: Duration = Fixed("30s"),
            "How long a request may take, from the end of its headers to the start of its \
             response. The body must arrive within half of this time.",
            bounds: Some(("1s", "10m"));
        shutdown_timeout: Duration = Fixed("10s"),
            "How long a stopping server waits for requests in flight.",
            bounds: Some(("0s", "5m"));
        csp_report_to: Option<ReportUrl> = Unset("https://reports.example.com/csp"),
            "The URL to which browsers report violations of a page's Content Security Policy. It must \
             use `https` or have the origin of `server.public_url`.";
        /// How long browsers require HTTPS.
        part hsts: Hsts = Hsts::read;
        /// TLS terminated by the server itself.
        part tls: Tls = Tls::read;
    }

    /// How long browsers require HTTPS.
    Hsts at "server.hsts." {
        max_age: Duration = Fixed("730d"),
            "How long browsers require HTTPS after a response (`Strict-Transport-Security`). The \
             header is sent only if `server.public_url` uses `https`. With `0s`, browsers forget \
             the requirement.",
            bounds: Some(("0s", "3650d"));
        include_subdomains: bool = Fixed("true"),
            "Whether browsers require HTTPS for the subdomains of the host too.";
        preload: bool = Fixed("false"),
            "Whether browser vendors may add the host to the HSTS preload list. This requires \
             `include_subdomains` and a `max_age` of at least `365d`. A listing takes months to \
             undo.";
    }

    /// TLS terminated by the server itself.
    Tls at "server.tls." {
        certificate: Option<PathBuf> = Unset("/etc/palisade/certificate.pem"),
            "The PEM file of the certificate and its chain, for TLS without a proxy in front. When \
             this file or the key's changes, the server uses the new certificate within 5 seconds.";
        key: Option<PathBuf> = Unset("/etc/palisade/certificate-key.pem"),
            "The PEM file of the certificate's private key.";
        redirect_from: Option<SocketAddr> = Unset("0.0.0.0:80"),
            "The IP address and port on which plain HTTP is redirected to `server.public_url`. It \
             requires `server.tls.certificate`.";
    }

    /// The API's description.
    Reference at "reference." {
        enabled: bool = ByEnvironment { development: "true", production: "false" },
            "Whether the server publishes the description of its API: `/docs` and `/openapi.json`. \
             `palisade openapi` prints it either way.";
    }

    /// Where the server keeps its files.
    Data at "data." {
        directory: PathBuf = Fixed("./palisade-data"),
            "The directory of the embedded database and the generated keys.";
    }

    /// The database.
    Database at "database." {
        url: DatabaseUrl = InDataDirectory { prefix: "sqlite:", file: "palisade.db" },
            "The URL of the database, `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/NAME`. \
             `DATABASE_URL` is also read. If the URL contains a password, set it in the \
             environment.",
            secret: true;
        max_connections: u32 = Fixed("10"),
            "The maximum number of open connections.",
            bounds: Some(("1", "1000"));
        statement_timeout: Duration = Fixed("5s"),
            "How long one statement may run.",
            bounds: Some(("100ms", "10m"));
        schema: Option<SchemaName> = Unset("palisade"),
            "The PostgreSQL schema of Palisade's tables. It is created with the tables if it doesn't \
             exist. If this is not set, the tables are in the first schema of the role's \
             `search_path`.";
        migrate: Migrate = ByEnvironment { development: "auto", production: "manual" },
            "Whether the server migrates the schema when it starts, or waits for `palisade migrate \
             up`.";
        migrate_url: Option<DatabaseUrl> = Unset("postgres://OWNER:PASSWORD@HOST/NAME"),
            "The URL of the same PostgreSQL database for a role that may change the tables. \
             Migrations use it if the role in `database.url` may not.",
            secret: true;
        plaintext_networks: PlaintextNetworks = Fixed(""),
            "The private networks in which a PostgreSQL server is reached without TLS if the URL \
             contains `sslmode=disable`. Each needs a reason. The server must authenticate with \
             SCRAM. In the environment, the value is a JSON array.";
    }

    /// Access tokens.
    Tokens at "tokens." {
        format: TokenFormat = Fixed("jwt"),
            "The format of access tokens for clients that don't request one.";
        algorithm: TokenAlgorithm = Fixed("EdDSA"),
            "The signature algorithm of JWT access tokens.";
        paseto: Paseto = Fixed("v4.public"),
            "The purpose of PASETO access tokens: signed, or encrypted so that only the server can \
             read them.";
        access_ttl: Duration = Fixed("15m"),
            "How long an access token is valid.",
            bounds: Some(("1m", "60m"));
        issuer: String = SameAs("server.public_url"),
            "The issuer of access tokens (`iss`). OAuth clients that discover the server by its issuer \
             (RFC 8414) require the value of `server.public_url`.";
        audience: String = SameAs("tokens.issuer"),
            "The audience of access tokens (`aud`).";
        claims: Vec<TokenClaim> = Fixed(""),
            "Claims about the user in access tokens, for services that verify tokens themselves. \
             When one of them changes, the user's earlier access tokens are refused.";
    }

    /// Sessions.
    Sessions at "sessions." {
        refresh_grace: Duration = Fixed("30s"),
            "How long a used refresh token still returns the same successor, for clients that lost \
             the response. `0s` turns this off.",
            bounds: Some(("0s", "60s"));
        idle_timeout: Duration = Fixed("14d"),
            "How long a token session stays valid after its last refresh.",
            bounds: Some(("1m", "365d"));
        cookie_idle_timeout: Duration = Fixed("12h"),
            "How long an unused cookie session stays valid.",
            bounds: Some(("1m", "365d"));
        absolute_timeout: Duration = Fixed("30d"),
            "How long any session stays valid, used or not.",
            bounds: Some(("1m", "365d"));
        fresh_for: Duration = Fixed("10m"),
            "How long a proof of identity counts as recent, for operations that require one.",
            bounds: Some(("1m", "1d"));
    }

    /// Passwords.
    Passwords at "passwords." {
        algorithm: PasswordAlgorithm = Fixed("argon2id"),
            "The hash algorithm of new passwords. Stored hashes of the other algorithm stay valid.";
        cost: PasswordCost = Fixed("standard"),
            "The cost of an Argon2id hash. `light` is the lowest recommended cost. `custom` uses \
             the three `passwords.argon2_…` settings.";
        bcrypt_cost: u32 = Fixed("12"),
            "The cost of a bcrypt hash: the base-2 logarithm of the number of rounds.",
            bounds: Some(("10", "15"));
        argon2_memory: Option<u64> = Unset("64MiB"),
            "The amount of memory that an Argon2id hash uses. Required if `passwords.cost` is \
             `custom`, otherwise refused.",
            bounds: Some(("7MiB", "1GiB"));
        argon2_passes: Option<u32> = Unset("3"),
            "The number of passes of an Argon2id hash. Required if `passwords.cost` is \
             `custom`, otherwise refused.",
            bounds: Some(("1", "16"));
        argon2_lanes: Option<u32> = Unset("1"),
            "The number of lanes of an Argon2id hash. Required if `passwords.cost` is \
             `custom`, otherwise refused.",
            bounds: Some(("1", "16"));
        min_length: u32 = Fixed("15"),
            "The minimum length of a new password, in characters.",
            bounds: Some(("8", "64"));
        min_strength: u8 = Fixed("3"),
            "The minimum strength of a new password, from 0 (no requirement) to 4.",
            bounds: Some(("0", "4"));
        history: u32 = Fixed("0"),
            "How many of a user's most recent passwords, including the current one, can't be chosen \
             again.",
            bounds: Some(("0", "24"));
        blocklist_path: Option<PathBuf> = Unset("/etc/palisade/blocklist.txt"),
            "A file of additional passwords to refuse: one password per line, or lines of the form \
             `SHA1:COUNT`, sorted by hash.";
    }

    /// Who may register.
    Registration at "registration." {
        mode: RegistrationMode = ByEnvironment { development: "open", production: "closed" },
            "Whether anyone may register.";
        email_verification: EmailVerification =
            IfSet { key: "mail.smtp_url", then: "required", otherwise: "off" },
            "Whether a new user confirms the email address: before signing in (`required`), at any \
             time (`optional`) or not at all (`off`). Production refuses open registration while \
             this is `off`.";
    }

    /// Rate limits.
    Limits at "limits." {
        enabled: bool = Fixed("true"),
            "Whether requests are rate limited. Can be switched off in development only.";
        /// The rules by name: every rule passed to the loader.
        part rules: BTreeMap<&'static str, LimitRule> = Reader::limit_rules;
    }

    /// The settings of one rate limit rule.
    LimitRule at "limits.rules.NAME." {
        burst: u32 = OfRule("10"),
            "How many requests in a row are allowed. Further ones are refused until part of \
             the limit has refilled.",
            bounds: Some(("1", "1000000"));
        per: Duration = OfRule("1m"),
            "The time after which the whole burst is available again.",
            bounds: Some(("1s", "30d"));
        enabled: bool = OfRule("true"),
            "Whether the rule applies. Can be switched off in development only.";
    }

    /// Lockout after wrong passwords.
    Lockout at "lockout." {
        enabled: bool = Fixed("true"),
            "Whether too many wrong passwords lock an account, and too many wrong codes its second \
             factor. Can be switched off in development only.";
        threshold: u32 = Fixed("5"),
            "How many wrong passwords lock an account, and how many wrong codes lock its second \
             factor.",
            bounds: Some(("1", "50"));
        window: Duration = Fixed("15m"),
            "The period within which wrong passwords, or wrong codes, are counted together.",
            bounds: Some(("1m", "1d"));
        duration: Duration = Fixed("15m"),
            "How long the first lock lasts. Each further lock lasts twice as long as the one \
             before, up to a day.",
            bounds: Some(("1m", "1d"));
    }

    /// Requirements for administrators.
    Access at "access." {
        admin_mfa: AdminMfa = ByEnvironment { development: "optional", production: "required" },
            "Whether users with power over other accounts must have a second factor. With \
             `required`, a user without one can only set one up.";
    }

    /// Second factors.
    Mfa at "mfa." {
        required: bool = Fixed("false"),
            "Whether every user must have a second factor. With `true`, a user without one can \
             only set one up. Service accounts are exempt.";
        totp_grace: Duration = Fixed("10s"),
            "How long a one-time code is still accepted after its 30-second time step has ended. \
             `0s` turns this off.",
            bounds: Some(("0s", "30s"));
        rp_id: Option<String> = Unset("example.com"),
            "The domain that passkeys belong to: the host of `server.public_url` (used if this is \
             not set), or a parent domain. Changing it invalidates all passkeys.";
        related_origins: Vec<PasskeyOrigin> = Fixed(""),
            "Other origins that may use the same passkeys: those of web pages, and those of Android \
             apps. An Android app has the origin `android:apk-key-hash:` followed by the SHA-256 \
             digest of its signing certificate, in base64url without padding.";
        attestation: Attestation = Fixed("none"),
            "Whether a new passkey must prove which type of device it comes from.";
        attestation_roots: Option<PathBuf> = Unset("/etc/palisade/attestation.pem"),
            "The PEM file of the root certificates to which the attestation of a new passkey must \
             chain.";
        recovery_delay: Option<Duration> = Unset("72h"),
            "How long a user who lost every factor must wait after requesting the removal of the \
             factors with the password. After this time, an emailed link and the password remove \
             them. If unset, only an administrator can remove them.",
            bounds: Some(("1h", "30d"));
    }

    /// Users.
    Users at "users." {
        deletion_grace: Duration = Fixed("14d"),
            "How long a user who requested the deletion of their account can cancel it by signing \
             in. With `0s`, it can't be canceled.",
            bounds: Some(("0s", "90d"));
    }

    /// Request formats of other servers.
    Compat at "compat." {
        login_form: bool = Fixed("false"),
            "Whether `POST /api/v1/login/access-token` signs users in with a form, as the Full Stack \
             FastAPI Template does, and refreshes their sessions. Nothing else of that template's API \
             is provided.";
    }

    /// Mail.
    Mail at "mail." {
        smtp_url: Option<SmtpUrl> = Unset("smtps://mail.example.com"),
            "The mail server: `smtps://USER:PASSWORD@HOST` (port 465) or \
             `smtp://USER:PASSWORD@HOST` with STARTTLS (port 587). In development, \
             `smtp://HOST?tls=never` sends unencrypted. `SMTP_URL` is also read. If the URL \
             contains a password, set it in the environment.",
            secret: true;
        from: Option<Mailbox> = Unset("Example <no-reply@example.com>"),
            "The sender of outgoing email.";
        helo_name: Option<HeloName> = Unset("app.example.com"),
            "The name of this server in EHLO: a host name or an IP address. If not set, it is the \
             host of `server.public_url`.";
        root_certificate: Option<PathBuf> = Unset("/etc/palisade/mail-ca.pem"),
            "The PEM file of a certificate authority that is trusted for the mail server, in \
             addition to the public ones, or of the server's self-signed certificate. A mail \
             server on the same machine is not verified if it uses STARTTLS.";
        templates: Option<PathBuf> = Unset("/etc/palisade/emails"),
            "A directory of email templates that replace the built-in ones: `NAME.txt` and \
             `NAME.html`.";
    }

    /// The root key.
    Keys at "keys." {
        root_key: RootKey = InDataDirectory { prefix: "", file: "root.key" },
            "The path of the file with the root key, which protects all other keys. In the \
             environment only, the value can be the key itself.",
            secret: true;
    }

    /// Calls from browser pages on other origins.
    Cors at "cors." {
        origins: Vec<CorsOrigin> = Fixed(""),
            "The exact origins whose pages may call the API from a browser. An application that shows \
             its pages itself has a scheme of its own, such as `capacitor://localhost`, \
             `tauri://localhost` or `chrome-extension://ID`. In development, `*` stands for every \
             origin.";
        headers: Vec<CorsHeader> = Fixed(""),
            "Request headers that these pages may send, in addition to `authorization`, \
             `content-type`, `traceparent`, `tracestate`, `baggage`, `sentry-trace`, \
             `idempotency-key` and `x-requested-with`.";
    }

    /// Logs and metrics.
    Telemetry at "telemetry." {
        log_format: LogFormat = Fixed("auto"),
            "The format of the log. `auto` is `pretty` on a terminal and `json` elsewhere.";
        log_level: LogLevels = Fixed("info"),
            "The least severe level that is logged, and optionally other levels for single modules: \
             `info,mail=debug,request=off`. Modules are those of ARCHITECTURE.md; the lines about \
             requests belong to `request`.";
        metrics_token: Option<Secret> = Unset("PASTE-THE-OUTPUT-OF-openssl-rand-hex-32"),
            "The bearer token with which a collector reads `/metrics` on `server.admin_listen`. \
             Without it, metrics are exported only if that is a loopback IP address.",
            secret: true;
    }
}
