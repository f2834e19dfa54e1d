//! Valid tokens. The other files contain known answers, attacks and properties.

mod attacks;
mod claim_attacks;
mod known_answers;
mod properties;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::key::Signing;
use super::*;
use crate::random::SeededRandom;

const ISSUER: &str = "https://id.example.org";
const AUDIENCE: &str = "https://api.example.org";
const NOW: i64 = 1_800_000_000;
const ALL: [Algorithm; 4] =
    [Algorithm::EdDsa, Algorithm::Es256, Algorithm::PasetoV4Public, Algorithm::PasetoV4Local];

fn claims() -> AccessClaims {
    AccessClaims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: "0198c0de-0000-7000-8000-000000000001".to_owned(),
        client_id: "web".to_owned(),
        sid: "0198c0de-0000-7000-8000-000000000002".to_owned(),
        jti: "0198c0de-0000-7000-8000-000000000003".to_owned(),
        iat: NOW,
        exp: NOW + 900,
        auth_time: NOW - 30,
        amr: vec!["pwd".to_owned(), "otp".to_owned()],
        generation: 3,
        roles: None,
        scope: None,
        email: None,
        email_verified: None,
        name: None,
    }
}

fn key(algorithm: Algorithm) -> TokenKey {
    TokenKey::generate(algorithm, &SeededRandom::new(algorithm as u64)).unwrap()
}

fn signed(key: &TokenKey, claims: &AccessClaims) -> String {
    key.sign(claims, &SeededRandom::new(9)).unwrap()
}

fn verifier(keys: &[&TokenKey]) -> Verifier {
    let keys = keys.iter().map(|key| key.verification()).collect();
    Verifier::new(keys, ISSUER, AUDIENCE)
}

/// A verifier that knows one key of each algorithm.
fn verifier_of_all() -> Verifier {
    let keys = ALL.map(key);
    verifier(&keys.each_ref())
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A JWT with any header and claims, correctly signed by `key`.
fn forge_jwt(key: &TokenKey, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = match key.signing() {
        Signing::EdDsa(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
        Signing::Es256(pair) => signature::sign_p256(pair, message.as_bytes()).unwrap(),
        _ => panic!("not a JWT key"),
    };
    format!("{message}.{}", encode(signature))
}

/// A PASETO with any payload and footer, correctly created by `key`.
fn forge_paseto(key: &TokenKey, footer: &str, payload: &str) -> String {
    paseto::protect(key.signing(), payload.as_bytes(), Some(footer.as_bytes())).unwrap()
}

fn header_of(key: &TokenKey) -> Value {
    json!({"typ": "at+jwt", "alg": key.algorithm().as_str(), "kid": key.kid()})
}

fn verdict(token: &str) -> Result<AccessClaims, TokenError> {
    verifier_of_all().verify(token, NOW)
}

/// The JSON of good claims with `name` set to `value`, both verbatim; no value removes the claim.
fn claims_with(name: &str, value: Option<&str>, paseto: bool) -> String {
    let mut good = serde_json::to_value(claims()).unwrap();
    if paseto {
        good["iat"] = json!("2027-01-15T08:00:00Z");
        good["exp"] = json!("2027-01-15T08:15:00Z");
        good["auth_time"] = json!("2027-01-15T07:59:30Z");
    }
    let mut members: Vec<String> = good
        .as_object()
        .unwrap()
        .iter()
        .filter(|(member, _)| member.as_str() != name)
        .map(|(member, value)| format!("\"{member}\":{value}"))
        .collect();
    members.extend(value.map(|value| format!("\"{name}\":{value}")));
    format!("{{{}}}", members.join(","))
}

#[test]
fn a_token_of_every_algorithm_gives_back_its_claims() {
    let verifier = verifier_of_all();
    for algorithm in ALL {
        let token = signed(&key(algorithm), &claims());
        assert_eq!(verifier.verify(&token, NOW), Ok(claims()), "{algorithm:?}");
    }
}

#[test]
fn algorithms_are_known_by_exactly_their_names() {
    for algorithm in ALL {
        assert_eq!(Algorithm::parse(algorithm.as_str()), Some(algorithm));
        assert_eq!(
            Algorithm::parse(&algorithm.as_str().to_lowercase()).is_some(),
            !algorithm.is_jwt()
        );
        assert_eq!(key(algorithm).algorithm(), algorithm);
    }
    for name in ["", "none", "HS256", "RS256", "eddsa", "v3.public", "v4", " ES256"] {
        assert_eq!(Algorithm::parse(name), None);
    }
}

#[test]
fn a_jwt_has_the_three_header_members_of_rfc_9068_and_no_other() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let key = key(algorithm);
        let token = signed(&key, &claims());
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&header).unwrap(), header_of(&key));
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let payload: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(payload["exp"], json!(NOW + 900));
        assert_eq!(payload.as_object().unwrap().len(), 11);
    }
}

#[test]
fn a_paseto_has_its_key_in_the_footer_and_times_in_rfc_3339() {
    for algorithm in [Algorithm::PasetoV4Public, Algorithm::PasetoV4Local] {
        let key = key(algorithm);
        let token = signed(&key, &claims());
        assert!(token.starts_with(&format!("{}.", algorithm.as_str())));
        let footer = URL_SAFE_NO_PAD.decode(token.split('.').nth(3).unwrap()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&footer).unwrap(), json!({"kid": key.kid()}));
        let payload = paseto::Untrusted::parse(&token).unwrap();
        let payload = payload.open(&key.verification().material).unwrap();
        let payload: Value = serde_json::from_str(&payload).unwrap();
        assert_eq!(payload["iat"], json!("2027-01-15T08:00:00Z"));
        assert_eq!(payload["exp"], json!("2027-01-15T08:15:00Z"));
        assert_eq!(payload["auth_time"], json!("2027-01-15T07:59:30Z"));
    }
}

#[test]
fn a_key_survives_its_private_form() {
    for algorithm in ALL {
        let key = key(algorithm);
        assert_eq!(key.private().expose().len(), 32);
        let read = TokenKey::from_private(algorithm, key.private().expose()).unwrap();
        assert_eq!(read.kid(), key.kid());
        assert!(verifier(&[&key]).verify(&signed(&read, &claims()), NOW).is_ok());
        assert!(verifier(&[&read]).verify(&signed(&key, &claims()), NOW).is_ok());
    }
}

#[test]
fn bytes_that_are_no_key_are_refused() {
    for algorithm in ALL {
        for bytes in [&[][..], &[1; 31], &[1; 33], &[1; 64], &[0; 32]] {
            assert!(TokenKey::from_private(algorithm, bytes).is_err(), "{algorithm:?}");
        }
    }
    assert!(TokenKey::from_private(Algorithm::Es256, &[255; 32]).is_err());
}

#[test]
fn public_halves_are_published_in_the_form_of_their_kind_and_secrets_never() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let key = key(algorithm);
        let jwk = key.jwk().unwrap();
        assert_eq!(jwk["kid"], json!(key.kid()));
        assert_eq!(jwk["alg"], json!(algorithm.as_str()));
        assert_eq!(jwk["use"], json!("sig"));
        assert!(jwk.get("d").is_none());
        assert!(!jwk.to_string().contains(&encode(key.private().expose())));
        assert_eq!(key.paserk(), None);
    }
    let public = key(Algorithm::PasetoV4Public);
    assert!(public.paserk().unwrap().starts_with("k4.public."));
    assert!(public.kid().starts_with("k4.pid."));
    let local = key(Algorithm::PasetoV4Local);
    assert_eq!(local.paserk(), None);
    assert!(local.kid().starts_with("k4.lid."));
    assert!(public.jwk().is_none() && local.jwk().is_none());
}

#[test]
fn debug_output_holds_no_key() {
    for algorithm in ALL {
        let key = key(algorithm);
        let shown = format!("{key:?} {:?} {:?}", key.verification(), verifier(&[&key]));
        let private = key.private();
        let named = format!("({}, {})", algorithm.as_str(), key.kid());
        let verifier = format!("Verifier(1 keys, {ISSUER}, {AUDIENCE})");
        assert_eq!(shown, format!("TokenKey{named} VerificationKey{named} {verifier}"));
        assert!(!shown.contains(&encode(private.expose())));
        assert!(!shown.contains(&format!("{:?}", private.expose())));
    }
}

#[test]
fn another_library_accepts_our_jwts_under_our_published_keys() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let key = key(algorithm);
        let mut claims = claims();
        claims.exp = 4_000_000_000;
        claims.iat = claims.exp - 900;
        let token = signed(&key, &claims);
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(key.jwk().unwrap()).unwrap();
        let thumbprint = jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).unwrap();
        assert_eq!(thumbprint, key.kid());
        let theirs = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
        let mut rules = jsonwebtoken::Validation::new(algorithm.as_str().parse().unwrap());
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[ISSUER]);
        let read = jsonwebtoken::decode::<AccessClaims>(&token, &theirs, &rules).unwrap();
        assert_eq!(read.claims, claims);
    }
}

#[test]
fn a_token_is_over_at_the_second_of_its_expiry() {
    let verifier = verifier_of_all();
    for algorithm in ALL {
        let token = signed(&key(algorithm), &claims());
        assert!(verifier.verify(&token, NOW + 899).is_ok());
        for later in [NOW + 900, NOW + 901, NOW + 86_400, i64::MAX] {
            assert_eq!(verifier.verify(&token, later), Err(TokenError::Expired));
        }
    }
}

#[test]
fn a_token_from_a_clock_a_minute_ahead_is_taken_and_no_further() {
    let verifier = verifier_of_all();
    for algorithm in ALL {
        let token = signed(&key(algorithm), &claims());
        assert!(verifier.verify(&token, NOW - 60).is_ok());
        for earlier in [NOW - 61, 0, -1, i64::MIN] {
            assert_eq!(verifier.verify(&token, earlier), Err(TokenError::BadClaim("iat")));
        }
    }
}

#[test]
fn no_token_is_made_that_every_verifier_would_refuse() {
    let broken: [fn(&mut AccessClaims); 10] = [
        |claims| claims.exp = claims.iat,
        |claims| claims.exp = claims.iat - 1,
        |claims| claims.exp = claims.iat + 3661,
        |claims| claims.iat = -1,
        |claims| (claims.iat, claims.exp) = (-1, 100),
        |claims| (claims.iat, claims.exp) = (i64::MIN, i64::MAX),
        |claims| claims.auth_time = -1,
        |claims| claims.sub = String::new(),
        |claims| claims.sid = String::new(),
        |claims| claims.client_id = "x".repeat(5000),
    ];
    for algorithm in ALL {
        for breaks in broken {
            let mut claims = claims();
            breaks(&mut claims);
            let refused = key(algorithm).sign(&claims, &SeededRandom::new(1));
            assert_eq!(refused, Err(TokenKeyError::BadClaims));
        }
    }
}

#[test]
fn times_and_generations_start_at_zero() {
    let at_zero = AccessClaims { iat: 0, exp: 1, auth_time: 0, generation: 0, ..claims() };
    let longest = AccessClaims { exp: 3660, ..at_zero.clone() };
    for algorithm in ALL {
        for claims in [&at_zero, &longest] {
            let token = signed(&key(algorithm), claims);
            assert_eq!(verifier_of_all().verify(&token, 0).as_ref(), Ok(claims));
        }
        let below = AccessClaims { generation: -1, ..claims() };
        let refused = key(algorithm).sign(&below, &SeededRandom::new(1));
        assert_eq!(refused, Err(TokenKeyError::BadClaims));
    }
}

#[test]
fn a_refusal_names_what_is_wrong_with_the_token() {
    let texts = [
        (TokenError::Malformed, "not an access token"),
        (TokenError::UnknownKey, "the access token names no known key"),
        (TokenError::BadSignature, "the access token is not signed by its key"),
        (TokenError::BadClaim("aud"), "the access token has a bad aud"),
        (TokenError::Expired, "the access token has expired"),
    ];
    for (error, text) in texts {
        assert_eq!(error.to_string(), text);
    }
    let texts = [
        (TokenKeyError::BadKey, "the key is not a private key for the algorithm"),
        (TokenKeyError::BadClaims, "no access token can be built from these claims"),
        (TokenKeyError::NotSigned, "the access token could not be signed"),
    ];
    for (error, text) in texts {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn the_longest_token_that_is_signed_is_accepted() {
    let mut longest = 0;
    for algorithm in ALL {
        let key = key(algorithm);
        let tokens = (1..4096).map_while(|length| {
            let claims = AccessClaims { name: Some("x".repeat(length)), ..claims() };
            key.sign(&claims, &SeededRandom::new(1)).ok()
        });
        let token = tokens.last().unwrap();
        longest = longest.max(token.len());
        assert!(verifier_of_all().verify(&token, NOW).is_ok(), "{algorithm:?}");
    }
    assert_eq!(longest, LONGEST_TOKEN);
}

#[test]
fn claims_about_the_user_are_read_back_and_what_is_too_long_is_known_before() {
    for algorithm in ALL {
        let key = key(algorithm);
        let mut claims = AccessClaims {
            roles: Some(vec!["admin".to_owned(), "user".to_owned()]),
            scope: Some("users:read users:write".to_owned()),
            email: Some("ann@example.com".to_owned()),
            email_verified: Some(true),
            name: Some("Ann \"Åse\"".to_owned()),
            ..claims()
        };
        let verifier = Verifier::new(vec![key.verification()], ISSUER, AUDIENCE);
        assert_eq!(verifier.verify(&signed(&key, &claims), NOW).unwrap(), claims);
        // Every length up to the limit, and the first ones beyond it.
        let mut refused = 0;
        for length in 2_000..3_000 {
            claims.scope = Some("x".repeat(length));
            let token = key.sign(&claims, &SeededRandom::new(9));
            assert_eq!(fits(algorithm, &claims), token.is_ok(), "{algorithm:?} {length}");
            refused += usize::from(token.is_err());
        }
        assert!((1..999).contains(&refused), "{algorithm:?} {refused}");
    }
}
