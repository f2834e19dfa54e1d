//! Rate limits: how often an IP address or an account may do something.
//!
//! The generic cell rate algorithm: each key has one number, the time at which its limit is fully available again. A
//! rule allows `burst` attempts at once and refills evenly over `per`.
//!
//! Counts are per process and end with it.
//!
//! # Promises
//!
//! - In any period, no more attempts pass than the burst plus the refill of that period.
//! - Memory is bounded. A caller that rotates through keys can neither exhaust it nor reset anyone's count: only keys
//!   whose limit is fully available again are forgotten, and when there is no room, new keys share one bucket.
//! - No arithmetic overflows, whatever the clock or the settings say.

mod buckets;
mod headers;
mod key;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use buckets::Buckets;
pub use key::{LimitKey, ip_group};

/// The maximum number of keys that a rule remembers, unless [`Limiter::with_capacity`] sets another number.
pub const KEYS_PER_RULE: usize = 100_000;

/// What a rule counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The client's IP address, IPv6 by its /64 network.
    Ip,
    /// The account acted on or acting.
    Account,
    /// The API key that is used.
    ApiKey,
}

/// A rate limit as its slice defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Unique name, such as `login_ip`, also the policy name in the response headers.
    pub name: &'static str,
    /// How many attempts may come at once.
    pub burst: u32,
    /// The time in which the whole burst refills.
    pub per: Duration,
    /// What it counts by.
    pub key: Key,
    /// The message for a refused caller.
    pub summary: &'static str,
}

impl Rule {
    /// The rule with its own numbers, enabled.
    #[must_use]
    pub const fn by_default(&'static self) -> EffectiveRule {
        EffectiveRule { rule: self, burst: self.burst, per: self.per, enabled: true }
    }
}

/// A rule with the values that the settings give it.
#[derive(Debug, Clone, Copy)]
pub struct EffectiveRule {
    /// The rule.
    pub rule: &'static Rule,
    /// How many attempts may come at once; zero refuses all.
    pub burst: u32,
    /// The time in which the whole burst refills; more than 100 years count as 100.
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
    /// How many further attempts would pass right now.
    pub remaining: u32,
    /// How long until an attempt passes; zero while some remain.
    pub retry_after: Duration,
    /// How long until the whole burst is available again.
    pub reset_after: Duration,
}

/// Counts attempts by rule and key.
pub struct Limiter {
    /// By name.
    in_force: Vec<EffectiveRule>,
    /// In the same order.
    rules: Vec<&'static Rule>,
    /// In the same order.
    buckets: Vec<Buckets>,
    accounts: RandomState,
}

impl Limiter {
    /// A limiter for these rules with room for [`KEYS_PER_RULE`] keys each.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = EffectiveRule>) -> Self {
        Self::with_capacity(rules, KEYS_PER_RULE)
    }

    /// A limiter for these rules with room for about `keys` keys each.
    #[must_use]
    pub fn with_capacity(rules: impl IntoIterator<Item = EffectiveRule>, keys: usize) -> Self {
        let mut in_force: Vec<EffectiveRule> = rules.into_iter().collect();
        in_force.sort_by_key(|rule| rule.rule.name);
        // SECURITY: one count for a name, wherever its rule stands
        // (test: a_rule_that_is_listed_twice_is_counted_once).
        in_force.dedup_by_key(|rule| rule.rule.name);
        let buckets = in_force.iter().map(|rule| Buckets::new(rule, keys)).collect();
        let rules = in_force.iter().map(|rule| rule.rule).collect();
        Self { in_force, rules, buckets, accounts: RandomState::new() }
    }

    /// The rules with the numbers in force, by name.
    #[must_use]
    pub fn rules(&self) -> &[EffectiveRule] {
        &self.in_force
    }

    /// How many attempts of a rule may come at once.
    #[must_use]
    pub fn burst(&self, rule: &'static Rule) -> u32 {
        self.place(rule).and_then(|at| self.in_force.get(at)).map_or(0, |in_force| in_force.burst)
    }

    fn place(&self, rule: &'static Rule) -> Option<usize> {
        // By where it stands first, which nearly always finds it; a constant may stand in several places.
        let same = self.rules.iter().position(|known| std::ptr::eq(*known, rule));
        same.or_else(|| self.rules.binary_search_by_key(&rule.name, |known| known.name).ok())
    }

    fn buckets(&self, rule: &'static Rule) -> Option<&Buckets> {
        self.buckets.get(self.place(rule)?)
    }

    /// The key of an account, from a name or id. It is hashed under a secret of this process, so that no client can
    /// pick a name that shares another account's count.
    #[must_use]
    pub fn account(&self, account: &(impl Hash + ?Sized)) -> LimitKey {
        LimitKey::from_account_hash(self.accounts.hash_one(account))
    }

    /// Counts an attempt and returns whether it is allowed. A refused attempt costs nothing.
    ///
    /// `now` is time on a clock that never goes back, from any starting point. A rule that this limiter was not created
    /// with refuses everything.
    pub fn check(&self, rule: &'static Rule, key: LimitKey, now: Duration) -> Decision {
        self.buckets(rule).map_or_else(|| unknown(rule), |buckets| buckets.take(key, now))
    }

    /// As [`check`](Self::check), for a key whose own numbers replace the rule's: `burst` at once and in a minute.
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

    /// What [`check`](Self::check) would return, without counting.
    #[cfg(test)]
    fn peek(&self, rule: &'static Rule, key: LimitKey, now: Duration) -> Decision {
        self.buckets(rule).map_or_else(|| unknown(rule), |buckets| buckets.peek(key, now))
    }
}

/// SECURITY: a rule that is not registered is a mistake in the program, which must become visible and not remove a
/// limit (test: an_unregistered_rule_refuses).
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
