#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use proptest::prelude::*;

fn guard(allow: &[&str], deny: &[&str]) -> Egress {
    let own = |rules: &[&str]| rules.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>();
    Egress::new(&own(allow), &own(deny), &DEFAULT_PORTS).unwrap()
}

fn check(guard: &Egress, host: &str, ip: &str, port: u16) -> Result<CheckedAddr, Refusal> {
    guard.check(host, SocketAddr::new(ip.parse().unwrap(), port))
}

/// Each range's first and last address, a middle one where it says something, and both neighbours
/// where they are public: "" stands for "globally routable".
const TABLE: &[(&str, &str)] = &[
    ("0.0.0.0", "this host, RFC 791"),
    ("0.0.0.1", "this host, RFC 791"),
    ("0.255.255.255", "this host, RFC 791"),
    ("1.0.0.0", ""),
    ("1.1.1.1", ""),
    ("8.8.8.8", ""),
    ("9.255.255.255", ""),
    ("10.0.0.0", "private, RFC 1918"),
    ("10.0.0.1", "private, RFC 1918"),
    ("10.255.255.255", "private, RFC 1918"),
    ("11.0.0.0", ""),
    ("93.184.216.34", ""),
    ("100.63.255.255", ""),
    ("100.64.0.0", "carrier-grade NAT, RFC 6598"),
    ("100.100.100.199", "carrier-grade NAT, RFC 6598"),
    ("100.100.100.200", "cloud metadata, RFC 6598"),
    ("100.127.255.255", "carrier-grade NAT, RFC 6598"),
    ("100.128.0.0", ""),
    ("126.255.255.255", ""),
    ("127.0.0.0", "loopback, RFC 1122"),
    ("127.0.0.1", "loopback, RFC 1122"),
    ("127.1.2.3", "loopback, RFC 1122"),
    ("127.255.255.255", "loopback, RFC 1122"),
    ("128.0.0.0", ""),
    ("168.63.129.15", ""),
    ("168.63.129.16", "cloud metadata, Azure WireServer"),
    ("168.63.129.17", ""),
    ("169.253.255.255", ""),
    ("169.254.0.0", "link-local, RFC 3927"),
    ("169.254.169.253", "link-local, RFC 3927"),
    ("169.254.169.254", "cloud metadata, RFC 3927"),
    ("169.254.170.2", "cloud metadata, RFC 3927"),
    ("169.254.255.255", "link-local, RFC 3927"),
    ("169.255.0.0", ""),
    ("172.15.255.255", ""),
    ("172.16.0.0", "private, RFC 1918"),
    ("172.17.0.1", "private, RFC 1918"),
    ("172.31.255.255", "private, RFC 1918"),
    ("172.32.0.0", ""),
    ("191.255.255.255", ""),
    ("192.0.0.0", "protocol assignments, RFC 6890"),
    ("192.0.0.9", "protocol assignments, RFC 6890"),
    ("192.0.0.170", "protocol assignments, RFC 6890"),
    ("192.0.0.192", "cloud metadata, RFC 6890"),
    ("192.0.0.255", "protocol assignments, RFC 6890"),
    ("192.0.1.0", ""),
    ("192.0.2.0", "documentation, RFC 5737"),
    ("192.0.2.255", "documentation, RFC 5737"),
    ("192.0.3.0", ""),
    ("192.31.196.1", "AS112, RFC 7535"),
    ("192.52.193.1", "AMT, RFC 7450"),
    ("192.88.98.255", ""),
    ("192.88.99.0", "6to4 relay, RFC 7526"),
    ("192.88.99.1", "6to4 relay, RFC 7526"),
    ("192.88.100.0", ""),
    ("192.167.255.255", ""),
    ("192.168.0.0", "private, RFC 1918"),
    ("192.168.1.1", "private, RFC 1918"),
    ("192.168.255.255", "private, RFC 1918"),
    ("192.169.0.0", ""),
    ("192.175.48.1", "AS112, RFC 7534"),
    ("198.17.255.255", ""),
    ("198.18.0.0", "benchmarking, RFC 2544"),
    ("198.19.255.255", "benchmarking, RFC 2544"),
    ("198.20.0.0", ""),
    ("198.51.99.255", ""),
    ("198.51.100.0", "documentation, RFC 5737"),
    ("198.51.100.255", "documentation, RFC 5737"),
    ("198.51.101.0", ""),
    ("203.0.112.255", ""),
    ("203.0.113.0", "documentation, RFC 5737"),
    ("203.0.113.255", "documentation, RFC 5737"),
    ("203.0.114.0", ""),
    ("223.255.255.255", ""),
    ("224.0.0.0", "multicast, RFC 5771"),
    ("224.0.0.251", "multicast, RFC 5771"),
    ("233.252.0.1", "multicast, RFC 5771"),
    ("239.255.255.255", "multicast, RFC 5771"),
    ("240.0.0.0", "reserved or broadcast, RFC 1112"),
    ("255.255.255.254", "reserved or broadcast, RFC 1112"),
    ("255.255.255.255", "reserved or broadcast, RFC 1112"),
    ("::", "unspecified, RFC 4291"),
    ("::1", "loopback, RFC 4291"),
    ("::2", "IPv4-compatible, RFC 4291 holding 0.0.0.2"),
    ("::127.0.0.1", "IPv4-compatible, RFC 4291 holding 127.0.0.1"),
    ("::8.8.8.8", "IPv4-compatible, RFC 4291"),
    ("::ffff:0.0.0.0", "IPv4-mapped, RFC 4291 holding 0.0.0.0"),
    ("::ffff:127.0.0.1", "IPv4-mapped, RFC 4291 holding 127.0.0.1"),
    ("::ffff:169.254.169.254", "IPv4-mapped, RFC 4291 holding 169.254.169.254"),
    ("::ffff:10.0.0.1", "IPv4-mapped, RFC 4291 holding 10.0.0.1"),
    ("::ffff:8.8.8.8", "IPv4-mapped, RFC 4291"),
    ("::ffff:0:127.0.0.1", "IPv4-translated, RFC 2765 holding 127.0.0.1"),
    ("::ffff:0:8.8.8.8", "IPv4-translated, RFC 2765"),
    ("::1:0:0:0", "unallocated, RFC 4291"),
    ("64:ff9b::7f00:1", "NAT64, RFC 6052 holding 127.0.0.1"),
    ("64:ff9b::a9fe:a9fe", "NAT64, RFC 6052 holding 169.254.169.254"),
    ("64:ff9b::808:808", "NAT64, RFC 6052"),
    ("64:ff9b:0:0:0:1::", "unallocated, RFC 4291"),
    ("64:ff9b:1::", "local-use NAT64, RFC 8215 holding 0.0.0.0"),
    ("64:ff9b:1::c0a8:1", "local-use NAT64, RFC 8215 holding 192.168.0.1"),
    ("64:ff9b:1:ffff:ffff:ffff:808:808", "local-use NAT64, RFC 8215 holding 255.255.255.255"),
    ("64:ff9b:2::", "unallocated, RFC 4291"),
    ("100::", "discard-only, RFC 6666"),
    ("100::ffff:ffff:ffff:ffff", "discard-only, RFC 6666"),
    ("100:0:0:1::", "dummy prefix, RFC 9780"),
    ("100:0:0:2::", "reserved, RFC 4291"),
    ("200::1", "NSAP, RFC 4048"),
    ("400::1", "unallocated, RFC 4291"),
    ("1fff:ffff::", "unallocated, RFC 4291"),
    ("2000::", ""),
    ("2001::", "Teredo, RFC 4380 holding 255.255.255.255"),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo, RFC 4380 holding 192.0.2.45"),
    ("2001:0:4136:e378:8000:63bf:80ff:fffe", "Teredo, RFC 4380 holding 127.0.0.1"),
    ("2001:1::1", "protocol assignments, RFC 2928"),
    ("2001:2::", "benchmarking, RFC 5180"),
    ("2001:2:0:ffff::1", "benchmarking, RFC 5180"),
    ("2001:3::1", "AMT, RFC 7450"),
    ("2001:4:112::1", "AS112, RFC 7535"),
    ("2001:10::1", "ORCHID, RFC 4843"),
    ("2001:1f:ffff::", "ORCHID, RFC 4843"),
    ("2001:20::1", "ORCHIDv2, RFC 7343"),
    ("2001:2f:ffff::", "ORCHIDv2, RFC 7343"),
    ("2001:30::1", "DRIP, RFC 9374"),
    ("2001:1ff:ffff::", "protocol assignments, RFC 2928"),
    ("2001:200::", ""),
    ("2001:4860:4860::8888", ""),
    ("2001:db7:ffff::", ""),
    ("2001:db8::", "documentation, RFC 3849"),
    ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "documentation, RFC 3849"),
    ("2001:db9::", ""),
    ("2002::", "6to4, RFC 3056 holding 0.0.0.0"),
    ("2002:7f00:1::1", "6to4, RFC 3056 holding 127.0.0.1"),
    ("2002:a9fe:a9fe::", "6to4, RFC 3056 holding 169.254.169.254"),
    ("2002:808:808::1", "6to4, RFC 3056"),
    ("2003::", ""),
    ("2606:2800:220:1:248:1893:25c8:1946", ""),
    ("2620:4f:8000::1", "AS112, RFC 7534"),
    ("2620:4f:8001::1", ""),
    ("2a00:1450:4001:80b::200e", ""),
    ("2a00:1450::5efe:10.0.0.1", "ISATAP, RFC 5214 holding 10.0.0.1"),
    ("2a00:1450::200:5efe:127.0.0.1", "ISATAP, RFC 5214 holding 127.0.0.1"),
    ("2a00:1450::5efe:8.8.8.8", ""),
    ("3ffe::1", "6bone, RFC 3701"),
    ("3fff::", "documentation, RFC 9637"),
    ("3fff:fff:ffff::", "documentation, RFC 9637"),
    ("3fff:1000::", ""),
    ("4000::", "unallocated, RFC 4291"),
    ("5f00::", "SRv6 SIDs, RFC 9602"),
    ("5f00:ffff::1", "SRv6 SIDs, RFC 9602"),
    ("8000::1", "unallocated, RFC 4291"),
    ("fbff::1", "unallocated, RFC 4291"),
    ("fc00::", "unique local, RFC 4193"),
    ("fd00:ec2::254", "cloud metadata, RFC 4193"),
    ("fd20:ce::254", "cloud metadata, RFC 4193"),
    ("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "unique local, RFC 4193"),
    ("fe00::1", "unallocated, RFC 4291"),
    ("fe80::", "link-local, RFC 4291"),
    ("fe80::a9fe:a9fe", "link-local, RFC 4291"),
    ("febf:ffff::", "link-local, RFC 4291"),
    ("fec0::1", "site-local, RFC 3879"),
    ("feff:ffff::", "site-local, RFC 3879"),
    ("ff00::", "multicast, RFC 4291"),
    ("ff02::1", "multicast, RFC 4291"),
    ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast, RFC 4291"),
];

#[test]
fn every_special_range_is_refused_by_its_name_and_its_neighbours_are_not() {
    const { assert!(TABLE.len() >= 120) };
    let guard = guard(&[], &[]);
    for &(ip, class) in TABLE {
        let verdict = check(&guard, "name.test", ip, 443);
        if class.is_empty() {
            assert!(verdict.is_ok(), "{ip} is globally routable: {verdict:?}");
            continue;
        }
        let by_name = verdict.expect_err(ip).to_string();
        let message = check(&guard, ip, ip, 443).expect_err(ip).to_string();
        let shown: IpAddr = ip.parse().unwrap();
        let expected = match class.split_once(" holding ") {
            None => format!("{shown} is not globally routable ({class})"),
            Some((class, inner)) => format!(
                "{shown} is not globally routable ({class}); inside it, {inner} is not globally"
            ),
        };
        assert!(message.starts_with(&expected), "{message}, expected {expected}");
        assert_eq!(message.contains("inside it"), class.contains(" holding "), "{message}");
        // A name's address is not told, only what kind it is.
        let class = class.split(" holding ").next().unwrap();
        let expected = format!("an address of name.test is not globally routable ({class})");
        assert!(by_name.starts_with(&expected), "{by_name}, expected {expected}");
        let told = by_name.split([' ', ',', ';', '(', ')']).any(|w| w.parse::<IpAddr>().is_ok());
        assert!(!told, "{by_name}");
    }
}

#[test]
fn a_rule_that_denies_a_names_address_does_not_tell_it() {
    let guard = guard(&[], &["8.8.8.0/24"]);
    let told = |host| check(&guard, host, "8.8.8.8", 443).unwrap_err().to_string();
    assert_eq!(told("8.8.8.8"), "8.8.8.8 is refused by egress.deny");
    assert_eq!(told("a.test"), "an address of a.test is refused by egress.deny");
}

#[test]
fn an_address_of_the_networks_own_nat64_is_what_it_is_translated_to() {
    let nat64 = |prefixes: &[&str], allow: &[&str]| {
        let texts: Vec<String> = prefixes.iter().map(|text| (*text).to_owned()).collect();
        guard(allow, &["8.8.4.4"]).with_nat64(&texts)
    };
    // RFC 6052 §2.4, with a public address and a private one: 203.1.2.3 and 10.0.0.1.
    for (prefix, public, private) in [
        ("2001:db8::/32", "2001:db8:cb01:203::", "2001:db8:a00:1::"),
        ("2a00:db8:100::/40", "2a00:db8:1cb:102:3::", "2a00:db8:10a:0:1::"),
        ("2a00:db8:122::/48", "2a00:db8:122:cb01:2:300::", "2a00:db8:122:a00:0:100::"),
        ("2a00:db8:122:300::/56", "2a00:db8:122:3cb:1:203::", "2a00:db8:122:30a:0:1::"),
        ("2a00:db8:122:344::/64", "2a00:db8:122:344:cb:102:300:0", "2a00:db8:122:344:a:0:100:0"),
        ("2a00:db8:122:344::/96", "2a00:db8:122:344::203.1.2.3", "2a00:db8:122:344::10.0.0.1"),
        ("64:ff9b::/96", "64:ff9b::203.1.2.3", "64:ff9b::10.0.0.1"),
    ] {
        let own = nat64(&[prefix], &[]).unwrap();
        assert!(check(&own, "a.test", public, 443).is_ok(), "{public}");
        let refused = check(&own, private, private, 443).unwrap_err().to_string();
        assert!(
            refused.ends_with("inside it, 10.0.0.1 is not globally routable (private, RFC 1918)"),
            "{refused}"
        );
        assert!(refused.contains("(NAT64, egress.nat64)"), "{refused}");
        assert!(check(&nat64(&[prefix], &["10.0.0.1"]).unwrap(), "a.test", private, 443).is_ok());
    }
    let both = nat64(&["2a00:1::/32", "2a00:1:0:1::/96"], &[]).unwrap();
    assert!(check(&both, "a.test", "2a00:1:0:1::10.0.0.1", 443).is_err(), "the longer one counts");
    assert!(check(&both, "a.test", "2a00:1:0:1::8.8.4.4", 443).is_err(), "egress.deny");
    for wrong in ["", "10.0.0.0/32", "2a00:1::/33", "2a00:1::", "2a00:1::1/96", "nat.test"] {
        assert!(nat64(&[wrong], &[]).is_err(), "{wrong}");
    }
}

#[test]
fn the_message_is_the_apis() {
    let refusal = check(&guard(&[], &[]), "10.0.0.1", "10.0.0.1", 80).unwrap_err();
    let error = PageError::from(refusal);
    assert_eq!(error.message, "10.0.0.1 is not globally routable (private, RFC 1918)");
    assert_eq!((error.code, error.stage), (PageCode::BlockedEgress, Stage::Dns));
}

/// allow, deny, host, ip, port, approved?
type RuleCase =
    (&'static [&'static str], &'static [&'static str], &'static str, &'static str, u16, bool);

const RULES: &[RuleCase] = &[
    // Ports.
    (&[], &[], "a.test", "8.8.8.8", 80, true),
    (&[], &[], "a.test", "8.8.8.8", 8443, true),
    (&[], &[], "a.test", "8.8.8.8", 22, false),
    (&[], &[], "a.test", "8.8.8.8", 6379, false),
    (&["a.test:22"], &[], "a.test", "8.8.8.8", 22, true),
    (&["a.test:22"], &[], "b.test", "8.8.8.8", 22, false),
    (&["8.8.8.0/24:22"], &[], "a.test", "8.8.8.8", 22, true),
    (&["8.8.8.0/24:22"], &[], "a.test", "8.8.4.4", 22, false),
    (&["a.test:*"], &[], "a.test", "8.8.8.8", 1, true),
    (&["a.test"], &[], "a.test", "8.8.8.8", 22, true),
    (&["a.test"], &[], "b.test", "8.8.8.8", 22, false),
    // Addresses.
    (&["127.0.0.1"], &[], "127.0.0.1", "127.0.0.1", 80, true),
    (&["127.0.0.1"], &[], "127.0.0.1", "127.0.0.1", 9000, true),
    (&["127.0.0.1"], &[], "127.0.0.2", "127.0.0.2", 80, false),
    (&["127.0.0.1:*"], &[], "127.0.0.1", "127.0.0.1", 9000, true),
    (&["127.0.0.1:9000"], &[], "127.0.0.1", "127.0.0.1", 9000, true),
    (&["127.0.0.1:9000"], &[], "127.0.0.1", "127.0.0.1", 80, false),
    (&["10.0.0.0/8"], &[], "a.test", "10.9.8.7", 443, true),
    (&["10.0.0.0/8"], &[], "a.test", "11.0.0.1", 443, true),
    (&["10.0.0.0/8"], &[], "a.test", "192.168.0.1", 443, false),
    (&["::1"], &[], "[::1]", "::1", 80, true),
    (&["[::1]:9000"], &[], "[::1]", "::1", 9000, true),
    (&["[fd00::/8]:*"], &[], "a.test", "fd00::7", 9, true),
    (&["fd00::/8"], &[], "a.test", "fd00::7", 80, true),
    (&["fd00::/8"], &[], "a.test", "fc00::7", 80, false),
    (&["0.0.0.0/0:*"], &[], "a.test", "127.0.0.1", 5, true),
    (&["0.0.0.0/0:*"], &[], "a.test", "::1", 5, false),
    // Opening IPv4 does not open the ways around it, and the inner address is checked again.
    (&["127.0.0.1"], &[], "a.test", "::ffff:127.0.0.1", 80, false),
    (&["::ffff:0:0/96"], &[], "a.test", "::ffff:127.0.0.1", 80, false),
    (&["::ffff:0:0/96"], &[], "a.test", "::ffff:8.8.8.8", 80, true),
    (&["::ffff:0:0/96", "127.0.0.1"], &[], "a.test", "::ffff:127.0.0.1", 80, true),
    (&["64:ff9b::/96"], &[], "a.test", "64:ff9b::8.8.8.8", 80, true),
    (&["64:ff9b::/96"], &[], "a.test", "64:ff9b::169.254.169.254", 80, false),
    (&["2002::/16"], &[], "a.test", "2002:7f00:1::1", 80, false),
    (&["2002::/16"], &[], "a.test", "2002:808:808::1", 80, true),
    (&["::/0"], &["10.0.0.0/8"], "a.test", "64:ff9b::10.0.0.1", 80, false),
    // Wherever a network keeps the IPv4 address behind the local-use prefix.
    (&["64:ff9b:1::/48"], &[], "a.test", "64:ff9b:1::8.8.8.8", 80, true),
    (&["64:ff9b:1::/48"], &[], "a.test", "64:ff9b:1::10.0.0.1", 80, false),
    (&["64:ff9b:1::/48"], &[], "a.test", "64:ff9b:1:808:8:800::", 80, true),
    (&["64:ff9b:1::/48"], &[], "a.test", "64:ff9b:1:a00:0:100::", 80, false),
    (&["64:ff9b:1::/48"], &[], "a.test", "64:ff9b:1:0:a:0:100:0", 80, false),
    (&["64:ff9b:1::/48"], &[], "a.test", "64:ff9b:1:a::100:0:0", 80, false),
    (&["64:ff9b:1::/48"], &[], "a.test", "64:ff9b:1::", 80, false),
    // Names.
    (&["in.test"], &[], "in.test", "10.0.0.1", 80, true),
    (&["in.test"], &[], "IN.test", "10.0.0.1", 80, false),
    (&["in.test"], &[], "xin.test", "10.0.0.1", 80, false),
    (&["*.in.test"], &[], "a.in.test", "10.0.0.1", 80, true),
    (&["*.in.test"], &[], "a.b.in.test", "10.0.0.1", 80, true),
    (&["*.in.test"], &[], "in.test", "10.0.0.1", 80, false),
    (&["*.in.test"], &[], "evilin.test", "10.0.0.1", 80, false),
    (&[".in.test"], &[], "in.test", "10.0.0.1", 80, true),
    (&[".in.test"], &[], "a.in.test", "10.0.0.1", 80, true),
    (&[".in.test"], &[], "in.test.evil", "10.0.0.1", 80, false),
    // Deny wins.
    (&[], &["8.8.8.8"], "a.test", "8.8.8.8", 443, false),
    (&[], &["8.8.8.0/24"], "a.test", "8.8.9.8", 443, true),
    (&[], &["a.test"], "a.test", "8.8.8.8", 443, false),
    (&[], &["*.a.test"], "b.a.test", "8.8.8.8", 443, false),
    (&["a.test:*"], &["a.test"], "a.test", "8.8.8.8", 443, false),
    (&["0.0.0.0/0:*"], &["127.0.0.0/8"], "a.test", "127.0.0.1", 443, false),
    (&[], &["a.test:8080"], "a.test", "8.8.8.8", 443, true),
    (&[], &["a.test:8080"], "a.test", "8.8.8.8", 8080, false),
];

#[test]
fn rules_open_and_close_what_they_name() {
    for &(allow, deny, host, ip, port, approved) in RULES {
        let verdict = check(&guard(allow, deny), host, ip, port);
        assert_eq!(verdict.is_ok(), approved, "{allow:?} {deny:?} {host} {ip}:{port}: {verdict:?}");
    }
}

#[test]
fn what_is_known_before_the_look_up_saves_it() {
    let guard = guard(&["127.0.0.1:9000", "b.test:7"], &["a.test", "10.0.0.0/8"]);
    assert!(guard.check_name("a.test", 80).is_err(), "denied by name");
    assert!(guard.check_name("c.test", 80).is_ok());
    assert!(guard.check_name("c.test", 22).is_err(), "no rule opens port 22");
    assert!(guard.check_name("c.test", 7).is_err(), "port 7 is open for b.test only");
    assert!(guard.check_name("b.test", 7).is_ok());
    assert!(guard.check_name("c.test", 9000).is_ok(), "it may resolve to 127.0.0.1");
}

#[test]
fn a_rule_that_says_nothing_clear_is_an_error() {
    for rule in [
        "",
        "*",
        "*.",
        ".",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/",
        "10.0.0.1/8",
        "::/129",
        "a b",
        "a..b",
        "http://a.test",
        "a.test:0",
        "a.test:65536",
        "a.test:",
        "a.test:x",
        "[::1",
        "[::1]x",
        "[::1]:",
        "*.a.*",
        "a.test/8",
        "a.test.",
    ] {
        assert!(Egress::new(&[rule.to_owned()], &[], &[80]).is_err(), "{rule:?}");
    }
}

proptest! {
    /// The slow, obvious twin: what the standard library says of an IPv4 address.
    #[test]
    fn never_approves_what_std_calls_special(bits: u32) {
        let ip = Ipv4Addr::from_bits(bits);
        let special = ip.is_private() || ip.is_loopback() || ip.is_link_local()
            || ip.is_broadcast() || ip.is_documentation() || ip.is_multicast()
            || ip.is_unspecified() || ip.octets()[0] == 0 || ip.octets()[0] >= 240;
        let verdict = guard(&[], &[]).check("a.test", SocketAddr::new(ip.into(), 80));
        if special {
            prop_assert!(verdict.is_err());
        }
        // However it is wrapped, no wrapped form is ever approved.
        let mapped = SocketAddr::new(ip.to_ipv6_mapped().into(), 80);
        prop_assert!(guard(&[], &[]).check("a.test", mapped).is_err());
    }

    #[test]
    fn rules_from_anywhere_never_panic(rule in ".{0,40}") {
        let _ = Egress::new(&[rule], &[], &[80]);
    }
}
