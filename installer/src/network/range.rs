//! Address ranges.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address range such as `10.244.0.0/16`; host bits are zero (RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    length: u8,
}

/// Why a text is no [`Cidr`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address range: {reason}")]
pub struct CidrError {
    text: String,
    reason: &'static str,
}

impl Cidr {
    /// Whether the address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }

    /// The range of this length that holds the address. A length that is too large counts as the largest.
    pub fn around(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(bits) => {
                let length = length.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                Self { network: IpAddr::from((bits.to_bits() & mask).to_be_bytes()), length }
            }
            IpAddr::V6(bits) => {
                let length = length.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                Self { network: IpAddr::from((bits.to_bits() & mask).to_be_bytes()), length }
            }
        }
    }

    /// The first address, that of the network itself.
    pub fn first(&self) -> IpAddr {
        self.network
    }

    /// The last address; in IPv4 the broadcast address.
    pub fn last(&self) -> IpAddr {
        match self.network {
            IpAddr::V4(bits) => {
                let hosts = u32::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
                IpAddr::from((bits.to_bits() | hosts).to_be_bytes())
            }
            IpAddr::V6(bits) => {
                let hosts = u128::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
                IpAddr::from((bits.to_bits() | hosts).to_be_bytes())
            }
        }
    }

    /// Whether the two share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// The `n`-th address of the range, 0 being the network itself; `None` outside of it.
    pub fn nth(&self, n: u32) -> Option<IpAddr> {
        let address = match self.network {
            IpAddr::V4(network) => IpAddr::from(network.to_bits().checked_add(n)?.to_be_bytes()),
            IpAddr::V6(network) => IpAddr::from(network.to_bits().checked_add(u128::from(n))?.to_be_bytes()),
        };
        self.contains(address).then_some(address)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason| CidrError { text: text.to_owned(), reason };
        let (address, length) = text.split_once('/').ok_or_else(|| error("wants ADDRESS/LENGTH"))?;
        let network: IpAddr = address.parse().map_err(|_| error("the part before / is no IP address"))?;
        let length: u8 = length.parse().map_err(|_| error("the part after / is no number"))?;
        let longest = if network.is_ipv4() { 32 } else { 128 };
        if length > longest {
            return Err(error("the length is larger than the address"));
        }
        let cidr = Self { network, length };
        let is_bare = match network {
            IpAddr::V4(bits) => length == 32 || bits.to_bits() << length == 0,
            IpAddr::V6(bits) => length == 128 || bits.to_bits() << length == 0,
        };
        if is_bare { Ok(cidr) } else { Err(error("bits are set behind the length")) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Cidr;

    #[test]
    fn parsing() {
        let table = [
            ("10.244.0.0/16", true),
            ("10.96.0.0/12", true),
            ("0.0.0.0/0", true),
            ("10.0.0.1/32", true),
            ("fd00::/48", true),
            ("10.244.0.1/16", false),
            ("10.244.0.0/33", false),
            ("10.244.0.0", false),
            ("pods/16", false),
            ("10.0.0.0/x", false),
        ];
        for (text, good) in table {
            assert_eq!(text.parse::<Cidr>().is_ok(), good, "{text}");
        }
    }

    #[test]
    fn ranges() {
        let pods: Cidr = "10.244.0.0/16".parse().unwrap();
        assert!(pods.contains("10.244.255.255".parse().unwrap()));
        assert!(!pods.contains("10.245.0.0".parse().unwrap()));
        assert!(!pods.contains("fd00::1".parse().unwrap()));
        assert!(pods.overlaps(&"10.0.0.0/8".parse().unwrap()));
        assert!(!pods.overlaps(&"10.96.0.0/12".parse().unwrap()));
        assert_eq!(pods.nth(1), Some("10.244.0.1".parse().unwrap()));
        assert_eq!("10.0.0.0/31".parse::<Cidr>().unwrap().nth(2), None);
    }
}
