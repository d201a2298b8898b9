#!/bin/bash
# The appliance's part of the initrd: the medium's partitions, and what changes (/var, /etc) before the system starts.
check() { return 0; }
depends() { echo systemd systemd-cryptsetup systemd-veritysetup systemd-pcrphase dm; }
installkernel() {
    instmods dm_verity dm_crypt overlay squashfs loop iso9660 cdrom sr_mod sd_mod tpm_crb tpm_tis nls_ascii nls_cp437 vfat ext4 =drivers/virtio
}
install() {
    inst_multiple mount umount mkdir cp cat grep cut tr sed sleep losetup partx findmnt readlink dirname basename chmod systemd-ask-password
    inst_multiple /usr/lib/systemd/systemd-pcrextend
    inst_multiple -o /usr/lib/systemd/systemd-cryptsetup /usr/bin/systemd-cryptsetup
    inst_script "$moddir/state.sh" /usr/lib/cofferdam/state
    inst_script "$moddir/medium.sh" /usr/lib/cofferdam/medium
    inst_simple "$moddir/cofferdam-state.service" "$systemdsystemunitdir/cofferdam-state.service"
    inst_simple "$moddir/cofferdam-medium@.service" "$systemdsystemunitdir/cofferdam-medium@.service"
    inst_rules "$moddir/99-cofferdam-medium.rules"
    $SYSTEMCTL -q --root "$initdir" add-requires initrd-fs.target cofferdam-state.service
}
