//! What the operator probably didn't intend, although the settings are valid.

use super::{Concern, Effective, Origin, Problem, Settings, Severity};

/// The domains that examples use (RFC 2606 section 3). No server can be reached under them.
const EXAMPLES: [&str; 3] = ["example.com", "example.net", "example.org"];

/// Returns the concerns about settings that are valid. Development has none.
pub(super) fn find(settings: &Settings, effective: &[Effective]) -> Vec<Concern> {
    if !settings.is_production() {
        return Vec::new();
    }
    let mut concerns: Vec<Concern> = effective
        .iter()
        .filter(|found| found.origin != Origin::Default)
        .filter_map(example)
        .collect();
    if settings.mail.smtp_url.is_none() {
        concerns.push(Concern {
            severity: Severity::Warning,
            problem: Problem {
                key: "mail.smtp_url".to_owned(),
                origin: Origin::Default,
                wrong: "no mail server is set, so password resets, invitations, changes of email \
                        addresses and security notices are not available"
                    .to_owned(),
                mend: "Set mail.smtp_url and mail.from".to_owned(),
            },
        });
    }
    concerns
}

/// Returns the concern about a value that was copied from an example.
fn example(found: &Effective) -> Option<Concern> {
    let domain = EXAMPLES.into_iter().find(|domain| names(&found.value, domain))?;
    let is_public_url = found.key == "server.public_url";
    let wrong = if is_public_url {
        format!(
            "{} is an example: links in emails lead there, and passkeys belong to it",
            found.value
        )
    } else {
        format!("{domain} is an example")
    };
    Some(Concern {
        severity: if is_public_url { Severity::Error } else { Severity::Warning },
        problem: Problem {
            key: found.key.clone(),
            origin: found.origin.clone(),
            wrong,
            mend: "Replace it with your own domain".to_owned(),
        },
    })
}

/// Returns whether `value` contains `domain`, or a name below it, as a whole host name.
fn names(value: &str, domain: &str) -> bool {
    let of_label = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let value = value.to_ascii_lowercase();
    value.match_indices(domain).any(|(at, _)| {
        let (before, after) = (value.get(..at), value.get(at + domain.len()..));
        let goes_on = |after: &str| {
            let after = after.strip_prefix('.').unwrap_or(after);
            after.starts_with(of_label)
        };
        !before.is_some_and(|before| before.ends_with(of_label)) && !after.is_some_and(goes_on)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_a_whole_host_name() {
        for value in [
            "https://example.com",
            "https://App.Example.com:8443/x",
            "Example <no-reply@example.com>",
            "[\"https://a.example.com\", \"https://b\"]",
            "example.com.",
        ] {
            assert!(names(value, "example.com"), "{value}");
        }
        for value in ["https://myexample.com", "https://example.community", "example.com.mx", "a"] {
            assert!(!names(value, "example.com"), "{value}");
        }
    }
}
