//! Page 2: what the checks of the host found.

use crate::check::Outcome;
use crate::config::Page;
use crate::ui::field::{Field, Mode};
use crate::ui::sheet::Sheet;

pub(super) const HELP: &str = "\
Each row is a check with a stable name, what was measured, and what is wanted. What fails comes first.

✔ as it should be   ! works, with a drawback   ✘ stands against an installation   ? could not be found out

Mend what fails (F2 or ^T opens a shell) and look again with F4 or ^R. Some failures can be let pass: put the focus on the \
row, press Enter and confirm twice; the site's record will say so. Failures that would destroy data or cannot work at all \
cannot be let pass.

Checks of the disk, the network and the names stand on their own pages.";

pub(super) fn fill(sheet: &mut Sheet) {
    let model = sheet.model;
    let findings = model.findings(Page::Host);
    let count = |outcome| findings.iter().filter(|finding| finding.outcome == outcome).count();
    let standing = findings.iter().filter(|finding| finding.blocks && !finding.accepted).count();
    let verdict = match (model.facts(), standing) {
        (None, _) => "Is this host fit for a site?".to_owned(),
        (Some(_), 0) => "This host is fit for a site.".to_owned(),
        (Some(_), 1) => "1 check stands against an installation.".to_owned(),
        (Some(_), many) => format!("{many} checks stand against an installation."),
    };
    sheet.lead(&verdict);
    sheet.progress(&model.tasks.probe, "looking at the host");
    for (number, finding) in findings.iter().enumerate() {
        sheet.finding(number, finding);
    }
    if !findings.is_empty() {
        sheet.gap();
        sheet.note(&format!(
            "{} checks: {} pass, {} warn, {} fail, {} unknown",
            findings.len(),
            count(Outcome::Pass),
            count(Outcome::Warn),
            count(Outcome::Fail),
            count(Outcome::Unknown)
        ));
    }
    sheet.button(Field::CheckAgain, "Look again");
    if model.facts().is_some() {
        sheet.button(Field::SaveReport, "Save report");
    }
    sheet.button(Field::Continue, if model.mode == Mode::Check { "Finish" } else { "Continue" });
}
