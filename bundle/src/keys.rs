//! Signing and trusting: minisign keys and signatures (<https://jedisct1.github.io/minisign/>, "Signature format").
//!
//! Invariant: only prehashed signatures (`ED`, Ed25519 over BLAKE2b-512) by a key in [`TrustedKeys`] are accepted, and
//! the same key and message always give the same signature: the trusted comment holds no time, and Ed25519 by RFC 8032
//! needs no randomness. Called by `create`, `read` and the `cofferdam bundle keygen` command.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest as _};
use camino::{Utf8Path, Utf8PathBuf};
use zeroize::Zeroizing;

use crate::error::{Distrust, Error};

/// Name of the secret key in the directory of [`keygen`].
pub const SECRET_KEY_FILE: &str = "signing.key";
/// Name of the public key in the directory of [`keygen`].
pub const PUBLIC_KEY_FILE: &str = "signing.pub";

/// The only untrusted comment that a bundle's signature may have, so that no byte of a bundle is free.
pub(crate) const UNTRUSTED_COMMENT: &str = "cofferdam bundle signature";
/// Key files are a few lines.
const KEY_FILE_LIMIT: u64 = 16 * 1024;
const SECRET_KEY_LENGTH: usize = 158;
const PREHASHED: &[u8; 2] = b"ED";

/// minisign's key id: eight random bytes made with the key; prints as minisign prints it: the bytes as a little-endian
/// number in upper-case hex, leading zeros left out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}", u64::from_le_bytes(self.0))
    }
}

impl serde::Serialize for KeyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What [`keygen`] made.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    /// The secret key, mode 0600.
    pub secret: Utf8PathBuf,
    /// The public key.
    pub public: Utf8PathBuf,
    /// Their id.
    pub id: KeyId,
}

/// Makes a signing key pair in `directory` (created if need be): `signing.key` (0600; encrypted with scrypt if there is
/// a password) and `signing.pub`, both in minisign's format. Refuses to overwrite either.
pub fn keygen(directory: &Utf8Path, password: Option<&Zeroizing<String>>) -> Result<KeyFiles, Error> {
    let (secret, public) = (directory.join(SECRET_KEY_FILE), directory.join(PUBLIC_KEY_FILE));
    for path in [&secret, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(key_error(path, "it exists already and is not overwritten"));
        }
    }
    let pair = match password {
        Some(password) => minisign::KeyPair::generate_encrypted_keypair(Some(password.to_string())),
        None => minisign::KeyPair::generate_unencrypted_keypair(),
    }
    .map_err(|error| key_error(&secret, error))?;
    let mut id = [0; 8];
    id.iter_mut().zip(pair.pk.keynum()).for_each(|(to, from)| *to = *from);
    let kind = if password.is_some() { "encrypted secret key" } else { "secret key" };
    let text =
        pair.sk.to_box(Some(&format!("cofferdam {kind}"))).map_err(|error| key_error(&secret, error))?.into_string();
    let public_text = format!("untrusted comment: minisign public key {}\n{}\n", KeyId(id), pair.pk.to_base64());

    fs::create_dir_all(directory).map_err(|error| Error::io(format!("create {directory}"), error))?;
    write_new(&secret, 0o600, Zeroizing::new(text).as_bytes())?;
    write_new(&public, 0o644, public_text.as_bytes())?;
    Ok(KeyFiles { secret, public, id: KeyId(id) })
}

fn write_new(path: &Utf8Path, mode: u32, bytes: &[u8]) -> Result<(), Error> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(|error| Error::io(format!("write {path}"), error))
}

fn key_error(path: &Utf8Path, why: impl fmt::Display) -> Error {
    Error::Key { path: path.to_owned(), why: why.to_string() }
}

fn read_key_file(path: &Utf8Path) -> Result<Zeroizing<String>, Error> {
    let mut text = Zeroizing::new(String::new());
    let file = fs::File::open(path).map_err(|error| key_error(path, error))?;
    file.take(KEY_FILE_LIMIT).read_to_string(&mut text).map_err(|error| key_error(path, error))?;
    Ok(text)
}

/// A secret key that signs bundles.
pub struct SigningKey {
    id: KeyId,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

impl SigningKey {
    /// Reads a minisign secret key. A password is needed exactly if the key is encrypted; one that is given for a key
    /// in the clear is ignored.
    pub fn load(path: &Utf8Path, password: Option<&Zeroizing<String>>) -> Result<Self, Error> {
        let text = read_key_file(path)?;
        // Fields: algorithm, KDF and checksum algorithm (2 bytes each), salt (32), limits (8 + 8), id (8), key (64),
        // checksum (32).
        let line = text.lines().nth(1).unwrap_or_default();
        let raw = Zeroizing::new(STANDARD.decode(line).map_err(|_| key_error(path, "it is not a minisign key"))?);
        if raw.len() != SECRET_KEY_LENGTH || !raw.starts_with(b"Ed") {
            return Err(key_error(path, "it is not a minisign secret key"));
        }
        let is_encrypted = raw.get(2..4).is_some_and(|kdf| kdf != [0, 0]);
        let raw = match (is_encrypted, password) {
            // minisign's own `-W` leaves the checksum empty; the two halves of the key are checked below anyway.
            (false, _) => raw,
            (true, Some(password)) => minisign::SecretKeyBox::from_string(&text)
                .and_then(|secret| secret.into_secret_key(Some(password.to_string())))
                .map(|secret| Zeroizing::new(secret.to_bytes()))
                .map_err(|error| key_error(path, error))?,
            (true, None) => return Err(key_error(path, "it is encrypted and no password was given")),
        };
        let field = |range: std::ops::Range<usize>| raw.get(range).unwrap_or_default();
        let pair = Ed25519KeyPair::from_seed_and_public_key(field(62..94), field(94..126))
            .map_err(|_| key_error(path, "secret and public part do not fit each other"))?;
        let mut id = [0; 8];
        id.iter_mut().zip(field(54..62)).for_each(|(to, from)| *to = *from);
        Ok(Self { id: KeyId(id), pair })
    }

    /// Its id.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Signs a message; gives the text of a `.minisig` file. `trusted_comment` is signed too; one line.
    pub fn sign(&self, message: &[u8], trusted_comment: &str) -> String {
        let signature = self.pair.sign(&Blake2b512::digest(message));
        let global = self.pair.sign(&[signature.as_ref(), trusted_comment.as_bytes()].concat());
        let line = STANDARD.encode([PREHASHED.as_slice(), self.id.0.as_slice(), signature.as_ref()].concat());
        let global = STANDARD.encode(global.as_ref());
        format!("untrusted comment: {UNTRUSTED_COMMENT}\n{line}\ntrusted comment: {trusted_comment}\n{global}\n")
    }
}

/// A parsed `.minisig` file.
#[derive(Debug, Clone)]
pub struct Signature {
    key_id: KeyId,
    bytes: Vec<u8>,
    untrusted_comment: String,
    trusted_comment: String,
    global: Vec<u8>,
}

impl Signature {
    /// Reads the text of a `.minisig` file: exactly four lines, each ended by a line feed, base64 in its one canonical
    /// spelling.
    pub fn parse(bytes: &[u8]) -> Result<Self, Distrust> {
        let fail = Distrust::Malformed;
        let text = std::str::from_utf8(bytes).map_err(|_| fail("it is not text"))?;
        let lines: Vec<&str> = text.split('\n').collect();
        let [untrusted, line, trusted, global, ""] = lines.as_slice() else {
            return Err(fail("it does not have four lines"));
        };
        let untrusted = untrusted.strip_prefix("untrusted comment: ").ok_or(fail("the first line is no comment"))?;
        let trusted = trusted.strip_prefix("trusted comment: ").ok_or(fail("the third line is no comment"))?;
        let raw = STANDARD.decode(line).map_err(|_| fail("the second line is not base64"))?;
        let global = STANDARD.decode(global).map_err(|_| fail("the fourth line is not base64"))?;
        let (Some((algorithm, rest)), 74, 64) = (raw.split_first_chunk::<2>(), raw.len(), global.len()) else {
            return Err(fail("it has the wrong length"));
        };
        if algorithm != PREHASHED {
            return Err(fail("it is not a prehashed Ed25519 signature"));
        }
        let (id, signature) = rest.split_first_chunk::<8>().ok_or(fail("it has the wrong length"))?;
        Ok(Self {
            key_id: KeyId(*id),
            bytes: signature.to_vec(),
            untrusted_comment: untrusted.to_owned(),
            trusted_comment: trusted.to_owned(),
            global,
        })
    }

    /// Which key it says it was made with. Not proven before [`TrustedKeys::verify`].
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The comment that the signature covers. Not proven before [`TrustedKeys::verify`].
    pub fn trusted_comment(&self) -> &str {
        &self.trusted_comment
    }

    pub(crate) fn untrusted_comment(&self) -> &str {
        &self.untrusted_comment
    }
}

/// The public keys that bundles are trusted from.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys {
    keys: Vec<(KeyId, [u8; 32])>,
}

impl TrustedKeys {
    /// Reads minisign public keys, one per file.
    pub fn load<P: AsRef<Utf8Path>>(paths: &[P]) -> Result<Self, Error> {
        let mut trusted = Self::default();
        for path in paths {
            let path = path.as_ref();
            let text = read_key_file(path)?;
            trusted.add(&text).map_err(|why| key_error(path, why))?;
        }
        Ok(trusted)
    }

    /// Adds a minisign public key: the text of its file, or the base64 line alone.
    pub fn add(&mut self, text: &str) -> Result<KeyId, &'static str> {
        let line = match text.strip_prefix("untrusted comment:") {
            Some(rest) => rest.lines().nth(1),
            None => text.lines().next(),
        };
        let raw = line
            .and_then(|line| STANDARD.decode(line.trim()).ok())
            .ok_or("it is not a minisign public key (a comment line, then a base64 line)")?;
        let raw: [u8; 42] = raw.try_into().map_err(|_| "it is not a minisign public key: wrong length")?;
        let Some((b"Ed", rest)) = raw.split_first_chunk::<2>() else {
            return Err("it is not an Ed25519 minisign public key");
        };
        let (Some((id, _)), Some((_, key))) = (rest.split_first_chunk::<8>(), rest.split_last_chunk::<32>()) else {
            return Err("it is not a minisign public key: wrong length");
        };
        self.keys.push((KeyId(*id), *key));
        Ok(KeyId(*id))
    }

    /// The ids of the keys.
    pub fn ids(&self) -> Vec<KeyId> {
        self.keys.iter().map(|(id, _)| *id).collect()
    }

    /// Verifies a signature over a message, the trusted comment included.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<KeyId, Distrust> {
        let mut candidates = self.keys.iter().filter(|(id, _)| *id == signature.key_id).peekable();
        if candidates.peek().is_none() {
            return Err(Distrust::ForeignKey { signed_by: signature.key_id, trusted: self.ids() });
        }
        let hash = Blake2b512::digest(message);
        let covered = [signature.bytes.as_slice(), signature.trusted_comment.as_bytes()].concat();
        let fits = |key: &[u8; 32]| {
            let key = UnparsedPublicKey::new(&ED25519, key);
            key.verify(&hash, &signature.bytes).is_ok() && key.verify(&covered, &signature.global).is_ok()
        };
        if candidates.any(|(_, key)| fits(key)) {
            Ok(signature.key_id)
        } else {
            Err(Distrust::WrongSignature(signature.key_id))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory() -> (tempfile::TempDir, Utf8PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        (directory, path)
    }

    #[test]
    fn signs_and_verifies_the_same_each_time() {
        let (_guard, path) = directory();
        let files = keygen(&path, None).unwrap();
        assert_eq!(files.secret.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let key = SigningKey::load(&files.secret, None).unwrap();
        assert_eq!(key.id(), files.id);
        let text = key.sign(b"message", "comment");
        assert_eq!(text, SigningKey::load(&files.secret, None).unwrap().sign(b"message", "comment"));
        let trusted = TrustedKeys::load(&[&files.public]).unwrap();
        let signature = Signature::parse(text.as_bytes()).unwrap();
        assert_eq!(trusted.verify(b"message", &signature), Ok(files.id));
        assert_eq!(trusted.verify(b"massage", &signature), Err(Distrust::WrongSignature(files.id)));

        let other_comment = Signature::parse(text.replace("comment: comment", "comment: Comment").as_bytes()).unwrap();
        assert_eq!(trusted.verify(b"message", &other_comment), Err(Distrust::WrongSignature(files.id)));

        let (_guard, elsewhere) = directory();
        let foreign = TrustedKeys::load(&[keygen(&elsewhere, None).unwrap().public]).unwrap();
        assert!(matches!(foreign.verify(b"message", &signature), Err(Distrust::ForeignKey { .. })));
        assert!(matches!(TrustedKeys::default().verify(b"message", &signature), Err(Distrust::ForeignKey { .. })));
    }

    #[test]
    fn an_id_prints_as_minisign_prints_it() {
        // `minisign -G` wrote "7EA64BA51A4C7734" for the first of these; it leaves leading zeros out.
        let id = KeyId([0x34, 0x77, 0x4c, 0x1a, 0xa5, 0x4b, 0xa6, 0x7e]);
        assert_eq!(id.to_string(), "7EA64BA51A4C7734");
        assert_eq!(KeyId([1, 0, 0, 0, 0, 0, 0, 0x02]).to_string(), "200000000000001");
    }

    #[test]
    fn never_overwrites_a_key() {
        let (_guard, path) = directory();
        let files = keygen(&path, None).unwrap();
        let before = fs::read(&files.secret).unwrap();
        assert_eq!(keygen(&path, None).unwrap_err().exit_code(), 2);
        fs::remove_file(&files.secret).unwrap();
        assert!(keygen(&path, None).is_err(), "the public key is there still");
        assert!(!files.secret.exists());
        fs::remove_file(&files.public).unwrap();
        let after = keygen(&path, None).unwrap();
        assert_ne!(before, fs::read(after.secret).unwrap());
    }

    #[test]
    fn an_encrypted_key_needs_its_password() {
        let (_guard, path) = directory();
        let password = Zeroizing::new("correct horse".to_owned());
        let files = keygen(&path, Some(&password)).unwrap();
        assert!(SigningKey::load(&files.secret, None).unwrap_err().to_string().contains("encrypted"));
        let wrong = SigningKey::load(&files.secret, Some(&Zeroizing::new("battery".to_owned()))).unwrap_err();
        assert!(!wrong.to_string().contains("battery"));
        let key = SigningKey::load(&files.secret, Some(&password)).unwrap();
        let signature = Signature::parse(key.sign(b"m", "c").as_bytes()).unwrap();
        assert!(TrustedKeys::load(&[&files.public]).unwrap().verify(b"m", &signature).is_ok());
    }

    #[test]
    fn malformed_signatures_are_refused() {
        let (_guard, path) = directory();
        let key = SigningKey::load(&keygen(&path, None).unwrap().secret, None).unwrap();
        let good = key.sign(b"m", "c");
        let legacy = {
            let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
            let mut raw = STANDARD.decode(&lines[1]).unwrap();
            raw[1] = b'd';
            lines[1] = STANDARD.encode(raw);
            lines.join("\n") + "\n"
        };
        for bad in [
            String::new(),
            good.trim_end().to_owned(),
            format!("{good}\n"),
            good.replace('\n', "\r\n"),
            good.replace("untrusted", "Untrusted"),
            good.replace("\ntrusted", "\nTrusted"),
            good.replace('=', ""),
            legacy,
        ] {
            assert!(matches!(Signature::parse(bad.as_bytes()), Err(Distrust::Malformed(_))), "{bad}");
        }
        assert!(TrustedKeys::default().add("").is_err());
        assert!(TrustedKeys::default().add("untrusted comment: x\n").is_err());
        assert!(TrustedKeys::default().add(&STANDARD.encode([0; 42])).is_err());
    }
}
