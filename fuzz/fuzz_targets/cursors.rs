#![no_main]
//! Cursors, ids, times and email addresses, as they appear in paths and queries.

use libfuzzer_sys::fuzz_target;
use palisade::http::{Cursor, Paging};
use palisade::id::UserId;
use palisade::users::{Email, check_name};
use palisade_db::Timestamp;

fuzz_target!(|text: &str| {
    if let Ok(cursor) = text.parse::<Cursor>() {
        // One spelling each: what was read is written the same way.
        assert_eq!(cursor.to_string(), text);
    }
    if let Ok(id) = text.parse::<UserId>() {
        assert!(id.to_string().eq_ignore_ascii_case(text));
    }
    let _ = Paging::new(Some(text), Some(text));
    if let Ok(at) = Timestamp::parse_rfc3339(text) {
        assert_eq!(Timestamp::parse_rfc3339(&at.to_string()).expect("a time"), at);
    }
    if let Ok(email) = Email::parse(text) {
        // What is stored is an email again, and the same one.
        assert_eq!(Email::parse(email.as_str()).expect("an email"), email);
    }
    if let Ok(name) = check_name(text) {
        assert_eq!(check_name(&name).expect("a name"), name);
    }
});
