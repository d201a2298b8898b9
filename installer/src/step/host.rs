//! `host.prepare`: the program, our folders, the registry's user, kernel modules and settings. Done when all files are
//! there as they should be and the settings are active.

use camino::Utf8PathBuf;

use super::{Context, StepError};
use crate::host::HostExt;
use crate::layout;

const MODULES: &str = "/etc/modules-load.d/cofferdam.conf";
const SYSCTLS: &str = "/etc/sysctl.d/90-cofferdam.conf";
const USERS: &str = "/etc/sysusers.d/cofferdam.conf";
/// systemd-networkd takes the first file that matches an adapter. One of the host's own that means every Ethernet adapter
/// would take the pods' adapters out of their bridge (systemd.network(5)).
const PODS_NETWORK: (&str, &str) = (
    "/etc/systemd/network/05-cofferdam-pods.network",
    "[Match]\nName=cni* veth* cali* flannel* cilium* lxc* kube-*\n\n[Link]\nUnmanaged=yes\n",
);
const NETWORKD: &str = "systemd-networkd.service";

pub(super) fn done(context: &Context, modules: &[String], sysctls: &[(String, String)]) -> Result<bool, StepError> {
    for (path, content) in files(modules, sysctls) {
        if !context.host.holds(&path, content.as_bytes(), 0o644)? {
            return Ok(false);
        }
    }
    for (key, value) in sysctls {
        let path = Utf8PathBuf::from(format!("/proc/sys/{}", key.replace('.', "/")));
        if context.host.read_text(&path)?.is_none_or(|present| present.trim() != value) {
            return Ok(false);
        }
    }
    Ok(context.host.look(layout::INDEX_SIGNATURE.into())?.is_some()
        && context.host.digest(layout::PROGRAM.into())? == context.host.digest("/proc/self/exe".into())?
        && context.succeeds("id", [layout::REGISTRY_USER])?)
}

pub(super) fn run(context: &Context, modules: &[String], sysctls: &[(String, String)]) -> Result<(), StepError> {
    let host = context.host;
    if host.digest(layout::PROGRAM.into())? != host.digest("/proc/self/exe".into())? {
        host.copy("/proc/self/exe".into(), layout::PROGRAM.into(), 0o755, None)?;
    }
    for (path, content) in files(modules, sysctls) {
        host.ensure(&path, content.as_bytes(), 0o644)?;
    }
    context.must("systemd-sysusers", [USERS])?;
    for module in modules {
        // Built into the kernel on some hosts: then modprobe succeeds without loading.
        context.must("modprobe", [module.as_str()])?;
    }
    context.must("sysctl", ["-q", "-p", SYSCTLS])?;
    if context.succeeds("systemctl", ["is-active", NETWORKD])? {
        context.must("networkctl", ["reload"])?;
    }
    let (index, signature) = context.signed_index;
    host.ensure(layout::INDEX.into(), index, 0o644)?;
    host.ensure(layout::INDEX_SIGNATURE.into(), signature, 0o644)?;
    Ok(())
}

fn files(modules: &[String], sysctls: &[(String, String)]) -> Vec<(Utf8PathBuf, String)> {
    let sysctls = sysctls.iter().fold(String::new(), |text, (key, value)| format!("{text}{key} = {value}\n"));
    vec![
        (MODULES.into(), modules.iter().fold(String::new(), |text, module| format!("{text}{module}\n"))),
        (SYSCTLS.into(), sysctls),
        (PODS_NETWORK.0.into(), PODS_NETWORK.1.to_owned()),
        (USERS.into(), format!("u {} - \"Cofferdam registry\" {}\n", layout::REGISTRY_USER, layout::STORE)),
    ]
}
