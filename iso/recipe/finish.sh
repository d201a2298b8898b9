#!/bin/bash
# Makes the tree that mmdebstrap left an appliance's root: read-only, without what a machine adds to itself.
# Usage: finish.sh TREE       (as root; the drop-ins of tree/ have been laid over it)
set -euo pipefail
tree=$1
umask 022

# Words of login.defs, as CIS 5.4.1 and 5.4.2 want them.
while read -r word value; do
    sed -i "/^[#\t ]*$word[\t ]/d" "$tree/etc/login.defs"
    printf '%s\t%s\n' "$word" "$value" >>"$tree/etc/login.defs"
done <<'WORDS'
PASS_MAX_DAYS 365
PASS_MIN_DAYS 1
PASS_WARN_AGE 7
UMASK 027
ENCRYPT_METHOD YESCRYPT
SHA_CRYPT_MIN_ROUNDS 65536
WORDS
sed -i 's/^#\?INACTIVE=.*/INACTIVE=30/' "$tree/etc/default/useradd"
grep -q '^INACTIVE=' "$tree/etc/default/useradd" || echo INACTIVE=30 >>"$tree/etc/default/useradd"
# Administrators use sudo: the group whose members may become another user by su is empty.
sed -i -e '0,/^# *auth *required *pam_wheel.so.*/s//auth required pam_wheel.so use_uid group=sugroup/' "$tree/etc/pam.d/su"
# Shells that are no login shells read this alone.
printf '\n# Cofferdam (CIS 5.4.3.3)\numask 027\n' >>"$tree/etc/bash.bashrc"
# It allows what limits.d/cofferdam.conf forbids.
rm -f "$tree/etc/security/limits.d/10-coredump-debian.conf"
for word in max_log_file_action=keep_logs space_left_action=email admin_space_left_action=single disk_full_action=halt disk_error_action=syslog; do
    [ ! -f "$tree/etc/audit/auditd.conf" ] || sed -i "s/^${word%%=*} *=.*/${word%%=*} = ${word#*=}/" "$tree/etc/audit/auditd.conf"
done
# A full audit partition must not halt a cluster's only control plane: rotate.
[ ! -f "$tree/etc/audit/auditd.conf" ] || sed -i -e 's/^max_log_file_action.*/max_log_file_action = rotate/' \
    -e 's/^space_left_action.*/space_left_action = syslog/' -e 's/^admin_space_left_action.*/admin_space_left_action = syslog/' \
    -e 's/^disk_full_action.*/disk_full_action = rotate/' -e 's/^log_group.*/log_group = root/' "$tree/etc/audit/auditd.conf"

# No password opens root; the registry's user is there before anything runs.
systemd-sysusers --root="$tree" >/dev/null 2>&1 || chroot "$tree" systemd-sysusers
chroot "$tree" passwd --quiet --lock root
! grep -q '^tss:' "$tree/etc/passwd" || chroot "$tree" usermod --shell /usr/sbin/nologin tss
chmod 0000 "$tree/etc/shadow" "$tree/etc/gshadow"
for path in shadow- gshadow-; do [ ! -e "$tree/etc/$path" ] || chmod 0000 "$tree/etc/$path"; done
[ ! -e "$tree/etc/gshadow-" ] || chown root:root "$tree/etc/gshadow-"
chmod 0600 "$tree/etc/ssh/sshd_config" "$tree"/etc/audit/rules.d/*.rules
chmod 0750 "$tree/etc/sudoers.d"
chmod 0440 "$tree/etc/sudoers.d/cofferdam"
for path in crontab cron.hourly cron.daily cron.weekly cron.monthly cron.d; do [ ! -e "$tree/etc/$path" ] || chmod go-rwx "$tree/etc/$path"; done

# Programs that take more rights than who starts them has: only those that somebody needs here; the use of each is recorded.
for program in chfn chsh newgrp gpasswd expiry mount umount su; do chmod ug-s "$tree/usr/bin/$program"; done
chmod ug-s "$tree/usr/lib/openssh/ssh-keysign" "$tree/usr/bin/ssh-agent"
{
    (cd "$tree" && find usr -xdev -type f -perm /6000) | LC_ALL=C sort
    printf 'usr/bin/%s\n' chcon kmod
    printf 'usr/sbin/%s\n' usermod
} | sed 's|.*|-a always,exit -F path=/& -F perm=x -F auid>=1000 -F auid!=unset -k privileged|' >"$tree/etc/audit/rules.d/60-cofferdam-privileged.rules"
chmod 0600 "$tree/etc/audit/rules.d/60-cofferdam-privileged.rules"

# Debian's profiles of AppArmor are for programs that are not here, or confine nothing (`unconfined`, `complain`): one stays, and
# is enforced. Profiles for containers are containerd's.
find "$tree/etc/apparmor.d" -maxdepth 1 -type f ! -name unix-chkpwd -delete
find "$tree/etc/apparmor.d/local" -type f -delete
sed -i 's/ flags=(complain)//' "$tree/etc/apparmor.d/unix-chkpwd"

# What must differ between machines, and what this tree was made with.
: >"$tree/etc/machine-id"
rm -rf "$tree"/etc/{hostname,resolv.conf,.pwd.lock} "$tree"/etc/ssh/ssh_host_* "$tree/var/lib/dbus/machine-id" "$tree"/var/lib/systemd/{random-seed,catalog/database} \
    "$tree"/etc/apt/sources.list "$tree"/etc/apt/sources.list.d/* "$tree"/var/lib/apt/* "$tree"/var/log/* "$tree"/var/backups/* \
    "$tree"/boot/initrd.img* "$tree"/{vmlinuz,vmlinuz.old,initrd.img,initrd.img.old} "$tree"/usr/share/{doc,man,locale,info,lintian} "$tree"/usr/lib/python* \
    "$tree"/usr/lib/udev/hwdb.bin "$tree"/etc/udev/hwdb.bin
# Without its dictionary (cracklib) no password can be changed.
find "$tree/var/cache" -mindepth 1 -maxdepth 1 ! -name cracklib -exec rm -rf {} +
printf 'cofferdam\n' >"$tree/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n' >"$tree/etc/hosts"
ln -s ../run/systemd/resolve/stub-resolv.conf "$tree/etc/resolv.conf"
[ -e "$tree/usr/lib/systemd/systemd-resolved" ] || { rm "$tree/etc/resolv.conf"; ln -s ../run/cofferdam/resolv.conf "$tree/etc/resolv.conf"; }

# Places that are written to lie below /var.
for pair in usr/local:usrlocal opt:opt home:home root:roothome srv:srv; do
    rm -rf "${tree:?}/${pair%:*}"
    ln -s "$(case $pair in usr/local:*) echo ../;; esac)var/${pair#*:}" "$tree/${pair%:*}"
done
# Kubernetes makes folders for volume plug-ins there.
mkdir -p "$tree/usr/libexec"
ln -s ../../var/lib/kubernetes-plugins "$tree/usr/libexec/kubernetes"
mkdir -p "$tree/efi"
# The version of the image is added to it when the root is compressed.
mv "$tree/usr/lib/os-release" "$tree/usr/lib/os-release.debian"
# The package database describes the image, not the machine.
mkdir -p "$tree/usr/lib/sysimage"
mv "$tree/var/lib/dpkg" "$tree/usr/lib/sysimage/dpkg"
ln -s ../../usr/lib/sysimage/dpkg "$tree/var/lib/dpkg"
rm -f "$tree"/usr/lib/sysimage/dpkg/*-old "$tree"/usr/lib/sysimage/dpkg/lock*
# A fresh /var is filled from here.
mkdir -p "$tree/usr/share/factory"
rm -rf "$tree/usr/share/factory/var"
mv "$tree/var" "$tree/usr/share/factory/var"
mkdir -m 0755 "$tree/var"

# What runs, and what does not. PCR 15 is what the policy of the volume wants empty: no machine ID goes there.
mask() { ln -sf /dev/null "$tree/etc/systemd/system/$1"; }
for unit in ldconfig.service systemd-hwdb-update.service systemd-journal-catalog-update.service systemd-update-done.service \
    systemd-sysusers.service systemd-firstboot.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    systemd-pcrmachine.service fstrim.timer containerd.service ctrl-alt-del.target debug-shell.service; do
    mask "$unit"
done
rm -f "$tree/etc/systemd/system/containerd.service" "$tree/etc/systemd/system/multi-user.target.wants/containerd.service"
ln -sf /usr/lib/systemd/system/multi-user.target "$tree/etc/systemd/system/default.target"
# It would open sshd on a UNIX socket, and to a hypervisor (AF_VSOCK), past the firewall and in the live system, too.
mkdir -p "$tree/etc/systemd/system-generators"
ln -s /dev/null "$tree/etc/systemd/system-generators/systemd-ssh-generator"
units=(systemd-networkd.service systemd-timesyncd.service nftables.service sysctl-reapply-network.service cofferdam-seek.service cofferdam-unattended.service cofferdam-follow.service
    cofferdam-continue.service cofferdam-dashboard.service cofferdam-health.service cofferdam-verify.timer tmp.mount auditd.service apparmor.service)
[ ! -e "$tree/usr/lib/systemd/systemd-resolved" ] || units+=(systemd-resolved.service)
chroot "$tree" systemctl --quiet enable "${units[@]}"
for console in tty1 ttyS0; do
    mkdir -p "$tree/etc/systemd/system/multi-user.target.wants"
    ln -sf /usr/lib/systemd/system/cofferdam-console@.service "$tree/etc/systemd/system/multi-user.target.wants/cofferdam-console@$console.service"
done
