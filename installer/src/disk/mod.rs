//! The key slots of the data volume: a passphrase at the installation, later a new recovery key, a new binding to the TPM.
//!
//! Invariant: what a slot is for stands in the LUKS2 header itself, in tokens of our type, before the slot is made. So a
//! crash at any point leaves a volume that a recovery key opens which is in the escrow (or on paper), and the same command
//! run again finishes or begins anew without a slot that belongs to nobody. Called by `cofferdam disk` and `disk.encrypt`.

mod header;
mod rebind;
mod rotate;

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use zeroize::Zeroizing;

pub(crate) use header::{Header, holders};
pub use rebind::rebind;
pub use rotate::rotate;

use crate::config::{self, Encryption, InstallConfig, KeyDerivation};
use crate::host::{Command, Host, HostExt};
use crate::layout;
use crate::plan::{Action, Plan};
use crate::step::{StepError, key_derivation_arguments};

/// A slot's key is derived slowly on purpose.
const LIMIT: Duration = Duration::from_mins(5);
/// Where a header is copied to: memory.
const HEADER: &str = "/run/cofferdam/luks-header";

/// What opens the volume so that a slot can be added.
pub enum Key {
    /// The TPM, through the token plugin of systemd.
    Tpm,
    /// A recovery key or a passphrase.
    Known(Zeroizing<Vec<u8>>),
}

impl Key {
    /// What a person typed or a file holds: a recovery key in any spelling, else a passphrase as it is, without the end of
    /// its line.
    pub fn read(text: &str) -> Self {
        let line = text.trim_end_matches(['\n', '\r']);
        let bytes = match certs::RecoveryKey::parse(line) {
            Ok(key) => key.expose().as_bytes().to_vec(),
            Err(_) => line.as_bytes().to_vec(),
        };
        Self::Known(Zeroizing::new(bytes))
    }
}

/// The data volume of the installed site, and what its stored answers and plan say of it.
pub struct Volume<'a> {
    host: &'a dyn Host,
    config: InstallConfig,
    device: String,
    tpm2: bool,
    pcrs: Vec<u8>,
    signed_pcrs: Vec<u8>,
    key_derivation: KeyDerivation,
    recipients: Vec<String>,
    show: bool,
    /// Second place of the escrow.
    directory: Option<Utf8PathBuf>,
    /// The boot partition of an appliance, which has a copy of the escrow.
    boot: Option<String>,
}

impl<'a> Volume<'a> {
    /// The volume of the site that is installed on this host; an error when there is none, or none that is encrypted.
    pub fn of(host: &'a dyn Host) -> Result<Self, StepError> {
        let missing = |what: &str| state(what, "`cofferdam status` tells what is installed on this host");
        if crate::live::is_live(host)? {
            return Err(state("this is the live system of a medium", "restart from the disk and run it there"));
        }
        let text = |path: &str| -> Result<_, StepError> {
            host.read_text(path.into())?
                .ok_or_else(|| missing(&format!("no site is installed here: there is no {path}")))
        };
        let config = config::parse(&text(layout::CONFIG)?).map_err(|error| missing(&error.to_string()))?;
        let plan: Plan = serde_json::from_str(&text(layout::PLAN)?).map_err(|error| missing(&error.to_string()))?;
        let encrypt = plan.steps.iter().find_map(|step| match &step.action {
            Action::EncryptDisk { disk, tpm2, pcrs, signed_pcrs, .. } => {
                Some((disk.path.clone(), *tpm2, pcrs.clone(), signed_pcrs.clone()))
            }
            _ => None,
        });
        let Encryption::Luks2 { escrow_recipients, escrow_directory, show_recovery_key, key_derivation, .. } =
            &config.storage.encryption
        else {
            return Err(missing("the data volume of this site is not encrypted"));
        };
        let (device, tpm2, pcrs, signed_pcrs) =
            encrypt.ok_or_else(|| missing("the plan of this site encrypts no disk"))?;
        let boot = plan.steps.iter().find_map(|step| match &step.action {
            Action::InstallBoot { device, .. } => Some(device.clone()),
            _ => None,
        });
        let volume = Self {
            host,
            device,
            tpm2,
            pcrs,
            signed_pcrs,
            key_derivation: *key_derivation,
            recipients: escrow_recipients.clone(),
            show: *show_recovery_key || escrow_recipients.is_empty(),
            // What the installation of an appliance wrote to a medium has left with it.
            directory: escrow_directory.clone().filter(|_| boot.is_none()),
            boot,
            config,
        };
        if !volume.header()?.is_of(&volume.config.site.name) {
            return Err(state(
                &format!("{} is not the data volume of the site {}", volume.device, volume.config.site.name),
                "disks may have other names since the last start; restart with the disks as they were",
            ));
        }
        Ok(volume)
    }

    /// The disk or partition, for example `/dev/sdb`.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Whether [`Key::Tpm`] is worth a try: the volume has a TPM's slot, and is none of an appliance.
    pub fn asks_tpm(&self) -> Result<bool, StepError> {
        Ok(!self.is_appliances() && self.header()?.tpm_tokens().next().is_some())
    }

    /// Whether it is the volume of an appliance, whose TPM opens it in a start alone.
    pub fn is_appliances(&self) -> bool {
        self.boot.is_some()
    }

    /// Whether a key opens a slot.
    pub fn opens(&self, key: &Key) -> bool {
        self.prove(key, None).is_ok()
    }

    fn header(&self) -> Result<Header, StepError> {
        Header::read(self.host, &self.device)
    }

    /// Fails when the key opens no slot.
    fn prove(&self, key: &Key, slot: Option<&str>) -> Result<(), StepError> {
        let mut open = cryptsetup(["open", "--test-passphrase", "--type", "luks2"]);
        if let Some(slot) = slot {
            open = open.args(["--key-slot", slot]);
        }
        let open = match key {
            Key::Tpm => open.args(["--token-type", "systemd-tpm2", "--token-only", &self.device]),
            Key::Known(secret) => open.args(["--key-file", "-", &self.device]).stdin(secret.as_slice()),
        };
        let output = self.host.run(&open, &mut |_| {})?;
        if output.success() {
            return Ok(());
        }
        let why = output.stderr.trim();
        Err(match key {
            Key::Tpm => state(
                &format!("the TPM does not open {}: {why}", self.device),
                "give the recovery key instead: it is asked for on a terminal, or `--key-file -` reads it",
            ),
            Key::Known(_) => state(
                &format!("this key does not open {}: {why}", self.device),
                "the recovery key has eight groups of eight letters; its escrow is opened with `age -d`",
            ),
        })
    }
}

/// Runs what changes the volume, and writes to the audit log that it was begun and how it ended.
pub fn audited<T>(
    volume: &Volume,
    who: &str,
    action: &str,
    act: impl FnOnce() -> Result<T, StepError>,
) -> Result<T, StepError> {
    let subject = format!("site {}, {}", volume.config.site.name, volume.device);
    let note = |result, detail: &str| {
        crate::upgrade::audit::append(volume.host, who, action, &subject, result, detail).map_err(StepError::from)
    };
    note("begun", "")?;
    match act() {
        Ok(value) => note("done", "").map(|()| value),
        Err(error) => {
            // What failed is told in any case.
            let _ = note("failed", &error.to_string());
            Err(error)
        }
    }
}

/// Gives a key that people type a slot of its own. Both keys go through stdin, the present one by its length.
pub(crate) fn add_key(
    host: &dyn Host,
    device: &str,
    unlock: &Key,
    (slot, key): (&str, &[u8]),
    cost: KeyDerivation,
) -> Result<(), StepError> {
    let mut input = Zeroizing::new(Vec::with_capacity(1024));
    let mut add =
        cryptsetup(["luksAddKey", "--batch-mode", "--new-key-slot", slot]).args(key_derivation_arguments(cost));
    match unlock {
        Key::Tpm => add = add.args(["--token-type", "systemd-tpm2", "--token-only"]),
        Key::Known(secret) => {
            add = add.args(["--key-file", "-", "--keyfile-size", &secret.len().to_string()]);
            input.extend_from_slice(secret);
        }
    }
    input.extend_from_slice(key);
    host.must(&add.args([device, "-"]).stdin(input.as_slice()))?;
    Ok(())
}

/// Says in the header that a slot is that of a passphrase.
pub(crate) fn name_passphrase(host: &dyn Host, device: &str, slot: &str) -> Result<(), StepError> {
    let id = Header::read(host, device)?.free_token()?;
    header::put_token(host, device, &id, &header::token(header::PASSPHRASE, &[slot]))
}

/// Whether a key opens this slot.
pub(crate) fn opens_slot(host: &dyn Host, device: &str, slot: &str, key: &[u8]) -> Result<bool, StepError> {
    let open =
        cryptsetup(["open", "--test-passphrase", "--type", "luks2", "--key-slot", slot, "--key-file", "-", device]);
    Ok(host.run(&open.stdin(key), &mut |_| {})?.success())
}

fn cryptsetup<const N: usize>(arguments: [&str; N]) -> Command {
    Command::new("cryptsetup").args(arguments).limit(LIMIT)
}

/// Without its key: the caller knows that another slot opens the volume.
fn kill_slot(host: &dyn Host, device: &str, slot: &str) -> Result<(), StepError> {
    host.must(&cryptsetup(["luksKillSlot", "--batch-mode", device, slot]))?;
    Ok(())
}

/// A copy of the header in memory; the caller removes it.
fn copy_header(host: &dyn Host, device: &str) -> Result<(), StepError> {
    host.make_directory("/run/cofferdam".into(), 0o700)?;
    host.remove(HEADER.into())?;
    host.must(&cryptsetup(["luksHeaderBackup", "--batch-mode", "--header-backup-file", HEADER, device]))?;
    Ok(())
}

/// Our own place of the escrow of the disk.
fn escrow_place() -> Utf8PathBuf {
    Utf8Path::new(layout::ESCROW).join("disk.age")
}

fn state(what: &str, hint: &str) -> StepError {
    StepError::State { what: what.to_owned(), hint: hint.to_owned() }
}
