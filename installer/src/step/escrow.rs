//! The escrow: what is needed to open the site when all else is lost, encrypted by age for recipients off site.
//! `disk.age` (recovery key, LUKS header) is written by `disk.encrypt`, `keys.age` (the site's keys and the cluster's
//! generated secrets) by `escrow.seal` at the end. Done when the file is there and the marker names this plan.

use std::io::Write as _;

use camino::{Utf8Path, Utf8PathBuf};
use certs::{EscrowBundle, EscrowItem, EscrowKind, EscrowRecipient};
use jiff::Timestamp;
use serde_json::Value;
use zeroize::Zeroizing;

use super::certificates::entry;
use super::{Context, StepError};
use crate::config::InstallConfig;
use crate::layout;

const DISK: &str = "disk.age";
const KEYS: &str = "keys.age";

pub(super) fn done(context: &Context, recipients: &[String]) -> Result<bool, StepError> {
    Ok(recipients.is_empty() || context.host.look(&Utf8Path::new(layout::ESCROW).join(KEYS))?.is_some())
}

/// The recovery key and the volume's header, before the volume is used.
pub(super) fn write_disk(
    context: &Context,
    key: &certs::RecoveryKey,
    header: &[u8],
    recipients: &[String],
    directory: Option<&Utf8Path>,
) -> Result<(), StepError> {
    let sealed = sealed_disk(context.config, context.host.now(), key, header, recipients)?;
    write(context, DISK, &sealed, directory)
}

/// The content of `disk.age`.
pub(crate) fn sealed_disk(
    config: &InstallConfig,
    time: Timestamp,
    key: &certs::RecoveryKey,
    header: &[u8],
    recipients: &[String],
) -> Result<String, StepError> {
    let failed =
        |error: std::io::Error| StepError::Certificates { what: "compressing the header", reason: error.to_string() };
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).map_err(failed)?;
    encoder.write_all(header).map_err(failed)?;
    let header = encoder.finish().map_err(failed)?;
    let items = vec![
        item("data-volume", EscrowKind::RecoveryKey, key.expose().as_bytes()),
        item("luks-header.zst", EscrowKind::LuksHeader, &header),
    ];
    seal(config, time, items, recipients)
}

/// All other secrets of the site.
pub(crate) fn run(context: &Context, recipients: &[String], directory: Option<&Utf8Path>) -> Result<(), StepError> {
    if recipients.is_empty() {
        return Ok(());
    }
    let mut items = Vec::new();
    for name in context.host.list(layout::KEYSTORE.into())? {
        let is_key = Utf8Path::new(&name).extension() == Some("key");
        if let Some(content) = context.host.read(&entry(&name))?.filter(|_| is_key) {
            items.push(item(&name, EscrowKind::PrivateKey, &content));
        }
    }
    for (path, kind) in [
        ("/etc/kubernetes/cofferdam/encryption.yaml", EscrowKind::EncryptionConfig),
        ("/etc/kubernetes/pki/ca.key", EscrowKind::PrivateKey),
        ("/etc/kubernetes/pki/sa.key", EscrowKind::PrivateKey),
    ] {
        if let Some(content) = context.host.read(path.into())? {
            items.push(item(path, kind, &content));
        }
    }
    for secret in context.index.packs.iter().flat_map(|pack| &pack.secrets) {
        let ask = ["get", "secret", &secret.name, "-n", &secret.namespace, "-o", "json"];
        let output = context.host.run(&context.kubectl(ask).secret_output(), &mut |_| {})?;
        if output.success() {
            let object: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let name = format!("{}/{}", secret.namespace, secret.name);
            items.push(item(&name, EscrowKind::PackSecret, object["data"].to_string().as_bytes()));
        }
    }
    write(context, KEYS, &seal(context.config, context.host.now(), items, recipients)?, directory)
}

fn seal(
    config: &InstallConfig,
    time: Timestamp,
    items: Vec<EscrowItem>,
    recipients: &[String],
) -> Result<String, StepError> {
    let failed = |error: certs::CertsError| StepError::Certificates { what: "escrow", reason: error.to_string() };
    let fqdn = config.site.fqdn.parse().map_err(failed)?;
    let mut bundle = EscrowBundle::new(&config.site.name, fqdn, time);
    bundle.items = items;
    let recipients =
        recipients.iter().map(|text| text.parse()).collect::<Result<Vec<EscrowRecipient>, _>>().map_err(failed)?;
    bundle.seal(&recipients).map_err(failed)
}

fn write(context: &Context, name: &str, sealed: &str, directory: Option<&Utf8Path>) -> Result<(), StepError> {
    // Our own place last: `done` looks there.
    let places =
        [directory.map(|directory| directory.join(&context.config.site.name)), Some(Utf8PathBuf::from(layout::ESCROW))];
    for place in places.into_iter().flatten() {
        context.host.write(&place.join(name), sealed.as_bytes(), 0o600)?;
    }
    Ok(())
}

fn item(name: &str, kind: EscrowKind, data: &[u8]) -> EscrowItem {
    EscrowItem { name: name.to_owned(), kind, data: Zeroizing::new(data.to_vec()) }
}
