//! `cofferdam status`: the site at a glance. Everything is asked anew; what cannot be asked says so.

use clap::Args;
use serde::Serialize;

use super::{Failure, Outcome, code, print, print_json};
use crate::engine::journal::{self, Journal};
use crate::host::real::RealHost;
use crate::host::{Host, HostExt};
use crate::layout;
use crate::plan::{Plan, Step};
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
    /// How far an installation is that has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    unfinished: Option<Unfinished>,
    ca_expires: Option<String>,
    data_volume: Volume,
    registry: String,
    nodes: Vec<Node>,
    /// Why the nodes cannot be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes_unknown: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Unfinished {
    steps_done: usize,
    steps: usize,
    /// Id of the step that the journal speaks of last.
    last: String,
}

impl Status {
    pub(super) fn run(self) -> Outcome {
        let host = RealHost;
        let (state, unfinished) = match State::read(&host).map_err(Failure::unexpected)? {
            Some(state) => (state, None),
            None => begun(&host)?,
        };
        let (nodes, nodes_unknown) = match site::nodes(&host) {
            Ok(nodes) => (nodes, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let report = Report {
            schema_version: 1,
            ca_expires: site::ca_expires(&host),
            data_volume: site::volume(&host, &state),
            registry: site::registry(&host).text,
            nodes,
            nodes_unknown,
            unfinished,
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

/// The site that an unfinished installation is making, from what it stored before its first step.
fn begun(host: &dyn Host) -> Result<(State, Option<Unfinished>), Failure> {
    let text = |path: &str| host.read_text(path.into()).map_err(Failure::unexpected);
    let (Some(config), Some(plan), Some(index)) = (text(layout::CONFIG)?, text(layout::PLAN)?, text(layout::INDEX)?)
    else {
        let hint = "`cofferdam install --config install.yaml` installs one".to_owned();
        return Err(Failure::new(code::UNEXPECTED, "no site is installed on this host", Some(hint)));
    };
    let config = crate::config::parse(&config).map_err(Failure::unexpected)?;
    let plan: Plan = serde_json::from_str(&plan).map_err(Failure::unexpected)?;
    let index = serde_json::from_str(&index).map_err(Failure::unexpected)?;
    let authority = text(&format!("{}/site-ca.crt", layout::TLS))?.unwrap_or_default();
    let state = State::of(&config, &plan, &index, &authority).map_err(Failure::unexpected)?;
    let records = Journal::new(host).records().map_err(Failure::unexpected)?;
    let is_done = |step: &Step| {
        let last = records.iter().rfind(|record| record.step == step.id);
        last.is_some_and(|record| matches!(record.result, journal::Outcome::Finished | journal::Outcome::Skipped))
    };
    let unfinished = Unfinished {
        steps_done: plan.steps.iter().filter(|step| is_done(step)).count(),
        steps: plan.steps.len(),
        last: records.last().map(|record| record.step.clone()).unwrap_or_default(),
    };
    Ok((state, Some(unfinished)))
}

fn text(report: &Report) -> String {
    let state = &report.state;
    let mut lines = vec![
        format!("Site        {} at {}", state.site, state.fqdn),
        match state.installed.as_str() {
            "" => format!("Bundle      {} {}, NOT INSTALLED YET", state.bundle, state.version),
            when => match &state.upgraded {
                None => format!("Bundle      {} {}, installed {when}", state.bundle, state.version),
                Some(time) => format!("Bundle      {} {}, since the upgrade of {time}", state.bundle, state.version),
            },
        },
    ];
    if let Some(Unfinished { steps_done, steps, last }) = &report.unfinished {
        lines.push(format!("Progress    {steps_done} of {steps} steps are done, the last one begun is {last}"));
        lines.push("            `cofferdam resume` goes on where an installation was interrupted".to_owned());
    }
    if let Some(expires) = &report.ca_expires {
        lines.push(format!("Site CA     SHA-256 {}", state.ca_fingerprint));
        lines.push(format!("            valid until {expires}"));
    } else {
        lines.push("Site CA     (cannot be read)".to_owned());
    }
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
    match &report.nodes_unknown {
        Some(why) => lines.push(format!("Nodes       (no answer from the API server: {why})")),
        None if report.nodes.is_empty() => lines.push("Nodes       (the cluster has none)".to_owned()),
        None => {}
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
