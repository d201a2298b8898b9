#!/bin/bash
# Formatting, clippy with warnings as errors, and the crates that must not come back.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --all --check
cargo clippy --workspace --all-targets -- -D warnings
for crate in ring openssl-sys native-tls; do
    if cargo tree --workspace --invert "$crate" --edges normal,build --quiet 2>/dev/null | grep -q .; then
        echo "lint: $crate is in the dependency tree; aws-lc is the one crypto provider" >&2
        exit 1
    fi
done
