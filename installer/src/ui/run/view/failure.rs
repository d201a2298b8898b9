//! Page 11 when the installation stopped: what failed, what it has changed, what can be done now.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{below, paragraph, put, put_line};
use crate::layout;
use crate::ui::run::changes::changes;
use crate::ui::run::model::Outcome;
use crate::ui::run::session::{Choice, Session};
use crate::ui::theme::Theme;

pub(super) fn draw(session: &Session, theme: Theme, area: Rect, picture: &mut Buffer) {
    let Outcome::Failed(failure) = &session.run.outcome else { return };
    let choices = session.choices();
    let menu = u16::try_from(choices.len()).unwrap_or(0);
    let (above, below_it) = (area.height.saturating_sub(menu), menu.min(area.height));

    let top = Rect { height: above, ..area };
    let mark = theme.mark(crate::check::Outcome::Fail);
    let head = Line::from(vec![
        Span::styled(format!("{mark} "), theme.bad()),
        Span::styled(format!("The installation stopped: {}", failure.title), theme.danger()),
    ]);
    let rest = put_line(&head, top, picture);
    let code = format!("code {}/{}", failure.step, failure.code);
    let rest = put_line(&Line::styled(code, theme.muted()), rest, picture);
    // What changed and the place of the log always fit; the error gets what is left.
    let changed = changes(&session.plan, &session.run);
    let changed_rows = changed.len().min(4) + 1;
    let room = usize::from(rest.height).saturating_sub(changed_rows + 3).max(2);
    let hint = failure.hint.as_ref().map(|hint| paragraph(&format!("hint: {hint}"), rest.width, (room / 2).max(1)));
    let error = paragraph(&failure.error, rest.width, room.saturating_sub(hint.as_ref().map_or(0, Vec::len)).max(1));
    let rest = put(&error, theme.text(), rest, picture);
    let rest = put(&hint.unwrap_or_default(), theme.strong(), rest, picture);

    let rest = below(rest, 1);
    let title = if changed.is_empty() { "Nothing was changed on this host." } else { "Changed on this host so far:" };
    let rest = put_line(&Line::styled(title, theme.strong()), rest, picture);
    let lines: Vec<String> = if changed.len() > 4 {
        let more = format!("  … and {} more", changed.len() - 3);
        changed.iter().take(3).map(|line| format!("  {line}")).chain([more]).collect()
    } else {
        changed.iter().map(|line| format!("  {line}")).collect()
    };
    let rest = put(&lines, theme.text(), rest, picture);
    put_line(&Line::styled(format!("Log: {}, {}", layout::JOURNAL, layout::EVENTS), theme.muted()), rest, picture);

    let bottom = Rect { y: area.bottom() - below_it, height: below_it, ..area };
    for ((y, choice), position) in (bottom.y..bottom.bottom()).zip(&choices).zip(0..) {
        let (label, what) = words(*choice);
        let (mark, style) = if position == session.choice { ("▸", theme.focus()) } else { (" ", theme.text()) };
        picture.set_stringn(bottom.x, y, format!("{mark} {label:<20}"), 22, style);
        picture.set_stringn(bottom.x + 24, y, what, usize::from(bottom.width).saturating_sub(24), theme.muted());
    }
}

fn words(choice: Choice) -> (&'static str, &'static str) {
    match choice {
        Choice::Retry => ("Retry", "from this step on; what is done is not done again"),
        Choice::Settings => ("Back to settings", "change the answers; nothing depends on them yet"),
        Choice::Support => ("Save support bundle", "without secrets, to a medium or directory"),
        Choice::Shell => ("Shell", "`exit` comes back here"),
        Choice::Leave => ("Leave", "`cofferdam resume` goes on, also after a reboot"),
        Choice::PowerOff => ("Power off", "`cofferdam resume` goes on after the next start"),
    }
}
