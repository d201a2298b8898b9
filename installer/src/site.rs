//! The installed site as it is now: everything is asked anew; what cannot be asked says so.
//!
//! Invariant: nothing here is a secret, and nothing is changed. Called by `cofferdam status` and by the dashboard.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::host::{Command, Host, HostExt, HttpsRequest};
use crate::layout;
use crate::step::State;

/// The data volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Volume {
    /// `luks2` or `none`.
    pub encryption: String,
    /// Whether it is open.
    pub opened: bool,
    /// For example `aes-xts-plain64`.
    pub cipher: Option<String>,
    /// Who can open it.
    pub key_slots: Vec<String>,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Its kubelet's version.
    pub version: String,
}

/// A certificate of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// For people, for example `server`.
    pub name: &'static str,
    /// Days until it ends, negative afterwards; or why that cannot be said.
    pub days: Result<i64, String>,
}

/// What the dashboard shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// When it was looked at.
    pub time: Timestamp,
    /// What was installed.
    pub state: State,
    /// The data volume.
    pub volume: Volume,
    /// What the registry says.
    pub registry: Registry,
    /// The nodes, or why they cannot be asked for.
    pub nodes: Result<Vec<Node>, String>,
    /// Certificates and how long they last.
    pub certificates: Vec<Expiry>,
}

/// What the registry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// It serves.
    pub is_ready: bool,
    /// In words.
    pub text: String,
}

impl Overview {
    /// Asks everything.
    pub fn look(host: &dyn Host, state: State) -> Self {
        Self {
            time: host.now(),
            volume: volume(host, &state),
            registry: registry(host),
            nodes: nodes(host),
            certificates: certificates(host),
            state,
        }
    }
}

/// Days left of the certificates that people and nodes meet.
fn certificates(host: &dyn Host) -> Vec<Expiry> {
    let keystore = |name: &str| format!("{}/{name}.crt", layout::KEYSTORE);
    let files = [
        ("site CA", format!("{}/site-ca.crt", layout::TLS)),
        ("server", keystore("server")),
        ("registry", format!("{}/registry.crt", layout::TLS)),
        ("node", keystore("node")),
        ("API server", "/etc/kubernetes/pki/apiserver.crt".to_owned()),
        ("etcd", "/etc/kubernetes/pki/etcd/server.crt".to_owned()),
    ];
    files.into_iter().map(|(name, path)| Expiry { name, days: days_left(host, &path) }).collect()
}

fn days_left(host: &dyn Host, path: &str) -> Result<i64, String> {
    let pem = host.read_text(path.into()).map_err(|error| error.to_string())?;
    let pem = pem.ok_or_else(|| format!("there is no {path}"))?;
    let chain = certs::inspect(path, &pem).map_err(|error| error.to_string())?;
    let first = chain.first().ok_or_else(|| format!("{path} is empty"))?;
    Ok(first.not_after.duration_since(host.now()).as_hours().div_euclid(24))
}

/// When the site CA ends, RFC 3339.
pub(crate) fn ca_expires(host: &dyn Host) -> Option<String> {
    let pem = host.read_text(format!("{}/site-ca.crt", layout::TLS).as_str().into()).ok()??;
    Some(certs::inspect("site CA", &pem).ok()?.first()?.not_after.to_string())
}

/// What the disk's header says.
pub(crate) fn volume(host: &dyn Host, state: &State) -> Volume {
    let mut volume =
        Volume { encryption: state.encryption.clone(), opened: false, cipher: None, key_slots: Vec::new() };
    let Some(disk) = state.disk.as_ref().filter(|_| state.encryption == "luks2") else { return volume };
    volume.opened =
        host.look(format!("/dev/mapper/{}", layout::VOLUME).as_str().into()).is_ok_and(|entry| entry.is_some());
    let dump = Command::new("cryptsetup").args(["luksDump", "--dump-json-metadata", disk]);
    let Ok(output) = host.must(&dump) else { return volume };
    let header: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    volume.cipher = header.pointer("/segments/0/encryption").and_then(Value::as_str).map(str::to_owned);
    for (number, holder) in crate::disk::holders(&header) {
        let derivation = header["keyslots"][&number]["kdf"]["type"].as_str().unwrap_or("?");
        volume.key_slots.push(format!("slot {number}: {holder} ({derivation})"));
    }
    volume
}

/// What the registry says of itself.
pub(crate) fn registry(host: &dyn Host) -> Registry {
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
        Ok(answer) if answer.status == 200 => {
            Registry { is_ready: true, text: format!("ready on port {}, {}", layout::REGISTRY_PORT, answer.protocol) }
        }
        Ok(answer) => Registry { is_ready: false, text: format!("NOT READY: /readyz answered {}", answer.status) },
        Err(error) => Registry { is_ready: false, text: format!("NOT READY: {error}") },
    }
}

/// What the API server says; the error is what `kubectl` said last.
pub(crate) fn nodes(host: &dyn Host) -> Result<Vec<Node>, String> {
    let kubeconfig = format!("--kubeconfig={}", layout::ADMIN_KUBECONFIG);
    let ask =
        Command::new("kubectl").args([kubeconfig.as_str(), "get", "nodes", "-o", "json", "--request-timeout=30s"]);
    let output = host.run(&ask, &mut |_| {}).map_err(|error| error.to_string())?;
    if !output.success() {
        let last = crate::step::last_line(&output.stderr);
        return Err(last.trim_start_matches("Unable to connect to the server: ").to_owned());
    }
    let list: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("kubectl printed no JSON: {error}"))?;
    let nodes = list["items"].as_array().into_iter().flatten();
    Ok(nodes
        .map(|node| Node {
            name: node["metadata"]["name"].as_str().unwrap_or("?").to_owned(),
            ready: node["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
            version: node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or("?").to_owned(),
        })
        .collect())
}
