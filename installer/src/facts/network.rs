//! Adapters, routes, listeners and names: ip(8) as JSON, /proc/net, getent(1) and arping(8).

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Probed, Questions, answer, ask, needed, text};
use crate::host::Host;
use crate::network::Cidr;

/// What is known of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Network {
    /// All adapters.
    pub adapters: Probed<Vec<Adapter>>,
    /// NTP servers that were asked.
    #[serde(default)]
    pub time_servers: Vec<super::time::TimeServer>,
    /// The main routing tables of both protocols.
    pub routes: Probed<Vec<Route>>,
    /// Name servers, from `/etc/resolv.conf`.
    pub name_servers: Probed<Vec<String>>,
    /// TCP ports that somebody listens on.
    pub listeners: Probed<Vec<Listener>>,
    /// The name that was asked for.
    pub fqdn: Option<Name>,
    /// The name of the node's address.
    pub reverse: Probed<Option<String>>,
    /// Whether another machine answers for the node's address.
    pub address_taken: Probed<bool>,
    /// Whether a machine answers for the virtual address; `None` when there is none.
    pub vip_taken: Option<Probed<bool>>,
}

/// A network adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Adapter {
    /// For example `eth0`.
    pub name: String,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Switched on.
    pub is_up: bool,
    /// A link is there.
    pub has_carrier: bool,
    /// The loopback adapter.
    pub is_loopback: bool,
    /// A piece of hardware, or of a virtual machine's; no bridge, bond, VLAN or the like.
    #[serde(default)]
    pub is_hardware: bool,
    /// Its MAC address.
    #[serde(default)]
    pub mac: Option<String>,
    /// In Mbit/s.
    pub speed: Probed<u32>,
    /// Its addresses.
    pub addresses: Vec<Address>,
}

/// An address of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix_length: u8,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Route {
    /// An address range; `0.0.0.0/0` or `::/0` for the default route.
    pub destination: String,
    /// Through which machine.
    pub gateway: Option<IpAddr>,
    /// Through which adapter.
    pub adapter: Option<String>,
}

impl Route {
    /// The destination as a range.
    pub fn range(&self) -> Option<Cidr> {
        self.destination.parse().ok()
    }

    /// Whether it is a default route.
    pub fn is_default(&self) -> bool {
        self.destination.ends_with("/0")
    }
}

/// A TCP port that somebody listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// Where; `0.0.0.0` or `::` for everywhere.
    pub address: IpAddr,
}

/// A name and its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Name {
    /// The name.
    pub name: String,
    /// What this machine resolves it to, whichever way it is configured to; empty when the name is not known.
    pub addresses: Probed<Vec<IpAddr>>,
}

pub(super) fn probe(host: &dyn Host, questions: &Questions) -> Network {
    let adapters = adapters(host).map(|mut adapters| {
        for adapter in &mut adapters {
            adapter.speed = speed(host, &adapter.name).into();
            let device = format!("/sys/class/net/{}/device", adapter.name);
            adapter.is_hardware = host.look(device.as_str().into()).is_ok_and(|entry| entry.is_some());
        }
        adapters
    });
    let taken = |address: IpAddr| -> Probed<bool> {
        adapters.clone().and_then(|adapters| is_taken(host, &adapters, address)).into()
    };
    let none = || Probed::unknown("no address was asked for");
    Network {
        time_servers: Vec::new(),
        routes: routes(host).into(),
        name_servers: text(host, "/etc/resolv.conf").map(|text| parse_resolv(&text.unwrap_or_default())).into(),
        listeners: listeners(host).into(),
        fqdn: questions.fqdn.as_ref().map(|name| Name { name: name.clone(), addresses: forward(host, name).into() }),
        reverse: questions.address.map_or_else(none, |address| reverse(host, address).into()),
        address_taken: questions.address.map_or_else(|| Probed::unknown("no address was asked for"), taken),
        vip_taken: questions.vip.map(taken),
        adapters: adapters.into(),
    }
}

/// All adapters, without their speed.
pub(crate) fn adapters(host: &dyn Host) -> Result<Vec<Adapter>, String> {
    answer(host, "ip", ["--json", "address"]).and_then(|text| parse_adapters(&text))
}

/// `ip --json` prints nothing or an empty list where there is nothing.
fn parse_json<T: for<'a> Deserialize<'a>>(text: &str) -> Result<Vec<T>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(text).map_err(|error| format!("ip's JSON is not understood: {error}"))
}

fn parse_adapters(text: &str) -> Result<Vec<Adapter>, String> {
    #[derive(Deserialize)]
    struct Link {
        ifname: String,
        address: Option<String>,
        mtu: u32,
        #[serde(default)]
        flags: Vec<String>,
        #[serde(default)]
        addr_info: Vec<Info>,
    }
    #[derive(Deserialize)]
    struct Info {
        local: Option<IpAddr>,
        #[serde(default)]
        prefixlen: u8,
    }
    let links: Vec<Link> = parse_json(text)?;
    Ok(links
        .into_iter()
        .map(|link| {
            let has = |flag: &str| link.flags.iter().any(|found| found == flag);
            Adapter {
                mtu: link.mtu,
                is_up: has("UP"),
                has_carrier: has("LOWER_UP"),
                is_loopback: has("LOOPBACK"),
                is_hardware: false,
                mac: link.address,
                speed: Probed::unknown("not read"),
                addresses: link
                    .addr_info
                    .iter()
                    .filter_map(|info| Some(Address { address: info.local?, prefix_length: info.prefixlen }))
                    .collect(),
                name: link.ifname,
            }
        })
        .collect())
}

/// /sys/class/net/NAME/speed: cannot be read or is -1 where a driver does not tell.
fn speed(host: &dyn Host, adapter: &str) -> Result<u32, String> {
    let unknown = || "the adapter's driver does not tell".to_owned();
    match text(host, &format!("/sys/class/net/{adapter}/speed")) {
        Ok(Some(text)) => text.trim().parse().ok().filter(|speed| *speed > 0).ok_or_else(unknown),
        Ok(None) | Err(_) => Err(unknown()),
    }
}

fn routes(host: &dyn Host) -> Result<Vec<Route>, String> {
    let mut routes = parse_routes(&answer(host, "ip", ["--json", "-4", "route"])?, "0.0.0.0/0", 32)?;
    // A kernel without IPv6 has no such table.
    if let Ok(text) = answer(host, "ip", ["--json", "-6", "route"]) {
        routes.extend(parse_routes(&text, "::/0", 128)?);
    }
    Ok(routes)
}

fn parse_routes(text: &str, default: &str, longest: u8) -> Result<Vec<Route>, String> {
    #[derive(Deserialize)]
    struct Line {
        dst: String,
        gateway: Option<IpAddr>,
        dev: Option<String>,
    }
    let lines: Vec<Line> = parse_json(text)?;
    Ok(lines
        .into_iter()
        .map(|line| Route {
            destination: match line.dst.as_str() {
                "default" => default.to_owned(),
                address if !address.contains('/') => format!("{address}/{longest}"),
                range => range.to_owned(),
            },
            gateway: line.gateway,
            adapter: line.dev,
        })
        .collect())
}

fn listeners(host: &dyn Host) -> Result<Vec<Listener>, String> {
    let mut listeners = parse_listeners(&needed(host, "/proc/net/tcp")?)?;
    if let Some(text) = text(host, "/proc/net/tcp6").map_err(|error| error.to_string())? {
        listeners.extend(parse_listeners(&text)?);
    }
    listeners.sort_unstable();
    listeners.dedup();
    Ok(listeners)
}

/// /proc/net/tcp and tcp6 (proc(5)): addresses are 32-bit words in the machine's order, here little-endian.
fn parse_listeners(text: &str) -> Result<Vec<Listener>, String> {
    const LISTEN: &str = "0A";
    let bad = |line: &str| format!("a line of /proc/net/tcp is not understood: {line:?}");
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().take(4).collect();
            match fields[..] {
                [_, local, _, LISTEN] => Some(parse_socket(local).ok_or_else(|| bad(line))),
                [_, _, _, _] => None,
                _ => Some(Err(bad(line))),
            }
        })
        .collect()
}

fn parse_socket(text: &str) -> Option<Listener> {
    let (address, port) = text.split_once(':')?;
    let bytes = hex::decode(address).ok()?;
    let words: Vec<u8> = bytes.chunks(4).flat_map(|word| word.iter().rev().copied()).collect();
    let address = match words.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(words).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(words).ok()?),
        _ => return None,
    };
    Some(Listener { port: u16::from_str_radix(port, 16).ok()?, address })
}

/// resolv.conf(5): `nameserver ADDRESS`.
fn parse_resolv(text: &str) -> Vec<String> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver") { words.next().map(str::to_owned) } else { None }
    };
    text.lines().filter_map(server).collect()
}

/// The name's addresses by all that `/etc/nsswitch.conf` names.
fn forward(host: &dyn Host, name: &str) -> Result<Vec<IpAddr>, String> {
    let output = ask(host, "getent", ["ahosts", name])?;
    match output.status {
        0 => Ok(parse_ahosts(&output.text())),
        // getent(1): one or more keys could not be found.
        2 => Ok(Vec::new()),
        status => Err(format!("`getent ahosts {name}` ended with status {status}")),
    }
}

fn parse_ahosts(text: &str) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> =
        text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn reverse(host: &dyn Host, address: IpAddr) -> Result<Option<String>, String> {
    let address = address.to_string();
    let output = ask(host, "getent", ["hosts", &address])?;
    match output.status {
        0 => Ok(output.text().split_whitespace().nth(1).map(str::to_owned)),
        2 => Ok(None),
        status => Err(format!("`getent hosts {address}` ended with status {status}")),
    }
}

/// Duplicate address detection (RFC 5227) by arping of iputils; the other arping has other options.
fn is_taken(host: &dyn Host, adapters: &[Adapter], address: IpAddr) -> Result<bool, String> {
    if address.is_ipv6() {
        return Err("duplicate detection is done for IPv4 only".to_owned());
    }
    let adapter = adapter_towards(adapters, address).ok_or("no adapter is in its network")?;
    let version = ask(host, "arping", ["-V"])?;
    if !version.text().contains("iputils") {
        return Err("arping is not the one of iputils".to_owned());
    }
    let address = address.to_string();
    let output = ask(host, "arping", ["-D", "-q", "-c", "2", "-w", "3", "-I", &adapter.name, &address])?;
    match output.status {
        0 => Ok(false),
        1 => Ok(true),
        status => Err(format!("arping ended with status {status}: {}", output.stderr.trim())),
    }
}

/// The adapter whose network the address lies in.
fn adapter_towards(adapters: &[Adapter], address: IpAddr) -> Option<&Adapter> {
    let near = |own: &Address| network_of(own).is_some_and(|network| network.contains(address));
    adapters.iter().find(|adapter| !adapter.is_loopback && adapter.addresses.iter().any(near))
}

/// The range an address of an adapter stands in.
pub fn network_of(own: &Address) -> Option<Cidr> {
    let longest = if own.address.is_ipv4() { 32 } else { 128 };
    (own.prefix_length <= longest).then(|| Cidr::around(own.address, own.prefix_length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        Address, Listener, network_of, parse_adapters, parse_ahosts, parse_listeners, parse_resolv, parse_routes,
    };

    #[test]
    fn adapters() {
        let adapters = parse_adapters(include_str!("fixtures/ip-address.json")).unwrap();
        let eth0 = adapters.iter().find(|adapter| adapter.name == "eth0").unwrap();
        assert!(eth0.is_up && eth0.has_carrier && !eth0.is_loopback);
        assert_eq!(eth0.mtu, 1400);
        assert_eq!(eth0.addresses[0], Address { address: "192.0.2.2".parse().unwrap(), prefix_length: 24 });
        assert!(adapters.iter().any(|adapter| adapter.is_loopback));
        assert_eq!(parse_adapters("").unwrap(), []);
        assert!(parse_adapters("[{}]").is_err());
    }

    #[test]
    fn routes() {
        let routes = parse_routes(include_str!("fixtures/ip-route.json"), "0.0.0.0/0", 32).unwrap();
        assert!(routes[0].is_default() && routes[0].range().is_some());
        assert_eq!(routes[1].destination, "192.0.2.0/24");
        let host = parse_routes(r#"[{"dst":"198.51.100.1","dev":"eth0"}]"#, "0.0.0.0/0", 32).unwrap();
        assert_eq!(host[0].destination, "198.51.100.1/32");
        assert!(!host[0].is_default());
    }

    #[test]
    fn listeners() {
        let head = "  sl  local_address rem_address   st tx_queue\n";
        let text = format!(
            "{head}   0: 0100007F:1388 00000000:0000 0A 00000000:00000000\n   1: 0B0200C0:1F90 0B0200C0:0016 01 00000000:00000000\n   \
             2: 00000000000000000000000001000000:192B 00000000000000000000000000000000:0000 0A 00000000:00000000\n"
        );
        assert_eq!(
            parse_listeners(&text).unwrap(),
            [
                Listener { port: 5000, address: "127.0.0.1".parse().unwrap() },
                Listener { port: 6443, address: "::1".parse().unwrap() },
            ]
        );
        assert_eq!(parse_listeners(head).unwrap(), []);
        assert!(parse_listeners(&format!("{head} 0: XX:YY 00000000:0000 0A\n")).is_err());
    }

    #[test]
    fn names() {
        let text = "192.0.2.11      STREAM mgmt.rack7.example.com\n192.0.2.11      DGRAM  \nfd00::b   RAW\n";
        assert_eq!(parse_ahosts(text), ["192.0.2.11", "fd00::b"].map(|text| text.parse::<std::net::IpAddr>().unwrap()));
    }

    #[test]
    fn name_servers() {
        let text =
            "# from DHCP\nsearch example.com\nnameserver 192.0.2.53\nnameserver fd00::53 # second\n nameserver\n";
        assert_eq!(parse_resolv(text), ["192.0.2.53", "fd00::53"]);
    }

    #[test]
    fn networks() {
        let table = [
            ("192.0.2.11", 24, Some("192.0.2.0/24")),
            ("10.1.2.3", 32, Some("10.1.2.3/32")),
            ("10.1.2.3", 0, Some("0.0.0.0/0")),
            ("fd00::b", 64, Some("fd00::/64")),
            ("10.1.2.3", 33, None),
        ];
        for (address, prefix_length, expected) in table {
            let own = Address { address: address.parse().unwrap(), prefix_length };
            assert_eq!(
                network_of(&own).map(|range| range.to_string()).as_deref(),
                expected,
                "{address}/{prefix_length}"
            );
        }
    }
}
