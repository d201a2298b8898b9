//! Where Debian comes from: what this machine's own apt is configured with (sources.list(5)), for the image's release.
//!
//! Invariant: no archive is named here. An entry that serves the image's release is taken as it is; when there is none, an
//! entry for another release of Debian is taken with the release's name replaced, since a mirror carries them all.
//!
//! Called by [`super::root`].

use std::fmt::Write as _;

use camino::{Utf8Path, Utf8PathBuf};

use crate::Error;

/// Names that a release of Debian has in sources.
const RELEASES: &[&str] =
    &["bullseye", "bookworm", "trixie", "forky", "oldstable", "stable", "testing", "sid", "unstable"];

/// One archive: an address and the suites that are taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) uri: String,
    pub(crate) suites: Vec<String>,
    signed_by: Option<String>,
}

/// The files of this machine's apt, in its order.
pub(crate) fn files() -> Vec<Utf8PathBuf> {
    let mut files = vec![Utf8PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = Utf8Path::new("/etc/apt/sources.list.d").read_dir_utf8() {
        let mut more: Vec<_> = entries.flatten().map(|entry| entry.path().to_owned()).collect();
        more.sort();
        files.extend(more.into_iter().filter(|path| matches!(path.extension(), Some("list" | "sources"))));
    }
    files.retain(|path| path.is_file());
    files
}

/// The archives for a release, from the text of such files. The flag says whether the text is deb822.
pub(crate) fn parse(texts: &[(bool, String)], release: &str) -> Vec<Source> {
    let entries: Vec<Source> =
        texts.iter().flat_map(|(deb822, text)| if *deb822 { stanzas(text) } else { lines(text) }).collect();
    let exact = chosen(&entries, |base| (base == release).then_some(release));
    if exact.is_empty() { chosen(&entries, |base| RELEASES.contains(&base).then_some(release)) } else { exact }
}

fn chosen<'a>(entries: &[Source], rename: impl Fn(&str) -> Option<&'a str>) -> Vec<Source> {
    let mut all: Vec<Source> = Vec::new();
    for entry in entries {
        let suites: Vec<String> = entry
            .suites
            .iter()
            .filter_map(|suite| {
                let (base, rest) = suite
                    .split_once(['-', '/'])
                    .map_or((suite.as_str(), ""), |(base, _)| (base, suite.get(base.len()..).unwrap_or_default()));
                let wanted = matches!(rest.trim_end_matches('/'), "" | "-updates" | "-security");
                let name = rename(base).filter(|_| wanted)?;
                Some(format!("{name}{}", rest.trim_end_matches('/')))
            })
            .collect();
        let source = Source { suites, ..entry.clone() };
        if !source.suites.is_empty() && !all.contains(&source) {
            all.push(source);
        }
    }
    all
}

/// As mmdebstrap takes them.
pub(crate) fn to_deb822(sources: &[Source]) -> String {
    sources.iter().fold(String::new(), |mut text, source| {
        let _ =
            write!(text, "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\n", source.uri, source.suites.join(" "));
        if let Some(key) = &source.signed_by {
            let _ = writeln!(text, "Signed-By:{key}");
        }
        text + "\n"
    })
}

pub(crate) fn none(release: &str) -> Error {
    Error::Options { why: format!("this machine's apt has no source of Debian, from which {release} could be made") }
}

fn lines(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let mut rest = line.trim().strip_prefix("deb ")?.trim_start();
            let mut signed_by = None;
            if let Some((options, after)) = rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
                let key = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
                signed_by = key.map(|key| format!(" {key}"));
                rest = after.trim_start();
            }
            let mut words = rest.split('#').next()?.split_whitespace();
            let (uri, suite) = (words.next()?.to_owned(), words.next()?.to_owned());
            words.any(|word| word == "main").then(|| Source { uri, suites: vec![suite], signed_by })
        })
        .collect()
}

fn stanzas(text: &str) -> Vec<Source> {
    let mut all = Vec::new();
    for stanza in text.split("\n\n") {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in stanza.lines().filter(|line| !line.starts_with('#')) {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push('\n');
                    value.push_str(line);
                }
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name.trim().to_lowercase(), value.to_owned()));
            }
        }
        let field = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let words = |wanted| field(wanted).unwrap_or_default().split_whitespace();
        let is_off = field("enabled").is_some_and(|value| value.trim().eq_ignore_ascii_case("no"));
        if is_off || !words("types").any(|word| word == "deb") || !words("components").any(|word| word == "main") {
            continue;
        }
        for uri in words("uris") {
            all.push(Source {
                uri: uri.to_owned(),
                suites: words("suites").map(str::to_owned).collect(),
                signed_by: field("signed-by").map(str::to_owned),
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{Source, parse, to_deb822};

    fn source(uri: &str, suites: &[&str], key: Option<&str>) -> Source {
        Source {
            uri: uri.to_owned(),
            suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
            signed_by: key.map(str::to_owned),
        }
    }

    #[test]
    fn sources_of_another_release_serve_too() {
        let deb822 = "Types: deb deb-src\n# a note\nURIs: http://a.test/debian\nSuites: bookworm bookworm-updates bookworm-backports\n\
                      Components: main contrib\nSigned-By: /key.gpg\n\nTypes: deb\nURIs: http://b.test/x\nSuites: nodistro\nComponents: main\n\n\
                      Enabled: no\nTypes: deb\nURIs: http://off.test\nSuites: trixie\nComponents: main\n";
        let line = "deb [arch=amd64 signed-by=/k.gpg] http://a.test/debian-security bookworm-security main # note\n# deb http://c.test sid main\n\
                    deb-src http://a.test/debian bookworm main\ndeb http://d.test/y bookworm contrib\n";
        let texts = [(true, deb822.to_owned()), (false, line.to_owned())];
        let found = parse(&texts, "trixie");
        let expected = [
            source("http://a.test/debian", &["trixie", "trixie-updates"], Some(" /key.gpg")),
            source("http://a.test/debian-security", &["trixie-security"], Some(" /k.gpg")),
        ];
        assert_eq!(found, expected);
        assert_eq!(
            to_deb822(&found[1..]),
            "Types: deb\nURIs: http://a.test/debian-security\nSuites: trixie-security\nComponents: main\nSigned-By: /k.gpg\n\n"
        );
    }

    #[test]
    fn an_entry_for_the_release_itself_is_preferred() {
        let text = "deb http://a.test/debian bookworm main\ndeb http://b.test/debian trixie main\n".to_owned();
        assert_eq!(parse(&[(false, text)], "trixie"), [source("http://b.test/debian", &["trixie"], None)]);
        assert_eq!(parse(&[(false, "deb http://a.test/x focal main\n".to_owned())], "trixie"), []);
    }
}
