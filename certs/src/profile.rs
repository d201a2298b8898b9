//! What a certificate is for: the names it bears, its uses and how long it lives. [`SiteAuthority`](crate::SiteAuthority)
//! issues by profile and by nothing else.

use std::{fmt, net::IpAddr, str::FromStr};

use jiff::SignedDuration;
use rcgen::{DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};
use serde::{Deserialize, Serialize};

use crate::{CertsError, Fqdn, KeyKind, NodeName, SubjectAltName};

/// Upper bound of a common name in characters (RFC 5280, appendix A, `ub-common-name`).
pub(crate) const COMMON_NAME_MAX: usize = 64;

/// How long a certificate is valid, in days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Validity(u32);

impl Validity {
    /// Ten years, for a site's own authority.
    pub const AUTHORITY: Self = Self(3652);
    /// 397 days, the most that clients of public authorities take (CA/Browser Forum, baseline requirements 6.3.2).
    pub const LEAF: Self = Self(397);
    const MAX_DAYS: u32 = 9131;

    /// So many days, 1 to 9131 (25 years).
    pub fn from_days(days: u32) -> Result<Self, CertsError> {
        if (1..=Self::MAX_DAYS).contains(&days) {
            return Ok(Self(days));
        }
        let reason = format!("{days} days; 1 to {} are possible", Self::MAX_DAYS);
        Err(CertsError::Invalid { what: "validity of a certificate", reason })
    }

    pub(crate) fn duration(self) -> SignedDuration {
        SignedDuration::from_hours(24 * i64::from(self.0))
    }
}

/// The names of a server: its FQDN first, then what else clients call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerNames {
    fqdn: Fqdn,
    others: Vec<SubjectAltName>,
}

impl ServerNames {
    /// Only the FQDN.
    pub fn new(fqdn: Fqdn) -> Self {
        Self { fqdn, others: Vec::new() }
    }

    /// Also the first label of the FQDN.
    #[must_use]
    pub fn with_short_name(self) -> Self {
        match self.fqdn.host_label().parse::<NodeName>() {
            Ok(short) => self.with(SubjectAltName::Dns(short)),
            // A label of digits only is good inside of a longer name and none by itself.
            Err(_) => self,
        }
    }

    /// Also this address, for example the virtual IP.
    #[must_use]
    pub fn with_address(self, address: IpAddr) -> Self {
        self.with(SubjectAltName::Ip(address))
    }

    /// Also this name or address. One that is there already is not added again.
    #[must_use]
    pub fn with(mut self, name: SubjectAltName) -> Self {
        if name != SubjectAltName::from(&self.fqdn) && !self.others.contains(&name) {
            self.others.push(name);
        }
        self
    }

    /// The FQDN.
    pub fn fqdn(&self) -> &Fqdn {
        &self.fqdn
    }

    /// All names, the FQDN first.
    pub fn all(&self) -> Vec<SubjectAltName> {
        std::iter::once(SubjectAltName::from(&self.fqdn)).chain(self.others.iter().cloned()).collect()
    }

    /// The FQDN when it fits. Clients look at the alternative names only; this is for people.
    pub(crate) fn common_name(&self) -> &str {
        if self.fqdn.as_str().len() <= COMMON_NAME_MAX { self.fqdn.as_str() } else { self.fqdn.host_label() }
    }

    pub(crate) fn to_rcgen(&self) -> Result<Vec<SanType>, rcgen::Error> {
        self.all()
            .into_iter()
            .map(|name| match name {
                SubjectAltName::Dns(name) => Ok(SanType::DnsName(name.as_str().try_into()?)),
                SubjectAltName::Ip(address) => Ok(SanType::IpAddress(address)),
            })
            .collect()
    }
}

/// The name of a person or machine that administers the registry: 1 to 40 of `A-Z a-z 0-9 . _ @ -`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AdminName(String);

impl FromStr for AdminName {
    type Err = CertsError;

    fn from_str(name: &str) -> Result<Self, CertsError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
        if (1..=40).contains(&name.len()) && name.bytes().all(allowed) {
            return Ok(Self(name.to_owned()));
        }
        let reason = format!("{name:?} is not made of 1 to 40 letters, digits and . _ @ -");
        Err(CertsError::Invalid { what: "name of an administrator", reason })
    }
}

impl TryFrom<String> for AdminName {
    type Error = CertsError;

    fn try_from(name: String) -> Result<Self, CertsError> {
        name.parse()
    }
}

impl From<AdminName> for String {
    fn from(name: AdminName) -> Self {
        name.0
    }
}

impl fmt::Display for AdminName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateProfile {
    /// The TLS server that the site shows to the world. EKU `serverAuth`.
    Server(ServerNames),
    /// The registry: as a server, and on the host itself also by `localhost`, `127.0.0.1` and `::1`.
    Registry(ServerNames),
    /// A cluster node towards the registry: `O=cofferdam:nodes, CN=system:cofferdam:node:NAME`. EKU `clientAuth`.
    ///
    /// A long node name makes the common name longer than X.509 foresees, as Kubernetes' own `system:node:NAME` does;
    /// no TLS library minds.
    Node(NodeName),
    /// An administrator towards the registry: `O=cofferdam:admins, CN=cofferdam:admin:NAME`. EKU `clientAuth`.
    Admin(AdminName),
}

impl CertificateProfile {
    /// Organization of the certificates of nodes; a server gives rights by it.
    pub const NODES: &'static str = "cofferdam:nodes";
    /// Organization of the certificates of administrators.
    pub const ADMINS: &'static str = "cofferdam:admins";
    /// What stands before a node's name in the common name.
    pub const NODE_PREFIX: &'static str = "system:cofferdam:node:";
    /// What stands before an administrator's name in the common name.
    pub const ADMIN_PREFIX: &'static str = "cofferdam:admin:";

    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Server(names) => format!("the server certificate for {}", names.fqdn()),
            Self::Registry(names) => format!("the registry's certificate for {}", names.fqdn()),
            Self::Node(name) => format!("the client certificate for the node {name}"),
            Self::Admin(name) => format!("the client certificate for the administrator {name}"),
        }
    }

    pub(crate) fn distinguished_name(&self) -> DistinguishedName {
        let mut subject = DistinguishedName::new();
        match self {
            Self::Server(names) | Self::Registry(names) => subject.push(DnType::CommonName, names.common_name()),
            Self::Node(name) => {
                subject.push(DnType::OrganizationName, Self::NODES);
                subject.push(DnType::CommonName, format!("{}{name}", Self::NODE_PREFIX));
            }
            Self::Admin(name) => {
                subject.push(DnType::OrganizationName, Self::ADMINS);
                subject.push(DnType::CommonName, format!("{}{name}", Self::ADMIN_PREFIX));
            }
        }
        subject
    }

    pub(crate) fn server_names(&self) -> Option<ServerNames> {
        match self {
            Self::Server(names) => Some(names.clone()),
            Self::Registry(names) => Some(
                ["localhost", "127.0.0.1", "::1"]
                    .into_iter()
                    .filter_map(|name| name.parse().ok())
                    .fold(names.clone(), ServerNames::with),
            ),
            Self::Node(_) | Self::Admin(_) => None,
        }
    }

    pub(crate) fn extended_key_usages(&self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Server(_) | Self::Registry(_) => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Self::Node(_) | Self::Admin(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        }
    }

    /// RSA keys also transport keys in TLS 1.2; the others only sign.
    pub(crate) fn key_usages(&self, key: &KeyKind) -> Vec<KeyUsagePurpose> {
        match (self, key) {
            (Self::Server(_) | Self::Registry(_), KeyKind::Rsa(_)) => {
                vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment]
            }
            _ => vec![KeyUsagePurpose::DigitalSignature],
        }
    }
}
