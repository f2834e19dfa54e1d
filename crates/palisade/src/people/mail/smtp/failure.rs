//! Why an email was not delivered, and what happens to it next.

use std::fmt;
use std::io;

/// A step of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Greeting,
    Hello,
    StartTls,
    Tls,
    SignIn,
    Sender,
    Recipient,
    Data,
    Content,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Greeting => "the connection",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Tls => "the TLS handshake",
            Self::SignIn => "AUTH",
            Self::Sender => "MAIL FROM",
            Self::Recipient => "RCPT TO",
            Self::Data => "DATA",
            Self::Content => "the content of the email",
        }
    }

    /// Returns whether the status of a reply means that the next step can follow.
    pub(super) fn expects(self, status: u16) -> bool {
        match self {
            Self::Data => status == 354,
            Self::SignIn => status == 334 || (200..300).contains(&status),
            _ => (200..300).contains(&status),
        }
    }
}

/// A reply of the mail server.
pub(super) struct Reply {
    pub(super) status: u16,
    /// The text of each line.
    pub(super) lines: Vec<String>,
}

impl Reply {
    /// Returns the enhanced status code, such as `5.1.1` (RFC 3463), or an empty text.
    fn enhanced(&self) -> &str {
        let first = self.lines.first().map_or("", String::as_str);
        let first = first.split_ascii_whitespace().next().unwrap_or_default();
        let number = |part: &str| {
            (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        let parts: Vec<&str> = first.split('.').collect();
        if parts.len() == 3 && parts.iter().all(|part| number(part)) { first } else { "" }
    }
}

/// The codes of the reply. Its text is left out, because it may repeat an email address.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let enhanced = self.enhanced();
        let between = if enhanced.is_empty() { "" } else { " " };
        write!(f, "{}{between}{enhanced}", self.status)
    }
}

/// What happens to an email that was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Next {
    /// Delivery is retried.
    Retry,
    /// Delivery is retried. It fails until the operator corrects something.
    Mend,
    /// The mail server refuses this email for good.
    GiveUp,
}

/// Why an email was not delivered.
#[derive(Debug)]
pub(in super::super) struct Failure {
    /// A message for the operator, without secrets or personal data.
    pub(in super::super) problem: String,
    pub(in super::super) next: Next,
    /// The step that failed, if the connection was established.
    step: Option<Step>,
    /// Whether the mail server refused the use of SMTPUTF8 (RFC 6531 section 3.5).
    refuses_smtp_utf8: bool,
}

impl Failure {
    fn new(next: Next, problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), next, step: None, refuses_smtp_utf8: false }
    }

    fn at(step: Step, next: Next, problem: String) -> Self {
        Self { step: Some(step), ..Self::new(next, problem) }
    }

    /// A failure that is not temporary, but not the recipient's either.
    pub(in super::super) fn mend(problem: impl Into<String>) -> Self {
        Self::new(Next::Mend, problem)
    }

    /// A failure that no further attempt can change.
    pub(in super::super) fn give_up(problem: impl Into<String>) -> Self {
        Self::new(Next::GiveUp, problem)
    }

    /// A failure that may be gone at the next attempt.
    pub(in super::super) fn retry(problem: impl Into<String>) -> Self {
        Self::new(Next::Retry, problem)
    }

    /// Returns whether the mail server took no sender. A connection that it ends after some emails fails in this way.
    pub(in super::super) fn before_the_recipient(&self) -> bool {
        self.step == Some(Step::Sender)
    }

    pub(super) fn unresolved(host: &str) -> Self {
        Self::retry(format!("the mail server can't be reached: {host} can't be resolved"))
    }

    pub(super) fn unreachable(host: &str, error: &io::Error) -> Self {
        let why = match error.kind() {
            io::ErrorKind::ConnectionRefused => "the connection was refused".to_owned(),
            io::ErrorKind::TimedOut => "it did not respond in time".to_owned(),
            _ => error.to_string(),
        };
        Self::retry(format!("the mail server {host} can't be reached: {why}"))
    }

    pub(super) fn silent(step: Step) -> Self {
        let hint = match step {
            // What a client without TLS sees of a server that waits for TLS.
            Step::Greeting => "; if this port uses TLS from the start, as 465 does, use smtps://",
            _ => "",
        };
        let name = step.name();
        let problem = format!("the mail server did not respond to {name} in time{hint}");
        Self::at(step, Next::Retry, problem)
    }

    pub(super) fn broken(step: Step, error: &io::Error) -> Self {
        let name = step.name();
        let problem = match error.kind() {
            io::ErrorKind::InvalidData => {
                format!("the response of the mail server to {name} is not SMTP")
            }
            _ => format!("the mail server closed the connection instead of responding to {name}"),
        };
        Self::at(step, Next::Retry, problem)
    }

    pub(super) fn unexpected(step: Step, reply: &Reply) -> Self {
        let name = step.name();
        let problem =
            format!("the mail server responded to {name} with an unexpected code ({reply})");
        Self::at(step, Next::Retry, problem)
    }

    pub(super) fn early() -> Self {
        Self::mend(
            "the mail server sent more than its reply to STARTTLS before TLS was established",
        )
    }

    pub(super) fn no_start_tls() -> Self {
        Self::mend(
            "the mail server offers no STARTTLS; if it uses TLS from the start, use smtps:// in \
             mail.smtp_url; in development, smtp://HOST?tls=never permits unencrypted email",
        )
    }

    pub(super) fn no_auth(any: bool) -> Self {
        Self::mend(if any {
            "the mail server offers sign-in (AUTH), but neither with PLAIN nor with LOGIN"
        } else {
            "the mail server offers no sign-in (AUTH); remove the user and the password from \
             mail.smtp_url, or use a port that offers it"
        })
    }

    pub(super) fn no_smtp_utf8(recipient_is_ascii: bool) -> Self {
        if recipient_is_ascii {
            return Self::mend(
                "the mail server doesn't support SMTPUTF8, which the sender in mail.from requires",
            );
        }
        Self::give_up(
            "the mail server doesn't support SMTPUTF8, which the email address of the recipient \
             requires",
        )
    }

    /// The mail server refused a step.
    pub(super) fn refused(step: Step, reply: &Reply) -> Self {
        let (next, problem) = if reply.status < 500 {
            let name = step.name();
            let words = "the mail server asks to try again later, in its response to";
            (Next::Retry, format!("{words} {name} ({reply})"))
        } else {
            match step {
                Step::Recipient | Step::Data | Step::Content => refused_email(step, reply),
                _ => (Next::Mend, refused_server(step, reply)),
            }
        };
        let refuses_smtp_utf8 = reply.status == 555
            || (reply.status >= 500 && matches!(reply.enhanced(), "5.6.7" | "5.6.9"));
        Self { refuses_smtp_utf8, ..Self::at(step, next, problem) }
    }

    /// Explains a failure of an email that was sent with SMTPUTF8.
    pub(super) fn with_smtp_utf8(self, recipient_is_ascii: bool) -> Self {
        if self.refuses_smtp_utf8 { Self::no_smtp_utf8(recipient_is_ascii) } else { self }
    }
}

/// The mail server refused this server or its configuration.
fn refused_server(step: Step, reply: &Reply) -> String {
    let (what, fix) = match (step, reply.status) {
        (Step::Greeting, _) => ("connections from this server", ""),
        (Step::Hello, _) => {
            ("the name in EHLO", "; set mail.helo_name to a host name that it accepts")
        }
        (Step::StartTls | Step::Tls, _) => ("STARTTLS", ""),
        (Step::SignIn, _) => ("the sign-in", "; check the user and the password in mail.smtp_url"),
        (_, 503 | 530 | 534 | 535 | 538) => (
            "email without a sign-in or without TLS",
            "; check the user, the password and the scheme in mail.smtp_url",
        ),
        (_, 500 | 502 | 504) => {
            ("a command or the name in EHLO", "; set mail.helo_name to a host name that it accepts")
        }
        _ => ("the sender", "; check mail.from"),
    };
    format!("the mail server refuses {what} ({reply}){fix}")
}

/// The mail server refused a recipient or an email.
///
/// RFC 3463 counts a full mailbox among the conditions that may pass. A mail server may hold back the refusal of a
/// name, a sign-in or a sender until it knows the recipient or the content, with the codes of a policy (5.7.x) or none.
/// An email is therefore given up only if the codes show that its recipient or its content is the reason.
///
/// SECURITY: otherwise, an operator who mistypes a sender loses the emails of that time (test:
/// what_follows_a_refusal_depends_on_the_refused_command).
fn refused_email(step: Step, reply: &Reply) -> (Next, String) {
    let enhanced = reply.enhanced();
    let too_large = matches!(enhanced, "5.3.4" | "5.2.3");
    if enhanced == "5.2.2" || (reply.status == 552 && !too_large) {
        return (
            Next::Retry,
            format!("the mail server or the mailbox has no space left ({reply})"),
        );
    }
    let about_us = matches!(reply.status, 500 | 502 | 503 | 504 | 530 | 534 | 535 | 538)
        || matches!(enhanced, "5.1.7" | "5.1.8");
    if about_us {
        return (Next::Mend, refused_server(step, reply));
    }
    let what = if step == Step::Recipient { "the recipient" } else { "the email" };
    let refused = format!("the mail server refuses {what} ({reply})");
    if is_final(step, reply) {
        return (Next::GiveUp, refused);
    }
    let hint = "this may be due to the sender or to a policy; check mail.from, the user and the password in \
                mail.smtp_url, and which senders and recipients the mail server permits";
    (Next::Mend, format!("{refused}; {hint}"))
}

/// Returns whether the codes of a refusal concern the recipient or the content: the mailbox or its domain (5.1.x,
/// 5.2.x), the size (5.3.4) or the format (5.6.x).
fn is_final(step: Step, reply: &Reply) -> bool {
    match reply.enhanced() {
        "" => step == Step::Recipient && matches!(reply.status, 550 | 551 | 553 | 556),
        "5.1.1" | "5.1.2" | "5.1.3" | "5.1.4" | "5.1.6" | "5.1.10" | "5.3.4" => true,
        enhanced => enhanced.starts_with("5.2.") || enhanced.starts_with("5.6."),
    }
}
