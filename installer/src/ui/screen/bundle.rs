//! Page 7: the bundle, who signed it, what it holds and where it fits.

use ratatui::text::Span;

use super::welcome::size;
use crate::check::Outcome;
use crate::config::Page;
use crate::ui::field::Field;
use crate::ui::model::Model;
use crate::ui::sheet::{Sheet, padded};

pub(super) const HELP: &str = "\
The bundle is one signed file with everything the site needs. Its signature is verified with the public keys that you name \
before anything of it is used. Compare the key's id with the one that your release engineer gave you by another way than \
this medium.

Verify reads the whole file and checks every byte against the signed index. The installation does that again while it loads \
the bundle, so verifying here only tells you earlier.";

pub(super) fn fill(sheet: &mut Sheet) {
    let model = sheet.model;
    sheet.lead("What shall be installed?");
    let found = model.tasks.discover.result().map(|found| found.bundles.clone()).unwrap_or_default();
    if found.len() > 1 {
        for (number, path) in found.iter().enumerate() {
            sheet.radio(Field::Bundle(number), model.answers.bundle == path.as_str(), path.as_str(), "");
        }
    }
    sheet.text_field(Field::BundlePath, "Bundle", "a file NAME-VERSION.tar.zst");
    sheet.text_field(Field::Trust, "Trusted keys", "minisign public keys, files, separated by blanks");
    super::other_problems(sheet, Page::Bundle);
    sheet.progress(&model.tasks.head, "verifying the signature");
    match model.tasks.head.answer(&model.bundle_question()) {
        Some(Err(refusal)) => {
            sheet.text(&format!("{} {}", sheet.theme.mark(Outcome::Fail), refusal.message), sheet.theme.bad());
            if let Some(hint) = &refusal.hint {
                sheet.note(&format!("    hint: {hint}"));
            }
        }
        Some(Ok(_)) => contents(sheet, model),
        None => {}
    }
    super::findings(sheet, Page::Bundle, "Room for it");
}

fn contents(sheet: &mut Sheet, model: &Model) {
    let Some(signed) = model.signed() else { return };
    let index = &signed.index;
    sheet.gap();
    sheet.fact("Release", &format!("{} {}, for {}", index.name, index.version, index.architecture));
    sheet.marked_fact(Some(Outcome::Pass), "Signed by", &format!("key {}, which is trusted", signed.key_id));
    sheet.fact(
        "Holds",
        &format!("{} packs, {} images, {}", index.packs.len(), index.images.len(), size(index.blob_bytes())),
    );
    for pack in &index.packs {
        let layer = format!("{:?}", pack.layer).to_lowercase();
        sheet.line(vec![
            Span::raw("    "),
            Span::styled(padded(&format!("{} {}", pack.name, pack.version), 26), sheet.theme.text()),
            Span::styled(padded(&layer, 12), sheet.theme.muted()),
            Span::styled(crate::ui::sheet::cut(&pack.description, sheet.width.saturating_sub(42)), sheet.theme.muted()),
        ]);
    }
    sheet.gap();
    verification(sheet, model);
}

fn verification(sheet: &mut Sheet, model: &Model) {
    if let Some(running) = model.tasks.verify.running() {
        let (done, total) = model.verified_bytes;
        let (full, empty) = sheet.theme.bar(done, total.max(1), 30);
        let seconds = ((model.tick - running.since.min(model.tick)) / crate::ui::task::TICKS_PER_SECOND).max(1);
        let text = format!(" {} of {}, {}/s", size(done), size(total), size(done / seconds));
        sheet.line(vec![
            Span::raw("  "),
            Span::styled(full, sheet.theme.accent()),
            Span::styled(empty, sheet.theme.faint()),
            Span::styled(text, sheet.theme.muted()),
        ]);
        sheet.action(Field::CancelVerify, "Stop verifying", "");
        return;
    }
    sheet.progress(&model.tasks.verify, "verifying the bundle");
    match model.tasks.verify.answer(&model.bundle_question()) {
        Some(Ok(())) => sheet.marked_fact(Some(Outcome::Pass), "Verified", "every byte is as it was signed"),
        Some(Err(refusal)) => {
            sheet.text(&format!("{} {}", sheet.theme.mark(Outcome::Fail), refusal.message), sheet.theme.bad());
            sheet.action(Field::Verify, "Verify all of it again", "");
        }
        None => sheet.action(Field::Verify, "Verify all of it now", "optional; it is verified while it is loaded, too"),
    }
}
