#!/bin/bash
# Makes real OCI images from what build.sh built and from Debian packages, and gathers the files that a host needs.
#
# Usage: images.sh [VERSION]     the version stamp of Kubernetes, see build.sh
#
# Standard output: the directory with the result:
#   oci/         one image layout; the tags are kube-apiserver-VERSION kube-controller-manager-VERSION kube-scheduler-VERSION
#                kube-proxy-VERSION etcd-3.4.13-0 pause-3.2 hello-1.0.0; the images of Kubernetes share the layer of kubemulti
#   host/bin/    kubemulti containerd containerd-shim-runc-v2 ctr runc: need libc, runc also libseccomp2
#   host/cni/    bridge host-local loopback portmap firewall tuning
#   packages.txt the Debian packages that all of this came from
# The same input gives the same bytes. Takes about 30 s once, nothing when it is there.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=${1:-v1.20.2}
architecture=$(dpkg --print-architecture)
built=$("$kubernetes_folder/build.sh" "$version" | tail -n1)
scripts=$(content_hash images.sh lib.sh debian_sources.py layout.py)
result=$cache/images-$(basename "$built")-$scripts
packages=$cache/work/packages-$architecture-$scripts
files=$result.part/files

# Of these only the unpacked files are used; which of them goes where is said below.
download() {
    prepare_apt "$cache/work/apt"
    fetch_packages "$cache/work/apt" "$packages" containerd runc containernetworking-plugins etcd-server etcd-client \
        iptables conntrack libc6 libip4tc2 libip6tc2 libxtables12 libmnl0 libnetfilter-conntrack3 libnfnetlink0 libnftnl11
}

# put FOLDER PATH...: copies programs from the packages, and with each the shared libraries that it needs. /lib and /lib64 are
# links into /usr, as on every Debian, so that a library has one place.
put() {
    local folder=$1 path target needed
    shift
    if [ ! -L "$folder/lib" ]; then
        mkdir -p "$folder"/usr/{lib,lib64,bin,sbin}
        ln -s usr/lib usr/lib64 usr/bin usr/sbin "$folder/"
    fi
    for path in "$@"; do
        target=$folder/usr/${path#usr/}
        [ ! -e "$target" ] || continue
        mkdir -p "$(dirname "$target")"
        cp "$(inside "$path")" "$target"
        for needed in $(objdump -p "$target" | awk '$1 == "NEEDED" { print $2 }'); do
            put "$folder" "$(library "$needed")"
        done
        if objdump -s -j .interp "$target" >/dev/null 2>&1; then
            put "$folder" "$(cd "$packages" && echo lib*/ld-linux-*.so.*)"
        fi
    done
}

# inside PATH: the file in the packages that PATH stands for. A link of a package may be absolute (the loader's is): followed
# plainly it would lead to a file of this machine.
inside() {
    local file=$packages/$1 link
    while [ -L "$file" ]; do
        link=$(readlink "$file")
        case $link in
            /*) file=$packages$link ;;
            *) file=$(dirname "$file")/$link ;;
        esac
    done
    echo "$file"
}

# library NAME: its path in the packages.
library() {
    local found
    found=$(cd "$packages" && find lib usr/lib -name "$1" -print -quit)
    [ -n "$found" ] || fail "no package of this image has $1" "add the package that has it to download() in images.sh"
    echo "$found"
}

layer() { python3 "$kubernetes_folder/layout.py" layer "$result.part/oci" "$1"; }

# image TAG CONFIG LAYER...
image() {
    local tag=$1 config=$2
    shift 2
    python3 "$kubernetes_folder/layout.py" image "$result.part/oci" "$tag" "$architecture" "$config" "$@"
}

make_images() {
    local path='"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]' shared name
    mkdir -p "$files/kubemulti/usr/local/bin"
    cp "$built/kubemulti" "$files/kubemulti/usr/local/bin/"
    shared=$(layer "$files/kubemulti")

    # iptables of the flavour that Debian's hosts use (nft); kube-proxy and host must see the same rules.
    put "$files/kube-proxy" usr/sbin/xtables-nft-multi usr/sbin/conntrack
    (cd "$packages" && find usr/lib -path '*/xtables/*.so' -print0) | while IFS= read -r -d '' name; do put "$files/kube-proxy" "$name"; done
    for name in {iptables,ip6tables}{,-save,-restore}; do
        ln -s xtables-nft-multi "$files/kube-proxy/usr/sbin/$name"
    done

    for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do
        mkdir -p "$files/$name/usr/local/bin"
        ln -s kubemulti "$files/$name/usr/local/bin/$name"
        image "$name-$version" "{$path,\"Entrypoint\":[\"/usr/local/bin/$name\"]}" "$shared" "$(layer "$files/$name")"
    done

    put "$files/etcd" usr/bin/etcd usr/bin/etcdctl
    image etcd-3.4.13-0 "{$path,\"Entrypoint\":[\"/usr/bin/etcd\"]}" "$(layer "$files/etcd")"

    mkdir -p "$files/pause" "$files/hello"
    cp "$built/pause" "$files/pause/"
    image pause-3.2 '{"Entrypoint":["/pause"],"User":"65535:65535"}' "$(layer "$files/pause")"
    cp "$built/hello" "$files/hello/"
    image hello-1.0.0 '{"Entrypoint":["/hello"],"User":"65532:65532","ExposedPorts":{"8443/tcp":{}}}' "$(layer "$files/hello")"
    rm -rf "$files"
}

gather_host_files() {
    mkdir -p "$result.part/host/bin" "$result.part/host/cni"
    cp "$built/kubemulti" "$packages"/usr/bin/{containerd,containerd-shim-runc-v2,ctr} "$packages/usr/sbin/runc" "$result.part/host/bin/"
    cp "$packages"/usr/lib/cni/{bridge,host-local,loopback,portmap,firewall,tuning} "$result.part/host/cni/"
    cat "$built/build.txt" >"$result.part/packages.txt"
    sed 's/^/package: /' "$packages/packages.txt" >>"$result.part/packages.txt"
    # A host that the product installs on promises no library but these.
    ! objdump -p "$result.part"/host/*/* | awk '$1 == "NEEDED" { print $2 }' | sort -u \
        | grep -v -E '^(lib(c|dl|pthread|m|resolv|rt|seccomp)\.so\.|ld-linux-)' \
        || fail "a host file needs the libraries above, which a plain host does not have"
}

try_images() {
    local tag
    for tag in kube-apiserver-"$version" kube-proxy-"$version" etcd-3.4.13-0; do try_image "$tag"; done
}

# Unpacks the image as a runtime would and asks the program for its version, in its own root, with its own libraries.
try_image() {
    local root=$result.part/root
    python3 - "$result.part/oci" "$1" "$root" <<'PYTHON'
import json, sys, tarfile
layout, tag, root = sys.argv[1:]
blob = lambda descriptor: f"{layout}/blobs/sha256/{descriptor['digest'][7:]}"
index = json.load(open(f"{layout}/index.json"))
entry = next(e for e in index["manifests"] if e["annotations"]["org.opencontainers.image.ref.name"] == tag)
for layer in json.load(open(blob(entry)))["layers"]:
    tarfile.open(blob(layer)).extractall(root)
PYTHON
    case $1 in
        kube-proxy-*)
            unshare --map-root-user --net chroot "$root" /usr/sbin/iptables-save --version
            unshare --map-root-user --net chroot "$root" /usr/sbin/conntrack --version
            unshare --map-root-user chroot "$root" /usr/local/bin/kube-proxy --version
            ;;
        etcd-*) unshare --map-root-user chroot "$root" /usr/bin/etcd --version ;;
        *) unshare --map-root-user chroot "$root" "/usr/local/bin/${1%-v*}" --version ;;
    esac
    rm -rf "$root"
}

if [ ! -d "$result" ]; then
    need apt-get apt objdump binutils python3 python3 flock util-linux unshare util-linux
    lock work
fi
if [ ! -d "$result" ]; then
    rm -rf "$result.part"
    mkdir -p "$result.part"
    [ -d "$packages" ] || stage 15 "download containerd, runc, the CNI plugins, etcd and iptables from the Debian archive" download
    touch "$packages"
    stage 20 "make the images" make_images
    stage 2 "gather the files for hosts" gather_host_files
    stage 5 "start programs in their images" try_images
    publish "$result"
else
    say "the images of Kubernetes $version are in the cache"
fi
touch "$result"
echo "$result"
