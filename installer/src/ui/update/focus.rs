//! Where the focus is, and how far the page is scrolled.

use crate::ui::field::Field;
use crate::ui::model::Model;
use crate::ui::screen;
use crate::ui::sheet::{Control, Kind};

/// Keeps the focus on something that is there.
pub(super) fn settle_focus(model: &mut Model) {
    let controls = screen::controls(model);
    if model.focused().is_some_and(|focus| controls.iter().any(|control| control.field == focus)) {
        return;
    }
    let problems = model.problems(model.page);
    let is_open =
        |control: &&Control| matches!(control.kind, Kind::Text) && model.problem_of(control.field, &problems).is_some();
    let to_fill = controls.iter().find(is_open);
    let go_on = controls.iter().find(|control| control.field == Field::Continue);
    if let Some(control) = to_fill.or(go_on).or(controls.first()) {
        focus(model, control.field);
    }
}

pub(super) fn focus(model: &mut Model, field: Field) {
    model.focus.insert(model.page, field);
    model.cursor = model.text(field).map_or(0, |text| text.chars().count());
    model.scroll = 0;
}

/// Moves the focus, over the ends to the other end.
pub(super) fn step_focus(model: &mut Model, forward: bool) {
    let controls = screen::controls(model);
    let at = controls.iter().position(|control| Some(control.field) == model.focused());
    let count = controls.len();
    let to = match (at, forward) {
        (None, _) => 0,
        (Some(at), true) => (at + 1) % count.max(1),
        (Some(at), false) => (at + count.max(1) - 1) % count.max(1),
    };
    if let Some(control) = controls.get(to) {
        focus(model, control.field);
    }
}

/// To the next control that is not another choice of the same question.
pub(super) fn leave_group(model: &mut Model, field: Field) {
    let controls = screen::controls(model);
    let group = std::mem::discriminant(&field);
    let after = controls
        .iter()
        .skip_while(|control| control.field != field)
        .find(|control| std::mem::discriminant(&control.field) != group && !is_other_choice(field, control.field));
    if let Some(control) = after {
        focus(model, control.field);
    }
}

pub(super) fn is_other_choice(field: Field, other: Field) -> bool {
    let is_file = |field| matches!(field, Field::NoConfigFile | Field::ConfigFile(_));
    is_file(field) && is_file(other)
}

/// Whether all that can be in focus is the row of buttons: then the arrows scroll.
pub(super) fn has_only_buttons(model: &Model) -> bool {
    screen::controls(model)
        .iter()
        .all(|control| matches!(control.field, Field::Continue | Field::SaveAnswers | Field::SaveReport))
}

pub(super) fn scroll(model: &mut Model, rows: isize) {
    let most = screen::overflow(model);
    model.scroll = model.scroll.saturating_add_signed(rows).min(most);
}
