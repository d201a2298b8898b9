#!/bin/sh
# Puts a loop device with the disc's partitions in front of an optical disc. They are added from here, once: where the kernel
# looks for them itself, a program that opens the device meanwhile makes it look twice, and it takes them away in between. What
# waits for the root fails then, and the machine starts again.
set -eu
loop=$(losetup --find --show --read-only --sector-size 512 "$1")
if ! partx --add "$loop"; then
    partx --delete "$loop" || true
    losetup --detach "$loop"
    exit 1
fi
