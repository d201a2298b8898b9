//! What only an upgrade asks of the simulated host: kubeadm's upgrade phases, etcd's client, lists of objects, programs
//! that run on after their file was replaced.

use installer::layout;
use serde_json::{Value, json};

use super::commands::{Ended, bad, good, said};
use super::{Done, SimulatedHost, State};

const CONFIG: &str = "/etc/kubernetes/cofferdam/kubeadm.yaml";
const ETCD: &str = "/var/lib/etcd";

/// The process of a service.
pub fn process_of(unit: &str) -> &'static str {
    match unit {
        "cofferdam-registry.service" => "41",
        "containerd.service" => "42",
        "kubelet.service" => "43",
        other => panic!("nobody should ask for the process of {other}"),
    }
}

impl State {
    /// A service runs the program that its file is at this moment.
    pub fn run_program(&mut self, unit: &str) {
        let program = match unit {
            "cofferdam-registry.service" => layout::PROGRAM,
            "containerd.service" => "/usr/local/bin/containerd",
            "kubelet.service" => "/usr/local/bin/kubelet",
            _ => return,
        };
        let content = self.get(program).and_then(|node| node.content.clone()).unwrap_or_default();
        self.put(&format!("/proc/{}/exe", process_of(unit)), &content, 0o755);
    }

    /// Faults show once the control plane of the second release runs, and go with it.
    pub fn has_fault(&self, name: &str) -> bool {
        self.fault == Some(name)
            && self
                .text("/etc/kubernetes/manifests/kube-apiserver.yaml")
                .is_some_and(|text| !text.contains("kube-apiserver:v1.28.0"))
    }

    pub fn node_is_ready(&self) -> bool {
        self.object_is_ready("daemonset/network/network") && !self.has_fault("nodes")
    }

    fn image_of(&self, name: &str) -> Option<String> {
        let text = self.text(&format!("/etc/kubernetes/manifests/{name}.yaml"))?;
        text.lines().find_map(|line| line.trim().strip_prefix("- image: ")).map(str::to_owned)
    }

    fn rename(&mut self, from: &str, to: &str) {
        let (from, to) = (self.place(from), self.place(to));
        let inside: Vec<String> =
            self.nodes.keys().filter(|path| **path == from || path.starts_with(&format!("{from}/"))).cloned().collect();
        for path in inside {
            let node = self.nodes.remove(&path).unwrap();
            self.nodes.insert(path.replacen(&from, &to, 1), node);
        }
    }
}

impl SimulatedHost {
    /// A word of kubeadm's configuration, without quotes.
    pub(super) fn configured(&self, key: &str) -> String {
        let text = self.state.borrow().text(CONFIG).expect("kubeadm's configuration");
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_else(|| panic!("no {key}"));
        line.trim_matches('"').to_owned()
    }

    pub(super) fn kubeadm_upgrade(&self, arguments: &[&str]) -> Done<Ended> {
        assert_eq!(arguments[1..3], ["node", "phase"]);
        if !self.alive()?.api_is_up() {
            return Ok(bad("connection refused"));
        }
        let stored = self.alive()?.objects["configmap/kube-system/kubeadm-config"].1.clone();
        let stored = stored["data"]["ClusterConfiguration"].as_str().unwrap().to_owned();
        assert!(stored.contains(&self.configured("kubernetesVersion: ")), "the configuration was not uploaded first");
        match arguments[3] {
            "control-plane" => {
                let etcd = arguments.contains(&"--etcd-upgrade=true");
                if self.alive()?.fault == Some("kubeadm") {
                    return self.kubeadm_gives_up();
                }
                // As kubeadm does it: one after the other, each waited for.
                let names = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
                for name in names.iter().filter(|name| etcd || **name != "etcd") {
                    self.manifest(name)?;
                    self.state.borrow_mut().clock += 25;
                }
            }
            "kubelet-config" => {
                self.effect(|state| state.put_unsynced("/var/lib/kubelet/config.yaml", b"kind: Kubelet", 0o600))?;
            }
            other => panic!("kubeadm upgrade node phase {other}"),
        }
        Ok(good())
    }

    /// kubeadm waited in vain for the API server, put its old file back and leaves it starting. Once.
    fn kubeadm_gives_up(&self) -> Done<Ended> {
        let path = "/etc/kubernetes/manifests/kube-apiserver.yaml";
        let old = self.state.borrow().text(path).unwrap();
        self.manifest("kube-apiserver")?;
        self.effect(|state| {
            state.clock += 300;
            state.put_unsynced(path, old.as_bytes(), 0o600);
            state.api_since = Some(state.clock + 100);
            state.fault = None;
        })?;
        Ok(bad("couldn't upgrade control plane: timed out waiting for the condition"))
    }

    pub(super) fn store_config(&self) -> Done<()> {
        let text = format!("kubernetesVersion: {}\n", self.configured("kubernetesVersion: "));
        let object = json!({"data": {"ClusterConfiguration": text}});
        self.effect(|state| {
            let clock = state.clock;
            state.objects.insert("configmap/kube-system/kubeadm-config".to_owned(), (clock, object));
        })
    }

    pub(super) fn store_addon(&self, kind: &str, name: &str) -> Done<()> {
        let tag = if name == "coredns" { "v1.28.0".to_owned() } else { self.configured("kubernetesVersion: ") };
        let image = format!("registry.k8s.io/{name}:{tag}");
        let object = json!({"spec": {"template": {"spec": {"containers": [{"image": image}]}}}});
        self.effect(|state| {
            let clock = state.clock;
            state.objects.insert(format!("{kind}/kube-system/{name}"), (clock, object));
        })
    }

    pub(super) fn activate(&self, arguments: &[&str]) -> Done<Ended> {
        let at = arguments.iter().position(|word| *word == "activate").unwrap();
        let name = arguments[at + 1];
        if !self.alive()?.has(&format!("{}/bundles/{name}.json", layout::STORE)) {
            return Ok(bad("the store has no such bundle"));
        }
        self.effect(|state| {
            let place = format!("{}/active", layout::STORE);
            state.put(&place, name.as_bytes(), 0o640);
            let place = state.place(&place);
            state.nodes.get_mut(&place).unwrap().owner = String::from(layout::REGISTRY_USER);
        })?;
        Ok(good())
    }

    pub(super) fn files(&self, program: &str, arguments: &[&str]) -> Done<Ended> {
        match program {
            "df" => Ok(said("Avail Mounted on\n100000000000 /\n")),
            "rm" => {
                assert_eq!(arguments[..2], ["-rf", "--one-file-system"]);
                let path = arguments[2];
                self.effect(|state| {
                    let place = state.place(path);
                    state.nodes.retain(|name, _| *name != place && !name.starts_with(&format!("{place}/")));
                })?;
                Ok(good())
            }
            _ => {
                let (from, to) = (arguments[0], arguments[1]);
                assert!(!self.alive()?.has(to), "mv onto {to}");
                if !self.alive()?.has(from) {
                    return Ok(bad("no such file"));
                }
                self.effect(|state| {
                    state.rename(from, to);
                    if to == format!("{ETCD}/member") {
                        let db = state.text(&format!("{to}/db")).unwrap();
                        state.objects = serde_json::from_str(&db).unwrap();
                    }
                })?;
                Ok(good())
            }
        }
    }

    pub(super) fn list_images(&self, namespace: &str) -> Ended {
        let digest = bundle::oci::Digest::sha256_of(b"");
        let state = self.state.borrow();
        let mut text = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n".to_owned();
        for (name, labels) in &state.images {
            if let Some(name) = name.strip_prefix(&format!("{namespace} ")) {
                let labels = if labels.is_empty() {
                    "-".to_owned()
                } else {
                    labels.iter().cloned().collect::<Vec<_>>().join(",")
                };
                text.push_str(&format!("{name} application/x {digest} 1.0 MiB linux/amd64 {labels}\n"));
            }
        }
        said(text)
    }

    /// Containers and tasks: etcd runs as long as its manifest is there; `run` restores its snapshot.
    pub(super) fn ctr_etcd(&self, arguments: &[&str]) -> Done<Ended> {
        match arguments[2..4] {
            ["containers" | "tasks", "list"] => Ok(said("CONTAINER IMAGE RUNTIME\n")),
            ["containers", "delete"] => Ok(good()),
            ["run", "--rm"] => {
                assert!(!self.alive()?.has("/etc/kubernetes/manifests/etcd.yaml"), "etcd runs");
                let db = self.alive()?.text(&format!("{ETCD}/cofferdam-snapshot.db")).expect("etcd's snapshot");
                let part = format!("{ETCD}/cofferdam-part");
                if self.alive()?.has(&part) {
                    return Ok(bad("the data directory exists"));
                }
                self.effect(|state| state.put(&format!("{part}/member/db"), db.as_bytes(), 0o600))?;
                Ok(good())
            }
            _ => panic!("ctr {arguments:?}"),
        }
    }

    pub(super) fn etcdctl(&self, arguments: &[&str]) -> Done<Ended> {
        let at = arguments.iter().position(|word| *word == "etcdctl").unwrap();
        let words: Vec<&str> = arguments[at + 1..].iter().copied().filter(|word| !word.starts_with("--")).collect();
        match words[..] {
            ["endpoint", "status", "-w", "json"] => {
                let errors = if self.alive()?.has_fault("etcd") { json!(["etcdserver: no space"]) } else { json!([]) };
                let status = json!({"leader": 1, "raftIndex": 100, "errors": errors});
                Ok(said(json!([{"Endpoint": "https://192.0.2.11:2379", "Status": status}]).to_string()))
            }
            ["snapshot", "save", path] => {
                let dump = serde_json::to_string(&self.alive()?.objects).unwrap();
                self.effect(|state| state.put(path, dump.as_bytes(), 0o600))?;
                Ok(good())
            }
            ["snapshot", "status", path, "-w", "json"] => {
                let there = self.alive()?.has(path);
                Ok(if there { said("{\"revision\": 7}") } else { bad("no such file") })
            }
            _ => panic!("etcdctl {words:?}"),
        }
    }

    pub(super) fn raw(&self, path: &str) -> Ended {
        match path {
            "/version" => {
                let image = self.state.borrow().image_of("kube-apiserver").unwrap();
                said(json!({"gitVersion": image.rsplit_once(':').unwrap().1}).to_string())
            }
            "/metrics" => said("# nothing\n"),
            other => panic!("kubectl get --raw {other}"),
        }
    }

    pub(super) fn delete_object(&self, resource: &str, name: &str, namespace: &str) -> Done<Ended> {
        let kind = resource.split('.').next().unwrap().to_lowercase();
        let key = format!("{kind}/{namespace}/{name}");
        self.effect(|state| {
            state.objects.remove(&key);
        })?;
        Ok(good())
    }

    /// `nodes`, `poddisruptionbudgets`, and `pods` of the control plane or of a namespace.
    pub(super) fn list_objects(&self, kind: &str, arguments: &[&str]) -> Ended {
        let state = self.state.borrow();
        let condition = |kind: &str, is_true: bool| json!([{"type": kind, "status": if is_true { "True" } else { "False" }, "message": "starting"}]);
        let items: Vec<Value> = match kind {
            "poddisruptionbudgets" => Vec::new(),
            "nodes" => vec![json!({
                "metadata": {"name": "rack7-a"},
                "status": {"conditions": condition("Ready", state.node_is_ready()), "nodeInfo": {"kubeletVersion": "v1"}},
            })],
            _ if arguments.contains(&"tier=control-plane") => {
                ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
                    .iter()
                    .filter_map(|name| {
                        Some(json!({
                            "metadata": {"name": format!("{name}-rack7-a")},
                            "spec": {"containers": [{"image": state.image_of(name)?}]},
                            "status": {"conditions": condition("Ready", !state.has_fault("control-plane"))},
                        }))
                    })
                    .collect()
            }
            _ => {
                let namespace = arguments[arguments.iter().position(|word| *word == "-n").unwrap() + 1];
                let workloads = state.objects.keys().filter(|name| {
                    let mut parts = name.split('/');
                    matches!(parts.next(), Some("deployment" | "daemonset")) && parts.next() == Some(namespace)
                });
                workloads
                    .map(|name| {
                        let ready = state.object_is_ready(name) && !state.has_fault("pods");
                        json!({"metadata": {"name": name}, "status": {"phase": "Running", "conditions": condition("Ready", ready)}})
                    })
                    .collect()
            }
        };
        said(json!({"items": items}).to_string())
    }
}
