//! `cofferdam status`: the site at a glance. Everything is asked anew; what cannot be asked says so.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::{Failure, Outcome, code, print, print_json};
use crate::host::real::RealHost;
use crate::host::{Command, Host, HostExt, HttpsRequest};
use crate::layout;
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

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Volume {
    encryption: String,
    opened: bool,
    cipher: Option<String>,
    key_slots: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Node {
    name: String,
    ready: bool,
    version: String,
}

impl Status {
    pub(super) fn run(self) -> Outcome {
        let host = RealHost;
        let state = State::read(&host).map_err(Failure::unexpected)?.ok_or_else(|| {
            let begun = host.look(layout::PLAN.into()).is_ok_and(|entry| entry.is_some());
            let (what, hint) = if begun {
                ("an installation was interrupted on this host", "`cofferdam resume` goes on with it")
            } else {
                ("no site is installed on this host", "`cofferdam install --config install.yaml` installs one")
            };
            Failure::new(code::UNEXPECTED, what, Some(hint.to_owned()))
        })?;
        let report = Report {
            schema_version: 1,
            ca_expires: ca_expires(&host),
            data_volume: volume(&host, &state),
            registry: registry(&host),
            nodes: nodes(&host),
            state,
        };
        if self.json { print_json(&report) } else { print(&text(&report)) }
    }
}

fn text(report: &Report) -> String {
    let state = &report.state;
    let mut lines = vec![
        format!("Site        {} at {}", state.site, state.fqdn),
        match &state.upgraded {
            None => format!("Bundle      {} {}, installed {}", state.bundle, state.version, state.installed),
            Some(time) => format!("Bundle      {} {}, since the upgrade of {time}", state.bundle, state.version),
        },
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

fn ca_expires(host: &dyn Host) -> Option<String> {
    let pem = host.read_text(format!("{}/site-ca.crt", layout::TLS).as_str().into()).ok()??;
    Some(certs::inspect("site CA", &pem).ok()?.first()?.not_after.to_string())
}

fn volume(host: &dyn Host, state: &State) -> Volume {
    let mut volume =
        Volume { encryption: state.encryption.clone(), opened: false, cipher: None, key_slots: Vec::new() };
    let Some(disk) = state.disk.as_ref().filter(|_| state.encryption == "luks2") else { return volume };
    volume.opened =
        host.look(format!("/dev/mapper/{}", layout::VOLUME).as_str().into()).is_ok_and(|entry| entry.is_some());
    let dump = Command::new("cryptsetup").args(["luksDump", "--dump-json-metadata", disk]);
    let Ok(output) = host.must(&dump) else { return volume };
    let header: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    volume.cipher = header.pointer("/segments/0/encryption").and_then(Value::as_str).map(str::to_owned);
    let tokens = header["tokens"].as_object().into_iter().flatten();
    let by_tpm: Vec<&str> = tokens
        .filter(|(_, token)| token["type"] == "systemd-tpm2")
        .flat_map(|(_, token)| token["keyslots"].as_array().into_iter().flatten().filter_map(Value::as_str))
        .collect();
    for (number, slot) in header["keyslots"].as_object().into_iter().flatten() {
        let holder = if by_tpm.contains(&number.as_str()) { "TPM 2.0" } else { "recovery key" };
        volume.key_slots.push(format!("slot {number}: {holder} ({})", slot["kdf"]["type"].as_str().unwrap_or("?")));
    }
    volume
}

fn registry(host: &dyn Host) -> String {
    let roots = host.read_text(format!("{}/site-ca.crt", layout::TLS).as_str().into()).ok().flatten();
    let request = HttpsRequest {
        server: "localhost".to_owned(),
        port: layout::REGISTRY_PORT,
        path: "/readyz".to_owned(),
        roots_pem: roots.map(|text| text.to_string()).unwrap_or_default(),
        client: None,
        limit: Duration::from_secs(10),
    };
    match host.https_get(&request) {
        Ok(answer) if answer.status == 200 => format!("ready on port {}, {}", layout::REGISTRY_PORT, answer.protocol),
        Ok(answer) => format!("NOT READY: /readyz answered {}", answer.status),
        Err(error) => format!("NOT READY: {error}"),
    }
}

fn nodes(host: &dyn Host) -> Vec<Node> {
    let kubeconfig = format!("--kubeconfig={}", layout::ADMIN_KUBECONFIG);
    let ask =
        Command::new("kubectl").args([kubeconfig.as_str(), "get", "nodes", "-o", "json", "--request-timeout=10s"]);
    let Ok(output) = host.must(&ask) else { return Vec::new() };
    let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let nodes = list["items"].as_array().into_iter().flatten();
    nodes
        .map(|node| Node {
            name: node["metadata"]["name"].as_str().unwrap_or("?").to_owned(),
            ready: node["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
            version: node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or("?").to_owned(),
        })
        .collect()
}
