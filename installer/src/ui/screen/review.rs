//! Page 10: the plan, what it destroys, and the way to begin.

use ratatui::text::{Line, Span};

use crate::check::Outcome;
use crate::config::Page;
use crate::ui::field::{Field, page_name, page_of_check};
use crate::ui::sheet::{Sheet, padded};

pub(super) const HELP: &str = "\
The host was looked at again and the plan was computed from your answers. This is all that will be done, in this order. \
Nothing has been changed so far.

Install asks you to type the end of the disk's serial number; only then the first step begins. Every step can be repeated: \
after a failure or a power cut the installation goes on where it stopped.

Save answers writes a file without secrets. `cofferdam install --config FILE` installs by it without a question.";

pub(super) fn fill(sheet: &mut Sheet) {
    let model = sheet.model;
    sheet.button(Field::SaveAnswers, "Save answers");
    sheet.button(Field::Continue, "Install");
    if let Err(problems) = model.answers.config() {
        sheet.lead("Some answers are still missing.");
        let mut pages: Vec<Page> = problems.iter().map(|problem| crate::ui::field::page_of(problem.key)).collect();
        pages.sort_unstable();
        pages.dedup();
        for page in pages {
            sheet.action(Field::GoTo(page), page_name(page), "");
            for problem in model.problems(page) {
                sheet.text(
                    &format!("    {} {}: {}", sheet.theme.mark(Outcome::Fail), problem.key, problem.message),
                    sheet.theme.bad(),
                );
            }
        }
        return;
    }
    if model.signed().is_none() {
        sheet.lead("The bundle is not verified.");
        sheet.progress(&model.tasks.head, "verifying the signature");
        sheet.action(Field::GoTo(Page::Bundle), page_name(Page::Bundle), "says why");
        return;
    }
    let Some(prepared) = model.prepared() else {
        sheet.lead("The host is looked at once more.");
        sheet.progress(&model.tasks.prepare, "checking the host and computing the plan");
        return;
    };
    match &prepared.plan {
        Err(refusal) => refused(sheet, refusal, &prepared.report),
        Ok(plan) => {
            sheet.lead(&format!("This will be done: {} steps.", plan.steps.len()));
            planned(sheet, plan);
        }
    }
}

fn refused(sheet: &mut Sheet, refusal: &crate::prepare::Refusal, report: &crate::check::Report) {
    sheet.lead("The installation cannot begin yet.");
    let blocking = report.blocking();
    let mut pages: Vec<Page> = blocking.iter().map(|finding| page_of_check(&finding.id)).collect();
    pages.sort_unstable();
    pages.dedup();
    for page in &pages {
        sheet.action(Field::GoTo(*page), page_name(*page), "");
        for finding in blocking.iter().filter(|finding| page_of_check(&finding.id) == *page) {
            sheet.text(
                &format!("{} {}: {}", sheet.theme.mark(Outcome::Fail), finding.id, finding.measured),
                sheet.theme.bad(),
            );
            if let Some(hint) = &finding.hint {
                sheet.note(&format!("    hint: {hint}"));
            }
        }
    }
    if pages.is_empty() {
        sheet.text(&refusal.message, sheet.theme.bad());
        if let Some(hint) = &refusal.hint {
            sheet.note(&format!("hint: {hint}"));
        }
        let is_certificate = refusal.message.contains("certificate") && !refusal.message.starts_with("storage.");
        let page = if is_certificate { Page::Certificates } else { Page::Disks };
        let page = if refusal.message.starts_with("the questions of the packs") { Page::Cluster } else { page };
        sheet.action(Field::GoTo(page), page_name(page), "");
    }
}

fn planned(sheet: &mut Sheet, plan: &crate::plan::Plan) {
    let model = sheet.model;
    for disk in &plan.destroys {
        let lines = super::disks::destroyed(sheet, disk);
        sheet.panel("ERASES", sheet.theme.danger(), lines);
    }
    if plan.destroys.is_empty() {
        let lines = vec![Line::styled("No disk is erased. The data directory is not encrypted.", sheet.theme.text())];
        sheet.panel("NOT ENCRYPTED", sheet.theme.danger(), lines);
    }
    if let Some(at) = model.begins_at {
        let seconds = (at.saturating_sub(model.tick)).div_ceil(crate::ui::task::TICKS_PER_SECOND);
        sheet.text(&format!("The file of answers begins it in {seconds} s; any key stops that."), sheet.theme.warn());
    }
    sheet.fact("Site", &format!("{} at {}", plan.site, plan.fqdn));
    sheet.fact("Bundle", &plan.bundle);
    sheet.fact("Node", &format!("{}, {}", model.answers.node_name, model.answers.address));
    sheet.fact("Certificate", certificate(model));
    if model.answers.encrypt && model.answers.use_passphrase {
        sheet.fact("Passphrase", "opens the disk besides the recovery key");
    }
    for (pack, answers) in &plan.answers {
        for (name, value) in answers {
            sheet.fact("Answer", &format!("{pack}.{name} = {value}"));
        }
    }
    if !model.answers.accept.is_empty() {
        let ids: Vec<&str> = model.answers.accept.iter().map(String::as_str).collect();
        sheet.marked_fact(Some(Outcome::Warn), "Let pass", &ids.join(", "));
    }
    sheet.gap();
    for (number, step) in plan.steps.iter().enumerate() {
        sheet.line(vec![
            Span::styled(format!("  {:>2}  ", number + 1), sheet.theme.muted()),
            Span::styled(padded(&step.id, 25), sheet.theme.text()),
            Span::styled(format!(" {}", step.title), sheet.theme.muted()),
        ]);
    }
}

fn certificate(model: &crate::ui::model::Model) -> &'static str {
    use crate::ui::answers::CertificateMode;
    match model.answers.certificate_mode {
        CertificateMode::Generate => "by the site's own authority",
        CertificateMode::Request => "by your authority, on request",
        CertificateMode::Import => "imported",
    }
}
