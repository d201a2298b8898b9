#!/bin/bash
# Ours beside a peer in one run, in CPU seconds and peak memory: wall times say nothing on a shared machine.
#   load: `cofferdam bundle load` beside `skopeo copy` of the same blobs into a directory
#   registry: see bench_registry.py
#   floor: `zstd -d | sha256sum` of the same file, what unpacking and hashing once must cost
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --workspace --bins
cofferdam=$PWD/target/release/cofferdam
work=$(mktemp -d)

trap 'rm -rf "$work"' EXIT
size_mb=${1:-512}

# Half of it compresses, half does not, as in real layers.
mkdir -p "$work/source"
head -c $((size_mb / 2 << 20)) /dev/urandom >"$work/source/random"
head -c $((size_mb / 2 << 20)) < <(yes "$(seq 1 500 | tr '\n' ' ')") >"$work/source/text"
cat >"$work/source/bundle.yaml" <<YAML
schema-version: 1
name: bench
version: 1.0.0
architecture: $(dpkg --print-architecture)
packs:
  - name: bench
    version: 1.0.0
    layer: addon
    description: two large files
    files:
      - { name: random, source: random }
      - { name: text, source: text }
YAML
"$cofferdam" bundle keygen "$work/keys" >/dev/null
"$cofferdam" bundle create -f "$work/source/bundle.yaml" -o "$work/bench.tar.zst" --sign-key "$work/keys/signing.key" 2>/dev/null

# measure NAME COMMAND…: user + system seconds and peak resident MiB of the command and its children.
measure() {
    python3 - "$@" <<'PY'
import resource, subprocess, sys
subprocess.run(sys.argv[2:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"{sys.argv[1]} {usage.ru_utime + usage.ru_stime:.2f} {usage.ru_maxrss / 1024:.0f}")
PY
}
{
    measure "bundle-load" "$cofferdam" bundle load "$work/bench.tar.zst" --store "$work/store" --trust "$work/keys/signing.pub"
    measure "bundle-verify" "$cofferdam" bundle verify "$work/bench.tar.zst" --trust "$work/keys/signing.pub"
    measure "floor-zstd+sha256sum" bash -c "zstd -dcq '$work/bench.tar.zst' | sha256sum"
    mkdir "$work/oci" && zstd -dcq "$work/bench.tar.zst" | tar -x -C "$work/oci"
    measure "skopeo-to-directory" skopeo copy --insecure-policy "oci:$work/oci:cofferdam/packs/bench:1.0.0" "dir:$work/dir"
} | awk -v mb="$size_mb" '
    { name[NR] = $1; cpu[NR] = $2; memory[NR] = $3; if ($1 ~ /^floor/) floor = $2 }
    END {
        printf "%-24s %12s %10s %10s\n", "what (" mb " MB)", "CPU s", "x floor", "peak MiB"
        for (i = 1; i <= NR; i++) printf "%-24s %12.2f %10.2f %10d\n", name[i], cpu[i], cpu[i] / floor, memory[i]
    }'

# The registry beside its peers.
python3 tests/bench_registry.py "$cofferdam" "$size_mb"
