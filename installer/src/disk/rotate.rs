//! `disk rotate-recovery`. In this order, each durable before the next: a token announces the slot; the slot gets the new
//! key; it opens; it was written down or its escrow is in our own place; the token makes it the recovery key and names the
//! old slot; the old slot is killed. What a crash left is told by the token, and finishing needs no key.

use bundle::oci::Digest;
use camino::Utf8Path;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::header::{PENDING, RECOVERY, put_token, remove_token, strings, token};
use super::{HEADER, Header, Key, Volume, add_key, copy_header, escrow_place, kill_slot, state};
use crate::engine::question::Answers;
use crate::host::{Host, HostExt};
use crate::step::{StepError, ask_to_write_down, sealed_disk_escrow};

const BOOT: &str = "/run/cofferdam/boot";

/// Replaces the recovery key. `ask` is called when a key is needed to add the new one; finishing an interrupted rotation
/// needs none. `answers` are asked to write the key down when the configuration shows it.
pub fn rotate(
    volume: &Volume,
    ask: &mut dyn FnMut() -> Result<Key, StepError>,
    answers: &dyn Answers,
    say: &mut dyn FnMut(&str),
) -> Result<(), StepError> {
    let (host, device) = (volume.host, volume.device.as_str());
    let header = volume.header()?;
    if header.held(RECOVERY).any(|(_, token)| strings(&token["replaces"]).next().is_some()) {
        say("an interrupted rotation is finished: its new key is the recovery key");
        return finish(host, device);
    }
    if let Some((id, pending)) = header.held(PENDING).next() {
        let sealed = host.read(&escrow_place())?.filter(|sealed| {
            pending["escrow"].as_str() == Some(Digest::sha256_of(sealed.as_slice()).to_string().as_str())
        });
        if let Some(sealed) = sealed {
            say("an interrupted rotation is finished: its new key is in the escrow");
            copy_escrow(volume, &sealed)?;
            take_over(host, device, id, &header.recovery_slot()?)?;
            return finish(host, device);
        }
        say("a new key of an interrupted rotation is dropped: nobody has it");
        discard(host, device, &header, id, pending)?;
    }

    let header = volume.header()?;
    let old = header.recovery_slot()?;
    let (slot, id) = (header.free_slot()?, header.free_token()?);
    let unlock = ask()?;
    volume.prove(&unlock, None)?;
    let key = certs::RecoveryKey::generate()
        .map_err(|error| StepError::Certificates { what: "recovery key", reason: error.to_string() })?;

    say("adding the new recovery key");
    let mut announced = token(PENDING, &[]);
    announced["slot"] = json!(slot);
    put_token(host, device, &id, &announced)?;
    let text = key.expose();
    let added = add_key(host, device, &unlock, (&slot, text.as_bytes()), volume.key_derivation);
    if let Err(error) = added.and_then(|()| hand_over(volume, &key, &slot, answers, say)) {
        // The rotation begins anew the next time in any case.
        let _ = volume.header().and_then(|header| discard(host, device, &header, &id, &announced));
        return Err(error);
    }
    if !volume.recipients.is_empty() {
        say("escrowing the new recovery key");
        escrow(volume, &key, &id, &slot, &old)?;
    }
    take_over(host, device, &id, &old)?;
    say("removing the old recovery key");
    finish(host, device)
}

/// Proof that the key opens its slot; then it is shown if the configuration says so.
fn hand_over(
    volume: &Volume,
    key: &certs::RecoveryKey,
    slot: &str,
    answers: &dyn Answers,
    say: &mut dyn FnMut(&str),
) -> Result<(), StepError> {
    say("proof: opening with the new recovery key");
    volume.prove(&Key::Known(Zeroizing::new(key.expose().as_bytes().to_vec())), Some(slot))?;
    if volume.show {
        ask_to_write_down(answers, key.clone(), &volume.device, !volume.recipients.is_empty())?;
    }
    Ok(())
}

/// The key, and the header as it will be without the old slot, sealed. The token names the digest before the escrow is
/// written, so that a later run knows whether the escrow is that of the new key.
fn escrow(volume: &Volume, key: &certs::RecoveryKey, id: &str, slot: &str, old: &str) -> Result<(), StepError> {
    let (host, device) = (volume.host, volume.device.as_str());
    let mut pending = token(PENDING, &[slot]);
    pending["slot"] = json!(slot);
    put_token(host, device, id, &pending)?;
    copy_header(host, device)?;
    take_over(host, HEADER, id, old)?;
    finish(host, HEADER)?;
    let header = host.read(HEADER.into())?.unwrap_or_default();
    host.remove(HEADER.into())?;
    let sealed = sealed_disk_escrow(&volume.config, host.now(), key, &header, &volume.recipients)?;
    pending["escrow"] = json!(Digest::sha256_of(sealed.as_bytes()).to_string());
    put_token(host, device, id, &pending)?;
    host.write(&escrow_place(), sealed.as_bytes(), 0o600)?;
    copy_escrow(volume, sealed.as_bytes())
}

/// Our own place has it; the others follow.
pub(super) fn copy_escrow(volume: &Volume, sealed: &[u8]) -> Result<(), StepError> {
    if let Some(directory) = &volume.directory {
        volume.host.write(&directory.join(&volume.config.site.name).join("disk.age"), sealed, 0o600)?;
    }
    let Some(partition) = &volume.boot else { return Ok(()) };
    let host = volume.host;
    host.make_directory(BOOT.into(), 0o700)?;
    let mounted = crate::host::Command::new("findmnt").args(["--noheadings", "--mountpoint", BOOT]);
    if !host.run(&mounted, &mut |_| {})?.success() {
        let mount = ["-t", "vfat", "-o", "umask=0077,quiet", partition.as_str(), BOOT];
        host.must(&crate::host::Command::new("mount").args(mount))?;
    }
    let written = host.write(&Utf8Path::new(BOOT).join(crate::step::BOOT_ESCROW), sealed, 0o600);
    host.must(&crate::host::Command::new("umount").arg(BOOT))?;
    Ok(written?)
}

/// From here on the new slot is the recovery key's, and the old one is to go.
fn take_over(host: &dyn Host, device: &str, id: &str, old: &str) -> Result<(), StepError> {
    let header = Header::read(host, device)?;
    let slot = header.held(PENDING).find(|(pending, _)| *pending == id).and_then(|(_, token)| token["slot"].as_str());
    let Some(slot) = slot.filter(|slot| header.has_slot(slot)) else {
        return Err(state("the slot of the new recovery key is gone", "run the command again"));
    };
    let mut sealed = token(RECOVERY, &[slot]);
    sealed["replaces"] = json!([old]);
    put_token(host, device, id, &sealed)
}

/// Kills what was replaced. All of it is told by the header.
fn finish(host: &dyn Host, device: &str) -> Result<(), StepError> {
    let header = Header::read(host, device)?;
    let is_new = |token: &Value| strings(&token["replaces"]).next().is_some();
    let Some((id, new)) = header.held(RECOVERY).find(|(_, token)| is_new(token)) else { return Ok(()) };
    for old in strings(&new["replaces"]).filter(|old| header.has_slot(old)) {
        kill_slot(host, device, old)?;
    }
    for (other, _) in header.held(RECOVERY).filter(|(other, _)| *other != id) {
        remove_token(host, device, other)?;
    }
    let slots: Vec<&str> = strings(&new["keyslots"]).collect();
    put_token(host, device, id, &token(RECOVERY, &slots))
}

/// Takes a new key back that nobody has.
fn discard(host: &dyn Host, device: &str, header: &Header, id: &str, pending: &Value) -> Result<(), StepError> {
    if let Some(slot) = pending["slot"].as_str().filter(|slot| header.has_slot(slot)) {
        kill_slot(host, device, slot)?;
    }
    remove_token(host, device, id)
}
