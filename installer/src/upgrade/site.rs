//! The site as an upgrade finds it: state, installed release, answers, health. Only looks; what could not be asked says
//! so with its reason. Everything goes through the [`Host`].

use bundle::delta::HeldBlob;
use bundle::index::Index;
use bundle::keys::TrustedKeys;
use bundle::oci::Digest;
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde_json::Value;

use super::slots::Slots;
use super::transaction::Transaction;
use super::{CURRENT, SNAPSHOTS};
use crate::config::{self, InstallConfig};
use crate::facts::Probed;
use crate::host::{Command, Host, HostExt};
use crate::layout;
use crate::plan::{Action, Plan};
use crate::step::{State, blob_path};

/// The site and its health.
#[derive(Debug, Clone)]
pub struct Site {
    /// When it was looked at.
    pub now: Timestamp,
    /// What is recorded as installed.
    pub state: State,
    /// The signed index of the installed release.
    pub index: Index,
    /// The keys that may sign the next bundle: minisign's base64 lines.
    pub trust: Vec<String>,
    /// The answers of the installation.
    pub config: InstallConfig,
    /// The control plane was given more time for its probes.
    pub patient: bool,
    /// How many times slower than a normal server.
    pub slowness: f64,
    /// Number of the next snapshot.
    pub sequence: u64,
    /// An upgrade that is going on.
    pub unfinished: Option<String>,
    /// Blobs of the next release that the store does not hold.
    pub lacking: Vec<HeldBlob>,
    /// Free bytes by filesystem: mount point, and the paths of [`PLACES`] that lie on it.
    pub filesystems: Probed<Vec<Filesystem>>,
    /// Size of etcd's database in bytes.
    pub etcd_bytes: u64,
    /// Nodes.
    pub nodes: Probed<Vec<NodeHealth>>,
    /// etcd's members.
    pub members: Probed<Vec<Member>>,
    /// Certificates and when they end.
    pub certificates: Vec<(String, Timestamp)>,
    /// Pods that a budget does not allow to be moved, as `NAMESPACE/NAME` of the budget.
    pub undisruptable: Probed<Vec<String>>,
    /// Deprecated APIs that were asked for since the API server started, and the minor version that removes each.
    pub deprecated: Probed<Vec<(String, Option<u32>)>>,
    /// `kubeadm.yaml` as it is on the host.
    pub kubeadm: String,
    /// The slots of an appliance; `None` on a host that has its own operating system.
    pub slots: Option<Probed<Slots>>,
}

/// Where an upgrade writes.
pub const PLACES: [&str; 4] = [layout::STORE, "/var/lib/containerd", "/var/lib/etcd", "/usr/local/bin"];

/// A filesystem that an upgrade writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filesystem {
    /// Its mount point.
    pub mount: String,
    /// Free bytes.
    pub available: u64,
    /// The paths of [`PLACES`] on it.
    pub places: Vec<String>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHealth {
    /// Its name.
    pub name: String,
    /// Ready.
    pub ready: bool,
    /// Pods may be put on it.
    pub schedulable: bool,
    /// The kubelet's version.
    pub kubelet: String,
}

/// A member of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where it is asked.
    pub endpoint: String,
    /// What it reports as wrong.
    pub errors: Vec<String>,
    /// How far its log is.
    pub raft_index: u64,
    /// It knows a leader.
    pub has_leader: bool,
}

/// Why a site cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// Nothing is installed.
    #[error("no site is installed on this host")]
    None,
    /// A file of the installation is missing or not what it was.
    #[error("{path}: {why}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

impl Site {
    /// Looks at the installed release only, as far as trust needs it.
    pub fn trust(host: &dyn Host) -> Result<Vec<String>, SiteError> {
        let state = state(host)?;
        trust(host, &installed_index(host, &state)?)
    }

    /// Looks at everything. `next`: the index of the bundle that may come.
    pub fn survey(host: &dyn Host, next: &Index, slowness: f64) -> Result<Self, SiteError> {
        let state = state(host)?;
        let index = installed_index(host, &state)?;
        let config = config::parse(&text(host, layout::CONFIG)?).map_err(|error| damaged(layout::CONFIG, &error))?;
        let plan: Option<Plan> = serde_json::from_str(&text(host, layout::PLAN)?).ok();
        let patient = plan
            .iter()
            .flat_map(|plan| &plan.steps)
            .any(|step| matches!(step.action, Action::ConfigureKubernetes { patient: true, .. }));
        let lacking = next
            .contents()
            .filter(|blob| {
                !host
                    .look(&blob_path(&blob.digest))
                    .is_ok_and(|entry| entry.is_some_and(|entry| entry.size == blob.size))
            })
            .collect();
        let snapshots = host.list(SNAPSHOTS.into()).unwrap_or_default();
        let sequence = snapshots.iter().filter_map(|name| name.parse::<u64>().ok()).max().unwrap_or(0) + 1;
        let unfinished = Transaction::read(host, CURRENT).map_err(|error| damaged(CURRENT, &error))?;
        Ok(Self {
            now: host.now(),
            trust: trust(host, &index)?,
            patient,
            slowness,
            sequence,
            unfinished: unfinished.map(|transaction| transaction.title()),
            lacking,
            filesystems: filesystems(host).into(),
            etcd_bytes: host.look("/var/lib/etcd/member/snap/db".into()).ok().flatten().map_or(0, |entry| entry.size),
            nodes: nodes(host).into(),
            members: members(host, &state.node).into(),
            certificates: certificates(host),
            undisruptable: undisruptable(host).into(),
            deprecated: deprecated(host).into(),
            kubeadm: host
                .read_text("/etc/kubernetes/cofferdam/kubeadm.yaml".into())
                .ok()
                .flatten()
                .map(|text| text.to_string())
                .unwrap_or_default(),
            slots: super::slots::survey(host).map(Into::into),
            state,
            index,
            config,
        })
    }
}

fn damaged(path: &str, why: &dyn std::fmt::Display) -> SiteError {
    SiteError::Damaged { path: path.to_owned(), why: why.to_string() }
}

fn text(host: &dyn Host, path: &str) -> Result<String, SiteError> {
    let text = host.read_text(path.into()).map_err(|error| damaged(path, &error))?;
    text.map(|text| text.to_string()).ok_or_else(|| damaged(path, &"it is not there"))
}

fn state(host: &dyn Host) -> Result<State, SiteError> {
    State::read(host).map_err(|error| damaged(layout::STATE, &error))?.ok_or(SiteError::None)
}

/// The index that was installed: as trustworthy as the keys that lie beside it, and the one that the state names.
fn installed_index(host: &dyn Host, state: &State) -> Result<Index, SiteError> {
    let text = text(host, layout::INDEX)?;
    if Digest::sha256_of(text.as_bytes()).to_string() != state.index {
        return Err(damaged(layout::INDEX, &"it is not the index of the installed bundle"));
    }
    serde_json::from_str(&text).map_err(|error| damaged(layout::INDEX, &error))
}

/// What the installed bundle says; when it says nothing, the keys that are pinned.
fn trust(host: &dyn Host, installed: &Index) -> Result<Vec<String>, SiteError> {
    if !installed.trust.next_keys.is_empty() {
        return Ok(installed.trust.next_keys.clone());
    }
    let names = host.list(layout::TRUST.into()).map_err(|error| damaged(layout::TRUST, &error))?;
    names
        .iter()
        .map(|name| {
            let path = Utf8Path::new(layout::TRUST).join(name);
            let text = text(host, path.as_str())?;
            let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
            Ok(line.to_owned())
        })
        .collect()
}

/// Keys that verify. The error is one line.
pub fn trusted_keys(lines: &[String]) -> Result<TrustedKeys, String> {
    let mut keys = TrustedKeys::default();
    for line in lines {
        keys.add(line).map_err(|error| format!("a pinned key cannot be used: {error}"))?;
    }
    Ok(keys)
}

/// `kubectl` as the cluster's administrator, thirty seconds at most.
fn kubectl(host: &dyn Host, arguments: &[&str]) -> Result<String, String> {
    let command = Command::new("kubectl")
        .arg(format!("--kubeconfig={}", layout::ADMIN_KUBECONFIG))
        .args(arguments.iter().copied())
        .arg("--request-timeout=30s");
    host.must(&command).map(|output| output.text()).map_err(|error| error.to_string())
}

fn object(host: &dyn Host, arguments: &[&str]) -> Result<Value, String> {
    serde_json::from_str(&kubectl(host, arguments)?).map_err(|error| error.to_string())
}

fn nodes(host: &dyn Host) -> Result<Vec<NodeHealth>, String> {
    let list = object(host, &["get", "nodes", "-o", "json"])?;
    let node = |node: &Value| NodeHealth {
        name: node["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        ready: crate::step::condition(node, "Ready").is_some_and(|(ready, _)| ready),
        schedulable: node["spec"]["unschedulable"] != true,
        kubelet: node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default().to_owned(),
    };
    Ok(list["items"].as_array().into_iter().flatten().map(node).collect())
}

/// The arguments of `kubectl` that ask etcd's own client in the pod of this node.
pub(super) fn etcdctl<'a>(node: &str, arguments: &[&'a str]) -> Vec<std::borrow::Cow<'a, str>> {
    let pki = "/etc/kubernetes/pki/etcd";
    let mut all: Vec<std::borrow::Cow<'a, str>> = ["exec", "-n", "kube-system"].map(Into::into).to_vec();
    all.push(format!("etcd-{node}").into());
    all.extend(["--", "etcdctl", "--endpoints=https://127.0.0.1:2379"].map(Into::into));
    all.push(format!("--cacert={pki}/ca.crt").into());
    all.push(format!("--cert={pki}/healthcheck-client.crt").into());
    all.push(format!("--key={pki}/healthcheck-client.key").into());
    all.extend(arguments.iter().map(|word| (*word).into()));
    all
}

/// Asks for what [`parse_members`] reads. etcdctl's own limits (2 s and 5 s) are too short for a control plane that has just
/// started on a busy disk. They stand here alone: with one, saving a snapshot of any size would have to end in time too.
pub(super) const MEMBERS: [&str; 7] =
    ["--dial-timeout=10s", "--command-timeout=30s", "endpoint", "status", "--cluster", "-w", "json"];

fn members(host: &dyn Host, node: &str) -> Result<Vec<Member>, String> {
    let arguments = etcdctl(node, &MEMBERS);
    let command = Command::new("kubectl")
        .arg(format!("--kubeconfig={}", layout::ADMIN_KUBECONFIG))
        .args(arguments.iter().map(AsRef::as_ref));
    let output = host.run(&command, &mut |_| {}).map_err(|error| error.to_string())?;
    if !output.success() {
        return Err(etcdctl_error(&output.stderr));
    }
    parse_members(&output.text())
}

/// What etcdctl says at its end: its log and kubectl's line stand around it.
pub(super) fn etcdctl_error(stderr: &str) -> String {
    let own = stderr.lines().rev().find_map(|line| line.strip_prefix("Error: "));
    own.map_or_else(|| crate::step::last_line(stderr), |own| format!("etcdctl: {own}"))
}

/// What `etcdctl endpoint status --cluster -w json` prints.
pub(super) fn parse_members(text: &str) -> Result<Vec<Member>, String> {
    let list: Value = serde_json::from_str(text).map_err(|error| format!("etcdctl printed no JSON: {error}"))?;
    let member = |member: &Value| {
        let status = &member["Status"];
        Member {
            endpoint: member["Endpoint"].as_str().unwrap_or_default().to_owned(),
            errors: status["errors"].as_array().into_iter().flatten().map(ToString::to_string).collect(),
            raft_index: status["raftIndex"].as_u64().unwrap_or(0),
            has_leader: status["leader"].as_u64().is_some_and(|leader| leader != 0),
        }
    };
    Ok(list.as_array().into_iter().flatten().map(member).collect())
}

/// The certificates that an upgrade works with.
fn certificates(host: &dyn Host) -> Vec<(String, Timestamp)> {
    let pki =
        ["ca", "apiserver", "apiserver-kubelet-client", "front-proxy-client", "etcd/ca", "etcd/server", "etcd/peer"];
    let mut paths: Vec<Utf8PathBuf> = pki.iter().map(|name| format!("/etc/kubernetes/pki/{name}.crt").into()).collect();
    paths.extend(
        ["site-ca", "server", "registry", "node"]
            .map(|name| Utf8Path::new(layout::KEYSTORE).join(format!("{name}.crt"))),
    );
    paths.push("/var/lib/kubelet/pki/kubelet-client-current.pem".into());
    let mut ends = Vec::new();
    for path in paths {
        let Ok(Some(text)) = host.read_text(&path) else { continue };
        let certificates = certs::inspect(path.as_str(), &text).unwrap_or_default();
        if let Some(end) = certificates.iter().map(|certificate| certificate.not_after).min() {
            ends.push((path.to_string(), end));
        }
    }
    ends
}

fn undisruptable(host: &dyn Host) -> Result<Vec<String>, String> {
    let list = object(host, &["get", "poddisruptionbudgets", "-A", "-o", "json"])?;
    let name = |budget: &Value| {
        let status = &budget["status"];
        let blocks = status["disruptionsAllowed"] == 0 && status["expectedPods"].as_u64().unwrap_or(0) > 0;
        let metadata = &budget["metadata"];
        let part = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
        blocks.then(|| format!("{}/{}", part("namespace"), part("name")))
    };
    Ok(list["items"].as_array().into_iter().flatten().filter_map(name).collect())
}

fn deprecated(host: &dyn Host) -> Result<Vec<(String, Option<u32>)>, String> {
    kubectl(host, &["get", "--raw", "/metrics"]).map(|text| parse_deprecated(&text))
}

/// The API server's `apiserver_requested_deprecated_apis` (Kubernetes 1.19 and newer).
pub(super) fn parse_deprecated(metrics: &str) -> Vec<(String, Option<u32>)> {
    let mut found = Vec::new();
    for line in metrics.lines() {
        let Some(labels) = line.strip_prefix("apiserver_requested_deprecated_apis{") else { continue };
        let Some((labels, value)) = labels.rsplit_once("} ") else { continue };
        if value.trim() == "0" {
            continue;
        }
        let label = |name: &str| {
            labels
                .split(',')
                .find_map(|pair| pair.strip_prefix(&format!("{name}=\"")).map(|rest| rest.trim_end_matches('"')))
        };
        let group =
            label("group").filter(|group| !group.is_empty()).map(|group| format!("{group}/")).unwrap_or_default();
        let api = format!("{group}{} {}", label("version").unwrap_or("?"), label("resource").unwrap_or("?"));
        let removed = label("removed_release").and_then(|release| release.strip_prefix("1.")?.parse().ok());
        found.push((api, removed));
    }
    found.sort();
    found.dedup();
    found
}

fn filesystems(host: &dyn Host) -> Result<Vec<Filesystem>, String> {
    let mut all: Vec<Filesystem> = Vec::new();
    for place in PLACES {
        let command = Command::new("df").args(["--output=avail,target", "-B1", place]);
        let text = host.must(&command).map_err(|error| error.to_string())?.text();
        let line = text.lines().nth(1).unwrap_or_default().trim();
        let (available, mount) = line.split_once(' ').ok_or_else(|| format!("df printed {line:?} for {place}"))?;
        let available = available.parse().map_err(|_| format!("df printed {line:?} for {place}"))?;
        let mount = mount.trim().to_owned();
        match all.iter_mut().find(|filesystem| filesystem.mount == mount) {
            Some(filesystem) => filesystem.places.push(place.to_owned()),
            None => all.push(Filesystem { mount, available, places: vec![place.to_owned()] }),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{etcdctl_error, parse_deprecated, parse_members};

    #[test]
    fn what_etcdctl_says() {
        let printed = "{\"level\":\"warn\",\"msg\":\"retrying of unary invoker failed\"}\n\
            Error: failed to fetch endpoints from etcd cluster member list: context deadline exceeded\n\
            command terminated with exit code 1\n";
        let said = "etcdctl: failed to fetch endpoints from etcd cluster member list: context deadline exceeded";
        assert_eq!(etcdctl_error(printed), said);
        assert_eq!(etcdctl_error("error: unable to upgrade connection\n"), "error: unable to upgrade connection");
    }

    #[test]
    fn deprecated_apis_in_use() {
        let metrics = "# HELP apiserver_requested_deprecated_apis x\n\
            apiserver_requested_deprecated_apis{group=\"extensions\",removed_release=\"1.22\",resource=\"ingresses\",subresource=\"\",version=\"v1beta1\"} 1\n\
            apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"componentstatuses\",subresource=\"\",version=\"v1\"} 1\n\
            apiserver_requested_deprecated_apis{group=\"policy\",removed_release=\"1.25\",resource=\"podsecuritypolicies\",subresource=\"\",version=\"v1beta1\"} 0\n\
            apiserver_request_total{code=\"200\"} 5\n";
        let expected =
            [("extensions/v1beta1 ingresses".to_owned(), Some(22)), ("v1 componentstatuses".to_owned(), None)];
        assert_eq!(parse_deprecated(metrics), expected);
    }

    #[test]
    fn members_of_etcd() {
        // Printed by etcdctl 3.4.23.
        let text = r#"[{"Endpoint":"https://10.77.0.11:2379","Status":{"header":{"cluster_id":1,"member_id":2,"revision":900,"raft_term":2},
            "version":"3.4.23","dbSize":2560000,"leader":2,"raftIndex":1044,"raftTerm":2,"raftAppliedIndex":1044,"dbSizeInUse":1000}}]"#;
        let members = parse_members(text).unwrap();
        assert_eq!((members.len(), members[0].raft_index, members[0].has_leader), (1, 1044, true));
        assert!(parse_members("Error: context deadline exceeded").is_err());
    }
}
