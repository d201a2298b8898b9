#!/bin/bash
# The main job, shown for people: a signed bundle becomes a running cluster. Arguments go to the demo program.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "demo: the test beds need root (namespaces, mounts); use sudo make demo" >&2; exit 1; }

stage() { printf '\n== %s (so far %d s; %s)\n' "$1" "$SECONDS" "$2"; }
stage "1/5 Kubernetes from the Debian archive" "8 minutes the first time, nothing when it is there"
tests/kubernetes/images.sh >/dev/null
stage "2/5 A Debian 12 host" "70 s the first time"
tests/hosts/tree.sh >/dev/null
stage "3/5 What virtual machines are tried with" "1 minute the first time"
tests/machines/debian.sh >/dev/null
stage "4/5 Build cofferdam" "6 minutes the first time"
cargo build --release --workspace --bins
stage "5/5 Install, twice" "about 8 minutes without KVM; 2 more the first time, for the packages of the medium"
exec target/release/demo "$@"
