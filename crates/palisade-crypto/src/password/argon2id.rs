//! Argon2id and its working memory.

use std::fmt;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::{Zeroize, Zeroizing};

use super::cost::{MOST_LANES, MOST_MEMORY_KIB, MOST_PASSES};
use super::{Cost, PasswordError};
use crate::secret::{SecretString, constant_time_eq};

const SALT_LENGTH: usize = 16;
const OUTPUT_LENGTH: usize = 32;
const SHORTEST_IMPORTED_OUTPUT: usize = 16;

/// The memory of Argon2, kept from one password to the next because requesting it from the
/// operating system again takes about as long as filling it. Each concurrent hash needs its own.
///
/// It grows to the highest cost that it was used for and contains only zeros between uses.
#[derive(Default)]
pub struct Memory {
    blocks: Vec<Block>,
}

impl Memory {
    /// Creates a value without memory, which is allocated on first use.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the memory to the operating system.
    pub(super) fn release(&mut self) {
        self.blocks = Vec::new();
    }

    /// Returns the number of allocated bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.blocks.capacity() * Block::SIZE
    }

    /// Returns `count` blocks that are wiped when the caller is done with them, even if it panics.
    fn take(&mut self, count: usize) -> Result<Wiped<'_>, PasswordError> {
        if self.blocks.len() < count {
            self.release();
            self.blocks.try_reserve_exact(count).map_err(|_| PasswordError::OutOfMemory)?;
            self.blocks.resize(count, Block::new());
        }
        self.blocks.get_mut(..count).map(Wiped).ok_or(PasswordError::OutOfMemory)
    }

    #[cfg(test)]
    pub(super) fn is_wiped(&self) -> bool {
        self.blocks.iter().all(|block| block.as_ref().iter().all(|word| *word == 0))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Memory").field("bytes", &self.bytes()).finish()
    }
}

struct Wiped<'a>(&'a mut [Block]);

impl AsMut<[Block]> for Wiped<'_> {
    fn as_mut(&mut self) -> &mut [Block] {
        self.0
    }
}

impl Drop for Wiped<'_> {
    fn drop(&mut self) {
        self.0.iter_mut().zeroize();
    }
}

/// `memory`, `passes` and `lanes` in the order in which the encoded form names them.
type Parameters = [u32; 3];

pub(super) fn hash(
    parameters: Parameters,
    salt: [u8; SALT_LENGTH],
    password: &SecretString,
    memory: &mut Memory,
) -> Result<String, PasswordError> {
    let mut output = Zeroizing::new([0; OUTPUT_LENGTH]);
    compute(parameters, &salt, password, memory, output.as_mut())?;
    Ok(encode(parameters, &salt, output.as_ref()))
}

pub(super) fn encode(parameters: Parameters, salt: &[u8], output: &[u8]) -> String {
    let [memory_kib, passes, lanes] = parameters;
    let (salt, output) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(output));
    format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${output}")
}

fn compute(
    [memory_kib, passes, lanes]: Parameters,
    salt: &[u8],
    password: &SecretString,
    memory: &mut Memory,
    output: &mut [u8],
) -> Result<(), PasswordError> {
    let params = Params::new(memory_kib, passes, lanes, Some(output.len()))
        .map_err(|_| PasswordError::Malformed)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    run(&argon2, password.expose().as_bytes(), salt, memory, output)
}

pub(super) fn run(
    argon2: &Argon2<'_>,
    password: &[u8],
    salt: &[u8],
    memory: &mut Memory,
    output: &mut [u8],
) -> Result<(), PasswordError> {
    let blocks = memory.take(argon2.params().block_count())?;
    argon2
        .hash_password_into_with_memory(password, salt, output, blocks)
        .map_err(|_| PasswordError::Malformed)
}

/// An encoded Argon2id hash whose cost is within bounds.
pub(super) struct Stored {
    parameters: Parameters,
    salt: Vec<u8>,
    output: Vec<u8>,
}

impl Stored {
    pub(super) fn parse(text: &str) -> Result<Self, PasswordError> {
        let parsed = PasswordHash::new(text).map_err(|_| PasswordError::Malformed)?;
        let number = |name: &str| parsed.params.get_decimal(name).ok_or(PasswordError::Malformed);
        let parameters = [number("m")?, number("t")?, number("p")?];
        let salt = parsed.salt.ok_or(PasswordError::Malformed)?;
        let output = parsed.hash.ok_or(PasswordError::Malformed)?;
        let known = parsed.version == Some(Version::V0x13.into())
            && parsed.params.iter().count() == parameters.len()
            && output.len() >= SHORTEST_IMPORTED_OUTPUT;
        if !known {
            return Err(PasswordError::Malformed);
        }
        let [memory_kib, passes, lanes] = parameters;
        // SECURITY: the cost is checked before any memory is allocated, because an encoded hash may come from an import
        // (test: a_stored_hash_that_asks_for_too_much_is_refused_before_any_work).
        if memory_kib > MOST_MEMORY_KIB || passes > MOST_PASSES || lanes > MOST_LANES {
            return Err(PasswordError::TooCostly);
        }
        Ok(Self { parameters, salt: salt.to_vec(), output: output.as_bytes().to_vec() })
    }

    pub(super) fn verify(
        &self,
        password: &SecretString,
        memory: &mut Memory,
    ) -> Result<bool, PasswordError> {
        let mut output = Zeroizing::new(vec![0; self.output.len()]);
        compute(self.parameters, &self.salt, password, memory, &mut output)?;
        Ok(constant_time_eq(&output, &self.output))
    }

    /// Returns the cost, or `None` if the salt or the output does not have the length that this module uses.
    pub(super) fn own_cost(&self) -> Option<Cost> {
        let [memory_kib, passes, lanes] = self.parameters;
        (self.salt.len() == SALT_LENGTH && self.output.len() == OUTPUT_LENGTH)
            .then_some(Cost::Argon2id { memory_kib, passes, lanes })
    }
}
