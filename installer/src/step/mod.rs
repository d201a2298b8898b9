//! The steps: what each [`Action`] of a plan does on a host.
//!
//! Invariant: `done` only looks; `run` may be cut off anywhere and run again. Each step's file says how it knows that it
//! is done. Called by `engine/`.

mod administrator;
mod boot;
mod bundle_load;
mod certificates;
mod cluster;
mod data;
mod disk;
mod escrow;
mod files;
mod host;
mod kubeadm;
mod name;
mod network;
mod pack;
mod partition;
mod passphrase;
mod record;
mod registry;
mod rehearsal;
mod runtime;
mod system;
mod target;

use std::time::Duration;

use bundle::index::{Index, Pack, PackFile, PackManifest};
use bundle::oci::Digest;
use bundle::question::Value;
use camino::{Utf8Path, Utf8PathBuf};
use zeroize::Zeroizing;

use crate::config::{InstallConfig, PackAnswers};
use crate::engine::event::Progress;
use crate::engine::question::Answers;
use crate::engine::{Engine, Stop};
use crate::host::{Command, Host, HostError, HostExt, Medium, Output};
use crate::layout;
use crate::plan::{Action, Plan, Step};

pub(crate) use boot::{ESCROW as BOOT_ESCROW, at_boot, restart};
pub(crate) use certificates::{import_files, judge_files};
pub(crate) use cluster::{ask_api as api_answers, condition, last_line};
pub(crate) use disk::{
    TOKEN as VOLUME_TOKEN, ceremony as ask_to_write_down, derivation as key_derivation_arguments,
    tpm_policy as tpm_policy_arguments,
};
pub(crate) use escrow::{run as seal_escrow, sealed_disk as sealed_disk_escrow};
pub(crate) use files::{install as install_files, installed as files_installed};
pub use kubeadm::render_kubeadm_config;
pub(crate) use kubeadm::{KubeadmParameters, sync as sync_kubernetes};
pub(crate) use record::upgraded as record_upgrade;
pub use record::{PackState, State};
pub(crate) use registry::ready as registry_answers;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// An effect failed.
    #[error(transparent)]
    Host(HostError),
    /// Keys, certificates or the escrow.
    #[error("{what}: {reason}")]
    Certificates {
        /// What was made or read.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// Something on the host is not as the plan says.
    #[error("{what}")]
    State {
        /// What was found, and what was expected.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// Something did not become true in time.
    #[error("{what} after {seconds} s; last seen: {last}")]
    Waited {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// The last thing seen.
        last: String,
    },
    /// A question that nobody answered.
    #[error("{what}")]
    Unanswered {
        /// What was asked, and why it matters.
        what: &'static str,
        /// How it can be answered.
        hint: &'static str,
    },
    /// The operator stopped the run at a question.
    #[error("stopped by the operator")]
    Stopped,
    /// The machine restarts in the middle of the plan, as the plan says.
    #[error("the machine restarts, and goes on by itself")]
    Restarting,
    /// The bundle was not trusted when it was loaded.
    #[error("the bundle was refused: {reason}")]
    Bundle {
        /// What `bundle load` said.
        reason: String,
    },
}

impl From<HostError> for StepError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Stopped { .. } => Self::Stopped,
            error => Self::Host(error),
        }
    }
}

impl StepError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::State { hint, .. } => Some(hint.clone()),
            Self::Bundle { .. } => {
                Some("carry the bundle in again and compare `cofferdam bundle verify` at both ends".to_owned())
            }
            Self::Waited { .. } => Some("`journalctl -u kubelet -u containerd` on this host tells more".to_owned()),
            Self::Unanswered { hint, .. } => Some((*hint).to_owned()),
            Self::Host(HostError::Medium { .. }) => Some(
                "connect the medium again: the BMC's virtual CD, or the stick; if its name has changed, restart the machine from it"
                    .to_owned(),
            ),
            Self::Host(_) | Self::Certificates { .. } | Self::Stopped | Self::Restarting => None,
        }
    }

    /// What kind of failure it is: stable, for people who search and for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Host(error) => error.code(),
            Self::Certificates { .. } => "certificates",
            Self::State { .. } => "unexpected-state",
            Self::Waited { .. } => "not-ready-in-time",
            Self::Unanswered { .. } => "unanswered",
            Self::Stopped => "stopped",
            Self::Restarting => "restarting",
            Self::Bundle { .. } => "bundle-refused",
        }
    }

    /// Whether another attempt may help; a refused bundle stays refused, lost power is lost.
    pub fn can_be_retried(&self) -> bool {
        !matches!(
            self,
            Self::Bundle { .. }
                | Self::Unanswered { .. }
                | Self::Stopped
                | Self::Restarting
                // The medium was waited for already.
                | Self::Host(HostError::PowerLost | HostError::Digest { .. } | HostError::Medium { .. })
        )
    }
}

/// A step with all it needs.
pub struct Context<'a> {
    pub(crate) host: &'a dyn Host,
    pub(crate) config: &'a InstallConfig,
    pub(crate) plan: &'a Plan,
    index: &'a Index,
    pub(crate) signed_index: (&'a [u8], &'a [u8]),
    pub(crate) step: &'a Step,
    answers: &'a dyn Answers,
    stop: &'a Stop,
}

pub(crate) type Report<'a> = dyn FnMut(Progress) + 'a;

impl<'a> Context<'a> {
    pub(crate) fn new(engine: &Engine<'a>, step: &'a Step) -> Self {
        Self {
            host: engine.host,
            config: engine.config,
            plan: engine.plan,
            index: engine.index,
            signed_index: engine.signed_index,
            step,
            answers: engine.answers,
            stop: engine.stop,
        }
    }

    /// Whether nothing is left to do.
    pub fn done(&self) -> Result<bool, StepError> {
        match &self.step.action {
            Action::PrepareHost { modules, sysctls } => host::done(self, modules, sysctls),
            Action::VerifyBundle { .. } => bundle_load::verified(self),
            Action::EncryptDisk { disk, .. } => disk::done(self, disk),
            Action::PartitionDisk { disk, partitions } => partition::done(self, disk, partitions),
            Action::WriteSystem { root, verity, root_hash, .. } => system::done(self, root, verity, root_hash),
            Action::MountTarget { .. } => target::done(self),
            Action::InstallBoot { .. } | Action::Restart => boot::done(self),
            Action::NameMachine { name, address, names } => name::done(self, name, *address, names),
            Action::ConfigureNetwork { units, addresses } => network::done(self, units, addresses),
            Action::MountData { volume } => data::mounted(self, *volume),
            Action::BindState => data::bound(self),
            Action::BringCertificates { .. } => certificates::brought(self),
            Action::IssueCertificates { .. } => certificates::done(self),
            Action::LoadBundle { .. } => bundle_load::done(self),
            Action::StartRegistry { .. } => registry::done(self),
            Action::InstallFiles { pack } => files::done(self, pack),
            Action::ConfigureRuntime { sandbox_image, mirror } => runtime::done(self, sandbox_image, mirror),
            Action::PullImages { images } => runtime::pulled(self, images),
            Action::ConfigureKubernetes { .. } => kubeadm::configured(self),
            Action::KubeadmPhase { phase, proof } => kubeadm::phase_done(self, phase, proof),
            Action::WaitForApi => cluster::api_ready(self),
            Action::WaitForNode => cluster::node_ready(self),
            Action::ApplyPack { .. } | Action::Rehearse { .. } => Ok(false),
            Action::SealEscrow { recipients, .. } => escrow::done(self, recipients),
            Action::MakeAdministrator { name, password, ssh_keys } => {
                administrator::done(self, name, *password, ssh_keys)
            }
            Action::RecordSite => record::done(self),
            Action::Upgrade { what } => crate::upgrade::done(self, what),
        }
    }

    /// Does it.
    pub fn run(&self, report: &mut Report) -> Result<(), StepError> {
        match &self.step.action {
            Action::PrepareHost { modules, sysctls } => host::run(self, modules, sysctls),
            Action::VerifyBundle { path, bytes } => bundle_load::verify(self, path, *bytes, report),
            Action::EncryptDisk { .. } => disk::run(self, report),
            Action::PartitionDisk { disk, partitions } => partition::run(self, disk, partitions),
            Action::WriteSystem { .. } => system::run(self, report),
            Action::MountTarget { device } => target::run(self, device),
            Action::InstallBoot { device, files } => boot::run(self, device, files, report),
            Action::Restart => boot::restart(self),
            Action::NameMachine { name, address, names } => name::run(self, name, *address, names),
            Action::ConfigureNetwork { units, addresses } => network::run(self, units, addresses, report),
            Action::MountData { volume } => data::mount(self, *volume),
            Action::BindState => data::bind(self),
            Action::BringCertificates { from } => certificates::bring(self, from),
            Action::IssueCertificates { algorithm, server, names } => certificates::run(self, algorithm, server, names),
            Action::LoadBundle { path, bytes } => bundle_load::run(self, path, *bytes, report),
            Action::StartRegistry { address } => registry::run(self, *address),
            Action::InstallFiles { pack } => files::run(self, pack, report),
            Action::ConfigureRuntime { sandbox_image, mirror } => runtime::run(self, sandbox_image, mirror),
            Action::PullImages { images } => runtime::pull(self, images, report),
            Action::ConfigureKubernetes { .. } => kubeadm::configure(self),
            Action::KubeadmPhase { phase, proof } => kubeadm::phase(self, phase, proof, report),
            Action::WaitForApi => cluster::wait_for_api(self, report),
            Action::WaitForNode => cluster::wait_for_node(self, report),
            Action::ApplyPack { pack } => pack::run(self, pack, report),
            Action::Rehearse { image, workload } => rehearsal::run(self, image, *workload),
            Action::SealEscrow { recipients, directory } => escrow::run(self, recipients, directory.as_deref()),
            Action::MakeAdministrator { name, ssh_keys, .. } => administrator::run(self, name, ssh_keys),
            Action::RecordSite => record::run(self),
            Action::Upgrade { what } => crate::upgrade::run_step(self, what, report),
        }
    }

    /// The step's limit; a day for those that watch over their own progress.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(if self.step.limit == 0 { 86_400 } else { self.step.limit })
    }

    /// Whether this is still the live system of a medium: what prepares the disk is done once the disk's own system runs.
    fn is_live(&self) -> Result<bool, StepError> {
        Ok(crate::live::is_live(self.host)?)
    }

    pub(crate) fn must<I: IntoIterator<Item = S>, S: Into<String>>(
        &self,
        program: &str,
        arguments: I,
    ) -> Result<Output, StepError> {
        Ok(self.host.must(&Command::new(program).args(arguments).limit(self.limit()))?)
    }

    /// A file or device of the medium, whose wait the operator may stop.
    fn medium(&self, path: impl Into<Utf8PathBuf>) -> Medium {
        Medium::new(path, self.stop)
    }

    pub(crate) fn succeeds<I: IntoIterator<Item = S>, S: Into<String>>(
        &self,
        program: &str,
        arguments: I,
    ) -> Result<bool, StepError> {
        Ok(self.host.run(&Command::new(program).args(arguments), &mut |_| {})?.success())
    }

    /// `kubectl` as the cluster's administrator.
    pub(crate) fn kubectl<I: IntoIterator<Item = S>, S: Into<String>>(&self, arguments: I) -> Command {
        Command::new("kubectl")
            .arg(format!("--kubeconfig={}", layout::ADMIN_KUBECONFIG))
            .args(arguments)
            .limit(self.limit())
    }

    fn pack(&self, name: &str) -> Result<&'a Pack, StepError> {
        self.index.pack(name).ok_or_else(|| StepError::State {
            what: format!("the plan names the pack {name}, which the bundle does not have"),
            hint: "the plan belongs to another bundle; start the installation again".to_owned(),
        })
    }

    /// Asks again and again until the answer is true or the step's limit is over.
    pub(crate) fn wait(
        &self,
        what: &str,
        report: &mut Report,
        ask: impl FnMut(&Self) -> Result<Result<(), String>, StepError>,
    ) -> Result<(), StepError> {
        self.wait_at_most(self.limit(), what, report, ask)
    }

    /// As [`Self::wait`], where the wait is a part of the step.
    pub(crate) fn wait_at_most(
        &self,
        limit: Duration,
        what: &str,
        report: &mut Report,
        mut ask: impl FnMut(&Self) -> Result<Result<(), String>, StepError>,
    ) -> Result<(), StepError> {
        let start = self.host.now();
        let mut told = String::new();
        loop {
            let asked = self.host.now();
            let last = match ask(self)? {
                Ok(()) => return Ok(()),
                Err(last) => last,
            };
            let answered = self.host.now().duration_since(asked).unsigned_abs();
            if last != told {
                report(Progress::Note { text: last.clone() });
                told.clone_from(&last);
            }
            let waited = self.host.now().duration_since(start).as_secs().unsigned_abs();
            if waited >= limit.as_secs() {
                return Err(StepError::Waited { what: what.to_owned(), seconds: waited, last });
            }
            // On a slow machine the questions themselves would keep what is waited for from becoming ready.
            self.host.pause((3 * answered).clamp(Duration::from_secs(1), Duration::from_secs(15)));
        }
    }

    /// The answers of the plan to the questions of a pack.
    pub(crate) fn answers_of(&self, pack: &str) -> &'a PackAnswers {
        static NONE: PackAnswers = PackAnswers::new();
        self.plan.answers.get(pack).unwrap_or(&NONE)
    }

    /// The text of a Kubernetes manifest, from the registry's store, variables replaced.
    pub(crate) fn rendered(
        &self,
        manifest: &PackManifest,
        answers: &PackAnswers,
    ) -> Result<Zeroizing<String>, StepError> {
        let answer = |name: &str| answers.get(name).map(Value::in_manifest);
        self.template(&manifest.digest, manifest.size, manifest.template, &answer)
    }

    /// The text of a file that is a template, from the registry's store, variables replaced.
    pub(crate) fn rendered_file(&self, pack: &Pack, file: &PackFile) -> Result<Zeroizing<String>, StepError> {
        let answers = self.answers_of(&pack.name);
        let answer = |name: &str| {
            let question = crate::config::answers::question(pack, name)?;
            // Whoever made the bundle: what a text would do to a file of an unknown format is not tried.
            bundle::template::may_stand_in_a_file(question).then(|| answers.get(name).map(Value::to_string))?
        };
        self.template(&file.digest, file.size, true, &answer)
    }

    fn template(
        &self,
        digest: &Digest,
        size: u64,
        template: bool,
        answer: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Zeroizing<String>, StepError> {
        let path = blob_path(digest);
        let text = self.host.read_text(&path)?.ok_or_else(|| StepError::State {
            what: format!("the store lacks the blob {digest} ({size} bytes)"),
            hint: "`cofferdam registry fsck` tells what else is missing".to_owned(),
        })?;
        if Digest::sha256_of(text.as_bytes()) != *digest {
            return Err(HostError::Digest {
                path,
                expected: digest.to_string(),
                found: Digest::sha256_of(text.as_bytes()).to_string(),
            }
            .into());
        }
        if !template {
            return Ok(text);
        }
        let mut value = |name: &str| self.variable(name).or_else(|| answer(name));
        bundle::template::render(&text, &mut value).map(Zeroizing::new).map_err(|error| StepError::State {
            what: format!("template {digest}: {error}"),
            hint: "the bundle needs mending".to_owned(),
        })
    }

    fn variable(&self, name: &str) -> Option<String> {
        Some(match name {
            "fqdn" => self.config.site.fqdn.clone(),
            "vip" => self.config.site.vip.map(|vip| vip.to_string()).unwrap_or_default(),
            "pod-cidr" => self.config.cluster.pod_cidr.clone(),
            "service-cidr" => self.config.cluster.service_cidr.clone(),
            "node-name" => self.config.node.name.clone(),
            "node-ip" => self.config.node.address.to_string(),
            "cluster-name" => self.config.site.name.clone(),
            _ => return None,
        })
    }
}

/// Where the registry's store keeps a blob.
pub(crate) fn blob_path(digest: &Digest) -> Utf8PathBuf {
    let hex = digest.hex();
    Utf8Path::new(layout::STORE).join("blobs").join(digest.algorithm().name()).join(&hex[..2]).join(hex)
}

/// Permission bits from a pack's text, for example `0755`.
fn mode(text: &str) -> Result<u32, StepError> {
    u32::from_str_radix(text, 8).ok().filter(|mode| mode & !0o777 == 0).ok_or_else(|| StepError::State {
        what: format!("{text:?} are no permission bits"),
        hint: "the bundle needs mending".to_owned(),
    })
}
