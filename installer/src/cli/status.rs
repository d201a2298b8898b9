//! `cofferdam status`: the site at a glance. Everything is asked anew; what cannot be asked says so.

use clap::Args;
use serde::Serialize;

use super::{Failure, Outcome, code, print, print_json};
use crate::host::Host;
use crate::host::real::RealHost;
use crate::layout;
use crate::site::{self, Node, Volume};
use crate::step::State;

#[derive(Debug, Args)]
pub(super) struct Status {
    #[arg(long)]
    json: bool,
}

/// What `status --json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    schema_version: u32,
    #[serde(flatten)]
    state: State,
    ca_expires: Option<String>,
    data_volume: Volume,
    registry: String,
    nodes: Vec<Node>,
}

impl Status {
    pub(super) fn run(self) -> Outcome {
        let host = RealHost;
        let state = installed(&host)?;
        let report = Report {
            schema_version: 1,
            ca_expires: site::ca_expires(&host),
            data_volume: site::volume(&host, &state),
            registry: site::registry(&host).text,
            nodes: site::nodes(&host),
            state,
        };
        if self.json { print_json(&report) } else { print(&text(&report)) }
    }
}

/// The site that is installed here.
pub(super) fn installed(host: &dyn Host) -> Result<State, Failure> {
    State::read(host).map_err(Failure::unexpected)?.ok_or_else(|| {
        let begun = host.look(layout::PLAN.into()).is_ok_and(|entry| entry.is_some());
        let (what, hint) = if begun {
            ("an installation was interrupted on this host", "`cofferdam resume` goes on with it")
        } else {
            ("no site is installed on this host", "`cofferdam install --config install.yaml` installs one")
        };
        Failure::new(code::UNEXPECTED, what, Some(hint.to_owned()))
    })
}

fn text(report: &Report) -> String {
    let state = &report.state;
    let mut lines = vec![
        format!("Site        {} at {}", state.site, state.fqdn),
        format!("Bundle      {} {}, installed {}", state.bundle, state.version, state.installed),
        format!("Site CA     SHA-256 {}", state.ca_fingerprint),
        format!("            valid until {}", report.ca_expires.as_deref().unwrap_or("(cannot be read)")),
    ];
    let volume = &report.data_volume;
    if state.encryption == "luks2" {
        let disk = state.disk.as_deref().unwrap_or("?");
        let opened = if volume.opened { "open" } else { "NOT OPEN" };
        lines.push(format!(
            "Encryption  {} on {disk}, {}, {opened}",
            volume.encryption,
            volume.cipher.as_deref().unwrap_or("?")
        ));
        lines.extend(volume.key_slots.iter().map(|slot| format!("            {slot}")));
    } else {
        lines.push("Encryption  NONE: the configuration said so with its token".to_owned());
    }
    lines.push(format!("Registry    {}", report.registry));
    if report.nodes.is_empty() {
        lines.push("Nodes       (the API server does not answer)".to_owned());
    }
    for node in &report.nodes {
        lines.push(format!(
            "Node        {} {} {}",
            node.name,
            if node.ready { "Ready" } else { "NOT READY" },
            node.version
        ));
    }
    lines.extend(state.packs.iter().map(|pack| format!("Pack        {} {}", pack.name, pack.version)));
    lines.extend(state.accepted.iter().map(|id| format!("Accepted    failing check {id}")));
    lines.join("\n") + "\n"
}
