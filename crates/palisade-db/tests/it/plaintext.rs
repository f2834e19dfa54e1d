//! Networks in which a server is reached without TLS.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use palisade_db::testing::{Cluster, options};
use palisade_db::{Db, DbErrorKind, Options, args};

use crate::outage::set;
use crate::transactions::{insert, with_numbers};

/// A host name, as far as the rules for URLs are concerned. It leads to 127.0.0.1.
const HOST: &str = "127.1";

const RULES: &str = "\
    host all palisade all trust\n\
    host all plain all password\n\
    host all old all md5\n\
    host all trusted all trust\n\
    host all all all scram-sha-256\n";

async fn cluster() -> Cluster {
    let cluster = Cluster::start_with("", &[("pg_hba.conf", RULES)]);
    for role in [
        "create role app login superuser password 'pw'",
        "create role plain login superuser password 'pw'",
        "create role trusted login superuser",
        "set password_encryption = md5; create role old login superuser password 'pw'",
    ] {
        set(&cluster, role).await;
    }
    cluster
}

fn in_network(cluster: &Cluster, role: &str, host: &str, network: &str) -> Options {
    let port = cluster.port();
    let url = format!("postgres://{role}:pw@{host}:{port}/postgres?sslmode=disable");
    Options { plaintext_networks: vec![network.parse().unwrap()], ..options(&url) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_a_named_network_is_reached_without_tls() {
    let cluster = cluster().await;
    let db = Db::open(in_network(&cluster, "app", HOST, "127.0.0.0/8")).await.unwrap();
    with_numbers(&db).await;
    for number in 0..20 {
        insert(&db, number).await;
    }
    let long = "select repeat('x', 3000000)";
    assert_eq!(db.one::<(String,)>(long, args![]).await.unwrap().0.len(), 3_000_000);
    cluster.stop();
    let gone = db.one::<(i64,)>("select n from numbers", args![]).await.unwrap_err();
    assert_eq!(gone.kind(), DbErrorKind::Unavailable, "{gone:?}");
    let gone = Db::open(in_network(&cluster, "app", HOST, "127.0.0.0/8")).await.err().unwrap();
    assert_eq!(gone.kind(), DbErrorKind::Unavailable, "{gone:?}");
    let cause = std::error::Error::source(&gone).unwrap().to_string();
    assert!(cause.contains("refused"), "{cause}");
    cluster.start_again();
    while db.begin().await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // Migrations too go through a role that is reached in this way.
    let role = in_network(&cluster, "app", HOST, "127.0.0.0/8");
    let db = Db::open(Options {
        migrate_url: Some(role.url.clone()),
        schema: Some("app".into()),
        ..role
    });
    with_numbers(&db.await.unwrap()).await;
}

#[tokio::test]
async fn a_name_that_leads_out_of_the_networks_is_not_reached() {
    let cluster = cluster().await;
    for network in ["10.0.0.0/8", "127.0.0.2/32", "::1/128"] {
        let refused = Db::open(in_network(&cluster, "app", HOST, network)).await.err().unwrap();
        assert_eq!(refused.kind(), DbErrorKind::Wrong, "{refused:?}");
        assert!(refused.to_string().contains("database.plaintext_networks"), "{refused}");
    }
    let without = Options {
        plaintext_networks: Vec::new(),
        ..in_network(&cluster, "app", HOST, "10.0.0.0/8")
    };
    assert!(Db::open(without).await.err().unwrap().to_string().contains("verify-full"));
}

#[tokio::test]
async fn a_server_that_asks_for_the_password_itself_is_refused() {
    let cluster = cluster().await;
    for role in ["plain", "old", "trusted"] {
        let refused =
            Db::open(in_network(&cluster, role, HOST, "127.0.0.0/8")).await.err().unwrap();
        assert_eq!(refused.kind(), DbErrorKind::Wrong, "{role}: {refused:?}");
        assert!(refused.to_string().contains("SCRAM"), "{role}: {refused}");
        // The role itself works.
        Db::open(in_network(&cluster, role, "127.0.0.1", "127.0.0.0/8")).await.unwrap();
    }
    let wrong = in_network(&cluster, "app", HOST, "127.0.0.0/8");
    let wrong = Options { url: wrong.url.replace(":pw@", ":other@"), ..wrong };
    let refused = Db::open(wrong).await.err().unwrap();
    assert!(refused.to_string().contains("refuses the user or the password"), "{refused}");
}

/// Someone in the network who inserts a message after the server has accepted the client. Returns the port, and what
/// the client sends.
fn intruder(cluster: &Cluster, inserted: &'static [u8]) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = cluster.port();
    let sent = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", to)).unwrap();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (mut from_client, mut to_server) =
            (client.try_clone().unwrap(), server.try_clone().unwrap());
        let heard = Arc::clone(&sent);
        let out = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from_client.read(&mut buffer) {
                heard.lock().unwrap().extend_from_slice(&buffer[..length]);
                if to_server.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            let _ = to_server.shutdown(Shutdown::Both);
        });
        let mut header = [0; 5];
        while server.read_exact(&mut header).is_ok() {
            let length = u32::from_be_bytes(header[1..].try_into().unwrap());
            let mut body = vec![0; usize::try_from(length).unwrap() - 4];
            if server.read_exact(&mut body).is_err() {
                break;
            }
            let mut message = [&header[..], &body].concat();
            if message == b"R\0\0\0\x08\0\0\0\0" {
                message.extend_from_slice(inserted);
            }
            if client.write_all(&message).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
        out.join().unwrap();
        sent.lock().unwrap().clone()
    });
    (port, sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_the_password_after_the_login_is_refused() {
    let cluster = cluster().await;
    for (inserted, answer) in
        [(&b"R\0\0\0\x08\0\0\0\x03"[..], &b"pw\0"[..]), (b"R\0\0\0\x0c\0\0\0\x05salt", b"md5")]
    {
        let (port, sent) = intruder(&cluster, inserted);
        let wanted = in_network(&cluster, "app", HOST, "127.0.0.0/8");
        let url = wanted.url.replace(&format!(":{}/", cluster.port()), &format!(":{port}/"));
        let refused = Db::open(Options { url, ..wanted }).await.err().unwrap();
        assert!(refused.to_string().contains("SCRAM"), "{refused}");
        let sent = sent.join().unwrap();
        assert!(sent.windows(2).any(|bytes| bytes == b",p"), "no proof was sent");
        assert!(!sent.windows(3).any(|bytes| bytes == answer), "the password was sent");
    }
}
