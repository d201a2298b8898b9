//! The plan of an upgrade and the plan of the way back, computed together before anything is done. Pure: the same site and
//! index give the same plans.
//!
//! Order: what the way back needs is saved; everything is loaded and pulled before anything changes; then containerd,
//! then Kubernetes minor by minor (control plane, then kubelet), then packs by layer with their migrations; a gate after
//! each stage; the record last. The way back runs the same actions with the old release's arguments; each of its steps
//! asks whether it has anything to do, so that it may begin wherever the way forward ended.

use std::collections::BTreeSet;

use bundle::index::{Index, Layer, Pack};
use camino::Utf8PathBuf;

use super::action::{Action, GateKind};
use super::answers::{self, Answered};
use super::difference::{self, FileDifference};
use super::path;
use super::shown::{Downtime, PackChange, Release, UpgradePlan};
use super::site::Site;
use super::slots;
use super::space;
use super::stages::{CONTAINERD, KUBELET, KUBERNETES_MARK, Stages, images, is_kubelet, paths, targets};
use crate::config::{Answers, Encryption, InstallConfig};
use crate::layout;
use crate::plan::{self, Kubernetes, Plan, PlanError, Steps};
use crate::step::{KubeadmParameters, render_kubeadm_config};

/// The version of the plan's JSON.
pub const SCHEMA_VERSION: u32 = 1;

/// The pods that a control plane change makes unreachable for, in seconds on a normal server.
const API_RESTART: u32 = 25;

/// The bundle that may come, verified.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Its index.
    pub index: &'a Index,
    /// SHA-256 of the index.
    pub digest: &'a str,
    /// The file.
    pub path: &'a camino::Utf8Path,
    /// Its size in bytes.
    pub bytes: u64,
    /// Id of the key that signed it.
    pub signer: &'a str,
    /// Answers to the questions of its packs that are given for this upgrade, by a file or on the terminal.
    pub answers: &'a Answers,
}

/// Computes both plans.
pub fn plan(site: &Site, incoming: &Incoming) -> Result<UpgradePlan, PlanError> {
    let next = incoming.index;
    let path = path::path(&site.index, next);
    let planner = Planner::new(site, incoming, &path)?;
    let drains = planner.drains;
    let (forward, downtime) = planner.forward()?;
    let back = planner.back();
    let release = |index: &Index| Release {
        bundle: index.name.clone(),
        version: index.version.clone(),
        kubernetes: path::newest_kubernetes(index).map(|pack| pack.version.clone()).unwrap_or_default(),
    };
    Ok(UpgradePlan {
        schema_version: SCHEMA_VERSION,
        from: release(&site.index),
        to: release(next),
        signer: incoming.signer.to_owned(),
        hops: path.hops.iter().map(|pack| pack.version.clone()).collect(),
        findings: super::findings::findings(site, next, &path, &planner.answered, drains),
        space: space::peak(site, next).unwrap_or_default(),
        packs: planner.pack_changes(),
        differences: planner.differences(),
        answers: planner.answered.changes.clone(),
        is_open_only: planner.answered.is_open_only(),
        downtime,
        plan: forward,
        back,
    })
}

struct Planner<'a> {
    site: &'a Site,
    incoming: &'a Incoming<'a>,
    hops: Vec<&'a Pack>,
    old: Vec<&'a Pack>,
    new: Vec<&'a Pack>,
    old_kubernetes: Kubernetes,
    /// Other nodes can take this node's pods.
    drains: bool,
    answered: Answered,
}

impl<'a> Planner<'a> {
    fn new(site: &'a Site, incoming: &'a Incoming<'a>, path: &path::Path<'a>) -> Result<Self, PlanError> {
        let installed: BTreeSet<&str> = site.state.packs.iter().map(|pack| pack.name.as_str()).collect();
        let mut old: Vec<&Pack> =
            site.index.packs.iter().filter(|pack| installed.contains(pack.name.as_str())).collect();
        old.sort_by_key(|pack| pack.layer);
        let others = site.nodes.known().into_iter().flatten();
        let others = others.filter(|node| node.name != site.state.node && node.ready && node.schedulable).count();
        // The answers may name packs that the bundle lacks: a finding says so, the plan goes on without them.
        let mut config = site.config.clone();
        if let Some(asked) = &mut config.cluster.packs {
            asked.retain(|name| incoming.index.pack(name).is_some());
        }
        let new = plan::chosen_packs(&config, incoming.index)?;
        Ok(Self {
            site,
            incoming,
            hops: path.hops.clone(),
            answered: answers::answered(&config.answers, incoming.answers, incoming.index, &old, &new),
            old,
            new,
            old_kubernetes: Kubernetes::of(&site.index)?,
            drains: others > 0,
        })
    }

    fn config(&self) -> &InstallConfig {
        &self.site.config
    }

    fn number(&self) -> u64 {
        self.site.sequence
    }

    fn old_pack(&self, name: &str) -> Option<&'a Pack> {
        self.old.iter().copied().find(|pack| pack.name == name)
    }

    fn new_pack(&self, name: &str) -> Option<&'a Pack> {
        self.new.iter().copied().find(|pack| pack.name == name)
    }

    /// The packs of these layers whose content or answers change.
    fn changed(&self, wanted: impl Fn(Layer) -> bool) -> impl Iterator<Item = &'a Pack> {
        let changed = self.new.iter().copied().filter(move |pack| wanted(pack.layer));
        changed.filter(|pack| {
            let is_other = self.old_pack(&pack.name).is_none_or(|old| old.digest != pack.digest);
            is_other || self.answered.differ(&pack.name)
        })
    }

    /// Migrations of a pack that its installed version needs.
    fn migrations(&self, pack: &'a Pack) -> Vec<&'a bundle::index::Migration> {
        let installed = self.old_pack(&pack.name).and_then(|old| semver::Version::parse(&old.version).ok());
        let Some(installed) = installed else { return Vec::new() };
        let needs = |from: &str| semver::VersionReq::parse(from).is_ok_and(|range| range.matches(&installed));
        pack.migrations.iter().filter(|migration| needs(&migration.from)).collect()
    }

    /// All migrations that run, with their packs, in order.
    fn all_migrations(&self) -> Vec<(&'a Pack, &'a bundle::index::Migration)> {
        let packs = self.changed(|_| true);
        packs.flat_map(|pack| self.migrations(pack).into_iter().map(move |migration| (pack, migration))).collect()
    }

    fn mirror(&self) -> String {
        format!("https://{}:{}", plan::bracketed(self.config().node.address), layout::REGISTRY_PORT)
    }

    fn escrow(&self) -> (Vec<String>, Option<Utf8PathBuf>) {
        match &self.config().storage.encryption {
            Encryption::Luks2 { escrow_recipients, escrow_directory, .. } => {
                (escrow_recipients.clone(), escrow_directory.clone())
            }
            Encryption::None { .. } => (Vec::new(), None),
        }
    }

    fn finish(&self, steps: Steps, index: &Index, digest: &str, answers: &Answers) -> Plan {
        Plan {
            schema_version: plan::SCHEMA_VERSION,
            site: self.config().site.name.clone(),
            fqdn: self.config().site.fqdn.clone(),
            bundle: format!("{} {}", index.name, index.version),
            index: digest.to_owned(),
            destroys: Vec::new(),
            answers: answers.clone(),
            steps: steps.steps,
        }
    }

    fn forward(&self) -> Result<(Plan, Vec<Downtime>), PlanError> {
        let next = self.incoming.index;
        let number = self.number();
        let kubernetes = Kubernetes::of(next)?;
        let mut stages = Stages::new(self.site);
        let s = &mut stages;
        s.upgrade(
            "upgrade.keys",
            "Pin the keys that sign bundles",
            1,
            60,
            Action::PinKeys { keys: self.site.trust.clone() },
        );
        // After a power cut the cluster is still coming up when the upgrade goes on, as far as its files are whole.
        let title = "Look that the static pods' files are whole";
        s.upgrade("upgrade.static-pods", title, 1, 60, Action::MendStaticPods { number });
        s.steps.add("upgrade.api", "Wait for the API server", 1, 300, plan::Action::WaitForApi);
        s.retried(
            "upgrade.snapshot",
            "Snapshot of etcd, keys and configuration",
            5,
            300,
            3,
            Action::Snapshot { number },
        );
        s.upgrade("upgrade.program", "Install this program, restart the registry", 2, 120, Action::InstallProgram);
        s.steps.add(
            "bundle.load",
            "Load the bundle into the registry's store",
            10 + plan::weight_of(self.incoming.bytes),
            0,
            plan::Action::LoadBundle { path: self.incoming.path.to_owned(), bytes: self.incoming.bytes },
        );
        // A bundle that was loaded before an upgrade went back is there, but its tags are not.
        let bundle = format!("{}-{}", next.name, next.version);
        s.retried(
            "upgrade.registry",
            "Let the registry serve the release",
            2,
            120,
            3,
            Action::ActivateBundle { bundle },
        );
        let mut all = self.new.clone();
        all.extend(self.hops.iter().filter(|hop| self.new_pack(&hop.name).is_none()));
        let action = Action::PullImages { images: images(&all) };
        s.retried("images.pull", "Pull the images through containerd", 10, 900, 3, action);
        slots::forward(s, self.site, &self.new, &self.old);

        for pack in self.changed(|layer| layer == Layer::Os).filter(|pack| targets(pack).next().is_some()) {
            let what = Action::InstallFiles { pack: pack.name.clone(), paths: paths(pack, |_| true) };
            s.upgrade(
                &format!("pack.files:{}", pack.name),
                &format!("Install the files of pack {} {}", pack.name, pack.version),
                3,
                600,
                what,
            );
        }
        let runtime = plan::Action::ConfigureRuntime { sandbox_image: kubernetes.pause.clone(), mirror: self.mirror() };
        s.steps.add("runtime.configure", "Configure containerd", 2, 120, runtime);
        s.restart("runtime.restart", "containerd.service", CONTAINERD);
        s.costs(0, 0, "containers run on; none is started for a moment");
        s.gates("runtime", &[GateKind::Api, GateKind::Nodes, GateKind::Pods], &self.old);

        let mut etcd_tag = self.old_kubernetes.etcd_tag.clone();
        for hop in &self.hops {
            etcd_tag = self.hop(s, hop, &etcd_tag)?;
        }
        for layer in [Layer::Network, Layer::Storage, Layer::Addon] {
            let packs: Vec<_> = self.changed(|found| found == layer).collect();
            for pack in &packs {
                self.pack(s, pack);
            }
            if !packs.is_empty() {
                let name = format!("{layer:?}").to_lowercase();
                s.gates(&name, &[GateKind::Api, GateKind::Nodes, GateKind::Pods], &self.new);
            }
        }
        for pack in
            self.old.iter().filter(|pack| self.new_pack(&pack.name).is_none() && pack.layer != Layer::Kubernetes)
        {
            let what = Action::Prune {
                pack: pack.name.clone(),
                gone: pack.manifests.clone(),
                answers: self.answered.old_of(&pack.name),
                kept: Vec::new(),
            };
            s.retried(&format!("pack.remove:{}", pack.name), &format!("Remove pack {}", pack.name), 5, 300, 3, what);
        }
        s.remove_files(&self.old, &all);
        // A bundle may carry containerd in another pack than that of the system.
        s.restart("runtime.current", "containerd.service", CONTAINERD);
        slots::finish(s, self.site, &self.new);
        s.last_gates(&self.new, &kubernetes);
        let (recipients, directory) = self.escrow();
        if !recipients.is_empty() {
            s.upgrade("escrow.seal", "Escrow the site's keys", 1, 60, Action::Escrow { recipients, directory });
        }
        if self.answered.new != self.config().answers {
            s.upgrade("upgrade.answers", "Store the answers", 1, 60, Action::StoreAnswers);
        }
        s.upgrade("upgrade.commit", "Record the new release", 1, 120, Action::Commit { number });
        let downtime = std::mem::take(&mut stages.downtime);
        Ok((self.finish(stages.steps, next, self.incoming.digest, &self.answered.new), downtime))
    }

    /// One version of Kubernetes. Gives the tag of the etcd that runs afterwards.
    fn hop(&self, s: &mut Stages, pack: &Pack, present_etcd: &str) -> Result<String, PlanError> {
        let kubernetes = Kubernetes::of_pack(self.incoming.index, pack)?;
        let version = kubernetes.version.clone();
        let node = self.config().node.name.clone();
        let id = |name: &str| format!("kubernetes.{name}:{version}");
        let gates = [GateKind::Api, GateKind::Etcd, GateKind::Nodes, GateKind::Pods];

        let what = Action::InstallFiles { pack: pack.name.clone(), paths: paths(pack, |path| !is_kubelet(path)) };
        s.upgrade(&id("files"), &format!("Install kubeadm and kubectl {version}"), 3, 600, what);
        self.configure(s, &id("configure"), &kubernetes);
        s.upload(&id("config"), &version);
        let what = Action::UpgradeControlPlane {
            version: version.clone(),
            etcd_tag: kubernetes.etcd_tag.clone(),
            etcd: kubernetes.etcd_tag != present_etcd,
            patient: self.site.patient,
            number: self.number(),
        };
        let title = format!("Upgrade the control plane to {version} by kubeadm");
        s.retried(&id("control-plane"), &title, 40, 1200, 2, what);
        s.costs(API_RESTART, 0, "one API server stops before the next one answers");
        s.await_control_plane(&id("await"), &kubernetes);
        s.gates(&format!("control-plane-{version}"), &gates, &self.old);

        if self.drains {
            let what = Action::Drain { node: node.clone() };
            s.retried(&id("drain"), &format!("Move pods away from {node}"), 20, 600, 2, what);
            s.costs(0, 5, "pods that have one replica move");
        }
        let what = Action::InstallFiles { pack: pack.name.clone(), paths: paths(pack, is_kubelet) };
        s.upgrade(&id("kubelet-files"), &format!("Install kubelet {version}"), 3, 600, what);
        let title = "Write the kubelet's configuration by kubeadm";
        s.retried(&id("kubelet-config"), title, 2, 120, 3, Action::UpgradeKubeletConfig);
        s.restart(&id("kubelet"), "kubelet.service", KUBELET);
        s.costs(0, 0, "containers run on");
        s.steps.add(&id("node"), "Wait until the node is Ready", 10, 180, plan::Action::WaitForNode);
        if self.drains {
            s.retried(&id("uncordon"), &format!("Let pods onto {node} again"), 1, 60, 3, Action::Uncordon { node });
        }
        s.addons(&id("kube-proxy"), &id("coredns"), &kubernetes);
        s.gates(&format!("kubernetes-{version}"), &gates, &self.old);
        Ok(kubernetes.etcd_tag)
    }

    fn configure(&self, s: &mut Stages, id: &str, kubernetes: &Kubernetes) {
        let action = plan::Action::ConfigureKubernetes {
            version: kubernetes.version.clone(),
            api: kubernetes.api.to_owned(),
            image_repository: kubernetes.repository.clone(),
            etcd_tag: kubernetes.etcd_tag.clone(),
            patient: self.site.patient,
        };
        s.steps.add(id, "Write the configuration of the control plane", 1, 60, action);
    }

    /// Files, migrations, manifests and gates of a pack, then what the older version had and this one does not.
    fn pack(&self, s: &mut Stages, pack: &'a Pack) {
        let (name, title) = (&pack.name, format!("pack {} {}", pack.name, pack.version));
        if targets(pack).next().is_some() {
            let what = Action::InstallFiles { pack: name.clone(), paths: paths(pack, |_| true) };
            s.upgrade(&format!("pack.files:{name}"), &format!("Install the files of {title}"), 3, 600, what);
        }
        for migration in self.migrations(pack) {
            let what = Action::Migrate {
                pack: name.clone(),
                name: migration.name.clone(),
                manifest: migration.apply.clone(),
                number: self.number(),
            };
            let (id, title) =
                (format!("pack.migrate:{name}.{}", migration.name), format!("Migrate {name}: {}", migration.name));
            s.upgrade(&id, &title, 10, u64::from(migration.timeout_seconds), what);
        }
        s.apply(pack);
        let gone = self.old_pack(name).map(|old| old.manifests.clone()).unwrap_or_default();
        let gone = (gone, self.answered.old_of(name));
        s.prune(name, gone, pack.manifests.clone(), self.answered.differ(name));
    }

    fn back(&self) -> Plan {
        let number = self.number();
        let old = &self.old_kubernetes;
        let mut stages = Stages::new(self.site);
        let s = &mut stages;
        slots::back(s, self.site, &self.new);
        let bundle = format!("{}-{}", self.site.index.name, self.site.index.version);
        s.retried(
            "back.registry",
            "Let the registry serve the old release",
            2,
            120,
            3,
            Action::ActivateBundle { bundle },
        );
        let all: Vec<&Pack> = self.old.clone();
        s.retried(
            "back.images",
            "Look that the old images are pinned",
            5,
            900,
            3,
            Action::PullImages { images: images(&all) },
        );
        for pack in self.old.iter().filter(|pack| targets(pack).next().is_some()) {
            let what = Action::InstallFiles { pack: pack.name.clone(), paths: paths(pack, |_| true) };
            s.upgrade(
                &format!("back.files:{}", pack.name),
                &format!("Put back the files of pack {} {}", pack.name, pack.version),
                3,
                600,
                what,
            );
        }
        // The kubelet stops first where etcd goes back; otherwise the files alone bring everything back.
        self.restore_etcd(s);
        let under = ["/etc/kubernetes", "/etc/containerd", "/etc/cofferdam", "/etc/systemd", "/var/lib/kubelet"];
        let what = Action::RestoreFiles { number, under: under.map(str::to_owned).to_vec() };
        s.retried("back.restore", "Put back configuration, certificates and static pods", 5, 120, 3, what);
        s.restart("back.runtime", "containerd.service", CONTAINERD);
        s.restart("back.kubelet", "kubelet.service", KUBELET);
        s.steps.add("back.api", "Wait for the API server", 15, 300, plan::Action::WaitForApi);
        s.await_control_plane("back.await", old);
        s.upload("back.config", &old.version);
        if self.drains {
            let node = self.config().node.name.clone();
            s.retried("back.uncordon", &format!("Let pods onto {node} again"), 1, 60, 3, Action::Uncordon { node });
        }
        s.addons("back.kube-proxy", "back.coredns", old);
        s.steps.add("back.node", "Wait until the node is Ready", 10, 180, plan::Action::WaitForNode);
        for (pack, migration) in self.all_migrations().into_iter().rev() {
            let Some(undo) = &migration.undo else { continue };
            let what = Action::UndoMigration {
                pack: pack.name.clone(),
                name: migration.name.clone(),
                manifest: undo.clone(),
                answers: self.answered.new_of(&pack.name),
                number,
            };
            let title = format!("Undo the migration {} of pack {}", migration.name, pack.name);
            let id = format!("back.migration:{}.{}", pack.name, migration.name);
            s.retried(&id, &title, 10, u64::from(migration.timeout_seconds), 3, what);
        }
        for pack in &self.old {
            let differ = self.answered.differ(&pack.name);
            let changes = self.new_pack(&pack.name).is_none_or(|new| new.digest != pack.digest) || differ;
            if changes && pack.layer >= Layer::Network {
                s.apply(pack);
                let gone = self.new_pack(&pack.name).map(|new| new.manifests.clone()).unwrap_or_default();
                s.prune(&pack.name, (gone, self.answered.new_of(&pack.name)), pack.manifests.clone(), differ);
            }
        }
        for pack in
            self.new.iter().filter(|pack| self.old_pack(&pack.name).is_none() && pack.layer != Layer::Kubernetes)
        {
            let gone = (pack.manifests.clone(), self.answered.new_of(&pack.name));
            s.prune(&pack.name, gone, Vec::new(), true);
        }
        let mut new = self.new.clone();
        new.extend(&self.hops);
        s.remove_files(&new, &self.old);
        s.upgrade("back.program", "Put back the program of the old release", 2, 120, Action::RestoreProgram { number });
        s.last_gates(&self.old, old);
        s.upgrade("back.keys", "Pin the keys of before", 1, 60, Action::PinKeys { keys: self.site.trust.clone() });
        let under = ["/var/lib/cofferdam/bundle", layout::CONFIG, layout::STATE];
        for (id, path) in ["back.index", "back.answers", "back.record"].iter().zip(under) {
            let what = Action::RestoreFiles { number, under: vec![path.to_owned()] };
            s.upgrade(id, &format!("Put back {path}"), 1, 60, what);
        }
        self.finish(stages.steps, &self.site.index, &self.site.state.index, &self.answered.old)
    }

    /// etcd's data goes back when Kubernetes changed its minor version or etcd its own, or when a migration ran that
    /// declares no undo. Otherwise what was written since the snapshot stays.
    fn restore_etcd(&self, s: &mut Stages) {
        let old = &self.old_kubernetes;
        let minor = |version: &str| plan::kubernetes_minor(version);
        let moved = self.hops.iter().filter(|hop| {
            minor(&hop.version) != minor(&old.version)
                || Kubernetes::of_pack(self.incoming.index, hop).is_ok_and(|hop| hop.etcd_tag != old.etcd_tag)
        });
        let mut only_after: Vec<String> = moved.map(|hop| format!("{KUBERNETES_MARK}.{}", hop.version)).collect();
        let migrations = self.all_migrations();
        let irreversible = migrations.iter().filter(|(_, migration)| migration.undo.is_none());
        only_after.extend(irreversible.map(|(pack, migration)| format!("{}.{}", pack.name, migration.name)));
        if !only_after.is_empty() {
            let what = Action::RestoreEtcd { number: self.number(), image: old.etcd.clone(), only_after };
            s.retried("back.etcd", "Put back etcd's snapshot if its schema moved", 20, 300, 3, what);
        }
    }

    fn pack_changes(&self) -> Vec<PackChange> {
        let mut changes = Vec::new();
        for pack in self.changed(|_| true) {
            let migrations = self.migrations(pack);
            let names = |all: Vec<&bundle::index::Migration>| all.iter().map(|one| one.name.clone()).collect();
            changes.push(PackChange {
                name: pack.name.clone(),
                from: self.old_pack(&pack.name).map(|old| old.version.clone()),
                to: Some(pack.version.clone()),
                irreversible: names(migrations.iter().copied().filter(|one| one.undo.is_none()).collect()),
                migrations: names(migrations),
            });
        }
        for pack in self.old.iter().filter(|pack| self.new_pack(&pack.name).is_none()) {
            changes.push(PackChange {
                name: pack.name.clone(),
                from: Some(pack.version.clone()),
                to: None,
                migrations: Vec::new(),
                irreversible: Vec::new(),
            });
        }
        changes
    }

    fn differences(&self) -> Vec<FileDifference> {
        let mut all = Vec::new();
        if let Some(hop) = self.hops.last()
            && let Ok(kubernetes) = Kubernetes::of_pack(self.incoming.index, hop)
        {
            let config = self.config();
            let after = render_kubeadm_config(&KubeadmParameters {
                version: kubernetes.version.clone(),
                api: kubernetes.api.to_owned(),
                image_repository: kubernetes.repository.clone(),
                etcd_tag: kubernetes.etcd_tag.clone(),
                patient: self.site.patient,
                cluster: config.site.name.clone(),
                fqdn: config.site.fqdn.clone(),
                vip: config.site.vip,
                node: config.node.name.clone(),
                address: config.node.address,
                pod_cidr: config.cluster.pod_cidr.clone(),
                service_cidr: config.cluster.service_cidr.clone(),
                schedule: config.cluster.schedule_on_control_plane,
            });
            let lines = difference::lines(&self.site.kubeadm, &after);
            if !lines.is_empty() {
                let path = "/etc/kubernetes/cofferdam/kubeadm.yaml".to_owned();
                all.push(FileDifference { path, change: "changed".to_owned(), lines });
            }
        }
        let files = |packs: &[&Pack], answers: &Answers| {
            let mut map = std::collections::BTreeMap::new();
            for (pack, file) in packs.iter().flat_map(|pack| pack.files.iter().map(move |file| (pack, file))) {
                for target in &file.install {
                    let answers = answers.get(&pack.name).filter(|_| file.template).cloned();
                    map.insert(target.path.clone(), (file.digest, target.mode.clone(), answers));
                }
            }
            map
        };
        let (before, after) = (files(&self.old, &self.answered.old), files(&self.new, &self.answered.new));
        let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        for path in paths {
            let change = match (before.get(path), after.get(path)) {
                (Some(one), Some(other)) if one == other => continue,
                (None, _) => "added",
                (_, None) => "removed",
                _ => "changed",
            };
            all.push(FileDifference { path: path.clone(), change: change.to_owned(), lines: Vec::new() });
        }
        all
    }
}
