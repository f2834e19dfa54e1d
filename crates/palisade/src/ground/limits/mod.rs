//! Rate limits: how often an IP address, an account or an API key may do something.
//!
//! The algorithm is the generic cell rate algorithm: each key has one number, the time at which its limit is fully
//! available again. A rule allows `burst` attempts in a row and refills evenly over `per`.
//!
//! Each process keeps its own counts, which are lost when it ends.
//!
//! # Promises
//!
//! - In any period, the number of allowed attempts never exceeds the burst plus the refill of that period.
//! - Memory is bounded. A caller that rotates through keys can neither exhaust it nor reset anyone's count: only keys
//!   whose limit is fully available again are removed, and when there is no room, new keys share one bucket.
//! - Arithmetic never overflows, regardless of the clock and the settings.

mod buckets;
mod headers;
mod key;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use buckets::Buckets;
pub use key::{LimitKey, ip_group};

/// The maximum number of keys stored for each rule, unless [`Limiter::with_capacity`] sets a different number.
pub const KEYS_PER_RULE: usize = 100_000;

/// The kind of key by which a rule counts attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The client's IP address, or its /64 network for IPv6.
    Ip,
    /// The account that acts or is acted on.
    Account,
    /// The API key used.
    ApiKey,
}

/// A rate limit, as defined by its slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The unique name, such as `login_ip`, which is also the policy name in the response headers.
    pub name: &'static str,
    /// How many attempts are allowed at once.
    pub burst: u32,
    /// The time in which the whole burst refills.
    pub per: Duration,
    /// The kind of key by which the rule counts attempts.
    pub key: Key,
    /// The message for a refused caller.
    pub summary: &'static str,
}

impl Rule {
    /// Returns the rule with its own values, enabled.
    #[must_use]
    pub const fn by_default(&'static self) -> EffectiveRule {
        EffectiveRule { rule: self, burst: self.burst, per: self.per, enabled: true }
    }
}

/// A rule with the values from the settings.
#[derive(Debug, Clone, Copy)]
pub struct EffectiveRule {
    /// The rule.
    pub rule: &'static Rule,
    /// How many attempts are allowed at once; zero refuses all.
    pub burst: u32,
    /// The time in which the whole burst refills. More than 100 years counts as 100 years.
    pub per: Duration,
    /// Whether the rule is applied at all.
    pub enabled: bool,
}

/// The result of checking one attempt against a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The rule's name.
    pub rule: &'static str,
    /// Whether the attempt is allowed.
    pub allowed: bool,
    /// The burst of the rule.
    pub limit: u32,
    /// The time in which the burst refills.
    pub window: Duration,
    /// How many further attempts would be allowed right now.
    pub remaining: u32,
    /// How long until an attempt is allowed; zero while attempts remain.
    pub retry_after: Duration,
    /// How long until the whole burst is available again.
    pub reset_after: Duration,
}

/// A rate limiter, which counts attempts by rule and key.
pub struct Limiter {
    /// Sorted by name.
    in_force: Vec<EffectiveRule>,
    /// In the same order as `in_force`.
    rules: Vec<&'static Rule>,
    /// In the same order as `in_force`.
    buckets: Vec<Buckets>,
    accounts: RandomState,
}

impl Limiter {
    /// Creates a limiter for these rules, with room for [`KEYS_PER_RULE`] keys each.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = EffectiveRule>) -> Self {
        Self::with_capacity(rules, KEYS_PER_RULE)
    }

    /// Creates a limiter for these rules, with room for about `keys` keys each.
    #[must_use]
    pub fn with_capacity(rules: impl IntoIterator<Item = EffectiveRule>, keys: usize) -> Self {
        let mut in_force: Vec<EffectiveRule> = rules.into_iter().collect();
        in_force.sort_by_key(|rule| rule.rule.name);
        // SECURITY: one count for each name, even if several rules have it (test:
        // a_rule_that_is_listed_twice_is_counted_once).
        in_force.dedup_by_key(|rule| rule.rule.name);
        let buckets = in_force.iter().map(|rule| Buckets::new(rule, keys)).collect();
        let rules = in_force.iter().map(|rule| rule.rule).collect();
        Self { in_force, rules, buckets, accounts: RandomState::new() }
    }

    /// Returns the rules with the values in force, sorted by name.
    #[must_use]
    pub fn rules(&self) -> &[EffectiveRule] {
        &self.in_force
    }

    /// Returns how many attempts of a rule are allowed at once.
    #[must_use]
    pub fn burst(&self, rule: &'static Rule) -> u32 {
        self.place(rule).and_then(|at| self.in_force.get(at)).map_or(0, |in_force| in_force.burst)
    }

    fn place(&self, rule: &'static Rule) -> Option<usize> {
        // First by address, which nearly always finds the rule; a constant can have several addresses.
        let same = self.rules.iter().position(|known| std::ptr::eq(*known, rule));
        same.or_else(|| self.rules.binary_search_by_key(&rule.name, |known| known.name).ok())
    }

    fn buckets(&self, rule: &'static Rule) -> Option<&Buckets> {
        self.buckets.get(self.place(rule)?)
    }

    /// Returns the key of an account, given its name or id. The name or id is hashed with a secret of this process, so
    /// no client can pick a name that shares another account's count.
    #[must_use]
    pub fn account(&self, account: &(impl Hash + ?Sized)) -> LimitKey {
        LimitKey::from_account_hash(self.accounts.hash_one(account))
    }

    /// Counts an attempt and returns whether it is allowed. A refused attempt doesn't count against the limit.
    ///
    /// `now` is the time on a monotonic clock with any starting point. For a rule that this limiter was not created
    /// with, every attempt is refused.
    pub fn check(&self, rule: &'static Rule, key: LimitKey, now: Duration) -> Decision {
        self.buckets(rule).map_or_else(|| unknown(rule), |buckets| buckets.take(key, now))
    }

    /// Like [`check`](Self::check), but for a key whose own limit replaces the rule's: `burst` attempts at once,
    /// refilled in a minute.
    pub fn check_own(
        &self,
        rule: &'static Rule,
        key: LimitKey,
        burst: u32,
        now: Duration,
    ) -> Decision {
        let buckets = self.buckets(rule);
        buckets.map_or_else(|| unknown(rule), |buckets| buckets.take_at(key, burst, now))
    }

    /// Returns what [`check`](Self::check) would return, without counting the attempt.
    #[cfg(test)]
    fn peek(&self, rule: &'static Rule, key: LimitKey, now: Duration) -> Decision {
        self.buckets(rule).map_or_else(|| unknown(rule), |buckets| buckets.peek(key, now))
    }
}

/// SECURITY: refuses every attempt, because a rule that is not registered is a mistake in the program, which must
/// become visible instead of removing a limit (test: an_unregistered_rule_refuses).
fn unknown(rule: &'static Rule) -> Decision {
    Decision {
        rule: rule.name,
        allowed: false,
        limit: 0,
        window: rule.per,
        remaining: 0,
        retry_after: rule.per,
        reset_after: rule.per,
    }
}
