//! Time-based one-time passwords (RFC 6238): SHA-1, steps of 30 seconds and six digits, which every authenticator app
//! supports.
//!
//! SHA-1 is used inside HMAC, where its collisions don't matter (RFC 4226 appendix B).
//!
//! # Promises
//!
//! - A code is compared in constant time, and a correct one yields its step, so that the caller can ensure that each
//!   step is used at most once (RFC 6238 section 5.2). This module keeps no state.
//! - A secret has 160 random bits (RFC 4226 section 4).

use std::time::Duration;

use totp_rs::{Algorithm, Builder, Secret};
use zeroize::Zeroizing;

use crate::random::Random;
use crate::secret::{SecretBytes, SecretString};

/// The length of a time step, in seconds: how long a code is valid without a grace period.
pub const STEP_SECONDS: u64 = 30;
/// The number of digits in a code.
pub const DIGITS: u8 = 6;
const LENGTH: usize = 20;

/// The secret that a server and an authenticator app share.
#[derive(Clone, Debug)]
pub struct TotpSecret(SecretBytes);

impl TotpSecret {
    /// Creates a new 160-bit secret.
    #[must_use]
    pub fn generate(random: &dyn Random) -> Self {
        let mut bytes = vec![0; LENGTH];
        random.fill(&mut bytes);
        Self(bytes.into())
    }

    /// Restores a stored secret. Returns `None` if its length is wrong.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == LENGTH).then(|| Self(bytes.to_vec().into()))
    }

    /// Returns the bytes of the secret, to be sealed and stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.expose()
    }

    /// Returns the secret as base32 without padding (RFC 4648 section 6), for typing instead of scanning.
    #[must_use]
    pub fn base32(&self) -> SecretString {
        Secret::from(self.0.expose()).to_base32().into()
    }

    /// Returns the step that `code` belongs to. Accepts codes of the step at `now` (seconds since 1970) and, during the
    /// first `grace` of that step, of the one before it (RFC 6238 section 5.2).
    #[must_use]
    pub fn step_of(&self, code: &str, now: i64, grace: Duration) -> Option<i64> {
        if code.len() != usize::from(DIGITS) || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let now = u64::try_from(now).ok()?;
        let before = now
            .checked_sub(STEP_SECONDS)
            .filter(|_| Duration::from_secs(now % STEP_SECONDS) < grace);
        let totp = self.builder().build_noncompliant();
        let step = totp.check(code, now).or_else(|| totp.check(code, before?))?;
        i64::try_from(step).ok()
    }

    /// Returns the code of the step at `now` (seconds since 1970).
    #[must_use]
    pub fn code(&self, now: u64) -> SecretString {
        self.builder().build_noncompliant().generate(now).to_string().into()
    }

    /// Returns the `otpauth://totp/…` URI that an authenticator app reads, usually as a QR code, or `None` if the
    /// issuer or the account can't be used (neither may be empty).
    #[must_use]
    pub fn otpauth_uri(&self, issuer: &str, account: &str) -> Option<SecretString> {
        // A colon separates issuer and account in the URI, so neither may contain one.
        let (issuer, account) = (issuer.replace(':', " "), account.replace(':', " "));
        let totp = self.builder().with_issuer(Some(issuer)).with_account_name(account);
        Some(totp.build().ok()?.to_url().ok()?.into())
    }

    fn builder(&self) -> Builder {
        Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(DIGITS)
            .with_step_duration(STEP_SECONDS)
            .with_skew(0)
            .with_secret(Zeroizing::new(self.0.expose().to_vec()).as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    const RFC: &[u8; 20] = b"12345678901234567890";

    fn secret() -> TotpSecret {
        TotpSecret::from_bytes(RFC).unwrap()
    }

    #[test]
    fn the_ten_values_of_rfc_4226_appendix_d() {
        let values = [
            "755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583",
            "399871", "520489",
        ];
        for (counter, value) in (0u64..).zip(values) {
            assert_eq!(secret().code(counter * STEP_SECONDS).expose(), value);
        }
    }

    #[test]
    fn the_eighteen_values_of_rfc_6238_appendix_b() {
        let times =
            [59, 1_111_111_109, 1_111_111_111, 1_234_567_890, 2_000_000_000, 20_000_000_000];
        let longer = |length: usize| RFC.iter().copied().cycle().take(length).collect::<Vec<_>>();
        let rows = [
            (
                Algorithm::SHA1,
                longer(20),
                ["94287082", "07081804", "14050471", "89005924", "69279037", "65353130"],
            ),
            (
                Algorithm::SHA256,
                longer(32),
                ["46119246", "68084774", "67062674", "91819424", "90698825", "77737706"],
            ),
            (
                Algorithm::SHA512,
                longer(64),
                ["90693936", "25091201", "99943326", "93441116", "38618901", "47863826"],
            ),
        ];
        for (algorithm, key, values) in rows {
            let totp = Builder::new()
                .with_algorithm(algorithm)
                .with_digits(8)
                .with_secret(key.as_slice())
                .build_noncompliant();
            for (time, value) in times.into_iter().zip(values) {
                assert_eq!(totp.generate(time).to_string(), value);
                if algorithm == Algorithm::SHA1 {
                    // Six digits are the last six of eight.
                    assert!(value.ends_with(secret().code(time).expose()));
                }
            }
        }
    }

    #[test]
    fn a_code_is_good_in_its_step_and_for_a_grace_after_it() {
        let (none, grace) = (Duration::ZERO, Duration::from_secs(10));
        let code = secret().code(1_111_111_109);
        let code = code.expose();
        let step = 1_111_111_109 / 30;
        assert_eq!(secret().step_of(code, step * 30, none), Some(step));
        assert_eq!(secret().step_of(code, step * 30 + 29, none), Some(step));
        assert_eq!(secret().step_of(code, step * 30 + 30, none), None);
        assert_eq!(secret().step_of(code, step * 30 - 1, none), None);
        assert_eq!(secret().step_of(code, step * 30 - 1, grace), None);
        assert_eq!(secret().step_of(code, step * 30 + 30, grace), Some(step));
        assert_eq!(secret().step_of(code, step * 30 + 60, grace), None);
        assert_eq!(secret().step_of(code, step * 30 + 39, grace), Some(step));
        assert_eq!(secret().step_of(code, step * 30 + 40, grace), None);
        assert_eq!(secret().step_of(code, -1, none), None);
    }

    #[test]
    fn what_has_not_six_ascii_digits_is_no_code() {
        let now = 1_111_111_109;
        let good = secret().code(now);
        let good = good.expose();
        for other in [
            "",
            "0",
            " 081804",
            "081804 ",
            "+81804",
            "0818040",
            "١٢٣٤٥٦",
            "08180",
            "081-804",
            "0x1804",
        ] {
            assert_eq!(
                secret().step_of(other, 1_111_111_109, Duration::from_secs(10)),
                None,
                "{other}"
            );
        }
        let wrong = if good == "000000" { "000001" } else { "000000" };
        assert_eq!(secret().step_of(wrong, 1_111_111_109, Duration::ZERO), None);
    }

    #[test]
    fn the_uri_holds_secret_issuer_and_account() {
        let uri = secret().otpauth_uri("app.example.com:8000", "ann@example.com").unwrap();
        assert_eq!(
            uri.expose(),
            "otpauth://totp/app.example.com%208000:ann%40example.com\
             ?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=app.example.com%208000"
        );
        assert!(secret().otpauth_uri("example", "").is_none());
        assert_eq!(secret().base32().expose(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    }

    #[test]
    fn secrets_differ_and_have_160_bits() {
        let random = SeededRandom::new(1);
        let (one, other) = (TotpSecret::generate(&random), TotpSecret::generate(&random));
        assert_ne!(one.as_bytes(), other.as_bytes());
        assert_eq!(one.as_bytes().len(), 20);
        assert!(TotpSecret::from_bytes(&[0; 19]).is_none());
    }
}
