//! Entry functions for fuzzing: they take any bytes and panic if an invariant does not hold.
//!
//! A fuzz target calls them, and so does a test here, with mutated good input.

use super::decode::Decoder;
use super::egress::{CheckedAddr, DEFAULT_PORTS, Egress};
use super::robots::{Check, Parser, Robots};
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
    fn bodies_keep_the_invariants() {
        let gzip =
            b"\x01\x1f\x8b\x08\0\0\0\0\0\0\x03\xcb\x48\xcd\xc9\xc9\x07\0\x86\xa6\x10\x36\x05\0\0\0";
        let zlib = b"\x02\x78\x9c\xcb\x48\xcd\xc9\xc9\x07\0\x06\x2c\x02\x15";
        let br = b"\x03\x0b\x02\x80hello\x03";
        let zstd = b"\x04\x28\xb5\x2f\xfd\x04\x00\x29\x00\x00hello\x4c\x8a\x9a\x63";
        run(&[gzip, zlib, br, zstd, b"\0plain"], fuzz_decode);
    }
}
