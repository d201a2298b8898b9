//! The Kubernetes part of a plan: which images the pack brings, and `kubeadm init` phase by phase, so that each phase
//! can be repeated on its own and is given the time that this machine needs.

use bundle::index::{Index, Layer, Pack};

use super::{Action, PlanError, Proof, Steps};
use crate::config::InstallConfig;
use crate::layout;

/// Machines slower than this get relaxed probes and elections.
const PATIENT_FROM: f64 = 3.0;

/// What the bundle's Kubernetes pack says.
pub(crate) struct Kubernetes {
    /// For example `1.20.2`.
    pub(crate) version: String,
    /// `kubeadm.k8s.io/…`
    pub(crate) api: &'static str,
    images: Vec<String>,
    /// The repository that kubeadm prefixes to its images.
    pub(crate) repository: String,
    /// Tag of the etcd image.
    pub(crate) etcd_tag: String,
    /// The whole name of the etcd image.
    pub(crate) etcd: String,
    /// Tag of the `coredns` image, if there is one.
    pub(crate) coredns_tag: Option<String>,
    /// The sandbox image.
    pub(crate) pause: String,
}

impl Kubernetes {
    pub(crate) fn of(index: &Index) -> Result<Self, PlanError> {
        let bundle = || format!("{} {}", index.name, index.version);
        let pack = crate::upgrade::newest_kubernetes(index)
            .ok_or_else(|| PlanError::MissingLayer { bundle: bundle(), layer: "kubernetes" })?;
        layer(index, Layer::Network).ok_or_else(|| PlanError::MissingLayer { bundle: bundle(), layer: "network" })?;
        Self::of_pack(index, pack)
    }

    /// What one Kubernetes pack of a bundle says; a bundle may carry older ones as stepping stones.
    pub(crate) fn of_pack(index: &Index, pack: &Pack) -> Result<Self, PlanError> {
        let bundle = || format!("{} {}", index.name, index.version);
        let images: Vec<String> = pack.images.iter().map(|image| image.reference.to_string()).collect();
        let find = |name: &'static str| {
            images
                .iter()
                .find_map(|image| {
                    let (repository, tag) = image.rsplit_once(':')?;
                    (repository.rsplit('/').next() == Some(name)).then_some((image.as_str(), repository, tag))
                })
                .ok_or_else(|| PlanError::MissingImage { bundle: bundle(), image: name })
        };
        for name in ["kube-controller-manager", "kube-scheduler", "kube-proxy"] {
            find(name)?;
        }
        let (_, apiserver, _) = find("kube-apiserver")?;
        let (etcd, _, etcd_tag) = find("etcd")?;
        let (pause, _, _) = find("pause")?;
        Ok(Self {
            api: config_api(&pack.version).ok_or_else(|| PlanError::Version { version: pack.version.clone() })?,
            version: pack.version.clone(),
            repository: apiserver.trim_end_matches("/kube-apiserver").to_owned(),
            etcd_tag: etcd_tag.to_owned(),
            etcd: etcd.to_owned(),
            coredns_tag: find("coredns").ok().map(|(_, _, tag)| tag.to_owned()),
            pause: pause.to_owned(),
            images,
        })
    }

    /// The map's name lost its version in 1.24 (kubeadm feature `UnversionedKubeletConfigMap`).
    fn kubelet_config_map(&self) -> String {
        match minor(&self.version) {
            Some(minor) if minor < 24 => format!("kubelet-config-1.{minor}"),
            _ => "kubelet-config".to_owned(),
        }
    }

    /// What `upload-config` makes, the last objects too: kubeadm may have been cut off before them.
    fn uploaded(&self) -> String {
        let map = self.kubelet_config_map();
        format!("configmap/kubeadm-config configmap/{map} rolebinding/kubeadm:{map} -n kube-system")
    }

    #[expect(clippy::too_many_lines, reason = "a list, in the order of the phases")]
    pub(super) fn steps(&self, config: &InstallConfig, packs: &[&Pack], steps: &mut Steps) {
        let mut images = self.images.clone();
        images.extend(
            packs
                .iter()
                .filter(|pack| pack.layer != Layer::Kubernetes)
                .flat_map(|pack| pack.images.iter().map(|image| image.reference.to_string())),
        );
        steps.add(
            "runtime.configure",
            "Configure and start containerd",
            2,
            120,
            Action::ConfigureRuntime {
                sandbox_image: self.pause.clone(),
                mirror: format!("https://{}:{}", bracketed(config.node.address), layout::REGISTRY_PORT),
            },
        );
        steps.add_retried(
            "images.pull",
            "Pull the images through containerd",
            10,
            900,
            3,
            Action::PullImages { images },
        );
        let patient = steps.slowness >= PATIENT_FROM;
        steps.add(
            "kubernetes.configure",
            "Write the configuration of the control plane",
            1,
            60,
            Action::ConfigureKubernetes {
                version: self.version.clone(),
                api: self.api.to_owned(),
                image_repository: self.repository.clone(),
                etcd_tag: self.etcd_tag.clone(),
                patient,
            },
        );
        let file = |path: &str| Proof::File(path.into());
        let object = |name: &str| Proof::Object(name.to_owned());
        let mut phase = |id: &str, title: &str, weight, limit, phase: &str, proof| {
            let action = Action::KubeadmPhase { phase: phase.to_owned(), proof };
            steps.add_retried(&format!("kubernetes.{id}"), title, weight, limit, 10, action);
        };
        phase("certs", "Make the cluster's certificates", 3, 120, "certs all", file("/etc/kubernetes/pki/sa.pub"));
        phase(
            "kubeconfig",
            "Write the kubeconfig files",
            1,
            60,
            "kubeconfig all",
            file("/etc/kubernetes/scheduler.conf"),
        );
        phase("etcd", "Write etcd's manifest", 1, 60, "etcd local", file("/etc/kubernetes/manifests/etcd.yaml"));
        phase(
            "control-plane",
            "Write the control plane's manifests",
            1,
            60,
            "control-plane all",
            file("/etc/kubernetes/manifests/kube-scheduler.yaml"),
        );
        phase("kubelet", "Start the kubelet", 2, 120, "kubelet-start", file("/var/lib/kubelet/config.yaml"));
        steps.add("kubernetes.api", "Wait for the API server", 15, 240, Action::WaitForApi);
        let mut phase = |id: &str, title: &str, weight, limit, phase: &str, proof| {
            let action = Action::KubeadmPhase { phase: phase.to_owned(), proof };
            steps.add_retried(&format!("kubernetes.{id}"), title, weight, limit, 10, action);
        };
        phase(
            "upload-config",
            "Store the configuration in the cluster",
            1,
            60,
            "upload-config all",
            object(&self.uploaded()),
        );
        phase("mark", "Mark the control plane node", 1, 60, "mark-control-plane", object("node-role"));
        phase(
            "kubelet-finalize",
            "Let the kubelet rotate its certificate",
            1,
            60,
            "kubelet-finalize all",
            Proof::Text { path: "/etc/kubernetes/kubelet.conf".into(), text: "kubelet-client-current.pem".to_owned() },
        );
        phase(
            "kube-proxy",
            "Apply kube-proxy",
            2,
            60,
            "addon kube-proxy",
            object("daemonset/kube-proxy rolebinding/kube-proxy -n kube-system"),
        );
        if self.coredns_tag.is_some() {
            phase(
                "coredns",
                "Apply CoreDNS",
                2,
                60,
                "addon coredns",
                object("deployment/coredns service/kube-dns -n kube-system"),
            );
        }
    }
}

fn layer(index: &Index, layer: Layer) -> Option<&Pack> {
    index.packs.iter().find(|pack| pack.layer == layer)
}

/// kubeadm's configuration API by Kubernetes version; `None` for a version we do not know.
pub(crate) fn config_api(version: &str) -> Option<&'static str> {
    match minor(version)? {
        20..=21 => Some("kubeadm.k8s.io/v1beta2"),
        22..=30 => Some("kubeadm.k8s.io/v1beta3"),
        31..=35 => Some("kubeadm.k8s.io/v1beta4"),
        _ => None,
    }
}

/// The minor number of a `1.x` version.
pub(crate) fn minor(version: &str) -> Option<u32> {
    version.trim_start_matches('v').strip_prefix("1.")?.split('.').next()?.parse().ok()
}

/// An address as it stands in a URL (RFC 3986, 3.2.2).
pub(crate) fn bracketed(address: std::net::IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}
