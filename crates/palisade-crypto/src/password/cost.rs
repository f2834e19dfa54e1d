//! The cost of a password hash, and the bounds within which a site can choose it.

use std::ops::RangeInclusive;
use std::{error, fmt};

pub(super) const MOST_MEMORY_KIB: u32 = 1024 * 1024;
pub(super) const MOST_PASSES: u32 = 16;
pub(super) const MOST_LANES: u32 = 16;
pub(super) const BCRYPT_COSTS: RangeInclusive<u32> = 10..=15;

/// How a password is hashed, and at what cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Argon2id, version 1.3 (RFC 9106).
    Argon2id {
        /// Memory in KiB, at least 8 for each lane, at most 1 GiB.
        memory_kib: u32,
        /// Passes over the memory, 1 to 16.
        passes: u32,
        /// Lanes, 1 to 16. They are computed one after the other.
        lanes: u32,
    },
    /// bcrypt of a keyed digest of the password.
    Bcrypt {
        /// The base-2 logarithm of the rounds, 10 to 15.
        cost: u32,
    },
}

impl Cost {
    /// 64 MiB, 3 passes, 4 lanes: the second recommended option of RFC 9106, section 4.
    pub const STANDARD: Self = Self::Argon2id { memory_kib: 64 * 1024, passes: 3, lanes: 4 };

    /// 19 MiB, 2 passes, 1 lane: the minimum of the OWASP password storage cheat sheet.
    pub const LIGHT: Self = Self::Argon2id { memory_kib: 19 * 1024, passes: 2, lanes: 1 };

    /// Checks that every field is within its bounds.
    ///
    /// These bounds come from the algorithms and from the resources that one sign-in may use. The minimum is low,
    /// because tests use low costs. In production, the settings enforce a higher one, of which [`Cost::LIGHT`] is an
    /// example.
    ///
    /// # Errors
    ///
    /// Returns the first value that is out of bounds.
    pub fn validate(&self) -> Result<(), CostError> {
        match *self {
            Self::Argon2id { memory_kib, passes, lanes } => {
                if !(1..=MOST_PASSES).contains(&passes) {
                    Err(CostError::Passes)
                } else if !(1..=MOST_LANES).contains(&lanes) {
                    Err(CostError::Lanes)
                } else if !(8 * lanes..=MOST_MEMORY_KIB).contains(&memory_kib) {
                    Err(CostError::Memory)
                } else {
                    Ok(())
                }
            }
            Self::Bcrypt { cost } if BCRYPT_COSTS.contains(&cost) => Ok(()),
            Self::Bcrypt { .. } => Err(CostError::Bcrypt),
        }
    }
}

/// Which value of a [`Cost`] is out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostError {
    /// Argon2's memory.
    Memory,
    /// Argon2's passes.
    Passes,
    /// Argon2's lanes.
    Lanes,
    /// bcrypt's cost.
    Bcrypt,
}

impl fmt::Display for CostError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Memory => {
                "the Argon2 memory must be at least 8 KiB for each lane and at most 1 GiB"
            }
            Self::Passes => "the number of Argon2 passes must be 1 to 16",
            Self::Lanes => "the number of Argon2 lanes must be 1 to 16",
            Self::Bcrypt => "the bcrypt cost must be 10 to 15",
        })
    }
}

impl error::Error for CostError {}
