#!/bin/bash
# One throw-away host, from power-on to power-off; what a machine's power supply and firmware are to a real one.
#
# Usage: host.sh DIRECTORY TREE               (called by tests::fast_host::FastHost; needs root)
#
# DIRECTORY holds the host between boots, like a disk:
#   spec      shell variables for boot.sh, written by the caller
#   upper/    what the host changed in its root filesystem; state/: the folders that must lie on a real filesystem
# and while it runs:
#   leader    process id of the host's PID 1, seen from here; gone when the host is off
#   cgroups   the host's own cgroup in each hierarchy
#   ended     how the last run ended: power-off, killed or a code
#
# A reboot asked for inside boots again. Standard input is the power cable: at its end (the test process closed it, or died)
# the host is killed and every cgroup is removed. Namespaces and mounts vanish with the host's last process, for nothing
# of them has a name out here.

set -eu
exec 3<&0 </dev/null
here=$(cd "$(dirname "$0")" && pwd)
directory=$1
tree=$2
name=cofferdam-$(basename "$(dirname "$directory")")-$(basename "$directory")

make_cgroups() {
    local controllers path base group file
    groups=()
    while IFS=: read -r _ controllers path; do
        case $controllers in
        '') base=/sys/fs/cgroup/unified ;;
        name=systemd) base=/sys/fs/cgroup/systemd ;;
        *) base=/sys/fs/cgroup/$controllers ;;
        esac
        [ -f "$base/cgroup.procs" ] || continue
        group=${base}${path%/}/$name
        mkdir -p "$group"
        # A new cpuset is empty, and nothing may enter an empty one.
        for file in cpuset.cpus cpuset.mems; do
            if [ -f "$group/$file" ]; then cat "${group%/*}/$file" >"$group/$file"; fi
        done
        # The machine's disks are out of reach, whatever node someone makes for them.
        if [ -f "$group/devices.deny" ]; then echo 'b *:* rw' >"$group/devices.deny"; fi
        groups+=("$group")
    done </proc/self/cgroup
    printf '%s\n' "${groups[@]}" >"$directory/cgroups.part"
    mv "$directory/cgroups.part" "$directory/cgroups"
}

remove_cgroups() {
    local group try process
    for group in "${groups[@]}"; do
        for ((try = 0; try < 200; try++)); do
            [ -d "$group" ] || break
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
            [ -d "$group" ] || break
            # Only commands that were on their way into the host can be left here.
            if [ "$try" = 50 ]; then
                while read -r process; do kill -KILL "$process" 2>/dev/null || true; done <"$group/cgroup.procs"
            fi
            sleep 0.02
        done
    done
    rm -f "$directory/cgroups"
}

for controller in systemd unified memory pids cpu cpuset devices freezer blkio cpuacct; do
    if [ ! -f "/sys/fs/cgroup/$controller/cgroup.procs" ]; then
        echo "error: the cgroup v1 hierarchy /sys/fs/cgroup/$controller is missing on this machine" >&2
        echo "hint: the fast host needs the hybrid layout; on a machine with cgroup v2 only, use the virtual machine bed" >&2
        echo "unsupported" >"$directory/ended"
        exit 1
    fi
done

# While this is held, no other test process sweeps the folder away as left behind.
exec 8<"$directory/../lock"
flock --shared 8
rm -f "$directory/ended" "$directory/unplugged" "$directory/leader"
(
    # `read` is part of the shell: no second process would outlive this one.
    while read -r _ <&3; do :; done
    : >"$directory/unplugged" || true
    # Again and again, until the main shell has seen the end: a boot may be under way.
    while kill -0 $$ 2>/dev/null; do
        if read -r leader 2>/dev/null <"$directory/leader"; then
            kill -KILL "$leader" 2>/dev/null || true
            # runc freezes a container's cgroup for a moment while it sets it up; a frozen process (cgroup v1) does not die.
            while read -r group; do
                case $group in
                /sys/fs/cgroup/freezer/*)
                    find "$group" -name freezer.state -exec sh -c 'echo THAWED >"$1"' _ {} \; 2>/dev/null || true ;;
                esac
            done <"$directory/cgroups" || true
        elif [ ! -d "$directory" ]; then
            # Someone deleted the folder under us; --kill-child takes the rest along.
            pkill -KILL --parent $$ --exact unshare || true
        fi
        sleep 0.02
    done
) 8<&- &
watcher=$!
trap 'kill "$watcher" 2>/dev/null || true' EXIT
exec 3<&-

while :; do
    make_cgroups
    code=0
    "$here/enter.sh" "$directory" setpriv --pdeathsig KILL unshare --mount --uts --ipc --net --pid --cgroup --fork --kill-child=KILL \
        "$here/boot.sh" "$directory" "$tree" >>"$directory/console.log" 2>&1 8<&- &
    # In the background only so that bash does not tell how it ended.
    wait $! 2>/dev/null || code=$?
    # unshare(1) 2.38 cannot pass on that PID 1 was killed and ends with 1, as a boot that failed does; that one has no leader.
    if [ $code = 1 ] && [ -f "$directory/leader" ]; then code=137; fi
    rm -f "$directory/leader"
    remove_cgroups
    # PID 1 of a namespace that asks the kernel for a reboot is ended by SIGHUP, for a power-off by SIGINT: reboot(2).
    if [ $code != 129 ] || [ -e "$directory/unplugged" ]; then break; fi
done
case $code in
130) reason=power-off ;;
137) reason=killed ;;
*) reason="code $code" ;;
esac
printf '%s\n' "$reason" >"$directory/ended.part"
mv "$directory/ended.part" "$directory/ended"
