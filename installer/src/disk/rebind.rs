//! `disk rebind`: the TPM of now opens the volume. systemd-cryptenroll does nothing when a token has the same policy, so the
//! old token steps aside first, kept in a token of ours; its slot stays until the new binding has been proven. That of an
//! appliance is proven by its next start.

use serde_json::json;

use super::header::{OLD_TPM, put_token, remove_token, strings, token};
use super::{Header, Key, Volume, kill_slot, state};
use crate::host::{Command, HostExt};
use crate::step::{StepError, tpm_policy_arguments};

/// Binds the volume to the TPM with the policy of the installation. `ask` is called once this machine's TPM has been found
/// usable; its key must not be [`Key::Tpm`].
pub fn rebind(
    volume: &Volume,
    ask: &mut dyn FnMut() -> Result<Key, StepError>,
    say: &mut dyn FnMut(&str),
) -> Result<(), StepError> {
    if !volume.tpm2 {
        let hint = "storage.encryption.tpm2 of the installation decides it: the recovery key is typed at each start";
        return Err(state("the plan of this site does not let a TPM open the volume", hint));
    }
    let tpm = crate::facts::machine::tpm(volume.host);
    if tpm.present.known() != Some(&true) {
        return Err(state("this machine has no TPM 2.0", "switch it on in the firmware's setup, and restart"));
    }
    if tpm.lockout.known() == Some(&true) {
        let hint =
            "wait until the lockout has passed, or `tpm2_dictionarylockout --clear-lockout` with its authorisation";
        return Err(state("the TPM is in lockout", hint));
    }
    let Key::Known(secret) = ask()? else {
        return Err(state("the TPM cannot vouch for itself", "give the recovery key"));
    };
    let key = Key::Known(secret.clone());
    volume.prove(&key, None)?;

    let (host, device) = (volume.host, volume.device.as_str());
    let header = volume.header()?;
    let (id, mut aside) = if let Some((id, aside)) = header.held(OLD_TPM).next() {
        clear(volume)?;
        (id.to_owned(), aside.clone())
    } else {
        let old: Vec<&str> = header.tpm_tokens().flat_map(|(_, token)| strings(&token["keyslots"])).collect();
        let mut aside = token(OLD_TPM, &old);
        aside["tokens"] = header.tpm_tokens().map(|(id, token)| (id.to_owned(), token.clone())).collect();
        (header.free_token()?, aside)
    };
    // Written anew also in a second run: the number of a slot that is gone may be taken by the next one.
    let header = volume.header()?;
    aside["keyslots"] = strings(&aside["keyslots"]).filter(|slot| header.has_slot(slot)).collect();
    aside["before"] = header.slots().map(|(slot, _)| slot).collect();
    put_token(host, device, &id, &aside)?;
    clear(volume)?;
    if let Err(error) = enrol(volume, &secret, say) {
        // A binding that may still work is better than none.
        let _ = restore(volume, &id);
        return Err(error);
    }
    say("removing the old binding");
    let header = volume.header()?;
    for (id, old) in header.held(OLD_TPM) {
        for slot in strings(&old["keyslots"]).filter(|slot| header.has_slot(slot)) {
            kill_slot(host, device, slot)?;
        }
        remove_token(host, device, id)?;
    }
    Ok(())
}

fn enrol(volume: &Volume, secret: &[u8], say: &mut dyn FnMut(&str)) -> Result<(), StepError> {
    say("binding the volume to the TPM");
    let enrol = Command::new("systemd-cryptenroll")
        .args(["--unlock-key-file=/dev/stdin", "--tpm2-device=auto"])
        .args(tpm_policy_arguments(&volume.pcrs, &volume.signed_pcrs))
        .arg(&volume.device)
        .stdin(secret)
        .limit(super::LIMIT);
    volume.host.must(&enrol)?;
    if volume.is_appliances() {
        say("the TPM opens the volume in a start alone: the next one proves it, so keep the recovery key at hand");
        return Ok(());
    }
    say("proof: opening with the TPM");
    volume.prove(&Key::Tpm, None)
}

/// Takes the TPM's tokens out, and what an interrupted run enrolled: slots that were not there before it and that only a TPM
/// (pbkdf2, which systemd-cryptenroll alone uses) or nobody holds.
fn clear(volume: &Volume) -> Result<(), StepError> {
    let (host, device) = (volume.host, volume.device.as_str());
    let header = volume.header()?;
    let before: Vec<&str> = header.held(OLD_TPM).flat_map(|(_, token)| strings(&token["before"])).collect();
    for (slot, content) in header.slots().filter(|(slot, _)| !before.contains(slot)) {
        let is_tpms = header.tpm_tokens().any(|(_, token)| strings(&token["keyslots"]).any(|named| named == slot));
        if is_tpms || (!header.is_named(slot) && content["kdf"]["type"] == "pbkdf2") {
            kill_slot(host, device, slot)?;
        }
    }
    for (id, _) in header.tpm_tokens() {
        remove_token(host, device, id)?;
    }
    Ok(())
}

/// The old binding as it was.
fn restore(volume: &Volume, aside: &str) -> Result<(), StepError> {
    clear(volume)?;
    let header: Header = volume.header()?;
    for (_, old) in header.held(OLD_TPM) {
        for (id, token) in old["tokens"].as_object().into_iter().flatten() {
            put_token(volume.host, &volume.device, id, &json!(token))?;
        }
    }
    remove_token(volume.host, &volume.device, aside)
}
