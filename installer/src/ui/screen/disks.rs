//! Page 3: the disk, its encryption, and how its recovery key leaves the machine.

use ratatui::text::{Line, Span};

use crate::check::Outcome;
use crate::config::{Page, Tpm2};
use crate::facts::Probed;
use crate::facts::disk::Disk;
use crate::ui::answers::NO_ENCRYPTION;
use crate::ui::field::Field;
use crate::ui::secret::passphrase_rules;
use crate::ui::sheet::Sheet;

pub(super) const HELP: &str = "\
Everything the site keeps lies on one data volume: etcd, images, keys, logs. It takes a whole disk, which is erased. A disk \
that is mounted, part of a RAID or volume group, or an installation medium is never offered. Where several disks are free \
none is chosen for you.

Encryption is LUKS2. With a TPM 2.0 the volume opens by itself at boot; without one, the recovery key or a passphrase of your \
own is typed there, on a keyboard with the US layout.

The recovery key opens the disk when nothing else does. It leaves the machine in one or both of two ways: it is shown once \
at the end of the installation and you type parts of it back, or it is encrypted for the age recipients that you name here.";

pub(super) fn fill(sheet: &mut Sheet) {
    let model = sheet.model;
    let answers = &model.answers;
    if model.is_appliance() {
        sheet.lead("Which disk becomes the appliance? System and data go there, the data encrypted.");
    } else {
        choice(sheet);
    }
    if answers.encrypt {
        disks(sheet);
        sheet.gap();
        sheet.heading("Keys");
        tpm(sheet);
        let detail = "shown once when the disk is encrypted, typed back in part; needs you at this screen";
        sheet.check(Field::ShowRecoveryKey, answers.show_recovery_key, "Show me the recovery key", detail);
        sheet.text_field(
            Field::Recipients,
            "Escrow recipients",
            "age1… keys, separated by blanks; optional if the key is shown",
        );
        if !answers.recipients.trim().is_empty() {
            sheet.text_field(
                Field::EscrowDirectory,
                "Copy of the escrow",
                "a directory, such as a mounted medium; optional",
            );
        }
        passphrase(sheet);
    } else {
        sheet.text(
            &format!("{} Secrets of the cluster would lie readable on the disk.", sheet.theme.mark(Outcome::Warn)),
            sheet.theme.warn(),
        );
        sheet.text_field(Field::PlaintextToken, "To allow it, type", NO_ENCRYPTION);
    }
    super::other_problems(sheet, Page::Disks);
    super::findings(sheet, Page::Disks, "Checks");
}

/// A host that is there already may do without a disk of its own for the site.
fn choice(sheet: &mut Sheet) {
    let encrypt = sheet.model.answers.encrypt;
    sheet.lead("Where shall the site keep its data?");
    sheet.radio(Field::Encrypt(true), encrypt, "On a disk of its own, encrypted (LUKS2)", "");
    sheet.radio(Field::Encrypt(false), !encrypt, "In a directory of the root filesystem, not encrypted", "");
    sheet.gap();
}

fn disks(sheet: &mut Sheet) {
    let model = sheet.model;
    sheet.heading("Disk");
    match model.facts().map(|facts| &facts.disks) {
        None => {
            sheet.progress(&model.tasks.probe, "looking at the disks");
        }
        Some(Probed::Unknown { reason }) => {
            sheet.text(&format!("the disks cannot be listed: {reason}"), sheet.theme.bad());
        }
        Some(Probed::Known(disks)) if disks.is_empty() => sheet.text("this machine has no disk", sheet.theme.bad()),
        Some(Probed::Known(disks)) => {
            let chosen = model.answers.disk.as_ref().map(|disk| disk.path.as_str());
            for (number, disk) in disks.iter().enumerate().filter(|(_, disk)| disk.is_free()) {
                let on_it = if disk.contents.is_empty() {
                    "nothing was found on it".to_owned()
                } else {
                    format!("holds {}", disk.contents.join("; "))
                };
                sheet.radio(Field::Disk(number), chosen == Some(disk.path.as_str()), &words(disk), &on_it);
            }
            for disk in disks.iter().filter(|disk| !disk.is_free()) {
                sheet.unavailable(&words(disk), &disk.obstacle().unwrap_or_default());
            }
            if !disks.iter().any(Disk::is_free) {
                sheet.text(
                    "no disk is free: bring one, or take one out of use and look again with F4 or ^R",
                    sheet.theme.bad(),
                );
            }
        }
    }
    if let Some(disk) = model.disk() {
        layout(sheet, disk);
    }
}

fn words(disk: &Disk) -> String {
    let serial = disk.serial.as_ref().map_or_else(|| "no serial".to_owned(), |serial| format!("S/N {serial}"));
    let model = disk.model.as_deref().unwrap_or("unknown model");
    let bus = disk.bus.as_ref().map(|bus| format!(", {bus}")).unwrap_or_default();
    format!("{}  {}  {model}, {serial}{bus}", disk.path, super::welcome::size(disk.size_bytes))
}

/// What will be on the disk, as a bar: images and the rest, and what is left.
fn layout(sheet: &mut Sheet, disk: &Disk) {
    let Some(signed) = sheet.model.signed() else { return };
    let data = crate::check::data_bytes(&signed.index);
    let width = sheet.width.saturating_sub(6).min(60);
    // What is there is seen, however large the disk.
    let least = disk.size_bytes / u64::try_from(width).unwrap_or(1).max(1);
    let (used, free) = sheet.theme.bar(data.max(least + 1), disk.size_bytes, width);
    let (accent, faint) = (sheet.theme.accent(), sheet.theme.faint());
    sheet.line(vec![Span::raw("      "), Span::styled(used, accent), Span::styled(free, faint)]);
    let left = super::welcome::size(disk.size_bytes.saturating_sub(data));
    sheet.line(vec![
        Span::raw("      "),
        Span::styled(
            format!("LUKS2 > ext4: {} for images and base, {left} left", super::welcome::size(data)),
            sheet.theme.muted(),
        ),
    ]);
}

fn tpm(sheet: &mut Sheet) {
    let model = sheet.model;
    let value = match model.answers.tpm2 {
        Tpm2::Auto => "if there is one",
        Tpm2::Require => "required",
        Tpm2::Off => "never",
    };
    let state = match model.facts().map(|facts| &facts.machine.tpm2) {
        None => String::new(),
        Some(tpm) if tpm.is_usable() => "this machine has a TPM 2.0".to_owned(),
        Some(tpm) if tpm.present.known() == Some(&true) => "the TPM of this machine is in lockout".to_owned(),
        Some(_) => "this machine has no TPM 2.0: the recovery key is typed at each boot".to_owned(),
    };
    sheet.cycle(Field::Tpm, "TPM 2.0 opens it", value, &state);
}

/// A slot for people who stand at the console.
fn passphrase(sheet: &mut Sheet) {
    let model = sheet.model;
    let answers = &model.answers;
    sheet.check(
        Field::UsePassphrase,
        answers.use_passphrase,
        "A passphrase opens it, too",
        "of your own, typed at the start where the TPM does not open it; the recovery key stays",
    );
    if !answers.use_passphrase {
        return;
    }
    let set = match answers.passphrase.as_str() {
        "" => String::new(),
        crate::layout::PASTED_PASSPHRASE => "one is set; type to replace it".to_owned(),
        file => format!("the one in {file}; type to replace it"),
    };
    sheet.secret_field(Field::Passphrase, "Passphrase", &set);
    if model.needs_passphrase() {
        super::rules(sheet, Field::Passphrase, &passphrase_rules(&model.passphrase, &model.passphrase_again));
    }
    sheet.secret_field(Field::PassphraseAgain, "Passphrase again", "");
    sheet.progress(&model.tasks.passphrase, "keeping the passphrase in memory");
}

/// What is destroyed, for the boxes of the last page.
pub(super) fn destroyed(sheet: &Sheet, disk: &crate::plan::Disk) -> Vec<Line<'static>> {
    let theme = sheet.theme;
    let room = sheet.width.saturating_sub(4);
    let mut lines = vec![Line::from(vec![
        Span::styled(format!("{}  {}", disk.path, super::welcome::size(disk.size)), theme.strong()),
        Span::styled(format!("  {}, serial {}", disk.model, disk.serial), theme.text()),
    ])];
    let contents = if disk.contents.is_empty() {
        "nothing was found on it".to_owned()
    } else {
        format!("on it now: {}", disk.contents.join("; "))
    };
    for part in crate::ui::sheet::wrap(&contents, room) {
        lines.push(Line::styled(part, theme.text()));
    }
    lines
}
