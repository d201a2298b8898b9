//! What the system is made of: the recipe of `iso/recipe/`, carried in the program so that a build needs no source tree.
//!
//! Called by [`super::root`].

use bundle::oci::{Algorithm, Hasher};

/// Debian's release.
pub(crate) const RELEASE: &str = "trixie";
/// Its number, for package addresses in the bill of materials.
pub(crate) const RELEASE_NUMBER: &str = "13";

const PACKAGES: &str = include_str!("../../recipe/packages.txt");
const TOOLBOX: &str = include_str!("../../recipe/toolbox.txt");
/// dracut's configuration.
pub(crate) const DRACUT: &str = include_str!("../../recipe/dracut.conf");
/// Run on the tree after the files of [`TREE`] were laid over it.
pub(crate) const FINISH: &str = include_str!("../../recipe/finish.sh");

/// A file that is laid over the tree that Debian's packages made.
pub(crate) struct TreeFile {
    /// Without a slash in front.
    pub(crate) path: &'static str,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) content: &'static [u8],
}

const fn file(path: &'static str, mode: u32, content: &'static [u8]) -> TreeFile {
    TreeFile { path, mode, content }
}

/// All of `iso/recipe/tree`.
#[rustfmt::skip]
pub(crate) const TREE: &[TreeFile] = &[
    file("etc/apt/apt.conf.d/60-cofferdam", 0o644, include_bytes!("../../recipe/tree/etc/apt/apt.conf.d/60-cofferdam")),
    file("etc/at.allow", 0o600, include_bytes!("../../recipe/tree/etc/at.allow")),
    file("etc/audit/rules.d/50-cofferdam.rules", 0o600, include_bytes!("../../recipe/tree/etc/audit/rules.d/50-cofferdam.rules")),
    file("etc/audit/rules.d/99-finalize.rules", 0o600, include_bytes!("../../recipe/tree/etc/audit/rules.d/99-finalize.rules")),
    file("etc/cron.allow", 0o600, include_bytes!("../../recipe/tree/etc/cron.allow")),
    file("etc/fstab", 0o644, include_bytes!("../../recipe/tree/etc/fstab")),
    file("etc/issue", 0o644, include_bytes!("../../recipe/tree/etc/issue")),
    file("etc/issue.net", 0o644, include_bytes!("../../recipe/tree/etc/issue.net")),
    file("etc/modprobe.d/cofferdam-hardening.conf", 0o644, include_bytes!("../../recipe/tree/etc/modprobe.d/cofferdam-hardening.conf")),
    file("etc/motd", 0o644, include_bytes!("../../recipe/tree/etc/motd")),
    file("etc/nftables.conf", 0o644, include_bytes!("../../recipe/tree/etc/nftables.conf")),
    file("etc/pam.d/common-account", 0o644, include_bytes!("../../recipe/tree/etc/pam.d/common-account")),
    file("etc/pam.d/common-auth", 0o644, include_bytes!("../../recipe/tree/etc/pam.d/common-auth")),
    file("etc/pam.d/common-password", 0o644, include_bytes!("../../recipe/tree/etc/pam.d/common-password")),
    file("etc/profile.d/cofferdam.sh", 0o644, include_bytes!("../../recipe/tree/etc/profile.d/cofferdam.sh")),
    file("etc/security/faillock.conf", 0o644, include_bytes!("../../recipe/tree/etc/security/faillock.conf")),
    file("etc/security/limits.d/cofferdam.conf", 0o644, include_bytes!("../../recipe/tree/etc/security/limits.d/cofferdam.conf")),
    file("etc/security/pwhistory.conf", 0o644, include_bytes!("../../recipe/tree/etc/security/pwhistory.conf")),
    file("etc/security/pwquality.conf", 0o644, include_bytes!("../../recipe/tree/etc/security/pwquality.conf")),
    file("etc/ssh/sshd_config", 0o644, include_bytes!("../../recipe/tree/etc/ssh/sshd_config")),
    file("etc/sudoers.d/cofferdam", 0o644, include_bytes!("../../recipe/tree/etc/sudoers.d/cofferdam")),
    file("etc/systemd/coredump.conf.d/cofferdam.conf", 0o644, include_bytes!("../../recipe/tree/etc/systemd/coredump.conf.d/cofferdam.conf")),
    file("etc/systemd/journald.conf", 0o644, include_bytes!("../../recipe/tree/etc/systemd/journald.conf")),
    file("etc/systemd/network/70-cofferdam-services.netdev", 0o644, include_bytes!("../../recipe/tree/etc/systemd/network/70-cofferdam-services.netdev")),
    file("etc/systemd/network/70-cofferdam-services.network", 0o644, include_bytes!("../../recipe/tree/etc/systemd/network/70-cofferdam-services.network")),
    file("etc/systemd/network/80-cofferdam-dhcp.network", 0o644, include_bytes!("../../recipe/tree/etc/systemd/network/80-cofferdam-dhcp.network")),
    file("etc/systemd/resolved.conf.d/cofferdam.conf", 0o644, include_bytes!("../../recipe/tree/etc/systemd/resolved.conf.d/cofferdam.conf")),
    file("etc/systemd/system/getty@.service.d/cofferdam.conf", 0o644, include_bytes!("../../recipe/tree/etc/systemd/system/getty@.service.d/cofferdam.conf")),
    file("etc/systemd/system/serial-getty@.service.d/cofferdam.conf", 0o644, include_bytes!("../../recipe/tree/etc/systemd/system/serial-getty@.service.d/cofferdam.conf")),
    file("etc/systemd/system/ssh.service.d/cofferdam.conf", 0o644, include_bytes!("../../recipe/tree/etc/systemd/system/ssh.service.d/cofferdam.conf")),
    file("etc/systemd/system/sshd-keygen.service.d/cofferdam.conf", 0o644, include_bytes!("../../recipe/tree/etc/systemd/system/sshd-keygen.service.d/cofferdam.conf")),
    file("etc/systemd/system/sysctl-reapply-network.service", 0o644, include_bytes!("../../recipe/tree/etc/systemd/system/sysctl-reapply-network.service")),
    file("etc/systemd/system/systemd-networkd-wait-online.service.d/cofferdam.conf", 0o644, include_bytes!("../../recipe/tree/etc/systemd/system/systemd-networkd-wait-online.service.d/cofferdam.conf")),
    file("etc/systemd/system/tmp.mount.d/cofferdam.conf", 0o644, include_bytes!("../../recipe/tree/etc/systemd/system/tmp.mount.d/cofferdam.conf")),
    file("etc/systemd/timesyncd.conf.d/cofferdam.conf", 0o644, include_bytes!("../../recipe/tree/etc/systemd/timesyncd.conf.d/cofferdam.conf")),
    file("usr/lib/cofferdam/verify-root", 0o755, include_bytes!("../../recipe/tree/usr/lib/cofferdam/verify-root")),
    file("usr/lib/dracut/modules.d/90cofferdam/99-cofferdam-medium.rules", 0o644, include_bytes!("../../recipe/tree/usr/lib/dracut/modules.d/90cofferdam/99-cofferdam-medium.rules")),
    file("usr/lib/dracut/modules.d/90cofferdam/cofferdam-medium@.service", 0o644, include_bytes!("../../recipe/tree/usr/lib/dracut/modules.d/90cofferdam/cofferdam-medium@.service")),
    file("usr/lib/dracut/modules.d/90cofferdam/cofferdam-state.service", 0o644, include_bytes!("../../recipe/tree/usr/lib/dracut/modules.d/90cofferdam/cofferdam-state.service")),
    file("usr/lib/dracut/modules.d/90cofferdam/medium.sh", 0o755, include_bytes!("../../recipe/tree/usr/lib/dracut/modules.d/90cofferdam/medium.sh")),
    file("usr/lib/dracut/modules.d/90cofferdam/module-setup.sh", 0o755, include_bytes!("../../recipe/tree/usr/lib/dracut/modules.d/90cofferdam/module-setup.sh")),
    file("usr/lib/dracut/modules.d/90cofferdam/state.sh", 0o755, include_bytes!("../../recipe/tree/usr/lib/dracut/modules.d/90cofferdam/state.sh")),
    file("usr/lib/sysctl.d/60-cofferdam-hardening.conf", 0o644, include_bytes!("../../recipe/tree/usr/lib/sysctl.d/60-cofferdam-hardening.conf")),
    file("usr/lib/systemd/system/cofferdam-console@.service", 0o644, include_bytes!("../../recipe/tree/usr/lib/systemd/system/cofferdam-console@.service")),
    file("usr/lib/systemd/system/cofferdam-continue.service", 0o644, include_bytes!("../../recipe/tree/usr/lib/systemd/system/cofferdam-continue.service")),
    file("usr/lib/systemd/system/cofferdam-dashboard.service", 0o644, include_bytes!("../../recipe/tree/usr/lib/systemd/system/cofferdam-dashboard.service")),
    file("usr/lib/systemd/system/cofferdam-follow.service", 0o644, include_bytes!("../../recipe/tree/usr/lib/systemd/system/cofferdam-follow.service")),
    file("usr/lib/systemd/system/cofferdam-health.service", 0o644, include_bytes!("../../recipe/tree/usr/lib/systemd/system/cofferdam-health.service")),
    file("usr/lib/systemd/system/cofferdam-seek.service", 0o644, include_bytes!("../../recipe/tree/usr/lib/systemd/system/cofferdam-seek.service")),
    file("usr/lib/systemd/system/cofferdam-unattended.service", 0o644, include_bytes!("../../recipe/tree/usr/lib/systemd/system/cofferdam-unattended.service")),
    file("usr/lib/systemd/system/cofferdam-verify.service", 0o644, include_bytes!("../../recipe/tree/usr/lib/systemd/system/cofferdam-verify.service")),
    file("usr/lib/systemd/system/cofferdam-verify.timer", 0o644, include_bytes!("../../recipe/tree/usr/lib/systemd/system/cofferdam-verify.timer")),
    file("usr/lib/sysusers.d/cofferdam.conf", 0o644, include_bytes!("../../recipe/tree/usr/lib/sysusers.d/cofferdam.conf")),
    file("usr/lib/tmpfiles.d/cofferdam.conf", 0o644, include_bytes!("../../recipe/tree/usr/lib/tmpfiles.d/cofferdam.conf")),
];

/// The packages of the system, without the kernel.
pub(crate) fn packages() -> Vec<String> {
    list(PACKAGES)
}

/// The packages of the folder of tools.
pub(crate) fn toolbox() -> Vec<String> {
    list(TOOLBOX)
}

fn list(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// A digest over the parts, each with its length; 16 hexadecimal digits of it.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finish().hex().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn walk(directory: &Path, base: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, base, found);
            } else {
                found.insert(path.strip_prefix(base).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn the_program_carries_every_file_of_the_recipe() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipe/tree");
        let mut found = BTreeSet::new();
        walk(&base, &base, &mut found);
        let carried: BTreeSet<_> = TREE.iter().map(|file| file.path.to_owned()).collect();
        assert_eq!(found, carried);
    }

    #[test]
    fn a_list_of_packages_has_comments() {
        assert_eq!(list("# a\n\nsudo # b\n less\n"), ["sudo", "less"]);
        for name in packages().iter().chain(&toolbox()) {
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b)),
                "{name}"
            );
        }
    }

    #[test]
    fn a_key_knows_where_parts_end() {
        assert_ne!(key([b"ab".as_slice(), b"c"]), key([b"a".as_slice(), b"bc"]));
    }
}
