//! `data.mount` and `data.bind`: the data volume at its place, now and at each boot, and its folders where the software
//! expects them. Done when the units are written and systemd has them mounted.

use camino::Utf8Path;

use super::{Context, StepError};
use crate::host::{Command, HostExt};
use crate::layout;
use crate::plan::{Action, Volume};

const CRYPTTAB: &str = "/etc/crypttab";
const JOURNALD: &str = "/etc/systemd/journald.conf.d/90-cofferdam.conf";
const UNITS: &str = "/etc/systemd/system";
const STORE_MODE: u32 = 0o750;

pub(super) fn mounted(context: &Context, volume: Volume) -> Result<bool, StepError> {
    for (path, mode) in folders() {
        if context.host.look(Utf8Path::new(&path))?.is_none_or(|entry| entry.mode != mode) {
            return Ok(false);
        }
    }
    match volume {
        Volume::Directory => Ok(true),
        Volume::Encrypted { .. } => is_mounted(context, layout::DATA),
    }
}

pub(super) fn mount(context: &Context, volume: Volume) -> Result<(), StepError> {
    if let Volume::Encrypted { tpm2, discards } = volume {
        mount_encrypted(context, tpm2, discards)?;
    }
    for (path, mode) in folders().into_iter().filter(|(path, _)| path != layout::STORE) {
        context.host.make_directory(Utf8Path::new(&path), mode)?;
    }
    // The store gets its final mode last, after its owner: the mode is what `mounted` knows it by.
    context.host.make_directory(layout::STORE.into(), 0o700)?;
    let owner = format!("{0}:{0}", layout::REGISTRY_USER);
    context.must("chown", [owner.as_str(), layout::STORE])?;
    context.host.make_directory(layout::STORE.into(), STORE_MODE)?;
    Ok(())
}

fn mount_encrypted(context: &Context, tpm2: bool, discards: bool) -> Result<(), StepError> {
    let disk = context.plan.steps.iter().find_map(|step| match &step.action {
        Action::EncryptDisk { disk, .. } => Some(&disk.path),
        _ => None,
    });
    let device = disk.ok_or_else(|| StepError::State {
        what: "the plan mounts an encrypted volume that it does not make".to_owned(),
        hint: "start the installation again".to_owned(),
    })?;
    let uuid = context.must("cryptsetup", ["luksUUID", device])?.text();
    // timeout=0: the prompt for the recovery key waits for as long as it takes.
    let mut options = vec!["luks", "timeout=0", "nofail"];
    if tpm2 {
        options.push("tpm2-device=auto");
    }
    if discards {
        options.push("discard");
    }
    let line = format!("{} UUID={uuid} none {}", layout::VOLUME, options.join(","));
    let present = context.host.read_text(CRYPTTAB.into())?.map(|text| text.to_string()).unwrap_or_default();
    let others = present.lines().filter(|line| line.split_whitespace().next() != Some(layout::VOLUME));
    let table = others.chain([line.as_str()]).fold(String::new(), |text, line| format!("{text}{line}\n"));
    context.host.ensure(CRYPTTAB.into(), table.as_bytes(), 0o644)?;

    let mapped = format!("/dev/mapper/{}", layout::VOLUME);
    let unit = format!(
        "# Written by cofferdam.\n[Unit]\nDescription=Cofferdam data volume\n\
         Requires=systemd-cryptsetup@{0}.service\nAfter=systemd-cryptsetup@{0}.service\n\n\
         [Mount]\nWhat={mapped}\nWhere={1}\nType=ext4\nOptions=defaults{2}\n\n\
         [Install]\nWantedBy=multi-user.target\n",
        layout::VOLUME,
        layout::DATA,
        if discards { ",discard" } else { "" },
    );
    let name = unit_name(layout::DATA);
    context.host.ensure(&Utf8Path::new(UNITS).join(&name), unit.as_bytes(), 0o644)?;
    context.must("systemctl", ["daemon-reload"])?;
    // The unit fails when the volume is open already, as it is right after disk.encrypt.
    if context.host.look(Utf8Path::new(&mapped))?.is_none() {
        let service = format!("systemd-cryptsetup@{}.service", layout::VOLUME);
        context.must("systemctl", ["start", service.as_str()])?;
    }
    if !is_mounted(context, layout::DATA)? {
        context.host.make_directory(layout::DATA.into(), 0o711)?;
        context.must("mount", ["-t", "ext4", &mapped, layout::DATA])?;
    }
    context.must("systemctl", ["enable", name.as_str()])?;
    Ok(())
}

pub(super) fn bound(context: &Context) -> Result<bool, StepError> {
    for (folder, place) in layout::BOUND {
        let unit = Utf8Path::new(UNITS).join(unit_name(place));
        let name = unit_name(place);
        if !context.host.holds(&unit, bind_unit(folder, place).as_bytes(), 0o644)?
            || !is_mounted(context, place)?
            || !context.succeeds("systemctl", ["is-enabled", "--quiet", name.as_str()])?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn bind(context: &Context) -> Result<(), StepError> {
    let mut names = Vec::new();
    for (folder, place) in layout::BOUND {
        context.host.make_directory(Utf8Path::new(place), folder_mode(folder))?;
        let name = unit_name(place);
        let unit = Utf8Path::new(UNITS).join(&name);
        context.host.ensure(&unit, bind_unit(folder, place).as_bytes(), 0o644)?;
        names.push(name);
    }
    context.must("systemctl", ["daemon-reload"])?;
    context.must("systemctl", std::iter::once("start".to_owned()).chain(names.clone()))?;
    context.host.ensure(JOURNALD.into(), b"# Written by cofferdam.\n[Journal]\nStorage=persistent\n", 0o644)?;
    context.must("systemctl", ["restart", "systemd-journald.service"])?;
    // What journald kept in memory so far goes to the data volume as well.
    context.must("journalctl", ["--flush"])?;
    // Last: units that are enabled are what `bound` knows the step by.
    context.must("systemctl", std::iter::once("enable".to_owned()).chain(names))?;
    Ok(())
}

fn folders() -> Vec<(String, u32)> {
    let mut folders = vec![
        (layout::DATA.to_owned(), 0o711),
        (layout::KEYSTORE.to_owned(), 0o700),
        (layout::STORE.to_owned(), STORE_MODE),
        (format!("{}/log", layout::DATA), 0o711),
    ];
    folders.extend(layout::BOUND.iter().map(|(folder, _)| (format!("{}/{folder}", layout::DATA), folder_mode(folder))));
    folders
}

fn folder_mode(folder: &str) -> u32 {
    match folder {
        "etcd" | "log/kubernetes" => 0o700,
        _ => 0o755,
    }
}

fn bind_unit(folder: &str, place: &str) -> String {
    format!(
        "# Written by cofferdam.\n[Unit]\nDescription=Cofferdam: {place} on the data volume\n\
         RequiresMountsFor={data}\nBefore=containerd.service kubelet.service systemd-journal-flush.service\n\n\
         [Mount]\nWhat={data}/{folder}\nWhere={place}\nType=none\nOptions=bind\n\n\
         [Install]\nWantedBy=multi-user.target\n",
        data = layout::DATA,
    )
}

/// The name that systemd wants for a mount unit (systemd.mount(5)); our paths hold nothing that needs escaping.
fn unit_name(path: &str) -> String {
    format!("{}.mount", path.trim_start_matches('/').replace('/', "-"))
}

fn is_mounted(context: &Context, path: &str) -> Result<bool, StepError> {
    Ok(context.host.run(&Command::new("findmnt").args(["--noheadings", "--mountpoint", path]), &mut |_| {})?.success())
}
