//! containerd, kubeadm and the API server of the simulated host. The order of kubeadm's effects is that of kubeadm
//! itself: keys before certificates, what exists already is used, half a pair is an error.

use installer::layout;
use serde_json::{Value, json};

use super::commands::{Ended, bad, good, said, truth};
use super::{Done, SimulatedHost, State};

const PKI: &str = "/etc/kubernetes/pki";
const PAIRS: &[&str] = &[
    "ca",
    "apiserver",
    "apiserver-kubelet-client",
    "front-proxy-ca",
    "front-proxy-client",
    "etcd/ca",
    "etcd/server",
    "etcd/peer",
    "etcd/healthcheck-client",
    "apiserver-etcd-client",
];

impl SimulatedHost {
    pub(super) fn ctr(&self, arguments: &[&str]) -> Done<Ended> {
        if !self.alive()?.active.contains("containerd.service") {
            return Ok(bad("cannot reach containerd"));
        }
        if arguments[2] != "images" {
            return self.ctr_etcd(arguments);
        }
        let (namespace, verb) = (arguments[1], arguments[3]);
        match verb {
            "list" => {
                if arguments.len() == 4 {
                    return Ok(self.list_images(namespace));
                }
                assert_eq!(arguments[4], "--quiet");
                let label = arguments.get(5).map(|filter| {
                    assert_eq!(*filter, "labels.\"io.cri-containerd.pinned\"==pinned");
                    "io.cri-containerd.pinned=pinned"
                });
                let state = self.alive()?;
                let names = state.images.iter().filter(|(_, labels)| label.is_none_or(|label| labels.contains(label)));
                let prefix = format!("{namespace} ");
                Ok(said(
                    names
                        .filter_map(|(name, _)| name.strip_prefix(&prefix))
                        .fold(String::new(), |text, name| format!("{text}{name}\n")),
                ))
            }
            "pull" => {
                assert_eq!(arguments[4..6], ["--hosts-dir", "/etc/containerd/certs.d"]);
                let image = arguments[6];
                let served = {
                    let state = self.alive()?;
                    state.active.contains("cofferdam-registry.service")
                        && state.has("/etc/containerd/certs.d/_default/hosts.toml")
                        && state.has(&format!("{}/bundles/{}.json", layout::STORE, self.medium.name))
                        && self.medium.images.iter().any(|known| known == image)
                };
                if !served {
                    return Ok(bad(&format!("{image}: not found")));
                }
                // A pull replaces the record of the image: its labels are gone.
                self.effect(|state| {
                    state.images.insert(format!("{namespace} {image}"), std::collections::BTreeSet::new());
                })?;
                Ok(good())
            }
            "label" => {
                let name = format!("{namespace} {}", arguments[4]);
                if !self.alive()?.images.contains_key(&name) {
                    return Ok(bad("not found"));
                }
                self.effect(|state| {
                    state.images.get_mut(&name).unwrap().insert(arguments[5].to_owned());
                })?;
                Ok(good())
            }
            "remove" => {
                self.effect(|state| {
                    state.images.remove(&format!("{namespace} {}", arguments[4]));
                })?;
                Ok(good())
            }
            other => panic!("ctr images {other}"),
        }
    }

    pub(super) fn kubeadm(&self, arguments: &[&str]) -> Done<Ended> {
        if arguments[0] == "upgrade" {
            return self.kubeadm_upgrade(arguments);
        }
        assert_eq!(arguments[..2], ["init", "phase"]);
        let end = arguments.iter().position(|word| *word == "--config").unwrap();
        assert!(self.alive()?.has(arguments[end + 1]), "kubeadm's configuration");
        let phase = arguments[2..end].join(" ");
        let needs_api =
            ["upload-config all", "mark-control-plane", "addon kube-proxy", "addon coredns"].contains(&phase.as_str());
        if needs_api && !self.alive()?.api_is_up() {
            return Ok(bad("connection refused"));
        }
        match phase.as_str() {
            "certs all" => return self.kubeadm_certificates(),
            "kubeconfig all" => {
                for name in ["admin", "kubelet", "controller-manager", "scheduler"] {
                    let path = format!("/etc/kubernetes/{name}.conf");
                    if !self.alive()?.has(&path) {
                        self.effect(|state| state.put_unique(&path, 0o600))?;
                    } else if !self.alive()?.has_content(&path) {
                        return Ok(bad(&format!("a kubeconfig file {path} exists already but is invalid")));
                    }
                }
            }
            "etcd local" => self.manifest("etcd")?,
            "control-plane all" => {
                for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
                    self.manifest(name)?;
                }
            }
            "kubelet-start" => {
                for (path, text) in [("kubeadm-flags.env", "KUBELET_KUBEADM_ARGS="), ("config.yaml", "kind: Kubelet")] {
                    let path = format!("/var/lib/kubelet/{path}");
                    self.effect(|state| {
                        // Go's WriteFile leaves the mode of a file that is there.
                        let mode = state.get(&path).map_or(0o644, |node| node.mode);
                        state.put_unsynced(&path, text.as_bytes(), mode);
                    })?;
                }
                return self.start_all(&["kubelet.service"]);
            }
            "upload-config all" => {
                self.store_config()?;
                for name in [
                    "rolebinding/kube-system/kubeadm:nodes-kubeadm-config",
                    "configmap/kube-system/kubelet-config",
                    "role/kube-system/kubeadm:kubelet-config",
                    "rolebinding/kube-system/kubeadm:kubelet-config",
                ] {
                    self.object(name)?;
                }
            }
            "mark-control-plane" => self.object("node-role//control-plane")?,
            "kubelet-finalize all" => {
                self.effect(|state| {
                    state.put_unsynced(
                        "/etc/kubernetes/kubelet.conf",
                        b"/var/lib/kubelet/pki/kubelet-client-current.pem",
                        0o600,
                    );
                })?;
                return self.start_all(&["kubelet.service"]);
            }
            "addon kube-proxy" => {
                self.store_addon("daemonset", "kube-proxy")?;
                for name in [
                    "serviceaccount/kube-system/kube-proxy",
                    "configmap/kube-system/kube-proxy",
                    "clusterrolebinding/kube-system/kubeadm:node-proxier",
                    "role/kube-system/kube-proxy",
                    "rolebinding/kube-system/kube-proxy",
                ] {
                    self.object(name)?;
                }
            }
            "addon coredns" => {
                self.store_addon("deployment", "coredns")?;
                for name in [
                    "configmap/kube-system/coredns",
                    "serviceaccount/kube-system/coredns",
                    "service/kube-system/kube-dns",
                ] {
                    self.object(name)?;
                }
            }
            other => panic!("kubeadm init phase {other}"),
        }
        Ok(good())
    }

    fn kubeadm_certificates(&self) -> Done<Ended> {
        for name in PAIRS {
            let (key, certificate) = (format!("{PKI}/{name}.key"), format!("{PKI}/{name}.crt"));
            let (has_key, has_certificate) = (self.alive()?.has(&key), self.alive()?.has(&certificate));
            let is_empty = has_key
                && has_certificate
                && !(self.alive()?.has_content(&key) && self.alive()?.has_content(&certificate));
            if has_key != has_certificate || is_empty {
                return Ok(bad(&format!("failure loading {name} certificate")));
            }
            if !has_key {
                self.effect(|state| state.put_unique(&key, 0o600))?;
                self.effect(|state| state.put_unique(&certificate, 0o644))?;
            }
        }
        // An sa.key that is there is used, and nothing else is looked at.
        if !self.alive()?.has(&format!("{PKI}/sa.key")) {
            self.effect(|state| state.put_unique(&format!("{PKI}/sa.key"), 0o600))?;
            self.effect(|state| state.put_unique(&format!("{PKI}/sa.pub"), 0o600))?;
        }
        Ok(good())
    }

    pub(super) fn manifest(&self, name: &str) -> Done<()> {
        let path = format!("/etc/kubernetes/manifests/{name}.yaml");
        let tag = if name == "etcd" { self.configured("imageTag: ") } else { self.configured("kubernetesVersion: ") };
        let text = format!("kind: Pod\n  - image: registry.k8s.io/{name}:{tag}\n");
        self.effect(|state| {
            // kubeadm's upgrade moves the old one away first: nothing is replaced.
            let place = state.place(&path);
            let is_another = state.text(&path).is_some_and(|old| old != text);
            state.put_unsynced(&path, text.as_bytes(), 0o600);
            if is_another {
                state.unsynced.insert(place);
            }
        })
    }

    pub(super) fn object(&self, name: &str) -> Done<()> {
        self.effect(|state| {
            let clock = state.clock;
            state.objects.entry(name.to_owned()).or_insert((clock, json!({})));
        })
    }

    pub(super) fn kubectl(&self, arguments: &[&str], input: &[u8]) -> Done<Ended> {
        let arguments: Vec<&str> =
            arguments.iter().copied().filter(|word| !word.starts_with("--request-timeout=")).collect();
        let file = arguments[0].strip_prefix("--kubeconfig=").unwrap();
        if !self.alive()?.has_content(file) {
            return Ok(bad("no kubeconfig"));
        }
        if !self.alive()?.api_is_up() {
            return Ok(bad("The connection to the server was refused"));
        }
        match arguments[1..] {
            ["get", "--raw", "/readyz"] => Ok(truth(!self.alive()?.has_fault("api"))),
            ["get", "nodes", selector, "-o", "name"] => {
                assert_eq!(selector, "-l=node-role.kubernetes.io/control-plane");
                let is_marked = self.alive()?.objects.contains_key("node-role//control-plane");
                Ok(said(if is_marked { "node/rack7-a\n" } else { "" }))
            }
            ["get", "node", "rack7-a", "-o", "json"] => {
                let ready = self.alive()?.node_is_ready();
                let condition =
                    json!({"type": "Ready", "status": if ready { "True" } else { "False" }, "message": "cni"});
                Ok(said(json!({"status": {"conditions": [condition]}}).to_string()))
            }
            ["exec", ..] => self.etcdctl(&arguments[1..]),
            ["delete", resource, name, "-n", namespace, "--ignore-not-found", ..] => {
                self.delete_object(resource, name, namespace)
            }
            ["get", "--raw", path] => Ok(self.raw(path)),
            ["get", "deployments,daemonsets,statefulsets", ..] => Ok(said("{\"items\": []}")),
            ["get", "nodes" | "pods" | "poddisruptionbudgets", ref rest @ ..] => {
                Ok(self.list_objects(arguments[2], rest))
            }
            ["drain" | "uncordon", ..] => {
                self.effect(|_| {})?;
                Ok(good())
            }
            ["get", ref rest @ ..] => Ok(self.get_objects(rest)),
            ["create", "-f", "-"] => {
                let object: Value = serde_json::from_slice(input).unwrap();
                let name = object_name(&object);
                if self.alive()?.objects.contains_key(&name) {
                    return Ok(bad("AlreadyExists"));
                }
                if name.starts_with("secret/") {
                    let namespace = format!("namespace//{}", object["metadata"]["namespace"].as_str().unwrap());
                    if !self.alive()?.objects.contains_key(&namespace) {
                        return Ok(bad("the namespace is not found"));
                    }
                }
                self.effect(|state| {
                    if name.starts_with("secret/") {
                        state.secrets_made.push(name.clone());
                    }
                    state.objects.insert(name, (state.clock, object));
                })?;
                Ok(good())
            }
            ["apply", "-f", "-"] => {
                for document in std::str::from_utf8(input).unwrap().split("---\n") {
                    let object: Value = serde_yaml::from_str(document).unwrap();
                    let name = object_name(&object);
                    self.effect(|state| {
                        let since = state.objects.get(&name).map_or(state.clock, |(since, _)| *since);
                        state.objects.insert(name, (since, object));
                    })?;
                }
                Ok(good())
            }
            _ => panic!("kubectl {arguments:?}"),
        }
    }

    /// `KIND NAME` or `KIND/NAME …`, then `-n NAMESPACE -o FORMAT`.
    fn get_objects(&self, arguments: &[&str]) -> Ended {
        let after =
            |flag: &str| arguments.iter().position(|word| *word == flag).map_or("", |position| arguments[position + 1]);
        let (namespace, format) = (after("-n"), after("-o"));
        let words: Vec<_> = arguments.iter().take_while(|word| !word.starts_with('-')).collect();
        if words == [&"events"] {
            return said(json!({"items": []}).to_string());
        }
        let wanted: Vec<(String, String)> = if words[0].contains('/') {
            words.iter().map(|word| word.split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap()).collect()
        } else {
            assert_eq!(words.len(), 2, "{arguments:?}");
            vec![((*words[0]).to_owned(), (*words[1]).to_owned())]
        };
        let state = self.state.borrow();
        let names: Vec<_> = wanted.iter().map(|(kind, name)| format!("{kind}/{namespace}/{name}")).collect();
        if !names.iter().all(|name| state.objects.contains_key(name)) {
            return bad("NotFound");
        }
        if format == "name" {
            return truth(true);
        }
        if names[0].starts_with("configmap/") {
            return said(state.objects[&names[0]].1.to_string());
        }
        let (name, (_, object)) = (&names[0], &state.objects[&names[0]]);
        let mut object = object.clone();
        let ready = state.object_is_ready(name);
        object["metadata"]["generation"] = json!(1);
        object["status"] = json!({
            "observedGeneration": 1, "numberReady": i32::from(ready), "desiredNumberScheduled": 1,
            "conditions": [
                {"type": "Available", "status": if ready { "True" } else { "False" }, "message": "starting"},
                {"type": "Complete", "status": if ready { "True" } else { "False" }, "message": ""},
            ],
        });
        said(object.to_string())
    }
}

impl State {
    /// The static pods run twenty seconds after the kubelet began.
    pub fn api_is_up(&self) -> bool {
        let manifests = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
        self.active.contains("kubelet.service")
            && self.active.contains("containerd.service")
            && manifests.iter().all(|name| self.has_content(&format!("/etc/kubernetes/manifests/{name}.yaml")))
            && self.has_content(&format!("{PKI}/sa.pub"))
            && self.has("/etc/kubernetes/cofferdam/encryption.yaml")
            && self.api_since.is_some_and(|since| self.clock >= since + 20)
    }

    /// A workload is ready ten seconds after it was applied and after the API server came.
    pub fn object_is_ready(&self, name: &str) -> bool {
        let Some((since, _)) = self.objects.get(name) else { return false };
        self.api_is_up() && self.clock >= since + 10 && !(name == "deployment/portal/portal" && self.has_fault("pack"))
    }
}

fn object_name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!("{}/{}/{}", text(&object["kind"]).to_lowercase(), text(&metadata["namespace"]), text(&metadata["name"]))
}
