//! The proxies that the operator trusts to say who a client is.

use std::net::IpAddr;

/// Addresses and networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    bits: u128,
    /// Bits that have to agree, counted over the 128 of an IPv6 address (IPv4 is mapped).
    prefix: u32,
}

impl Networks {
    /// Reads `10.0.0.0/8`, `2001:db8::/32` and plain addresses.
    ///
    /// # Errors
    /// The first that is none, or whose host bits are set: that is somebody's mistake.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        texts
            .iter()
            .map(|text| network(text).ok_or_else(|| text.clone()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether one of them holds the address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = mapped(address);
        self.0.iter().any(|network| (bits ^ network.bits) & mask(network.prefix) == 0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn network(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.unwrap_or(width);
    if prefix > width {
        return None;
    }
    let network = Network { bits: mapped(address), prefix: prefix + 128 - width };
    (network.bits & !mask(network.prefix) == 0).then_some(network)
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped().to_bits(),
        IpAddr::V6(six) => six.to_bits(),
    }
}

fn mask(prefix: u32) -> u128 {
    u128::MAX.checked_shl(128 - prefix).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let texts = ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1"].map(str::to_owned);
        let networks = Networks::parse(&texts).unwrap();
        for (address, held) in [
            ("10.255.0.1", true),
            ("11.0.0.0", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("::ffff:10.1.2.3", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", true),
            ("::", false),
        ] {
            assert_eq!(networks.contains(address.parse().unwrap()), held, "{address}");
        }
        assert!(!Networks::default().contains("::1".parse().unwrap()));
        let all = Networks::parse(&["0.0.0.0/0".to_owned()]).unwrap();
        assert!(all.contains("1.2.3.4".parse().unwrap()));
        assert!(!all.contains("2001::".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_told() {
        for text in ["", "10.0.0.0/33", "10.0.0.1/8", "host", "10.0.0.0/", "::/129", "10.0.0/8"] {
            assert_eq!(Networks::parse(&[text.to_owned()]).unwrap_err(), text);
        }
    }
}
