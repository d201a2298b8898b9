#!/bin/bash
# Writes the source tree of the sample bundle, ready for `cofferdam bundle create -f OUTDIR/bundle.yaml`.
#
# Usage: bundle.sh OUTDIR [KUBERNETES_VERSION] [BUNDLE_VERSION]      defaults: v1.20.2 1.0.0
#
# OUTDIR is made if it is missing. bundle.yaml in it names the artefacts in the cache by absolute path; what images.sh has not made yet is
# built first. Standard output: the path of bundle.yaml.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -ge 1 ] || fail "no directory was given" "usage: bundle.sh OUTDIR [KUBERNETES_VERSION] [BUNDLE_VERSION]"
version=${2:-v1.20.2}
bundle_version=${3:-1.0.0}
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
    "$kubernetes_folder/bundle.yaml.in" >"$out/bundle.yaml"
cp "$kubernetes_folder/hello.yaml" "$kubernetes_folder/10-cofferdam.conflist" "$out/"
echo "$out/bundle.yaml"
