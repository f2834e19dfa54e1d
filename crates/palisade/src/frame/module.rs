//! The parts of a slice: one constant that lists everything it contributes.
//!
//! An application that uses the library writes such a constant for each of its own slices. Router, limits, tests and
//! documentation are derived from these lists; there is no second plugin mechanism.

use std::time::Duration;

use futures_util::future::BoxFuture;
use palisade_db::Migration;

use crate::app::{Answers, App, CredentialMethods, Ending, State, Subscription};
use crate::email_template::EmailTemplate;
use crate::error::Result;
use crate::http::Routes;
use crate::limits::Rule;
use crate::metrics::Metric;
use crate::record::Event;
use crate::settings::Settings;

pub use crate::access::Permission;

/// A slice's table of contents.
#[derive(Clone, Copy)]
pub struct Module {
    /// The slice's name.
    pub name: &'static str,
    /// Returns whether the slice is part of a server with these settings.
    pub when: fn(&Settings) -> bool,
    /// Its routes.
    pub routes: fn() -> Routes,
    /// Permissions that its routes require.
    pub permissions: &'static [Permission],
    /// Its rate limits.
    pub limits: &'static [&'static Rule],
    /// Events that it writes into the audit log.
    pub events: &'static [Event],
    /// The emails that it sends.
    pub email_templates: &'static [&'static EmailTemplate],
    /// Its metrics.
    pub metrics: &'static [&'static Metric],
    /// Functions that set its gauges from the state of this process, called before each export. They must be quick. A
    /// gauge that needs the database is set by a job.
    pub readings: &'static [fn(&App)],
    /// Its scheduled jobs.
    pub jobs: &'static [Job],
    /// The kinds of credential that it stores, and what they can do.
    pub credentials: &'static [CredentialMethods],
    /// How its credentials, links and factors end with an act on their account.
    pub endings: &'static [Ending],
    /// The notices that it subscribes to.
    pub subscriptions: &'static [Subscription],
    /// The migrations of its part of the database's schema, each under the module's name. Its tables may refer only to
    /// those of modules that precede it in the list.
    pub migrations: &'static [Migration],
    /// Tables that only this slice writes.
    pub tables: &'static [&'static str],
    /// The functions through which it answers questions about its tables, for lower-level slices.
    pub answers: Answers,
    /// Adds the slice's own state to the app that is being built.
    pub state: fn(&Settings, &mut State) -> Result<()>,
}

impl Module {
    /// An empty module: the base for `..Module::EMPTY`.
    pub const EMPTY: Self = Self {
        name: "",
        when: |_| true,
        routes: Routes::none,
        permissions: &[],
        limits: &[],
        events: &[],
        email_templates: &[],
        metrics: &[],
        readings: &[],
        jobs: &[],
        credentials: &[],
        endings: &[],
        subscriptions: &[],
        migrations: &[],
        tables: &[],
        answers: Answers::NONE,
        state: |_, _| Ok(()),
    };
}

/// Scheduled work.
#[derive(Clone, Copy)]
pub struct Job {
    /// `area.what`.
    pub name: &'static str,
    /// The pause between two runs.
    pub every: Duration,
    /// The work; must be safe to run on several nodes at the same time.
    pub run: for<'a> fn(&'a App) -> BoxFuture<'a, Result<()>>,
}
