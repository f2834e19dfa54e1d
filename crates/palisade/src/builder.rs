//! Builds a Palisade server: an app and its services, from modules.

use std::collections::BTreeSet;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method};
use palisade_crypto::random::Random;
use palisade_crypto::root::RootKey;
use palisade_db::{Db, Migration, Sql};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::app::{App, CredentialList, CredentialMethods, Inner, State};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::feed::Feed;
use crate::http::{About, Frame, Route, Routes, openapi};
use crate::id::uuid_v7;
use crate::limits::{EffectiveRule, Limiter};
use crate::mail::EmailTemplates;
use crate::metrics::{Metric, Metrics};
use crate::module::{Module, Permission};
use crate::record::AuditKeys;
use crate::reference::Document;
use crate::running::{self, Running};
use crate::settings::{Cors, CorsHeader, CorsOrigin, Settings};
use crate::users::AllPermissions;
use crate::{
    api_keys, audit, audit_log, challenges, compat, credentials, deletion, email_change, export,
    factor_recovery, grants, introspection, invitations, keys, lockout, login, mail, mfa, pages,
    passwords, recovery, reference, registration, roles, sessions, system, telemetry, tokens,
    users,
};

/// Palisade's own modules.
pub const MODULES: &[Module] = &[
    audit_log::MODULE,
    pages::MODULE,
    audit::MODULE,
    keys::MODULE,
    users::MODULE,
    roles::MODULE,
    grants::MODULE,
    tokens::MODULE,
    mail::MODULE,
    lockout::MODULE,
    challenges::MODULE,
    sessions::MODULE,
    api_keys::MODULE,
    passwords::MODULE,
    introspection::MODULE,
    mfa::MODULE,
    login::MODULE,
    registration::MODULE,
    recovery::MODULE,
    invitations::MODULE,
    email_change::MODULE,
    factor_recovery::MODULE,
    deletion::MODULE,
    export::MODULE,
    compat::MODULE,
    system::MODULE,
    telemetry::MODULE,
    reference::MODULE,
];

/// The part of the schema that belongs to the frame and not to a slice.
const FEED: Migration = Migration {
    module: "feed",
    number: 1,
    name: "feed",
    sql: Sql::Each {
        sqlite: include_str!("../migrations/feed/0001_feed.sqlite.sql"),
        postgres: include_str!("../migrations/feed/0001_feed.postgres.sql"),
    },
};

/// Builds an [`App`] from its modules.
#[derive(Clone)]
pub struct Builder {
    modules: Vec<Module>,
    settings: Arc<Settings>,
    clock: Clock,
    random: Arc<dyn Random>,
}

impl Builder {
    /// Creates a builder with Palisade's own modules.
    pub fn new(settings: Settings, clock: Clock, random: Arc<dyn Random>) -> Self {
        let modules = MODULES.iter().filter(|module| (module.when)(&settings)).copied().collect();
        Self { modules, settings: Arc::new(settings), clock, random }
    }

    /// Adds a module of the application, unless the settings switch it off.
    #[must_use]
    pub fn module(mut self, module: Module) -> Self {
        if (module.when)(&self.settings) {
            self.modules.push(module);
        }
        self
    }

    /// Returns the whole schema, in order: the feed's migrations, then those of each module. A module that is not part
    /// of this server contributes none; its tables in an existing database remain.
    pub fn migrations(&self) -> Vec<Migration> {
        let slices = self.modules.iter().flat_map(|module| module.migrations);
        std::iter::once(&FEED).chain(slices).copied().collect()
    }

    /// Returns all routes, as their route lines declare them.
    pub fn routes(&self) -> Vec<Route> {
        self.modules.iter().flat_map(|module| (module.routes)().into_list()).collect()
    }

    /// Returns the API's description (OpenAPI 3.1.1), generated from the routes.
    pub fn openapi(&self) -> serde_json::Value {
        let about = About { settings: &self.settings, credentials: &self.credentials() };
        openapi(&about, &self.routes())
    }

    /// Returns the metrics of all modules.
    pub fn metrics(&self) -> impl Iterator<Item = &'static Metric> {
        let slices = self.modules.iter().flat_map(|module| module.metrics).copied();
        slices.chain([&running::JOB_SUCCESS, &running::JOB_FAILURES])
    }

    fn credentials(&self) -> Vec<CredentialMethods> {
        self.modules.iter().flat_map(|module| module.credentials).copied().collect()
    }

    /// Returns the kinds of credential, if a module has an ending for each of them.
    fn ending_credentials(&self) -> Result<Vec<CredentialMethods>> {
        let credentials = self.credentials();
        let endings = || self.modules.iter().flat_map(|module| module.endings);
        // SECURITY: otherwise, an application's credential would outlive the account that it belongs to (test:
        // a_credential_that_nothing_ends_is_refused).
        match credentials.iter().find(|one| !endings().any(|ending| ending.kind == one.ends_as)) {
            None => Ok(credentials),
            Some(endless) => {
                let name = endless.kind.name;
                let detail = format!("no module has an ending for credentials of the kind {name}");
                Err(Error::internal(detail))
            }
        }
    }

    /// Returns the modules.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// Creates the app on a database whose schema is up to date.
    ///
    /// # Errors
    /// Returns an error if the root key doesn't fit the database, a module can't start, or the database fails.
    pub async fn app(&self, db: Db, root: RootKey) -> Result<App> {
        let mut state = State::default();
        let permissions: Vec<Permission> =
            self.modules.iter().flat_map(|module| module.permissions).copied().collect();
        let names: BTreeSet<String> = permissions.iter().map(|p| p.name.to_owned()).collect();
        state.put(AllPermissions(Arc::new(names), permissions));
        let described = self.clone();
        state.put(Document::new(move || described.openapi().to_string()));
        let templates =
            self.modules.iter().flat_map(|module| module.email_templates).copied().collect();
        state.put(EmailTemplates::new(templates, &self.settings)?);
        for module in &self.modules {
            (module.state)(&self.settings, &mut state)?;
        }
        let inner = Inner {
            db: db.read_only(),
            clock: self.clock.clone(),
            random: Arc::clone(&self.random),
            audit_keys: AuditKeys::new(&root, Arc::clone(&self.random)),
            root,
            feed: Feed::new(uuid_v7(self.clock.now(), &*self.random)),
            limiter: Limiter::new(self.limits_in_force()),
            metrics: Metrics::new(self.metrics()),
            readings: self.modules.iter().flat_map(|module| module.readings).copied().collect(),
            credentials: CredentialList::new(self.ending_credentials()?)?,
            find_account: |change, user, permission| {
                Box::pin(users::find_account(change, user, permission))
            },
            endings: credentials::in_order(
                self.modules.iter().flat_map(|m| m.endings).copied().collect(),
            )?,
            answers: self.modules.iter().map(|module| module.answers).collect(),
            subscriptions: self.modules.iter().flat_map(|m| m.subscriptions).copied().collect(),
            settings: Arc::clone(&self.settings),
            state,
        };
        let app = App::new(inner, db);
        keys::prepare(&app).await?;
        Ok(app)
    }

    /// Returns the rules of all modules, with the numbers that the settings give them.
    fn limits_in_force(&self) -> impl Iterator<Item = EffectiveRule> {
        let limits = &self.settings.limits;
        self.modules.iter().flat_map(|module| module.limits).map(|rule| {
            let by_default = rule.by_default();
            let rule = match limits.rules.get(rule.name) {
                Some(set) => EffectiveRule {
                    burst: set.burst,
                    per: set.per,
                    enabled: set.enabled,
                    ..by_default
                },
                None => by_default,
            };
            EffectiveRule { enabled: rule.enabled && limits.enabled, ..rule }
        })
    }

    /// Returns the service of the public listener: every route of every module, in the frame.
    pub fn service(&self, app: &App) -> Frame {
        let routes = self.modules.iter().map(|module| (module.routes)());
        Frame::new(app.clone(), self.router(app, routes.fold(Routes::none(), Routes::and)))
    }

    /// Returns the service of the admin listener.
    pub fn admin_service(&self, app: &App) -> Frame {
        Frame::internal(app.clone(), self.router(app, system::health().and(telemetry::routes())))
    }

    /// Returns the service of a listener for plain HTTP, which redirects to `server.public_url`.
    pub fn redirect_service(&self, app: &App) -> Frame {
        Frame::redirecting(app.clone())
    }

    fn router(&self, app: &App, routes: Routes) -> Router {
        let router = routes.mount(Router::new()).fallback(|| async { Error::not_found() });
        // Without origins, there is no CORS layer that could be misconfigured or cost time.
        let router = match cors(&self.settings.cors) {
            Some(cors) => router.layer(cors),
            None => router,
        };
        router.with_state(app.clone())
    }

    /// Starts reading the feed and running the scheduled jobs.
    ///
    /// # Errors
    /// Returns an error if the initial read of the feed fails.
    pub async fn run(&self, app: &App) -> Result<Running> {
        running::start(app, self.modules.iter().flat_map(|module| module.jobs)).await
    }
}

/// Returns the CORS layer (Fetch standard, section 3.2): scripts of the configured origins may call the API with a
/// bearer token, but never with credentials that a browser sends on its own. Returns `None` if there are no origins.
fn cors(settings: &Cors) -> Option<CorsLayer> {
    if settings.origins.is_empty() {
        return None;
    }
    let exact = settings.origins.iter().map(|origin| match origin {
        CorsOrigin::Any => None,
        CorsOrigin::Exact(origin) => HeaderValue::from_str(origin).ok(),
    });
    let origins = exact
        .collect::<Option<Vec<HeaderValue>>>()
        .map_or_else(AllowOrigin::any, AllowOrigin::list);
    let configured = settings.headers.iter();
    let headers = ALLOWED.into_iter().chain(configured.map(CorsHeader::as_str));
    let headers: Vec<_> = headers.filter_map(|name| HeaderName::from_str(name).ok()).collect();
    Some(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE])
            .allow_headers(headers)
            .expose_headers(EXPOSED.map(HeaderName::from_static))
            .max_age(Duration::from_secs(600)),
    )
}

/// The request headers that scripts of other origins may send: those of the API, and those that tracing and HTTP
/// libraries add to every request. None of them is read as proof of anything but `authorization`.
const ALLOWED: [&str; 8] = [
    "authorization",
    "content-type",
    "traceparent",
    "tracestate",
    "baggage",
    "sentry-trace",
    "idempotency-key",
    "x-requested-with",
];

/// The response headers that these scripts may read, in addition to those that the Fetch standard allows (section
/// 2.2.2).
const EXPOSED: [&str; 5] =
    ["x-request-id", "retry-after", "ratelimit", "ratelimit-policy", "www-authenticate"];
