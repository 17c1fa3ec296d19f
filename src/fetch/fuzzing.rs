//! Entry functions for fuzzing: they take any bytes and panic if an invariant does not hold.
//!
//! A fuzz target calls them, and so does a test here, with mutated good input.

use super::decode::Decoder;
use super::egress::{CheckedAddr, DEFAULT_PORTS, Egress};
use super::pacing;
use super::proxy::{Destination, Proxy, ProxyDns};
use super::robots::{Check, Parser, Robots};
use super::robots_tag;
use super::target::Target;
use std::net::SocketAddr;

/// A path, a NUL, and a robots.txt: read in turns, asked in turns, the same as at once.
pub fn fuzz_robots(data: &[u8]) {
    let at = data.iter().position(|b| *b == 0).unwrap_or(0);
    let (path, file) = (String::from_utf8_lossy(&data[..at]), &data[at..]);
    let path = format!("/{}", path.trim_start_matches('/'));
    let mut parser = Parser::new(file);
    while !parser.step() {}
    let robots = parser.finish();
    assert_eq!(robots, Robots::read(file));
    assert!(robots.weight() <= 64 + file.len() * 16, "{} of {}", robots.weight(), file.len());
    for agent in ["", "*", "Forebay", "x"] {
        let mut check = Check::new(&robots, agent, &path);
        let allowed = loop {
            if let Some(allowed) = check.step(&robots) {
                break allowed;
            }
        };
        assert_eq!(allowed, robots.allows(agent, &path));
        let delay = robots.crawl_delay(agent);
        assert!(delay.is_none_or(|delay| delay <= crate::limits::CRAWL_DELAY_MAX));
    }
    assert!(robots.allows("x", "/robots.txt"));
}

/// Any text as a URL, and as a `Location`: what is taken reads the same again, can be written into a
/// request, and an address in it never passes the guard where the address alone does not.
pub fn fuzz_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let base = Target::parse("https://a.test/b/c?d").expect("a good URL");
    for target in [Target::parse(text), base.join(text)].into_iter().flatten() {
        assert_eq!(Target::parse(target.as_str()).as_ref(), Ok(&target), "it reads the same again");
        let graphic = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        assert!(graphic(target.path_and_query()) && graphic(&target.host_field()));
        assert!(target.path_and_query().starts_with('/') && !target.as_str().contains('#'));
        assert!(!target.host().is_empty() && target.origin().port > 0);
        let guard = Egress::new(&[], &[], &DEFAULT_PORTS).expect("no rules");
        match target.ip() {
            Some(ip) => {
                assert_eq!(target.host().parse(), Ok(ip), "one spelling");
                let addr = SocketAddr::new(ip, 80);
                let checked = guard.check(target.host(), addr);
                assert_eq!(checked.is_ok(), super::special::classify(ip).is_none());
                let very_one = |checked| checked == CheckedAddr::of_proxy(addr);
                assert!(checked.is_ok_and(very_one) || super::special::classify(ip).is_some());
            }
            // What a resolver could take for an address is never a name.
            None => {
                let last = target.host().rsplit('.').next().unwrap_or_default();
                let hex = last.strip_prefix("0x").unwrap_or("g");
                assert!(!last.bytes().all(|b| b.is_ascii_digit()), "{last}");
                assert!(!hex.bytes().all(|b| b.is_ascii_hexdigit()), "{last}");
            }
        }
    }
}

/// A byte that says which codings, and a body: cut anywhere it decodes to the same, within the caps.
pub fn fuzz_decode(data: &[u8]) {
    const CODINGS: [&str; 8] =
        ["", "gzip", "deflate", "br", "zstd", "gzip, br", "zstd, deflate", "identity, x-gzip"];
    const BYTES_MAX: u64 = 1 << 16;
    let Some((&first, body)) = data.split_first() else { return };
    let codings = CODINGS[usize::from(first) % CODINGS.len()];
    let run = |piece: usize, budget: usize| {
        let mut decoder = Decoder::new(codings, BYTES_MAX).expect("known codings");
        let mut out = Vec::new();
        for mut part in body.chunks(piece.max(1)) {
            loop {
                let before = out.len();
                let Ok(progress) = decoder.handle_input(part, &mut out, budget) else {
                    return None;
                };
                assert!(out.len() - before <= budget.saturating_add(16 * 1024));
                part = &part[progress.consumed..];
                if progress.drained {
                    break;
                }
            }
        }
        assert!(out.len() as u64 <= BYTES_MAX && decoder.decoded_bytes() == out.len() as u64);
        Some((out, decoder.handle_end().is_ok()))
    };
    let whole = run(body.len(), usize::MAX);
    assert_eq!(run(1 + body.len() / 3, 777), whole, "what a body is depends on how it was cut");
}

/// Lines as `Retry-After` and as `X-Robots-Tag`: a host can't ask for more than there is time, and who
/// says nothing forbids nothing.
pub fn fuzz_fields(data: &[u8]) {
    let lines: Vec<Vec<u8>> = data.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    for line in &lines {
        let text = String::from_utf8_lossy(line);
        let now = 1_800_000_000;
        let (early, late) = (pacing::retry_after(&text, 0), pacing::retry_after(&text, now));
        assert_eq!(early.is_some(), late.is_some(), "a date at any time");
        assert!(late <= early);
    }
    let tag = robots_tag::read(&lines, "forebay");
    let everything = data.to_ascii_lowercase();
    let says = |word: &[u8]| everything.windows(word.len()).any(|window| window == word);
    assert!(!tag.noindex || says(b"noindex") || says(b"none"));
    assert!(!tag.nofollow || says(b"nofollow") || says(b"none"));
}

/// A byte for the kind of a proxy, one for how its answer is cut, and its answer: any cut leads to the
/// same end, and what follows the handshake stays for the tunnel.
pub fn fuzz_proxy(data: &[u8]) {
    let Some((&[kind, step], answer)) = data.split_first_chunk() else { return };
    let url = ["http://p.test", "socks5://p.test", "socks5://u:w@p.test", "http://u:w@p.test:80"];
    let dns = if kind & 4 == 0 { ProxyDns::Local } else { ProxyDns::Remote };
    let proxy = Proxy::parse(url[usize::from(kind % 4)], dns).expect("a good proxy");
    let target = Target::parse("http://a.test/").expect("a good URL");
    assert_eq!(proxy.forwards(&target).is_some(), proxy.resolves() && kind % 4 % 3 == 0);
    assert!(proxy.host() == "p.test" && proxy.port() > 0);
    let to = match kind & 8 {
        0 => Destination::Addr(SocketAddr::from(([192, 0, 2, 1], 80))),
        _ => Destination::Name("a.test".to_owned(), 80),
    };
    let run = |step: usize| {
        let (mut handshake, mut inbox) = (proxy.handshake(to.clone()), Vec::new());
        let mut said = handshake.poll_transmit().unwrap_or_default();
        assert!(!said.is_empty(), "we speak first");
        for (at, piece) in answer.chunks(step).enumerate() {
            inbox.extend_from_slice(piece);
            loop {
                let before = inbox.len();
                match handshake.handle_bytes(&mut inbox) {
                    Ok(true) => {
                        let read = answer.len().min((at + 1) * step);
                        inbox.extend_from_slice(&answer[read..]);
                        return (said, Ok(Some(inbox)));
                    }
                    Ok(false) => said.extend(handshake.poll_transmit().unwrap_or_default()),
                    Err(error) => return (said, Err(error)),
                }
                if inbox.len() == before {
                    break;
                }
            }
        }
        (said, Ok(None))
    };
    let whole = run(answer.len().max(1));
    let pieces = run(usize::from(step) + 1);
    assert_eq!((&whole.0, whole.1.is_ok()), (&pieces.0, pieces.1.is_ok()), "in pieces");
    assert_eq!(whole.1.ok(), pieces.1.ok(), "what the tunnel begins with");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each seed as it is, cut everywhere, and with each byte replaced by ones that mean something.
    fn run(seeds: &[&[u8]], fuzz: fn(&[u8])) {
        for seed in seeds {
            for at in 0..=seed.len() {
                fuzz(&seed[..at]);
                for byte in [b'\0', b'\n', b':', b'*', b'$', b'%', b'/', b'@', b'.', b'0', 0xff] {
                    let mut changed = seed.to_vec();
                    changed.insert(at, byte);
                    fuzz(&changed);
                    if at < seed.len() {
                        changed.remove(at + 1);
                        fuzz(&changed);
                    }
                }
            }
        }
    }

    #[test]
    fn robots_files_keep_the_invariants() {
        run(
            &[
                b"/a/b?c\0User-agent: x\nAllow: /a*b$\nDisallow: /\n\nUser-agent: *\nCrawl-delay: 2",
                b"/%41\0user-agent:forebay/1\ndisallow: /%61\r\rsitemap: x\nallow: *.php$ # c",
            ],
            fuzz_robots,
        );
    }

    #[test]
    fn urls_keep_the_invariants() {
        run(
            &[
                b"http://a.test:8080/b/../c?d#e",
                b"https://[::ffff:127.0.0.1]:443/x",
                b"http://127.0.0.1/a%20b",
                "//bücher.test/ü".as_bytes(),
            ],
            fuzz_url,
        );
    }

    #[test]
    fn fields_keep_the_invariants() {
        run(
            &[
                b"120\nnoindex, nofollow",
                b"Sun, 06 Nov 1994 08:49:37 GMT\nforebay: none, max-snippet: 5",
                b"Wed, 01 Jan 1970 00:00:00 GMT\nother: noindex, forebay: nofollow",
            ],
            fuzz_fields,
        );
    }

    #[test]
    fn answers_of_proxies_keep_the_invariants() {
        run(
            &[
                b"\0\x02HTTP/1.1 200 OK\r\nA: b\r\n\r\ntunnel",
                b"\x03\0HTTP/1.0 407 No\r\n\r\n",
                b"\x01\x01\x05\0\x05\0\0\x01\x7f\0\0\x01\0\x50tunnel",
                b"\x0a\x01\x05\x02\x01\0\x05\0\0\x03\x01a\0\x50",
                b"\x05\x05\x05\0\x05\x04\0\x01\0\0\0\0\0\0",
            ],
            fuzz_proxy,
        );
    }

    #[test]
    fn bodies_keep_the_invariants() {
        let gzip =
            b"\x01\x1f\x8b\x08\0\0\0\0\0\0\x03\xcb\x48\xcd\xc9\xc9\x07\0\x86\xa6\x10\x36\x05\0\0\0";
        let zlib = b"\x02\x78\x9c\xcb\x48\xcd\xc9\xc9\x07\0\x06\x2c\x02\x15";
        let br = b"\x03\x0b\x02\x80hello\x03";
        let zstd = b"\x04\x28\xb5\x2f\xfd\x04\x00\x29\x00\x00hello\x4c\x8a\x9a\x63";
        run(&[gzip, zlib, br, zstd, b"\0plain"], fuzz_decode);
    }
}
