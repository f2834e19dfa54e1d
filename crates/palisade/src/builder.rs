//! Putting a running Palisade together, and stopping it.

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use palisade_crypto::random::Random;
use palisade_crypto::root::RootKey;
use palisade_db::{Db, Migration, Sql, Woken};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::app::{App, Ground, Parts};
use crate::audit::AuditKeys;
use crate::clock::Clock;
use crate::credential::{CredentialKind, CredentialKinds};
use crate::error::{Error, Result};
use crate::feed::{Feed, POLL};
use crate::http::{About, Frame, HostCookie, Route, Routes, openapi};
use crate::id::uuid_v7;
use crate::limits::{EffectiveRule, Limiter};
use crate::mail::Letters;
use crate::module::{Job, Module, Permission};
use crate::reference::Document;
use crate::settings::{CorsOrigin, Settings};
use crate::users::AllPermissions;
use crate::{
    account, api_keys, audit, challenges, compat, credentials, grants, keys, lockout, login, mail,
    mfa, passwords, recovery, reference, registration, roles, sessions, system, tokens, users,
    verifiers,
};

/// Palisade's own modules.
pub const MODULES: &[Module] = &[
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
    verifiers::MODULE,
    mfa::MODULE,
    login::MODULE,
    registration::MODULE,
    recovery::MODULE,
    account::MODULE,
    compat::MODULE,
    system::MODULE,
    reference::MODULE,
];

/// Parts of the schema that belong to the ground and not to a slice.
const GROUND_MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "audit",
        sql: Sql::Both(include_str!("../migrations/0001_audit.sql")),
    },
    Migration {
        version: 2,
        name: "feed",
        sql: Sql::Each {
            sqlite: include_str!("../migrations/0002_feed.sqlite.sql"),
            postgres: include_str!("../migrations/0002_feed.postgres.sql"),
        },
    },
    Migration {
        version: 29,
        name: "audit_head",
        sql: Sql::Both(include_str!("../migrations/0029_audit_head.sql")),
    },
];

/// Every change wakes every process; what comes so soon after the feed was read is read together.
const GATHERED_FOR: Duration = Duration::from_millis(5);

/// How long a job that failed waits longer than usual.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);

/// Work that belongs to the ground and not to a slice.
const GROUND_JOBS: &[Job] = &[Job {
    name: "feed.prune",
    every: Duration::from_secs(60),
    run: |app| Box::pin(app.feed.prune(&app.db, app.clock.now(), tokens::longest_life(app))),
}];

/// Puts an [`App`] together from its modules.
#[derive(Clone)]
pub struct Builder {
    modules: Vec<Module>,
    settings: Arc<Settings>,
    clock: Clock,
    random: Arc<dyn Random>,
}

impl Builder {
    /// With Palisade's own modules.
    pub fn new(settings: Settings, clock: Clock, random: Arc<dyn Random>) -> Builder {
        let modules = MODULES.iter().filter(|module| (module.when)(&settings)).copied().collect();
        Builder { modules, settings: Arc::new(settings), clock, random }
    }

    /// With a module of the application, where it is part of a server with these settings.
    #[must_use]
    pub fn module(mut self, module: Module) -> Builder {
        if (module.when)(&self.settings) {
            self.modules.push(module);
        }
        self
    }

    /// The whole schema, in order.
    pub fn migrations(&self) -> Vec<Migration> {
        let slices = self.modules.iter().flat_map(|module| module.migrations);
        let mut all: Vec<Migration> = GROUND_MIGRATIONS.iter().chain(slices).cloned().collect();
        all.sort_by_key(|migration| migration.version);
        all
    }

    /// All routes, as their lines say.
    pub fn routes(&self) -> Vec<Route> {
        self.modules.iter().flat_map(|module| (module.routes)().into_list()).collect()
    }

    /// The API's description (OpenAPI 3.1.1), made from the routes.
    pub fn openapi(&self) -> serde_json::Value {
        let about = About {
            server: self.settings.server.public_url.as_str(),
            cookie: HostCookie::new(sessions::COOKIE, &self.settings).name(),
            credentials: &self.credentials(),
        };
        openapi(&about, &self.routes())
    }

    fn credentials(&self) -> Vec<&'static CredentialKind> {
        self.modules.iter().flat_map(|module| module.credentials).copied().collect()
    }

    /// The modules.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The app over a database whose schema is up to date.
    ///
    /// # Errors
    /// When the root key doesn't fit the database, a module can't start, or the database fails.
    pub async fn app(&self, db: Db, root: RootKey) -> Result<App> {
        let mut parts = Parts::default();
        let permissions: Vec<Permission> =
            self.modules.iter().flat_map(|module| module.permissions).copied().collect();
        let names: BTreeSet<String> = permissions.iter().map(|p| p.name.to_owned()).collect();
        parts.put(AllPermissions(Arc::new(names), permissions));
        let described = self.clone();
        parts.put(Document::new(move || described.openapi().to_string()));
        let letters = self.modules.iter().flat_map(|module| module.letters).copied().collect();
        parts.put(Letters::new(letters, &self.settings)?);
        for module in &self.modules {
            (module.parts)(&self.settings, &mut parts)?;
        }
        let app = App::new(Ground {
            db,
            clock: self.clock.clone(),
            random: Arc::clone(&self.random),
            audit_keys: AuditKeys::new(&root),
            root,
            feed: Feed::new(uuid_v7(self.clock.now(), &*self.random)),
            limiter: Limiter::new(self.limits_in_force()),
            credentials: CredentialKinds::new(self.credentials())?,
            find_account: |change, user, permission| {
                Box::pin(users::find_account(change, user, permission))
            },
            endings: credentials::in_order(
                self.modules.iter().flat_map(|m| m.endings).copied().collect(),
            )?,
            subscriptions: self.modules.iter().flat_map(|m| m.subscriptions).copied().collect(),
            settings: Arc::clone(&self.settings),
            parts,
        });
        keys::prepare(&app).await?;
        Ok(app)
    }

    /// The rules of all modules with the numbers that the settings give them.
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

    /// The service of the public listener: every route of every module, in the frame.
    pub fn service(&self, app: &App) -> Frame {
        let routes = self.modules.iter().map(|module| (module.routes)());
        Frame::new(app.clone(), self.router(app, routes.fold(Routes::none(), Routes::and)))
    }

    /// The service of the admin listener.
    pub fn admin_service(&self, app: &App) -> Frame {
        Frame::internal(app.clone(), self.router(app, system::health()))
    }

    fn router(&self, app: &App, routes: Routes) -> Router {
        let router = routes.mount(Router::new()).fallback(|| async { Error::not_found() });
        // Without origins there is no layer at all: nothing to get wrong, nothing to pay.
        let router = match cors(&self.settings.cors.origins) {
            Some(cors) => router.layer(cors),
            None => router,
        };
        router.with_state(app.clone())
    }

    /// Starts reading the feed and the work that is done by the clock.
    ///
    /// # Errors
    /// When the feed can't be read a first time.
    pub async fn run(&self, app: &App) -> Result<Running> {
        app.feed.start(&app.db, &app.clock).await?;
        catch_up(app, false, false).await?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = vec![tokio::spawn(until(stopped.clone(), read_feed(app.clone())))];
        for job in self.modules.iter().flat_map(|module| module.jobs).chain(GROUND_JOBS) {
            tasks.push(tokio::spawn(until(stopped.clone(), repeat(app.clone(), *job))));
        }
        Ok(Running { app: app.clone(), stop, tasks })
    }
}

/// What scripts of the named origins may do (Fetch standard, section 3.2): call the API with a bearer
/// token. Never with credentials that a browser sends on its own.
fn cors(origins: &[CorsOrigin]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let exact = origins.iter().map(|origin| match origin {
        CorsOrigin::Any => None,
        CorsOrigin::Exact(origin) => HeaderValue::from_str(origin.as_str()).ok(),
    });
    let origins = exact
        .collect::<Option<Vec<HeaderValue>>>()
        .map_or_else(AllowOrigin::any, AllowOrigin::list);
    let exposed = ["x-request-id", "retry-after", "ratelimit", "ratelimit-policy"];
    Some(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE])
            .allow_headers([AUTHORIZATION, CONTENT_TYPE])
            .expose_headers(exposed.map(HeaderName::from_static))
            .max_age(Duration::from_secs(600)),
    )
}

/// Background work of a running app; stops when it is dropped or told to.
pub struct Running {
    app: App,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// Stops the work and waits until it has. Then it chains the records of the audit log that wait for it, which
    /// takes three seconds at most.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        join_all(self.tasks).await;
        // SECURITY: a record that isn't chained can be deleted unseen once the process that wrote it is gone
        // (test: what_waits_is_chained_when_the_work_stops).
        if let Some(Err(error)) = survived("audit.chain", audit::seal_all(&self.app)).await {
            let cause = error.causes().unwrap_or_default();
            tracing::error!(cause, "the newest records of the audit log are not chained yet");
        }
    }
}

async fn until(mut stopped: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

/// Background work goes on after a panic in it; none if there was one.
///
/// SECURITY: a task that ends with the panic would leave emails unsent, the audit log unchained, and a process
/// that hears of no ending and refuses everything (test: a_panic_in_background_work_does_not_end_it).
async fn survived<T>(what: &'static str, work: impl Future<Output = T>) -> Option<T> {
    let ended = AssertUnwindSafe(work).catch_unwind().await.ok();
    if ended.is_none() {
        tracing::error!(what, "background work panicked; it is tried again");
    }
    ended
}

/// Applies what other processes did, for as long as the app runs.
async fn read_feed(app: App) {
    let mut changes = app.db.changes();
    let mut reachable = true;
    let (mut moved, mut unsure) = (false, false);
    loop {
        let read = async {
            moved |= changes.wait(POLL).await == Woken::Replaced;
            catch_up(&app, moved, unsure).await
        };
        match survived("feed", read).await {
            Some(Ok(())) => {
                (reachable, moved, unsure) = (true, false, false);
                tokio::time::sleep(GATHERED_FOR).await;
            }
            Some(Err(error)) => {
                if std::mem::take(&mut reachable) {
                    let cause = error.causes().unwrap_or_default();
                    tracing::error!(
                        cause,
                        "the feed can't be read; requests are refused until it can"
                    );
                }
                tokio::time::sleep(POLL).await;
            }
            None => {
                // News that was read with the panic isn't read again.
                unsure = true;
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

/// Reads the feed once and applies what is new. `moved`: it may be another database than before; `unsure`: not
/// all that was read before was applied.
async fn catch_up(app: &App, moved: bool, unsure: bool) -> Result<()> {
    let began = app.clock.monotonic();
    let mut look = app.feed.look(&app.db, began).await?;
    if moved || look.changed {
        tracing::warn!(
            "the database was restored or a standby took over: all caches are discarded"
        );
        app.feed.start(&app.db, &app.clock).await?;
        // SECURITY: after the start, so that what is read from now on is of the history that is followed.
        app.forget_all();
        look = app.feed.look(&app.db, began).await?;
    }
    if look.changed {
        return Err(Error::internal("the feed's history changed while it was read"));
    }
    if look.lost || unsure {
        app.forget_all();
    }
    for (topic, subject) in look.news {
        app.hear(&topic, subject);
    }
    app.feed.read_at(began);
    Ok(())
}

async fn repeat(app: App, job: Job) {
    loop {
        tokio::time::sleep(job.every).await;
        match survived(job.name, async { (job.run)(&app).await }).await {
            Some(Ok(())) => continue,
            Some(Err(error)) => {
                let cause = error.causes().unwrap_or_default();
                tracing::warn!(job = job.name, code = error.code(), cause, "a job failed");
            }
            None => {}
        }
        tokio::time::sleep(AFTER_A_FAILURE).await;
    }
}
