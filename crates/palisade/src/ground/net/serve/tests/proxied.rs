//! The PROXY protocol in front of TLS and HTTP.

use super::*;

/// The proxy. Any other IP address is a stranger's.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\n";
/// From 192.0.2.8:4660.
const BINARY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\xc6\x33\x64\x01\x12\x34\x01\xbb";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn behind_proxy() -> Limits {
    Limits { proxy_protocol: Some(Arc::new(|ip| ip == PROXY)), ..quick() }
}

/// What a peer gets that sends these bytes at once.
async fn answered(server: &Running, from: Ipv4Addr, pieces: &[&[u8]]) -> String {
    let mut client = server.connect_from(from).await.unwrap();
    write(&mut client, &pieces.concat()).await;
    client.shutdown().await.unwrap();
    read_to_end(&mut client).await
}

#[tokio::test]
async fn the_client_that_a_trusted_proxy_names_is_the_peer() {
    let server = Running::start(behind_proxy()).await;
    for (header, client) in [(LINE, "192.0.2.7:4660"), (BINARY, "192.0.2.8:4660")] {
        let answer = answered(&server, PROXY, &[header, GET, GET]).await;
        assert_eq!(answer.matches(&format!("{client} tls=false")).count(), 2, "{answer}");
    }
    for unnamed in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        let answer = answered(&server, PROXY, &[unnamed, GET]).await;
        assert!(answer.contains("127.0.0.3:"), "{answer}");
    }
    let mut client = server.connect_from(PROXY).await.unwrap();
    write(&mut client, LINE).await;
    assert_eq!(get_h2(client).await, "192.0.2.7:4660 tls=false");
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let certified = Certified::new();
    let server =
        Running::start_with(behind_proxy(), Some(certified.load().unwrap().config())).await;
    for header in [LINE, BINARY] {
        for protocol in [&b"http/1.1"[..], b"h2"] {
            let mut stream = server.connect_from(PROXY).await.unwrap();
            write(&mut stream, header).await;
            let mut client = certified.over(stream, protocol).await;
            let answer = if protocol == b"h2" {
                get_h2(client).await
            } else {
                write(&mut client, GET).await;
                read_answer(&mut client).await
            };
            assert!(answer.ends_with(":4660 tls=true"), "{answer}");
        }
    }
    // Plain HTTP after the header is refused as it is without one, and so is what has no header at all.
    for pieces in [&[LINE, GET][..], &[GET]] {
        let answer = answered(&server, PROXY, pieces).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let bare = server.connect_from(PROXY).await.unwrap();
    assert!(certified.try_over(bare, b"h2").await.is_err());
    let direct = server.connect_from(STRANGER).await.unwrap();
    assert!(get_h2(certified.over(direct, b"h2").await).await.starts_with("127.0.0.2:"));
}

#[tokio::test]
async fn a_header_from_anyone_else_is_no_header() {
    let certified = Certified::new();
    let behind = Running::start(behind_proxy()).await;
    let open = Running::start(quick()).await;
    let secure =
        Running::start_with(behind_proxy(), Some(certified.load().unwrap().config())).await;
    for (server, from) in [(&behind, STRANGER), (&open, STRANGER), (&open, PROXY)] {
        for header in [LINE, BINARY, LOCAL] {
            let answer = answered(server, from, &[header, GET]).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
            assert!(answer.ends_with("request.malformed"), "{answer}");
        }
        // Without it, the peer is who it is.
        let mut client = server.connect_from(from).await.unwrap();
        write(&mut client, GET).await;
        let own = client.local_addr().unwrap().to_string();
        assert!(read_answer(&mut client).await.contains(&own));
    }
    let answer = answered(&secure, STRANGER, &[LINE, GET]).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(!answered(&secure, STRANGER, &[BINARY, GET]).await.contains("200"));
}

#[tokio::test]
async fn a_proxy_without_a_valid_header_is_refused() {
    let server = Running::start(behind_proxy()).await;
    for bare in [GET, b"POST / HTTP/1.1\r\nHost: here\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let answer = answered(&server, PROXY, &[bare]).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.ends_with("request.malformed"), "{answer}");
    }
    for broken in [
        &b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\n"[..],
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 443 PROXY TCP4 192.0.2.7 198.51.100.1 4660 443 and so on and so forth\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c\xc0\0\x02\x08\xc6\x33\x64\x01\x12\x34\x01\xbb",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\r\n",
    ] {
        assert_eq!(answered(&server, PROXY, &[broken, GET]).await, "", "{broken:?}");
    }
}

#[tokio::test]
async fn a_second_header_is_part_of_the_request() {
    let server = Running::start(behind_proxy()).await;
    for first in [LINE, BINARY, LOCAL] {
        let answer = answered(&server, PROXY, &[first, LINE, GET]).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
}

#[tokio::test]
async fn a_header_has_a_deadline_however_it_drips() {
    let server = Running::start(behind_proxy()).await;
    for header in [LINE, BINARY, b""] {
        let began = Instant::now();
        let mut client = server.connect_from(PROXY).await.unwrap();
        let (mut reader, mut writer) = client.split();
        let drip = async {
            for byte in header.iter().take(header.len().saturating_sub(1)) {
                if writer.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sleep(Duration::from_millis(15)).await;
            }
            pending::<()>().await;
        };
        tokio::select! {
            () = drip => {}
            answer = read_to_end(&mut reader) => assert_eq!(answer, ""),
        }
        assert!(began.elapsed() >= Duration::from_millis(290), "cut too early");
        assert!(began.elapsed() < Duration::from_secs(2), "cut too late");
    }
}

#[tokio::test]
async fn a_client_behind_the_proxy_protocol_has_a_share_of_its_own() {
    let server = Running::start(Limits { connections_per_ip: 1, ..behind_proxy() }).await;
    let connect = async |header: &[u8]| {
        let mut client = server.connect_from(PROXY).await.unwrap();
        write(&mut client, header).await;
        let _ = client.write_all(GET).await;
        client
    };
    let mut first = connect(LINE).await;
    assert!(read_answer(&mut first).await.starts_with("HTTP/1.1 200"));
    assert_eq!(read_to_end(&mut connect(LINE).await).await, "");
    // Others are served, and so are the proxy's own checks.
    for header in [BINARY, LOCAL, LOCAL] {
        assert!(read_answer(&mut connect(header).await).await.starts_with("HTTP/1.1 200"));
    }
    drop(first);
    let again = timeout(LONG, async {
        while !read_answer(&mut connect(LINE).await).await.starts_with("HTTP/1.1 200") {
            sleep(Duration::from_millis(5)).await;
        }
    });
    again.await.expect("the seat of a closed connection was not released");
}

#[tokio::test]
async fn a_stop_waits_for_no_header() {
    let limits = Limits { tls_handshake_timeout: LONG, ..behind_proxy() };
    let mut server = Running::start(limits).await;
    let mut silent = server.connect_from(PROXY).await.unwrap();
    write(&mut silent, b"PROXY ").await;
    sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    server.stop();
    assert_eq!(server.drained().await, Drained::Finished);
    assert!(began.elapsed() < Duration::from_secs(2));
}
