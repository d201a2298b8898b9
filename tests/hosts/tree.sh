#!/bin/bash
# Builds the root tree of the throw-away hosts: Debian 12 as a plain server install leaves it, once per machine.
#
# Standard output: the directory with the tree, ${XDG_CACHE_HOME:-~/.cache}/cofferdam/host-tree/KEY. It is found again by every
# clone with the same scripts; hosts use it read-only, as the lower layer of an overlay, so that any number can share it.
# Needs about a minute the first time, nothing when it is there. Disk: about 300 MB.
#
# What is deliberately not inside: containerd, runc, kubeadm and images. They come from a bundle, as in the field.
# What is inside only because of the bed: the folder tree/ (see there), and some units masked.

set -euo pipefail
umask 022
export LC_ALL=C

folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/cofferdam/host-tree
release=bookworm

packages=(
    # the host itself
    systemd-sysv udev dbus libpam-systemd login passwd util-linux mount procps kmod ca-certificates curl
    # the network
    iproute2 iputils-arping iputils-ping iptables nftables ebtables conntrack ethtool socat
    # disks
    cryptsetup-bin e2fsprogs
    # what the runtime's binaries are linked with
    libseccomp2
    # for the eyes of tests
    openssl
)

# Hardware, clocks and names belong to the machine, not to a host in namespaces; the timers would disturb measurements.
masked=(
    systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket systemd-udevd-kernel.socket
    systemd-modules-load.service systemd-timesyncd.service systemd-resolved.service systemd-networkd.service
    systemd-networkd-wait-online.service getty@.service console-getty.service getty.target
    dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
)

say() { printf '%s\n' "host tree: $*" >&2; }

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

build() {
    local into=$1 file name
    local files=()
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] && files+=("$file")
    done
    [ ${#files[@]} -gt 0 ] || fail "no apt sources are configured on this machine" "see sources.list(5)"
    # The machine's own mirror, as it is configured; no mirror is named here.
    python3 "$folder/../kubernetes/debian_sources.py" "$release" "${files[@]}" | sed 's/^Types: .*/Types: deb/' >"$into.sources" \
        || fail "no apt source for Debian $release is configured on this machine" "add $release to /etc/apt/sources.list.d"
    mmdebstrap --quiet --variant=minbase --mode=root --include="$(IFS=,; echo "${packages[*]}")" \
        --aptopt='Acquire::Retries "3"' --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Check-Valid-Until "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$release" "$into" "$into.sources" >&2
    rm "$into.sources"

    # Each host gets its own at the first boot, as an image for many machines has it.
    : >"$into/etc/machine-id"
    rm -f "$into/var/lib/dbus/machine-id" "$into/etc/hostname" "$into/etc/resolv.conf"
    printf '# no name server: this network has none\n' >"$into/etc/resolv.conf"
    rm -rf "$into/var/lib/apt/lists" "$into/var/cache/apt"/*.bin
    mkdir -p "$into/var/lib/cofferdam" "$into/var/lib/apt/lists/partial"
    ln -sf /lib/systemd/system/multi-user.target "$into/etc/systemd/system/default.target"
    for name in "${masked[@]}"; do
        ln -sf /dev/null "$into/etc/systemd/system/$name"
    done
    # kmod's modprobe is a link to kmod; it must go first, or the stand-in would overwrite kmod itself.
    rm -f "$into/usr/sbin/modprobe"
    cp -R --no-dereference "$folder/tree/." "$into/"
}

for need in mmdebstrap:mmdebstrap python3:python3 flock:util-linux; do
    command -v "${need%:*}" >/dev/null \
        || fail "the program ${need%:*} is missing" "apt-get install --no-install-recommends ${need#*:}"
done
[ "$(id -u)" = 0 ] || fail "building a host tree needs root" "run it with sudo"

key=$(cd "$folder" && find tree.sh tree ../kubernetes/debian_sources.py -type f -print0 | sort -z \
    | xargs -0 sha256sum | sha256sum | cut -c1-16)
result=$cache/$release-$(dpkg --print-architecture)-$key
if [ ! -d "$result" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock --nonblock 9 || { say "another process builds it; waiting for it"; flock 9; }
fi
if [ ! -d "$result" ]; then
    began=$SECONDS
    say "building Debian 12 with ${#packages[@]} packages (about 60 s)"
    rm -rf "$result.part"
    # Not `build || fail`: bash ignores `set -e` inside a function that stands left of `||`.
    build "$result.part"
    mv "$result.part" "$result"
    say "done in $((SECONDS - began)) s, $(du -sm "$result" | cut -f1) MB"
fi
printf '%s\n' "$result"
