//! Correctly signed tokens with invalid claims.

use super::*;

/// The result for correctly signed claims, which must be the same for every key of a kind.
fn verdict_on_claims(json: &str, paseto: bool) -> Result<AccessClaims, TokenError> {
    let make = |algorithm| {
        let key = key(algorithm);
        if paseto {
            forge_paseto(&key, &json!({"kid": key.kid()}).to_string(), json)
        } else {
            forge_jwt(&key, &header_of(&key).to_string(), json)
        }
    };
    let pair = if paseto { [ALL[2], ALL[3]] } else { [ALL[0], ALL[1]] };
    let [one, two] = pair.map(|algorithm| verdict(&make(algorithm)));
    assert_eq!(one, two, "{json}");
    one
}

#[test]
fn the_forging_itself_is_sound() {
    for paseto in [false, true] {
        let same = claims_with("sub", Some(&json!(claims().sub).to_string()), paseto);
        assert_eq!(verdict_on_claims(&same, paseto), Ok(claims()));
    }
}

#[test]
fn times_of_a_jwt_are_whole_numbers_and_nothing_else() {
    const WRONG: &str = r#"null|""|"1800000600"|[1800000600]|{}|true|1800000600.0|1800000600.5
        |1.8000006e9|1e400|-0.0|01800000600|+1800000600|0x6b49d458|9223372036854775808
        |18446744073709551616|99999999999999999999999999999999"#;
    for name in ["iat", "exp", "auth_time"] {
        for value in WRONG.split('|').map(str::trim) {
            let refused = verdict_on_claims(&claims_with(name, Some(value), false), false);
            assert_eq!(refused, Err(TokenError::BadClaim("claim set")), "{name} {value}");
        }
        let negative = verdict_on_claims(&claims_with(name, Some("-1"), false), false);
        assert!(matches!(negative, Err(TokenError::BadClaim(_))), "{name}: {negative:?}");
    }
}

#[test]
fn times_of_a_paseto_are_rfc_3339_in_one_spelling_and_nothing_else() {
    const NO_TEXT: &str = r#"null|1800000600|["2027-01-15T08:10:00Z"]|{}|true"#;
    const OTHER_TEXT: &str = "|1800000600|2027-01-15|2027-01-15T08:10:00|2027-01-15 08:10:00Z\
        |2027-01-15T08:10:00.0Z|2027-01-15T08:10:00.5Z|2027-01-15T08:10:00+00:00\
        |2027-01-15T08:10:00-00:00|2027-01-15T08:10:00z|2027-01-15t08:10:00Z\
        |2027-01-15T10:10:00+02:00|+002027-01-15T08:10:00Z|2027-13-15T08:10:00Z\
        |2027-01-15T08:10:60Z| 2027-01-15T08:10:00Z|2027-01-15T08:10:00Z ";
    for name in ["iat", "exp", "auth_time"] {
        for value in NO_TEXT.split('|') {
            let refused = verdict_on_claims(&claims_with(name, Some(value), true), true);
            assert_eq!(refused, Err(TokenError::BadClaim("claim set")), "{name} {value}");
        }
        for value in OTHER_TEXT.split('|') {
            let value = json!(value).to_string();
            let refused = verdict_on_claims(&claims_with(name, Some(&value), true), true);
            assert_eq!(refused, Err(TokenError::BadClaim(name)), "{name} {value}");
        }
    }
}

#[test]
fn names_are_text_and_methods_a_list_of_text() {
    let refused = Err(TokenError::BadClaim("claim set"));
    for paseto in [false, true] {
        let verdict_with =
            |name, value: &str| verdict_on_claims(&claims_with(name, Some(value), paseto), paseto);
        for name in ["iss", "aud", "sub", "client_id", "sid", "jti"] {
            let good = serde_json::to_value(claims()).unwrap()[name].to_string();
            assert_eq!(verdict_with(name, "\"\""), Err(TokenError::BadClaim(name)));
            for value in
                ["null", "1", "true", "{}", &format!("[{good}]"), &format!("[{good},{good}]")]
            {
                assert_eq!(verdict_with(name, value), refused, "{name} {value}");
            }
        }
        for value in ["null", "\"pwd\"", "[1]", "[null]", "{}", "[[\"pwd\"]]"] {
            assert_eq!(verdict_with("amr", value), refused, "{value}");
        }
    }
}

#[test]
fn missing_unknown_and_repeated_claims_are_refused() {
    let refused = Err(TokenError::BadClaim("claim set"));
    for paseto in [false, true] {
        let good = claims_with("", None, paseto);
        let stem = good.strip_suffix('}').unwrap();
        for name in [
            "iss",
            "aud",
            "sub",
            "client_id",
            "sid",
            "jti",
            "iat",
            "exp",
            "auth_time",
            "amr",
            "gen",
        ] {
            assert_eq!(
                verdict_on_claims(&claims_with(name, None, paseto), paseto),
                refused,
                "{name}"
            );
            let value = &serde_json::from_str::<Value>(&good).unwrap()[name];
            let repeated = format!("{stem},\"{name}\":{value}}}");
            assert_eq!(verdict_on_claims(&repeated, paseto), refused, "{name}");
        }
        for more in [
            "\"nbf\":0",
            "\"nbf\":\"1\"",
            "\"nbf\":null",
            "\"groups\":[\"admin\"]",
            "\"scope\":null",
            "\"scope\":[\"admin\"]",
            "\"scope\":\"users:read\",\"scope\":\"users:write\"",
            "\"roles\":null",
            "\"roles\":\"admin\"",
            "\"roles\":[null]",
            "\"email\":1",
            "\"email_verified\":\"true\"",
            "\"name\":null",
            "\"\":1",
            "\"\\u0073ub\":\"x\"",
        ] {
            assert_eq!(verdict_on_claims(&format!("{stem},{more}}}"), paseto), refused, "{more}");
        }
        for other in [stem, "[]", "{}", "null", "\"\"", &format!("{good}x"), &format!(" {good}")] {
            assert_eq!(verdict_on_claims(other, paseto), refused, "{other}");
        }
    }
}

#[test]
fn wrong_issuers_audiences_and_lifetimes_are_refused() {
    let number = |number: i64| number.to_string();
    for (name, value) in [
        ("iss", "\"https://id.example.org/\"".to_owned()),
        ("iss", "\"https://ID.example.org\"".to_owned()),
        ("aud", "\"https://id.example.org\"".to_owned()),
        ("aud", "\"https://api.example.org.attacker.example\"".to_owned()),
        ("exp", number(NOW)),
        ("exp", number(NOW - 1)),
        ("exp", number(NOW + 3661)),
        ("exp", number(i64::MAX)),
        ("iat", number(NOW + 61)),
        ("iat", number(NOW - 3600)),
        ("iat", number(i64::MIN)),
        ("iat", "-5".to_owned()),
        ("auth_time", "-5".to_owned()),
    ] {
        let refused = verdict_on_claims(&claims_with(name, Some(&value), false), false);
        assert!(matches!(refused, Err(TokenError::BadClaim(_))), "{name} {value}: {refused:?}");
    }
    let hour = claims_with("exp", Some(&number(NOW + 3600)), false);
    assert!(verdict_on_claims(&hour, false).is_ok());
}

#[test]
fn claims_are_not_read_before_the_signature_is_good() {
    for algorithm in ALL {
        let mut late = claims();
        (late.iat, late.exp) = (NOW - 1000, NOW - 100);
        let token = signed(&key(algorithm), &late);
        assert_eq!(verdict(&token), Err(TokenError::Expired));
        let stranger = TokenKey::generate(algorithm, &SeededRandom::new(99)).unwrap();
        let forged = if algorithm.is_jwt() {
            forge_jwt(&stranger, &header_of(&key(algorithm)).to_string(), "not even JSON")
        } else {
            forge_paseto(
                &stranger,
                &json!({"kid": key(algorithm).kid()}).to_string(),
                "not even JSON",
            )
        };
        assert_eq!(verdict(&forged), Err(TokenError::BadSignature));
    }
}
