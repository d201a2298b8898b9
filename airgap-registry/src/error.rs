//! The one error type of this crate: what failed, on what, and a hint where there is one. Never holds a secret.

use std::io;

use bundle::oci::{Digest, ParseError, Reference};
use camino::{Utf8Path, Utf8PathBuf};

/// What the registry or its store could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something on a path.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, for example `write`.
        action: &'static str,
        /// On what.
        path: Utf8PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The directory is not a registry store.
    #[error("{path} is not a registry store")]
    NotAStore {
        /// The directory.
        path: Utf8PathBuf,
    },
    /// The store was written by another version of this program.
    #[error("the registry store {path} has the format {found:?}; this program knows {known:?}")]
    StoreFormat {
        /// The directory.
        path: Utf8PathBuf,
        /// What its `version` file says.
        found: String,
        /// What this program writes.
        known: &'static str,
    },
    /// Another process uses the store in a way that excludes this one.
    #[error("the registry store {path} is in use: {by}")]
    Busy {
        /// The directory.
        path: Utf8PathBuf,
        /// Who is likely to hold it.
        by: &'static str,
    },
    /// A reference of a bundle cannot be a repository of the registry.
    #[error("the image {reference} cannot be kept in the registry: {why}")]
    Unnameable {
        /// The full reference.
        reference: Box<Reference>,
        /// What stands against it.
        why: String,
    },
    /// The index of a bundle names something that cannot be published.
    #[error("the bundle cannot be published: {0}")]
    Unpublishable(String),
    /// A blob is not what its name says.
    #[error("the content of {path} has the digest {actual} and {size} bytes, expected was {expected}")]
    WrongDigest {
        /// The file.
        path: Utf8PathBuf,
        /// What its name or the client promised.
        expected: Box<Digest>,
        /// What was found.
        actual: Box<Digest>,
        /// How many bytes were read.
        size: u64,
    },
    /// A blob that something refers to is not in the store.
    #[error("the blob {digest} is not in the registry store {path}")]
    MissingBlob {
        /// The blob.
        digest: Digest,
        /// The store.
        path: Utf8PathBuf,
    },
    /// A file of the store holds something that cannot be understood.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: Utf8PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The configuration is not valid YAML or has an unknown or missing key.
    #[error("cannot understand the registry configuration {path}: {why}")]
    ConfigSyntax {
        /// The file.
        path: Utf8PathBuf,
        /// The parser's words: place and reason.
        why: String,
    },
    /// The configuration contradicts itself or asks for something unsafe.
    #[error("the registry configuration is not usable: {why}")]
    ConfigRule {
        /// What is wrong.
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A certificate or key file cannot be used.
    #[error("cannot use {path}: {why}")]
    Tls {
        /// The file.
        path: Utf8PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The password file cannot be used.
    #[error("cannot use the password file {path}: line {line}: {why}")]
    Passwords {
        /// The file.
        path: Utf8PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it; never the line itself.
        why: &'static str,
    },
    /// The policy file cannot be used.
    #[error("cannot use the policy file {path}: {why}")]
    Policy {
        /// The file.
        path: Utf8PathBuf,
        /// The parser's words: place and reason.
        why: String,
    },
    /// The disk is nearly full: pushes are refused before it is.
    #[error("{path} has {free} bytes left, {watermark} are kept free")]
    DiskNearlyFull {
        /// The store.
        path: Utf8PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that stay free.
        watermark: u64,
    },
    /// A bundle that blobs were to be taken from cannot be used.
    #[error("cannot take blobs from the bundle {bundle}: {why}")]
    Repair {
        /// The bundle.
        bundle: Utf8PathBuf,
        /// Why not.
        why: String,
    },
    /// Another registry could not be reached, or gave something that cannot be used.
    #[error("the registry {server}: {why}")]
    Peer {
        /// Its URL.
        server: String,
        /// What went wrong.
        why: String,
    },
    /// The server cannot listen on an address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The operating system's source of randomness failed, or another thing that never does.
    #[error("{0}")]
    Unexpected(&'static str),
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(action: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// What the user can do about it, without the word `hint:`.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Io { source, path, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!("run it as root or as the user that owns {path}")
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free space on the data volume (`cofferdam registry gc`), then run the same command again"
                        .to_owned()
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    "the filesystem is read-only: look for disk errors in the kernel log".to_owned()
                }
                io::ErrorKind::NotFound => "check the path".to_owned(),
                _ => return None,
            },
            Self::NotAStore { .. } => {
                "name the folder that `cofferdam bundle load --store` filled, or an empty one".to_owned()
            }
            Self::StoreFormat { .. } => "use the version of cofferdam that wrote the store, or a newer one".to_owned(),
            Self::Busy { .. } => "wait for the other command, or stop the registry service for the moment".to_owned(),
            Self::Unnameable { .. } => "give the image another name in bundle.yaml".to_owned(),
            Self::WrongDigest { .. } | Self::MissingBlob { .. } | Self::Damaged { .. } => {
                "run `cofferdam registry fsck`; `--repair-from BUNDLE` puts back what is in the bundle".to_owned()
            }
            Self::ConfigSyntax { .. } => {
                "keys are store, listen, tls (certificate, key, client-ca), htpasswd, policy, tokens, anonymous-pull, \
                 plain-http, limits, scrub, garbage, peers, access-log, sparse-manifests (docs/registry.md)"
                    .to_owned()
            }
            Self::ConfigRule { hint, .. } | Self::Tls { hint, .. } => (*hint).to_owned(),
            Self::Passwords { .. } => "make entries with `htpasswd -B -C 10 FILE USER`".to_owned(),
            Self::Repair { .. } => {
                "check it with `cofferdam bundle verify --trust PUB BUNDLE`, or name another one".to_owned()
            }
            Self::Peer { .. } => {
                "check its address, that it serves, and that this node's certificate and CA are of the same site; what \
                 was taken over stays, and the same command goes on there"
                    .to_owned()
            }
            Self::Policy { .. } => {
                "each rule has `repositories`, `who` and `allow`; docs/registry.md shows some".to_owned()
            }
            Self::DiskNearlyFull { .. } => {
                "free space on the data volume (`cofferdam registry gc`), or lower limits.free-space-mib".to_owned()
            }
            Self::Listen { source, address } => match source.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "another program listens there: find it with `ss -ltnp 'sport = :{}'`, or choose another port",
                    address.port()
                ),
                io::ErrorKind::AddrNotAvailable => {
                    "the address is not one of this machine's: compare with `ip address`".to_owned()
                }
                io::ErrorKind::PermissionDenied => "ports below 1024 need root: choose another port".to_owned(),
                _ => return None,
            },
            Self::Unpublishable(_) | Self::Unexpected(_) => return None,
        };
        Some(text)
    }
}

impl From<Error> for bundle::load::SinkError {
    fn from(error: Error) -> Self {
        Self::new("the registry store did not take it", error)
    }
}

/// For a file of the store whose content should have been one of the OCI words.
pub(crate) fn damaged(path: &Utf8Path) -> impl FnOnce(ParseError) -> Error {
    let path = path.to_owned();
    move |source| Error::Damaged { path, why: source.to_string() }
}
