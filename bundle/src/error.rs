//! The one error of this crate. Each variant says what failed, on what and why; [`Error::exit_code`] says which of the
//! product's exit codes it is, [`Error::hint`] what to do about it.

use std::fmt;
use std::io;

use camino::Utf8PathBuf;

use crate::delta::HeldBlob;
use crate::index::Architecture;
use crate::keys::KeyId;
use crate::load::SinkError;
use crate::oci::{Digest, Reference};

/// What can go wrong with bundles.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `bundle.yaml` is not good; all that is wrong with it.
    #[error("{path} is not a valid bundle definition:{}", Lines(problems))]
    Definition {
        /// The file.
        path: Utf8PathBuf,
        /// One line each.
        problems: Vec<String>,
    },
    /// An image, file or manifest that `bundle.yaml` names cannot be used.
    #[error("cannot take {what} from {source_name}: {why}")]
    Source {
        /// The image, file or manifest.
        what: String,
        /// The source as it was written.
        source_name: String,
        /// Why.
        why: String,
    },
    /// A file could not be fetched, or is another one.
    #[error("cannot fetch {what} from {url}: {why}")]
    Download {
        /// The pack and the file.
        what: String,
        /// The source as it was written.
        url: String,
        /// Why.
        why: String,
    },
    /// A registry did not give what was asked for.
    #[error("cannot pull {what}: {why}")]
    Registry {
        /// The image or blob.
        what: String,
        /// Why.
        why: String,
    },
    /// A key file cannot be used. Never holds key material.
    #[error("key file {path}: {why}")]
    Key {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        why: String,
    },
    /// The bundle's signature is not one that is trusted.
    #[error("the bundle is not trusted: {0}")]
    NotTrusted(Distrust),
    /// The bundle is damaged, cut off, or not a bundle.
    #[error("the bundle is damaged: {member}: {why}")]
    Corrupt {
        /// The member or blob, or the place in the stream.
        member: String,
        /// What is wrong with it.
        why: String,
    },
    /// What the bundle needs is not inside; all of it.
    #[error("the bundle is not complete:{}", Lines(missing))]
    Incomplete {
        /// Everything that is missing.
        missing: Vec<Missing>,
    },
    /// A delta whose base the site does not hold; all that is missing.
    #[error("this store lacks {} blobs ({} bytes) that the bundle leaves out{}:{}", missing.len(), bytes_of(missing), made_on(base), Lines(&lines_of(missing)))]
    NotHeld {
        /// The bundles that it was made on.
        base: Vec<String>,
        /// Everything that is missing.
        missing: Vec<HeldBlob>,
    },
    /// The bundle is for another machine.
    #[error("the bundle is for {found}, this needs one for {expected}")]
    Architecture {
        /// What the caller asked for.
        expected: Architecture,
        /// What the bundle is for.
        found: Architecture,
    },
    /// The store that the bundle is loaded into failed.
    #[error("the store failed: {0}")]
    Sink(#[from] SinkError),
    /// Reading or writing failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, and on what.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

/// Why a signature is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// The key is not among the trusted ones.
    #[error("it was signed by key {signed_by}, which is not among the trusted keys ({})", trusted_list(trusted))]
    ForeignKey {
        /// Who signed.
        signed_by: KeyId,
        /// Who is trusted.
        trusted: Vec<KeyId>,
    },
    /// The key is trusted, but the signature is not over this index.
    #[error("the signature by key {0} does not fit the index")]
    WrongSignature(KeyId),
    /// The signature cannot be read.
    #[error("the signature is malformed: {0}")]
    Malformed(&'static str),
}

/// Something that a bundle needs and does not hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// A manifest names an image that is neither inside nor declared as optional.
    Image {
        /// The pack.
        pack: String,
        /// The Kubernetes manifest in it.
        manifest: String,
        /// The reference, completed.
        reference: Reference,
    },
    /// A manifest names an image in words that are not a reference.
    Unreadable {
        /// The pack.
        pack: String,
        /// The Kubernetes manifest in it.
        manifest: String,
        /// What it says.
        text: String,
    },
    /// An image or pack names a blob that is not inside.
    Blob {
        /// The image or pack.
        owner: String,
        /// The blob.
        digest: Digest,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { pack, manifest, reference } => {
                write!(f, "pack {pack}, manifest {manifest}: image {reference} is not in the bundle")
            }
            Self::Unreadable { pack, manifest, text } => {
                write!(f, "pack {pack}, manifest {manifest}: image {text:?} is not an image reference")
            }
            Self::Blob { owner, digest } => write!(f, "{owner}: blob {digest} is not in the bundle"),
        }
    }
}

fn trusted_list(trusted: &[KeyId]) -> String {
    let names: Vec<String> = trusted.iter().map(ToString::to_string).collect();
    if names.is_empty() { "there are none".to_owned() } else { names.join(", ") }
}

fn bytes_of(missing: &[HeldBlob]) -> u64 {
    missing.iter().map(|blob| blob.size).sum()
}

fn lines_of(missing: &[HeldBlob]) -> Vec<String> {
    missing.iter().map(|blob| format!("{} ({} bytes)", blob.digest, blob.size)).collect()
}

fn made_on(base: &[String]) -> String {
    if base.is_empty() { String::new() } else { format!("; it was made for sites that hold {}", base.join(", ")) }
}

/// One line per item, indented.
struct Lines<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Lines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Error {
    /// The exit code of the product: 2 for what the user wrote, 4 for a bundle that is not trusted, damaged, incomplete
    /// or for another machine, 1 for all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Definition { .. } | Self::Source { .. } | Self::Key { .. } => 2,
            Self::NotTrusted(_)
            | Self::Corrupt { .. }
            | Self::Incomplete { .. }
            | Self::NotHeld { .. }
            | Self::Architecture { .. } => 4,
            Self::Download { .. } | Self::Registry { .. } | Self::Sink(_) | Self::Io { .. } => 1,
        }
    }

    /// What to do about it, for the line `hint: …`.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Definition { .. } => "docs/bundle-format.md describes bundle.yaml",
            Self::Source { .. } => "check the source and the architecture in bundle.yaml",
            Self::Download { .. } => {
                "check the URL; another digest means another file: compare it with what its publisher names before \
                 bundle.yaml is changed; a private CA is given with --ca-file"
            }
            Self::Registry { .. } => {
                "check name and tag; a private CA is given with --ca-file; plain HTTP is used for loopback only"
            }
            Self::Key { .. } => "make a key pair with: cofferdam bundle keygen DIR",
            Self::NotTrusted(Distrust::ForeignKey { .. }) => {
                "get the public key from the publisher by another way than the bundle, and pass it with --trust"
            }
            Self::NotTrusted(_) | Self::Corrupt { .. } => {
                "copy the bundle again and compare the checksum with the publisher's; do not use this one"
            }
            Self::Incomplete { .. } => {
                "add the images to a pack in bundle.yaml, or name them under optional-images if they are not needed"
            }
            Self::NotHeld { .. } => {
                "load a bundle that it was made on, or get a full one, or send the output of `cofferdam bundle inventory` to \
                 the publisher for a delta that fits"
            }
            Self::Architecture { .. } => "get the bundle that was made for this machine's architecture",
            Self::Sink(_) | Self::Io { .. } => return None,
        })
    }

    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    pub(crate) fn corrupt(member: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Corrupt { member: member.to_string(), why: why.to_string() }
    }
}
