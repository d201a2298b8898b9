//! Steps under construction: what both plans of an upgrade add to themselves, with what it makes unreachable. Pure.

use std::collections::BTreeSet;

use bundle::index::{InstallTarget, Pack, PackImage, PackManifest};

use super::action::{Action, GateKind};
use super::shown::Downtime;
use super::site::Site;
use crate::config::PackAnswers;
use crate::plan::{self, Kubernetes, Steps};

/// Steps with what they make unreachable.
pub(super) struct Stages {
    pub(super) steps: Steps,
    pub(super) downtime: Vec<Downtime>,
}

impl Stages {
    pub(super) fn new(site: &Site) -> Self {
        Self { steps: Steps { slowness: site.slowness.max(1.0), steps: Vec::new() }, downtime: Vec::new() }
    }

    pub(super) fn upgrade(&mut self, id: &str, title: &str, weight: u32, limit: u64, what: Action) {
        self.steps.add(id, title, weight, limit, plan::Action::Upgrade { what });
    }

    pub(super) fn retried(&mut self, id: &str, title: &str, weight: u32, limit: u64, attempts: u32, what: Action) {
        self.steps.add_retried(id, title, weight, limit, attempts, plan::Action::Upgrade { what });
    }

    /// The last step makes this unreachable.
    pub(super) fn costs(&mut self, api: u32, workload: u32, what: &str) {
        let Some(step) = self.steps.steps.last() else { return };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "seconds, times a factor of at most 20"
        )]
        let scaled = |seconds: u32| (f64::from(seconds) * self.steps.slowness).round() as u32;
        self.downtime.push(Downtime {
            step: step.id.clone(),
            api_seconds: scaled(api),
            workload_seconds: scaled(workload),
            what: what.to_owned(),
        });
    }

    pub(super) fn gates(&mut self, stage: &str, gates: &[GateKind], packs: &[&Pack]) {
        let names: Vec<_> = gates.iter().map(|gate| gate.as_str()).collect();
        let title = format!("Gates after {stage}: {}", names.join(", "));
        let what = Action::Gates { gates: gates.to_vec(), namespaces: namespaces(packs) };
        self.upgrade(&format!("gates:{stage}"), &title, 5, 180, what);
    }

    pub(super) fn restart(&mut self, id: &str, unit: &str, program: &str) {
        let what = Action::Restart { unit: unit.to_owned(), program: program.to_owned() };
        self.retried(id, &format!("Let {unit} run the release's program"), 3, 120, 3, what);
    }

    pub(super) fn upload(&mut self, id: &str, version: &str) {
        let what = Action::UploadConfig { version: version.to_owned() };
        self.retried(id, "Store the configuration in the cluster", 2, 120, 10, what);
    }

    pub(super) fn await_control_plane(&mut self, id: &str, kubernetes: &Kubernetes) {
        let (version, etcd_tag) = (kubernetes.version.clone(), kubernetes.etcd_tag.clone());
        let title = format!("Wait until the control plane runs {version}");
        self.upgrade(id, &title, 10, 300, Action::AwaitControlPlane { version, etcd_tag });
    }

    pub(super) fn addons(&mut self, proxy: &str, coredns: &str, kubernetes: &Kubernetes) {
        let addon = |addon: &str, object: &str, tag: String| Action::UpgradeAddon {
            addon: addon.to_owned(),
            object: object.to_owned(),
            tag,
        };
        let what = addon("kube-proxy", "daemonset/kube-proxy", format!("v{}", kubernetes.version));
        self.retried(proxy, "Apply kube-proxy", 3, 60, 10, what);
        if let Some(tag) = &kubernetes.coredns_tag {
            let what = addon("coredns", "deployment/coredns", tag.clone());
            self.retried(coredns, "Apply CoreDNS", 3, 60, 10, what);
        }
    }

    pub(super) fn apply(&mut self, pack: &Pack) {
        if pack.manifests.is_empty() && pack.secrets.is_empty() && pack.gates.is_empty() {
            return;
        }
        let gates: u64 = pack.gates.iter().map(|gate| u64::from(gate.timeout_seconds)).sum();
        let title = format!("Apply pack {} {}", pack.name, pack.version);
        let action = plan::Action::ApplyPack { pack: pack.name.clone() };
        self.steps.add_retried(&format!("pack.apply:{}", pack.name), &title, 10, 60 + gates, 3, action);
        self.costs(0, 10, &format!("workloads of {} that have one replica are replaced", pack.name));
    }

    /// What `gone`, with its answers, has and `kept` does not. `differ`: the answers are other ones.
    pub(super) fn prune(
        &mut self,
        pack: &str,
        (gone, answers): (Vec<PackManifest>, PackAnswers),
        kept: Vec<PackManifest>,
        differ: bool,
    ) {
        let all: BTreeSet<_> = kept.iter().map(|manifest| manifest.digest).collect();
        if gone.iter().all(|manifest| all.contains(&manifest.digest) && !(manifest.template && differ)) {
            return;
        }
        let what = Action::Prune { pack: pack.to_owned(), gone, answers, kept };
        self.retried(
            &format!("pack.prune:{pack}"),
            &format!("Remove what pack {pack} does not have any more"),
            2,
            120,
            3,
            what,
        );
    }

    /// Files of one release that the other does not have.
    pub(super) fn remove_files(&mut self, from: &[&Pack], to: &[&Pack]) {
        let kept: BTreeSet<&str> =
            to.iter().flat_map(|pack| targets(pack)).map(|target| target.path.as_str()).collect();
        let gone: BTreeSet<&str> =
            from.iter().flat_map(|pack| targets(pack)).map(|target| target.path.as_str()).collect();
        let paths: Vec<String> = gone.difference(&kept).map(|path| (*path).to_owned()).collect();
        if !paths.is_empty() {
            self.upgrade(
                "files.remove",
                "Remove files that the release does not have",
                1,
                60,
                Action::RemoveFiles { paths },
            );
        }
    }

    /// Everything once more, and what users do: the name over TLS, a pull through containerd.
    pub(super) fn last_gates(&mut self, packs: &[&Pack], kubernetes: &Kubernetes) {
        let all = [GateKind::Api, GateKind::Etcd, GateKind::Nodes, GateKind::Pods, GateKind::Registry];
        self.gates("all", &all, packs);
        let workload = packs
            .iter()
            .any(|pack| pack.secrets.iter().any(|secret| secret.kind == bundle::index::SecretKind::SiteCertificate));
        let action = plan::Action::Rehearse { image: kubernetes.pause.clone(), workload };
        self.steps.add_retried("rehearsal", "Rehearse: TLS by FQDN, a pull through containerd", 3, 120, 5, action);
    }
}

pub(super) fn targets(pack: &Pack) -> impl Iterator<Item = &InstallTarget> {
    pack.files.iter().flat_map(|file| &file.install)
}

pub(super) fn paths(pack: &Pack, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    targets(pack).map(|target| target.path.clone()).filter(|path| wanted(path)).collect()
}

pub(super) fn images(packs: &[&Pack]) -> Vec<PackImage> {
    let mut images: Vec<PackImage> = Vec::new();
    for image in packs.iter().flat_map(|pack| &pack.images) {
        if !images.contains(image) {
            images.push(image.clone());
        }
    }
    images
}

pub(super) fn is_kubelet(path: &str) -> bool {
    path.rsplit('/').next() == Some("kubelet")
}

/// What is noted beside the snapshot when a version of Kubernetes begins, as `PACK.NAME` of a migration is.
pub(super) const KUBERNETES_MARK: &str = "kubernetes-version";

pub(super) const CONTAINERD: &str = "/usr/local/bin/containerd";
pub(super) const KUBELET: &str = "/usr/local/bin/kubelet";

/// Namespaces whose pods the product answers for.
pub(super) fn namespaces(packs: &[&Pack]) -> Vec<String> {
    let mut all: BTreeSet<String> = BTreeSet::from(["kube-system".to_owned()]);
    for pack in packs {
        all.extend(pack.gates.iter().map(|gate| gate.namespace.clone()));
        all.extend(pack.secrets.iter().map(|secret| secret.namespace.clone()));
    }
    all.into_iter().collect()
}
