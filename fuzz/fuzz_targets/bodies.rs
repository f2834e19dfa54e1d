#![no_main]
//! JSON bodies: parsing returns a value or a refusal that names the position, never an internal error.

use libfuzzer_sys::fuzz_target;
use palisade::http::Body;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Everything {
    email: String,
    #[schemars(with = "String", length(max = 20))]
    password: SecretString,
    name: Option<String>,
    number: Option<u16>,
    list: Option<Vec<Inner>>,
    kind: Option<Kind>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Inner {
    yes: bool,
    more: Option<Box<Inner>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    One,
    Two,
}

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = Body::<Everything>::parse(bytes) {
        let status = error.kind().status().as_u16();
        assert!(status == 400 || status == 422, "{error:?}");
        assert!((status == 422) == !error.fields().is_empty());
    }
});
