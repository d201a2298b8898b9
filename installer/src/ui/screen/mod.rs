//! The pages, one file each. A page is a pure function of the model that fills a [`Sheet`].

mod administrator;
mod bundle;
mod certificates;
mod cluster;
mod disks;
mod host;
mod identity;
mod network;
mod review;
mod welcome;

use bundle_index::{Index, Layer, Pack};

use ::bundle::index as bundle_index;
use ratatui::text::Span;

use super::field::Field;
use super::model::Model;
use super::sheet::{Control, Sheet};
use super::theme::{Mode, Theme};
use crate::config::Page;

/// The page that is shown.
pub fn sheet(model: &Model, theme: Theme, width: usize) -> Sheet<'_> {
    let mut sheet = Sheet::new(model, theme, width);
    match model.page {
        Page::Welcome => welcome::fill(&mut sheet),
        Page::Host => host::fill(&mut sheet),
        Page::Disks => disks::fill(&mut sheet),
        Page::Network => network::fill(&mut sheet),
        Page::Identity => identity::fill(&mut sheet),
        Page::Certificates => certificates::fill(&mut sheet),
        Page::Bundle => bundle::fill(&mut sheet),
        Page::Cluster => cluster::fill(&mut sheet),
        Page::Administrator => administrator::fill(&mut sheet),
        Page::Review => review::fill(&mut sheet),
    }
    if sheet.buttons.is_empty() {
        sheet.button(Field::Continue, "Continue");
    }
    sheet.finish();
    sheet
}

/// The fields of the page in the order in which Tab goes through them.
pub fn controls(model: &Model) -> Vec<Control> {
    sheet(model, Theme::new(Mode::Basic), 76).controls
}

/// How many rows of the page do not fit on the screen.
pub fn overflow(model: &Model) -> usize {
    let width = usize::from(model.size.0).saturating_sub(4);
    let rows = sheet(model, Theme::new(model.look), width).rows.len();
    rows.saturating_sub(super::view::room_for_rows(model.size.1))
}

/// Help for a page.
pub fn help(page: Page) -> &'static str {
    match page {
        Page::Welcome => welcome::HELP,
        Page::Host => host::HELP,
        Page::Disks => disks::HELP,
        Page::Network => network::HELP,
        Page::Identity => identity::HELP,
        Page::Certificates => certificates::HELP,
        Page::Bundle => bundle::HELP,
        Page::Cluster => cluster::HELP,
        Page::Administrator => administrator::HELP,
        Page::Review => review::HELP,
    }
}

/// Packs that can be left out.
pub fn upper_packs(index: &Index) -> impl Iterator<Item = &Pack> {
    index.packs.iter().filter(|pack| pack.layer >= Layer::Storage)
}

/// The findings of the page under a heading, and what runs to get them.
fn findings(sheet: &mut Sheet, page: Page, heading: &str) {
    let model = sheet.model;
    let findings = model.findings(page);
    if !findings.is_empty() || model.tasks.probe.running().is_some() {
        sheet.gap();
        sheet.heading(heading);
    }
    sheet.progress(&model.tasks.probe, "looking at the host");
    for (number, finding) in findings.iter().enumerate() {
        sheet.finding(number, finding);
    }
}

/// The rules of what is typed into a secret field, under it.
fn rules(sheet: &mut Sheet, field: Field, rules: &[crate::passphrase::Rule]) {
    for (holds, rule) in rules {
        let (mark, style) = if *holds {
            (sheet.theme.mark(crate::check::Outcome::Pass), sheet.theme.good())
        } else {
            ("·", sheet.theme.muted())
        };
        sheet.field_line(field, vec![Span::raw(" ".repeat(23)), Span::styled(format!("{mark} {rule}"), style)]);
    }
}

/// What is wrong on the page and belongs to none of its fields.
fn other_problems(sheet: &mut Sheet, page: Page) {
    let model = sheet.model;
    if !model.tried.contains(&page) {
        return;
    }
    let shown: Vec<&str> =
        sheet.controls.iter().flat_map(|control| super::field::keys_of(control.field)).copied().collect();
    for problem in model.problems(page) {
        if !shown.contains(&problem.key) {
            let mark = sheet.theme.mark(crate::check::Outcome::Fail);
            sheet.text(&format!("{mark} {}: {}", problem.key, problem.message), sheet.theme.bad());
        }
    }
}
