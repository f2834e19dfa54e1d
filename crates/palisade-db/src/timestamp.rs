//! The only representation of time: microseconds since 1970, UTC.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::DbError;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// The first and last instant that RFC 3339 can represent (years 0000 and 9999).
const WRITABLE: (i64, i64) = (-62_167_219_200_000_000, 253_402_300_799_999_999);

/// The first and last instant that can be sent to PostgreSQL (years -9999 and 9999).
const SENDABLE: (i64, i64) = (-377_705_116_800_000_000, WRITABLE.1);

/// The instant from which PostgreSQL counts: 2000-01-01T00:00:00Z.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// An instant: whole microseconds since 1970-01-01T00:00:00Z, not counting leap seconds.
///
/// This is the precision that both databases keep, so a value read back equals the value written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Returns the instant `micros` microseconds after (or, if negative, before) the start of 1970.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns the microseconds since 1970.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the instant `seconds` seconds after the start of 1970, clamped to the representable range.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Returns the whole seconds since 1970, rounded down.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// Returns this instant moved forward, clamped to the representable range.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(whole_micros(by)))
    }

    /// Returns this instant moved back, clamped to the representable range.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(whole_micros(by)))
    }

    /// Returns the time from `earlier` to this instant, or zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        match u64::try_from(i128::from(self.0) - i128::from(earlier.0)) {
            Ok(micros) => Duration::from_micros(micros),
            Err(_) => Duration::ZERO,
        }
    }

    /// Parses an RFC 3339 date and time. Any offset is accepted; digits beyond microseconds are dropped. A leap second
    /// becomes the last microsecond before it.
    ///
    /// # Errors
    /// Returns `Wrong` if the text is not RFC 3339, or if the time in UTC lies outside the years that RFC 3339 can
    /// represent: with an offset, the last hours of 9999 can fall in the year 10000, which a database might refuse.
    pub fn parse_rfc3339(text: &str) -> Result<Self, DbError> {
        let at = OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|cause| DbError::wrong("the text is not an RFC 3339 time").caused_by(cause))
            .and_then(Self::from_date_time)?;
        if (WRITABLE.0..=WRITABLE.1).contains(&at.0) {
            Ok(at)
        } else {
            Err(DbError::wrong("the time is out of range"))
        }
    }

    pub(crate) fn from_date_time(at: OffsetDateTime) -> Result<Self, DbError> {
        i64::try_from(at.unix_timestamp_nanos().div_euclid(1000))
            .map(Self)
            .map_err(|cause| DbError::wrong("the time is out of range").caused_by(cause))
    }

    /// Returns the instant that PostgreSQL represents by this number of microseconds.
    pub(crate) fn from_postgres(micros: i64) -> Result<Self, DbError> {
        let at = micros.checked_add(POSTGRES_EPOCH);
        at.filter(|at| (SENDABLE.0..=SENDABLE.1).contains(at))
            .map(Self)
            .ok_or_else(|| DbError::wrong("the time is out of range"))
    }

    pub(crate) fn to_date_time(self) -> Result<OffsetDateTime, DbError> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000)
            .map_err(|cause| DbError::wrong("the time is out of range").caused_by(cause))
    }
}

fn whole_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Writes RFC 3339 in UTC with `Z`, without trailing zeros in the fraction. Instants before year 0 or after year 9999,
/// which RFC 3339 cannot represent, are written as the nearest one it can.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.clamp(WRITABLE.0, WRITABLE.1);
        let at = OffsetDateTime::from_unix_timestamp(micros.div_euclid(MICROS_PER_SECOND))
            .map_err(|_| fmt::Error)?;
        let mut text = *b"YYYY-MM-DDTHH:MM:SS.ffffff";
        write_digits(&mut text[..4], at.year().into());
        write_digits(&mut text[5..7], u8::from(at.month()).into());
        write_digits(&mut text[8..10], at.day().into());
        write_digits(&mut text[11..13], at.hour().into());
        write_digits(&mut text[14..16], at.minute().into());
        write_digits(&mut text[17..19], at.second().into());
        write_digits(&mut text[20..], micros.rem_euclid(MICROS_PER_SECOND));
        let text = std::str::from_utf8(&text).map_err(|_| fmt::Error)?;
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))?;
        f.write_str("Z")
    }
}

/// Writes `number`, which isn't negative and fits, with leading zeros.
fn write_digits(place: &mut [u8], mut number: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

/// Serializes the instant as [`Display`](fmt::Display) writes it.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zeros_at_the_end_of_the_fraction_are_not_written() {
        let shown = |micros| Timestamp::from_micros(micros).to_string();
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
        assert_eq!(shown(1_500_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(shown(-1), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn what_rfc_3339_cannot_write_shows_as_the_nearest_it_can() {
        assert_eq!(Timestamp::from_micros(i64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::from_micros(i64::MIN).to_string(), "0000-01-01T00:00:00Z");
    }

    #[test]
    fn an_offset_is_converted_to_utc() {
        let read = Timestamp::parse_rfc3339("2026-01-01T01:00:00.0000019+01:00").unwrap();
        assert_eq!(read.to_string(), "2026-01-01T00:00:00.000001Z");
        assert!(Timestamp::parse_rfc3339("yesterday").is_err());
    }

    #[test]
    fn only_what_rfc_3339_can_write_in_utc_is_read() {
        for good in [
            "9999-12-31T23:59:59.9999999Z",
            "9999-12-31T23:59:59+00:01",
            "0000-01-01T00:00:00Z",
            "0000-01-01T00:00:00-23:59",
        ] {
            let read = Timestamp::parse_rfc3339(good).unwrap();
            assert_eq!(Timestamp::parse_rfc3339(&read.to_string()).unwrap(), read, "{good}");
        }
        for bad in [
            "9999-12-31T23:59:59-00:01",
            "9999-12-31T23:59:59-23:59",
            "0000-01-01T00:00:00+00:01",
            "10000-01-01T00:00:00Z",
            "+10000-01-01T00:00:00Z",
            "-0001-01-01T00:00:00Z",
        ] {
            assert!(Timestamp::parse_rfc3339(bad).is_err(), "{bad}");
        }
        let leap = Timestamp::parse_rfc3339("2016-12-31T23:59:60.5Z").unwrap();
        assert_eq!(leap.to_string(), "2016-12-31T23:59:59.999999Z");
    }

    proptest! {
        #[test]
        fn a_written_time_is_read_back(micros in WRITABLE.0..=WRITABLE.1) {
            let at = Timestamp::from_micros(micros);
            prop_assert_eq!(Timestamp::parse_rfc3339(&at.to_string()).unwrap(), at);
        }

        #[test]
        fn moving_never_overflows(micros: i64, by: u64) {
            let (at, by) = (Timestamp::from_micros(micros), Duration::from_secs(by));
            prop_assert!(at.plus(by) >= at);
            prop_assert!(at.minus(by) <= at);
            prop_assert_eq!(at.since(at.plus(by)), Duration::ZERO);
        }
    }
}
