#!/bin/bash
# Writes the source tree of the sample bundle, ready for `cofferdam bundle create -f OUTDIR/bundle.yaml`.
#
# Usage: bundle.sh OUTDIR [KUBERNETES_VERSION] [BUNDLE_VERSION] [HELLO_VERSION]      defaults: v1.20.2 1.0.0 1.0.0
#
# HELLO_VERSION other than 1.0.0 makes a hello pack of that version with a migration (hello-migration.yaml), which can be undone, with
# a question whose answer is the beginning of what the workload says, and with the program of 1.0.0. 1.9.0 makes one whose pod never becomes ready: for an upgrade that must go back.
#
# OUTDIR is made if it is missing. bundle.yaml in it names the artefacts in the cache by absolute path; what images.sh has not made yet is
# built first. Standard output: the path of bundle.yaml.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -ge 1 ] || fail "no directory was given" "usage: bundle.sh OUTDIR [KUBERNETES_VERSION] [BUNDLE_VERSION]"
version=${2:-v1.20.2}
bundle_version=${3:-1.0.0}
hello_version=${4:-1.0.0}
mkdir -p "$1"
out=$(cd "$1" && pwd)
images=$("$kubernetes_folder/images.sh" "$version" | tail -n1)

# upstream_version PACKAGE: without Debian's additions: 1.6.20~ds1-1+deb12u3 is 1.6.20.
upstream_version() {
    sed -n "s/^package: $1_\([0-9]*\.[0-9]*\.[0-9]*\).*/\1/p" "$images/packages.txt"
}

sed -e "s#@IMAGES@#$images#g" \
    -e "s#@ARCHITECTURE@#$(dpkg --print-architecture)#g" \
    -e "s#@BUNDLE_VERSION@#$bundle_version#g" \
    -e "s#@KUBERNETES_VERSION@#${version#v}#g" \
    -e "s#@CONTAINERD_VERSION@#$(upstream_version containerd)#g" \
    -e "s#@NETWORK_VERSION@#$(upstream_version containernetworking-plugins)#g" \
    -e "s#@HELLO_VERSION@#$hello_version#g" \
    "$kubernetes_folder/bundle.yaml.in" >"$out/bundle.yaml"
sed -e "s#cofferdam.example/hello:1.0.0#cofferdam.example/hello:$hello_version#" "$kubernetes_folder/hello.yaml" >"$out/hello.yaml"
cp "$kubernetes_folder/10-cofferdam.conflist" "$out/"
if [ "$hello_version" != 1.0.0 ]; then
    sed -e "s#@HELLO_VERSION@#$hello_version#g" -e 's#@NAME@#hello-migrate#' -e 's#@SCHEMA@#2#' \
        "$kubernetes_folder/hello-migration.yaml.in" >"$out/migrate.yaml"
    sed -e "s#@HELLO_VERSION@#$hello_version#g" -e 's#@NAME@#hello-migrate-undo#' -e 's#@SCHEMA@#1#' \
        "$kubernetes_folder/hello-migration.yaml.in" >"$out/migrate-undo.yaml"
    # hello is the last pack of bundle.yaml.in.
    cat >>"$out/bundle.yaml" <<YAML
    migrations:
      - name: schema-2
        from: "<1.1.0"
        apply: { name: migrate.yaml, source: migrate.yaml }
        undo: { name: migrate-undo.yaml, source: migrate-undo.yaml }
        timeout-seconds: 120
    questions:
      - { name: greeting, text: How the workload greets, kind: text, default: Good day, max-length: 40 }
YAML
    sed -i -e 's#"Hello from #"${greeting} from #' "$out/hello.yaml"
fi
if [ "$hello_version" = 1.9.0 ]; then
    sed -i -e 's#path: /healthz#path: /nothing#' "$out/hello.yaml"
    sed -i -e 's#name: hello, timeout-seconds: 120#name: hello, timeout-seconds: 20#' "$out/bundle.yaml"
fi
echo "$out/bundle.yaml"
