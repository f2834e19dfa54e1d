//! The client of the mail server (RFC 5321).
//!
//! What happens to an email after a refusal depends on the command that was refused: a refused recipient is final, a
//! refused sign-in is for the operator to correct. Each command is therefore sent by itself, and each [`Failure`] knows
//! its [`Step`].

mod failure;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::Message;
use tokio::io::BufReader;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::Result;
use crate::settings::{HeloName, Settings, SmtpTls, SmtpUrl};

pub(super) use failure::{Failure, Next};
use failure::{Reply, Step};
use tls::Tls;

/// How long the mail server may take for one step.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the mail server may take to accept the content, which it may scan first. An email whose acceptance is not
/// heard is sent again (RFC 5321 section 4.5.3.2.6).
const PATIENCE_WITH_CONTENT: Duration = Duration::from_secs(120);
/// How long the goodbye may take.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(1);
/// How many IP addresses of the mail server are tried.
const MOST_ADDRESSES: usize = 4;
/// The maximum length of a reply, in bytes. RFC 5321 section 4.5.3.1.5 allows lines of 512 bytes.
const LONGEST_REPLY: u64 = 64 * 1024;

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

type Wire = Pin<Box<dyn Stream>>;

/// A mail server and how it is used.
pub(super) struct Server {
    host: String,
    port: u16,
    on_loopback: bool,
    encryption: Encryption,
    login: Option<(String, String)>,
    name: HeloName,
}

enum Encryption {
    Never,
    FromTheStart(Tls),
    StartTls(Tls),
}

impl Server {
    /// # Errors
    /// Returns an error if the file in `mail.root_certificate` can't be used.
    pub(super) fn new(url: &SmtpUrl, settings: &Settings) -> Result<Self> {
        // Read even if it isn't needed: a wrong path is a mistake in any case.
        let roots = settings.mail.root_certificate.as_deref().map(tls::certificates);
        let roots = roots.transpose()?.unwrap_or_default();
        let encryption = match url.tls() {
            SmtpTls::Never => Encryption::Never,
            SmtpTls::FromTheStart => Encryption::FromTheStart(Tls::verified(url, roots)?),
            // On this machine the email would be sent unencrypted as well, so there is nothing to protect by
            // verification. Local mail servers often have a self-signed certificate.
            SmtpTls::StartTls if url.is_loopback() => Encryption::StartTls(Tls::unverified(url)?),
            SmtpTls::StartTls => Encryption::StartTls(Tls::verified(url, roots)?),
        };
        let name = settings.mail.helo_name.clone();
        Ok(Self {
            host: url.host().to_owned(),
            port: url.port(),
            on_loopback: url.is_loopback(),
            encryption,
            login: url.login().map(|(user, password)| (user.to_owned(), password.to_owned())),
            name: name.unwrap_or_else(|| HeloName::of(&settings.server.public_url)),
        })
    }

    /// Opens a connection that is ready for emails.
    ///
    /// SECURITY: except on loopback, no credentials and no email are sent before TLS is established and the certificate
    /// is verified (tests: an_email_waits_for_a_server_that_offers_no_tls,
    /// a_certificate_is_verified_off_loopback).
    pub(super) async fn open(&self) -> Result<Connection, Failure> {
        let mut wire: Wire = Box::pin(self.connect().await?);
        if let Encryption::FromTheStart(tls) = &self.encryption {
            wire = self.secured(tls, wire).await?;
        }
        let mut connection = Connection::new(wire);
        connection.hear(Step::Greeting).await?;
        connection.greet(&self.name).await?;
        match &self.encryption {
            Encryption::StartTls(tls) if connection.can.start_tls => {
                connection.ask(Step::StartTls, "STARTTLS").await?;
                connection = Connection::new(self.secured(tls, connection.unbuffered()?).await?);
                connection.greet(&self.name).await?;
            }
            Encryption::StartTls(_) if !self.on_loopback => return Err(Failure::no_start_tls()),
            _ => {}
        }
        if let Some((user, password)) = &self.login {
            connection.sign_in(user, password).await?;
        }
        Ok(connection)
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let found = timeout(PATIENCE, tokio::net::lookup_host((self.host.as_str(), self.port)));
        let found = match found.await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => return Err(Failure::unresolved(&self.host)),
            Err(_) => {
                return Err(Failure::unreachable(&self.host, &io::ErrorKind::TimedOut.into()));
            }
        };
        let addresses = usable(found, self.on_loopback);
        let mut failed = Failure::unresolved(&self.host);
        for address in &addresses {
            let patience = PATIENCE / u32::try_from(addresses.len()).unwrap_or(1);
            match timeout(patience, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = Failure::unreachable(&self.host, &error),
                Err(_) => {
                    failed = Failure::unreachable(&self.host, &io::ErrorKind::TimedOut.into());
                }
            }
        }
        Err(failed)
    }

    async fn secured(&self, tls: &Tls, wire: Wire) -> Result<Wire, Failure> {
        match timeout(PATIENCE, tls.connect(wire)).await {
            Ok(Ok(stream)) => Ok(Box::pin(stream)),
            Ok(Err(error)) => Err(tls.failure(&error)),
            Err(_) => Err(Failure::silent(Step::Tls)),
        }
    }
}

/// Returns the addresses that are tried.
///
/// SECURITY: `localhost` gets unencrypted emails, so it must be this machine, whatever a name server says (test:
/// a_local_name_that_leads_elsewhere_is_not_used).
fn usable(found: impl Iterator<Item = SocketAddr>, on_loopback: bool) -> Vec<SocketAddr> {
    let usable = |address: &SocketAddr| !on_loopback || address.ip().is_loopback();
    found.filter(usable).take(MOST_ADDRESSES).collect()
}

/// What the mail server offers in its reply to EHLO.
#[derive(Default)]
struct Offers {
    start_tls: bool,
    smtp_utf8: bool,
    eight_bit: bool,
    any_auth: bool,
    plain: bool,
    login: bool,
}

/// A connection to the mail server.
pub(super) struct Connection {
    wire: BufReader<Wire>,
    can: Offers,
    patience: Duration,
}

impl Connection {
    fn new(wire: Wire) -> Self {
        Self { wire: BufReader::new(wire), can: Offers::default(), patience: PATIENCE }
    }

    /// Sends an email.
    pub(super) async fn deliver(&mut self, message: &Message) -> Result<(), Failure> {
        let envelope = message.envelope();
        let from: &str = envelope.from().map(AsRef::as_ref).unwrap_or_default();
        let to: &str = envelope.to().first().map(AsRef::as_ref).unwrap_or_default();
        let mut parameters = String::new();
        let international = !from.is_ascii() || !to.is_ascii();
        if international {
            if !self.can.smtp_utf8 {
                return Err(Failure::no_smtp_utf8(to.is_ascii()));
            }
            parameters.push_str(" SMTPUTF8");
        }
        let content = message.formatted();
        if !content.is_ascii() && self.can.eight_bit {
            parameters.push_str(" BODY=8BITMIME");
        }
        let explained = |failure: Failure| match international {
            true => failure.with_smtp_utf8(to.is_ascii()),
            false => failure,
        };
        let sender = format!("MAIL FROM:<{from}>{parameters}");
        self.ask(Step::Sender, &sender).await.map_err(explained)?;
        self.ask(Step::Recipient, &format!("RCPT TO:<{to}>")).await.map_err(explained)?;
        self.ask(Step::Data, "DATA").await?;
        self.say(Step::Content, &transparent(&content)).await?;
        Ok(())
    }

    /// Ends the connection. The mail server is told, but its reply doesn't matter.
    pub(super) async fn quit(mut self) {
        let goodbye = async {
            self.wire.write_all(b"QUIT\r\n").await?;
            self.wire.flush().await?;
            self.read().await.map(drop)
        };
        // The email has been delivered or refused before.
        let _ = timeout(PATIENCE_AT_THE_END, goodbye).await;
    }

    async fn greet(&mut self, name: &HeloName) -> Result<(), Failure> {
        let reply = self.ask(Step::Hello, &format!("EHLO {name}")).await?;
        self.can = Offers::default();
        for line in reply.lines.iter().skip(1) {
            let line = line.to_ascii_uppercase().replace('=', " ");
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("STARTTLS") => self.can.start_tls = true,
                Some("SMTPUTF8") => self.can.smtp_utf8 = true,
                Some("8BITMIME") => self.can.eight_bit = true,
                Some("AUTH") => {
                    self.can.any_auth = true;
                    for word in words {
                        self.can.plain |= word == "PLAIN";
                        self.can.login |= word == "LOGIN";
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Signs in with PLAIN (RFC 4616) or LOGIN.
    async fn sign_in(&mut self, user: &str, password: &str) -> Result<(), Failure> {
        let plain = STANDARD.encode(format!("\0{user}\0{password}"));
        let (first, answers) = if self.can.plain {
            (format!("AUTH PLAIN {plain}"), vec![plain])
        } else if self.can.login {
            ("AUTH LOGIN".to_owned(), vec![STANDARD.encode(user), STANDARD.encode(password)])
        } else {
            return Err(Failure::no_auth(self.can.any_auth));
        };
        let mut reply = self.ask(Step::SignIn, &first).await?;
        for answer in answers {
            if reply.status != 334 {
                break;
            }
            reply = self.ask(Step::SignIn, &answer).await?;
        }
        if reply.status == 334 { Err(Failure::unexpected(Step::SignIn, &reply)) } else { Ok(()) }
    }

    /// Returns the stream, for TLS.
    ///
    /// SECURITY: what was received before TLS could come from anyone. It must not count as a reply to a command that
    /// is sent with TLS (test: what_is_sent_before_tls_is_no_reply_to_what_is_sent_with_it).
    fn unbuffered(self) -> Result<Wire, Failure> {
        if self.wire.buffer().is_empty() {
            Ok(self.wire.into_inner())
        } else {
            Err(Failure::early())
        }
    }

    async fn ask(&mut self, step: Step, command: &str) -> Result<Reply, Failure> {
        self.say(step, format!("{command}\r\n").as_bytes()).await
    }

    async fn hear(&mut self, step: Step) -> Result<Reply, Failure> {
        self.say(step, b"").await
    }

    /// Sends `bytes` and returns the reply, unless it refuses the step.
    async fn say(&mut self, step: Step, bytes: &[u8]) -> Result<Reply, Failure> {
        let patience = if step == Step::Content { PATIENCE_WITH_CONTENT } else { self.patience };
        let exchange = async {
            let sent = async {
                self.wire.write_all(bytes).await?;
                self.wire.flush().await
            };
            let sent = sent.await;
            // A server may refuse and close the connection before it has read everything.
            let reply = self.read().await?;
            if (400..600).contains(&reply.status) { Ok(reply) } else { sent.map(|()| reply) }
        };
        let reply = match timeout(patience, exchange).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Err(Failure::broken(step, &error)),
            Err(_) => return Err(Failure::silent(step)),
        };
        match reply.status {
            400..600 => Err(Failure::refused(step, &reply)),
            status if step.expects(status) => Ok(reply),
            _ => Err(Failure::unexpected(step, &reply)),
        }
    }

    /// Reads a reply (RFC 5321 section 4.2).
    async fn read(&mut self) -> io::Result<Reply> {
        let mut limited = (&mut self.wire).take(LONGEST_REPLY);
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            limited.read_until(b'\n', &mut line).await?;
            if !line.ends_with(b"\n") {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            let digits = line.get(..3).filter(|part| part.bytes().all(|b| b.is_ascii_digit()));
            let status = digits.and_then(|digits| digits.parse().ok());
            let status: u16 = status.ok_or(io::ErrorKind::InvalidData)?;
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { status, lines });
            }
        }
    }
}

/// Returns the content as it is sent after DATA: a line that begins with a dot gets another one, and a line with only a
/// dot ends it (RFC 5321 section 4.5.2).
fn transparent(content: &[u8]) -> Vec<u8> {
    let mut sent = Vec::with_capacity(content.len() + 8);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            sent.push(b'.');
        }
        sent.extend_from_slice(line);
    }
    if !sent.ends_with(b"\r\n") {
        sent.extend_from_slice(b"\r\n");
    }
    sent.extend_from_slice(b".\r\n");
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection to a server that sends these bytes.
    fn receiving(bytes: &[u8]) -> Connection {
        let bytes = io::Cursor::new(bytes.to_vec());
        Connection::new(Box::pin(tokio::io::join(bytes, tokio::io::sink())))
    }

    #[test]
    fn a_local_name_that_leads_elsewhere_is_not_used() {
        let found: Vec<SocketAddr> =
            ["203.0.113.5:25", "127.0.0.1:25"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(usable(found.iter().copied(), true), [found[1]]);
        assert_eq!(usable(found.iter().copied(), false), found);
    }

    /// A mail server that says nothing holds no sender for longer than the time of a step.
    #[tokio::test]
    async fn a_silent_server_is_left() {
        let (wire, _server) = tokio::io::duplex(64);
        let mut connection = Connection::new(Box::pin(wire));
        connection.patience = Duration::from_millis(20);
        let failure = connection.hear(Step::Greeting).await.err().unwrap();
        assert!(failure.problem.contains("in time"), "{failure:?}");
        assert_eq!(failure.next, Next::Retry);
    }

    /// The mail server, and what stands on the way to it before TLS, may send anything.
    #[tokio::test]
    async fn any_reply_is_read_to_its_end_or_refused() {
        let replies = proptest::sample::select(vec![
            "250-PIPELINING\r\n",
            "250 ok\r\n",
            "250\n",
            "220-é\r\n",
            "2é0 x\r\n",
            "\r\n",
            "-",
            "250",
            "\0",
        ]);
        let replies = proptest::collection::vec(replies, 0..8);
        let mut runner = proptest::test_runner::TestRunner::default();
        for _ in 0..500 {
            let sent = proptest::strategy::Strategy::new_tree(&replies, &mut runner).unwrap();
            let sent = proptest::strategy::ValueTree::current(&sent).concat();
            if let Ok(reply) = receiving(sent.as_bytes()).read().await {
                assert!(sent.contains(&reply.status.to_string()), "{sent:?}");
            }
        }
        let endless = b"250-x\r\n".repeat(100_000);
        assert!(receiving(&endless).read().await.is_err());
        assert!(receiving(&[b'2'; 1_000_000]).read().await.is_err());
    }

    #[test]
    fn a_line_with_only_a_dot_does_not_end_the_content_early() {
        let sent = transparent(b"Subject: x\r\n\r\n.\r\n..a\r\nb.\r\n");
        assert_eq!(sent, b"Subject: x\r\n\r\n..\r\n...a\r\nb.\r\n.\r\n");
        assert_eq!(transparent(b"a"), b"a\r\n.\r\n");
    }
}
