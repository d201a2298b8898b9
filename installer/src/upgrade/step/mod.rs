//! What each [`Action`] of an upgrade does on a host. Invariant: as in `crate::step`: `done` only looks, `run` may be cut
//! off anywhere and run again.

mod gates;
mod kubernetes;
mod migration;
mod release;
mod restore;
mod snapshot;
mod system;

pub(super) use gates::judge_members;

use super::Action;
use crate::step::{Context, Report, StepError};

/// Whether nothing is left to do.
pub(crate) fn done(context: &Context, action: &Action) -> Result<bool, StepError> {
    match action {
        Action::PinKeys { keys } => release::pinned(context, keys),
        Action::Snapshot { number } => snapshot::done(context, *number),
        Action::InstallProgram => release::program_installed(context),
        Action::RestoreProgram { number } => release::program_restored(context, *number),
        Action::PullImages { images } => release::pulled(context, images),
        Action::InstallFiles { pack, paths } => crate::step::files_installed(context, pack, Some(paths)),
        Action::RemoveFiles { paths } => release::removed(context, paths),
        Action::Restart { unit, program } => release::runs(context, unit, program),
        Action::UploadConfig { version } => kubernetes::config_uploaded(context, version),
        Action::MendStaticPods { number } => restore::static_pods_are_whole(context, *number),
        Action::UpgradeControlPlane { version, etcd_tag, .. } => kubernetes::manifests_have(context, version, etcd_tag),
        Action::UpgradeAddon { object, tag, .. } => kubernetes::addon_has(context, object, tag),
        Action::Migrate { pack, name, number, .. } => migration::done(context, *number, pack, name),
        Action::UndoMigration { pack, name, number, .. } => migration::undone(context, *number, pack, name),
        Action::RestoreFiles { number, under } => restore::restored(context, *number, under),
        Action::RestoreEtcd { number, only_after, .. } => restore::etcd_restored(context, *number, only_after),
        Action::WriteSlot { disk, root, verity, root_hash, .. } => {
            system::written(context, disk, root, verity, root_hash)
        }
        Action::AddSystem { root_hash, .. } | Action::SwitchSystem { root_hash, .. } => {
            system::runs(context, root_hash)
        }
        Action::AdoptProgram => release::program_adopted(context),
        Action::StoreAnswers => release::answers_stored(context),
        Action::Commit { .. } => release::committed(context),
        // These ask the cluster each time: what was so before a crash need not be so after it.
        Action::ActivateBundle { .. }
        | Action::UpgradeKubeletConfig
        | Action::AwaitControlPlane { .. }
        | Action::Drain { .. }
        | Action::Uncordon { .. }
        | Action::Prune { .. }
        | Action::Gates { .. }
        | Action::RetireSystem { .. }
        | Action::UpdateLoader { .. }
        | Action::Escrow { .. } => Ok(false),
    }
}

/// Does it.
pub(crate) fn run(context: &Context, action: &Action, report: &mut Report) -> Result<(), StepError> {
    match action {
        Action::PinKeys { keys } => release::pin(context, keys),
        Action::Snapshot { number } => snapshot::run(context, *number, report),
        Action::InstallProgram => release::install_program(context),
        Action::RestoreProgram { number } => release::restore_program(context, *number),
        Action::ActivateBundle { bundle } => release::activate(context, bundle),
        Action::PullImages { images } => release::pull(context, images, report),
        Action::InstallFiles { pack, paths } => crate::step::install_files(context, pack, Some(paths), report),
        Action::RemoveFiles { paths } => release::remove(context, paths),
        Action::Restart { unit, program } => release::restart(context, unit, program, report),
        Action::UploadConfig { .. } => kubernetes::upload_config(context, report),
        Action::MendStaticPods { number } => restore::mend_static_pods(context, *number, report),
        Action::UpgradeControlPlane { version, etcd, patient, number, .. } => {
            migration::note(context.host, *number, crate::upgrade::stages::KUBERNETES_MARK, version)?;
            kubernetes::upgrade_control_plane(context, version, *etcd, *patient, report)
        }
        Action::UpgradeKubeletConfig => kubernetes::upgrade_kubelet_config(context, report),
        Action::UpgradeAddon { addon, .. } => kubernetes::upgrade_addon(context, addon, report),
        Action::AwaitControlPlane { version, etcd_tag } => {
            kubernetes::await_control_plane(context, version, etcd_tag, report)
        }
        Action::Drain { node } => kubernetes::drain(context, node, report),
        Action::Uncordon { node } => kubernetes::uncordon(context, node),
        Action::Migrate { pack, name, manifest, number } => {
            migration::run(context, *number, pack, name, manifest, report)
        }
        Action::UndoMigration { pack, name, manifest, answers, number } => {
            migration::undo(context, *number, (pack, name), (manifest, answers), report)
        }
        Action::Prune { pack, gone, answers, kept } => migration::prune(context, pack, (gone, answers), kept, report),
        Action::Gates { gates, namespaces } => gates::run(context, gates, namespaces, report),
        Action::Escrow { recipients, directory } => crate::step::seal_escrow(context, recipients, directory.as_deref()),
        Action::RestoreFiles { number, under } => restore::run(context, *number, under, report),
        Action::RestoreEtcd { number, image, .. } => restore::etcd(context, *number, image, report),
        Action::WriteSlot { .. } => system::write(context, action, report),
        Action::AddSystem { boot, version, image, .. } => system::add(context, boot, version, image),
        Action::UpdateLoader { boot, loader } => system::update_loader(context, boot, loader),
        Action::RetireSystem { boot, version } => system::retire(context, boot, version),
        Action::SwitchSystem { boot, version, .. } => system::switch(context, boot, version),
        Action::AdoptProgram => release::adopt_program(context),
        Action::StoreAnswers => release::store_answers(context),
        Action::Commit { number } => release::commit(context, *number),
    }
}
