//! Users with passwords: a file of `NAME:BCRYPT` lines, as `htpasswd -B` writes it.
//!
//! Invariant: a password is compared by bcrypt once; after that its HMAC under a key that only this process has is
//! remembered, until the file changes. Passwords are never kept and never logged. Called by the server.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::hmac;
use camino::{Utf8Path, Utf8PathBuf};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// The most that is remembered; when it is full, it is forgotten.
const MAXIMUM_REMEMBERED: usize = 1024;

/// How many passwords are compared at once: each costs tens of milliseconds of a processor.
const AT_ONCE: usize = 1;

/// A password file that is reloaded when it changes.
pub(crate) struct Passwords {
    path: Utf8PathBuf,
    key: hmac::Key,
    state: RwLock<Arc<State>>,
    remembered: RwLock<HashSet<[u8; 32]>>,
    turns: Semaphore,
}

struct State {
    version: Version,
    users: HashMap<String, String>,
}

/// What changes when a file is rewritten: inode, modification time, size.
type Version = (u64, i64, i64, u64);

/// What comes of name and password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They belong together.
    Right,
    /// They do not.
    Wrong,
}

impl Passwords {
    /// Reads the file.
    pub(crate) fn open(path: &Utf8Path) -> Result<Self> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| Error::Unexpected("the random number generator failed"))?;
        Ok(Self {
            path: path.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            state: RwLock::new(Arc::new(read(path)?)),
            remembered: RwLock::default(),
            turns: Semaphore::new(AT_ONCE),
        })
    }

    /// Looks whether the file changed, and reads it again then. A file that cannot be used any more keeps the old
    /// users, and says so in the log.
    pub(crate) fn refresh(&self) {
        if version(&self.path).is_ok_and(|version| version == self.state().version) {
            return;
        }
        match read(&self.path) {
            Ok(state) => {
                // Users first: what is remembered from the old file must not be added after the clearing.
                *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
                self.remembered.write().unwrap_or_else(PoisonError::into_inner).clear();
                tracing::info!(path = %self.path, "the password file was read again");
            }
            Err(error) => tracing::error!(%error, "the password file changed and cannot be used; the old one stays"),
        }
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Compares name and password with the file.
    pub(crate) async fn verify(&self, user: &str, password: &str) -> Verdict {
        self.refresh();
        let state = self.state();
        let tag = self.tag(&state, user, password);
        if self.remembered.read().unwrap_or_else(PoisonError::into_inner).contains(&tag) {
            return Verdict::Right;
        }
        let Ok(_turn) = self.turns.acquire().await else { return Verdict::Wrong };
        // An unknown user costs as much time as a wrong password, so that names cannot be found out.
        let known = state.users.get(user).cloned();
        let hash = known.clone().or_else(|| state.users.values().next().cloned()).unwrap_or_default();
        let password = zeroize::Zeroizing::new(password.to_owned());
        let right = tokio::task::spawn_blocking(move || bcrypt::verify(password.as_bytes(), &hash))
            .await
            .ok()
            .and_then(std::result::Result::ok);
        if right != Some(true) || known.is_none() {
            return Verdict::Wrong;
        }
        let mut remembered = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MAXIMUM_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(tag);
        Verdict::Right
    }

    /// Over the file's version too: what was true under an old file is not found under a new one.
    fn tag(&self, state: &State, user: &str, password: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        let (inode, seconds, nanoseconds, size) = state.version;
        for number in [inode, seconds.cast_unsigned(), nanoseconds.cast_unsigned(), size, user.len() as u64] {
            context.update(&number.to_le_bytes());
        }
        context.update(user.as_bytes());
        context.update(password.as_bytes());
        let mut tag = [0; 32];
        tag.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        tag
    }
}

fn version(path: &Utf8Path) -> Result<Version> {
    let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
    Ok((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size()))
}

fn read(path: &Utf8Path) -> Result<State> {
    // The version before the content: a change in between is then seen as one by the next look.
    let version = version(path)?;
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    Ok(State {
        version,
        users: parse(&text).map_err(|(line, why)| Error::Passwords { path: path.to_owned(), line, why })?,
    })
}

fn parse(text: &str) -> std::result::Result<HashMap<String, String>, (usize, &'static str)> {
    let mut users = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = number + 1;
        let (user, hash) = line.split_once(':').ok_or((number, "there is no colon between name and hash"))?;
        if user.is_empty() || user.len() > 64 || user.chars().any(char::is_control) {
            return Err((number, "the name is empty, too long or has control characters"));
        }
        if hash.parse::<bcrypt::HashParts>().is_err() {
            return Err((number, "the hash is not bcrypt ($2y$…)"));
        }
        if users.insert(user.to_owned(), hash.to_owned()).is_some() {
            return Err((number, "the name stood in an earlier line"));
        }
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::time::Instant;

    fn file(text: &str) -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(folder.path().join("htpasswd")).unwrap();
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[tokio::test]
    async fn a_password_is_compared_slowly_once_and_forgotten_when_the_file_changes() {
        let hash = bcrypt::hash("right", 8).unwrap();
        let (_folder, path) = file(&format!("# users\n\nann:{hash}\n"));
        let passwords = Passwords::open(&path).unwrap();
        for (user, password, verdict) in [
            ("ann", "wrong", Verdict::Wrong),
            ("bob", "right", Verdict::Wrong),
            ("", "", Verdict::Wrong),
            ("ann", "", Verdict::Wrong),
            ("ann", "right", Verdict::Right),
        ] {
            assert_eq!(passwords.verify(user, password).await, verdict, "{user}");
        }
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(passwords.verify("ann", "right").await, Verdict::Right);
        }
        // Without the cache this is 100 times bcrypt with cost 8: more than a second.
        assert!(start.elapsed().as_millis() < 300, "{:?}", start.elapsed());
        fs::write(&path, format!("ann:{}\n", bcrypt::hash("new", 4).unwrap())).unwrap();
        assert_eq!(passwords.verify("ann", "right").await, Verdict::Wrong);
        assert_eq!(passwords.verify("ann", "new").await, Verdict::Right);
        fs::write(&path, "nonsense\n").unwrap();
        assert_eq!(passwords.verify("ann", "new").await, Verdict::Right);
    }

    #[test]
    fn lines_that_are_no_bcrypt_are_refused_by_number() {
        let hash = bcrypt::hash("x", 4).unwrap();
        for (text, line) in [
            (format!("ann:{hash}\nbob\n"), 2),
            ("ann:{SHA}abc\n".to_owned(), 1),
            ("ann:secret\n".to_owned(), 1),
            (format!(":{hash}\n"), 1),
            (format!("ann:{hash}\n\nann:{hash}\n"), 3),
        ] {
            let (_folder, path) = file(&text);
            let Err(error) = Passwords::open(&path) else { panic!("{text} was taken") };
            assert!(error.to_string().contains(&format!("line {line}")), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
