//! The LUKS2 header as JSON: slots, tokens, and whose slot is whose.
//!
//! Tokens of our type (`cofferdam`): `{"proven": true, "site": …}` marks the volume (`step/disk.rs`); those with a `holder`
//! name what the slots in `keyslots` are for.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{cryptsetup, state};
use crate::host::{Host, HostExt};
use crate::step::{StepError, VOLUME_TOKEN as TOKEN};

/// The slot is that of the recovery key. `replaces`: slots that are still to be killed.
pub(super) const RECOVERY: &str = "recovery-key";
/// A recovery key that is not in use yet: its slot is in `slot`; `escrow` has the digest of the escrow with this key.
pub(super) const PENDING: &str = "new-recovery-key";
/// The TPM is being bound anew: `keyslots` and `tokens` are the old binding, `before` all slots that were there.
pub(super) const OLD_TPM: &str = "old-tpm";
/// The slot is that of a passphrase which the installation was given.
pub(super) const PASSPHRASE: &str = "passphrase";
/// LUKS2 has at most 32 of each.
const MOST: u32 = 32;

/// What `cryptsetup luksDump --dump-json-metadata` says.
pub(crate) struct Header {
    slots: BTreeMap<String, Value>,
    tokens: BTreeMap<String, Value>,
}

impl Header {
    pub(super) fn read(host: &dyn Host, device: &str) -> Result<Self, StepError> {
        let output = host.must(&cryptsetup(["luksDump", "--dump-json-metadata", device]))?;
        let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
            let hint = "`cryptsetup luksDump` on this device tells more";
            state(&format!("the LUKS2 header of {device} cannot be read: {error}"), hint)
        })?;
        Ok(Self::of(&metadata))
    }

    /// Of the JSON that cryptsetup prints.
    pub(crate) fn of(metadata: &Value) -> Self {
        let map = |name: &str| {
            let all = metadata[name].as_object().into_iter().flatten();
            all.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        Self { slots: map("keyslots"), tokens: map("tokens") }
    }

    /// Whether it has the mark of this site.
    pub(super) fn is_of(&self, site: &str) -> bool {
        self.tokens.values().any(|token| token["type"] == TOKEN && token["site"] == site)
    }

    /// The slots of passphrases.
    pub(crate) fn passphrase_slots(&self) -> impl Iterator<Item = &str> {
        self.held(PASSPHRASE).flat_map(|(_, token)| strings(&token["keyslots"]))
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.slots.iter().map(|(number, slot)| (number.as_str(), slot))
    }

    pub(super) fn has_slot(&self, slot: &str) -> bool {
        self.slots.contains_key(slot)
    }

    pub(super) fn tpm_tokens(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.tokens.iter().filter(|(_, token)| token["type"] == "systemd-tpm2").map(|(id, token)| (id.as_str(), token))
    }

    /// Our tokens of this holder.
    pub(super) fn held(&self, holder: &str) -> impl Iterator<Item = (&str, &Value)> {
        let is_it = move |token: &Value| token["type"] == TOKEN && token["holder"] == holder;
        self.tokens.iter().filter(move |(_, token)| is_it(token)).map(|(id, token)| (id.as_str(), token))
    }

    /// Whether a token names the slot.
    pub(super) fn is_named(&self, slot: &str) -> bool {
        self.tokens.values().any(|token| strings(&token["keyslots"]).any(|named| named == slot))
    }

    /// The slot of the recovery key: what its token names; before the first rotation the only one that no token names.
    pub(super) fn recovery_slot(&self) -> Result<String, StepError> {
        let named: Vec<&str> = self.held(RECOVERY).flat_map(|(_, token)| strings(&token["keyslots"])).collect();
        // What an interrupted run has added is not it.
        let is_added = |slot: &str| {
            self.held(PENDING).any(|(_, token)| token["slot"] == slot)
                || self.held(OLD_TPM).any(|(_, token)| strings(&token["before"]).all(|before| before != slot))
        };
        let nobodys = self.slots.keys().map(String::as_str).filter(|slot| !self.is_named(slot) && !is_added(slot));
        let found: Vec<&str> = if named.is_empty() { nobodys.collect() } else { named };
        match found.as_slice() {
            [slot] => Ok((*slot).to_owned()),
            _ => Err(state(
                &format!("which key slot is the recovery key's cannot be told: {found:?} come into question"),
                "remove the slots that were added by hand: `cryptsetup luksRemoveKey` with the key that shall go",
            )),
        }
    }

    /// The first number that no slot has.
    pub(crate) fn free_slot(&self) -> Result<String, StepError> {
        free(&self.slots, "key slot")
    }

    pub(super) fn free_token(&self) -> Result<String, StepError> {
        free(&self.tokens, "token")
    }
}

fn free(taken: &BTreeMap<String, Value>, what: &str) -> Result<String, StepError> {
    let free = (0..MOST).map(|number| number.to_string()).find(|number| !taken.contains_key(number));
    free.ok_or_else(|| state(&format!("the LUKS2 header has no free {what}"), "remove one that is not needed"))
}

/// Writes a token, over the one with this number if there is one: the header changes at once or not at all.
pub(super) fn put_token(host: &dyn Host, device: &str, id: &str, token: &Value) -> Result<(), StepError> {
    let mut import = cryptsetup(["token", "import", "--token-id", id, "--json-file", "-"]);
    if Header::read(host, device)?.tokens.contains_key(id) {
        import = import.arg("--token-replace");
    }
    host.must(&import.arg(device).stdin(token.to_string()))?;
    Ok(())
}

pub(super) fn remove_token(host: &dyn Host, device: &str, id: &str) -> Result<(), StepError> {
    host.must(&cryptsetup(["token", "remove", "--token-id", id, device]))?;
    Ok(())
}

/// A token of ours.
pub(super) fn token(holder: &str, slots: &[&str]) -> Value {
    json!({"type": TOKEN, "keyslots": slots, "holder": holder})
}

/// The strings of a JSON array.
pub(super) fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Each slot's number and, for people, who can open it.
pub(crate) fn holders(metadata: &Value) -> Vec<(String, &'static str)> {
    let header = Header::of(metadata);
    let recovery = header.recovery_slot().ok();
    let names =
        |slot: &str, holder| header.held(holder).any(|(_, t)| strings(&t["keyslots"]).any(|named| named == slot));
    let by_tpm =
        |slot: &str| header.tpm_tokens().any(|(_, token)| strings(&token["keyslots"]).any(|named| named == slot));
    let is_old =
        |slot: &str| header.held(RECOVERY).any(|(_, token)| strings(&token["replaces"]).any(|old| old == slot));
    let name = |slot: &str| match slot {
        slot if by_tpm(slot) => "TPM 2.0",
        slot if names(slot, OLD_TPM) => "TPM 2.0, the old binding: `cofferdam disk rebind` was interrupted",
        slot if is_old(slot) => "the old recovery key: `cofferdam disk rotate-recovery` was interrupted",
        slot if header.held(PENDING).any(|(_, token)| token["slot"] == slot) => {
            "a new recovery key: `cofferdam disk rotate-recovery` was interrupted"
        }
        slot if names(slot, RECOVERY) || recovery.as_deref() == Some(slot) => "recovery key",
        slot if names(slot, PASSPHRASE) => "passphrase",
        _ => "added by hand",
    };
    header.slots.keys().map(|slot| (slot.clone(), name(slot))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Header, holders, json};

    #[test]
    fn every_slot_is_named() {
        let named = |tokens| {
            let slot = json!({"kdf": {"type": "argon2id"}});
            let header = json!({"keyslots": {"0": slot, "1": slot, "2": slot}, "tokens": tokens});
            let words = holders(&header).into_iter().map(|(_, holder)| holder.split([':', ',']).next().unwrap());
            (words.collect::<Vec<_>>(), Header::of(&header).recovery_slot().ok())
        };
        let tpm = json!({"type": "systemd-tpm2", "keyslots": ["1"]});
        let ours = |holder: &str, slots: &[&str]| json!({"type": "cofferdam", "holder": holder, "keyslots": slots});
        let mut pending = ours("new-recovery-key", &[]);
        pending["slot"] = json!("2");
        assert_eq!(
            named(json!({"0": tpm, "1": pending})),
            (vec!["recovery key", "TPM 2.0", "a new recovery key"], Some("0".to_owned()))
        );
        let mut sealed = ours("recovery-key", &["2"]);
        sealed["replaces"] = json!(["0"]);
        assert_eq!(
            named(json!({"0": tpm, "1": sealed})),
            (vec!["the old recovery key", "TPM 2.0", "recovery key"], Some("2".to_owned()))
        );
        let mut aside = ours("old-tpm", &["1"]);
        aside["before"] = json!(["0", "1"]);
        assert_eq!(
            named(json!({"0": aside})),
            (vec!["recovery key", "TPM 2.0", "added by hand"], Some("0".to_owned()))
        );
        assert_eq!(
            named(json!({"0": tpm, "1": ours("recovery-key", &["0"])})),
            (vec!["recovery key", "TPM 2.0", "added by hand"], Some("0".to_owned()))
        );
        assert_eq!(named(json!({"0": tpm})).1, None, "two slots come into question");
        assert_eq!(
            named(json!({"0": tpm, "1": ours("passphrase", &["2"])})),
            (vec!["recovery key", "TPM 2.0", "passphrase"], Some("0".to_owned()))
        );
    }
}
