//! Page 12: the recovery key is shown, then typed back in part.
//!
//! While it is shown it stands in the cells of the screen and nowhere else; `mod.rs` draws over them when it is gone.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::{below, paragraph, put, put_line, qr};
use crate::ui::run::ceremony::{Ceremony, Phase};
use crate::ui::run::session::Session;
use crate::ui::theme::{Mode, Theme};

pub(super) fn draw(session: &Session, theme: Theme, area: Rect, picture: &mut Buffer) {
    let Some(ceremony) = &session.ceremony else { return };
    match ceremony.phase {
        Phase::Shown => draw_key(ceremony, theme, area, picture),
        Phase::TypedBack => draw_fields(ceremony, theme, area, picture),
    }
}

fn draw_key(ceremony: &Ceremony, theme: Theme, area: Rect, picture: &mut Buffer) {
    let text = ceremony.shown.text();
    let code = qr::lines(&text, theme.mode());
    let (width, height) = code.as_deref().map_or((0, 0), qr::size);
    // Beside the key where that fits, below it on a tall screen.
    let (left, place) = match theme.mode() {
        Mode::Colour if width + 36 <= area.width && height <= area.height => {
            let place = Rect::new(area.right() - width, area.y, width, height);
            (Rect { width: area.width - width - 2, ..area }, Some(place))
        }
        _ if width <= area.width && height + 14 <= area.height => {
            (area, Some(Rect::new(area.x, area.bottom() - height, width, height)))
        }
        _ => (area, None),
    };
    let rest = put_line(&Line::styled("Write the recovery key down now", theme.strong()), left, picture);
    let why = format!(
        "It opens {} when the TPM cannot. It is shown this once; keep it on paper, away from this machine.",
        ceremony.shown.disk
    );
    let rest = put(&paragraph(&why, rest.width, 5), theme.text(), rest, picture);
    let rest = below(rest, 1);
    let mut groups = text.split('-');
    let mut row = rest;
    for line in 1..=4 {
        let (one, other) = (groups.next().unwrap_or_default(), groups.next().unwrap_or_default());
        let x = row.x + 1;
        // Each group by itself: no string is made that holds the key.
        picture.set_stringn(x, row.y, format!("{} ", 2 * line - 1), 3, theme.muted());
        picture.set_stringn(x + 2, row.y, one, 8, theme.strong());
        picture.set_stringn(x + 13, row.y, format!("{} ", 2 * line), 3, theme.muted());
        picture.set_stringn(x + 15, row.y, other, 8, theme.strong());
        row = below(row, 1);
    }
    let note = if place.is_none() {
        "The eight groups in their order, joined by hyphens. (A QR code needs a taller screen than this one.)"
    } else {
        "The eight groups in their order, joined by hyphens; the QR code says the same."
    };
    let rest = put(&paragraph(note, row.width, 3), theme.muted(), below(row, 1), picture);
    buttons(ceremony, 0, theme, below(rest, 1), picture);
    if let (Some(place), Some(code)) = (place, code) {
        qr::draw(&code, place, picture);
    }
}

fn draw_fields(ceremony: &Ceremony, theme: Theme, area: Rect, picture: &mut Buffer) {
    let rest = put_line(&Line::styled("Type two groups back", theme.strong()), area, picture);
    let why = "The key is not on the screen any more. What you wrote down is read back now, while a mistake can still be mended.";
    let rest = put(&paragraph(why, rest.width, 3), theme.text(), rest, picture);
    let mut rest = below(rest, 1);
    for (position, (number, typed)) in ceremony.shown.asked().into_iter().zip(ceremony.typed()).enumerate() {
        let is_focus = ceremony.focus == position;
        picture.set_stringn(rest.x, rest.y, format!("Group {number}"), 8, theme.text());
        let style = if is_focus { theme.focus() } else { theme.field() };
        let (open, close) = if is_focus { ("[", "]") } else { (" ", " ") };
        picture.set_string(rest.x + 9, rest.y, open, style);
        picture.set_string(rest.x + 10, rest.y, " ".repeat(26), style);
        picture.set_stringn(rest.x + 10, rest.y, typed, 24, style);
        if is_focus {
            let at = u16::try_from(typed.len()).unwrap_or(0);
            picture.set_string(rest.x + 10 + at, rest.y, "_", style);
        }
        picture.set_string(rest.x + 36, rest.y, close, style);
        rest = below(rest, 2);
    }
    if let Some(mistake) = &ceremony.mistake {
        let mark = theme.mark(crate::check::Outcome::Fail);
        rest = put(&paragraph(&format!("{mark} {mistake}"), rest.width, 2), theme.bad(), rest, picture);
    }
    buttons(ceremony, 2, theme, below(rest, 1), picture);
}

/// One below the other; the focus is marked by more than colour.
fn buttons(ceremony: &Ceremony, first: usize, theme: Theme, area: Rect, picture: &mut Buffer) {
    for ((y, label), position) in (area.y..area.bottom()).zip(ceremony.buttons()).zip(first..) {
        let is_focus = ceremony.focus == position;
        let (mark, style) = if is_focus { ("▸", theme.focus()) } else { (" ", theme.text()) };
        picture.set_stringn(area.x, y, format!("{mark} [ {label} ]"), area.width.into(), style);
    }
}
