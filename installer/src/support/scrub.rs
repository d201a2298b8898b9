//! Takes secrets out of text that others wrote: those that this host keeps, and whatever has the shape of one.
//!
//! Invariant: what is taken out is replaced by a note of what it was; the rest of the text stays as it is.

use camino::Utf8Path;
use zeroize::Zeroizing;

use crate::host::{Host, HostExt};
use crate::layout;

/// Files whose lines are secrets, besides the keystore's keys.
const SECRET_FILES: &[&str] = &[
    "/etc/kubernetes/cofferdam/encryption.yaml",
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/pki/ca.key",
    "/etc/kubernetes/pki/sa.key",
];
/// Shorter words of a secret file are names and keywords.
const SHORTEST_SECRET: usize = 20;
const MODHEX: &str = "cbdefghijklnrtuv";

/// Knows what must not leave the host.
pub(super) struct Scrubber {
    known: Vec<Zeroizing<String>>,
}

impl Scrubber {
    /// Reads this host's secrets, to recognise them.
    pub(super) fn of(host: &dyn Host) -> Self {
        let mut known = Vec::new();
        let keys = host.list(layout::KEYSTORE.into()).unwrap_or_default();
        let keys = keys.iter().filter(|name| is_key(name)).map(|name| format!("{}/{name}", layout::KEYSTORE));
        for path in keys.chain(SECRET_FILES.iter().map(|path| (*path).to_owned())) {
            // What cannot be read cannot be recognised word by word; its shape still is.
            let Ok(Some(text)) = host.read_text(path.as_str().into()) else { continue };
            let is_config = !is_key(&path);
            for line in text.lines() {
                let word = line.split_whitespace().last().unwrap_or_default().trim_matches('"');
                let is_certificate = is_config && line.contains("certificate");
                if word.len() >= SHORTEST_SECRET && !word.starts_with('-') && !word.contains("://") && !is_certificate {
                    known.push(Zeroizing::new(word.to_owned()));
                }
            }
        }
        Self { known }
    }

    /// The text without secrets.
    pub(super) fn scrub(&self, text: &str) -> String {
        let mut text = without_private_keys(text);
        for secret in self.known.iter().filter(|secret| !secret.is_empty()) {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "(secret removed)");
            }
        }
        without_shapes(&text)
    }
}

fn is_key(path: &str) -> bool {
    Utf8Path::new(path).extension() == Some("key")
}

/// PEM private keys go from their first to their last line, also where newlines are written as `\n` in JSON.
fn without_private_keys(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("-----BEGIN ") {
        let head = rest.get(begin + 11..).unwrap_or_default();
        let label = head.split("-----").next().unwrap_or_default();
        let (before, block) = rest.split_at(begin);
        result.push_str(before);
        if label.ends_with("PRIVATE KEY") {
            result.push_str("(private key removed)");
            let end = format!("-----END {label}-----");
            // One that was cut off has no end: all behind its beginning may be key.
            rest = block.find(&end).and_then(|at| block.get(at + end.len()..)).unwrap_or_default();
        } else {
            result.push_str("-----BEGIN ");
            rest = head;
        }
    }
    result.push_str(rest);
    result
}

fn without_shapes(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-_.+/=$".contains(letter);
    let mut word = String::new();
    let mut before = String::new();
    for letter in text.chars().chain([' ']) {
        if is_part(letter) {
            word.push(letter);
            continue;
        }
        if !word.is_empty() {
            result.push_str(shape(&word, &before).map_or(word.as_str(), |what| what));
            before = std::mem::take(&mut word);
        }
        result.push(letter);
    }
    result.pop();
    result
}

/// What a word is by its shape, if that is a secret.
fn shape(word: &str, before: &str) -> Option<&'static str> {
    let upper = word.to_ascii_uppercase();
    if upper.contains("AGE-SECRET-KEY-") {
        return Some("(age key removed)");
    }
    let lower = word.to_ascii_lowercase();
    let groups: Vec<&str> = lower.split('-').filter(|group| is_recovery_group(group)).collect();
    if groups.len() >= 2 {
        return Some("(recovery key removed)");
    }
    if let Some((id, secret)) = word.split_once('.') {
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret) {
            return Some("(bootstrap token removed)");
        }
    }
    if word.starts_with('$') && word.matches('$').count() >= 3 && word.len() > 20 {
        return Some("(password hash removed)");
    }
    if word.starts_with("eyJ") && word.matches('.').count() >= 2 {
        return Some("(token removed)");
    }
    let is_credential = before.eq_ignore_ascii_case("bearer") || before.eq_ignore_ascii_case("basic");
    (is_credential && word.len() >= 12).then_some("(credential removed)")
}

fn is_recovery_group(group: &str) -> bool {
    group.len() == 8 && group.chars().all(|letter| MODHEX.contains(letter))
}

#[cfg(test)]
mod tests {
    use super::{Scrubber, Zeroizing};

    #[test]
    fn shapes_go_and_the_rest_stays() {
        let scrubber = Scrubber { known: vec![Zeroizing::new("c2VjcmV0Ym94LWtleS0x".to_owned())] };
        let table = [
            ("a line\n\tof text, as it was: 12.5 MB\n", "a line\n\tof text, as it was: 12.5 MB\n"),
            ("key AGE-SECRET-KEY-1QQPQYRS end", "key (age key removed) end"),
            (
                "passphrase=\"cccbcdce-cfcgchci-cjckclcn-crctcucv-bcbbbdbe-bfbgbhbi-bjbkblbn-brbtbubv\"",
                "passphrase=\"(recovery key removed)\"",
            ),
            ("typed CCCBCDCE-CFCGCHCI", "typed (recovery key removed)"),
            ("token abcdef.0123456789abcdef used", "token (bootstrap token removed) used"),
            ("file abcdef.0123456789 stays", "file abcdef.0123456789 stays"),
            ("password-hash: $6$rounds=5000$abcdefgh$0123456789/.x", "password-hash: (password hash removed)"),
            ("got eyJhbGciOi.eyJpc3Mi.c2ln", "got (token removed)"),
            ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer (credential removed)"),
            ("secret: c2VjcmV0Ym94LWtleS0x", "secret: (secret removed)"),
            ("x -----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\ny", "x (private key removed)\ny"),
            (
                r#"{"k":"-----BEGIN EC PRIVATE KEY-----\nMH\n-----END EC PRIVATE KEY-----\n"}"#,
                r#"{"k":"(private key removed)\n"}"#,
            ),
            ("-----BEGIN PRIVATE KEY-----\nMIGH", "(private key removed)"),
            (
                "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
                "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            ),
            (
                "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            ),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(scrubber.scrub(text), expected);
        }
    }
}
