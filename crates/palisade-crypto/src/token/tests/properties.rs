//! No input makes the verifier panic, and it accepts only our own tokens.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(verifier_of_all);
static TOKENS: LazyLock<[String; 4]> =
    LazyLock::new(|| ALL.map(|algorithm| signed(&key(algorithm), &claims())));

#[test]
fn no_change_of_one_character_and_no_cut_is_accepted() {
    let verifier = &*VERIFIER;
    for token in TOKENS.iter() {
        assert!(verifier.verify(token, NOW).is_ok());
        for index in 0..token.len() {
            let (before, rest) = token.split_at(index);
            let (one, after) = rest.split_at(1);
            for other in ["A", "Q", "g", "w", "_", ".", "=", "\0", "é", ""] {
                let changed = format!("{before}{other}{after}");
                assert!(other == one || verifier.verify(&changed, NOW).is_err(), "{changed}");
            }
            assert!(verifier.verify(before, NOW).is_err());
            assert!(verifier.verify(rest, NOW).is_err() || index == 0);
            assert!(verifier.verify(&format!("{before}A{rest}"), NOW).is_err());
        }
    }
}

/// In the last character of a part some bits may be unused: of 64 spellings one is right.
#[test]
fn a_token_has_one_spelling() {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for token in TOKENS.iter() {
        let ends = token.match_indices('.').map(|(dot, _)| dot).chain([token.len()]);
        for end in ends.filter(|end| *end > 2) {
            for letter in ALPHABET.chars() {
                let mut changed = token.clone();
                changed.replace_range(end - 1..end, &letter.to_string());
                assert!(changed == *token || VERIFIER.verify(&changed, NOW).is_err(), "{changed}");
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_text_is_refused(text in "\\PC*") {
        for shape in ["", "v4.public.", "v4.local.", "eyJ"] {
            let token = [shape, &text].concat();
            prop_assert!(VERIFIER.verify(&token, NOW).is_err());
        }
    }

    #[test]
    fn arbitrary_parts_are_refused(parts in proptest::collection::vec(any::<Vec<u8>>(), 1..5)) {
        let text = parts.iter().map(encode).collect::<Vec<_>>().join(".");
        for shape in ["", "v4.public.", "v4.local."] {
            let token = [shape, &text].concat();
            prop_assert!(VERIFIER.verify(&token, NOW).is_err());
        }
    }

    #[test]
    fn correctly_signed_nonsense_is_refused(json in "\\PC*") {
        let key = key(Algorithm::EdDsa);
        let token = forge_jwt(&key, &header_of(&key).to_string(), &json);
        prop_assert!(VERIFIER.verify(&token, NOW).is_err());
        prop_assert!(VERIFIER.verify(&forge_jwt(&key, &json, &json), NOW).is_err());
    }

    #[test]
    fn pieces_of_good_tokens_put_together_are_refused(
        which in 0_usize..4,
        other in 0_usize..4,
        from in 0_usize..700,
        to in 0_usize..700,
    ) {
        let (one, two) = (&TOKENS[which], &TOKENS[other]);
        let head = one.get(..from).unwrap_or(one);
        let tail = two.get(to..).unwrap_or_default();
        let text = format!("{head}{tail}");
        prop_assert!(TOKENS.contains(&text) || VERIFIER.verify(&text, NOW).is_err());
    }

    #[test]
    fn any_time_is_judged_without_overflow(now in any::<i64>(), iat in any::<i64>(), exp in any::<i64>()) {
        let key = key(Algorithm::EdDsa);
        let mut claims = claims();
        (claims.iat, claims.exp) = (iat, exp);
        let json = serde_json::to_string(&claims).unwrap();
        let token = forge_jwt(&key, &header_of(&key).to_string(), &json);
        let taken = VERIFIER.verify(&token, now).is_ok();
        prop_assert!(!taken || (iat <= now.saturating_add(60) && now < exp && iat >= 0));
    }
}
