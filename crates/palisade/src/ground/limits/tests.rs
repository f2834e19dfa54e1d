use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

static FIVE_A_MINUTE: Rule = Rule {
    name: "test.five",
    burst: 5,
    per: Duration::from_secs(60),
    key: Key::Ip,
    summary: "Too many attempts.",
};

const SECOND: Duration = Duration::from_secs(1);

fn five() -> Limiter {
    Limiter::new([FIVE_A_MINUTE.by_default()])
}

fn with(burst: u32, per: Duration) -> Limiter {
    Limiter::new([EffectiveRule { rule: &FIVE_A_MINUTE, burst, per, enabled: true }])
}

fn ip(text: &str) -> LimitKey {
    LimitKey::ip(text.parse().unwrap())
}

fn numbered(number: u32) -> LimitKey {
    LimitKey::ip(IpAddr::V4(number.into()))
}

/// Returns how many of `tries` attempts at `now` pass.
fn passed(limiter: &Limiter, key: LimitKey, now: Duration, tries: u32) -> u32 {
    (0..tries).map(|_| u32::from(limiter.check(&FIVE_A_MINUTE, key, now).allowed)).sum()
}

#[test]
fn the_burst_passes_then_one_per_refill() {
    let (limiter, key) = (five(), ip("192.0.2.1"));
    assert_eq!(limiter.burst(&FIVE_A_MINUTE), 5);
    assert_eq!(passed(&limiter, key, Duration::ZERO, 20), 5);
    assert_eq!(passed(&limiter, key, SECOND * 11, 20), 0);
    assert_eq!(passed(&limiter, key, SECOND * 12, 20), 1);
    assert_eq!(passed(&limiter, key, SECOND * 1000, 20), 5);
}

#[test]
fn each_rule_has_its_own_counts() {
    static OTHER: Rule = Rule { name: "test.other", burst: 2, ..FIVE_A_MINUTE };
    let limiter = Limiter::new([FIVE_A_MINUTE.by_default(), OTHER.by_default()]);
    let key = ip("192.0.2.1");
    assert_eq!((limiter.burst(&FIVE_A_MINUTE), limiter.burst(&OTHER)), (5, 2));
    assert_eq!(passed(&limiter, key, Duration::ZERO, 20), 5);
    let more = (0..20).filter(|_| limiter.check(&OTHER, key, Duration::ZERO).allowed).count();
    assert_eq!(more, 2);
}

#[test]
fn a_rule_that_is_listed_twice_is_counted_once() {
    static AGAIN: Rule = Rule { burst: 5, ..FIVE_A_MINUTE };
    let limiter = Limiter::new([FIVE_A_MINUTE.by_default(), AGAIN.by_default()]);
    let key = ip("192.0.2.1");
    assert_eq!(passed(&limiter, key, Duration::ZERO, 3), 3);
    let more = (0..5).filter(|_| limiter.check(&AGAIN, key, Duration::ZERO).allowed).count();
    assert_eq!((more, limiter.rules().len()), (2, 1));
}

#[test]
fn a_decision_says_what_is_left_and_when_more_comes() {
    let (limiter, key) = (five(), ip("192.0.2.1"));
    let first = limiter.check(&FIVE_A_MINUTE, key, SECOND);
    assert_eq!((first.allowed, first.limit, first.remaining), (true, 5, 4));
    assert_eq!((first.retry_after, first.reset_after), (Duration::ZERO, SECOND * 12));
    assert_eq!(first.policy_field(), "\"test.five\";q=5;w=60");
    assert_eq!(first.limit_field(), "\"test.five\";r=4;t=12");
    passed(&limiter, key, SECOND, 4);
    let refused = limiter.check(&FIVE_A_MINUTE, key, SECOND * 2 + Duration::from_millis(1));
    assert_eq!((refused.allowed, refused.remaining), (false, 0));
    assert_eq!(refused.limit_field(), "\"test.five\";r=0;t=11");
    assert_eq!(refused.retry_after_seconds(), 11);
}

#[test]
fn a_policy_name_cannot_leave_its_quotes() {
    static ODD: Rule = Rule { name: "a\"b\\c\r\nd\u{e9}", ..FIVE };
    const FIVE: Rule = Rule { name: "", burst: 1, per: SECOND, key: Key::Account, summary: "" };
    let limiter = Limiter::new([ODD.by_default()]);
    let decision = limiter.check(&ODD, limiter.account("ann"), SECOND);
    assert_eq!(decision.policy_field(), "\"a\\\"b\\\\cd\";q=1;w=1");
}

#[test]
fn keys_are_counted_apart_and_ipv6_by_network() {
    let limiter = five();
    assert_eq!(passed(&limiter, ip("2001:db8::1"), SECOND, 9), 5);
    assert_eq!(passed(&limiter, ip("2001:db8::ffff:2"), SECOND, 9), 0);
    assert_eq!(passed(&limiter, ip("2001:db8:0:1::1"), SECOND, 9), 5);
    assert_eq!(passed(&limiter, ip("::ffff:192.0.2.1"), SECOND, 9), 5);
    assert_eq!(passed(&limiter, ip("192.0.2.1"), SECOND, 9), 0);
    assert_eq!(passed(&limiter, limiter.account("ann"), SECOND, 9), 5);
    assert_eq!(passed(&limiter, limiter.account("bob"), SECOND, 9), 5);
    assert_eq!(passed(&limiter, limiter.account("ann"), SECOND, 9), 0);
}

#[test]
fn a_refused_attempt_and_a_look_cost_nothing() {
    let (limiter, key) = (five(), ip("192.0.2.1"));
    for _ in 0..100 {
        assert_eq!(limiter.peek(&FIVE_A_MINUTE, key, Duration::ZERO).remaining, 5);
    }
    assert_eq!(passed(&limiter, key, Duration::ZERO, 1000), 5);
    assert!(!limiter.peek(&FIVE_A_MINUTE, key, SECOND * 11).allowed);
    assert!(limiter.peek(&FIVE_A_MINUTE, key, SECOND * 12).allowed);
}

#[test]
fn a_switched_off_rule_lets_all_pass_and_an_empty_one_none() {
    let off = EffectiveRule { enabled: false, ..FIVE_A_MINUTE.by_default() };
    assert_eq!(passed(&Limiter::new([off]), ip("192.0.2.1"), SECOND, 99), 99);
    let none = with(0, SECOND * 60);
    assert_eq!(passed(&none, ip("192.0.2.1"), SECOND, 9), 0);
    assert_eq!(none.peek(&FIVE_A_MINUTE, ip("192.0.2.1"), SECOND).retry_after, SECOND * 60);
}

#[test]
fn an_unregistered_rule_refuses() {
    let limiter = Limiter::new([]);
    assert_eq!(passed(&limiter, ip("192.0.2.1"), SECOND, 9), 0);
    assert!(!limiter.peek(&FIVE_A_MINUTE, ip("192.0.2.1"), SECOND).allowed);
}

#[test]
fn rotating_keys_resets_nobody_and_takes_bounded_memory() {
    let limiter = Limiter::with_capacity([FIVE_A_MINUTE.by_default()], 1600);
    let victim = ip("2001:db8::1");
    assert_eq!(passed(&limiter, victim, SECOND, 9), 5);
    let through: u32 = (0..50_000).map(|key| passed(&limiter, numbered(key), SECOND, 1)).sum();
    // Each remembered key once, and the burst of each shard's shared bucket.
    assert!(through <= 1600 + 16 * 5, "{through} passed");
    assert!(limiter.buckets(&FIVE_A_MINUTE).unwrap().remembered() <= 1600);
    assert_eq!(passed(&limiter, victim, SECOND, 9), 0);
}

#[test]
fn a_full_limiter_has_room_again_once_counts_have_run_out() {
    // A hundred keys to a shard. Of 800 new ones each shard gets about 50, so that chance does not
    // decide; a shard that stayed full would let 5 through.
    let limiter = Limiter::with_capacity([FIVE_A_MINUTE.by_default()], 1600);
    for key in 0..10_000 {
        passed(&limiter, numbered(key), SECOND, 1);
    }
    let later = SECOND * 100;
    let through: u32 = (20_000..20_800).map(|key| passed(&limiter, numbered(key), later, 1)).sum();
    assert_eq!(through, 800);
}

#[test]
fn expired_keys_are_forgotten_as_new_ones_come() {
    let limiter = five();
    for key in 0..20_000 {
        passed(&limiter, numbered(key), SECOND * key, 1);
    }
    let remembered = limiter.buckets(&FIVE_A_MINUTE).unwrap().remembered();
    assert!(remembered < 200, "{remembered} keys are stored, but only about 12 are needed");
}

#[test]
fn many_threads_together_pass_no_more_than_the_burst() {
    let limiter = Arc::new(with(100, SECOND * 3600));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let limiter = Arc::clone(&limiter);
            std::thread::spawn(move || passed(&limiter, ip("192.0.2.1"), SECOND, 100))
        })
        .collect();
    let total: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(total, 100);
}

#[test]
fn ip_groups_are_networks() {
    let network: IpAddr = "2001:db8:1:2::".parse().unwrap();
    assert_eq!(ip_group("2001:db8:1:2:3:4:5:6".parse().unwrap()), network);
    assert_eq!(ip_group(network), network);
    let mapped = IpAddr::V6("192.0.2.1".parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped());
    assert_eq!(ip_group(mapped), "192.0.2.1".parse::<IpAddr>().unwrap());
    assert_eq!(ip_group(Ipv6Addr::LOCALHOST.into()), "::".parse::<IpAddr>().unwrap());
}

/// A bucket with exact fractions: it holds `burst * per` units, an attempt takes `per` of them, and `burst` are
/// refilled each nanosecond.
struct Naive {
    burst: u128,
    per: u128,
    level: u128,
    at: u128,
}

impl Naive {
    fn allows(&mut self, now: Duration) -> bool {
        let now = now.as_nanos();
        let full = self.burst * self.per;
        self.level = full.min(self.level + (now - self.at) * self.burst);
        self.at = now;
        let allowed = self.level >= self.per;
        if allowed {
            self.level -= self.per;
        }
        allowed
    }
}

fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        any::<Duration>(),
        Just(Duration::ZERO),
        Just(Duration::MAX),
        (0u64..1000).prop_map(Duration::from_nanos),
    ]
}

proptest! {
    #[test]
    fn agrees_with_a_naive_bucket(
        burst in 1u32..50,
        cost_ms in 1u64..5000,
        steps in prop::collection::vec(0u64..8000, 1..200),
    ) {
        // A window the burst divides, so that both are exact.
        let per = Duration::from_millis(cost_ms * u64::from(burst));
        let limiter = with(burst, per);
        let (units, per) = (u128::from(burst), per.as_nanos());
        let mut naive = Naive { burst: units, per, level: units * per, at: 0 };
        let (key, mut now) = (ip("192.0.2.1"), Duration::ZERO);
        for step in steps {
            now += Duration::from_millis(step);
            let decision = limiter.check(&FIVE_A_MINUTE, key, now);
            prop_assert_eq!(decision.allowed, naive.allows(now));
            prop_assert_eq!(u128::from(decision.remaining), naive.level / naive.per);
        }
    }

    #[test]
    fn never_more_than_the_burst_and_its_refill_in_any_span(
        burst in 1u32..20,
        // Small numbers, so that a rounding error shows within the run.
        per_ns in 1u64..100,
        steps in prop::collection::vec(0u64..8, 1..200),
    ) {
        let limiter = with(burst, Duration::from_nanos(per_ns));
        let (key, mut now, mut times) = (ip("192.0.2.1"), 0u64, Vec::new());
        for step in steps {
            now += step;
            if limiter.check(&FIVE_A_MINUTE, key, Duration::from_nanos(now)).allowed {
                times.push(now);
            }
        }
        for (first, from) in times.iter().enumerate() {
            for (last, to) in times.iter().enumerate().skip(first) {
                let refilled = u128::from(to - from) * u128::from(burst) / u128::from(per_ns);
                prop_assert!((last - first + 1) as u128 <= u128::from(burst) + refilled);
            }
        }
    }

    #[test]
    fn waiting_as_told_is_enough_and_not_too_long(
        burst in 1u32..20,
        per_ns in 1u64..1_000_000_000,
        tries in 1u32..40,
    ) {
        let limiter = with(burst, Duration::from_nanos(per_ns));
        let key = ip("192.0.2.1");
        passed(&limiter, key, SECOND, tries);
        let told = limiter.peek(&FIVE_A_MINUTE, key, SECOND);
        prop_assert!(limiter.peek(&FIVE_A_MINUTE, key, SECOND + told.retry_after).allowed);
        if let Some(sooner) = told.retry_after.checked_sub(Duration::from_nanos(1)) {
            prop_assert!(!limiter.peek(&FIVE_A_MINUTE, key, SECOND + sooner).allowed);
        }
        let all = limiter.peek(&FIVE_A_MINUTE, key, SECOND + told.reset_after).remaining;
        prop_assert_eq!(all, burst);
    }

    #[test]
    fn extreme_values_neither_panic_nor_pass_too_much(
        burst in prop_oneof![any::<u32>(), Just(0), Just(1), Just(u32::MAX)],
        per in any_duration(),
        times in prop::collection::vec(any_duration(), 1..20),
    ) {
        let limiter = with(burst, per);
        let key = ip("2001:db8::1");
        for now in times {
            let decision = limiter.check(&FIVE_A_MINUTE, key, now);
            prop_assert!(decision.remaining <= burst);
            prop_assert!(!decision.allowed || burst > 0);
            prop_assert!(decision.limit_field().starts_with('"'));
            prop_assert!(decision.policy_field().starts_with('"'));
        }
    }
}
