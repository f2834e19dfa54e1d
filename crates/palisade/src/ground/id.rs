//! Identifiers: version 7 UUIDs (RFC 9562 section 5.7), with one type per kind of object.
//!
//! An id reveals when an object was created, and nothing else. It is never a secret.

use std::sync::atomic::{AtomicU64, Ordering};

use palisade_crypto::random::Random;
use palisade_db::Timestamp;
use uuid::Uuid;

/// Creates a version 7 UUID from a time and 74 random bits.
pub fn uuid_v7(at: Timestamp, random: &dyn Random) -> Uuid {
    let mut bytes = [0u8; 10];
    random.fill(&mut bytes);
    let millis = u64::try_from(at.as_micros() / 1000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
}

/// Generates sequential request ids. Each process starts at a random value and counts from there (RFC 9562 section
/// 6.2), because every request needs an id and randomness costs a system call. Anyone who knows one id can guess the
/// next; nothing depends on the secrecy of request ids.
#[derive(Debug)]
pub struct RequestIds {
    start: [u8; 10],
    given: AtomicU64,
}

impl RequestIds {
    /// Creates a generator that starts at a random value.
    pub fn new(random: &dyn Random) -> Self {
        let mut start = [0u8; 10];
        random.fill(&mut start);
        Self { start, given: AtomicU64::new(0) }
    }

    /// Returns the next id.
    pub fn next(&self, at: Timestamp) -> RequestId {
        let given = self.given.fetch_add(1, Ordering::Relaxed);
        let mut bytes = self.start;
        if let Some(low) = bytes.last_chunk_mut::<8>() {
            *low = u64::from_be_bytes(*low).wrapping_add(given).to_be_bytes();
        }
        let millis = u64::try_from(at.as_micros() / 1000).unwrap_or(0);
        RequestId(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid())
    }
}

/// Declares an id type: a UUID that can't be mistaken for the id of something else.
#[macro_export]
macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
            ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema,
        )]
        #[serde(transparent)]
        #[schemars(inline)]
        pub struct $name(#[schemars(length(max = 36))] pub ::uuid::Uuid);

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(&self.0, f)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = ::uuid::Error;
            fn from_str(text: &str) -> ::std::result::Result<Self, Self::Err> {
                // Only with hyphens, so that an id in a URL looks like the same id in the log and the table.
                ::uuid::fmt::Hyphenated::from_str(text).map(|id| Self(id.into_uuid()))
            }
        }

        impl ::palisade_db::Column for $name {
            const TYPE: ::palisade_db::Type = ::palisade_db::Type::Id;
            fn from_cell(
                cell: ::palisade_db::Cell<'_>,
            ) -> ::std::result::Result<Self, ::palisade_db::DbError> {
                <::uuid::Uuid as ::palisade_db::Column>::from_cell(cell).map(Self)
            }
        }

        impl ::palisade_db::ToValue for $name {
            const TYPE: ::palisade_db::Type = ::palisade_db::Type::Id;
            fn to_value(self) -> ::palisade_db::Value {
                ::palisade_db::Value::Id(self.0)
            }
        }
    };
}

id_type! {
    /// Identifies a person or a service account. Never reused, even after the user is deleted.
    UserId
}
id_type! {
    /// Identifies one sign-in of one user and all its tokens (the `sid` claim).
    SessionId
}
id_type! {
    /// Identifies one API key of one user.
    ApiKeyId
}
id_type! {
    /// Identifies one passkey of one user.
    PasskeyId
}
id_type! {
    /// Identifies one record of the audit log.
    EventId
}
id_type! {
    /// Identifies one HTTP request, in its response, the log and the audit log.
    RequestId
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use palisade_crypto::random::SeededRandom;

    use super::*;

    /// Always the same bytes.
    struct Fixed(u8);

    impl Random for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn requests_of_one_process_never_share_an_id() {
        let at = Timestamp::from_seconds(1_900_000_000);
        // 0xff starts right before the counter turns over.
        for start in [0x00, 0x3f, 0xff] {
            let ids = RequestIds::new(&Fixed(start));
            let given: HashSet<RequestId> = (0..10_000).map(|_| ids.next(at)).collect();
            assert_eq!(given.len(), 10_000);
            assert!(given.iter().all(|id| id.0.get_version_num() == 7));
        }
        let (one, two) = (SeededRandom::new(1), SeededRandom::new(2));
        assert_ne!(RequestIds::new(&one).next(at), RequestIds::new(&two).next(at));
    }
}
