//! Which disk is taken. The rule is strict: exactly one free disk must fit, and the erase token must name it.

use super::disk::{Disk, size};
use crate::config::{DiskChoice, DiskMatch};

/// Shortest erase token for a disk whose serial number is longer.
const TOKEN_LENGTH: usize = 4;

/// Why no disk was chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// Nothing fits.
    #[error("no disk fits storage.disk.match; there are {present}")]
    NoMatch {
        /// The disks of the machine, in words.
        present: String,
    },
    /// Several fit.
    #[error("storage.disk.match fits more than one unused disk: {fitting}")]
    Ambiguous {
        /// In words.
        fitting: String,
    },
    /// What fits must not be erased because it is in use.
    #[error("{disk} cannot be taken: {reason}")]
    InUse {
        /// In words.
        disk: String,
        /// Why.
        reason: String,
    },
    /// What fits is an installation medium.
    #[error("{disk} cannot be taken: it is an installation medium")]
    Medium {
        /// In words.
        disk: String,
    },
    /// The token names another disk.
    #[error("storage.disk.erase does not name {disk}")]
    Token {
        /// In words.
        disk: String,
    },
}

impl ChoiceError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoMatch { .. } => "name the disk by its serial number in storage.disk.match",
            Self::Ambiguous { .. } => "add a match entry with the serial number of the one that may be erased",
            Self::InUse { .. } => "choose another disk, or take it out of use first (umount, swapoff, vgchange, mdadm)",
            Self::Medium { .. } => "choose another disk; the medium is needed for the installation",
            Self::Token { .. } => {
                "storage.disk.erase takes the last four or more characters of the disk's serial number, or its name if it has none"
            }
        }
    }
}

/// The one disk that the configuration chose. Pure; used by the checks and by the plan.
pub fn choose<'a>(disks: &'a [Disk], choice: &DiskChoice) -> Result<&'a Disk, ChoiceError> {
    let anything = [DiskMatch::default()];
    let matches = if choice.matches.is_empty() { &anything } else { choice.matches.as_slice() };
    let mut several = None;
    for wanted in matches {
        let free: Vec<_> = disks.iter().filter(|disk| disk.is_free() && fits(disk, wanted)).collect();
        match free[..] {
            [disk] => return token(disk, &choice.erase),
            [] => {}
            _ => several = several.or_else(|| Some(words(&free))),
        }
    }
    if let Some(fitting) = several {
        return Err(ChoiceError::Ambiguous { fitting });
    }
    let taken: Vec<_> = disks.iter().filter(|disk| matches.iter().any(|wanted| fits(disk, wanted))).collect();
    match taken.first() {
        Some(disk) if disk.is_medium && disk.in_use.is_none() => Err(ChoiceError::Medium { disk: word(disk) }),
        Some(disk) => Err(ChoiceError::InUse { disk: word(disk), reason: disk.obstacle().unwrap_or_default() }),
        None => Err(ChoiceError::NoMatch { present: words(&disks.iter().collect::<Vec<_>>()) }),
    }
}

fn token<'a>(disk: &'a Disk, token: &str) -> Result<&'a Disk, ChoiceError> {
    let is_named = match &disk.serial {
        Some(serial) => token == serial || (token.len() >= TOKEN_LENGTH && serial.ends_with(token)),
        None => token == disk.name || token == disk.path,
    };
    if is_named { Ok(disk) } else { Err(ChoiceError::Token { disk: word(disk) }) }
}

fn fits(disk: &Disk, wanted: &DiskMatch) -> bool {
    let equal = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
    let gib = 1_u64 << 30;
    equal(&wanted.serial, &disk.serial)
        && equal(&wanted.wwn, &disk.wwn)
        && equal(&wanted.bus, &disk.bus)
        && wanted
            .model
            .as_ref()
            .is_none_or(|part| disk.model.as_ref().is_some_and(|model| model.contains(part.as_str())))
        && wanted.min_size_gib.is_none_or(|least| disk.size_bytes >= least.saturating_mul(gib))
        && wanted.max_size_gib.is_none_or(|most| disk.size_bytes <= most.saturating_mul(gib))
}

/// A disk in words: path, model, serial number and size.
pub(crate) fn word(disk: &Disk) -> String {
    let model = disk.model.as_ref().map(|model| format!("{model}, ")).unwrap_or_default();
    let serial =
        disk.serial.as_ref().map_or_else(|| "no serial number".to_owned(), |serial| format!("serial {serial}"));
    format!("{} ({model}{serial}, {})", disk.path, size(disk.size_bytes))
}

fn words(disks: &[&Disk]) -> String {
    if disks.is_empty() {
        "none".to_owned()
    } else {
        disks.iter().map(|disk| word(disk)).collect::<Vec<_>>().join("; ")
    }
}
