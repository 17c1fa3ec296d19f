//! Special address ranges: every block of the IANA special-purpose registries (RFC 6890, RFC 8190)
//! and a few that they leave out, with the document that takes each from the public Internet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A special range: its name and the document that defines it, as messages show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Class {
    /// What kind of address, as in `private`.
    pub name: &'static str,
    /// The document, as in `RFC 1918`.
    pub source: &'static str,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.name, self.source)
    }
}

/// The special range that an address lies in; `None` means that it is globally routable.
#[must_use]
pub fn classify(ip: IpAddr) -> Option<Class> {
    match ip {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

/// An address that the operator's own NAT64 makes an IPv4 address of.
pub(crate) const OWN_NAT64: Class = Class { name: "NAT64", source: "egress.nat64" };
/// Bits that a prefix for NAT64 may have (RFC 6052 §2.2).
pub(crate) const NAT64_BITS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// The IPv4 address behind a prefix for NAT64; byte 8 of the whole is none of it (RFC 6052 §2.2).
pub(crate) fn after_prefix(v6: Ipv6Addr, bits: u8) -> Ipv4Addr {
    let octets = v6.octets();
    let mut behind = (usize::from(bits / 8)..16).filter(|at| *at != 8).map(|at| octets[at]);
    Ipv4Addr::from([(); 4].map(|()| behind.next().expect("a prefix of NAT64_BITS leaves four")))
}

/// The IPv4 addresses that an IPv6 address may stand for, by any of the forms that hold one.
#[must_use]
pub fn embedded(ip: IpAddr) -> Vec<Ipv4Addr> {
    let IpAddr::V6(v6) = ip else { return Vec::new() };
    let octets = v6.octets();
    let four =
        |at: usize| Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]);
    let row = V6.iter().find(|row| v6_in(v6, row.prefix, row.bits));
    match row.map(|row| row.holds) {
        Some(Holds::Nothing) => Vec::new(),
        Some(Holds::LastBytes) => vec![four(12)],
        Some(Holds::AfterPrefix16) => vec![four(2)],
        // The Teredo client's address is stored inverted (RFC 4380 §4).
        Some(Holds::LastBytesInverted) => vec![Ipv4Addr::from_bits(!four(12).to_bits())],
        Some(Holds::SomewhereBehind48) => behind_48(v6),
        None => is_isatap(v6).then(|| four(12)).into_iter().collect(),
    }
}

/// RFC 8215 §3 leaves it to the network how long a prefix it takes out of the range: every form that
/// may be meant counts. Where a form reads 0.0.0.0/8, that address is of another form.
fn behind_48(v6: Ipv6Addr) -> Vec<Ipv4Addr> {
    let forms = NAT64_BITS.into_iter().filter(|bits| *bits >= 48);
    let mut found: Vec<Ipv4Addr> = forms.map(|bits| after_prefix(v6, bits)).collect();
    found.retain(|v4| v4.octets()[0] != 0);
    if found.is_empty() { vec![Ipv4Addr::UNSPECIFIED] } else { found }
}

/// Whether `ip` is one of the addresses whose first `bits` bits are those of `prefix`.
#[must_use]
pub(crate) fn in_net(ip: IpAddr, prefix: IpAddr, bits: u8) -> bool {
    match (ip, prefix) {
        (IpAddr::V4(ip), IpAddr::V4(prefix)) => v4_in(ip, prefix, bits),
        (IpAddr::V6(ip), IpAddr::V6(prefix)) => v6_in(ip, prefix, bits),
        _ => false,
    }
}

/// Whether `prefix` is the first address of its range, that is, its host bits are 0.
#[must_use]
pub(crate) fn is_net_start(prefix: IpAddr, bits: u8) -> bool {
    match prefix {
        IpAddr::V4(v4) => v4.to_bits() & !mask_v4(bits) == 0,
        IpAddr::V6(v6) => v6.to_bits() & !mask_v6(bits) == 0,
    }
}

fn classify_v4(v4: Ipv4Addr) -> Option<Class> {
    V4.iter().find(|row| v4_in(v4, row.prefix, row.bits)).map(|row| row.class)
}

fn classify_v6(v6: Ipv6Addr) -> Option<Class> {
    if let Some(row) = V6.iter().find(|row| v6_in(v6, row.prefix, row.bits)) {
        return Some(row.class);
    }
    // Only 2000::/3 is allocated as global unicast space (RFC 4291 §2.4, IANA's IPv6 registry).
    if !v6_in(v6, Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3) {
        return Some(Class { name: "unallocated", source: "RFC 4291" });
    }
    // A tunnel end inside somebody's own prefix: as good as the IPv4 address that it names.
    if is_isatap(v6) {
        let tail = v6.to_bits() & u128::from(u32::MAX);
        let inner = Ipv4Addr::from_bits(u32::try_from(tail).expect("masked to 32 bits"));
        return classify_v4(inner).map(|_| Class { name: "ISATAP", source: "RFC 5214" });
    }
    None
}

/// RFC 5214 §6.1: the interface identifier is `[02]00:5efe:a.b.c.d`.
fn is_isatap(v6: Ipv6Addr) -> bool {
    matches!((v6.segments()[4], v6.segments()[5]), (0 | 0x0200, 0x5efe))
}

const fn mask_v4(bits: u8) -> u32 {
    if bits == 0 { 0 } else { u32::MAX << (32 - bits) }
}

const fn mask_v6(bits: u8) -> u128 {
    if bits == 0 { 0 } else { u128::MAX << (128 - bits) }
}

fn v4_in(ip: Ipv4Addr, prefix: Ipv4Addr, bits: u8) -> bool {
    ip.to_bits() & mask_v4(bits) == prefix.to_bits()
}

fn v6_in(ip: Ipv6Addr, prefix: Ipv6Addr, bits: u8) -> bool {
    ip.to_bits() & mask_v6(bits) == prefix.to_bits()
}

struct RowV4 {
    prefix: Ipv4Addr,
    bits: u8,
    class: Class,
}

struct RowV6 {
    prefix: Ipv6Addr,
    bits: u8,
    holds: Holds,
    class: Class,
}

/// Where a range keeps an IPv4 address.
#[derive(Clone, Copy)]
enum Holds {
    Nothing,
    LastBytes,
    LastBytesInverted,
    AfterPrefix16,
    SomewhereBehind48,
}

const fn v4(prefix: [u8; 4], bits: u8, name: &'static str, source: &'static str) -> RowV4 {
    let [a, b, c, d] = prefix;
    RowV4 { prefix: Ipv4Addr::new(a, b, c, d), bits, class: Class { name, source } }
}

const fn v6(
    prefix: [u16; 5],
    bits: u8,
    holds: Holds,
    name: &'static str,
    source: &'static str,
) -> RowV6 {
    let [a, b, c, d, e] = prefix;
    let prefix = Ipv6Addr::new(a, b, c, d, e, 0, 0, 0);
    RowV6 { prefix, bits, holds, class: Class { name, source } }
}

const METADATA: &str = "cloud metadata";

/// The first row that fits names the address, so the narrower range stands first.
const V4: [RowV4; 23] = [
    v4([169, 254, 169, 254], 32, METADATA, "RFC 3927"),
    v4([169, 254, 170, 2], 32, METADATA, "RFC 3927"),
    v4([100, 100, 100, 200], 32, METADATA, "RFC 6598"),
    v4([192, 0, 0, 192], 32, METADATA, "RFC 6890"),
    // A public address that its cloud routes to the host's own agent.
    v4([168, 63, 129, 16], 32, METADATA, "Azure WireServer"),
    v4([0, 0, 0, 0], 8, "this host", "RFC 791"),
    v4([10, 0, 0, 0], 8, "private", "RFC 1918"),
    v4([100, 64, 0, 0], 10, "carrier-grade NAT", "RFC 6598"),
    v4([127, 0, 0, 0], 8, "loopback", "RFC 1122"),
    v4([169, 254, 0, 0], 16, "link-local", "RFC 3927"),
    v4([172, 16, 0, 0], 12, "private", "RFC 1918"),
    v4([192, 0, 0, 0], 24, "protocol assignments", "RFC 6890"),
    v4([192, 0, 2, 0], 24, "documentation", "RFC 5737"),
    v4([192, 31, 196, 0], 24, "AS112", "RFC 7535"),
    v4([192, 52, 193, 0], 24, "AMT", "RFC 7450"),
    v4([192, 88, 99, 0], 24, "6to4 relay", "RFC 7526"),
    v4([192, 168, 0, 0], 16, "private", "RFC 1918"),
    v4([192, 175, 48, 0], 24, "AS112", "RFC 7534"),
    v4([198, 18, 0, 0], 15, "benchmarking", "RFC 2544"),
    v4([198, 51, 100, 0], 24, "documentation", "RFC 5737"),
    v4([203, 0, 113, 0], 24, "documentation", "RFC 5737"),
    v4([224, 0, 0, 0], 4, "multicast", "RFC 5771"),
    // 240.0.0.0/4 with the limited broadcast address in it.
    v4([240, 0, 0, 0], 4, "reserved or broadcast", "RFC 1112"),
];

/// As [`V4`]; what is outside 2000::/3 and not named here is "unallocated".
const V6: [RowV6; 31] = [
    v6_full([0, 0, 0, 0, 0, 0, 0, 0], "unspecified", "RFC 4291"),
    v6_full([0, 0, 0, 0, 0, 0, 0, 1], "loopback", "RFC 4291"),
    v6_full([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], METADATA, "RFC 4193"),
    v6_full([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], METADATA, "RFC 4193"),
    RowV6 {
        prefix: Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0),
        bits: 96,
        holds: Holds::LastBytes,
        class: Class { name: "IPv4-mapped", source: "RFC 4291" },
    },
    v6([0, 0, 0, 0, 0xffff], 96, Holds::LastBytes, "IPv4-translated", "RFC 2765"),
    v6([0, 0, 0, 0, 0], 96, Holds::LastBytes, "IPv4-compatible", "RFC 4291"),
    v6([0x64, 0xff9b, 0, 0, 0], 96, Holds::LastBytes, "NAT64", "RFC 6052"),
    v6([0x64, 0xff9b, 1, 0, 0], 48, Holds::SomewhereBehind48, "local-use NAT64", "RFC 8215"),
    v6([0x100, 0, 0, 0, 0], 64, Holds::Nothing, "discard-only", "RFC 6666"),
    v6([0x100, 0, 0, 1, 0], 64, Holds::Nothing, "dummy prefix", "RFC 9780"),
    v6([0x2001, 0, 0, 0, 0], 32, Holds::LastBytesInverted, "Teredo", "RFC 4380"),
    v6([0x2001, 2, 0, 0, 0], 48, Holds::Nothing, "benchmarking", "RFC 5180"),
    v6([0x2001, 3, 0, 0, 0], 32, Holds::Nothing, "AMT", "RFC 7450"),
    v6([0x2001, 4, 0x112, 0, 0], 48, Holds::Nothing, "AS112", "RFC 7535"),
    v6([0x2001, 0x10, 0, 0, 0], 28, Holds::Nothing, "ORCHID", "RFC 4843"),
    v6([0x2001, 0x20, 0, 0, 0], 28, Holds::Nothing, "ORCHIDv2", "RFC 7343"),
    v6([0x2001, 0x30, 0, 0, 0], 28, Holds::Nothing, "DRIP", "RFC 9374"),
    v6([0x2001, 0, 0, 0, 0], 23, Holds::Nothing, "protocol assignments", "RFC 2928"),
    v6([0x2001, 0xdb8, 0, 0, 0], 32, Holds::Nothing, "documentation", "RFC 3849"),
    v6([0x2002, 0, 0, 0, 0], 16, Holds::AfterPrefix16, "6to4", "RFC 3056"),
    v6([0x2620, 0x4f, 0x8000, 0, 0], 48, Holds::Nothing, "AS112", "RFC 7534"),
    v6([0x3ffe, 0, 0, 0, 0], 16, Holds::Nothing, "6bone", "RFC 3701"),
    v6([0x3fff, 0, 0, 0, 0], 20, Holds::Nothing, "documentation", "RFC 9637"),
    v6([0x5f00, 0, 0, 0, 0], 16, Holds::Nothing, "SRv6 SIDs", "RFC 9602"),
    v6([0xfc00, 0, 0, 0, 0], 7, Holds::Nothing, "unique local", "RFC 4193"),
    v6([0xfe80, 0, 0, 0, 0], 10, Holds::Nothing, "link-local", "RFC 4291"),
    v6([0xfec0, 0, 0, 0, 0], 10, Holds::Nothing, "site-local", "RFC 3879"),
    v6([0xff00, 0, 0, 0, 0], 8, Holds::Nothing, "multicast", "RFC 4291"),
    v6([0x200, 0, 0, 0, 0], 7, Holds::Nothing, "NSAP", "RFC 4048"),
    v6([0x100, 0, 0, 0, 0], 8, Holds::Nothing, "reserved", "RFC 4291"),
];

const fn v6_full(address: [u16; 8], name: &'static str, source: &'static str) -> RowV6 {
    let [a, b, c, d, e, f, g, h] = address;
    let prefix = Ipv6Addr::new(a, b, c, d, e, f, g, h);
    RowV6 { prefix, bits: 128, holds: Holds::Nothing, class: Class { name, source } }
}
