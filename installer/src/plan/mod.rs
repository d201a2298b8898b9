//! The plan: the ordered list of steps of an installation.
//!
//! Invariant: [`plan`] is pure. The same configuration, machine and index give the same plan, byte for byte, whoever
//! asked for it. A plan holds no secret; it is shown before anything is done, stored on the host and run by `engine/`.

mod action;
mod appliance;
mod error;
mod kubernetes;

use bundle::index::{Index, Layer};
use camino::{Utf8Path, Utf8PathBuf};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use action::{Action, Proof, ServerCertificate, Volume};
pub(crate) use appliance::root_ids;
pub use appliance::{BootFile, Partition, SystemImage};
pub use error::PlanError;
pub(crate) use kubernetes::{Kubernetes, bracketed, minor as kubernetes_minor};

use crate::config::{Answers, Certificates, Encryption, InstallConfig, Tpm2, answers};
use crate::facts::Facts;
use crate::layout;

/// The version of the plan's JSON.
pub const SCHEMA_VERSION: u32 = 1;

/// Steps that neither erase nor store anything of the site: an installation that ended in one of them may begin anew, with
/// other answers.
pub const HARMLESS_STEPS: &[&str] = &["host.prepare", "bundle.verify"];

/// What the plan needs to know of the machine; taken from the facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The disk that the configuration chose, if it asks for one.
    pub disk: Option<Disk>,
    /// Whether a TPM 2.0 is there and usable.
    pub tpm2: bool,
    /// How many times slower than a normal server, at least 1: time limits are scaled by it.
    pub slowness: f64,
    /// Secure Boot is on.
    #[serde(default)]
    pub secure_boot: bool,
    /// The operating system that comes onto the disk; `None` on a host that has one.
    #[serde(default)]
    pub system: Option<SystemImage>,
}

impl Machine {
    /// What the plan needs of the facts; the disk is chosen as the configuration says.
    pub fn of(config: &InstallConfig, facts: &Facts) -> Result<Self, PlanError> {
        let disk = match &config.storage.disk {
            None => None,
            Some(choice) => {
                let disks = facts.disks.as_result().map_err(|reason| PlanError::Disk {
                    why: format!("the disks of this machine cannot be listed: {reason}"),
                    hint: "`cofferdam check` shows what is missing",
                })?;
                let disk = crate::facts::choice::choose(disks, choice)
                    .map_err(|error| PlanError::Disk { why: error.to_string(), hint: error.hint() })?;
                Some(Disk {
                    path: disk.path.clone(),
                    serial: disk.serial.clone().unwrap_or_else(|| disk.name.clone()),
                    model: disk.model.clone().unwrap_or_else(|| "unknown model".to_owned()),
                    size: disk.size_bytes,
                    contents: disk.contents.clone(),
                })
            }
        };
        Ok(Self {
            disk,
            tpm2: facts.machine.tpm2.is_usable(),
            slowness: facts.slowness,
            secure_boot: facts.machine.firmware.secure_boot.known() == Some(&true),
            system: None,
        })
    }
}

/// The disk that becomes the data volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Disk {
    /// For example `/dev/sdb`.
    pub path: String,
    /// Serial number, or its name for a disk without one.
    pub serial: String,
    /// Model.
    pub model: String,
    /// In bytes.
    pub size: u64,
    /// What is on it now, in words; empty when nothing was found.
    pub contents: Vec<String>,
}

/// The plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// Always 1.
    pub schema_version: u32,
    /// The site's name.
    pub site: String,
    /// The site's FQDN.
    pub fqdn: String,
    /// Name and version of the bundle.
    pub bundle: String,
    /// SHA-256 of the signed index.
    pub index: String,
    /// What is erased.
    pub destroys: Vec<Disk>,
    /// The answers to the questions of its packs, defaults included: PACK, NAME, value.
    #[serde(default, skip_serializing_if = "Answers::is_empty")]
    pub answers: Answers,
    /// What is done, in this order.
    pub steps: Vec<Step>,
}

/// One idempotent unit of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Step {
    /// Stable and unique in the plan, for example `disk.encrypt`.
    pub id: String,
    /// For people.
    pub title: String,
    /// Its share of the whole, in seconds on a normal server.
    pub weight: u32,
    /// How long one attempt may take, in seconds on this machine.
    pub limit: u64,
    /// How often it is tried before the installation stops.
    pub attempts: u32,
    /// What to do.
    pub action: Action,
}

impl Plan {
    /// The plan for people, at most 80 columns wide for usual names.
    pub fn to_text(&self) -> String {
        let mut text = format!("Plan: site {} at {}, bundle {}\n", self.site, self.fqdn, self.bundle);
        for disk in &self.destroys {
            let contents =
                if disk.contents.is_empty() { "nothing found on it".to_owned() } else { disk.contents.join(", ") };
            let gigabytes = disk.size / 1_000_000_000;
            text.push_str(&format!(
                "\n  !! ERASES {} ({}, serial {}, {gigabytes} GB): {contents}\n\n",
                disk.path, disk.model, disk.serial
            ));
        }
        for (pack, answers) in &self.answers {
            for (name, value) in answers {
                text.push_str(&format!("  answer: {pack}.{name} = {value}\n"));
            }
        }
        for (number, step) in self.steps.iter().enumerate() {
            text.push_str(&format!("  {:>2}. {:<24} {}\n", number + 1, step.id, step.title));
        }
        text
    }
}

/// Computes the plan.
pub fn plan(
    config: &InstallConfig,
    machine: &Machine,
    index: &Index,
    index_digest: &str,
    bundle_bytes: u64,
) -> Result<Plan, PlanError> {
    let bundle = format!("{} {}", index.name, index.version);
    let mut steps = Steps { slowness: machine.slowness.max(1.0), steps: Vec::new() };
    let kubernetes = kubernetes::Kubernetes::of(index)?;
    let packs = chosen_packs(config, index)?;
    let answers = answered(config, index, &packs)?;

    if machine.system.is_none() && config.network.is_some() {
        return Err(PlanError::ForeignNetwork);
    }
    // The live system of a medium has the program and the user that a host gets by host.prepare.
    if machine.system.is_some() {
        verify(config, bundle_bytes, &mut steps);
    }
    let appliance = appliance::prepare(config, machine, &mut steps)?;
    steps.add(
        "host.prepare",
        "Prepare the host",
        2,
        120,
        Action::PrepareHost {
            modules: ["overlay", "br_netfilter", "nf_conntrack"].map(str::to_owned).to_vec(),
            sysctls: [
                ("net.ipv4.ip_forward", "1"),
                ("net.bridge.bridge-nf-call-iptables", "1"),
                // The kubelet refuses to start on other values (protectKernelDefaults, CIS 4.2.6).
                ("vm.overcommit_memory", "1"),
                ("vm.panic_on_oom", "0"),
                ("kernel.panic", "10"),
                ("kernel.panic_on_oops", "1"),
                ("kernel.keys.root_maxkeys", "1000000"),
                ("kernel.keys.root_maxbytes", "25000000"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
        },
    );
    if machine.system.is_none() {
        verify(config, bundle_bytes, &mut steps);
    }
    let load = Action::LoadBundle { path: config.bundle.path.clone(), bytes: bundle_bytes };
    let (destroys, escrow) = data_and_bundle(config, machine, &load, appliance, &mut steps)?;
    steps.add("registry.start", "Start the registry", 2, 60, Action::StartRegistry { address: config.node.address });
    for pack in &packs {
        if pack.files.iter().any(|file| !file.install.is_empty()) {
            let id = format!("pack.files:{}", pack.name);
            let title = format!("Install the files of pack {} {}", pack.name, pack.version);
            steps.add(&id, &title, 3, 600, Action::InstallFiles { pack: pack.name.clone() });
        }
    }
    kubernetes.steps(config, &packs, &mut steps);

    apply(&packs, Layer::Kubernetes..=Layer::Network, &mut steps);
    steps.add("kubernetes.node", "Wait until the node is Ready", 10, 180, Action::WaitForNode);
    apply(&packs, Layer::Storage..=Layer::Addon, &mut steps);
    steps.add_retried(
        "rehearsal",
        "Rehearse: TLS by FQDN, a pull through containerd",
        3,
        120,
        5,
        Action::Rehearse {
            image: kubernetes.pause.clone(),
            workload: packs.iter().any(|pack| {
                pack.secrets.iter().any(|secret| secret.kind == bundle::index::SecretKind::SiteCertificate)
            }),
        },
    );
    let (recipients, directory) = escrow;
    steps.add("escrow.seal", "Escrow the site's keys", 1, 60, Action::SealEscrow { recipients, directory });
    steps.add("site.record", "Record the site", 1, 60, Action::RecordSite);
    Ok(Plan {
        schema_version: SCHEMA_VERSION,
        site: config.site.name.clone(),
        fqdn: config.site.fqdn.clone(),
        bundle,
        index: index_digest.to_owned(),
        destroys,
        answers,
        steps: steps.steps,
    })
}

/// The answers to all questions of the packs, or all that is wrong with them or missing.
pub(crate) fn answered(
    config: &InstallConfig,
    index: &Index,
    packs: &[&bundle::index::Pack],
) -> Result<Answers, PlanError> {
    let mut problems = answers::wrong(&config.answers, index);
    let (answers, open) = answers::complete(&config.answers, packs.iter().copied());
    problems.extend(open);
    if problems.is_empty() { Ok(answers) } else { Err(PlanError::Answers { problems }) }
}

/// Adds a step for each pack of these layers that has something to apply or to wait for.
fn apply(packs: &[&bundle::index::Pack], layers: std::ops::RangeInclusive<Layer>, steps: &mut Steps) {
    for pack in packs.iter().filter(|pack| layers.contains(&pack.layer)) {
        if pack.manifests.is_empty() && pack.secrets.is_empty() && pack.gates.is_empty() {
            continue;
        }
        let gates: u64 = pack.gates.iter().map(|gate| u64::from(gate.timeout_seconds)).sum();
        let id = format!("pack.apply:{}", pack.name);
        let title = format!("Apply pack {} {}", pack.name, pack.version);
        steps.add_retried(&id, &title, 10, 60 + gates, 3, Action::ApplyPack { pack: pack.name.clone() });
    }
}

/// Steps under construction.
pub(crate) struct Steps {
    pub(crate) slowness: f64,
    pub(crate) steps: Vec<Step>,
}

impl Steps {
    pub(crate) fn add(&mut self, id: &str, title: &str, weight: u32, limit: u64, action: Action) {
        self.add_retried(id, title, weight, limit, 1, action);
    }

    /// `limit` is in seconds on a normal server; 0 means that the step watches over its own progress.
    pub(crate) fn add_retried(
        &mut self,
        id: &str,
        title: &str,
        weight: u32,
        limit: u64,
        attempts: u32,
        action: Action,
    ) {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "limits are thousands of seconds, the factor at most 20"
        )]
        let limit = (limit as f64 * self.slowness).round() as u64;
        self.steps.push(Step { id: id.to_owned(), title: title.to_owned(), weight, limit, attempts, action });
    }
}

/// All of the bundle is read before a disk is erased.
fn verify(config: &InstallConfig, bytes: u64, steps: &mut Steps) {
    let action = Action::VerifyBundle { path: config.bundle.path.clone(), bytes };
    steps.add("bundle.verify", "Verify the whole bundle before anything is erased", 2 + weight_of(bytes), 0, action);
}

/// The volume, what is bound to it, the keys and the bundle. An appliance loads the bundle while its medium is there, and
/// makes the rest after the restart.
fn data_and_bundle(
    config: &InstallConfig,
    machine: &Machine,
    load: &Action,
    appliance: Option<Prepared>,
    steps: &mut Steps,
) -> Result<Prepared, PlanError> {
    let weight = match load {
        Action::LoadBundle { bytes, .. } => 10 + weight_of(*bytes),
        _ => 10,
    };
    let add_load = |steps: &mut Steps| {
        steps.add("bundle.load", "Load the bundle into the registry's store", weight, 0, load.clone());
    };
    let is_appliance = appliance.is_some();
    let prepared = if let Some(prepared) = appliance {
        let volume = Volume::Directory;
        let title = "Make the data directory on the encrypted volume";
        steps.add("data.mount", title, 1, 60, Action::MountData { volume });
        appliance::bring_certificates(config, steps);
        add_load(steps);
        appliance::finish(config, machine, steps);
        prepared
    } else {
        data_volume(config, machine, steps)?
    };
    if let Some(administrator) = &config.administrator {
        let title = format!("Make the administrator account {}", administrator.name);
        let action = Action::MakeAdministrator {
            name: administrator.name.clone(),
            password: administrator.password_hash.is_some(),
            ssh_keys: administrator.ssh_keys.clone(),
        };
        steps.add("admin.account", &title, 1, 60, action);
    }
    steps.add("data.bind", "Bind the state folders to the data volume", 1, 60, Action::BindState);
    steps.add("certificates.issue", "Make keys and certificates", 2, 120, certificates(config, is_appliance));
    if !is_appliance {
        add_load(steps);
    }
    Ok(prepared)
}

/// One second for each 100 MB.
pub(crate) fn weight_of(bytes: u64) -> u32 {
    u32::try_from(bytes / 100_000_000).unwrap_or(u32::MAX)
}

type Escrow = (Vec<String>, Option<Utf8PathBuf>);

/// What is erased, and where the escrow goes.
type Prepared = (Vec<Disk>, Escrow);

fn data_volume(config: &InstallConfig, machine: &Machine, steps: &mut Steps) -> Result<Prepared, PlanError> {
    match &config.storage.encryption {
        Encryption::Luks2 {
            tpm2,
            escrow_recipients,
            escrow_directory,
            show_recovery_key,
            discards,
            key_derivation,
            passphrase: _,
        } => {
            let disk = machine.disk.clone().ok_or_else(|| PlanError::Disk {
                why: "storage.disk is missing: an encrypted data volume needs a disk of its own".to_owned(),
                hint: "`cofferdam check` lists the disks of this machine",
            })?;
            let tpm2 = match tpm2 {
                Tpm2::Require if !machine.tpm2 => return Err(PlanError::NoTpm),
                Tpm2::Off => false,
                Tpm2::Auto | Tpm2::Require => machine.tpm2,
            };
            let title = encryption_title(config, &disk);
            steps.add(
                "disk.encrypt",
                &title,
                20,
                300,
                Action::EncryptDisk {
                    disk: disk.clone(),
                    tpm2,
                    // A host that we did not build: literal PCR 7 only (docs/architecture.md, "Disk encryption").
                    pcrs: if tpm2 { vec![7] } else { Vec::new() },
                    signed_pcrs: Vec::new(),
                    key_derivation: *key_derivation,
                    escrow_recipients: escrow_recipients.clone(),
                    escrow_directory: escrow_directory.clone(),
                    show_recovery_key: *show_recovery_key,
                    passphrase: config.passphrase_file().map(Utf8Path::to_owned),
                },
            );
            let volume = Volume::Encrypted { tpm2, discards: *discards };
            steps.add("data.mount", "Mount the data volume", 3, 120, Action::MountData { volume });
            Ok((vec![disk], (escrow_recipients.clone(), escrow_directory.clone())))
        }
        Encryption::None { .. } => {
            let volume = Volume::Directory;
            steps.add("data.mount", "Make the data directory (not encrypted)", 1, 60, Action::MountData { volume });
            Ok((Vec::new(), (Vec::new(), None)))
        }
    }
}

/// The title of `disk.encrypt`.
fn encryption_title(config: &InstallConfig, disk: &Disk) -> String {
    match config.passphrase_file() {
        None => format!("Encrypt {} and prove that it opens", disk.path),
        Some(_) => format!("Encrypt {} (passphrase) and prove it", disk.path),
    }
}

fn certificates(config: &InstallConfig, is_appliance: bool) -> Action {
    let algorithm = match &config.certificates {
        Certificates::Generate { algorithm } => algorithm.clone(),
        Certificates::Import { .. } | Certificates::Request { .. } => "ecdsa-p256".to_owned(),
    };
    let server = match config.certificates.files() {
        None => ServerCertificate::Issued,
        Some((certificate, key, roots)) => {
            let [certificate, key, roots] =
                if is_appliance { layout::BROUGHT.map(Utf8Path::new) } else { [certificate, key, roots] };
            ServerCertificate::Imported { certificate: certificate.into(), key: key.into(), roots: roots.into() }
        }
    };
    Action::IssueCertificates { algorithm, server, names: server_names(config) }
}

/// Names and addresses of the server certificate besides the FQDN.
pub(crate) fn server_names(config: &InstallConfig) -> Vec<String> {
    let mut names = vec![config.node.name.clone(), config.node.address.to_string()];
    names.extend(config.site.fqdn.split('.').next().map(str::to_owned));
    names.extend(config.site.vip.map(|vip| vip.to_string()));
    names.dedup();
    names
}

/// The packs that are installed: all of the lower layers, and of `storage` and `addon` those that were asked for.
pub(crate) fn chosen_packs<'a>(
    config: &InstallConfig,
    index: &'a Index,
) -> Result<Vec<&'a bundle::index::Pack>, PlanError> {
    let asked = config.cluster.packs.as_ref();
    for name in asked.into_iter().flatten() {
        if index.pack(name).is_none() {
            return Err(PlanError::UnknownPack {
                bundle: format!("{} {}", index.name, index.version),
                pack: name.clone(),
                has: index.packs.iter().map(|pack| pack.name.as_str()).collect::<Vec<_>>().join(", "),
            });
        }
    }
    // Older Kubernetes packs are stepping stones of an upgrade.
    let newest = crate::upgrade::newest_kubernetes(index).map(|pack| &pack.name);
    let mut packs: Vec<_> = index
        .packs
        .iter()
        .filter(|pack| pack.layer != Layer::Kubernetes || Some(&pack.name) == newest)
        .filter(|pack| pack.layer < Layer::Storage || asked.is_none_or(|asked| asked.contains(&pack.name)))
        .collect();
    packs.sort_by_key(|pack| pack.layer);
    Ok(packs)
}
