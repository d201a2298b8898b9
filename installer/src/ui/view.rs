//! The picture: a pure function of the model.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::dialog::Dialog;
use super::field::{Field, Mode, page_name};
use super::frame::{self, Chrome};
use super::keymap::{Command, Hint};
use super::model::Model;
use super::sheet::{Kind, Row, Sheet};
use super::theme::Theme;
use super::{dialog_view, screen};
use crate::config::Page;

/// Draws the whole screen.
pub fn draw(model: &Model, area: Rect, picture: &mut Buffer) {
    let theme = Theme::new(model.look);
    if let Some(body) = frame::draw(&chrome(model), theme, area, picture) {
        let sheet = screen::sheet(model, theme, body.width.into());
        draw_sheet(&sheet, body, picture);
        // Between the page and its buttons, so that the keys stay where they are.
        let y = body.bottom().saturating_sub(2);
        picture.set_line(body.x, y, &notice(model, theme), body.width);
        if let Some(dialog) = &model.dialog {
            dialog_view::draw(dialog, model, theme, body, picture);
        }
    }
    theme.flatten(picture);
}

/// Rows of the frame around a page, and of its buttons.
const FRAME_ROWS: u16 = 5;
const BUTTON_ROWS: u16 = 2;

/// How many rows of a page fit on a terminal of this height.
pub fn room_for_rows(height: u16) -> usize {
    usize::from(height.saturating_sub(FRAME_ROWS + BUTTON_ROWS))
}

fn chrome(model: &Model) -> Chrome {
    let pages: Vec<Page> = Page::ALL.to_vec();
    let current = pages.iter().position(|page| *page == model.page).unwrap_or_default();
    let what = match model.mode {
        Mode::Install => "install",
        Mode::Check => "check this host",
    };
    Chrome {
        product: format!("Cofferdam {}  ·  {what}", env!("CARGO_PKG_VERSION")),
        place: format!("{} of {}", current + 1, pages.len()),
        trail: (pages.into_iter().map(page_name).collect(), current),
        notice: Line::default(),
        keys: keys(model),
    }
}

fn notice(model: &Model, theme: Theme) -> Line<'static> {
    match &model.notice {
        Some(notice) if notice.is_bad => {
            let mark = theme.mark(crate::check::Outcome::Fail);
            Line::styled(format!("{mark} {}", notice.text), theme.bad())
        }
        Some(notice) => Line::styled(notice.text.clone(), theme.good()),
        None => Line::default(),
    }
}

/// The keys that work now; what is most needed first, since a narrow line cuts the end.
fn keys(model: &Model) -> Vec<Hint> {
    let look = model.look;
    let of = |command| Hint::of(command, look);
    match &model.dialog {
        Some(Dialog::Help | Dialog::Request(..)) => {
            return vec![Hint::new("Up/Down", "Scroll"), Hint::new("Esc", "Close")];
        }
        Some(Dialog::Log(_)) => return vec![Hint::new("Up/Down", "Scroll"), Hint::new("Esc", "Close")],
        Some(Dialog::Paste(..)) => {
            return vec![
                Hint::named(Command::Continue, look, Some("Use it")),
                Hint::new("^U", "Empty"),
                Hint::new("Esc", "Cancel"),
            ];
        }
        Some(_) => {
            return vec![
                Hint::new("Tab", "Next"),
                Hint::new("Enter", "Choose"),
                Hint::new("Esc", "Cancel"),
                of(Command::Look),
                of(Command::Redraw),
            ];
        }
        None => {}
    }
    let control = screen::controls(model).into_iter().find(|control| Some(control.field) == model.focused());
    let mut keys = vec![Hint::named(
        Command::Enter,
        look,
        Some(enter_word(control.as_ref().map(|control| (control.kind, control.field)))),
    )];
    match control.map(|control| control.kind) {
        Some(Kind::Cycle) => keys.push(Hint::new("Left/Right", "Change")),
        Some(Kind::Check(_)) => keys.push(Hint::new("Space", "Switch")),
        _ => {}
    }
    let back = match model.page {
        _ if is_stoppable(model) => "Stop",
        Page::Welcome => "Quit",
        _ => "Back",
    };
    keys.push(Hint::named(Command::Back, look, Some(back)));
    if screen::overflow(model) > 0 {
        keys.push(Hint::new("PgUp/PgDn", "Scroll"));
    }
    if model.focused() != Some(Field::Continue) {
        keys.push(of(Command::Continue));
    }
    keys.extend([Command::Help, Command::Again, Command::Save, Command::Log].map(of));
    if model.has_shell {
        keys.push(of(Command::Shell));
    }
    keys.extend([Command::Look, Command::Abort].map(of));
    keys
}

fn enter_word(control: Option<(Kind, Field)>) -> &'static str {
    match control {
        Some((_, Field::Continue)) => "Go on",
        Some((Kind::Radio(_), _)) => "Choose",
        Some((Kind::Check(_), _)) => "Switch",
        Some((Kind::Button, _)) => "Do it",
        Some((Kind::Row, _)) => "Let pass",
        _ => "Next",
    }
}

fn is_stoppable(model: &Model) -> bool {
    let tasks = &model.tasks;
    match model.page {
        Page::Host | Page::Identity => tasks.probe.running().is_some(),
        Page::Certificates => tasks.judge.running().is_some() || tasks.request.running().is_some(),
        Page::Bundle => tasks.verify.running().is_some() || tasks.head.running().is_some(),
        Page::Administrator => tasks.hash.running().is_some(),
        Page::Review => tasks.prepare.running().is_some(),
        Page::Disks => tasks.passphrase.running().is_some(),
        Page::Welcome | Page::Network | Page::Cluster => false,
    }
}

/// The rows that fit, so that the focus is seen; the buttons below.
fn draw_sheet(sheet: &Sheet, body: Rect, picture: &mut Buffer) {
    let room = usize::from(body.height.saturating_sub(BUTTON_ROWS));
    let first = first_row(&sheet.rows, sheet.model, room);
    for (offset, row) in (0..).zip(sheet.rows.iter().skip(first).take(room)) {
        picture.set_line(body.x, body.y + offset, &row.line, body.width);
    }
    let theme = sheet.theme;
    let right = body.right() + 1;
    if first > 0 {
        picture.set_string(right, body.y, "▲", theme.accent());
    }
    if first + room < sheet.rows.len() {
        let y = body.y + u16::try_from(room).unwrap_or(body.height).saturating_sub(1);
        picture.set_string(right, y, "▼", theme.accent());
    }
    let y = body.bottom().saturating_sub(1);
    let mut line = Line::default();
    for (field, label) in &sheet.buttons {
        let is_focused = sheet.model.dialog.is_none() && sheet.model.focused() == Some(*field);
        line.push_span(Span::styled(format!("[ {label} ]"), if is_focused { theme.focus() } else { theme.accent() }));
        line.push_span(Span::raw("  "));
    }
    let width = u16::try_from(line.width()).unwrap_or(body.width).saturating_sub(2).min(body.width);
    picture.set_line(body.right() - width, y, &line, width);
}

/// The first row to show: as scrolled by hand, or so that the field in focus stands fully in the picture.
fn first_row(rows: &[Row], model: &Model, room: usize) -> usize {
    let most = rows.len().saturating_sub(room);
    if model.scroll > 0 {
        return model.scroll.min(most);
    }
    let Some(focus) = model.focused() else { return 0 };
    let Some(top) = rows.iter().position(|row| row.field == Some(focus)) else { return 0 };
    let bottom = rows.iter().rposition(|row| row.field == Some(focus)).unwrap_or(top);
    // One row more, so that it is seen that the page goes on.
    let needed = (bottom + 2).min(rows.len());
    needed.saturating_sub(room).min(top).min(most)
}
