//! The live system of a boot medium: where the medium is, whether it is to be trusted, which answers it found.
//!
//! Invariant: nothing of a medium gets onto a disk before [`medium::verified`] has checked the signature of its manifest
//! with the keys of this running, verified root, and that the root is the one that the manifest names.
//!
//! Called by the command line; the steps of the appliance's plan use [`is_live`].

pub mod answers;
pub mod medium;
pub mod network;
#[cfg(test)]
mod tests;

use crate::host::{Host, HostError, HostExt};

/// Word of the kernel's command line that only a medium's boot has.
const WORD: &str = "cofferdam.live";

/// Why a live system cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// An effect failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The medium is not there, damaged, or not trusted.
    #[error("the medium: {why}")]
    Medium {
        /// What is wrong with it.
        why: String,
    },
    /// The network of the answers does not come up.
    #[error("the network: {why}")]
    Network {
        /// What is missing.
        why: String,
    },
    /// The answers were named but cannot be used.
    #[error("the answers {place}: {why}")]
    Answers {
        /// Where they were looked for.
        place: String,
        /// What is wrong.
        why: String,
    },
}

impl LiveError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Host(_) => "the log of this boot tells more: journalctl -b",
            Self::Medium { .. } => {
                "check the image where it was made with: cofferdam iso inspect --trust; then copy it again"
            }
            Self::Network { .. } => "is the cable in, and is it the right adapter? `networkctl` shows all of them",
            Self::Answers { .. } => "mend what the kernel's command line says, or boot without it",
        }
    }
}

/// Whether this system was booted from a medium; an installed one was not.
pub fn is_live(host: &dyn Host) -> Result<bool, HostError> {
    Ok(words(host)?.iter().any(|word| word == WORD))
}

/// The dm-verity root hash of the running system; `None` where the root is no image.
pub fn root(host: &dyn Host) -> Result<Option<String>, HostError> {
    argument(host, "roothash")
}

/// The words of the kernel's command line.
fn words(host: &dyn Host) -> Result<Vec<String>, HostError> {
    let line = host.read_text("/proc/cmdline".into())?;
    Ok(line.map(|line| line.split_whitespace().map(str::to_owned).collect()).unwrap_or_default())
}

/// The value of `NAME=value` on the kernel's command line; the last one counts.
fn argument(host: &dyn Host, name: &str) -> Result<Option<String>, HostError> {
    let start = format!("{name}=");
    Ok(words(host)?.iter().rev().find_map(|word| word.strip_prefix(&start)).map(str::to_owned))
}
