//! Draws a [`Session`]: a pure function of it.

mod dashboard;
mod dialog;
mod done;
mod failure;
mod progress;
mod qr;
mod recovery;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

pub use dashboard::draw as draw_dashboard;
pub use progress::{draw as draw_progress, shown as progress_shown};

use super::session::{Page, Session};
use super::text::wrap;
use crate::ui::frame::{self, Chrome};
use crate::ui::keymap::{Command, Hint};
use crate::ui::theme::Theme;

/// The names of these pages.
const TRAIL: [&str; 3] = ["Install", "Recovery key", "Done"];

/// Draws the whole screen.
pub fn draw(session: &Session, area: Rect, picture: &mut Buffer) {
    let theme = Theme::new(session.mode);
    let page = session.page();
    let chrome = Chrome {
        product: product(),
        place: session.plan.fqdn.clone(),
        trail: (TRAIL.to_vec(), place_of(page)),
        notice: Line::styled(session.notice.clone(), theme.muted()),
        keys: keys(session, page),
    };
    let body = frame::draw(&chrome, theme, area, picture);
    if let Some(body) = body {
        match page {
            Page::Progress => progress::draw(&progress::Shown::of(session), theme, body, picture),
            Page::Failure => failure::draw(session, theme, body, picture),
            Page::RecoveryKey => recovery::draw(session, theme, body, picture),
            Page::Done => done::draw(session, theme, body, picture),
            Page::Dashboard => dashboard::draw(session.site.as_ref(), theme, body, picture),
        }
        if let Some(back) = session.log.filter(|_| page != Page::Progress) {
            progress::draw_log(&session.run, back, theme, body, picture);
        }
        dialog::draw(session, theme, body, picture);
    }
    theme.flatten(picture);
}

/// Left in the title bar.
pub fn product() -> String {
    concat!("Cofferdam ", env!("CARGO_PKG_VERSION")).to_owned()
}

fn place_of(page: Page) -> usize {
    match page {
        Page::Progress | Page::Failure => 0,
        Page::RecoveryKey => 1,
        Page::Done | Page::Dashboard => 2,
    }
}

fn keys(session: &Session, page: Page) -> Vec<Hint> {
    let mode = session.mode;
    let of = |command| Hint::of(command, mode);
    let named = |command, word| Hint::named(command, mode, Some(word));
    if session.dialog.is_some() {
        return vec![Hint::new("Tab", "Choose"), named(Command::Enter, "OK"), named(Command::Back, "Close")];
    }
    let log = || named(Command::Log, if session.log.is_some() { "Hide log" } else { "Log" });
    let mut keys = match page {
        Page::Progress => vec![log(), named(Command::Abort, "Stop")],
        Page::RecoveryKey => {
            vec![Hint::new("Tab", "Choose"), named(Command::Enter, "OK"), named(Command::Abort, "Stop")]
        }
        Page::Failure => vec![
            Hint::new("Tab", "Choose"),
            named(Command::Enter, "Do it"),
            named(Command::Again, "Retry"),
            log(),
            named(Command::Abort, "Leave"),
        ],
        Page::Done => vec![named(Command::Enter, "Dashboard"), log(), Hint::new("q", "Leave")],
        Page::Dashboard => {
            vec![named(Command::Again, "Refresh"), named(Command::Back, "Summary"), Hint::new("q", "Leave")]
        }
    };
    keys.push(of(Command::Help));
    if session.may.open_shell && page != Page::RecoveryKey {
        keys.push(of(Command::Shell));
    }
    keys.push(of(Command::Look));
    keys
}

/// Writes lines from the top of an area; gives the area below them.
pub(super) fn put(lines: &[String], style: Style, area: Rect, picture: &mut Buffer) -> Rect {
    let mut used = 0;
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        picture.set_stringn(area.x, y, line, area.width.into(), style);
        used += 1;
    }
    below(area, used)
}

/// The same for one line.
pub(super) fn put_line(line: &Line, area: Rect, picture: &mut Buffer) -> Rect {
    if area.height > 0 {
        picture.set_line(area.x, area.y, line, area.width);
    }
    below(area, 1)
}

/// What is left of an area below its first rows.
pub(super) fn below(area: Rect, rows: u16) -> Rect {
    let rows = rows.min(area.height);
    Rect { y: area.y + rows, height: area.height - rows, ..area }
}

/// Text wrapped to an area, at most `most` lines; the last one says when there is more.
pub(super) fn paragraph(text: &str, width: u16, most: usize) -> Vec<String> {
    let mut lines = wrap(text, width.into());
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            let room = usize::from(width).saturating_sub(1);
            *last = last.chars().take(room).collect::<String>() + "…";
        }
    }
    lines
}

#[cfg(test)]
mod tests;
