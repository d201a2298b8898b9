//! What lies over a page: stop, power off, where the support bundle goes, help.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{below, put};
use crate::ui::frame::{centred, draw_box};
use crate::ui::run::session::{Dialog, Page, Session};
use crate::ui::run::text::wrap;
use crate::ui::theme::Theme;

const WIDTH: u16 = 62;

pub(super) fn draw(session: &Session, theme: Theme, area: Rect, picture: &mut Buffer) {
    let Some(dialog) = &session.dialog else { return };
    let room = usize::from(WIDTH) - 4;
    match dialog {
        Dialog::Abort { yes } => {
            let (title, text, button) = abort_words(session);
            let lines = wrap(&text, room);
            let inside = open(title, lines.len() + 2, theme, area, picture);
            let rest = put(&lines, theme.text(), inside, picture);
            buttons(["No, go on", button], *yes, theme, below(rest, 1), picture);
        }
        Dialog::PowerOff { yes } => {
            let text = "The machine is switched off. `cofferdam resume` goes on after the next start.";
            let lines = wrap(text, room);
            let inside = open("Power off?", lines.len() + 2, theme, area, picture);
            let rest = put(&lines, theme.text(), inside, picture);
            buttons(["No", "Power off"], *yes, theme, below(rest, 1), picture);
        }
        Dialog::SaveTo { place } => {
            let text = "Directory that the support bundle is written to. A medium has to be mounted first (Shell).";
            let lines = wrap(text, room);
            let inside = open("Save support bundle", lines.len() + 2, theme, area, picture);
            let rest = below(put(&lines, theme.text(), inside, picture), 1);
            let shown: String = {
                let skip = place.chars().count().saturating_sub(room - 3);
                place.chars().skip(skip).collect()
            };
            picture.set_stringn(rest.x, rest.y, format!("[{shown}_{:room$}", ""), room - 1, theme.focus());
            picture.set_string(rest.x + u16::try_from(room).unwrap_or(WIDTH) - 1, rest.y, "]", theme.focus());
        }
        Dialog::Help => {
            let lines = wrap(help(session.page()), room);
            let inside = open("Help", lines.len(), theme, area, picture);
            put(&lines, theme.text(), inside, picture);
        }
    }
}

fn open(title: &str, rows: usize, theme: Theme, area: Rect, picture: &mut Buffer) -> Rect {
    let height = u16::try_from(rows + 2).unwrap_or(area.height);
    draw_box(title, theme.accent(), theme, centred(WIDTH, height, area), picture)
}

/// The one in focus stands in angle brackets.
fn buttons(labels: [&str; 2], is_second: bool, theme: Theme, area: Rect, picture: &mut Buffer) {
    let mut x = area.x;
    for (label, is_focus) in labels.into_iter().zip([!is_second, is_second]) {
        let (text, style) =
            if is_focus { (format!(" ▸ {label} "), theme.focus()) } else { (format!("   {label} "), theme.text()) };
        let width = u16::try_from(text.chars().count()).unwrap_or(0);
        picture.set_stringn(x, area.y, &text, area.right().saturating_sub(x).into(), style);
        x += width + 2;
    }
}

fn abort_words(session: &Session) -> (&'static str, String, &'static str) {
    if session.page() == Page::Failure {
        let text = "The installation stays as it is. `cofferdam resume` goes on with it, also after a reboot.";
        return ("Leave?", text.to_owned(), "Leave");
    }
    let text = match (&session.ceremony, &session.run.current) {
        (Some(_), _) => {
            "The volume is not used yet: `cofferdam resume` makes it anew, with a new recovery key.".to_owned()
        }
        (None, Some(current)) => {
            let title = session.run.steps.get(current.position).map_or("", |step| step.title.as_str());
            format!("The step in work is brought to its end first: {title}. `cofferdam resume` goes on from there.")
        }
        (None, None) => "`cofferdam resume` goes on from there.".to_owned(),
    };
    ("Stop the installation?", text, "Stop")
}

fn help(page: Page) -> &'static str {
    match page {
        Page::Progress => {
            "The plan is being carried out. Nothing has to be done here: a lost line or a closed window does not stop it, \
             and `cofferdam monitor` shows the same on another console.\n\nThe log has every line that the steps print; \
             arrows and page keys scroll in it. Stop waits for the step in work, so that nothing is half done.\n\nAfter a \
             crash or a power cut: `cofferdam resume`."
        }
        Page::Failure => {
            "Nothing was undone and nothing will reboot. Mend the cause and choose Retry: what is done is not done again.\n\n\
             The settings can be changed as long as nothing depends on them. The support bundle holds journal, events, \
             plan, configuration, checks and logs, and no secret."
        }
        Page::RecoveryKey => {
            "The recovery key opens the data volume when the TPM cannot: after a change of firmware, with another \
             mainboard, or when the disk is moved. Without it and without the escrow the data is lost.\n\nIts letters are \
             the same on all keyboards. Capitals and blanks do not matter when it is typed back."
        }
        Page::Done | Page::Dashboard => {
            "The site runs. This page shows no secret and may stay on the console; `cofferdam dashboard` brings it back.\n\n\
             Compare the fingerprint of the site CA before you trust a certificate of this site."
        }
    }
}
