//! The connection to PostgreSQL under `verify-full`.

use palisade_db::testing::{Cluster, options};
use palisade_db::{Db, DbErrorKind, args};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn only_the_right_host_under_the_right_authority_is_trusted() {
    let (trusted, stranger) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &trusted)
        .unwrap();
    let settings = "ssl = on\nssl_cert_file = '../server.crt'\nssl_key_file = '../server.key'\n";
    let files = [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())];
    let files = files.each_ref().map(|(name, content)| (*name, content.as_str()));
    let cluster = Cluster::start_with(settings, &files);

    let directory = tempfile::tempdir().unwrap();
    let (right, wrong) = (directory.path().join("right"), directory.path().join("wrong"));
    std::fs::write(&right, trusted.pem()).unwrap();
    std::fs::write(&wrong, stranger.pem()).unwrap();
    let url = |host: &str, root: Option<&std::path::Path>| {
        let root = root.map_or(String::new(), |path| format!("&sslrootcert={}", path.display()));
        let port = cluster.port();
        format!("postgres://palisade@{host}:{port}/postgres?sslmode=verify-full{root}")
    };

    let db = Db::open(options(&url("localhost", Some(&right)))).await.unwrap();
    let encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    assert!(db.one::<(bool,)>(encrypted, args![]).await.unwrap().0);

    for (host, root) in
        [("localhost", Some(&*wrong)), ("localhost", None), ("127.0.0.1", Some(&*right))]
    {
        let refused = Db::open(options(&url(host, root))).await.err().unwrap();
        assert_eq!(refused.kind(), DbErrorKind::Unavailable, "{host} {root:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_under_verify_full() {
    let cluster = Cluster::start();
    let url = cluster.url().replace("127.0.0.1", "localhost") + "?sslmode=verify-full";
    assert!(Db::open(options(&url)).await.is_err());
}

#[tokio::test]
async fn less_than_verify_full_off_this_machine_is_refused_with_advice() {
    for mode in ["disable", "prefer", "require", "verify-ca"] {
        let url = format!("postgres://app@db.example/app?sslmode={mode}");
        let refused = Db::open(options(&url)).await.err().unwrap();
        assert_eq!(refused.kind(), DbErrorKind::Wrong);
        let said = refused.to_string();
        assert!(said.contains("sslmode=verify-full") && said.contains("sslrootcert"), "{said}");
    }
}
