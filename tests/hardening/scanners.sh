#!/bin/bash
# Makes the disk with the scanners that look at an installed appliance: OpenSCAP and lynis of Debian 13, and the rules for
# Debian 13, which the release itself does not have and which come from unstable. Nothing in them is changed.
#
# Standard output: a directory, ${XDG_CACHE_HOME:-~/.cache}/cofferdam/scanners/KEY, with
#   scanners.img   ext4; it is mounted read-only, and its programs run with the loader and the libraries beside them
#   versions       one line each for OpenSCAP, the rules and lynis
# KEY is a hash of the scripts. Needs about 20 s the first time, nothing when it is there. Disk: about 100 MB.

set -euo pipefail
umask 022
export LC_ALL=C

folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/cofferdam/scanners
release=trixie
# The rules that the list of exceptions was written for.
rules=0.1.82

say() { printf '%s\n' "scanners: $*" >&2; }

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

# The machine's own mirror, as it is configured for the release that the other beds are made of; a mirror carries all releases,
# and none is named here.
sources() {
    local file files=()
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] && files+=("$file")
    done
    [ ${#files[@]} -gt 0 ] || fail "no apt sources are configured on this machine" "see sources.list(5)"
    python3 "$folder/../kubernetes/debian_sources.py" bookworm "${files[@]}" | sed 's/^Types: .*/Types: deb/' \
        || fail "no apt source for Debian bookworm is configured on this machine" "add bookworm to /etc/apt/sources.list.d"
}

# extract SUITE TREE SOURCES PACKAGES: files only, nothing of the packages runs.
extract() {
    mmdebstrap --quiet --variant=extract --mode=root --architectures=amd64 --include="$4" \
        --aptopt='Acquire::Retries "3"' --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Check-Valid-Until "false"' \
        "$1" "$2" "$3" >&2
}

build() {
    local into=$1 tree=$1/tree found
    rm -rf "$into"
    mkdir -p "$into"
    sources >"$into/bookworm.sources"
    sed "s/bookworm/$release/g" "$into/bookworm.sources" >"$into/release.sources"
    # Unstable has no updates of its own.
    sed -E -e 's/ ?bookworm-[a-z]+//g' -e 's/bookworm/sid/' "$into/bookworm.sources" \
        | awk 'BEGIN { RS = ""; ORS = "\n\n" } /Suites: *sid/' >"$into/unstable.sources"
    extract "$release" "$tree" "$into/release.sources" openscap-scanner,lynis
    extract sid "$into/unstable" "$into/unstable.sources" ssg-debian
    mkdir "$tree/rules"
    cp "$into"/unstable/usr/share/xml/scap/ssg/content/ssg-debian13-ds.xml "$tree/rules/"
    found=$(grep -om1 'version update="[^>]*">[0-9.]*' "$tree/rules/ssg-debian13-ds.xml" | sed 's/.*>//')
    [ "$found" = "$rules" ] || say "the list of exceptions is for rules $rules; the archive has ${found:-none} now"
    # As its authors ship it: a folder that is run where it lies. Given the default profile by name it would take it for one of
    # the user's own and leave its kernel settings out.
    mkdir "$tree/lynis"
    cp -a "$tree"/usr/share/lynis/. "$tree"/etc/lynis/. "$tree/usr/sbin/lynis" "$tree/lynis/"
    # The appliance has none of their libraries, and may have others of the same names.
    cat >"$tree/oscap" <<'OSCAP'
#!/bin/sh
usr=$(dirname "$0")/usr
export OSCAP_SCHEMA_PATH="$usr/share/openscap/schemas" OSCAP_XSLT_PATH="$usr/share/openscap/xsl"
exec "$usr/lib64/ld-linux-x86-64.so.2" --library-path "$usr/lib/x86_64-linux-gnu" "$usr/bin/oscap" "$@"
OSCAP
    chmod 755 "$tree/oscap"
    {
        "$tree/oscap" --version | head -1
        echo "rules for Debian 13, $found"
        echo "lynis $(sed -n 's/^ *PROGRAM_VERSION="\(.*\)"/\1/p' "$tree/lynis/lynis")"
    } >"$into/versions"
    rm -rf "$tree"/usr/share/{doc,man,locale,info,lintian,bug}
    # The disk adds nothing to what is found.
    find "$tree" -xdev -type f -perm /6000 -exec chmod ug-s {} +
    mke2fs -q -t ext4 -L scanners -O ^has_journal -d "$tree" "$into/scanners.img" 512M >&2
    rm -rf "$tree" "$into/unstable" "$into"/*.sources
}

missing=()
for need in mmdebstrap:mmdebstrap python3:python3 flock:util-linux mke2fs:e2fsprogs; do
    command -v "${need%:*}" >/dev/null || missing+=("${need#*:}")
done
[ ${#missing[@]} -eq 0 ] || fail "these Debian packages are missing: ${missing[*]}" \
    "apt-get install --no-install-recommends ${missing[*]}"
[ "$(id -u)" = 0 ] || fail "packages are unpacked with their owners" "run it with sudo"

key=$(cd "$folder" && cat scanners.sh ../kubernetes/debian_sources.py | sha256sum | cut -c1-16)
result=$cache/$release-amd64-$key
if [ ! -d "$result" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock --nonblock 9 || { say "another process makes them; waiting for it"; flock 9; }
fi
if [ ! -d "$result" ]; then
    began=$SECONDS
    say "fetching OpenSCAP, its rules and lynis (about 20 s)"
    # Not `build || fail`: bash ignores `set -e` inside a function that stands left of `||`.
    build "$result.part"
    mv "$result.part" "$result"
    say "done in $((SECONDS - began)) s, $(du -sm "$result" | cut -f1) MB"
fi
printf '%s\n' "$result"
