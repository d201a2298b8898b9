#!/bin/bash
# The first process of a throw-away host, in its new namespaces: builds what a kernel and a boot loader give to systemd.
#
# Usage: boot.sh DIRECTORY TREE               (called by host.sh only)
#
# Invariant: nothing of the machine outside can be changed from inside but the folders that were shared read-write. /sys is
# read-only, /proc/sys too except for net (which belongs to the network namespace), the clock and modules are out of reach.

set -eu
directory=$1
tree=$2
root=$directory/root
# address, lan (a process in the LAN's network namespace), folders_on_disk
. "$directory/spec"

# Seen through the outer /proc: the id that the outside knows this process by.
read -r leader _ </proc/self/stat

connect() {
    local octets peer
    IFS=. read -r -a octets <<<"$address"
    # A fresh name for each boot: the last boot's link may need a moment to vanish.
    peer=h${octets[3]}-$leader
    ip link set lo up
    # The same hardware address for each boot, or the neighbours would talk to the old one until their cache times out.
    ip link add eth0 address "$(printf '02:cf:%02x:%02x:%02x:%02x' "${octets[@]}")" type veth \
        peer name "$peer" netns "/proc/$lan/ns/net"
    nsenter --net="/proc/$lan/ns/net" ip link set "$peer" master br0 up
    ip address add "$address/24" dev eth0
    ip link set eth0 up
    ip route add default via "${address%.*}.1"
    # kubelet looks for a cloud at this address and would wait for an answer.
    ip route add unreachable 169.254.0.0/16
}

mount_root() {
    local folder mode from to
    mkdir -p "$root" "$directory/upper"
    # `volatile` leaves out the syncs of a layer that no one needs after a crash of the machine; the mark that it leaves behind
    # would forbid the next mount.
    rm -rf "$directory/work"
    mkdir "$directory/work"
    mount -t overlay overlay -o "lowerdir=$tree,upperdir=$directory/upper,workdir=$directory/work,volatile" "$root"
    # An overlay is refused as the upper layer of another one: containerd needs a real filesystem.
    for folder in $folders_on_disk; do
        mkdir -p "$directory/state$folder" "$root$folder"
        mount --bind "$directory/state$folder" "$root$folder"
    done
    while IFS=$'\t' read -r mode from to; do
        if [ -d "$from" ]; then mkdir -p "$root$to"; else mkdir -p "$(dirname "$root$to")" && touch "$root$to"; fi
        mount --bind "$from" "$root$to"
        if [ "$mode" = ro ]; then mount -o remount,bind,ro "$root$to"; fi
    done <"$directory/shares"
}

mount_kernel() {
    local node path value controller
    mount -t tmpfs -o mode=0755,nosuid,nodev run "$root/run"
    mount -t tmpfs -o mode=1777,nosuid,nodev tmp "$root/tmp"
    mkdir -p "$root/run/fast-host/sysctl" "$root/run/fast-host/old"
    mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"

    mount -t tmpfs -o mode=0755,nosuid,strictatime dev "$root/dev"
    mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5,nosuid,noexec devpts "$root/dev/pts"
    mount -t tmpfs -o mode=1777,nosuid,nodev shm "$root/dev/shm"
    mount -t mqueue -o nosuid,nodev,noexec mqueue "$root/dev/mqueue"
    for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0" "kmsg 1 3"; do
        # shellcheck disable=SC2086  # three words on purpose
        set -- $node
        # kmsg is a second null: the machine's kernel log is not the host's.
        mknod -m 0666 "$root/dev/$1" c "$2" "$3"
    done
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    ln -s fd/0 "$root/dev/stdin"
    ln -s fd/1 "$root/dev/stdout"
    ln -s fd/2 "$root/dev/stderr"

    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,bind,ro "$root/proc/sys"
    mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
    mount -o remount,bind,rw "$root/proc/sys/net"
    if [ -e "$root/proc/sysrq-trigger" ]; then mount --bind "$root/dev/null" "$root/proc/sysrq-trigger"; fi
    cat /proc/sys/kernel/random/uuid >"$root/run/fast-host/boot_id"
    mount --bind -o ro "$root/run/fast-host/boot_id" "$root/proc/sys/kernel/random/boot_id"
    # What kubelet sets and an installer hardens, machine-wide in the kernel: a plain file for each, with the value that a
    # fresh Debian 12 has. They answer to reads and writes and are back to this at the next boot, as the real ones.
    while read -r path value; do
        printf '%s\n' "$value" >"$root/run/fast-host/sysctl/${path//\//.}"
        mount --bind "$root/run/fast-host/sysctl/${path//\//.}" "$root/proc/sys/$path"
    done <<'SYSCTLS'
vm/overcommit_memory 0
vm/panic_on_oom 0
vm/max_map_count 65530
kernel/panic 0
kernel/panic_on_oops 0
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
fs/inotify/max_user_instances 128
fs/inotify/max_user_watches 65536
SYSCTLS

    # Hybrid: with v1 alone systemd does not see a cgroup become empty, and each stop of a service takes its whole time limit.
    mount -t tmpfs -o mode=0755,nosuid,nodev,noexec cgroup "$root/sys/fs/cgroup"
    for controller in cpu cpuacct cpuset memory devices freezer blkio pids; do
        mkdir "$root/sys/fs/cgroup/$controller"
        mount -t cgroup -o "nosuid,nodev,noexec,$controller" cgroup "$root/sys/fs/cgroup/$controller"
    done
    mkdir "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/unified"
    mount -t cgroup -o nosuid,nodev,noexec,none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup/unified"
}

connect
mount_root
mount_kernel
# Bit 24 is CAP_SYS_RESOURCE; see the stand-in for runc in the tree.
read -r _ bounding < <(grep CapBnd: /proc/self/status)
if (((16#$bounding >> 24) & 1)); then : >"$root/run/fast-host/may-lower-oom-score"; fi

printf '%s\n' "$leader" >"$directory/leader.part"
mv "$directory/leader.part" "$directory/leader"
cd "$root"
pivot_root . run/fast-host/old
umount -l /run/fast-host/old
rmdir /run/fast-host/old
mount --make-rshared /
exec env -i container=fast-host \
    setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog /lib/systemd/systemd --show-status=no
