//! Verifies registrations of passkeys. Each line of the standard input is a JSON object with the members `rp_id`,
//! `origin`, `challenge` (base64url) and `credential` (what `PublicKeyCredential.toJSON()` returns in a browser). For each
//! of them, one line of JSON is written: the properties of the new passkey, or the reason why it is refused.
//!
//! ```text
//! cargo run -p palisade-crypto --example register <registrations.jsonl
//! ```

use std::error::Error;
use std::io::{self, BufRead, Write};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade_crypto::webauthn::{
    Algorithm, AttestationPolicy, RegistrationExpectation, RelyingParty, UserVerification,
    verify_registration,
};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let result = match register(&serde_json::from_str(&line?)?) {
            Ok(passkey) => passkey,
            Err(why) => json!({ "refused": why.to_string() }),
        };
        writeln!(output, "{result}")?;
    }
    Ok(())
}

fn register(input: &Value) -> Result<Value, Box<dyn Error>> {
    let text = |member| input[member].as_str().ok_or_else(|| format!("{member} is missing"));
    let rp = RelyingParty { id: text("rp_id")?.into(), origins: vec![text("origin")?.into()] };
    let expected = RegistrationExpectation {
        challenge: &URL_SAFE_NO_PAD.decode(text("challenge")?)?,
        user_verification: UserVerification::Preferred,
        algorithms: &Algorithm::OFFERED,
        attestation: &AttestationPolicy::None,
    };
    let response = serde_json::from_value(input["credential"].clone())?;
    let passkey = verify_registration(&rp, &expected, &response)?;
    Ok(json!({
        "id": URL_SAFE_NO_PAD.encode(&passkey.id),
        "algorithm": passkey.public_key.algorithm(),
        "attestation": passkey.attestation.as_str(),
        "public_key": URL_SAFE_NO_PAD.encode(passkey.public_key.as_bytes()),
    }))
}
