//! The one error type of the crate: what failed, on what. It never carries a secret, not even a part of one.
//!
//! Findings about a certificate that somebody brought in are not errors but [`Finding`](crate::Finding)s: all of them
//! are wanted at once.

use std::path::PathBuf;

/// Why something with a key, a certificate, the keystore or the escrow did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertsError {
    /// A name is not one that a host in a cluster can have.
    #[error("{name:?} is not a usable host name: {reason}")]
    Name {
        /// The name as it was given.
        name: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// A value that was given is outside of what is allowed.
    #[error("{what}: {reason}")]
    Invalid {
        /// The value's name.
        what: &'static str,
        /// The rule that it breaks.
        reason: String,
    },
    /// PEM text without what was looked for, or broken.
    #[error("{what}: {reason}")]
    Pem {
        /// What was read, for example `certificate file`.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate's DER does not parse.
    #[error("{what} is not an X.509 certificate: {reason}")]
    Certificate {
        /// Which one, for example `certificate 2`.
        what: String,
        /// The parser's words.
        reason: String,
    },
    /// A private key that is encrypted with a passphrase.
    #[error("the private key is encrypted with a passphrase")]
    EncryptedKey,
    /// A private key of a kind that is not supported, or broken.
    #[error("the private key cannot be used: {reason}")]
    Key {
        /// What is wrong with it (never a part of the key).
        reason: String,
    },
    /// An RSA key that is too short to be used at all.
    #[error("the private key is an RSA key of {bits} bits; at least 2048 are needed")]
    ShortKey {
        /// Length of the modulus.
        bits: usize,
    },
    /// The private key belongs to another certificate.
    #[error("the private key does not belong to the certificate {subject}")]
    KeyMismatch {
        /// The certificate's subject.
        subject: String,
    },
    /// A certificate that shall issue others may not.
    #[error("{subject} cannot issue certificates: {reason}")]
    Authority {
        /// The certificate's subject.
        subject: String,
        /// What it lacks.
        reason: String,
    },
    /// Making a certificate or a request failed in the library below.
    #[error("could not make {what}: {source}")]
    Issue {
        /// What should have been made.
        what: String,
        /// The library's error.
        source: rcgen::Error,
    },
    /// A chain does not verify.
    #[error("the certificate chain does not verify for {name}: {reason}")]
    Verify {
        /// The name it was verified for.
        name: String,
        /// The first reason against it.
        reason: String,
    },
    /// The kernel's random numbers are not available.
    #[error("the system gives no random numbers")]
    Random,
    /// The name of a keystore entry holds something other than `a-z 0-9 . _ -`.
    #[error("{name:?} cannot be the name of a keystore entry: {reason}")]
    EntryName {
        /// The name as it was given.
        name: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The keystore or an entry in it is open to others, or is not what it should be.
    #[error("{path} is not safe to use: {reason}")]
    Unsafe {
        /// The folder or the entry.
        path: PathBuf,
        /// What is wrong, with the measured mode or owner.
        reason: String,
    },
    /// There is no such entry.
    #[error("{path} does not exist")]
    NoEntry {
        /// The entry.
        path: PathBuf,
    },
    /// A file operation of the keystore failed.
    #[error("could not {action} {path}: {source}")]
    File {
        /// What was tried, for example `write`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A recovery key that was typed is not one.
    #[error("this is not a recovery key: {reason}")]
    RecoveryKey {
        /// The rule that it breaks (never what was typed).
        reason: String,
    },
    /// A recipient of the escrow is not an age X25519 public key.
    #[error("{recipient} is not an age recipient: {reason}")]
    Recipient {
        /// The recipient as given when it is public, else its position.
        recipient: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An identity is not an age X25519 secret key.
    #[error("the age identity cannot be used: {reason}")]
    Identity {
        /// What is wrong with it (never a part of it).
        reason: &'static str,
    },
    /// Encrypting or decrypting the escrow failed.
    #[error("could not {action} the escrow: {reason}")]
    Escrow {
        /// `seal`, `open` or `read`.
        action: &'static str,
        /// What went wrong.
        reason: String,
    },
}

impl CertsError {
    /// What the person can do about it, without the word `hint:`.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Name { .. } => {
                "give a name such as mgmt.example.org: lower-case letters, digits and hyphens in labels \
                                  joined by dots"
                    .to_owned()
            }
            Self::Pem { .. } | Self::Certificate { .. } => {
                "certificates and keys are read as PEM text: blocks that begin with -----BEGIN …-----; \
                 `openssl x509 -inform DER -in FILE` makes PEM of a DER certificate"
                    .to_owned()
            }
            Self::EncryptedKey => {
                "take the passphrase off into a file that only root reads: `openssl pkey -in KEY -out NEWKEY`"
                    .to_owned()
            }
            Self::Key { .. } => {
                "use an unencrypted PEM key of the kind ECDSA P-256 or P-384, Ed25519, or RSA with 3072 or 4096 bits"
                    .to_owned()
            }
            Self::ShortKey { .. } => {
                "make a new key (RSA 3072 or ECDSA P-256) and ask for a new certificate".to_owned()
            }
            Self::KeyMismatch { .. } => {
                "give the key from which the certificate was requested; `openssl pkey -pubout -in KEY` and \
                 `openssl x509 -pubkey -noout -in CERT` must print the same"
                    .to_owned()
            }
            Self::Verify { .. } => {
                "`openssl verify -show_chain -CAfile ROOTS -untrusted CHAIN CHAIN` shows the same chain \
                                    in other words"
                    .to_owned()
            }
            Self::Unsafe { path, .. } => {
                format!(
                    "as root: chown root:root {0} && chmod go-rwx {0}, and find out who could read it",
                    path.display()
                )
            }
            Self::RecoveryKey { .. } => "a recovery key has 8 groups of 8 letters out of cbdefghijklnrtuv".to_owned(),
            Self::Recipient { .. } => "`age-keygen` makes a key pair; its public half begins with age1".to_owned(),
            Self::Identity { .. } => {
                "give the file that `age-keygen` made; it has a line that begins with AGE-SECRET-KEY-1".to_owned()
            }
            _ => return None,
        };
        Some(hint)
    }
}
