#!/bin/bash
# All tests that each change must pass; with --slow those that are too long for that. The runner's summary comes last.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "run: the test beds need root (namespaces, mounts)" >&2; exit 1; }

stage() { printf '\n== %s (so far %d s; %s)\n' "$1" "$SECONDS" "$2" >&2; }
stage "Kubernetes from the Debian archive" "8 minutes the first time, nothing when it is there"
tests/kubernetes/images.sh >/dev/null
stage "The host tree" "70 s the first time"
tests/hosts/tree.sh >/dev/null
stage "The virtual machine's disk" "2 minutes the first time"
tests/machines/debian.sh >/dev/null
stage "Build" "6 minutes the first time"
cargo build --workspace --bins
cargo test --workspace --no-run --quiet
stage "Tests" "about 10 minutes"
if [ "${1:-}" = --slow ]; then
    # One at a time: a cluster in an emulated processor takes 1900 s of processor time alone and 3000 to 3500 s beside another
    # machine, since what waits for it gives up and begins anew.
    cargo nextest run --workspace --run-ignored ignored-only --no-fail-fast --test-threads 1
else
    cargo nextest run --workspace --no-fail-fast
fi
