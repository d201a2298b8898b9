#!/bin/bash
# The main job, shown for people: a signed bundle becomes a running cluster. Arguments go to the demo program.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "demo: the test beds need root (namespaces, mounts); use sudo make demo" >&2; exit 1; }

stage() { printf '\n== %s (so far %d s; %s)\n' "$1" "$SECONDS" "$2"; }
stage "1/4 Kubernetes from the Debian archive" "8 minutes the first time, nothing when it is there"
tests/kubernetes/images.sh >/dev/null
stage "2/4 A Debian 12 host" "70 s the first time"
tests/hosts/tree.sh >/dev/null
stage "3/4 Build cofferdam" "6 minutes the first time"
cargo build --release --package installer --package tests --bins
stage "4/4 Install" "about 3 minutes"
exec target/release/demo "$@"
