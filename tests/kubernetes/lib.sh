# shellcheck shell=bash
# What the scripts of this folder share: where the cache lies, how progress is told, and a private apt.
#
# Everything that is said to people goes to stderr. Standard output of a script carries its result only:
# its last line is the directory that it made or found.

set -euo pipefail
umask 022
export LC_ALL=C

kubernetes_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/cofferdam/kubernetes

say() { printf '%s\n' "kubernetes: $*" >&2; }

# fail WHAT [HINT]
fail() {
    printf 'error: %s\n' "$1" >&2
    if [ $# -gt 1 ]; then printf 'hint: %s\n' "$2" >&2; fi
    exit 1
}

# need COMMAND PACKAGE ...: all that is missing is named at once.
need() {
    local missing=()
    while [ $# -gt 0 ]; do
        command -v "$1" >/dev/null || missing+=("$2")
        shift 2
    done
    [ ${#missing[@]} -eq 0 ] || fail "these Debian packages are missing: ${missing[*]}" \
        "apt-get install --no-install-recommends ${missing[*]}"
}

# stage SECONDS_EXPECTED WHAT COMMAND...: runs the command, says before it what is done and how long that takes
# about, and after it how long it took. The expected times were measured on two busy cores.
stage() {
    local expected=$1 what=$2 began=$SECONDS code
    shift 2
    say "$what (about ${expected} s)"
    # Not `"$@" || fail`: bash ignores `set -e` in all that stands left of `||`, also inside functions.
    set +e
    (
        set -e
        "$@"
    ) >&2
    code=$?
    set -e
    [ $code -eq 0 ] || fail "$what: ended with code $code after $((SECONDS - began)) s" "the lines above have the reason"
    say "$what: done in $((SECONDS - began)) s"
}

# publish RESULT: RESULT.part is finished; shows it under its name, so that a build that was killed never looks done.
# Results that nothing has asked for in two weeks, most often those of older scripts, make room.
publish() {
    mv "$1.part" "$1"
    find "$cache" -mindepth 1 -maxdepth 1 -type d ! -name work -mtime +14 -exec rm -rf {} +
    find "$cache/work" -mindepth 1 -maxdepth 1 -name 'packages-*' -mtime +14 -exec rm -rf {} +
}

# content_hash FILE...: 16 hex digits over names and contents.
content_hash() {
    (cd "$kubernetes_folder" && sha256sum -- "$@") | sha256sum | cut -c1-16
}

# lock NAME: held until this process ends. A second caller waits and then finds the first one's result.
lock() {
    mkdir -p "$cache"
    exec 9>"$cache/$1.lock"
    if ! flock --nonblock 9; then
        say "another process builds the same; waiting for it"
        flock 9
    fi
}

# Writes the machine's own apt sources for Debian bookworm to $1 (deb822), with the source packages added. The private list
# exists because most machines have no deb-src line, and because the system's own lists are not ours to change.
debian_sources() {
    local from
    local found=()
    for from in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ -f "$from" ] && found+=("$from")
    done
    [ ${#found[@]} -gt 0 ] || fail "no apt sources are configured on this machine"
    python3 "$kubernetes_folder/debian_sources.py" bookworm "${found[@]}" >"$1" \
        || fail "no apt source for Debian bookworm is configured on this machine" \
            "the Kubernetes of the tests is built from bookworm's source package; add bookworm to /etc/apt/sources.list.d"
}

# private_apt DIR COMMAND...: runs apt-get or apt-cache on lists and archives of its own in DIR.
private_apt() {
    local dir=$1
    shift
    local program=$1
    shift
    "$program" -q \
        -o Dir::Etc::sourcelist="$dir/debian.sources" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache" \
        -o APT::Sandbox::User= -o Acquire::Retries=3 -o Acquire::Languages=none "$@"
}

prepare_apt() {
    local dir=$1
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    debian_sources "$dir/debian.sources"
    private_apt "$dir" apt-get update
}

# fetch_packages APT_DIR INTO PACKAGE...: downloads the binary packages and unpacks them into INTO, which appears whole or not at all.
# Nothing is installed and no maintainer script runs.
fetch_packages() {
    local apt=$1 into=$2 deb
    shift 2
    [ ! -d "$into" ] || return 0
    rm -rf "$into.part" "$into.debs"
    mkdir -p "$into.part" "$into.debs"
    (cd "$into.debs" && private_apt "$apt" apt-get download "$@")
    for deb in "$into.debs"/*.deb; do
        dpkg-deb -x "$deb" "$into.part"
        basename "$deb" | sed 's/%3a/:/' >>"$into.part/packages.txt"
    done
    rm -rf "$into.debs"
    mv "$into.part" "$into"
}
