//! Names that stand in certificates. A [`Fqdn`] that exists is one that every part of the product can use: DNS, TLS,
//! the kubelet and etcd. The configuration parses it at the border; nothing behind it checks again.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::CertsError;

/// Longest host label. Kubernetes puts words before the node's host name (`etcd-HOST`, `kube-…-HOST`) and label values
/// end at 63 characters; 54 and more made etcd restart for ever in a product of this kind.
const HOST_LABEL_MAX: usize = 53;
const LABEL_MAX: usize = 63;
const NAME_MAX: usize = 253;

/// A fully qualified host name: RFC 1123 labels, at least two, lower case, at most 253 characters, no final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fqdn(String);

impl Fqdn {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first label, which is the host's short name.
    pub fn host_label(&self) -> &str {
        self.0.split('.').next().unwrap_or(&self.0)
    }

    /// What follows the first dot.
    pub fn domain(&self) -> &str {
        self.0.split_once('.').map_or("", |(_, domain)| domain)
    }
}

impl FromStr for Fqdn {
    type Err = CertsError;

    fn from_str(name: &str) -> Result<Self, CertsError> {
        check_dns_name(name)?;
        let Some((host, domain)) = name.split_once('.') else {
            return Err(bad_name(name, "it has no domain; at least one dot is needed"));
        };
        if host.len() > HOST_LABEL_MAX {
            return Err(bad_name(
                name,
                format!(
                    "its host part has {} characters, and at most {HOST_LABEL_MAX} are possible: Kubernetes puts words \
                     such as `etcd-` before it, and what comes out must fit in {LABEL_MAX}",
                    host.len()
                ),
            ));
        }
        if host == "localhost" || domain == "localhost" || domain.ends_with(".localhost") {
            return Err(bad_name(name, "localhost means each machine itself (RFC 6761)"));
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for Fqdn {
    type Error = CertsError;

    fn try_from(name: String) -> Result<Self, CertsError> {
        name.parse()
    }
}

impl From<Fqdn> for String {
    fn from(name: Fqdn) -> Self {
        name.0
    }
}

impl fmt::Display for Fqdn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The name of a cluster node: an RFC 1123 subdomain as Kubernetes wants it, one label is enough.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = CertsError;

    fn from_str(name: &str) -> Result<Self, CertsError> {
        check_dns_name(name)?;
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for NodeName {
    type Error = CertsError;

    fn try_from(name: String) -> Result<Self, CertsError> {
        name.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl From<&Fqdn> for NodeName {
    fn from(name: &Fqdn) -> Self {
        Self(name.0.clone())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A name or an address that a server certificate speaks for (RFC 5280, section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SubjectAltName {
    /// A DNS name without wildcard; one label is enough (`mgmt`, `localhost`).
    Dns(NodeName),
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
}

impl FromStr for SubjectAltName {
    type Err = CertsError;

    fn from_str(name: &str) -> Result<Self, CertsError> {
        match name.parse::<IpAddr>() {
            Ok(address) => Ok(Self::Ip(address)),
            Err(_) => Ok(Self::Dns(name.parse()?)),
        }
    }
}

impl TryFrom<String> for SubjectAltName {
    type Error = CertsError;

    fn try_from(name: String) -> Result<Self, CertsError> {
        name.parse()
    }
}

impl From<SubjectAltName> for String {
    fn from(name: SubjectAltName) -> Self {
        name.to_string()
    }
}

impl From<&Fqdn> for SubjectAltName {
    fn from(name: &Fqdn) -> Self {
        Self::Dns(name.into())
    }
}

impl From<IpAddr> for SubjectAltName {
    fn from(address: IpAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for SubjectAltName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => name.fmt(formatter),
            Self::Ip(address) => address.fmt(formatter),
        }
    }
}

/// RFC 1123 section 2.1 and RFC 1035 section 2.3.4, lower case only because Kubernetes takes nothing else.
fn check_dns_name(name: &str) -> Result<(), CertsError> {
    if name.is_empty() {
        return Err(bad_name(name, "it is empty"));
    }
    if name.len() > NAME_MAX {
        return Err(bad_name(name, format!("it has {} characters; {NAME_MAX} are the limit", name.len())));
    }
    if name.parse::<IpAddr>().is_ok() {
        return Err(bad_name(name, "it is an IP address, not a name"));
    }
    if name.ends_with('.') {
        return Err(bad_name(name, "leave out the final dot"));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(bad_name(name, "two dots follow each other, or a dot comes first"));
        }
        if label.len() > LABEL_MAX {
            return Err(bad_name(
                name,
                format!("a part between dots has {} characters; {LABEL_MAX} are the limit", label.len()),
            ));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(bad_name(name, format!("the part {label:?} begins or ends with a hyphen")));
        }
        if let Some(wrong) = label.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')) {
            let reason = if wrong.is_ascii_uppercase() {
                format!("write it in lower case, {:?}", name.to_ascii_lowercase())
            } else {
                format!("the character {wrong:?} is not allowed")
            };
            return Err(bad_name(name, reason));
        }
    }
    // A last label of digits only reads as an IPv4 address in many resolvers (RFC 3696, section 2).
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(bad_name(name, "its last part has only digits"));
    }
    Ok(())
}

fn bad_name(name: &str, reason: impl Into<String>) -> CertsError {
    CertsError::Name { name: name.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn names_that_are_taken() {
        let longest_host = format!("{}.example.org", "h".repeat(53));
        for name in ["mgmt.example.org", "a.b", "m-1.2x.example.internal", "xn--bcher-kva.example", &longest_host] {
            let fqdn: Fqdn = name.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(fqdn.as_str(), name);
            assert_eq!(format!("{}.{}", fqdn.host_label(), fqdn.domain()), name);
        }
    }

    #[test]
    fn names_that_are_refused_and_why() {
        let long_host = format!("{}.example.org", "h".repeat(54));
        let long_label = format!("a.{}.org", "h".repeat(64));
        let long_name = format!("a.{}org", "hhhhhhhhh.".repeat(25));
        let table = [
            ("", "empty"),
            ("mgmt", "no domain"),
            ("10.0.0.1", "IP address"),
            ("fd00::1", "IP address"),
            ("10.0.0.256", "only digits"),
            ("mgmt.example.org.", "final dot"),
            ("mgmt..org", "two dots"),
            (".example.org", "a dot comes first"),
            ("-a.example.org", "hyphen"),
            ("a-.example.org", "hyphen"),
            ("Mgmt.Example.org", "\"mgmt.example.org\""),
            ("mg_mt.example.org", "'_'"),
            ("*.example.org", "'*'"),
            ("bücher.example", "'ü'"),
            ("localhost.localdomain", "RFC 6761"),
            ("a.localhost", "RFC 6761"),
            (&long_host, "54 characters, and at most 53"),
            (&long_label, "64 characters"),
            (&long_name, "253 are the limit"),
        ];
        for (name, why) in table {
            let error = name.parse::<Fqdn>().expect_err(name);
            assert!(error.to_string().contains(why), "{name}: {error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn alternative_names_are_addresses_or_names() {
        assert_eq!("10.0.0.1".parse::<SubjectAltName>().unwrap(), SubjectAltName::Ip([10, 0, 0, 1].into()));
        assert!(matches!("fd00::1".parse::<SubjectAltName>().unwrap(), SubjectAltName::Ip(_)));
        assert!(matches!("mgmt".parse::<SubjectAltName>().unwrap(), SubjectAltName::Dns(_)));
        assert!("a b".parse::<SubjectAltName>().is_err());
        let json = serde_json::to_string(&"mgmt.example.org".parse::<Fqdn>().unwrap()).unwrap();
        assert_eq!(json, "\"mgmt.example.org\"");
        assert!(serde_json::from_str::<Fqdn>("\"mgmt\"").is_err());
    }
}
