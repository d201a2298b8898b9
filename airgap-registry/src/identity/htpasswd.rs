//! Users with passwords: a file of `NAME:HASH` lines with bcrypt (as `htpasswd -B` writes it) or argon2id (PHC string).
//!
//! Invariant: a password is compared with its slow hash once; after that its HMAC under a key that only this process
//! has is remembered, until the file changes. Slow comparisons stand in a queue of bounded length, so that guessing
//! costs the guesser time and the server one processor at most. Passwords are never kept and never logged. Called by
//! the server.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use argon2::password_hash::{PasswordHash, PasswordVerifier as _};
use argon2::{Argon2, Params};
use aws_lc_rs::hmac;
use camino::{Utf8Path, Utf8PathBuf};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// The most that is remembered; when it is full, it is forgotten.
const MAXIMUM_REMEMBERED: usize = 1024;

/// How many passwords are compared at once: each costs tens of milliseconds of a processor.
const AT_ONCE: usize = 1;

/// How many more may wait for that; who comes then is told to try again.
const MAXIMUM_WAITING: usize = 16;

/// The most that one comparison may cost: 64 MiB of memory and 10 passes over it.
const MAXIMUM_MEMORY_KIB: u32 = 64 << 10;
const MAXIMUM_PASSES: u32 = 10;
/// The highest cost of bcrypt: some seconds.
const MAXIMUM_BCRYPT: u32 = 14;

/// A password file that is reloaded when it changes.
pub(crate) struct Passwords {
    path: Utf8PathBuf,
    key: hmac::Key,
    state: RwLock<Arc<State>>,
    remembered: RwLock<HashSet<[u8; 32]>>,
    turns: Semaphore,
    waiting: AtomicUsize,
    compared: AtomicU64,
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
    /// Too many others are waiting to be compared.
    Busy,
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
            waiting: AtomicUsize::new(0),
            compared: AtomicU64::new(0),
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

    /// How many passwords were compared with a slow hash so far.
    pub(crate) fn compared(&self) -> u64 {
        self.compared.load(Ordering::Relaxed)
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
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= MAXIMUM_WAITING + AT_ONCE {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Verdict::Busy;
        }
        let _place = Place(&self.waiting);
        let Ok(_turn) = self.turns.acquire().await else { return Verdict::Wrong };
        // The same password may have been found right while this one waited.
        if self.remembered.read().unwrap_or_else(PoisonError::into_inner).contains(&tag) {
            return Verdict::Right;
        }
        self.compared.fetch_add(1, Ordering::Relaxed);
        // An unknown user costs as much time as a wrong password, so that names cannot be found out.
        let known = state.users.get(user).cloned();
        let hash = known.clone().or_else(|| state.users.values().next().cloned()).unwrap_or_default();
        let password = zeroize::Zeroizing::new(password.to_owned());
        let right = tokio::task::spawn_blocking(move || matches(password.as_bytes(), &hash)).await.unwrap_or(false);
        if !right || known.is_none() {
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

/// A place in the queue, given back whatever becomes of the request.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn matches(password: &[u8], hash: &str) -> bool {
    if hash.starts_with("$argon2id$") {
        return PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok());
    }
    bcrypt::verify(password, hash).unwrap_or(false)
}

/// Why a hash is not taken; nothing when it is.
fn objection(hash: &str) -> Option<&'static str> {
    if hash.starts_with("$argon2id$") {
        let parsed = PasswordHash::new(hash).ok().filter(|hash| hash.salt.is_some() && hash.hash.is_some());
        let Some(params) = parsed.and_then(|hash| Params::try_from(&hash).ok()) else {
            return Some("the hash begins like argon2id and cannot be read");
        };
        let is_affordable = params.m_cost() <= MAXIMUM_MEMORY_KIB && params.t_cost() <= MAXIMUM_PASSES;
        return (!is_affordable).then_some("the costs of argon2id are above m=65536 and t=10");
    }
    match hash.parse::<bcrypt::HashParts>() {
        Ok(parts) if parts.get_cost() > MAXIMUM_BCRYPT => Some("the cost of bcrypt is above 14"),
        Ok(_) => None,
        Err(_) => Some("the hash is neither bcrypt ($2y$…) nor argon2id ($argon2id$…)"),
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
        if let Some(why) = objection(hash) {
            return Err((number, why));
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
    use argon2::password_hash::{PasswordHasher as _, SaltString};

    fn file(text: &str) -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(folder.path().join("htpasswd")).unwrap();
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn argon2id(password: &str) -> String {
        let params = Params::new(64, 1, 1, None).unwrap();
        let argon = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        argon.hash_password(password.as_bytes(), &SaltString::from_b64("c2FsdHNhbHQ").unwrap()).unwrap().to_string()
    }

    #[tokio::test]
    async fn a_password_is_compared_slowly_once_and_forgotten_when_the_file_changes() {
        let hash = bcrypt::hash("right", 4).unwrap();
        let (_folder, path) = file(&format!("# users\n\nann:{hash}\ncat:{}\n", argon2id("purr")));
        let passwords = Passwords::open(&path).unwrap();
        for (user, password, verdict) in [
            ("ann", "wrong", Verdict::Wrong),
            ("bob", "right", Verdict::Wrong),
            ("", "", Verdict::Wrong),
            ("ann", "", Verdict::Wrong),
            ("ann", "right", Verdict::Right),
            ("cat", "purr", Verdict::Right),
            ("cat", "right", Verdict::Wrong),
        ] {
            assert_eq!(passwords.verify(user, password).await, verdict, "{user}");
        }
        assert_eq!(passwords.compared(), 7);
        for _ in 0..100 {
            assert_eq!(passwords.verify("ann", "right").await, Verdict::Right);
            assert_eq!(passwords.verify("cat", "purr").await, Verdict::Right);
        }
        assert_eq!(passwords.compared(), 7, "remembered");
        fs::write(&path, format!("ann:{}\n", argon2id("new"))).unwrap();
        assert_eq!(passwords.verify("ann", "right").await, Verdict::Wrong);
        assert_eq!(passwords.verify("ann", "new").await, Verdict::Right);
        assert_eq!(passwords.verify("cat", "purr").await, Verdict::Wrong);
        assert_eq!(passwords.compared(), 10);
        fs::write(&path, "nonsense\n").unwrap();
        assert_eq!(passwords.verify("ann", "new").await, Verdict::Right);
    }

    #[tokio::test]
    async fn who_guesses_stands_in_a_short_queue_and_who_is_known_does_not() {
        let (_folder, path) = file(&format!("ann:{}\n", bcrypt::hash("right", 4).unwrap()));
        let passwords = Arc::new(Passwords::open(&path).unwrap());
        assert_eq!(passwords.verify("ann", "right").await, Verdict::Right);
        let turn = passwords.turns.acquire().await.unwrap();
        let guesses: Vec<_> = (0..100)
            .map(|guess| {
                let passwords = Arc::clone(&passwords);
                tokio::spawn(async move { passwords.verify("ann", &guess.to_string()).await })
            })
            .collect();
        while passwords.waiting.load(Ordering::Acquire) <= MAXIMUM_WAITING {
            tokio::task::yield_now().await;
        }
        // While the queue is full.
        assert_eq!(passwords.verify("ann", "right").await, Verdict::Right);
        assert_eq!(passwords.verify("ann", "another").await, Verdict::Busy);
        let before = passwords.compared();
        drop(turn);
        let mut busy = 0;
        for guess in guesses {
            busy += usize::from(guess.await.unwrap() == Verdict::Busy);
        }
        assert_eq!(busy, 100 - MAXIMUM_WAITING - AT_ONCE);
        assert_eq!(passwords.compared() - before, (MAXIMUM_WAITING + AT_ONCE) as u64);
        assert_eq!(passwords.waiting.load(Ordering::Acquire), 0);
    }

    #[test]
    fn lines_that_are_no_hash_are_refused_by_number() {
        let hash = bcrypt::hash("x", 4).unwrap();
        let costly = argon2id("x").replace("m=64", "m=9999999");
        for (text, line) in [
            (format!("ann:{hash}\nbob\n"), 2),
            ("ann:{SHA}abc\n".to_owned(), 1),
            ("ann:secret\n".to_owned(), 1),
            (format!(":{hash}\n"), 1),
            (format!("ann:{hash}\n\nann:{hash}\n"), 3),
            (format!("ann:{costly}\n"), 1),
            ("ann:$argon2id$v=19$m=64,t=1,p=1\n".to_owned(), 1),
            (format!("ann:{}\n", argon2id("secret").replace("argon2id", "argon2i")), 1),
            (format!("ann:{}\n", hash.replace("$04$", "$31$")), 1),
        ] {
            let (_folder, path) = file(&text);
            let Err(error) = Passwords::open(&path) else { panic!("{text} was taken") };
            assert!(error.to_string().contains(&format!("line {line}")), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
