//! Fetches through proxies: who is told what, and what the guard still sees.

use super::answers::ok;
use super::origin::Origin;
use super::trust::Trust;
use super::{PAGE, config, request};
use forebay::error::{PageCode, Stage};
use forebay::fetch::proxy::ProxyDns;
use forebay::fetch::{FetchConfig, FetchFailure, Fetched};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// `a.test` is public, `in.test` is private; the proxy's own name is loopback.
fn zone(name: &str, _: usize) -> Result<Vec<IpAddr>, String> {
    match name {
        "a.test" => Ok(vec![Ipv4Addr::new(93, 184, 216, 34).into()]),
        "in.test" => Ok(vec![Ipv4Addr::new(10, 0, 0, 1).into()]),
        "proxy.test" => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
        _ => Err("the name does not exist".to_owned()),
    }
}

fn fetch(proxy: String, dns: ProxyDns, url: &str) -> Result<Fetched, FetchFailure> {
    // Nothing is allowed but what is public: loopback is dialled for the proxy alone.
    let config = FetchConfig {
        egress_allow: Vec::new(),
        proxy: Some(proxy),
        proxy_dns: dns,
        connect_timeout: Duration::from_millis(800),
        tls_timeout: Duration::from_millis(300),
        ..config()
    };
    let url = url.to_owned();
    super::on_core(config, zone, |fetcher| async move { fetcher.fetch(&request(&url)).await })
}

/// A proxy that is its own origin: the heads that it saw.
fn http_proxy(answer: &'static str) -> (Origin, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    let origin = Origin::start(move |conn| {
        while let Some(head) = conn.try_request() {
            let connect = head.starts_with("CONNECT ");
            seen.lock().unwrap().push(head);
            conn.send(if connect { answer.as_bytes() } else { PAGE_ANSWER });
        }
    });
    (origin, heads)
}

const PAGE_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n<!doctype html><p>x";
const YES: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

#[test]
fn an_http_proxy_is_told_the_checked_address() {
    let (proxy, heads) = http_proxy(YES);
    let url = format!("http://me:secret@proxy.test:{}", proxy.port());
    assert_eq!(fetch(url, ProxyDns::Local, "http://a.test/x").unwrap().status, 200);
    let heads = heads.lock().unwrap();
    let connect = "CONNECT 93.184.216.34:80 HTTP/1.1\r\nHost: 93.184.216.34:80\r\n\
        Proxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n";
    assert_eq!(heads[0], connect);
    assert!(heads[1].starts_with("GET /x HTTP/1.1\r\nHost: a.test\r\n"), "{}", heads[1]);
    assert!(!heads[1].contains("Proxy-"), "the origin learns nothing of the proxy");
}

#[test]
fn a_proxy_that_resolves_forwards_http_and_tunnels_https() {
    let (proxy, heads) = http_proxy(YES);
    let url = format!("http://me:pw@127.0.0.1:{}", proxy.port());
    assert_eq!(fetch(url.clone(), ProxyDns::Remote, "http://b.test/x?y").unwrap().status, 200);
    let failed = fetch(url, ProxyDns::Remote, "https://b.test/").unwrap_err();
    assert_eq!((failed.error.code, failed.error.stage), (PageCode::ConnectTimeout, Stage::Tls));
    let heads = heads.lock().unwrap();
    let forwarded = "GET http://b.test/x?y HTTP/1.1\r\nHost: b.test\r\n";
    assert!(heads[0].starts_with(forwarded), "{}", heads[0]);
    assert!(heads[0].contains("\r\nProxy-Authorization: Basic bWU6cHc=\r\n"), "{}", heads[0]);
    assert!(heads[1].starts_with("CONNECT b.test:443 HTTP/1.1\r\n"), "{}", heads[1]);
}

#[test]
fn the_guard_stands_before_the_proxy() {
    let (proxy, heads) = http_proxy(YES);
    let url = format!("http://127.0.0.1:{}", proxy.port());
    for (dns, target) in [
        (ProxyDns::Local, "http://in.test/"),
        (ProxyDns::Local, "http://10.0.0.1/"),
        (ProxyDns::Local, "http://localhost/"),
        (ProxyDns::Remote, "http://10.0.0.1/"),
        (ProxyDns::Remote, "http://[::ffff:169.254.169.254]/"),
        (ProxyDns::Remote, "http://localhost/"),
        (ProxyDns::Remote, "http://x.localhost/"),
        (ProxyDns::Remote, "http://b.test:22/"),
    ] {
        let failed = fetch(url.clone(), dns, target).unwrap_err();
        assert_eq!(failed.error.code, PageCode::BlockedEgress, "{target}");
    }
    assert!(heads.lock().unwrap().is_empty());
}

#[test]
fn a_proxy_that_does_not_play_along_is_connect_failed() {
    for (answer, code) in [
        ("HTTP/1.1 407 Login\r\n\r\n", PageCode::ConnectFailed),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", PageCode::ConnectFailed),
        ("SSH-2.0-x\r\n", PageCode::ConnectFailed),
        ("HTTP/1.1 200 OK\r\n\r\nmore", PageCode::ConnectFailed),
        ("HTTP/1.1 200 OK\r\n", PageCode::ConnectTimeout),
    ] {
        let (proxy, _) = http_proxy(answer);
        let url = format!("http://127.0.0.1:{}", proxy.port());
        let failed = fetch(url, ProxyDns::Local, "http://a.test/").unwrap_err();
        assert_eq!((failed.error.code, failed.error.stage), (code, Stage::Connect), "{answer}");
    }
    let gone = fetch("socks5://127.0.0.1:1".to_owned(), ProxyDns::Local, "http://a.test/");
    assert_eq!(gone.unwrap_err().error.code, PageCode::ConnectFailed);
    let lost = fetch("socks5://no.test".to_owned(), ProxyDns::Local, "http://a.test/");
    assert_eq!(lost.unwrap_err().error.code, PageCode::ConnectFailed);
}

#[test]
fn socks5_carries_both_kinds_of_names_and_tls() {
    let proxy = Origin::start(|conn| {
        assert_eq!(conn.take(4), [5, 2, 0, 2]);
        conn.send(&[5, 2]);
        assert_eq!(conn.take(6), b"\x01\x02me\x01p");
        conn.send(&[1, 0]);
        let start = conn.take(4);
        assert_eq!(start[..3], [5, 1, 0]);
        match start[3] {
            1 => assert_eq!(conn.take(6), [93, 184, 216, 34, 0, 80]),
            3 => assert_eq!(conn.take(9), b"\x06a.test\0\x50"),
            kind => panic!("{kind}"),
        }
        conn.send(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let head = conn.request();
        assert!(head.starts_with("GET / HTTP/1.1\r\nHost: a.test\r\n"), "{head}");
        conn.send(&ok("", PAGE));
    });
    let url = format!("socks5://me:p@127.0.0.1:{}", proxy.port());
    for dns in [ProxyDns::Local, ProxyDns::Remote] {
        assert_eq!(fetch(url.clone(), dns, "http://a.test/").unwrap().body, PAGE);
    }
}

/// The tunnel's end is the origin's: its certificate counts, and nothing of the proxy's.
#[test]
fn tls_is_made_with_the_origin_through_the_tunnel() {
    let trust = Trust::new();
    let server = trust.good("a.test").server(&[]);
    let proxy = Origin::start_behind(
        |tcp| {
            use std::io::{Read, Write};
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                tcp.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            assert!(head.starts_with(b"CONNECT 93.184.216.34:443 "));
            tcp.write_all(YES.as_bytes()).unwrap();
        },
        server,
        |conn| {
            if conn.try_request().is_some() {
                conn.send(&ok("", PAGE));
            }
        },
    );
    let config = FetchConfig {
        egress_allow: Vec::new(),
        tls_ca_files: vec![trust.ca_file()],
        proxy: Some(format!("http://127.0.0.1:{}", proxy.port())),
        ..config()
    };
    let page = super::on_core(config, zone, |fetcher| async move {
        fetcher.fetch(&request("https://a.test/")).await
    });
    assert_eq!(page.unwrap().body, PAGE);
}
