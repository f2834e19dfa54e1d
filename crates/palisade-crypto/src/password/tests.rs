use argon2::{Algorithm, Argon2, AssociatedData, ParamsBuilder, Version};
use proptest::prelude::*;

use super::*;
use crate::random::SeededRandom;

const CHEAP: Cost = Cost::Argon2id { memory_kib: 32, passes: 1, lanes: 1 };
const BCRYPT: Cost = Cost::Bcrypt { cost: 10 };

fn made(cost: &Cost, password: &str) -> String {
    hash(cost, &password.into(), &SeededRandom::new(1), &mut Memory::new()).unwrap()
}

fn matches(encoded: &str, password: &str) -> bool {
    verify(encoded, &password.into(), &mut Memory::new()).unwrap()
}

fn refusal(encoded: &str) -> PasswordError {
    verify(encoded, &"password".into(), &mut Memory::new()).unwrap_err()
}

#[test]
fn argon2id_gives_the_tag_of_rfc_9106_section_5_3() {
    let params = ParamsBuilder::new()
        .m_cost(32)
        .t_cost(3)
        .p_cost(4)
        .data(AssociatedData::new(&[4; 12]).unwrap())
        .output_len(32)
        .build()
        .unwrap();
    let argon2 =
        Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params).unwrap();
    let mut tag = [0; 32];
    argon2id::run(&argon2, &[1; 32], &[2; 16], &mut Memory::new(), &mut tag).unwrap();
    let expected = [
        0x0d, 0x64, 0x0d, 0xf5, 0x8d, 0x78, 0x76, 0x6c, 0x08, 0xc0, 0x37, 0xa3, 0x4a, 0x8b, 0x53,
        0xc9, 0xd0, 0x1e, 0xf0, 0x45, 0x2d, 0x75, 0xb6, 0x5e, 0xb5, 0x25, 0x20, 0xe9, 0x6b, 0x01,
        0xe6, 0x59,
    ];
    assert_eq!(tag, expected);
}

#[test]
fn hashes_of_the_reference_implementation_of_argon2id_are_verified() {
    for encoded in [
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc",
    ] {
        assert!(matches(encoded, "password"));
        assert!(!matches(encoded, "Password"));
        assert!(!is_at_cost(encoded, &Cost::STANDARD));
    }
}

#[test]
fn plain_bcrypt_made_elsewhere_is_verified() {
    let encoded = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    for version in ["$2a$", "$2b$", "$2y$"] {
        let encoded = encoded.replace("$2a$", version);
        assert!(matches(&encoded, "U*U"));
        assert!(!matches(&encoded, "U*U*"));
        assert!(!is_at_cost(&encoded, &Cost::Bcrypt { cost: 5 }));
    }
}

#[test]
fn a_plain_bcrypt_hash_matches_no_password_that_bcrypt_would_cut() {
    let full = "x".repeat(72);
    let encoded = ::bcrypt::hash_with_salt(&full, 5, [7; 16]).unwrap().to_string();
    assert!(matches(&encoded, &full));
    assert!(!matches(&encoded, &format!("{full}y")));
    // bcrypt repeats the password with a zero byte at its end, so these have the same hash.
    let encoded = ::bcrypt::hash_with_salt("a", 5, [7; 16]).unwrap().to_string();
    assert!(matches(&encoded, "a"));
    assert!(!matches(&encoded, "a\0a"));
}

#[test]
fn the_right_password_matches_and_a_wrong_one_does_not() {
    for cost in [CHEAP, BCRYPT] {
        let encoded = made(&cost, "pässword 🔑");
        assert!(matches(&encoded, "pässword 🔑"));
        for wrong in ["pässword", "", "pässword 🔑 ", "PÄSSWORD 🔑"] {
            assert!(!matches(&encoded, wrong));
        }
    }
}

#[test]
fn passwords_that_differ_late_or_after_a_zero_byte_are_never_interchangeable() {
    for cost in [CHEAP, BCRYPT] {
        for same in [71, 72, 73, 128, 512] {
            let (one, two) = ("a".repeat(same) + "1", "a".repeat(same) + "2");
            let encoded = made(&cost, &one);
            assert!(matches(&encoded, &one), "{same}");
            assert!(!matches(&encoded, &two), "{same}");
            assert!(!matches(&encoded, one.split_at(same).0), "{same}");
        }
        for (one, two) in [("a\0b", "a\0c"), ("a\0", "a"), ("\0", ""), ("a", "a\0a")] {
            let encoded = made(&cost, one);
            assert!(matches(&encoded, one));
            assert!(!matches(&encoded, two), "{one:?} {two:?}");
        }
    }
}

#[test]
fn encoded_forms_say_what_they_are_and_hold_a_fresh_salt() {
    let random = SeededRandom::new(5);
    let mut memory = Memory::new();
    let mut make = |cost: &Cost| hash(cost, &"password".into(), &random, &mut memory).unwrap();
    assert!(make(&CHEAP).starts_with("$argon2id$v=19$m=32,t=1,p=1$"));
    assert!(make(&BCRYPT).starts_with("$palisade-bcrypt-v1$2b$10$"));
    assert_ne!(make(&CHEAP), make(&CHEAP));
    assert_ne!(make(&BCRYPT), make(&BCRYPT));
}

#[test]
fn bcrypt_here_is_not_plain_bcrypt() {
    let own = made(&BCRYPT, "password");
    let plain = own.strip_prefix("$palisade-bcrypt-v1").unwrap();
    assert!(!matches(plain, "password"));
    let elsewhere = ::bcrypt::hash_with_salt("password", 10, [7; 16]).unwrap().to_string();
    assert!(matches(&elsewhere, "password"));
    assert!(!matches(&format!("$palisade-bcrypt-v1{elsewhere}"), "password"));
}

#[test]
fn a_hash_is_at_its_own_cost_and_at_no_other() {
    let all = [
        CHEAP,
        Cost::Argon2id { memory_kib: 33, passes: 1, lanes: 1 },
        Cost::Argon2id { memory_kib: 32, passes: 2, lanes: 1 },
        Cost::Argon2id { memory_kib: 32, passes: 1, lanes: 2 },
        BCRYPT,
        Cost::Bcrypt { cost: 11 },
    ];
    for made_at in all {
        let encoded = made(&made_at, "password");
        for asked in all {
            assert_eq!(is_at_cost(&encoded, &asked), made_at == asked, "{made_at:?} {asked:?}");
        }
    }
    assert!(!is_at_cost("", &CHEAP) && !is_at_cost("password", &CHEAP));
    // Hashes from elsewhere may have a salt or an output of another length.
    for (salt, output) in [(16, 24), (8, 32), (8, 24)] {
        let encoded = argon2id::encode([32, 1, 1], &vec![1; salt], &vec![2; output]);
        assert!(!is_at_cost(&encoded, &CHEAP), "{salt} {output}");
    }
}

#[test]
fn a_refusal_says_what_is_wrong() {
    let texts = [
        (PasswordError::Malformed, "the stored password hash has an unknown form"),
        (PasswordError::Cost(CostError::Passes), "the number of Argon2 passes must be 1 to 16"),
    ];
    for (error, text) in texts {
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(format!("{:?}", Memory::new()), "Memory { bytes: 0 }");
}

/// The work of both algorithms depends on the encoded cost and the lengths, never on the values.
#[test]
fn a_dummy_is_encoded_at_its_cost_and_matches_nothing() {
    for cost in [CHEAP, BCRYPT] {
        let encoded = dummy(&cost);
        assert!(is_at_cost(&encoded, &cost));
        assert_eq!(encoded.len(), made(&cost, "password").len());
        for password in ["", "password", "\0"] {
            assert!(!matches(&encoded, password));
        }
    }
    assert!(is_at_cost(&dummy(&Cost::STANDARD), &Cost::STANDARD));
}

#[test]
fn the_memory_is_reused_wiped_and_given_back() {
    let mut memory = Memory::new();
    assert_eq!(memory.bytes(), 0);
    let encoded = hash(&CHEAP, &"password".into(), &SeededRandom::new(1), &mut memory).unwrap();
    assert_eq!(memory.bytes(), 32 * 1024);
    assert!(memory.is_wiped());
    let dearer = made(&Cost::Argon2id { memory_kib: 64, passes: 1, lanes: 1 }, "password");
    assert!(verify(&dearer, &"password".into(), &mut memory).unwrap());
    assert!(verify(&encoded, &"password".into(), &mut memory).unwrap());
    assert_eq!(memory.bytes(), 64 * 1024);
    assert!(memory.is_wiped());
    memory.release();
    assert_eq!(memory.bytes(), 0);
    assert!(verify(&encoded, &"password".into(), &mut memory).unwrap());
}

#[test]
fn costs_out_of_bounds_are_refused() {
    let argon2id = |memory_kib, passes, lanes| Cost::Argon2id { memory_kib, passes, lanes };
    for cost in [
        Cost::STANDARD,
        Cost::LIGHT,
        argon2id(8, 1, 1),
        argon2id(128, 16, 16),
        argon2id(1 << 20, 1, 1),
    ] {
        assert_eq!(cost.validate(), Ok(()));
    }
    assert_eq!(Cost::STANDARD, argon2id(65_536, 3, 4));
    assert_eq!(Cost::LIGHT, argon2id(19_456, 2, 1));
    for (cost, error) in [
        (argon2id(7, 1, 1), CostError::Memory),
        (argon2id(31, 1, 4), CostError::Memory),
        (argon2id((1 << 20) + 1, 1, 1), CostError::Memory),
        (argon2id(u32::MAX, 1, 1), CostError::Memory),
        (argon2id(64, 0, 1), CostError::Passes),
        (argon2id(64, 17, 1), CostError::Passes),
        (argon2id(64, 1, 0), CostError::Lanes),
        (argon2id(64, 1, u32::MAX), CostError::Lanes),
        (Cost::Bcrypt { cost: 9 }, CostError::Bcrypt),
        (Cost::Bcrypt { cost: 16 }, CostError::Bcrypt),
    ] {
        assert_eq!(cost.validate(), Err(error));
        let refused = hash(&cost, &"p".into(), &SeededRandom::new(1), &mut Memory::new());
        assert_eq!(refused, Err(PasswordError::Cost(error)));
    }
}

#[test]
fn a_stored_hash_that_asks_for_too_much_is_refused_before_any_work() {
    let tail = "AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for parameters in
        ["m=1048577,t=1,p=1", "m=4294967295,t=1,p=1", "m=64,t=17,p=1", "m=256,t=1,p=17"]
    {
        assert_eq!(
            refusal(&format!("$argon2id$v=19${parameters}${tail}")),
            PasswordError::TooCostly
        );
    }
    for parameters in ["m=1048576,t=1,p=1", "m=64,t=16,p=1", "m=256,t=1,p=16"] {
        let most = format!("$argon2id$v=19${parameters}${tail}");
        assert!(Encoded::parse(&most).is_ok(), "{parameters}");
    }
    let most = "$2b$15$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    assert!(Encoded::parse(most).is_ok());
    let bcrypt = "$2b$16$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    for encoded in
        [bcrypt.to_owned(), bcrypt.replace("16", "31"), format!("$palisade-bcrypt-v1{bcrypt}")]
    {
        assert_eq!(refusal(&encoded), PasswordError::TooCostly);
    }
}

#[test]
fn texts_of_no_known_form_are_refused() {
    let good = made(&CHEAP, "password");
    let plain = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    for bad in [
        String::new(),
        "password".to_owned(),
        good.replace("argon2id", "argon2i"),
        good.replace("argon2id", "argon2d"),
        good.replace("v=19", "v=16"),
        good.replace("$v=19", ""),
        good.replace("m=32", "m=032"),
        good.replace("m=32", "m=-32"),
        good.replace("m=32", "m=4294967296"),
        good.replace("m=32", "m=7"),
        good.replace("t=1", "t=0"),
        good.replace("p=1", "p=0"),
        good.replace("p=1", "p=1,data=AAAA"),
        good.replace(",p=1", ""),
        format!("{good}$"),
        format!("{good}é"),
        good.split_at(good.len() - 30).0.to_owned(),
        good.rsplit_once('$').unwrap().0.to_owned(),
        format!("{good}{}", "A".repeat(600)),
        plain.replace("$2a$", "$2x$"),
        plain.replace("$2a$", "$3a$"),
        plain.split_at(59).0.to_owned(),
        format!("{plain}A"),
        format!("$palisade-bcrypt-v1{plain}"),
        format!("$palisade-bcrypt-v1$palisade-bcrypt-v1{plain}"),
    ] {
        assert_eq!(refusal(&bad), PasswordError::Malformed, "{bad}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_verification_panic_or_succeed(text in "\\PC*", at in 0_usize..90, with in "\\PC{0,3}") {
        let mut memory = Memory::new();
        let password = SecretString::from("another password");
        prop_assert_ne!(verify(&text, &password, &mut memory), Ok(true));
        let good = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let (before, after) = good.split_at(at);
        let changed = format!("{before}{with}{}", after.get(1..).unwrap_or_default());
        if !changed.contains("m=8") { return Ok(()); }
        prop_assert_ne!(verify(&changed, &password, &mut memory), Ok(true));
    }
}
