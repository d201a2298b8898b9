//! Page 4: this machine's name and address. The network itself is as the host's owner made it; it is shown and checked.

use crate::check::Outcome;
use crate::config::{Bond, Page};
use crate::facts::Probed;
use crate::facts::network::Adapter;
use crate::ui::field::Field;
use crate::ui::sheet::Sheet;

pub(super) const HELP: &str = "\
On a host that is there already the network stays as it is: adapters, bonds, VLANs and routes are set with the means of its \
distribution. Here you choose under which of its addresses the node is known, and see whether that address is sound: link, \
packet size, whether another machine answers for it. NTP servers are asked for the time, and how far this clock is from theirs is shown.

An appliance started from its medium has no network of its own yet. Either every wired adapter asks by DHCP, or you choose \
adapters and give addresses. Two or more adapters become a bond. What you give is tried at once, in the live system, and is \
what the installed system will have.

The node's name has at most 53 characters.";

pub(super) fn fill(sheet: &mut Sheet) {
    let model = sheet.model;
    sheet.lead("How is this machine known on the network?");
    sheet.text_field(Field::NodeName, "Node name", "the name of this machine, without its domain");
    sheet.gap();
    if model.is_appliance() {
        let is_own = model.answers.network.is_own;
        sheet.heading("Network");
        sheet.radio(Field::OwnNetwork(false), !is_own, "Every wired adapter asks by DHCP", "");
        sheet.radio(Field::OwnNetwork(true), is_own, "As set up here: addresses, bond, VLAN", "");
        if is_own {
            own_network(sheet);
        }
        set_up(sheet);
        sheet.gap();
    }
    if !model.is_appliance() || !model.answers.network.is_own || model.answers.network.addresses.trim().is_empty() {
        addresses(sheet);
    }
    facts(sheet);
    super::other_problems(sheet, Page::Network);
    super::findings(sheet, Page::Network, "Checks");
}

/// The settings of an appliance's network.
fn own_network(sheet: &mut Sheet) {
    let model = sheet.model;
    let network = &model.answers.network;
    sheet.gap();
    sheet.heading("Adapters");
    let adapters = model.adapters();
    let is_chosen = |adapter: &Adapter| {
        let is_it = |answer: &String| {
            *answer == adapter.name || adapter.mac.as_ref().is_some_and(|mac| mac.eq_ignore_ascii_case(answer))
        };
        network.adapters.iter().any(is_it)
    };
    for (number, adapter) in adapters.iter().enumerate() {
        let link = match (adapter.has_carrier, adapter.speed.known()) {
            (true, Some(speed)) => format!("link, {speed} Mbit/s"),
            (true, None) => "link".to_owned(),
            (false, _) => "no link".to_owned(),
        };
        let label = format!("{}  {}  {link}", adapter.name, adapter.mac.as_deref().unwrap_or("no MAC address"));
        sheet.check(Field::Adapter(number), is_chosen(adapter), &label, "");
    }
    if adapters.is_empty() {
        sheet.text("no adapter was found: is its firmware missing on this medium?", sheet.theme.bad());
    }
    let is_there = |answer: &&String| {
        !adapters.iter().any(|adapter| {
            adapter.name == **answer || adapter.mac.as_ref().is_some_and(|mac| mac.eq_ignore_ascii_case(answer))
        })
    };
    for answer in network.adapters.iter().filter(is_there) {
        sheet.text(
            &format!("{} {answer} is the file's answer, and not in this machine", sheet.theme.mark(Outcome::Fail)),
            sheet.theme.bad(),
        );
    }
    if network.adapters.len() > 1 {
        let (value, hint) = match network.bond {
            Bond::ActiveBackup => ("active-backup", "one carries all, the others stand by"),
            Bond::Lacp => ("802.3ad (LACP)", "all carry a part; the switch must be set up for it"),
        };
        sheet.cycle(Field::Bond, "Bond", value, hint);
    }
    sheet.text_field(Field::Vlan, "VLAN", "1 to 4094; empty for none");
    sheet.text_field(Field::Addresses, "Addresses", "192.0.2.11/24, more after a blank; empty for DHCP");
    if !network.addresses.trim().is_empty() {
        sheet.text_field(Field::Gateways, "Gateway", "empty in a network without a way out");
    }
    sheet.text_field(Field::NameServers, "DNS servers", "separated by blanks; empty if there are none");
    sheet.text_field(Field::SearchDomains, "Search domains", "");
    sheet.text_field(Field::TimeServers, "NTP servers", "separated by blanks; empty if there are none");
    sheet.text_field(Field::Mtu, "Packet size (MTU)", "in bytes; empty for the adapters' own");
}

/// Whether the live system has the settings.
fn set_up(sheet: &mut Sheet) {
    let model = sheet.model;
    if model.network_to_set_up().is_none() && model.tasks.network.result().is_none() {
        return;
    }
    sheet.gap();
    if model.tasks.network.running().is_some() {
        sheet.progress(&model.tasks.network, "setting up the network");
        return;
    }
    let draft = model.answers.draft().0.network;
    match (model.network_to_set_up(), model.tasks.network.answer(&draft)) {
        (Some(_), Some(Err(error))) => {
            sheet.text(&format!("{} {error}", sheet.theme.mark(Outcome::Fail)), sheet.theme.bad());
            sheet.action(Field::SetUpNetwork, "Set up again", "");
        }
        (Some(_), _) => sheet.action(Field::SetUpNetwork, "Set up now", "Continue does it too"),
        (None, Some(Ok(()))) => {
            sheet.text(&format!("{} set up", sheet.theme.mark(Outcome::Pass)), sheet.theme.outcome(Outcome::Pass));
        }
        (None, None | Some(Err(_))) => {}
    }
}

/// The addresses that the machine has, one of which is the node's.
fn addresses(sheet: &mut Sheet) {
    let model = sheet.model;
    sheet.heading("Address of the node");
    let addresses = model.addresses();
    for (number, (address, adapter)) in addresses.iter().enumerate() {
        sheet.radio(Field::Address(number), model.answers.address == *address, &format!("{address}  on {adapter}"), "");
    }
    if !model.answers.address.is_empty() && !addresses.iter().any(|(address, _)| *address == model.answers.address) {
        let text = format!(
            "{} {} is the file's answer, and no adapter has it",
            sheet.theme.mark(Outcome::Fail),
            model.answers.address
        );
        sheet.text(&text, sheet.theme.bad());
    }
    if addresses.is_empty() && model.facts().is_some() {
        let what = if model.is_appliance() {
            "no adapter has an address: nobody answers by DHCP. Set the network up here, or F4 or ^R looks again"
        } else {
            "no adapter has an address: set one with the means of this host, then F4 or ^R"
        };
        sheet.text(what, sheet.theme.bad());
    }
}

/// What the machine has besides.
fn facts(sheet: &mut Sheet) {
    let model = sheet.model;
    if let Some(facts) = model.facts() {
        sheet.gap();
        let gateway = facts.network.routes.known().and_then(|routes| routes.iter().find(|route| route.is_default()));
        let gateway =
            gateway.and_then(|route| route.gateway).map_or_else(|| "none".to_owned(), |address| address.to_string());
        sheet.fact("Default route", &gateway);
        let servers = match &facts.network.name_servers {
            Probed::Known(servers) if servers.is_empty() => "none; names come from /etc/hosts".to_owned(),
            Probed::Known(servers) => servers.join(", "),
            Probed::Unknown { reason } => format!("unknown: {reason}"),
        };
        sheet.fact("DNS servers", &servers);
        let source = match &facts.machine.time_source {
            Probed::Known(Some(server)) => server.clone(),
            Probed::Known(None) => "none".to_owned(),
            Probed::Unknown { reason } => format!("unknown: {reason}"),
        };
        sheet.fact("Time source", &source);
        for server in &facts.network.time_servers {
            let (outcome, said) = match &server.time {
                Probed::Known(time) if time.is_far() => (Outcome::Fail, time.words()),
                Probed::Known(time) => (Outcome::Pass, time.words()),
                Probed::Unknown { reason } => (Outcome::Warn, reason.clone()),
            };
            sheet.marked_fact(Some(outcome), "NTP server", &format!("{}: {said}", server.name));
        }
    }
}
