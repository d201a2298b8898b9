#!/bin/bash
# Installs the Debian packages that building and testing needs and that are missing. Nothing is fetched when none is.
# The packages go into an archive folder of their own: another apt on this machine may clear the default one at any time.
set -euo pipefail

packages=(
    build-essential ca-certificates cmake curl dpkg-dev git jq python3 pkg-config
    # peers that check our formats
    skopeo podman docker-registry nginx-light containerd runc minisign age openssl xorriso zstd cryptsetup-bin apache2-utils
    # test beds
    fdisk mmdebstrap uidmap util-linux iproute2 iptables iputils-ping dnsmasq-base e2fsprogs mtools busybox-static
    qemu-system-x86 qemu-utils ovmf swtpm systemd
)
find_missing() {
    missing=()
    for package in "${packages[@]}"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
    done
}
find_missing
# Twice: a package that is there in another release's version may have to give way to one that is installed.
for round in 1 2; do
    [ ${#missing[@]} -gt 0 ] || break
    echo "setup: installing ${missing[*]} (about 2 minutes)" >&2
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/cofferdam/apt
    mkdir -p "$cache/partial"
    sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    [ "$round" = 2 ] || $sudo apt-get -qq update
    # A thousand lines that matter only when it fails.
    DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq -o Dir::Cache::archives="$cache" install --yes --no-install-recommends \
        "${missing[@]}" >"$cache/log" 2>&1 || { cat "$cache/log" >&2; exit 1; }
    find_missing
done
[ ${#missing[@]} -eq 0 ] || { echo "setup: ${missing[*]} cannot be installed together with the rest" >&2; exit 1; }
command -v cargo >/dev/null || { echo "setup: there is no cargo" >&2; echo "hint: install Rust 1.95 or newer with rustup" >&2; exit 1; }
command -v cargo-nextest >/dev/null || { echo "setup: installing cargo-nextest (about 4 minutes)" >&2; cargo install --locked cargo-nextest; }
