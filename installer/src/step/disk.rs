//! `disk.encrypt`: the LUKS2 volume. Done when its header carries our token, which is imported last, after the proof.
//!
//! Nothing is kept on the volume before this step is done, so an attempt that was cut off starts from the beginning.
//! The recovery key is the key that formats: there is no other key to wipe afterwards. It exists in this process's
//! memory, encrypted in the escrow, and on the screen of the ceremony; it reaches cryptsetup through stdin. A passphrase gets
//! its slot before the header is copied to the escrow (`passphrase.rs`).

use camino::Utf8Path;
use serde_json::{Value, json};

use super::{Context, Report, StepError, escrow, passphrase};
use crate::config::KeyDerivation;
use crate::engine::event::Progress;
use crate::engine::question::{Answer, Answers, Question, RecoveryKeyShown};
use crate::host::{Command, HostExt};
use crate::layout;
use crate::plan::{Action, Disk};

/// Type of the token that marks a proven volume.
pub(crate) const TOKEN: &str = "cofferdam";
const CIPHER: &str = "aes-xts-plain64";
const KEY_BITS: u32 = 512;
/// Room for 8 key slots. cryptsetup fills the area with random bytes, and its own 16 MB make an escrow of 30 MB.
const KEY_SLOTS_AREA: &str = "2m";
/// In sectors of 512 bytes: 16 MiB, where cryptsetup puts the data by itself.
const DATA_OFFSET: &str = "32768";
pub(super) const SYSTEMD_CRYPTSETUP: &str = "/lib/systemd/systemd-cryptsetup";
const HEADER_BACKUP: &str = "/run/cofferdam/luks-header";

/// Public key of the signatures on PCR 11; systemd's stub leaves it there (systemd-stub(7)).
const PCR_KEY: &str = "/run/systemd/tpm2-pcr-public-key.pem";
/// Extended by our system's initrd once the volume is open.
const BARRIER_PCR: u8 = 15;

pub(super) fn done(context: &Context, disk: &Disk) -> Result<bool, StepError> {
    if is_appliance(context) {
        if !context.is_live()? {
            return Ok(true);
        }
        // Without its escrow in this system the volume would end as one that nobody can open.
        let has_escrow =
            !is_escrowed(context) || context.host.look(&Utf8Path::new(layout::ESCROW).join("disk.age"))?.is_some();
        if !has_escrow || context.host.look(&Utf8Path::new("/dev/mapper").join(layout::VOLUME))?.is_none() {
            return Ok(false);
        }
    }
    is_proven(context, disk)
}

/// Whether the recovery key goes to an escrow; otherwise a person has written it down.
pub(super) fn is_escrowed(context: &Context) -> bool {
    context.plan.steps.iter().any(
        |step| matches!(&step.action, Action::EncryptDisk { escrow_recipients, .. } if !escrow_recipients.is_empty()),
    )
}

/// Whether the disk is one of an appliance, where the live system made all partitions.
fn is_appliance(context: &Context) -> bool {
    context.plan.steps.iter().any(|step| matches!(step.action, Action::PartitionDisk { .. }))
}

/// Whether the header carries our token, for this site and bundle.
fn is_proven(context: &Context, disk: &Disk) -> Result<bool, StepError> {
    if !context.succeeds("cryptsetup", ["isLuks", "--type", "luks2", &disk.path])? {
        return Ok(false);
    }
    let metadata = metadata(context, &disk.path)?;
    let is_ours = |token: &Value| token["type"] == TOKEN && token["site"] == context.config.site.name.as_str();
    Ok(tokens(&metadata).any(is_ours))
}

pub(super) fn run(context: &Context, report: &mut Report) -> Result<(), StepError> {
    let Action::EncryptDisk {
        disk,
        tpm2,
        pcrs,
        signed_pcrs,
        key_derivation,
        escrow_recipients,
        escrow_directory,
        show_recovery_key,
        passphrase: passphrase_file,
    } = &context.step.action
    else {
        return Ok(());
    };
    let mut say = |text: &str| report(Progress::Note { text: text.to_owned() });
    // Before anything is erased.
    let passphrase = passphrase_file.as_deref().map(|path| passphrase::read(context, path)).transpose()?;
    let passphrase = passphrase.as_ref().map(|text| text.as_bytes());
    if is_appliance(context) {
        if *tpm2 && keep(context, disk, passphrase)? {
            say("the volume of an interrupted installation is kept: the TPM opened it");
            return passphrase::forget(context);
        }
        if context.succeeds("cryptsetup", ["isLuks", "--type", "luks2", &disk.path])? {
            say("a volume is there, but none of this installation that the TPM opens: it is made anew");
        }
        super::target::release(context)?;
    }
    close(context)?;
    let key = certs::RecoveryKey::generate()
        .map_err(|error| StepError::Certificates { what: "recovery key", reason: error.to_string() })?;
    let text = key.expose();
    let secret = text.as_bytes();

    say("formatting");
    format(context, disk, *key_derivation, secret)?;
    if *tpm2 {
        say("enrolling the TPM");
        let enrol = Command::new("systemd-cryptenroll")
            .args(["--unlock-key-file=/dev/stdin", "--tpm2-device=auto"])
            .args(tpm_policy(pcrs, signed_pcrs))
            .arg(&disk.path)
            .stdin(secret)
            .limit(context.limit());
        context.host.must(&enrol)?;
    }
    let slot = match passphrase {
        Some(passphrase) => {
            say("adding the passphrase");
            Some((passphrase::add(context, disk, secret, passphrase, *key_derivation)?, passphrase))
        }
        None => None,
    };

    if !escrow_recipients.is_empty() {
        say("escrowing the recovery key");
        context.host.make_directory("/run/cofferdam".into(), 0o700)?;
        context.host.remove(HEADER_BACKUP.into())?;
        let backup = ["luksHeaderBackup", "--batch-mode", "--header-backup-file", HEADER_BACKUP, &disk.path];
        context.must("cryptsetup", backup)?;
        let header = context.host.read(HEADER_BACKUP.into())?.unwrap_or_default();
        context.host.remove(HEADER_BACKUP.into())?;
        escrow::write_disk(context, &key, &header, escrow_recipients, escrow_directory.as_deref())?;
    }

    if *tpm2 {
        say("proof: opening with the TPM");
        prove_tpm(context, &disk.path)?;
        close(context)?;
    }
    if let Some((slot, passphrase)) = &slot {
        say("proof: opening with the passphrase");
        passphrase::prove(context, disk, slot, passphrase)?;
    }
    say("proof: opening with the recovery key");
    let open = Command::new("cryptsetup")
        .args(["open", "--type", "luks2", "--key-file", "-", &disk.path, layout::VOLUME])
        .stdin(secret)
        .limit(context.limit());
    context.host.must(&open)?;
    prove_header(&metadata(context, &disk.path)?, *tpm2, slot.as_ref().map(|(slot, _)| slot.as_str()))?;

    if *show_recovery_key {
        say("waiting for the operator: the recovery key is shown on the console of the installation");
        ceremony(context.answers, key, &disk.path, !escrow_recipients.is_empty())?;
    }

    say("making the filesystem");
    let device = format!("/dev/mapper/{}", layout::VOLUME);
    context.must("mkfs.ext4", ["-q", "-F", "-L", "cofferdam", &device])?;
    let token = json!({"type": TOKEN, "keyslots": [], "site": context.config.site.name, "proven": true});
    let import = Command::new("cryptsetup")
        .args(["token", "import", "--json-file", "-", &disk.path])
        .stdin(token.to_string())
        .limit(context.limit());
    context.host.must(&import)?;
    // Only now: until the token is there another attempt needs it.
    passphrase::forget(context)
}

/// Opens the volume by what the TPM has just sealed.
fn prove_tpm(context: &Context, device: &str) -> Result<(), StepError> {
    let attach = ["attach", layout::VOLUME, device, "-", "tpm2-device=auto,headless=1"];
    let opened =
        context.host.run(&Command::new(SYSTEMD_CRYPTSETUP).args(attach).limit(context.limit()), &mut |_| {})?;
    if opened.success() {
        return Ok(());
    }
    Err(StepError::State {
        what: format!("the TPM does not open the volume that was just bound to it: {}", opened.stderr.trim()),
        hint: "a part of this start may not have been measured (PCR 11): start the machine again, and go on; if that does \
               not help, update the TPM's firmware, or install with `tpm2: off`"
            .to_owned(),
    })
}

fn format(context: &Context, disk: &Disk, cost: KeyDerivation, secret: &[u8]) -> Result<(), StepError> {
    context.must("wipefs", ["--all", "--quiet", &disk.path])?;
    let format = Command::new("cryptsetup")
        .args(["luksFormat", "--batch-mode", "--type", "luks2", "--cipher", CIPHER])
        .args(["--key-size".to_owned(), KEY_BITS.to_string(), "--hash".to_owned(), "sha256".to_owned()])
        .args(["--label", layout::LABEL_DATA])
        .args(["--luks2-keyslots-size", KEY_SLOTS_AREA, "--offset", DATA_OFFSET])
        .args(derivation(cost))
        .args(["--key-file", "-", &disk.path])
        .stdin(secret)
        .limit(context.limit());
    context.host.must(&format)?;
    Ok(())
}

/// Opens the volume of an interrupted run with the TPM and mounts it; `false` when it is none, and then it is closed again.
/// One that other answers were given for, with another passphrase, is none.
fn keep(context: &Context, disk: &Disk, passphrase: Option<&[u8]>) -> Result<bool, StepError> {
    if !is_proven(context, disk)?
        || !passphrase::is_as_planned(context, disk, passphrase)?
        || super::target::mount(context, &disk.path).is_err()
    {
        return Ok(false);
    }
    super::target::is_interrupted(context)
}

/// The policy of the TPM's key, as arguments of systemd-cryptenroll: PCRs as they are now, and PCRs that have a value
/// which the owner of the system's image has signed, so that the next version opens the volume too.
///
/// Our own system extends PCR 15 as soon as it has opened its volume (`state.sh` of its initrd). The policy wants that PCR as a
/// start leaves it: a system that runs cannot ask the TPM, whoever put another volume in place of the site's, and with it
/// another `/etc`.
pub(crate) fn tpm_policy(pcrs: &[u8], signed_pcrs: &[u8]) -> Vec<String> {
    let list = |pcrs: &[u8]| pcrs.iter().map(u8::to_string).collect::<Vec<_>>().join("+");
    if signed_pcrs.is_empty() {
        return vec![format!("--tpm2-pcrs={}", list(pcrs))];
    }
    let empty = format!("{BARRIER_PCR}:sha256={}", "0".repeat(64));
    let literal: Vec<_> = pcrs.iter().map(|pcr| format!("{pcr}:sha256")).chain([empty]).collect();
    vec![
        format!("--tpm2-pcrs={}", literal.join("+")),
        format!("--tpm2-public-key={PCR_KEY}"),
        format!("--tpm2-public-key-pcrs={}", list(signed_pcrs)),
    ]
}

/// The key is shown and typed back in part. Before the token, so that a crash here means a new volume with a new key, and
/// a key that nobody wrote down never guards data.
pub(crate) fn ceremony(
    answers: &dyn Answers,
    key: certs::RecoveryKey,
    device: &str,
    is_escrowed: bool,
) -> Result<(), StepError> {
    match answers.ask(Question::RecoveryKey(RecoveryKeyShown::new(key, device, is_escrowed)?)) {
        Answer::WrittenDown(_) => Ok(()),
        Answer::LeftToEscrow if is_escrowed => Ok(()),
        Answer::Stop => Err(StepError::Stopped),
        Answer::LeftToEscrow | Answer::Nobody => Err(StepError::Unanswered {
            what: "nobody wrote down the recovery key, and no escrow has it",
            hint: "run it again on a terminal (an installation: `cofferdam resume`); it makes a new key and shows it",
        }),
    }
}

/// Closes what an earlier attempt left open.
fn close(context: &Context) -> Result<(), StepError> {
    if context.host.look(&Utf8Path::new("/dev/mapper").join(layout::VOLUME))?.is_some() {
        context.must("cryptsetup", ["close", layout::VOLUME])?;
    }
    Ok(())
}

/// argon2id with fixed costs: a calibrated cost would differ from run to run.
pub(crate) fn derivation(cost: KeyDerivation) -> Vec<String> {
    vec![
        "--pbkdf".to_owned(),
        "argon2id".to_owned(),
        "--pbkdf-memory".to_owned(),
        cost.memory_kib.to_string(),
        "--pbkdf-parallel".to_owned(),
        "1".to_owned(),
        "--pbkdf-force-iterations".to_owned(),
        cost.iterations.to_string(),
    ]
}

pub(super) fn metadata(context: &Context, device: &str) -> Result<Value, StepError> {
    let output = context.must("cryptsetup", ["luksDump", "--dump-json-metadata", device])?;
    serde_json::from_slice(&output.stdout).map_err(|error| StepError::State {
        what: format!("the LUKS2 header of {device} cannot be read: {error}"),
        hint: "`cryptsetup luksDump` on this device tells more".to_owned(),
    })
}

fn tokens(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["tokens"].as_object().into_iter().flat_map(|tokens| tokens.values())
}

/// Compares the header with the plan; `passphrase`: its slot.
fn prove_header(metadata: &Value, tpm2: bool, passphrase: Option<&str>) -> Result<(), StepError> {
    let wrong = |what: String| {
        let hint = "this disk's header is not trusted; the next attempt formats it again".to_owned();
        Err(StepError::State { what: format!("the LUKS2 header is not as planned: {what}"), hint })
    };
    let segments: Vec<_> = metadata["segments"].as_object().into_iter().flat_map(|all| all.values()).collect();
    if segments.len() != 1 || segments[0]["encryption"] != CIPHER {
        return wrong(format!("its segments are {}", metadata["segments"]));
    }
    let slots: Vec<_> = metadata["keyslots"].as_object().into_iter().flat_map(|all| all.values()).collect();
    let typed = 1 + usize::from(passphrase.is_some());
    if slots.len() != typed + usize::from(tpm2) {
        return wrong(format!("it has {} key slots", slots.len()));
    }
    if slots.iter().any(|slot| slot["key_size"] != KEY_BITS / 8) {
        return wrong(format!("a key slot's key has not {KEY_BITS} bits"));
    }
    let hard = slots.iter().filter(|slot| slot["kdf"]["type"] == "argon2id").count();
    if hard < typed {
        return wrong(format!("{hard} of its key slots use argon2id, which the {typed} that people type have to"));
    }
    if !crate::disk::Header::of(metadata).passphrase_slots().eq(passphrase) {
        return wrong("it does not say which slot is the passphrase's".to_owned());
    }
    if tpm2 != tokens(metadata).any(|token| token["type"] == "systemd-tpm2") {
        return wrong("the TPM's token is missing".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{json, prove_header};

    #[test]
    fn the_header_must_be_as_planned() {
        let good = json!({
            "segments": {"0": {"encryption": "aes-xts-plain64"}},
            "keyslots": {"0": {"key_size": 64, "kdf": {"type": "argon2id"}}, "1": {"key_size": 64, "kdf": {"type": "pbkdf2"}}},
            "tokens": {"0": {"type": "systemd-tpm2"}},
        });
        prove_header(&good, true, None).unwrap();
        assert!(prove_header(&good, false, None).is_err());
        assert!(prove_header(&good, true, Some("2")).is_err());
        for (pointer, value) in [
            ("/segments/0/encryption", json!("aes-cbc-essiv:sha256")),
            ("/keyslots/0/key_size", json!(32)),
            ("/keyslots/0/kdf/type", json!("pbkdf2")),
            ("/tokens/0/type", json!("clevis")),
            ("/keyslots", json!({})),
            ("/segments", json!({})),
        ] {
            let mut header = good.clone();
            *header.pointer_mut(pointer).unwrap() = value;
            assert!(prove_header(&header, true, None).is_err(), "{pointer}");
        }
    }

    #[test]
    fn the_header_says_whose_slot_the_passphrases_is() {
        let slot = |kdf: &str| json!({"key_size": 64, "kdf": {"type": kdf}});
        let good = json!({
            "segments": {"0": {"encryption": "aes-xts-plain64"}},
            "keyslots": {"0": slot("argon2id"), "1": slot("pbkdf2"), "2": slot("argon2id")},
            "tokens": {
                "0": {"type": "systemd-tpm2", "keyslots": ["1"]},
                "1": {"type": "cofferdam", "holder": "passphrase", "keyslots": ["2"]},
            },
        });
        prove_header(&good, true, Some("2")).unwrap();
        assert!(prove_header(&good, true, None).is_err(), "a slot more than planned");
        assert!(prove_header(&good, true, Some("1")).is_err(), "another slot");
        for (pointer, value) in [
            ("/keyslots/2/kdf/type", json!("pbkdf2")),
            ("/tokens/1/holder", json!("recovery-key")),
            ("/tokens/1/keyslots", json!([])),
        ] {
            let mut header = good.clone();
            *header.pointer_mut(pointer).unwrap() = value;
            assert!(prove_header(&header, true, Some("2")).is_err(), "{pointer}");
        }
    }
}
