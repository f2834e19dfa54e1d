//! A pgbouncer in front of a cluster.

use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::Cluster;
use super::cluster::{free_port, unprivileged_shell};

/// A pgbouncer on a free loopback port, without passwords. Stopped when dropped.
pub struct Pooler {
    port: u16,
    shell: Child,
}

impl Pooler {
    /// Starts a pgbouncer in front of a cluster, in a `pool_mode` and with further lines of settings.
    ///
    /// # Panics
    /// Panics if pgbouncer is not installed or does not start.
    pub fn start(cluster: &Cluster, pool_mode: &str, settings: &str) -> Self {
        let port = free_port();
        let configuration = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=palisade\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {pool_mode}\n{settings}",
            cluster.port()
        );
        let shell = unprivileged_shell()
            .args(["-c", include_str!("pooler.sh"), "pooler", &configuration])
            .stdin(Stdio::piped())
            .current_dir("/")
            .spawn()
            .expect("a shell can be started");
        let pooler = Self { port, shell };
        let mut tries = 0;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            tries += 1;
            assert!(tries < 500, "these tests need pgbouncer: apt-get install pgbouncer");
            std::thread::sleep(Duration::from_millis(20));
        }
        pooler
    }

    /// Returns the URL of the database `postgres`, through the pooler.
    pub fn url(&self) -> String {
        format!("postgres://palisade@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Waits only to leave no zombie: the shell stops the pooler in any case.
        let _ = self.shell.wait();
    }
}
