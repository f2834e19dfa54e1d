//! Tokens as an attacker would forge them (RFC 8725, RFC 9068 4, published attacks on other libraries).

use aws_lc_rs::hmac;

use super::*;

/// A token of `header` whose claims are in order, signed by `key`.
fn with_header(key: &TokenKey, header: &Value) -> String {
    forge_jwt(key, &header.to_string(), &serde_json::to_string(&claims()).unwrap())
}

#[test]
fn the_forging_itself_is_sound() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let key = key(algorithm);
        assert_eq!(verdict(&with_header(&key, &header_of(&key))), Ok(claims()));
    }
}

#[test]
fn a_token_without_signature_is_refused_however_none_is_spelled() {
    let kid = key(Algorithm::EdDsa).kid().to_owned();
    for none in ["none", "None", "NONE", "nOnE", "noNe", "none ", " none", "n\u{6f}ne\0"] {
        let header = json!({"typ": "at+jwt", "alg": none, "kid": kid}).to_string();
        let message = format!("{}.{}", encode(header), encode(claims_with("", None, false)));
        for end in ["", ".", ".AA", ".AAAA"] {
            assert!(verdict(&format!("{message}{end}")).is_err(), "{none:?} {end:?}");
        }
        let key = key(Algorithm::EdDsa);
        let signed = with_header(&key, &json!({"typ": "at+jwt", "alg": none, "kid": kid}));
        assert_eq!(verdict(&signed), Err(TokenError::BadSignature));
    }
}

#[test]
fn a_public_key_is_never_taken_for_an_hmac_secret() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let key = key(algorithm);
        let jwk = key.jwk().unwrap();
        let x = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
        let secrets = [x, jwk.to_string().into_bytes(), key.kid().as_bytes().to_vec(), Vec::new()];
        for (alg, secret) in ["HS256", algorithm.as_str()]
            .into_iter()
            .flat_map(|alg| secrets.iter().map(move |secret| (alg, secret)))
        {
            let header = json!({"typ": "at+jwt", "alg": alg, "kid": key.kid()}).to_string();
            let message = format!("{}.{}", encode(header), encode(claims_with("", None, false)));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
            let token = format!("{message}.{}", encode(tag));
            assert_eq!(verdict(&token), Err(TokenError::BadSignature), "{alg}");
        }
    }
}

#[test]
fn the_key_decides_the_algorithm_and_the_token_may_only_agree() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let key = key(algorithm);
        for alg in
            ["EdDSA", "ES256", "ES384", "RS256", "PS256", "HS256", "Ed25519", "eddsa", "es256", ""]
        {
            let mut header = header_of(&key);
            header["alg"] = json!(alg);
            let expected = if alg == algorithm.as_str() {
                Ok(claims())
            } else {
                Err(TokenError::BadSignature)
            };
            assert_eq!(verdict(&with_header(&key, &header)), expected, "{algorithm:?} {alg}");
        }
    }
}

#[test]
fn a_key_of_one_kind_never_judges_a_token_of_another() {
    for made_by in ALL {
        for named in ALL.into_iter().filter(|named| *named != made_by) {
            let (maker, named) = (key(made_by), key(named));
            let token = if made_by.is_jwt() {
                let mut header = header_of(&maker);
                header["kid"] = json!(named.kid());
                with_header(&maker, &header)
            } else {
                forge_paseto(
                    &maker,
                    &json!({"kid": named.kid()}).to_string(),
                    &claims_with("", None, true),
                )
            };
            assert_eq!(verdict(&token), Err(TokenError::BadSignature), "{made_by:?}");
        }
    }
}

#[test]
fn a_token_of_a_key_outside_the_set_is_unknown_and_no_forgery_of_one_inside() {
    for algorithm in ALL {
        let stranger = TokenKey::generate(algorithm, &SeededRandom::new(99)).unwrap();
        assert_eq!(verdict(&signed(&stranger, &claims())), Err(TokenError::UnknownKey));
        let inside = key(algorithm);
        let token = if algorithm.is_jwt() {
            with_header(&stranger, &header_of(&inside))
        } else {
            forge_paseto(
                &stranger,
                &json!({"kid": inside.kid()}).to_string(),
                &claims_with("", None, true),
            )
        };
        assert_eq!(verdict(&token), Err(TokenError::BadSignature));
    }
}

#[test]
fn only_the_exact_id_of_a_key_finds_it() {
    let key = key(Algorithm::EdDsa);
    let exact = key.kid().to_owned();
    for kid in [
        String::new(),
        exact.to_lowercase(),
        format!("{exact} "),
        format!("{exact}\0"),
        format!("{exact}="),
        exact.split_at(1).1.to_owned(),
        "../../../../dev/null".to_owned(),
        "' OR '1'='1".to_owned(),
        "https://attacker.example/key".to_owned(),
        "*".to_owned(),
        "x".repeat(2000),
    ] {
        let mut header = header_of(&key);
        header["kid"] = json!(kid);
        assert_eq!(verdict(&with_header(&key, &header)), Err(TokenError::UnknownKey), "{kid:?}");
    }
    let absent = json!({"typ": "at+jwt", "alg": "EdDSA"});
    assert_eq!(verdict(&with_header(&key, &absent)), Err(TokenError::UnknownKey));
    for kid in [json!(1), json!([exact]), json!({"kid": exact}), json!(true)] {
        let mut header = header_of(&key);
        header["kid"] = kid;
        assert_eq!(verdict(&with_header(&key, &header)), Err(TokenError::Malformed));
    }
}

#[test]
fn every_header_member_beyond_the_three_is_refused() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let key = key(algorithm);
        for (name, value) in [
            ("crit", json!(["exp"])),
            ("crit", json!([])),
            ("crit", json!(["b64"])),
            ("b64", json!(false)),
            ("jku", json!("https://attacker.example/jwks.json")),
            ("jwk", key.jwk().unwrap()),
            ("x5u", json!("https://attacker.example/cert")),
            ("x5c", json!(["MIIB"])),
            ("x5t", json!("AAAA")),
            ("x5t#S256", json!("AAAA")),
            ("cty", json!("JWT")),
            ("zip", json!("DEF")),
            ("enc", json!("A256GCM")),
            ("Alg", json!("none")),
            ("iss", json!(ISSUER)),
            ("", json!(null)),
        ] {
            let mut header = header_of(&key);
            header[name] = value;
            assert_eq!(verdict(&with_header(&key, &header)), Err(TokenError::Malformed), "{name}");
        }
    }
}

#[test]
fn a_header_of_another_type_or_form_is_refused() {
    let key = key(Algorithm::EdDsa);
    let good = serde_json::to_string(&claims()).unwrap();
    for typ in [
        json!("JWT"),
        json!("AT+JWT"),
        json!("jwt"),
        json!("application/at+jwt"),
        json!("dpop+jwt"),
        json!(null),
        json!(1),
    ] {
        let mut header = header_of(&key);
        header["typ"] = typ;
        assert_eq!(verdict(&with_header(&key, &header)), Err(TokenError::Malformed));
    }
    let header = header_of(&key).to_string();
    let stem = header.strip_suffix('}').unwrap();
    for header in [
        "".to_owned(),
        "{}".to_owned(),
        "null".to_owned(),
        format!(r#"["at+jwt","EdDSA","{}"]"#, key.kid()),
        format!(r#"{stem},"alg":"EdDSA"}}"#),
        format!(r#"{stem},"alg":"none"}}"#),
        format!(r#"{stem},"\u0061lg":"none"}}"#),
        format!(r#"{stem},"kid":"{}"}}"#, key.kid()),
        format!("{header}{header}"),
        format!("\u{feff}{header}"),
        format!(" {header}"),
        stem.to_owned(),
    ] {
        assert_eq!(
            verdict(&forge_jwt(&key, &header, &good)),
            Err(TokenError::Malformed),
            "{header}"
        );
    }
}

#[test]
fn a_footer_of_another_form_is_refused() {
    for algorithm in [Algorithm::PasetoV4Public, Algorithm::PasetoV4Local] {
        let key = key(algorithm);
        let kid = key.kid();
        let good = claims_with("", None, true);
        for footer in [
            format!(r#"{{"kid":"{kid}","kid":"{kid}"}}"#),
            format!(r#"{{"kid":"{kid}","wpk":"k4.local-wrap.pie.AA"}}"#),
            format!(r#"["{kid}"]"#),
            format!(r#"{{"kid":["{kid}"]}}"#),
            kid.to_owned(),
            "\0".to_owned(),
        ] {
            assert_eq!(
                verdict(&forge_paseto(&key, &footer, &good)),
                Err(TokenError::Malformed),
                "{footer}"
            );
        }
        for footer in ["{}", r#"{"kid":null}"#, r#"{"kid":""}"#, ""] {
            assert_eq!(
                verdict(&forge_paseto(&key, footer, &good)),
                Err(TokenError::UnknownKey),
                "{footer}"
            );
        }
        let token = signed(&key, &claims());
        let stem = token.rsplit_once('.').unwrap().0;
        let other = encode(format!(r#"{{ "kid":"{kid}"}}"#));
        assert_eq!(verdict(&format!("{stem}.{other}")), Err(TokenError::BadSignature));
        assert_eq!(verdict(&format!("{token}.")), Err(TokenError::Malformed));
    }
}

#[test]
fn texts_of_another_shape_or_size_are_refused() {
    let good = signed(&key(Algorithm::EdDsa), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "v4.public.".to_owned(),
        "v4.local.".to_owned(),
        "v4.".to_owned(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{}", parts[2]),
        format!("{good}="),
        format!("{good}\n"),
        format!(" {good}"),
        format!("Bearer {good}"),
        format!("{}..{}", parts[0], parts[2]),
        good.replace('.', ". "),
        good.replace('.', ".\0"),
    ] {
        assert!(verdict(&bad).is_err(), "{bad:?}");
    }
    for algorithm in ALL {
        let mut long = claims();
        long.client_id = "x".repeat(2600);
        assert!(verdict(&signed(&key(algorithm), &long)).is_ok());
        let payload = claims_with(
            "client_id",
            Some(&format!("\"{}\"", "x".repeat(3000))),
            !algorithm.is_jwt(),
        );
        let key = key(algorithm);
        let token = if algorithm.is_jwt() {
            forge_jwt(&key, &header_of(&key).to_string(), &payload)
        } else {
            forge_paseto(&key, &json!({"kid": key.kid()}).to_string(), &payload)
        };
        assert_eq!(verdict(&token), Err(TokenError::Malformed));
    }
}

#[test]
fn a_statement_is_no_access_token() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let key = key(algorithm);
        let claims = serde_json::to_value(claims()).unwrap();
        // Every claim of an access token, signed by the right key, and still nothing to be let in by.
        let statement = key.sign_statement("revocations+jwt", &claims).unwrap();
        assert_eq!(verifier(&[&key]).verify(&statement, 1_000), Err(TokenError::Malformed));
        assert!(key.sign_statement("at+jwt", &claims).is_err());
    }
    for algorithm in [Algorithm::PasetoV4Public, Algorithm::PasetoV4Local] {
        assert!(key(algorithm).sign_statement("revocations+jwt", &json!({})).is_err());
    }
}
