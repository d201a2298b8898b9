#!/bin/bash
# Builds the boot medium with the generic kernel and without a bundle, and says how large it is and how long it took. Keys that
# are not there are made in target/iso-keys: good for a try, not for a release. Arguments go to `cofferdam iso build`.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "iso: Debian's packages are unpacked with their owners; use sudo make iso" >&2; exit 1; }
cargo build --release --workspace --bins
keys=target/iso-keys
[ -e "$keys/signing.key" ] || target/release/cofferdam bundle keygen "$keys" >&2
began=$SECONDS
target/release/cofferdam iso build --sign-key "$keys/signing.key" --trust "$keys/signing.pub" -o target/cofferdam.iso "$@"
echo "target/cofferdam.iso: $(($(stat -c %s target/cofferdam.iso) / 1048576)) MiB in $((SECONDS - began)) s"
