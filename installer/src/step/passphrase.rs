//! The passphrase of the data volume, as a part of `disk.encrypt`: read from its file, given a slot, proven.
//!
//! Invariant: it reaches cryptsetup through stdin alone. What the pages kept in memory is removed once the volume is proven;
//! a file of the operator's own is the operator's to keep.

use camino::Utf8Path;
use zeroize::Zeroizing;

use super::{Context, StepError, disk};
use crate::config::KeyDerivation;
use crate::disk::{Header, Key, add_key, name_passphrase, opens_slot};
use crate::layout;
use crate::passphrase::{self, PassphraseError};
use crate::plan::Disk;

/// What the file holds; it is judged again, since it may have changed since the host checks.
pub(super) fn read(context: &Context, path: &Utf8Path) -> Result<Zeroizing<String>, StepError> {
    passphrase::read(context.host, path).map_err(|error| match error {
        PassphraseError::Host(error) => error.into(),
        error => StepError::State { what: error.to_string(), hint: error.hint() },
    })
}

/// Adds it next to the key that opens the volume, and says in the header whose slot it is; gives the slot.
pub(super) fn add(
    context: &Context,
    disk: &Disk,
    unlock: &[u8],
    passphrase: &[u8],
    cost: KeyDerivation,
) -> Result<String, StepError> {
    let slot = Header::of(&disk::metadata(context, &disk.path)?).free_slot()?;
    let unlock = Key::Known(Zeroizing::new(unlock.to_vec()));
    add_key(context.host, &disk.path, &unlock, (&slot, passphrase), cost)?;
    name_passphrase(context.host, &disk.path, &slot)?;
    Ok(slot)
}

/// Fails when it does not open its slot.
pub(super) fn prove(context: &Context, disk: &Disk, slot: &str, passphrase: &[u8]) -> Result<(), StepError> {
    if opens_slot(context.host, &disk.path, slot, passphrase)? {
        return Ok(());
    }
    Err(StepError::State {
        what: format!("the passphrase does not open {}, although it was just added", disk.path),
        hint: "the disk may not keep what is written to it; `dmesg` tells of its errors".to_owned(),
    })
}

/// Whether the volume of an interrupted run has this passphrase, or none if none was asked for.
pub(super) fn is_as_planned(context: &Context, disk: &Disk, passphrase: Option<&[u8]>) -> Result<bool, StepError> {
    let header = Header::of(&disk::metadata(context, &disk.path)?);
    let slots: Vec<&str> = header.passphrase_slots().collect();
    match (slots.as_slice(), passphrase) {
        ([], None) => Ok(true),
        ([slot], Some(passphrase)) => opens_slot(context.host, &disk.path, slot, passphrase),
        _ => Ok(false),
    }
}

/// Removes what was typed.
pub(super) fn forget(context: &Context) -> Result<(), StepError> {
    Ok(context.host.remove(layout::PASTED_PASSPHRASE.into())?)
}
