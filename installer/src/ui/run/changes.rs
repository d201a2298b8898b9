//! What an installation that stopped has changed on the host, in words, and whether its settings can still be changed.
//! Pure; called by the failure page.

use super::model::{Run, StepState};
use crate::layout;
use crate::plan::{Action, Plan, Volume};

/// One line for each kind of change.
pub(super) fn changes(plan: &Plan, run: &Run) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (step, view) in plan.steps.iter().zip(&run.steps) {
        let is_done = match view.state {
            StepState::Waiting => continue,
            StepState::Running | StepState::Failed => false,
            StepState::Skipped | StepState::Finished(_) => true,
        };
        let line = match (&step.action, is_done) {
            (Action::PrepareHost { .. }, _) => {
                format!("{}, a system user, kernel modules and settings", layout::PROGRAM)
            }
            (Action::EncryptDisk { disk, .. }, false) => {
                format!("{} (serial {}) is being erased: what was on it is lost", disk.path, disk.serial)
            }
            (Action::EncryptDisk { disk, .. }, true) => {
                format!("{} (serial {}) is the encrypted data volume", disk.path, disk.serial)
            }
            (Action::PartitionDisk { disk, .. }, _) => {
                format!("{} (serial {}) has a new partition table: what was on it is lost", disk.path, disk.serial)
            }
            (Action::WriteSystem { root, .. }, _) => format!("the operating system on {root}"),
            (Action::InstallBoot { device, .. }, _) => format!("the boot partition {device}"),
            (Action::ConfigureNetwork { .. }, _) => "the network: files in /etc/systemd/network".to_owned(),
            (Action::NameMachine { name, .. }, _) => format!("the machine's name, {name}, and /etc/hosts"),
            (Action::MountData { volume: Volume::Encrypted { .. } }, _) => {
                format!("/etc/crypttab, the mount of {}", layout::DATA)
            }
            (Action::MountData { volume: Volume::Directory }, _) => format!("the directory {}", layout::DATA),
            (Action::BindState, _) => "state folders bound to the data volume".to_owned(),
            (Action::BringCertificates { .. }, _) => "a copy of your certificate on the encrypted volume".to_owned(),
            (Action::IssueCertificates { .. }, _) => {
                format!("keys and certificates in {} and {}", layout::KEYSTORE, layout::TLS)
            }
            (Action::LoadBundle { .. } | Action::StartRegistry { .. }, _) => {
                format!("the registry and its store in {}", layout::STORE)
            }
            (Action::InstallFiles { .. } | Action::ConfigureRuntime { .. } | Action::PullImages { .. }, _) => {
                "programs and containerd with its images".to_owned()
            }
            (
                Action::ConfigureKubernetes { .. }
                | Action::KubeadmPhase { .. }
                | Action::WaitForApi
                | Action::ApplyPack { .. }
                | Action::WaitForNode,
                _,
            ) => "a Kubernetes control plane in /etc/kubernetes".to_owned(),
            (Action::SealEscrow { .. }, _) => format!("the escrow in {}", layout::ESCROW),
            (Action::MakeAdministrator { name, .. }, _) => format!("the account {name}"),
            (
                Action::MountTarget { .. }
                | Action::Restart
                | Action::VerifyBundle { .. }
                | Action::Rehearse { .. }
                | Action::RecordSite
                | Action::Upgrade { .. },
                _,
            ) => continue,
        };
        if lines.last() != Some(&line) && !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// Whether nothing that is done depends on the answers: then another plan may be made. Later the host has keys,
/// certificates or a volume that belong to this one.
pub(super) fn may_change_settings(plan: &Plan, run: &Run) -> bool {
    plan.steps.iter().zip(&run.steps).filter(|(_, view)| view.state.is_done()).all(|(step, _)| {
        matches!(
            step.action,
            Action::PrepareHost { .. }
                | Action::VerifyBundle { .. }
                | Action::MountData { volume: Volume::Directory }
                | Action::BindState
        )
    })
}
