//! The answers about an appliance's network: text as typed, and the settings that come out of it.

use std::net::IpAddr;
use std::str::FromStr;

use crate::config::{Bond, Network, Problem};
use crate::network::HostAddress;

/// Answers of the network page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the configuration, where they are explained")]
pub struct NetworkAnswers {
    /// The network is set up as the other answers say, and not left to DHCP.
    pub is_own: bool,
    pub adapters: Vec<String>,
    pub bond: Bond,
    pub vlan: String,
    pub mtu: String,
    pub addresses: String,
    pub gateways: String,
    pub name_servers: String,
    pub search_domains: String,
    pub time_servers: String,
}

impl NetworkAnswers {
    /// The answers of a file.
    pub fn from_config(network: Option<&Network>) -> Self {
        let Some(network) = network else { return Self::default() };
        Self {
            is_own: true,
            adapters: network.adapters.clone(),
            bond: network.bond,
            vlan: network.vlan.map(|vlan| vlan.to_string()).unwrap_or_default(),
            mtu: network.mtu.map(|mtu| mtu.to_string()).unwrap_or_default(),
            addresses: joined(&network.addresses),
            gateways: joined(&network.gateways),
            name_servers: joined(&network.name_servers),
            search_domains: network.search_domains.join(" "),
            time_servers: network.time_servers.join(" "),
        }
    }

    /// The settings, without what does not parse; that is added to the problems.
    pub fn draft(&self, problems: &mut Vec<Problem>) -> Option<Network> {
        if !self.is_own {
            return None;
        }
        Some(Network {
            adapters: self.adapters.clone(),
            bond: self.bond,
            vlan: number("network.vlan", &self.vlan, problems),
            mtu: number("network.mtu", &self.mtu, problems),
            addresses: list::<HostAddress>("network.addresses", &self.addresses, problems),
            gateways: list::<IpAddr>("network.gateways", &self.gateways, problems),
            name_servers: list::<IpAddr>("network.name-servers", &self.name_servers, problems),
            search_domains: words(&self.search_domains).map(str::to_owned).collect(),
            time_servers: words(&self.time_servers).map(str::to_owned).collect(),
        })
    }

    /// The first of the typed addresses, without its length.
    pub fn first_address(&self) -> Option<IpAddr> {
        words(&self.addresses).find_map(|word| word.parse::<HostAddress>().ok()).map(|own| own.address)
    }
}

fn joined(values: &[impl ToString]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Blanks and commas separate.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',']).filter(|word| !word.is_empty())
}

fn number<T: FromStr>(key: &'static str, text: &str, problems: &mut Vec<Problem>) -> Option<T> {
    let text = text.trim();
    let parsed = text.parse().ok();
    if parsed.is_none() && !text.is_empty() {
        problems.push(Problem { key, message: format!("{text:?} is no such number") });
    }
    parsed
}

fn list<T: FromStr<Err: std::fmt::Display>>(key: &'static str, text: &str, problems: &mut Vec<Problem>) -> Vec<T> {
    let mut values = Vec::new();
    for word in words(text) {
        match word.parse::<T>() {
            Ok(value) => values.push(value),
            Err(error) => problems.push(Problem { key, message: described(word, &error.to_string()) }),
        }
    }
    values
}

/// Our own errors name the word already.
fn described(word: &str, error: &str) -> String {
    if error.contains(word) { error.to_owned() } else { format!("{word:?}: {error}") }
}
