//! The forms of addresses that hosting providers give out, on real servers.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use palisade_db::testing::{Cluster, options};
use palisade_db::{Db, args};

use crate::transactions::{insert, with_numbers};

#[tokio::test]
async fn a_socket_is_reached_in_every_form_of_its_address() {
    let directory = tempfile::Builder::new().prefix("p:r:i").tempdir().unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let path = directory.path().display().to_string();
    let cluster = Cluster::start_with(&format!("unix_socket_directories = '{path}'\n"), &[]);
    let escaped = path.replace('/', "%2F").replace(':', "%3A");
    let port = cluster.port();
    for url in [
        format!("postgresql://palisade:pw@/postgres?host={path}&port={port}"),
        format!("postgresql://palisade:pw@:{port}/postgres?host={path}"),
        format!("postgresql+psycopg://palisade:pw@/postgres?host={escaped}&port={port}"),
        format!("postgres://palisade@{escaped}:{port}/postgres?sslmode=disable"),
        format!("postgres:///postgres?host={path}&port={port}&user=palisade"),
    ] {
        let db = Db::open(options(&url)).await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        let by_socket = "select inet_client_addr() is null";
        assert!(db.one::<(bool,)>(by_socket, args![]).await.unwrap().0, "{url}");
    }
}

#[tokio::test]
async fn a_password_with_every_character_is_taken_and_a_driver_too() {
    let cluster = Cluster::start_with(
        "",
        &[("pg_hba.conf", "host all palisade all trust\nhost all all all scram-sha-256\n")],
    );
    let admin = Db::open(options(&cluster.url())).await.unwrap();
    with_numbers(&admin).await;
    let mut tx = admin.begin().await.unwrap();
    tx.run("create role \"a+b\" login superuser password 'p@ss/w#rd?:%+&= 1'", args![])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let port = cluster.port();
    let url = |password: &str| {
        format!("postgresql+asyncpg://a%2Bb:{password}@127.0.0.1:{port}/postgres?connect_timeout=5")
    };
    let db = Db::open(options(&url("p%40ss%2Fw%23rd%3F:%25+&=%201"))).await.unwrap();
    insert(&db, 1).await;
    assert!(Db::open(options(&url("wrong"))).await.is_err());
}
