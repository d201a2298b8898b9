//! The way to the engine. Invariant: [`Effect::Start`] is made here alone, out of a finished plan of exactly these answers
//! and either the typed confirmation or the erase token of a file that asks for no look at the plan.

use super::{Effect, say_bad};
use crate::config::Page;
use crate::ui::dialog::{Begin, BeginFocus, Dialog};
use crate::ui::model::Model;
use crate::ui::{Start, answers};

pub(super) fn ask_to_begin(model: &mut Model) {
    let Some(prepared) = model.prepared() else {
        return say_bad(model, "there is no plan yet; the page says what is missing");
    };
    let plan = match &prepared.plan {
        Ok(plan) => plan,
        Err(refusal) => {
            let text = refusal.message.lines().next().unwrap_or_default().to_owned();
            return say_bad(model, text);
        }
    };
    let (wanted, whole) = match plan.destroys.first() {
        Some(disk) => {
            let token = model
                .answers
                .disk
                .as_ref()
                .map(|chosen| answers::token_of_serial(&chosen.token, &disk.serial))
                .unwrap_or_default();
            (
                token,
                if model.disk().is_some_and(|found| found.serial.is_none()) {
                    disk.path.clone()
                } else {
                    disk.serial.clone()
                },
            )
        }
        None => (model.answers.node_name.trim().to_owned(), model.answers.node_name.trim().to_owned()),
    };
    model.dialog = Some(Dialog::Begin(Begin { wanted, whole, typed: String::new(), focus: BeginFocus::No }));
}

/// Begins, if the plan of exactly these answers is there and the confirmation was typed.
pub(super) fn begin(model: &mut Model, confirmation: &Begin, effects: &mut Vec<Effect>) {
    if !confirmation.is_confirmed() {
        return say_bad(model, format!("type {} first", confirmation.wanted));
    }
    let typed = confirmation.typed.trim().to_owned();
    start(model, Some(typed), effects);
}

/// Begins without a question: a file named the pages on which to stop, the plan is not one of them, and the file's own
/// erase token names the disk. The plan is shown before, and any key stops it.
pub(super) fn begin_by_file(model: &mut Model, effects: &mut Vec<Effect>) {
    model.begins_at = None;
    if file_confirms(model) {
        start(model, None, effects);
    }
}

/// Seconds for which the plan is shown before it begins by itself.
pub(super) const COUNTDOWN: u64 = 10;

pub(super) fn may_begin_by_file(model: &mut Model) {
    if file_confirms(model) {
        model.begins_at = Some(model.tick + COUNTDOWN * crate::ui::task::TICKS_PER_SECOND);
    }
}

/// Whether the file that was taken asks for no look at the plan, and still decides the disk.
pub(super) fn file_confirms(model: &Model) -> bool {
    let pages = &model.answers.interactive;
    !pages.is_empty()
        && !pages.contains(&Page::Review)
        && model.page == Page::Review
        && model.dialog.is_none()
        && model.answers.disk.as_ref().is_none_or(|disk| disk.from_file)
        && model.prepared().is_some_and(|prepared| prepared.plan.is_ok())
}

pub(super) fn start(model: &mut Model, token: Option<String>, effects: &mut Vec<Effect>) {
    let (Ok(mut config), Some(signed)) = (model.answers.config(), model.signed().cloned()) else { return };
    let Some(Ok(plan)) = model.prepared().map(|prepared| prepared.plan.clone()) else { return };
    if let (Some(token), Some(disk), false) = (token, &mut config.storage.disk, plan.destroys.is_empty()) {
        disk.erase = token;
    }
    model.dialog = None;
    effects.push(Effect::Start(Box::new(Start {
        config,
        plan,
        signed,
        resumes: false,
        may_open_shell: model.has_shell,
    })));
}
