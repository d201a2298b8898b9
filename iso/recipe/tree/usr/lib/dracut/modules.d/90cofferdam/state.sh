#!/bin/sh
# Makes /var and /etc writable before the system starts. Live: in memory. Installed: on the encrypted volume of the disk
# that the verified root lies on; never on that of another disk.
set -eu
volume=cofferdam

tell() {
    for console in $(cat /sys/class/tty/console/active); do printf '\r\n%s\r\n' "$@" >"/dev/$console" 2>/dev/null || true; done
}

# The disk of the root's data partition: sysfs has the partition's folder in that of its disk.
disk_of_root() {
    mapped=$(readlink -f /dev/mapper/root)
    for slave in /sys/class/block/"$(basename "$mapped")"/slaves/*; do
        readlink -f "$slave/.." && return
    done
}

volume_partition() {
    for partition in "$1"/*/uevent; do
        if grep -qx 'PARTNAME=cofferdam-data' "$partition"; then
            sed -n 's/^DEVNAME=/\/dev\//p' "$partition" && return
        fi
    done
}

open_volume() {
    partition=$1
    if systemd-cryptsetup attach "$volume" "$partition" - tpm2-device=auto,headless=1,luks; then
        return
    fi
    tell "The TPM of this machine did not open the data volume of $partition." \
        "Is this the machine's own TPM, and was its firmware or its Secure Boot changed?" \
        "Type the recovery key of this site, or its passphrase. The key lies, encrypted, in the escrow on the boot partition."
    # try-empty-password and tokens are left out: a person answers, on whichever console.
    until systemd-cryptsetup attach "$volume" "$partition" - luks,timeout=0,tries=0,headless=0; do
        tell "That key does not open the data volume."
        sleep 1
    done
}

# From here on the TPM opens the volume no more: its policy wants PCR 15 as a start leaves it. Somebody who put another volume in
# place of the site's, and with it another /etc, gets a system that cannot ask the TPM for the key of the site's.
end_of_the_tpm() {
    [ -e /dev/tpmrm0 ] || return 0
    for pause in 1 5 0; do
        if /usr/lib/systemd/systemd-pcrextend --pcr=15 cofferdam:data-is-open; then return 0; fi
        sleep "$pause"
    done
    tell "The TPM does not take a measurement: the machine starts again."
    exit 1
}

if grep -qw cofferdam.live /proc/cmdline; then
    mount -t tmpfs -o mode=0755,nodev,nosuid,size=70% tmpfs /sysroot/var
else
    disk=$(disk_of_root)
    partition=$(volume_partition "$disk")
    [ -n "$partition" ] || { tell "The disk of the verified root has no data volume: it was not installed to the end." "Boot the medium again."; exit 1; }
    [ -e "/dev/mapper/$volume" ] || open_volume "$partition"
    end_of_the_tpm
    mount -t ext4 -o nodev,nosuid "/dev/mapper/$volume" /sysroot/var
fi

# What the image has below /var, once.
if [ ! -e /sysroot/var/lib/overlay ]; then
    cp -a /sysroot/usr/share/factory/var/. /sysroot/var/
    mkdir -p /sysroot/var/lib/overlay/etc /sysroot/var/lib/overlay/work
    chmod 0700 /sysroot/var/lib/overlay
    chmod 0755 /sysroot/var/lib/overlay/etc
fi
mount -t overlay -o lowerdir=/sysroot/etc,upperdir=/sysroot/var/lib/overlay/etc,workdir=/sysroot/var/lib/overlay/work overlay /sysroot/etc
