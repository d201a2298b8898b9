//! An address of an adapter with the length of its network's prefix.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Cidr;

/// An address with the length of its network's prefix, `192.0.2.11/24` (RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct HostAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix_length: u8,
}

/// Why a text is no [`HostAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address of an adapter: {reason}")]
pub struct HostAddressError {
    text: String,
    reason: &'static str,
}

impl HostAddress {
    /// The network that the address stands in.
    pub fn network(&self) -> Cidr {
        Cidr::around(self.address, self.prefix_length)
    }
}

impl FromStr for HostAddress {
    type Err = HostAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason| HostAddressError { text: text.to_owned(), reason };
        let (address, length) = text.split_once('/').ok_or_else(|| error("wants ADDRESS/LENGTH, as 192.0.2.11/24"))?;
        let address: IpAddr = address.parse().map_err(|_| error("the part before / is no IP address"))?;
        let prefix_length: u8 = length.parse().map_err(|_| error("the part after / is no number"))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix_length == 0 || prefix_length > longest {
            return Err(error("the length does not fit the address"));
        }
        let own = Self { address, prefix_length };
        // In a network of two addresses both are hosts (RFC 3021, RFC 6164).
        if prefix_length < longest - 1 {
            if own.network().first() == address {
                return Err(error("this is the address of the network itself"));
            }
            if address.is_ipv4() && own.network().last() == address {
                return Err(error("this is the broadcast address of its network"));
            }
        }
        Ok(own)
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

impl TryFrom<String> for HostAddress {
    type Error = HostAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HostAddress> for String {
    fn from(address: HostAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::HostAddress;

    #[test]
    fn parsing() {
        let table = [
            ("192.0.2.11/24", true),
            ("192.0.2.11/32", true),
            ("192.0.2.10/31", true),
            ("fd00::11/64", true),
            ("192.0.2.0/24", false),
            ("192.0.2.255/24", false),
            ("192.0.2.11", false),
            ("192.0.2.11/0", false),
            ("192.0.2.11/33", false),
            ("192.0.2.11/x", false),
            ("fd00::/64", false),
            ("host/24", false),
        ];
        for (text, good) in table {
            assert_eq!(text.parse::<HostAddress>().is_ok(), good, "{text}");
        }
        let own: HostAddress = "10.1.2.3/20".parse().unwrap();
        assert_eq!((own.to_string().as_str(), own.network().to_string().as_str()), ("10.1.2.3/20", "10.1.0.0/20"));
    }
}
