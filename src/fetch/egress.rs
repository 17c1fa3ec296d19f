//! The egress guard: which address a fetch may dial.
//!
//! The check is made on the very address that is connected to, for every hop of every fetch, after
//! the name was resolved and with no second look-up, so a name cannot be rebound in between. What
//! it approves is a [`CheckedAddr`], which nothing else can make and which connecting requires.
//!
//! Order of the rules: a `deny` rule wins over everything; then the port must be one of
//! `egress.ports` or be named by an `allow` rule that fits the destination; then the address must
//! be globally routable or be covered by an `allow` rule. An address that holds an IPv4 address
//! (NAT64, 6to4, IPv4-mapped …) is refused like any special range, and where an `allow` rule opens
//! such a range, the address inside still has to pass on its own. One with a prefix that the operator's
//! network has for NAT64 is as good as the IPv4 address inside it.
//!
//! A refusal names the address only where the client has named it: what a name leads to inside the
//! operator's network is not the client's to learn.

use crate::error::{PageCode, PageError, Stage};
use crate::fetch::special::{self, Class};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Ports that may be dialled when nothing else is configured.
pub const DEFAULT_PORTS: [u16; 4] = [80, 443, 8080, 8443];

/// An address that may be dialled: one that the guard has approved, or the operator's own proxy.
/// Only [`Egress::check`], [`Egress::check_service`] and [`CheckedAddr::of_proxy`] make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CheckedAddr(SocketAddr);

impl CheckedAddr {
    /// The address of the proxy that the operator has named, which is no client's choice.
    pub(crate) const fn of_proxy(addr: SocketAddr) -> Self {
        Self(addr)
    }

    /// The address to connect to.
    #[must_use]
    pub const fn addr(self) -> SocketAddr {
        self.0
    }
}

/// Why the guard refuses a destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The address lies in a special range and no `allow` rule covers it.
    #[error("{destination} is not globally routable ({class})")]
    Special {
        /// The address that was to be dialled, or whose it is.
        destination: String,
        /// The range that it lies in.
        class: Class,
    },
    /// The address holds an IPv4 address that may not be dialled.
    #[error("{destination} is not globally routable ({class}); inside it, {inner}")]
    Embedded {
        /// The address that was to be dialled, or whose it is.
        destination: String,
        /// The range that it lies in.
        class: Class,
        /// Why the address inside is refused.
        inner: Box<Refusal>,
    },
    /// A `deny` rule covers the destination.
    #[error("{destination} is refused by egress.deny")]
    Denied {
        /// The host or address that the rule covers, or whose address it is.
        destination: String,
    },
    /// The port is none of `egress.ports` and no `allow` rule names it.
    #[error("port {port} of {host} is not among egress.ports")]
    Port {
        /// The host as the URL names it.
        host: String,
        /// The port as the URL names it.
        port: u16,
    },
}

impl From<Refusal> for PageError {
    fn from(refusal: Refusal) -> Self {
        Self::new(PageCode::BlockedEgress, Stage::Dns, refusal.to_string())
    }
}

/// A rule of `egress.allow` or `egress.deny` that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("egress rule {rule:?}: {reason}")]
pub struct RuleError {
    /// The rule as it was given.
    pub rule: String,
    /// What was expected.
    pub reason: &'static str,
}

/// The guard with its rules; immutable, shared by every core.
#[derive(Debug, Clone)]
pub struct Egress {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    ports: Vec<u16>,
    /// The longest first.
    nat64: Vec<(Ipv6Addr, u8)>,
}

impl Egress {
    /// Reads the rules.
    ///
    /// A rule is a destination with an optional port:
    /// - `10.0.0.0/8`, `192.0.2.7`, `fd00::/8`, `[::1]`: addresses;
    /// - `intranet.example`: that host, whatever it resolves to;
    /// - `*.example.com`: every name below it; `.example.com`: it and every name below it;
    /// - `…:9000`: for that port alone (an IPv6 address then needs brackets: `[fd00::/8]:9000`).
    ///   Without a port, or with `:*`, a rule is for every port: who allows a host by name or
    ///   address means what runs there.
    ///
    /// # Errors
    /// A rule that is none of these.
    pub fn new(allow: &[String], deny: &[String], ports: &[u16]) -> Result<Self, RuleError> {
        let parse = |rules: &[String]| -> Result<Vec<Rule>, RuleError> {
            rules.iter().map(|rule| Rule::parse(rule)).collect()
        };
        let (allow, deny, nat64) = (parse(allow)?, parse(deny)?, Vec::new());
        Ok(Self { allow, deny, ports: ports.to_vec(), nat64 })
    }

    /// With the prefixes that the operator's network has for NAT64, as `2001:db8:64::/96` (RFC 6052
    /// §2.2: of 32, 40, 48, 56, 64 or 96 bits).
    ///
    /// # Errors
    /// One that is none.
    pub fn with_nat64(mut self, prefixes: &[String]) -> Result<Self, RuleError> {
        for text in prefixes {
            let error = |reason| RuleError { rule: text.clone(), reason };
            match parse_net(text.trim()).map_err(error)? {
                Some(Destination::Net { prefix: IpAddr::V6(prefix), bits })
                    if special::NAT64_BITS.contains(&bits) =>
                {
                    self.nat64.push((prefix, bits));
                }
                _ => return Err(error("expected an IPv6 range of 32, 40, 48, 56, 64 or 96 bits")),
            }
        }
        self.nat64.sort_by_key(|(_, bits)| std::cmp::Reverse(*bits));
        Ok(self)
    }

    /// Checks what is known of a destination before its name is resolved: the `deny` rules by
    /// name, and the port. Saves a look-up; approves nothing.
    ///
    /// # Errors
    /// The name is denied, or no rule could open the port.
    pub fn check_name(&self, host: &str, port: u16) -> Result<(), Refusal> {
        if self.deny.iter().any(|rule| rule.covers_name(host) && rule.covers_port(port)) {
            return Err(Refusal::Denied { destination: host.to_owned() });
        }
        // An address rule may yet open the port, once the addresses are known.
        let opened = |rule: &Rule| {
            rule.covers_port(port)
                && (rule.covers_name(host) || matches!(rule.what, Destination::Net { .. }))
        };
        if self.ports.contains(&port) || self.allow.iter().any(opened) {
            return Ok(());
        }
        Err(Refusal::Port { host: host.to_owned(), port })
    }

    /// Checks the address that is about to be dialled for `host` (a name, or an address's text).
    ///
    /// # Errors
    /// Why it must not be dialled.
    pub fn check(&self, host: &str, addr: SocketAddr) -> Result<CheckedAddr, Refusal> {
        let (ip, port) = (addr.ip(), addr.port());
        self.check_denied(host, ip, port)?;
        let fits = |rule: &Rule| rule.covers_name(host) || rule.covers_ip(ip);
        let opened = self.allow.iter().any(|rule| fits(rule) && rule.covers_port(port));
        if !opened && !self.ports.contains(&port) {
            return Err(Refusal::Port { host: host.to_owned(), port });
        }
        self.check_ip(host, ip, port)?;
        Ok(CheckedAddr(addr))
    }

    /// Checks the address of a service that the operator has named, which is no client's choice: only
    /// a `deny` rule is in its way.
    ///
    /// # Errors
    /// The rule that denies it.
    pub fn check_service(&self, host: &str, addr: SocketAddr) -> Result<CheckedAddr, Refusal> {
        self.check_denied(host, addr.ip(), addr.port())?;
        Ok(CheckedAddr(addr))
    }

    fn check_denied(&self, host: &str, ip: IpAddr, port: u16) -> Result<(), Refusal> {
        for rule in self.deny.iter().filter(|rule| rule.covers_port(port)) {
            if rule.covers_name(host) {
                return Err(Refusal::Denied { destination: host.to_owned() });
            }
            if rule.covers_ip(ip) {
                return Err(Refusal::Denied { destination: shown(host, ip) });
            }
        }
        Ok(())
    }

    /// Checks the range of one address, and of the one inside it, if it holds one.
    fn check_ip(&self, host: &str, ip: IpAddr, port: u16) -> Result<(), Refusal> {
        let check_inner = |class, inner: Ipv4Addr| {
            let inner = IpAddr::V4(inner);
            let checked = self.check_denied(host, inner, port);
            checked.and_then(|()| self.check_ip(host, inner, port)).map_err(|inner| {
                let destination = shown(host, ip);
                Refusal::Embedded { destination, class, inner: Box::new(inner) }
            })
        };
        if let Some(inner) = self.translated(ip) {
            return check_inner(special::OWN_NAT64, inner);
        }
        let Some(class) = special::classify(ip) else { return Ok(()) };
        for inner in special::embedded(ip) {
            check_inner(class, inner)?;
        }
        let fits =
            |rule: &Rule| (rule.covers_name(host) || rule.covers_ip(ip)) && rule.covers_port(port);
        if self.allow.iter().any(fits) {
            return Ok(());
        }
        Err(Refusal::Special { destination: shown(host, ip), class })
    }

    /// The IPv4 address that the operator's own NAT64 makes of this one.
    fn translated(&self, ip: IpAddr) -> Option<Ipv4Addr> {
        let IpAddr::V6(v6) = ip else { return None };
        let fits = |(prefix, bits): &&(Ipv6Addr, u8)| special::in_net(ip, (*prefix).into(), *bits);
        self.nat64.iter().find(fits).map(|(_, bits)| special::after_prefix(v6, *bits))
    }
}

/// The address as the client may see it: it itself where the client has named it, else whose it is.
fn shown(host: &str, ip: IpAddr) -> String {
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    if literal { ip.to_string() } else { format!("an address of {host}") }
}

/// One line of `egress.allow` or `egress.deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    what: Destination,
    port: Port,
}

/// What a rule covers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Destination {
    /// Addresses whose first `bits` bits are those of `prefix`.
    Net { prefix: IpAddr, bits: u8 },
    /// One host, lower case, no trailing dot.
    Host(String),
    /// Every name that ends in this, which starts with a dot; `apex`: the name without it too.
    Suffix { suffix: String, apex: bool },
}

/// Which ports a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    /// None was named, or `*`.
    Every,
    /// This one.
    One(u16),
}

impl Rule {
    fn parse(text: &str) -> Result<Self, RuleError> {
        let error = |reason| RuleError { rule: text.to_owned(), reason };
        let (what, port) = split_port(text.trim()).map_err(error)?;
        let port = match port {
            None | Some("*") => Port::Every,
            Some(digits) => match digits.parse() {
                Ok(port) if port > 0 => Port::One(port),
                _ => return Err(error("the port is a number from 1 to 65535, or *")),
            },
        };
        Ok(Self { what: Destination::parse(what).map_err(error)?, port })
    }

    fn covers_name(&self, host: &str) -> bool {
        match &self.what {
            Destination::Net { .. } => false,
            Destination::Host(name) => name == host,
            Destination::Suffix { suffix, apex } => {
                // A name below the suffix, never the bare ".example.com".
                (host.len() > suffix.len() && host.ends_with(suffix.as_str()))
                    || (*apex && suffix.strip_prefix('.') == Some(host))
            }
        }
    }

    fn covers_ip(&self, ip: IpAddr) -> bool {
        match self.what {
            Destination::Net { prefix, bits } => special::in_net(ip, prefix, bits),
            _ => false,
        }
    }

    fn covers_port(&self, port: u16) -> bool {
        match self.port {
            Port::Every => true,
            Port::One(named) => named == port,
        }
    }
}

impl Destination {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(net) = parse_net(text)? {
            return Ok(net);
        }
        let lower = text.to_ascii_lowercase();
        let (name, suffix) = match (lower.strip_prefix("*."), lower.strip_prefix('.')) {
            (Some(name), _) => (name, Some(false)),
            (None, Some(name)) => (name, Some(true)),
            (None, None) => (lower.as_str(), None),
        };
        if !is_host_name(name) {
            return Err("expected an address, a CIDR range, a host, *.suffix or .suffix");
        }
        Ok(match suffix {
            Some(apex) => Self::Suffix { suffix: format!(".{name}"), apex },
            None => Self::Host(name.to_owned()),
        })
    }
}

impl fmt::Display for CheckedAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Splits `what:port`, `[v6]:port` and `[v6]/bits:port`; a bare IPv6 address has no port.
fn split_port(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or("a [ has no ]")?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((inside, Some(port))),
            None if after.is_empty() => Ok((inside, None)),
            None => Err("after ] only :port may follow; write [fd00::/8]:443"),
        };
    }
    match text.matches(':').count() {
        0 => Ok((text, None)),
        1 => Ok(text.split_once(':').map_or((text, None), |(what, port)| (what, Some(port)))),
        _ => Ok((text, None)),
    }
}

/// An address or a CIDR range (RFC 4632), `None` if the text is neither.
fn parse_net(text: &str) -> Result<Option<Destination>, &'static str> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let Ok(prefix) = address.parse::<IpAddr>() else {
        return if bits.is_some() { Err("a range is ADDRESS/BITS") } else { Ok(None) };
    };
    let width = if prefix.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => width,
        Some(bits) => match bits.parse::<u8>() {
            Ok(bits) if bits <= width => bits,
            _ => return Err("a range has at most 32 bits for IPv4 and 128 for IPv6"),
        },
    };
    if !special::is_net_start(prefix, bits) {
        return Err("a range starts at its first address: host bits must be 0");
    }
    Ok(Some(Destination::Net { prefix, bits }))
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63 bytes (RFC 1035 §2.3.4), as the
/// ASCII form of a name has them.
#[must_use]
pub(crate) fn is_host_name(name: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests;
