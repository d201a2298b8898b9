#!/bin/bash
# Builds the disk of the test machines: Debian 12 as an ordinary server install leaves it, once per development machine.
#
# Standard output: a directory, ${XDG_CACHE_HOME:-~/.cache}/cofferdam/machine/KEY, with
#   root.img       the root filesystem (ext4, label machine-root, sparse); machines use it read-only, under a qcow2 overlay
#   vmlinuz        Debian's own kernel; initramfs: finds the root by its label, nothing else
#   packages.txt   what is installed
# KEY is a hash of the scripts, so that every clone with the same ones finds it. Needs about two minutes the first time, nothing
# when it is there. Disk: about 700 MB. No loop device and no mount of an image is needed.
#
# What is deliberately not inside: containerd, runc, kubeadm and images. They come from a bundle, as in the field.
# What is inside only because of the bed: the folder tree/ (the agent, root's automatic login, the network's address).

set -euo pipefail
umask 022
export LC_ALL=C

folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/cofferdam/machine
release=bookworm

packages=(
    # the machine itself
    systemd-sysv udev dbus libpam-systemd login passwd util-linux mount fdisk procps kmod ca-certificates curl
    linux-image-cloud-amd64
    # the network
    iproute2 iputils-arping iputils-ping iptables nftables ebtables conntrack ethtool socat
    # disks and the TPM; systemd loads the libraries only when it needs them and so does not depend on them
    cryptsetup-bin e2fsprogs tpm2-tools libtss2-esys-3.0.2-0 libtss2-mu0 libtss2-rc0 libtss2-tcti-device0
    # what the runtime's binaries are linked with
    libseccomp2
    # for the eyes of tests
    openssl
    # instead of usrmerge, which would bring all of Perl
    usr-is-merged
)

# What would disturb measurements, and a console on a screen that is not there.
masked=(
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
    getty@tty1.service
)

# What the kernel needs to reach its root disk; the rest is loaded by udev.
boot_modules=(virtio_pci virtio_blk)

say() { printf '%s\n' "machine: $*" >&2; }

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

# stage SECONDS_EXPECTED WHAT COMMAND...
stage() {
    local expected=$1 what=$2 began=$SECONDS
    shift 2
    say "$what (about $expected s)"
    "$@"
    say "$what: done in $((SECONDS - began)) s"
}

install_packages() {
    local tree=$1 file
    local files=()
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] && files+=("$file")
    done
    [ ${#files[@]} -gt 0 ] || fail "no apt sources are configured on this machine" "see sources.list(5)"
    # The development machine's own mirror, as it is configured; no mirror is named here.
    python3 "$folder/../kubernetes/debian_sources.py" "$release" "${files[@]}" | sed 's/^Types: .*/Types: deb/' >"$tree.sources" \
        || fail "no apt source for Debian $release is configured on this machine" "add $release to /etc/apt/sources.list.d"
    mmdebstrap --quiet --variant=minbase --mode=root --architectures=amd64 --include="$(IFS=,; echo "${packages[*]}")" \
        --aptopt='Acquire::Retries "3"' --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Check-Valid-Until "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$release" "$tree" "$tree.sources" >&2
}

# The machines boot with an initramfs of a few files, which is some seconds faster without KVM than Debian's own.
make_initramfs() {
    local tree=$1 kernel=$2 into=$3 module path
    local initramfs=$tree.initramfs
    mkdir -p "$initramfs"/{bin,dev,proc,root,modules}
    cp "$(command -v busybox)" "$initramfs/bin/busybox"
    cp "$folder/initramfs-init" "$initramfs/init"
    chmod 755 "$initramfs/init"
    for module in "${boot_modules[@]}"; do
        chroot "$tree" modprobe --set-version="$kernel" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
    done | awk '!seen[$0]++' | while read -r path; do
        cp "$tree$path" "$initramfs/modules/"
        basename "$path" >>"$initramfs/modules/order"
    done
    (cd "$initramfs" && find . | LC_ALL=C sort | busybox cpio -o -H newc 2>/dev/null) | gzip -n >"$into"
}

finish_tree() {
    local tree=$1 name
    : >"$tree/etc/machine-id"
    rm -rf "$tree/var/lib/dbus/machine-id" "$tree/etc/hostname" "$tree/etc/resolv.conf" "$tree"/boot/initrd.img* \
        "$tree"/initrd.img* "$tree"/vmlinuz* "$tree/var/lib/apt/lists" "$tree"/var/cache/apt/*.bin \
        "$tree"/etc/apt/sources.list "$tree"/etc/apt/sources.list.d/*
    mkdir -p "$tree/var/lib/apt/lists/partial"
    printf '# no name server: this network has none\n' >"$tree/etc/resolv.conf"
    ln -sf /lib/systemd/system/multi-user.target "$tree/etc/systemd/system/default.target"
    for name in "${masked[@]}"; do ln -sf /dev/null "$tree/etc/systemd/system/$name"; done
    cp -R --no-dereference "$folder/tree/." "$tree/"
    chown -R 0:0 "$tree/etc/systemd" "$tree/etc/udev" "$tree/usr/local/lib/test-machine" "$tree/etc/fstab"
    chroot "$tree" systemctl enable systemd-networkd.service >/dev/null 2>&1
}

make_image() {
    local tree=$1 into=$2
    # 12 GiB, of which only what is written takes room.
    mke2fs -q -t ext4 -L machine-root -J size=64 -E lazy_itable_init=1,lazy_journal_init=1 -d "$tree" "$into" 12G >&2
}

build() {
    local into=$1 tree kernel
    rm -rf "$into"
    mkdir -p "$into"
    tree=$into/tree
    stage 90 "installing Debian 12 with ${#packages[@]} packages and what they need" install_packages "$tree"
    kernel=$(basename "$(find "$tree/lib/modules" -mindepth 1 -maxdepth 1 -type d | sort | tail -1)")
    cp "$tree/boot/vmlinuz-$kernel" "$into/vmlinuz"
    stage 1 "making the initramfs for kernel $kernel" make_initramfs "$tree" "$kernel" "$into/initramfs"
    dpkg-query --admindir="$tree/var/lib/dpkg" --show >"$into/packages.txt"
    finish_tree "$tree"
    stage 5 "writing the disk image" make_image "$tree" "$into/root.img"
    rm -rf "$tree" "$tree".*
}

missing=()
for need in mmdebstrap:mmdebstrap python3:python3 flock:util-linux mke2fs:e2fsprogs busybox:busybox-static; do
    command -v "${need%:*}" >/dev/null || missing+=("${need#*:}")
done
[ ${#missing[@]} -eq 0 ] || fail "these Debian packages are missing: ${missing[*]}" \
    "apt-get install --no-install-recommends ${missing[*]}"
[ "$(id -u)" = 0 ] || fail "building a machine needs root" "run it with sudo"

key=$(cd "$folder" && find debian.sh initramfs-init tree ../kubernetes/debian_sources.py -type f -print0 | sort -z \
    | xargs -0 sha256sum | sha256sum | cut -c1-16)
result=$cache/$release-amd64-$key
if [ ! -d "$result" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock --nonblock 9 || { say "another process builds it; waiting for it"; flock 9; }
fi
if [ ! -d "$result" ]; then
    began=$SECONDS
    say "building the disk of the test machines (about 2 minutes)"
    # Not `build || fail`: bash ignores `set -e` inside a function that stands left of `||`.
    build "$result.part"
    mv "$result.part" "$result"
    say "done in $((SECONDS - began)) s, $(du -sm "$result" | cut -f1) MB"
fi
printf '%s\n' "$result"
