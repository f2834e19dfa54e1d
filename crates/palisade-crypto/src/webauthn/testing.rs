//! A software authenticator for tests, behind the feature `testing`.
//!
//! [`SoftAuthenticator::register`] and [`SoftAuthenticator::authenticate`] respond to options as a
//! browser and a passkey together would. The other functions return the parts of a response, so
//! that a test can alter one of them.

#![expect(
    clippy::expect_used,
    reason = "tests fail by panicking, and this module only serves them"
)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciborium::Value as Cbor;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Algorithm;
use crate::random::Random;

/// Flag: a user was present.
pub const USER_PRESENT: u8 = 0x01;
/// Flag: the user was verified.
pub const USER_VERIFIED: u8 = 0x04;
/// Flag: the credential may be backed up.
pub const BACKUP_ELIGIBLE: u8 = 0x08;
/// Flag: the credential is backed up.
pub const BACKED_UP: u8 = 0x10;
/// Flag: a new credential follows.
pub const HAS_CREDENTIAL: u8 = 0x40;
/// Flag: extension data follows.
pub const HAS_EXTENSIONS: u8 = 0x80;

/// The bytes of an `ECPrivateKey` (RFC 5915) before and after a scalar on P-256.
const SEC1_BEFORE: [u8; 7] = [0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
const SEC1_AFTER: [u8; 12] =
    [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// An authenticator with one credential.
pub struct SoftAuthenticator {
    key: Key,
    /// The credential's id, initially 32 bytes.
    pub id: Vec<u8>,
    /// The user handle from the registration options.
    pub user_handle: Vec<u8>,
    /// The signature counter: 0 for none; otherwise, it increases by one with each sign-in.
    pub sign_count: u32,
    /// The flags of its responses, initially user present and user verified.
    pub flags: u8,
    /// Its model.
    pub aaguid: [u8; 16],
}

enum Key {
    Es256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SoftAuthenticator {
    /// Creates an authenticator with a new credential of this algorithm, which must be ES256 or EdDSA.
    #[must_use]
    pub fn new(algorithm: Algorithm, random: &dyn Random) -> Self {
        let mut secret = [0; 32];
        random.fill(&mut secret);
        let key = match algorithm {
            Algorithm::Es256 => {
                let der = [SEC1_BEFORE.as_slice(), &secret, &SEC1_AFTER].concat();
                let law = &ECDSA_P256_SHA256_ASN1_SIGNING;
                Key::Es256(EcdsaKeyPair::from_private_key_der(law, &der).expect("a scalar"))
            }
            _ => Key::Ed25519(Ed25519KeyPair::from_seed_unchecked(&secret).expect("a seed")),
        };
        let mut id = vec![0; 32];
        random.fill(&mut id);
        let flags = USER_PRESENT | USER_VERIFIED;
        Self { key, id, user_handle: Vec::new(), sign_count: 0, flags, aaguid: [0; 16] }
    }

    /// Responds to `PublicKeyCredentialCreationOptionsJSON` from a page of `origin`, without attestation.
    pub fn register(&mut self, options: &Value, origin: &str) -> Value {
        self.user_handle = decode(&options["user"]["id"]);
        let rp_id = options["rp"]["id"].as_str().unwrap_or_default();
        let client_data = client_data("webauthn.create", &decode(&options["challenge"]), origin);
        let data = self.registration_data(rp_id);
        self.registration(&client_data, &attestation_object("none", vec![], &data))
    }

    /// Responds to `PublicKeyCredentialRequestOptionsJSON` from a page of `origin`.
    pub fn authenticate(&mut self, options: &Value, origin: &str) -> Value {
        if self.sign_count != 0 {
            self.sign_count += 1;
        }
        let rp_id = options["rpId"].as_str().unwrap_or_default();
        let client_data = client_data("webauthn.get", &decode(&options["challenge"]), origin);
        self.authentication(&client_data, &self.authenticator_data(rp_id))
    }

    /// Returns the public key as a COSE key.
    #[must_use]
    pub fn cose_key(&self) -> Vec<u8> {
        let members = match &self.key {
            Key::Es256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point.split_at(1).1.split_at(32);
                vec![
                    (1.into(), 2.into()),
                    (3.into(), (-7).into()),
                    ((-1).into(), 1.into()),
                    ((-2).into(), Cbor::Bytes(x.to_vec())),
                    ((-3).into(), Cbor::Bytes(y.to_vec())),
                ]
            }
            Key::Ed25519(pair) => vec![
                (1.into(), 1.into()),
                (3.into(), (-8).into()),
                ((-1).into(), 6.into()),
                ((-2).into(), Cbor::Bytes(pair.public_key().as_ref().to_vec())),
            ],
        };
        cbor(&Cbor::Map(members))
    }

    /// Returns the authenticator data of a sign-in.
    #[must_use]
    pub fn authenticator_data(&self, rp_id: &str) -> Vec<u8> {
        let hash: [u8; 32] = Sha256::digest(rp_id.as_bytes()).into();
        [hash.as_slice(), &[self.flags], &self.sign_count.to_be_bytes()].concat()
    }

    /// Returns the authenticator data of a registration: the data of a sign-in, followed by the credential.
    #[must_use]
    pub fn registration_data(&self, rp_id: &str) -> Vec<u8> {
        self.registration_data_of(rp_id, &self.cose_key())
    }

    /// Returns the authenticator data of a registration with another key, for tests of keys.
    #[must_use]
    pub fn registration_data_of(&self, rp_id: &str, cose_key: &[u8]) -> Vec<u8> {
        let mut data = self.authenticator_data(rp_id);
        if let Some(flags) = data.get_mut(32) {
            *flags |= HAS_CREDENTIAL;
        }
        data.extend_from_slice(&self.aaguid);
        data.extend_from_slice(&u16::try_from(self.id.len()).unwrap_or(u16::MAX).to_be_bytes());
        data.extend_from_slice(&self.id);
        data.extend_from_slice(cose_key);
        data
    }

    /// Signs authenticator data and client data, as for sign-ins and self attestation.
    #[must_use]
    pub fn sign(&self, client_data: &[u8], authenticator_data: &[u8]) -> Vec<u8> {
        let hash: [u8; 32] = Sha256::digest(client_data).into();
        let message = [authenticator_data, &hash].concat();
        match &self.key {
            Key::Es256(pair) => {
                pair.sign(&SystemRandom::new(), &message).expect("a signature").as_ref().to_vec()
            }
            Key::Ed25519(pair) => pair.sign(&message).as_ref().to_vec(),
        }
    }

    /// Creates a `RegistrationResponseJSON` from these parts.
    #[must_use]
    pub fn registration(&self, client_data: &[u8], attestation_object: &[u8]) -> Value {
        let response = json!({
            "clientDataJSON": encode(client_data),
            "attestationObject": encode(attestation_object),
            "transports": ["internal", "hybrid"],
        });
        self.credential(&response)
    }

    /// Creates a signed `AuthenticationResponseJSON` from these parts.
    #[must_use]
    pub fn authentication(&self, client_data: &[u8], authenticator_data: &[u8]) -> Value {
        let response = json!({
            "clientDataJSON": encode(client_data),
            "authenticatorData": encode(authenticator_data),
            "signature": encode(&self.sign(client_data, authenticator_data)),
            "userHandle": encode(&self.user_handle),
        });
        self.credential(&response)
    }

    fn credential(&self, response: &Value) -> Value {
        json!({
            "id": encode(&self.id),
            "rawId": encode(&self.id),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": response,
        })
    }
}

/// Returns `clientDataJSON` as browsers write it.
#[must_use]
pub fn client_data(ceremony: &str, challenge: &[u8], origin: &str) -> Vec<u8> {
    json!({
        "type": ceremony,
        "challenge": encode(challenge),
        "origin": origin,
        "crossOrigin": false,
    })
    .to_string()
    .into_bytes()
}

/// Returns an attestation object with a statement of these members.
#[must_use]
pub fn attestation_object(format: &str, statement: Vec<(Cbor, Cbor)>, data: &[u8]) -> Vec<u8> {
    cbor(&Cbor::Map(vec![
        ("fmt".into(), format.into()),
        ("attStmt".into(), Cbor::Map(statement)),
        ("authData".into(), Cbor::Bytes(data.to_vec())),
    ]))
}

/// Returns the bytes of a CBOR value.
#[must_use]
pub fn cbor(value: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("a write to memory can't fail");
    bytes
}

/// Encodes bytes as base64url without padding.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text.as_str().unwrap_or_default()).expect("base64url")
}
