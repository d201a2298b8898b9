#!/usr/bin/python3
"""Prints the Debian entries of the apt source files given, for one release, as deb822 with `deb deb-src`.

Usage: debian_sources.py RELEASE FILE...    (both formats of sources.list(5))
Ends with 1 when no entry serves RELEASE. No host name is known here: all come from the machine's own configuration.
"""

import re
import sys


def one_line_entries(text):
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)", line.strip())
        if match:
            options, uri, suite, components = match.groups()
            signed_by = re.search(r"signed-by=(\S+)", options or "")
            yield [uri], [suite], components.split(), signed_by and " " + signed_by.group(1)


def deb822_entries(text):
    for paragraph in re.split(r"\n\s*\n", text):
        fields, last = {}, None
        for line in paragraph.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and last:
                fields[last] += "\n" + line
            elif ":" in line:
                last, value = line.split(":", 1)
                last = last.strip().lower()
                fields[last] = value
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").strip().lower() != "no":
            yield (fields.get("uris", "").split(), fields.get("suites", "").split(),
                   fields.get("components", "").split(), fields.get("signed-by"))


def main(release, *files):
    served = re.compile(re.escape(release) + r"(-updates|-security|/updates)?/?$")
    printed = set()
    for file in files:
        with open(file, encoding="utf-8") as source:
            text = source.read()
        entries = deb822_entries(text) if file.endswith(".sources") else one_line_entries(text)
        for uris, suites, components, signed_by in entries:
            suites = [suite for suite in suites if served.match(suite)]
            if not suites or "main" not in components:
                continue
            stanza = f"Types: deb deb-src\nURIs: {' '.join(uris)}\nSuites: {' '.join(suites)}\nComponents: main\n"
            if signed_by:
                stanza += f"Signed-By:{signed_by}\n"
            if stanza not in printed:
                printed.add(stanza)
                print(stanza)
    return 0 if printed else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
