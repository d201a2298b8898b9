//! The network of an appliance as files of systemd-networkd (systemd.network(5), systemd.netdev(5)): made, put in place,
//! waited for.
//!
//! Invariant: [`of`] is pure. Names of all files begin with [`PREFIX`]; only such files are ever removed.

use std::net::IpAddr;
use std::time::Duration;

use camino::Utf8Path;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Bond, Network, is_mac_address};
use crate::host::{Command, Host, HostError, HostExt};

/// Before the files of the system, which ask by DHCP.
const PREFIX: &str = "50-cofferdam-site-";
const BOND: &str = "bond0";

/// Where an installed system keeps them.
pub const INSTALLED: &str = "/etc/systemd/network";
/// Where a live system has them: gone with its power.
pub const LIVE: &str = "/run/systemd/network";

/// A file of systemd-networkd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// What it says.
    pub text: String,
}

fn unit(name: &str, sections: &[(&str, Vec<(&str, String)>)]) -> Unit {
    let mut text = "# Written by cofferdam.\n".to_owned();
    for (section, keys) in sections.iter().filter(|(_, keys)| !keys.is_empty()) {
        text.push_str(&format!("\n[{section}]\n"));
        for (key, value) in keys {
            text.push_str(&format!("{key}={value}\n"));
        }
    }
    Unit { name: format!("{PREFIX}{name}"), text }
}

/// The files for these settings.
pub fn of(network: &Network) -> Vec<Unit> {
    let is_bond = network.adapters.len() > 1;
    let vlan = network.vlan.map(|id| (id, format!("vlan{id}")));
    let link = network.mtu.map(|mtu| ("MTUBytes", mtu.to_string()));
    let mut units = Vec::new();
    for (number, adapter) in network.adapters.iter().enumerate() {
        let matches = if is_mac_address(adapter) {
            // Bonds and VLANs take over the address of what they lie on.
            vec![("PermanentMACAddress", adapter.to_lowercase()), ("Kind", "!*".to_owned())]
        } else {
            vec![("Name", adapter.clone())]
        };
        let carries = match (is_bond, &vlan) {
            (true, _) => vec![("Bond", BOND.to_owned())],
            (false, Some((_, vlan))) => lower(vlan),
            (false, None) => top(network),
        };
        let sections = [("Match", matches), ("Link", link.iter().cloned().collect()), ("Network", carries)].into_iter();
        let routes = if is_bond || vlan.is_some() { Vec::new() } else { routes(network) };
        units.push(unit(&format!("adapter{number}.network"), &sections.chain(routes).collect::<Vec<_>>()));
    }
    if is_bond {
        units.extend(bond(network, vlan.as_ref().map(|(_, name)| name.as_str())));
    }
    if let Some((id, name)) = &vlan {
        let device = [("Name", name.clone()), ("Kind", "vlan".to_owned())];
        units.push(unit("vlan.netdev", &[("NetDev", device.to_vec()), ("VLAN", vec![("Id", id.to_string())])]));
        let sections = [("Match", vec![("Name", name.clone())]), ("Link", link.iter().cloned().collect())];
        let own = [("Network", top(network))];
        let all: Vec<_> = sections.into_iter().chain(own).chain(routes(network)).collect();
        units.push(unit("vlan.network", &all));
    }
    let others = vec![("Type", "ether".to_owned()), ("Kind", "!*".to_owned())];
    units.push(unit("unused.network", &[("Match", others), ("Link", vec![("Unmanaged", "yes".to_owned())])]));
    units.sort_by(|one, other| one.name.cmp(&other.name));
    units
}

/// What a device says whose VLAN alone has addresses.
fn lower(vlan: &str) -> Vec<(&'static str, String)> {
    vec![
        ("VLAN", vlan.to_owned()),
        ("LinkLocalAddressing", "no".to_owned()),
        ("IPv6AcceptRA", "no".to_owned()),
        ("DHCP", "no".to_owned()),
    ]
}

fn bond(network: &Network, vlan: Option<&str>) -> [Unit; 3] {
    // Its MAC address is that of its first adapter, in the live system as in the installed one.
    let name = || vec![("Name", BOND.to_owned())];
    let device = [("Kind", "bond".to_owned()), ("MACAddress", "none".to_owned())];
    let mut rules = vec![("Mode", network.bond.name().to_owned()), ("MIIMonitorSec", "100ms".to_owned())];
    if network.bond == Bond::Lacp {
        rules.extend([("TransmitHashPolicy", "layer3+4".to_owned()), ("LACPTransmitRate", "fast".to_owned())]);
    }
    let link: Vec<_> = network.mtu.map(|mtu| ("MTUBytes", mtu.to_string())).into_iter().collect();
    let mut sections = vec![("Match", name()), ("Link", link)];
    match vlan {
        Some(vlan) => sections.push(("Network", lower(vlan))),
        None => sections.extend([("Network", top(network))].into_iter().chain(routes(network))),
    }
    let original = vec![("OriginalName", BOND.to_owned())];
    let keeps = vec![("MACAddressPolicy", "none".to_owned()), ("NamePolicy", "keep kernel".to_owned())];
    [
        unit("bond.link", &[("Match", original), ("Link", keeps)]),
        unit("bond.netdev", &[("NetDev", name().into_iter().chain(device).collect()), ("Bond", rules)]),
        unit("bond.network", &sections),
    ]
}

/// What the device says that has the addresses.
fn top(network: &Network) -> Vec<(&'static str, String)> {
    let is_dhcp = network.addresses.is_empty();
    let mut keys = vec![
        ("DHCP", if is_dhcp { "yes" } else { "no" }.to_owned()),
        ("LinkLocalAddressing", "ipv6".to_owned()),
        ("IPv6AcceptRA", "no".to_owned()),
    ];
    keys.extend(network.addresses.iter().map(|address| ("Address", address.to_string())));
    keys.extend(network.name_servers.iter().map(|server| ("DNS", server.to_string())));
    if !network.search_domains.is_empty() {
        keys.push(("Domains", network.search_domains.join(" ")));
    }
    keys.extend(network.time_servers.iter().map(|server| ("NTP", server.clone())));
    keys
}

fn routes(network: &Network) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    network.gateways.iter().map(|gateway| ("Route", vec![("Gateway", gateway.to_string())])).collect()
}

/// Whether the files are in place, and no other of ours.
pub fn is_set_up(host: &dyn Host, directory: &str, units: &[Unit]) -> Result<bool, HostError> {
    if ours(host, directory)?.iter().any(|name| !units.iter().any(|unit| unit.name == *name)) {
        return Ok(false);
    }
    for unit in units {
        if !host.holds(&Utf8Path::new(directory).join(&unit.name), unit.text.as_bytes(), 0o644)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn ours(host: &dyn Host, directory: &str) -> Result<Vec<String>, HostError> {
    let mut names = host.list(directory.into())?;
    names.retain(|name| name.starts_with(PREFIX));
    Ok(names)
}

/// Puts the files in place of earlier ones and has systemd-networkd take them. Bonds and VLANs of earlier ones go away.
pub fn set_up(host: &dyn Host, directory: &str, units: &[Unit]) -> Result<(), HostError> {
    const LIMIT: Duration = Duration::from_mins(1);
    host.make_directory(directory.into(), 0o755)?;
    for name in ours(host, directory)? {
        let path = Utf8Path::new(directory).join(&name);
        let text = host.read_text(&path)?.map(|text| text.to_string()).unwrap_or_default();
        if units.iter().any(|unit| unit.name == name && unit.text == text) {
            continue;
        }
        if let Some(device) = name.ends_with(".netdev").then(|| device_of(&text)).flatten() {
            // It may have gone already.
            host.run(&Command::new("ip").args(["link", "delete", device]).limit(LIMIT), &mut |_| {})?;
        }
        host.remove(&path)?;
    }
    for unit in units {
        host.ensure(&Utf8Path::new(directory).join(&unit.name), unit.text.as_bytes(), 0o644)?;
    }
    host.must(&Command::new("networkctl").arg("reload").limit(LIMIT))?;
    Ok(())
}

/// The device that a netdev file makes.
fn device_of(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("Name="))
}

/// Which of the addresses no adapter has, or why that cannot be said.
pub fn missing(host: &dyn Host, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
    let adapters = crate::facts::network::adapters(host)?;
    let is_there =
        |wanted: &IpAddr| adapters.iter().any(|adapter| adapter.addresses.iter().any(|own| own.address == *wanted));
    Ok(addresses.iter().filter(|address| !is_there(address)).copied().collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::of;
    use crate::config::{Bond, Network};

    fn network() -> Network {
        Network {
            adapters: vec!["eno1".to_owned()],
            bond: Bond::ActiveBackup,
            vlan: None,
            mtu: None,
            addresses: vec!["192.0.2.11/24".parse().unwrap()],
            gateways: vec!["192.0.2.1".parse().unwrap()],
            name_servers: vec!["192.0.2.53".parse().unwrap()],
            search_domains: vec!["rack7.example.com".to_owned()],
            time_servers: vec!["192.0.2.123".to_owned()],
        }
    }

    fn text(network: &Network) -> String {
        of(network).iter().fold(String::new(), |text, unit| text + "=== " + &unit.name + "\n" + &unit.text)
    }

    #[test]
    fn one_adapter_with_fixed_addresses() {
        insta::assert_snapshot!("one-adapter", text(&network()));
    }

    #[test]
    fn a_vlan_by_dhcp_on_an_adapter_named_by_its_mac() {
        let asks = Network {
            adapters: vec!["02:00:5E:10:00:01".to_owned()],
            vlan: Some(120),
            addresses: Vec::new(),
            gateways: Vec::new(),
            name_servers: Vec::new(),
            ..network()
        };
        insta::assert_snapshot!("vlan-by-dhcp", text(&asks));
    }

    #[test]
    fn a_vlan_on_a_bond() {
        let both = Network {
            adapters: vec!["eno1".to_owned(), "eno2".to_owned()],
            bond: Bond::Lacp,
            vlan: Some(120),
            mtu: Some(9000),
            ..network()
        };
        insta::assert_snapshot!("vlan-on-bond", text(&both));
    }
}
