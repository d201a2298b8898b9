//! Page 1: what the medium carries, what to do, and with which file of answers.

use crate::check::Outcome;
use crate::config::Page;
use crate::ui::field::{Field, Mode};
use crate::ui::sheet::Sheet;

pub(super) const HELP: &str = "\
Cofferdam turns this Linux host into a Kubernetes management cluster that needs no internet. Everything it installs comes \
out of one signed file, the bundle.

Nothing is changed on a disk before the last page, Review, has shown the plan and you have typed a confirmation.

A file install.yaml that was found on a medium can fill in the pages. Its hash is shown so that you can compare it with the \
one on paper. What you change on a page is kept when you go back.

Joining a cluster, upgrading and recovering are done on the command line: `cofferdam --help`.";

pub(super) fn fill(sheet: &mut Sheet) {
    let model = sheet.model;
    sheet.lead("What shall be done on this machine?");
    let found = model.tasks.discover.result();
    if let Some(site) = found.and_then(|found| found.installed.as_ref()) {
        sheet.unavailable("Install a site", &format!("site {site} is installed here already"));
    } else {
        let detail = "answers first, then the plan, then a confirmation";
        sheet.radio(Field::Mode(Mode::Install), model.mode == Mode::Install, "Install a site", detail);
    }
    sheet.radio(Field::Mode(Mode::Check), model.mode == Mode::Check, "Only check this host", "nothing is changed");
    sheet.note("Upgrade: cofferdam upgrade. Further commands: cofferdam --help.");

    sheet.gap();
    sheet.heading("On the media");
    sheet.progress(&model.tasks.discover, "looking for media");
    let Some(found) = found else { return };
    match model.signed() {
        Some(signed) => {
            let name = format!("{} {}, {}", signed.index.name, signed.index.version, size(signed.bytes));
            sheet.fact("Bundle", &name);
            let signer = format!("signed by the trusted key {}", signed.key_id);
            sheet.marked_fact(Some(Outcome::Pass), "Signature", &signer);
        }
        None if found.bundles.is_empty() => {
            sheet.marked_fact(Some(Outcome::Warn), "Bundle", "none found; name it on the page Bundle");
        }
        None => {
            let names: Vec<_> = found.bundles.iter().map(|path| path.as_str()).collect();
            sheet.fact("Bundle", &names.join(", "));
            if found.keys.is_empty() {
                sheet.marked_fact(Some(Outcome::Warn), "Signature", "no public key found; name it on the page Bundle");
            } else {
                sheet.progress(&model.tasks.head, "verifying the signature");
            }
        }
    }
    if let Some(name) = &model.named_file {
        sheet.fact("Answers", name);
        return;
    }
    if found.configs.is_empty() {
        sheet.fact("Answers", "no install.yaml found; the pages ask for everything");
        return;
    }
    sheet.gap();
    sheet.heading("Answers");
    sheet.radio(Field::NoConfigFile, model.taken.is_none(), "Begin without a file", "");
    for (number, file) in found.configs.iter().enumerate() {
        let hash = format!("SHA-256 begins {}", spaced(&file.hash));
        match &file.config {
            Ok(config) => {
                let stops = if config.interactive.is_empty() {
                    String::new()
                } else {
                    let names: Vec<_> =
                        config.interactive.iter().map(|page: &Page| crate::ui::field::page_name(*page)).collect();
                    format!("; stops on {}", names.join(", "))
                };
                let label = format!("{}: site {}", file.path, config.site.name);
                sheet.radio(Field::ConfigFile(number), model.taken == Some(number), &label, &format!("{hash}{stops}"));
            }
            Err(error) => {
                let why = error.lines().take(2).collect::<Vec<_>>().join(" ");
                sheet.unavailable(file.path.as_str(), &format!("{hash}; {why}"));
            }
        }
    }
}

/// Groups of four, so that it can be compared with paper.
fn spaced(hash: &str) -> String {
    let characters: Vec<char> = hash.chars().collect();
    characters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

/// A size for people.
pub(super) fn size(bytes: u64) -> String {
    crate::facts::disk::size(bytes)
}
