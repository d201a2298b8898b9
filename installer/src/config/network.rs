//! The network of an appliance: `network:` in `install.yaml`, and its rules.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::InstallConfig;
use crate::network::HostAddress;

/// How an appliance reaches its network. A host that was there before keeps the network that its owner gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Network {
    /// Adapters by name (`eno1`) or by MAC address. Two or more become a bond. All others stay switched off.
    pub adapters: Vec<String>,
    /// How several adapters work together; of one adapter it says nothing.
    #[serde(default)]
    pub bond: Bond,
    /// The VLAN in which the machine is reached (IEEE 802.1Q), 1 to 4094.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Largest packet in bytes, 1280 to 9216.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Addresses with the length of their network's prefix, `192.0.2.11/24`; `node.address` is one of them. Empty: DHCP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<HostAddress>,
    /// Routers towards all other networks, at most one of each address family. A closed rack needs none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// DNS servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub name_servers: Vec<IpAddr>,
    /// Domains in which short names are looked up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search_domains: Vec<String>,
    /// NTP servers, names or addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub time_servers: Vec<String>,
}

/// How the adapters of a bond work together (Linux bonding driver).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Bond {
    /// One carries all, the others stand by. The switch needs to know nothing.
    #[default]
    ActiveBackup,
    /// All carry a part (LACP). The switch must be set up for it.
    #[serde(rename = "802.3ad")]
    Lacp,
}

impl Bond {
    /// The mode's name (systemd.netdev(5), `Mode=`).
    pub fn name(self) -> &'static str {
        match self {
            Self::ActiveBackup => "active-backup",
            Self::Lacp => "802.3ad",
        }
    }
}

/// A MAC address as `02:00:5e:10:00:01`.
pub fn is_mac_address(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A name that the kernel accepts and systemd.network(5) takes for no pattern: at most 15 bytes.
fn is_adapter_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=15).contains(&text.len()) && text.bytes().all(is_plain) && text != "." && text != ".." && text != "lo"
}

/// A domain or a host's name (RFC 1123).
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

pub(super) fn problems(config: &InstallConfig, problem: &mut impl FnMut(&'static str, String)) {
    let Some(network) = &config.network else { return };
    if network.adapters.is_empty() {
        problem("network.adapters", "names no adapter; `cofferdam check` lists those of this machine".to_owned());
    }
    for (place, adapter) in network.adapters.iter().enumerate() {
        if !is_mac_address(adapter) && !is_adapter_name(adapter) {
            problem("network.adapters", format!("{adapter:?} is neither an adapter's name nor a MAC address"));
        }
        if network.adapters.iter().take(place).any(|other| other.eq_ignore_ascii_case(adapter)) {
            problem("network.adapters", format!("{adapter} stands there twice"));
        }
    }
    if let Some(vlan) = network.vlan.filter(|vlan| !(1..=4094).contains(vlan)) {
        problem("network.vlan", format!("{vlan} is not between 1 and 4094"));
    }
    if let Some(mtu) = network.mtu.filter(|mtu| !(1280..=9216).contains(mtu)) {
        problem("network.mtu", format!("{mtu} is not between 1280 and 9216"));
    }
    address_problems(config, network, problem);
    for server in network.name_servers.iter().filter(|server| super::rules::unusable(**server) && !server.is_loopback())
    {
        problem("network.name-servers", format!("{server} is no address of a server"));
    }
    for domain in network.search_domains.iter().filter(|domain| !is_domain(domain)) {
        problem("network.search-domains", format!("{domain:?} is no domain"));
    }
    for server in &network.time_servers {
        if server.parse::<IpAddr>().is_err() && !is_domain(server) {
            problem("network.time-servers", format!("{server:?} is neither an address nor a host's name"));
        }
    }
}

fn address_problems(config: &InstallConfig, network: &Network, problem: &mut impl FnMut(&'static str, String)) {
    let own = config.node.address;
    for (place, address) in network.addresses.iter().enumerate() {
        if super::rules::unusable(address.address) {
            problem("network.addresses", format!("{address} is no address of a host in a network"));
        }
        if network.addresses.iter().take(place).any(|other| other.address == address.address) {
            problem("network.addresses", format!("{} stands there twice", address.address));
        }
    }
    if !network.addresses.is_empty() && !network.addresses.iter().any(|address| address.address == own) {
        problem("network.addresses", format!("none of them is node.address, {own}"));
    }
    for (place, gateway) in network.gateways.iter().enumerate() {
        if network.addresses.is_empty() {
            problem("network.gateways", "by DHCP the router is told too; give addresses, or leave it out".to_owned());
            return;
        }
        if network.addresses.iter().any(|address| address.address == *gateway) {
            problem("network.gateways", format!("{gateway} is this machine's own address"));
        } else if !network.addresses.iter().any(|address| address.network().contains(*gateway)) {
            problem("network.gateways", format!("{gateway} is in none of the networks of network.addresses"));
        }
        if network.gateways.iter().take(place).any(|other| other.is_ipv4() == gateway.is_ipv4()) {
            problem("network.gateways", "wants at most one router of each address family".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::{self, ConfigError, InstallConfig};

    fn with(network: &str) -> Result<InstallConfig, ConfigError> {
        config::parse(&format!("{}\nnetwork:\n{network}", config::example::EXAMPLE))
    }

    #[test]
    fn what_is_taken() {
        let all = "  adapters: [eno1, '02:00:5e:10:00:01']\n  bond: 802.3ad\n  vlan: 120\n  mtu: 9000\n  addresses: \
                   [192.0.2.11/24, 'fd00::11/64']\n  gateways: [192.0.2.1, 'fd00::1']\n  name-servers: [192.0.2.53]\n  \
                   search-domains: [rack7.example.com]\n  time-servers: [ntp.example.com, 192.0.2.123]\n";
        let read = with(all).unwrap();
        assert_eq!(config::parse(&read.to_yaml().unwrap()).unwrap(), read, "written and read again");
        assert!(with("  adapters: [eno1]\n").unwrap().network.unwrap().addresses.is_empty());
    }

    #[test]
    fn what_is_refused() {
        let table = [
            ("  adapters: []\n", "network.adapters"),
            ("  adapters: [eno1, eno1]\n", "twice"),
            ("  adapters: ['en*']\n", "neither an adapter"),
            ("  adapters: [lo]\n", "neither an adapter"),
            ("  adapters: [eno1]\n  vlan: 4095\n", "network.vlan"),
            ("  adapters: [eno1]\n  mtu: 900\n", "network.mtu"),
            ("  adapters: [eno1]\n  addresses: [192.0.2.11]\n", "ADDRESS/LENGTH"),
            ("  adapters: [eno1]\n  addresses: [192.0.2.12/24]\n", "none of them is node.address"),
            ("  adapters: [eno1]\n  addresses: [192.0.2.11/24]\n  gateways: [192.0.3.1]\n", "in none of the networks"),
            ("  adapters: [eno1]\n  addresses: [192.0.2.11/24]\n  gateways: [192.0.2.11]\n", "own address"),
            ("  adapters: [eno1]\n  addresses: [192.0.2.11/24]\n  gateways: [192.0.2.1, 192.0.2.2]\n", "at most one"),
            ("  adapters: [eno1]\n  gateways: [192.0.2.1]\n", "by DHCP"),
            ("  adapters: [eno1]\n  search-domains: ['a b']\n", "no domain"),
            ("  adapters: [eno1]\n  time-servers: ['-x']\n", "neither an address"),
            ("  adapters: [eno1]\n  bond: fast\n", "bond"),
            ("  adapters: [eno1]\n  wifi: yes\n", "unknown field"),
        ];
        for (network, word) in table {
            let error = with(network).unwrap_err().to_string();
            assert!(error.contains(word), "{network}: {error}");
        }
    }
}
