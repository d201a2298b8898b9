//! The frame of every page: title bar, trail of pages, body, a line for what just happened, footer of keys.
//!
//! Pure: a picture out of [`Chrome`] and a theme. Called by `view` and by `run/`.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::keymap::Hint;
use super::terminal::SMALLEST;
use super::theme::{Mode, Theme};

/// What stands around the body.
#[derive(Debug, Clone, Default)]
pub struct Chrome {
    /// Left in the title bar, for example `Cofferdam 1.0.0`.
    pub product: String,
    /// Right in the title bar, for example `5 of 10`.
    pub place: String,
    /// Names of the pages, and which of them is shown; empty for none.
    pub trail: (Vec<&'static str>, usize),
    /// What just happened, or what runs; one line.
    pub notice: Line<'static>,
    /// The keys that work now.
    pub keys: Vec<Hint>,
}

/// Draws the frame and gives the room for the body; `None` when the terminal is too small, which is then said instead.
pub fn draw(chrome: &Chrome, theme: Theme, area: Rect, picture: &mut Buffer) -> Option<Rect> {
    picture.set_style(area, theme.text());
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        too_small(theme, area, picture);
        return None;
    }
    let rows =
        [1, 1, 1, 0, 1, 1].map(|height| if height == 0 { Constraint::Fill(1) } else { Constraint::Length(height) });
    let [title, trail, rule, body, notice, keys] = Layout::vertical(rows).areas(area);

    picture.set_style(title, theme.title());
    picture.set_stringn(title.x + 1, title.y, &chrome.product, usize::from(title.width) / 2, theme.title());
    let place = Line::from(chrome.place.as_str()).style(theme.title());
    put_right(&place, title, picture);

    put_trail(chrome, theme, trail, picture);
    picture.set_string(rule.x, rule.y, "─".repeat(rule.width.into()), theme.faint());
    picture.set_line(notice.x + 2, notice.y, &chrome.notice, notice.width.saturating_sub(3));
    // Two lines of keys where there is nothing to say.
    let lines = key_lines(&chrome.keys, theme, keys.width.saturating_sub(2).into());
    let is_quiet = chrome.notice.spans.iter().all(|span| span.content.is_empty());
    let rows: &[Rect] = if is_quiet && lines.len() > 1 { &[notice, keys] } else { &[keys] };
    for (row, line) in rows.iter().zip(&lines) {
        picture.set_line(row.x + 1, row.y, line, row.width - 1);
    }
    Some(Rect { x: body.x + 2, width: body.width - 4, ..body })
}

fn put_right(line: &Line, area: Rect, picture: &mut Buffer) {
    let width = u16::try_from(line.width()).unwrap_or(area.width).min(area.width);
    picture.set_line(area.right().saturating_sub(width + 1), area.y, line, width);
}

/// The page that is shown stands in brackets where there is no colour.
fn put_trail(chrome: &Chrome, theme: Theme, area: Rect, picture: &mut Buffer) {
    let (names, current) = &chrome.trail;
    let mut line = Line::default();
    for (position, name) in names.iter().enumerate() {
        let is_current = position == *current;
        let style = match position.cmp(current) {
            std::cmp::Ordering::Less => theme.text(),
            std::cmp::Ordering::Equal => theme.strong().patch(theme.accent()),
            std::cmp::Ordering::Greater => theme.muted(),
        };
        let shown = match theme.mode() {
            Mode::Basic if is_current => format!("[{name}]"),
            _ => (*name).to_owned(),
        };
        if position > 0 {
            line.push_span(Span::raw(" "));
        }
        line.push_span(Span::styled(shown, style));
    }
    picture.set_line(area.x + 1, area.y, &line, area.width - 1);
}

/// The keys in their order, as many to a line as fit.
fn key_lines(keys: &[Hint], theme: Theme, room: usize) -> Vec<Line<'static>> {
    let mut lines = vec![Line::default()];
    for hint in keys {
        let wanted = hint.key.chars().count() + 1 + hint.label.chars().count();
        let is_full = lines.last().is_some_and(|line| line.width() > 0 && line.width() + 2 + wanted > room);
        if is_full {
            lines.push(Line::default());
        }
        let Some(line) = lines.last_mut() else { break };
        if line.width() > 0 {
            line.push_span(Span::raw("  "));
        }
        line.push_span(Span::styled(hint.key.clone(), theme.accent()));
        line.push_span(Span::styled(format!(" {}", hint.label), theme.muted()));
    }
    lines
}

fn too_small(theme: Theme, area: Rect, picture: &mut Buffer) {
    let (width, height) = SMALLEST;
    let lines = [
        format!("terminal too small: {}×{}, needs {width}×{height}", area.width, area.height),
        "enlarge the window; nothing is lost".to_owned(),
    ];
    for (offset, text) in (0..).zip(&lines) {
        let y = area.y + area.height / 2 + offset;
        if y < area.bottom() {
            let length = u16::try_from(text.chars().count()).unwrap_or(area.width);
            let x = area.x + area.width.saturating_sub(length) / 2;
            picture.set_stringn(
                x,
                y,
                text,
                area.width.into(),
                if offset == 0 { theme.strong() } else { theme.muted() },
            );
        }
    }
}

/// A box with a title, drawn over what is there; gives the room inside.
pub fn draw_box(title: &str, border: Style, theme: Theme, area: Rect, picture: &mut Buffer) -> Rect {
    for y in area.top()..area.bottom() {
        picture.set_string(area.x, y, " ".repeat(area.width.into()), Style::reset().patch(theme.text()));
    }
    if area.width < 4 || area.height < 2 {
        return Rect { width: 0, height: 0, ..area };
    }
    let inner_width = usize::from(area.width) - 2;
    let (left, right) = (area.x, area.right() - 1);
    picture.set_string(left, area.y, format!("┌{}┐", "─".repeat(inner_width)), border);
    picture.set_string(left, area.bottom() - 1, format!("└{}┘", "─".repeat(inner_width)), border);
    for y in area.y + 1..area.bottom() - 1 {
        picture.set_string(left, y, "│", border);
        picture.set_string(right, y, "│", border);
    }
    if !title.is_empty() {
        picture.set_stringn(
            left + 2,
            area.y,
            format!(" {title} "),
            inner_width.saturating_sub(2),
            border.patch(theme.strong()),
        );
    }
    Rect::new(area.x + 2, area.y + 1, area.width - 4, area.height - 2)
}

/// A box of this size in the middle of an area, cut to it.
pub fn centred(width: u16, height: u16, area: Rect) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect::new(area.x + (area.width - width) / 2, area.y + (area.height - height) / 2, width, height)
}
