//! The name under which users know the site.

use std::fmt;

use super::value::{Shape, Value};
use crate::visible::is_unseen;

/// The name of the site: one line of visible text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteName(String);

impl SiteName {
    /// The maximum number of characters. A QR code for an authenticator app contains the name twice.
    pub(super) const LONGEST: usize = 64;

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for SiteName {
    const EXPECTED: &'static str = "a name of at most 64 characters, such as `Example`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("is empty".to_owned());
        }
        // SECURITY: the name is part of the headers of emails (test: the_name_of_the_site_is_one_visible_line).
        if text.contains(is_unseen) {
            return Err("contains a control character or an invisible one".to_owned());
        }
        if text.trim() != text {
            return Err("begins or ends with a space".to_owned());
        }
        if text.chars().count() > Self::LONGEST {
            return Err(format!("is longer than {} characters", Self::LONGEST));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}
