//! Page 4: this machine's name and address. The network itself is as the host's owner made it; it is shown and checked.

use crate::check::Outcome;
use crate::config::Page;
use crate::facts::Probed;
use crate::ui::field::Field;
use crate::ui::sheet::Sheet;

pub(super) const HELP: &str = "\
The network of this host stays as it is: adapters, bonds, VLANs and routes are set with the means of your distribution. \
Here you choose under which of its addresses the node is known, and see whether that address is sound: link, packet size, \
whether another machine answers for it, and whether a time service keeps the clock.

The node's name should be the host's name; it has at most 53 characters.";

pub(super) fn fill(sheet: &mut Sheet) {
    let model = sheet.model;
    sheet.lead("How is this machine known on the network?");
    sheet.text_field(Field::NodeName, "Node name", "the name of this machine, without its domain");
    sheet.gap();
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
        sheet.text("no adapter has an address: set one with the means of this host, then F4 or ^R", sheet.theme.bad());
    }
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
    }
    super::other_problems(sheet, Page::Network);
    super::findings(sheet, Page::Network, "Checks");
}
