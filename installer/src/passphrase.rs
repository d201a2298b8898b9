//! Secrets that people choose: the rules for them, and the passphrase of the disk as its file holds it.
//!
//! Invariant: no error repeats any of a secret. The pages judge with the same rules what is typed (`ui/secret.rs`); the file
//! is read by `prepare.rs` before anything is written, and again by `disk.encrypt`.

use camino::{Utf8Path, Utf8PathBuf};
use zeroize::Zeroizing;

use crate::host::{EntryKind, Host, HostError, HostExt};
use crate::{layout, live};

/// Fewest characters.
pub const LEAST: usize = 15;
/// Most bytes of the disk's passphrase: cryptsetup(8) takes no more at its prompt.
pub const MOST: usize = 512;

/// Whether a rule holds, and what it says.
pub type Rule = (bool, String);

/// Length before composition (NIST SP 800-63B).
pub fn is_long(text: &str) -> Rule {
    let count = text.chars().count();
    (count >= LEAST, format!("at least {LEAST} characters ({count} so far)"))
}

/// Something else than the name of the account.
pub fn is_no_name(text: &str, account: &str) -> Rule {
    let account = account.trim().to_lowercase();
    let has_name = account.chars().count() >= 3 && text.to_lowercase().contains(&account);
    (!text.is_empty() && !has_name, "does not hold the account's name".to_owned())
}

/// More than a row of neighbours.
pub fn is_no_row(text: &str) -> Rule {
    let mut distinct: Vec<char> = text.chars().collect();
    distinct.sort_unstable();
    distinct.dedup();
    (distinct.len() >= 5 && !is_run(text), "no simple row such as aaaa, abcd or 1234".to_owned())
}

/// What every keyboard can type and no eye overlooks: the prompt at the start knows no layout of one's own.
pub fn is_typed_anywhere(text: &str) -> Rule {
    let is_plain = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    (!text.is_empty() && is_plain && text.trim() == text, "ASCII characters alone, no blank at an end".to_owned())
}

/// The rules of the disk's passphrase.
pub fn rules_of_the_disk(text: &str) -> [Rule; 3] {
    [is_long(text), is_no_row(text), is_typed_anywhere(text)]
}

/// Nearly all of it goes on from the character before: `aaaa…`, `abcd…`, `9876…`.
fn is_run(text: &str) -> bool {
    let characters: Vec<u32> = text.chars().map(u32::from).collect();
    let steps = characters.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 1).count();
    characters.len() > 1 && steps * 4 >= (characters.len() - 1) * 3
}

/// Why the passphrase of a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// The file cannot be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// There is no such file.
    #[error("there is no file {path} with the passphrase of the disk")]
    Missing {
        /// Where it was looked for.
        path: Utf8PathBuf,
    },
    /// Others than root may read it.
    #[error("the passphrase of the disk is in {path}, which others than root can read (mode {mode:04o})")]
    Readable {
        /// The file.
        path: Utf8PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Against a rule.
    #[error("the passphrase in {path} is too weak or cannot be typed; wanted: {rule}")]
    Weak {
        /// The file.
        path: Utf8PathBuf,
        /// The first rule that does not hold.
        rule: String,
    },
}

impl PassphraseError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Host(_) => "the file must be text, one line long".to_owned(),
            Self::Missing { path } if path == layout::PASTED_PASSPHRASE => {
                "what was typed stood in memory and is gone: type it again on the page Disks; before `cofferdam resume` write it \
                 there again, readable for root alone"
                    .to_owned()
            }
            Self::Missing { .. } => "is the medium that holds it there?".to_owned(),
            Self::Readable { path, .. } => {
                format!("`chmod 600 {path}`; on a medium that knows no permissions: copy it to /root first")
            }
            Self::Weak { .. } => "several words that have nothing to do with each other are easy to type".to_owned(),
        }
    }
}

/// Reads the passphrase of the disk, without the end of its line, and judges it.
pub fn read(host: &dyn Host, path: &Utf8Path) -> Result<Zeroizing<String>, PassphraseError> {
    let missing = || PassphraseError::Missing { path: path.to_owned() };
    let entry = host.look(path)?.filter(|entry| entry.kind == EntryKind::File).ok_or_else(missing)?;
    // In the live system nobody but root is there, and its media know no permissions.
    if entry.mode & 0o077 != 0 && !live::is_live(host)? {
        return Err(PassphraseError::Readable { path: path.to_owned(), mode: entry.mode });
    }
    let weak = |rule: String| PassphraseError::Weak { path: path.to_owned(), rule };
    let text = host.read_text(path)?.ok_or_else(missing)?;
    let line = text.trim_end_matches(['\n', '\r']);
    if line.len() > MOST {
        return Err(weak(format!("at most {MOST} bytes")));
    }
    match rules_of_the_disk(line).into_iter().find(|(holds, _)| !holds) {
        Some((_, rule)) => Err(weak(rule)),
        None => Ok(Zeroizing::new(line.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::{read, rules_of_the_disk};
    use crate::host::real::RealHost;

    #[test]
    fn what_may_open_a_disk() {
        let table = [
            ("correct horse battery", [true, true, true]),
            ("short", [false, true, true]),
            ("1234567890123456789", [true, false, true]),
            ("grüne Wiese am Deich", [true, true, false]),
            ("correct horse battery ", [true, true, false]),
            ("correct horse\tbattery", [true, true, false]),
            ("", [false, false, false]),
        ];
        for (text, expected) in table {
            assert_eq!(rules_of_the_disk(text).map(|(holds, _)| holds), expected, "{text:?}");
        }
    }

    #[test]
    fn a_file_with_a_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        let path = camino::Utf8Path::from_path(folder.path()).unwrap().join("passphrase");
        let table: [(&[u8], u32, &str); 8] = [
            (b"correct horse battery", 0o600, ""),
            (b"correct horse battery\r\n", 0o400, ""),
            (b"correct horse battery\n", 0o604, "others than root can read"),
            (b"correct horse battery\n", 0o640, "mode 0640"),
            (b"", 0o600, "at least 15 characters"),
            (b"horse\n", 0o600, "at least 15 characters"),
            (b"correct horse\nbattery staple\n", 0o600, "ASCII"),
            (b"correct horse \xff battery\n", 0o600, "as text"),
        ];
        for (content, mode, expected) in table {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match read(&RealHost, &path) {
                Ok(text) => assert!(expected.is_empty() && *text == "correct horse battery", "{mode:o} was taken"),
                Err(error) => {
                    let text = format!("{error} {error:?} {}", error.hint());
                    assert!(!expected.is_empty() && text.contains(expected), "{text}");
                    assert!(!text.contains("horse"), "an error repeats the passphrase: {text}");
                }
            }
        }
        std::fs::write(&path, "correct horse ".repeat(50)).unwrap();
        assert!(read(&RealHost, &path).unwrap_err().to_string().contains("at most 512 bytes"));
        std::fs::remove_file(&path).unwrap();
        assert!(read(&RealHost, &path).unwrap_err().to_string().contains("there is no file"));
        assert!(read(&RealHost, path.parent().unwrap()).unwrap_err().to_string().contains("there is no file"));
    }
}
