//! What becomes of an email: how the mail server is spoken to, what is sent again, and what the operator reads.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use palisade::app::Actor;
use palisade::mail::{self, Content, EmailTemplate};
use palisade::module::Module;
use palisade::testing::{On, Plan, TestApp};
use palisade_db::args;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::faults::Log;

palisade::on_both! {
    a_refused_recipient_is_given_up_at_once => |on| super::given_up(on);
}

static HELLO: EmailTemplate = EmailTemplate {
    name: "test_hello",
    text: "Subject: Hello\n\n.\nHello.\n",
    html: "<p>Hello.</p>",
    prepare: mail::as_written,
};

const GREETS: Module = Module { name: "test_greets", email_templates: &[&HELLO], ..Module::EMPTY };

fn plan() -> Plan {
    Plan { modules: vec![GREETS], ..Plan::default() }
}

/// A mail server that does as a test says, and writes down what it hears.
#[derive(Clone, Default)]
struct Script {
    /// The lines of the reply to EHLO, after the first.
    offers: &'static [&'static str],
    /// Replies other than the usual ones, by the beginning of the command: the greeting has `""`, the content `.`. An
    /// empty reply closes the connection.
    replies: Vec<(&'static str, &'static str)>,
    /// The certificate, from the first byte or after STARTTLS.
    tls: Option<Arc<ServerConfig>>,
    from_the_start: bool,
    /// Whether it takes one email per connection.
    one_each: bool,
}

struct Server {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts on this machine, or with `127.0.0.2` as a server elsewhere: that is none of loopback's names.
    async fn start(ip: &str, script: Script) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(script));
        let (hears, follows) = (Arc::clone(&heard), Arc::clone(&script));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, heard) = (follows.lock().unwrap().clone(), Arc::clone(&hears));
                tokio::spawn(async move {
                    heard.lock().unwrap().push("connected".to_owned());
                    if script.from_the_start {
                        let tls = TlsAcceptor::from(script.tls.clone().unwrap());
                        if let Ok(stream) = tls.accept(stream).await {
                            talk(stream, &script, &heard, true).await;
                        }
                        return;
                    }
                    let Some(stream) = talk(stream, &script, &heard, false).await else { return };
                    let tls = TlsAcceptor::from(script.tls.clone().unwrap());
                    if let Ok(stream) = tls.accept(stream).await {
                        talk(stream, &script, &heard, true).await;
                    }
                });
            }
        });
        Self { address, script, heard }
    }

    /// Follows another script from now on, and forgets what it heard.
    fn follow(&self, script: Script) {
        *self.script.lock().unwrap() = script;
        self.heard.lock().unwrap().clear();
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    fn settings(&self, scheme: &str, more: &str) -> Vec<(&'static str, &'static str)> {
        let (login, query) = more.split_once('|').unwrap_or((more, ""));
        url(&format!("{scheme}://{login}{}{query}", self.address))
    }
}

fn url(url: &str) -> Vec<(&'static str, &'static str)> {
    vec![
        ("limits.enabled", "false"),
        ("mail.smtp_url", url.to_owned().leak()),
        ("mail.from", "Example <no-reply@example.com>"),
        ("registration.email_verification", "off"),
    ]
}

/// Speaks until the end, or until TLS begins; then returns the stream.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    script: &Script,
    heard: &Mutex<Vec<String>>,
    encrypted: bool,
) -> Option<S> {
    let mut stream = BufReader::new(stream);
    let (mut line, mut content, mut senders) = (String::new(), false, 0);
    // After STARTTLS there is no second greeting.
    let mut begun = !encrypted || script.from_the_start;
    loop {
        senders += usize::from(line.starts_with("MAIL"));
        if begun {
            let mut reply = reply(script, &line, &mut content, encrypted);
            if script.one_each && senders > 1 {
                reply = Some("421 4.7.0 one is enough".to_owned());
            }
            if reply.as_deref() == Some("") {
                return None;
            }
            if let Some(reply) = reply {
                stream.write_all(format!("{reply}\r\n").as_bytes()).await.ok()?;
                if line.starts_with("STARTTLS") && reply.starts_with("220") {
                    return Some(stream.into_inner());
                }
            }
        }
        begun = true;
        line.clear();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return None;
        }
        let with = if encrypted { "tls " } else { "" };
        heard.lock().unwrap().push(format!("{with}{}", line.trim_end()));
    }
}

fn reply(script: &Script, line: &str, content: &mut bool, encrypted: bool) -> Option<String> {
    let end = line == ".\r\n";
    if *content && !end {
        return None;
    }
    *content = line.starts_with("DATA");
    let special = script.replies.iter().find(|(command, _)| match *command {
        "" => line.is_empty(),
        "." => end,
        command => line.starts_with(command),
    });
    if let Some((_, reply)) = special {
        *content &= reply.starts_with("354");
        return Some((*reply).to_owned());
    }
    Some(if line.starts_with("EHLO") {
        let mut lines = vec!["250-mail.example.com".to_owned()];
        let offered = |offer: &&&str| !(encrypted && offer.eq_ignore_ascii_case("STARTTLS"));
        lines.extend(script.offers.iter().filter(offered).map(|offer| format!("250-{offer}")));
        lines.push("250 HELP".to_owned());
        lines.join("\r\n")
    } else if line.starts_with("DATA") {
        "354 go on".to_owned()
    } else if line.is_empty() || line.starts_with("STARTTLS") {
        "220 mail.example.com".to_owned()
    } else if line.starts_with("AUTH") {
        "235 2.7.0 signed in".to_owned()
    } else {
        "250 2.0.0 ok".to_owned()
    })
}

/// What the outbox says of an email.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    sent: bool,
    given_up: bool,
    retried: bool,
    problem: String,
}

/// Has an email sent to this email address, and returns its row after the first attempt.
async fn sent_to(app: &TestApp, to: &str) -> Row {
    // Each email has a time of its own. Those that wait for another attempt wait longer than a test has emails.
    app.advance(Duration::from_secs(1)).await;
    let mut change = app.app.change(&Actor::system()).await.unwrap();
    mail::enqueue(&mut change, &HELLO, Content::to(to)).await.unwrap();
    change.commit_quietly("a test sends an email").await.unwrap();
    for _ in 0..1000 {
        let row: (i64, i64, i64, Option<String>) = app
            .app
            .db
            .one(
                "select sum(case when sent_at is null then 0 else 1 end),
                    sum(case when failed_at is null then 0 else 1 end),
                    sum(case when next_try_at is null then 0 else 1 end), max(problem)
                 from outbox where created_at = (select max(created_at) from outbox)",
                args![],
            )
            .await
            .unwrap();
        if row.0 > 0 || row.3.is_some() {
            let problem = row.3.unwrap_or_default();
            return Row { sent: row.0 > 0, given_up: row.1 > 0, retried: row.2 > 0, problem };
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no attempt was made");
}

/// An app that sends to a server on this machine.
async fn local(more: &str) -> (TestApp, Server) {
    let server = Server::start("127.0.0.1", Script::default()).await;
    let plan = Plan { settings: server.settings("smtp", more), ..plan() };
    (TestApp::with(On::Sqlite, plan).await, server)
}

async fn given_up(on: On) {
    let replies = vec![("RCPT", "550 5.1.1 <ann@example.com>: unknown")];
    let server = Server::start("127.0.0.1", Script { replies, ..Script::default() }).await;
    let plan = Plan { settings: server.settings("smtp", ""), ..plan() };
    let app = TestApp::with(on, plan).await;
    let row = sent_to(&app, "ann@example.com").await;
    assert!(row.given_up && !row.sent && !row.retried, "{row:?}");
    assert_eq!(row.problem, "the mail server refuses the recipient (550 5.1.1)");
    let filter = palisade::audit_log::Filter::default();
    palisade::audit_log::seal_pending(&app.app).await.unwrap();
    let events = palisade::audit_log::list(&app.app, filter, 10).await.unwrap();
    let told = format!("{events:?}");
    assert!(told.contains("mail.failed") && told.contains("550 5.1.1"), "{told}");
    assert!(!told.contains("ann@example.com"), "{told}");
    app.stop().await;
}

/// A refusal is final if its codes concern the recipient or the content. Every other one is retried, and says what to
/// correct, also if the mail server holds it back until the recipient or the content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_refusal_depends_on_the_refused_command() {
    let (app, server) = local("").await;
    for (command, refusal, given_up, says) in [
        ("RCPT", "550 no such user", true, "refuses the recipient (550)"),
        ("RCPT", "553-5.1.3 bad\r\n553 5.1.3 address", true, "refuses the recipient (553 5.1.3)"),
        ("RCPT", "550 5.2.1 disabled", true, "refuses the recipient (550 5.2.1)"),
        ("RCPT", "556 5.1.10 null MX", true, "refuses the recipient (556 5.1.10)"),
        ("RCPT", "556 no mail here", true, "refuses the recipient (556)"),
        ("RCPT", "554 5.7.1 <x>: Relay access denied", false, "(554 5.7.1); this may be due"),
        ("RCPT", "553 5.7.1 <x>: Sender address rejected", false, "check mail.from"),
        (
            "RCPT",
            "550 5.7.60 can't send as this sender",
            false,
            "refuses the recipient (550 5.7.60);",
        ),
        ("RCPT", "550 5.1.8 sender domain", false, "refuses the sender (550 5.1.8)"),
        ("RCPT", "554 no", false, "refuses the recipient (554); this may be due"),
        ("RCPT", "450 4.2.0 greylisted", false, "try again later, in its response to RCPT TO"),
        ("RCPT", "452 4.2.2 full", false, "try again later"),
        ("RCPT", "552 5.2.2 full", false, "no space left (552 5.2.2)"),
        ("RCPT", "504 5.5.2 <x>: Helo command rejected", false, "set mail.helo_name"),
        ("RCPT", "530 5.7.0 sign in first", false, "the password and the scheme"),
        ("RCPT", "421 4.3.2 going down", false, "try again later"),
        ("DATA", "550 5.1.1 unknown", true, "refuses the email (550 5.1.1)"),
        ("DATA", "554 5.7.1 no", false, "refuses the email (554 5.7.1); this may be due"),
        ("DATA", "451 4.3.0 later", false, "in its response to DATA (451 4.3.0)"),
        (".", "554 5.6.0 malformed", true, "refuses the email (554 5.6.0)"),
        (".", "550 5.2.3 too large", true, "refuses the email (550 5.2.3)"),
        (".", "554 5.7.1 sender", false, "refuses the email (554 5.7.1); this may be due"),
        (".", "554 Message rejected", false, "refuses the email (554); this may be due"),
        (".", "550 prohibited", false, "refuses the email (550); this may be due"),
        (".", "552 5.3.4 too large", true, "refuses the email (552 5.3.4)"),
        (".", "452 4.3.1 disk", false, "try again later"),
        (".", "", false, "closed the connection instead of responding to the content"),
        ("MAIL", "550 5.7.1 not allowed", false, "refuses the sender (550 5.7.1); check mail.from"),
        ("MAIL", "530 5.7.0 STARTTLS first", false, "without a sign-in or without TLS (530 5.7.0)"),
        ("MAIL", "421 too many", false, "try again later"),
        ("EHLO", "504 5.5.2 a host name", false, "refuses the name in EHLO (504 5.5.2); set mail"),
        ("EHLO", "550 no", false, "set mail.helo_name"),
        ("EHLO", "hello", false, "the response of the mail server to EHLO is not SMTP"),
        ("EHLO", "", false, "closed the connection instead of responding to EHLO"),
        ("", "554 no service", false, "refuses connections from this server (554)"),
        ("", "421 busy", false, "try again later"),
    ] {
        server.follow(Script { replies: vec![(command, refusal)], ..Script::default() });
        let row = sent_to(&app, "ann@example.com").await;
        let expected = (false, given_up, !given_up);
        assert_eq!((row.sent, row.given_up, row.retried), expected, "{command} {refusal} {row:?}");
        assert!(row.problem.contains(says), "{command} {refusal} {row:?}");
        assert!(!row.problem.contains('@') && !row.problem.contains('<'), "{row:?}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_that_fails_says_why_and_shows_no_password() {
    let (app, server) = local("ann:hunter2@").await;
    let told = |offers, replies| Script { offers, replies, ..Script::default() };
    for (script, says) in [
        (told(&[], vec![]), "offers no sign-in (AUTH); remove"),
        (told(&["AUTH CRAM-MD5"], vec![]), "neither with PLAIN nor with LOGIN"),
        (
            told(&["AUTH PLAIN"], vec![("AUTH", "535 5.7.8 wrong")]),
            "the sign-in (535 5.7.8); check",
        ),
        (told(&["AUTH PLAIN"], vec![("AUTH", "454 4.7.0 later")]), "in its response to AUTH (454"),
    ] {
        server.follow(script);
        let row = sent_to(&app, "ann@example.com").await;
        let heard = server.heard();
        assert!(row.retried && row.problem.contains(says), "{row:?}");
        assert!(!row.problem.contains("hunter2") && !row.problem.contains("ann"), "{row:?}");
        assert!(!heard.iter().any(|line| line.starts_with("MAIL")), "{heard:?}");
    }
    server.follow(told(&["AUTH PLAIN"], vec![]));
    let row = sent_to(&app, "ann@example.com").await;
    let heard = server.heard();
    assert!(row.sent && heard.contains(&"AUTH PLAIN AGFubgBodW50ZXIy".to_owned()), "{heard:?}");
    let asked = vec![("AUTH", "334 VXNlcm5hbWU6"), ("YW5u", "334 x"), ("aHVudGVyMg==", "235 ok")];
    server.follow(told(&["auth=LOGIN XOAUTH2"], asked));
    let row = sent_to(&app, "ann@example.com").await;
    assert!(row.sent, "{row:?} {:?}", server.heard());
    app.stop().await;
}

/// An email address with letters beyond ASCII can be told only to a server that supports SMTPUTF8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_email_address_beyond_ascii_needs_smtputf8() {
    let (app, server) = local("").await;
    for (offers, replies, sent) in [
        (&[][..], vec![], false),
        (&["SMTPUTF8", "8BITMIME"][..], vec![("RCPT", "553 5.6.7 not here")], false),
        (&["SMTPUTF8", "8BITMIME"][..], vec![("MAIL", "555 5.5.4 no")], false),
        (&["SMTPUTF8", "8BITMIME"][..], vec![], true),
    ] {
        server.follow(Script { offers, replies, ..Script::default() });
        let row = sent_to(&app, "bücher@example.com").await;
        assert_eq!((row.sent, row.given_up), (sent, !sent), "{row:?}");
        assert_eq!(row.problem.contains("SMTPUTF8"), !sent, "{row:?}");
        if sent {
            let heard = server.heard().join("\n");
            assert!(heard.contains("\nMAIL FROM:<no-reply@example.com> SMTPUTF8"), "{heard}");
            assert!(heard.contains("\nRCPT TO:<bücher@example.com>\n"), "{heard}");
        }
    }
    app.stop().await;
}

/// An authority, and a server's certificate from it: for this name, valid in these years.
struct Certified {
    server: Arc<ServerConfig>,
    authority: tempfile::NamedTempFile,
}

impl Certified {
    fn new(name: &str, years: (i32, i32)) -> Self {
        let mut authority = rcgen::CertificateParams::new(vec![]).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let root = authority.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::from_params(&authority, &key);
        let mut own = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        own.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        own.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let own_key = rcgen::KeyPair::generate().unwrap();
        let own = own.signed_by(&own_key, &issuer).unwrap();
        Self::of(own.der().clone(), &own_key, &root.pem())
    }

    /// Signed by its own key and marked as an authority, as `openssl req -x509` does.
    fn by_itself(name: &str, years: (i32, i32)) -> Self {
        let mut own = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        own.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        own.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        own.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let own = own.self_signed(&key).unwrap();
        Self::of(own.der().clone(), &key, &own.pem())
    }

    fn of(
        certificate: rustls::pki_types::CertificateDer<'static>,
        key: &rcgen::KeyPair,
        trusted: &str,
    ) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let authority = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(authority.path(), trusted).unwrap();
        Self { server: Arc::new(server), authority }
    }
}

const STARTTLS: &[&str] = &["STARTTLS", "AUTH PLAIN"];

/// An app that sends over TLS and trusts the authorities in a file.
async fn encrypting(ip: &str, scheme: &str, trusted: Option<&Path>) -> (TestApp, Server) {
    let server = Server::start(ip, Script::default()).await;
    let mut settings = server.settings(scheme, "u:p@");
    if let Some(path) = trusted {
        settings.push(("mail.root_certificate", path.to_str().unwrap().to_owned().leak()));
    }
    (TestApp::with(On::Sqlite, Plan { settings, ..plan() }).await, server)
}

impl Server {
    fn certify(&self, certified: &Certified, from_the_start: bool) {
        let tls = Some(Arc::clone(&certified.server));
        self.follow(Script { offers: STARTTLS, tls, from_the_start, ..Script::default() });
    }

    /// The commands that contain what must not be read on the way.
    fn secrets(&self) -> Vec<String> {
        let secret = |line: &String| line.contains("AUTH") || line.contains("MAIL FROM");
        self.heard().into_iter().filter(secret).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_verified_off_loopback() {
    let good = Certified::new("127.0.0.2", (2020, 2040));
    let itself = Certified::by_itself("127.0.0.2", (2020, 2040));
    let all = [
        (&good, ""),
        (&itself, ""),
        (&Certified::new("mail.example.com", (2020, 2040)), "is not valid for 127.0.0.2"),
        (&Certified::by_itself("mail.example.com", (2020, 2040)), "is not valid for 127.0.0.2"),
        (&Certified::new("127.0.0.2", (2010, 2020)), "has expired"),
        (&Certified::by_itself("127.0.0.2", (2010, 2020)), "has expired"),
        (&Certified::new("127.0.0.2", (2090, 2099)), "is not valid yet"),
    ];
    let bundle = tempfile::NamedTempFile::new().unwrap();
    let pems = all.iter().map(|(one, _)| std::fs::read(one.authority.path()).unwrap());
    std::fs::write(bundle.path(), pems.collect::<Vec<_>>().concat()).unwrap();
    for scheme in ["smtp", "smtps"] {
        let from_the_start = scheme == "smtps";
        let (app, server) = encrypting("127.0.0.2", scheme, Some(bundle.path())).await;
        for (certified, says) in all {
            server.certify(certified, from_the_start);
            let row = sent_to(&app, "ann@example.com").await;
            assert_eq!(row.sent, says.is_empty(), "{scheme} {says} {row:?}");
            let full = format!("the certificate of the mail server {says}");
            assert!(row.sent || (row.retried && row.problem == full), "{scheme} {row:?}");
            let secrets = server.secrets();
            assert_eq!(secrets.len(), if row.sent { 2 } else { 0 }, "{secrets:?}");
            assert!(secrets.iter().all(|line| line.starts_with("tls ")), "{secrets:?}");
        }
        app.stop().await;
        let other = Certified::new("127.0.0.2", (2020, 2040));
        for trusted in [None, Some(other.authority.path())] {
            let (app, server) = encrypting("127.0.0.2", scheme, trusted).await;
            for (certified, says) in [
                (&good, "is not issued by a trusted certificate authority"),
                (&itself, "is self-signed; add it to mail.root_certificate"),
            ] {
                server.certify(certified, from_the_start);
                let row = sent_to(&app, "ann@example.com").await;
                assert!(row.retried && row.problem.contains(says), "{scheme} {row:?}");
                assert_eq!(server.secrets(), [""; 0]);
            }
            app.stop().await;
        }
    }
}

/// What a mail server on this machine is given unencrypted, it is also given with a certificate that no one can verify.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_on_this_machine_may_have_any_certificate() {
    let (app, server) = encrypting("127.0.0.1", "smtp", None).await;
    // TLS from the start is asked for, and then verified.
    let (strict, other) = encrypting("127.0.0.1", "smtps", None).await;
    for certified in [
        Certified::by_itself("debian", (2020, 2040)),
        Certified::by_itself("debian", (2010, 2020)),
        Certified::new("debian", (2020, 2040)),
    ] {
        server.certify(&certified, false);
        let row = sent_to(&app, "ann@example.com").await;
        assert!(row.sent, "{row:?}");
        assert!(server.secrets().iter().all(|line| line.starts_with("tls ")), "{row:?}");
        other.certify(&certified, true);
        let row = sent_to(&strict, "ann@example.com").await;
        assert!(row.retried && row.problem.contains("the certificate"), "{row:?}");
    }
    app.stop().await;
    strict.stop().await;
}

/// Someone on the way could add replies to the one to STARTTLS, which would count as those to later commands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_before_tls_is_no_reply_to_what_is_sent_with_it() {
    let certified = Certified::new("127.0.0.2", (2020, 2040));
    let script = Script {
        offers: STARTTLS,
        replies: vec![("STARTTLS", "220 go\r\n250-evil.example\r\n250 AUTH PLAIN")],
        tls: Some(Arc::clone(&certified.server)),
        ..Script::default()
    };
    let server = Server::start("127.0.0.2", script).await;
    let mut settings = server.settings("smtp", "u:p@");
    let path = certified.authority.path().to_str().unwrap().to_owned();
    settings.push(("mail.root_certificate", path.leak()));
    let app = TestApp::with(On::Sqlite, Plan { settings, ..plan() }).await;
    let row = sent_to(&app, "ann@example.com").await;
    assert!(row.retried && row.problem.contains("before TLS was established"), "{row:?}");
    assert!(!server.heard().iter().any(|line| line.contains("AUTH")), "{:?}", server.heard());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_can_not_be_reached_says_why() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let web = Script { replies: vec![("", "HTTP/1.1 400 Bad Request")], ..Script::default() };
    let web = Server::start("127.0.0.1", web).await.address;
    let plain = Server::start("127.0.0.1", Script::default()).await.address;
    for (at, says) in [
        (format!("smtp://{closed}"), "127.0.0.1 can't be reached: the connection was refused"),
        ("smtp://mail.invalid".to_owned(), "mail.invalid can't be resolved"),
        (format!("smtp://{web}"), "the response of the mail server to the connection is not SMTP"),
        (format!("smtps://{plain}"), "does not speak TLS on this port"),
    ] {
        let app = TestApp::with(On::Sqlite, Plan { settings: url(&at), ..plan() }).await;
        let row = sent_to(&app, "ann@example.com").await;
        assert!(row.retried && row.problem.contains(says), "{at} {row:?}");
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_in_ehlo_is_that_of_the_public_url_unless_it_is_set() {
    for (key, value, said) in [
        ("server.public_url", "https://app.example.com", "EHLO app.example.com"),
        ("server.public_url", "http://127.0.0.1:8000", "EHLO [127.0.0.1]"),
        ("server.public_url", "http://[::1]:8000", "EHLO [IPv6:::1]"),
        ("mail.helo_name", "out.example.com", "EHLO out.example.com"),
        ("mail.helo_name", "192.0.2.25", "EHLO [192.0.2.25]"),
    ] {
        let server = Server::start("127.0.0.1", Script::default()).await;
        let mut settings = server.settings("smtp", "");
        settings.push((key, value));
        let app = TestApp::with(On::Sqlite, Plan { settings, ..plan() }).await;
        assert!(sent_to(&app, "ann@example.com").await.sent, "{value}");
        assert_eq!(server.heard()[1], said);
        app.stop().await;
    }
}

/// A catcher of emails in another container: only if the URL says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unencrypted_server_elsewhere_is_used_only_if_the_url_says_so() {
    for (query, sent) in [("|?tls=never", true), ("", false)] {
        // It offers STARTTLS, which isn't used.
        let offers = if sent { &["STARTTLS"][..] } else { &[] };
        let server = Server::start("127.0.0.2", Script { offers, ..Script::default() }).await;
        let plan = Plan { settings: server.settings("smtp", query), ..plan() };
        let app = TestApp::with(On::Sqlite, plan).await;
        let row = sent_to(&app, "ann@example.com").await;
        assert_eq!(row.sent, sent, "{row:?}");
        assert!(sent || row.problem.contains("offers no STARTTLS"), "{row:?}");
        app.stop().await;
    }
}

/// Many emails go over one connection, and over new ones if the mail server takes one email per connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_used_for_many_emails() {
    for one_each in [false, true] {
        let server = Server::start("127.0.0.1", Script { one_each, ..Script::default() }).await;
        let plan = Plan { settings: server.settings("smtp", ""), ..plan() };
        let app = TestApp::with(On::Sqlite, plan).await;
        let mut change = app.app.change(&Actor::system()).await.unwrap();
        for _ in 0..20 {
            let content = Content::to("ann@example.com");
            mail::enqueue(&mut change, &HELLO, content).await.unwrap();
        }
        change.commit_quietly("a test sends emails").await.unwrap();
        let mut sent = 0;
        for _ in 0..1000 {
            let sql = "select count(*) from outbox where sent_at is not null and tries = 1";
            (sent,) = app.app.db.one(sql, args![]).await.unwrap();
            if sent == 20 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(sent, 20, "{one_each}");
        let opened = server.heard().iter().filter(|line| *line == "connected").count();
        assert_eq!(opened, if one_each { 20 } else { opened.min(4) });
        app.stop().await;
    }
}

/// Anyone can request a link from a server without mail. Its operator knows that, and needs no alarm.
#[tokio::test]
async fn without_mail_a_request_that_needs_it_is_no_error_in_the_log() {
    let settings = vec![
        ("server.environment", "production"),
        ("server.public_url", "https://app.example.com"),
        ("server.trusted_proxies", "192.0.2.0/24"),
        ("registration.email_verification", "off"),
    ];
    let app = TestApp::with(On::Sqlite, Plan { settings, ..plan() }).await;
    let log = Log::default();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    let listening = tracing::subscriber::set_default(lines);
    let body = json!({ "email": "ann@example.com" });
    let answer = app.anyone().post("/api/v1/auth/password/forgot", body).await;
    drop(listening);
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.raw);
    assert_eq!(answer.body["code"], "mail.off");
    assert!(!answer.headers.contains_key(RETRY_AFTER), "it doesn't pass");
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("code=\"mail.off\"") && !log.contains("ERROR"), "{log}");
    app.stop().await;
}
