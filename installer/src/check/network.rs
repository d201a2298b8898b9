//! Checks of the network and of names.

use std::net::IpAddr;

use super::{Finding, Outcome, pass_or};
use crate::config::InstallConfig;
use crate::facts::network::{Adapter, network_of};
use crate::facts::{Facts, Probed};
use crate::layout;
use crate::network::Cidr;

/// API server, etcd (clients, peers), kubelet, controller manager, scheduler, registry.
const PORTS: &[u16] = &[layout::API_PORT, 2379, 2380, 10250, 10257, 10259, layout::REGISTRY_PORT];
/// What IPv6 demands (RFC 8200), and what Ethernet has.
const MTU: (u32, u32) = (1280, 1500);
/// In Mbit/s.
const SPEED: u32 = 1000;

pub(super) fn findings(config: &InstallConfig, facts: &Facts) -> Vec<Finding> {
    let mut findings = address(config, facts);
    findings.push(route(config, facts));
    findings.push(overlap(config, facts));
    findings.push(ports(facts));
    let hint = "two machines with one address: give this one another, or take it from the other";
    let own = config.node.address;
    findings.push(Finding::of(
        "net.address-conflict",
        &facts.network.address_taken,
        "nobody else answers",
        hint,
        |taken| (pass_or(!taken, Outcome::Fail), answers(*taken, own)),
    ));
    if let (Some(vip), Some(taken)) = (config.site.vip, &facts.network.vip_taken) {
        let hint = "site.vip must be an address that no machine has";
        findings.push(Finding::of("net.vip-free", taken, "nobody answers", hint, |taken| {
            (pass_or(!taken, Outcome::Fail), answers(*taken, vip))
        }));
    }
    findings.extend(names(config, facts));
    findings
}

fn answers(taken: bool, address: IpAddr) -> String {
    if taken { format!("another machine answers for {address}") } else { format!("nobody else answers for {address}") }
}

fn address(config: &InstallConfig, facts: &Facts) -> Vec<Finding> {
    let own = config.node.address;
    let has_it = |adapter: &&Adapter| adapter.addresses.iter().any(|found| found.address == own);
    let adapters = &facts.network.adapters;
    let threshold = format!("{own} is set on an adapter with a link");
    let hint = "node.address must be an address of this machine: `ip address` lists them";
    let mut findings = vec![
        Finding::of("net.address", adapters, threshold, hint, |adapters| {
            let Some(adapter) = adapters.iter().find(has_it) else {
                let all: Vec<_> = adapters
                    .iter()
                    .filter(|adapter| !adapter.is_loopback)
                    .flat_map(|adapter| &adapter.addresses)
                    .map(|found| found.address.to_string())
                    .collect();
                let all = if all.is_empty() { "no addresses".to_owned() } else { all.join(", ") };
                return (Outcome::Fail, format!("no adapter has {own}; there are {all}"));
            };
            let state = if !adapter.is_up {
                "is down"
            } else if adapter.has_carrier {
                "has a link"
            } else {
                "has no link"
            };
            let outcome = pass_or(adapter.is_up && adapter.has_carrier, Outcome::Fail);
            (outcome, format!("{own} is on {}, which {state}", adapter.name))
        })
        .needs_answer(),
    ];
    let Some(adapter) = adapters.known().and_then(|adapters| adapters.iter().find(has_it)) else { return findings };
    let (least, wanted) = MTU;
    let hint = "pods get packets of this size less the tunnel's head; all machines of the cluster need the same";
    let outcome = if adapter.mtu < least { Outcome::Fail } else { pass_or(adapter.mtu >= wanted, Outcome::Warn) };
    let measured = format!("{} bytes on {}", adapter.mtu, adapter.name);
    findings.push(Finding::new("net.mtu", outcome, measured, format!("at least {least}, better {wanted}"), hint));
    let (outcome, measured) = match adapter.speed.as_result() {
        Ok(speed) => (pass_or(*speed >= SPEED, Outcome::Warn), format!("{speed} Mbit/s on {}", adapter.name)),
        Err(reason) => (Outcome::Warn, format!("unknown on {}: {reason}", adapter.name)),
    };
    findings.push(Finding::new(
        "net.link",
        outcome,
        measured,
        "1000 Mbit/s",
        "image pulls of other nodes run over this link",
    ));
    findings
}

/// Service addresses are rewritten only after the kernel has found a route for them.
fn route(config: &InstallConfig, facts: &Facts) -> Finding {
    let services = &config.cluster.service_cidr;
    let hint = format!(
        "a default route, or `ip route add {services} dev ADAPTER`: without one this machine cannot reach services"
    );
    let first = services.parse::<Cidr>().ok().and_then(|range| range.nth(0));
    Finding::of("net.route", &facts.network.routes, format!("a route that covers {services}"), &hint, |routes| {
        let covering = routes
            .iter()
            .find(|route| route.range().is_some_and(|range| first.is_some_and(|address| range.contains(address))));
        match covering {
            Some(route) => (
                Outcome::Pass,
                format!("{} by {}", route.destination, route.adapter.as_deref().unwrap_or("several adapters")),
            ),
            None => (Outcome::Fail, format!("no route covers {services}")),
        }
    })
}

fn overlap(config: &InstallConfig, facts: &Facts) -> Finding {
    let ours: Vec<(&str, Cidr)> =
        [("cluster.pod-cidr", &config.cluster.pod_cidr), ("cluster.service-cidr", &config.cluster.service_cidr)]
            .into_iter()
            .filter_map(|(key, text)| Some((key, text.parse().ok()?)))
            .collect();
    let threshold = "pod and service addresses are used nowhere else";
    let hint = "choose cluster.pod-cidr and cluster.service-cidr outside of the networks that this machine reaches";
    let (adapters, routes) = match (facts.network.adapters.as_result(), facts.network.routes.as_result()) {
        (Ok(adapters), Ok(routes)) => (adapters, routes),
        (Err(reason), _) | (_, Err(reason)) => {
            return Finding::new("net.cidr-overlap", Outcome::Unknown, reason, threshold, hint);
        }
    };
    let on_adapters = adapters.iter().flat_map(|adapter| {
        adapter.addresses.iter().filter_map(|own| Some((network_of(own)?, format!("the network of {}", adapter.name))))
    });
    // A route to exactly the service range is how a machine without a default route reaches services.
    let on_routes = routes
        .iter()
        .filter(|route| !route.is_default() && route.destination != config.cluster.service_cidr)
        .filter_map(|route| Some((route.range()?, "a route".to_owned())));
    let mut found: Vec<String> = on_adapters
        .chain(on_routes)
        .flat_map(|(range, whose)| {
            let clashes = ours.iter().filter(move |(_, own)| own.overlaps(&range));
            clashes.map(move |(key, own)| format!("{key} {own} overlaps {range} ({whose})")).collect::<Vec<_>>()
        })
        .collect();
    found.dedup();
    if found.is_empty() {
        Finding::new("net.cidr-overlap", Outcome::Pass, "no overlap", threshold, hint)
    } else {
        Finding::new("net.cidr-overlap", Outcome::Fail, found.join("; "), threshold, hint)
    }
}

fn ports(facts: &Facts) -> Finding {
    let threshold =
        format!("TCP ports {} are free", PORTS.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    let hint = "`ss --listening --tcp --processes` names the program that listens; stop it";
    Finding::of("net.ports", &facts.network.listeners, threshold, hint, |listeners| {
        let taken: Vec<_> = listeners
            .iter()
            .filter(|listener| PORTS.contains(&listener.port))
            .map(|listener| std::net::SocketAddr::new(listener.address, listener.port).to_string())
            .collect();
        if taken.is_empty() {
            (Outcome::Pass, "all are free".to_owned())
        } else {
            (Outcome::Fail, format!("taken: {}", taken.join(", ")))
        }
    })
}

fn names(config: &InstallConfig, facts: &Facts) -> Vec<Finding> {
    let fqdn = &config.site.fqdn;
    let own = config.node.address;
    let wanted: Vec<IpAddr> = config.site.vip.into_iter().chain([own]).collect();
    let wanted_text = wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    let not_asked = Probed::unknown("the name was not looked up");
    let addresses =
        facts.network.fqdn.as_ref().filter(|name| name.name == *fqdn).map_or(&not_asked, |name| &name.addresses);
    let hint = format!(
        "add a record for {fqdn} to your DNS, or a line `{own} {fqdn}` to /etc/hosts of this machine and of each client"
    );
    let is_appliance = facts.machine.system.known().is_some_and(|system| system.is_appliance);
    let forward = Finding::of("dns.forward", addresses, format!("{fqdn} resolves to {wanted_text}"), &hint, |found| {
        if found.is_empty() && is_appliance {
            // The installed system gets the name in its /etc/hosts (`system.name`); clients need the DNS all the same.
            return (Outcome::Warn, format!("{fqdn} does not resolve yet; the appliance will know it itself"));
        }
        if found.is_empty() {
            return (Outcome::Fail, format!("{fqdn} does not resolve"));
        }
        let all = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let measured = format!("{fqdn} resolves to {all}");
        if !found.iter().any(|address| wanted.contains(address)) {
            return (Outcome::Fail, measured);
        }
        (pass_or(found.iter().all(|address| wanted.contains(address)), Outcome::Warn), measured)
    })
    .needs_answer();
    let hint = format!("add a PTR record for {own} to your DNS; some clients and logs want it");
    let reverse =
        Finding::of("dns.reverse", &facts.network.reverse, format!("{own} has the name {fqdn}"), &hint, |found| {
            match found {
                None => (Outcome::Warn, format!("{own} has no name")),
                Some(name) => (pass_or(name == fqdn, Outcome::Warn), format!("{own} has the name {name}")),
            }
        });
    vec![forward, reverse]
}
