//! A page as rows: text, fields, choices, findings, boxes. Pages are written with it, the view cuts the rows that fit, the
//! update asks it for the order of the fields, and the plain questionnaire asks its controls one by one.
//!
//! Pure: the same model gives the same sheet.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::field::Field;
use super::model::Model;
use super::task::{Broken, Task};
use super::theme::{Mode, Theme};
use crate::check::{Finding, Outcome};

/// What a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A line of text.
    Text,
    /// A line that is not shown.
    Secret,
    /// One of several; whether it is the one.
    Radio(bool),
    /// On or off.
    Check(bool),
    /// One of a few words, changed in place.
    Cycle,
    /// Something to do.
    Button,
    /// A row that tells more.
    Row,
}

/// A field as the keys and the plain questionnaire see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Which.
    pub field: Field,
    /// What it is.
    pub kind: Kind,
    /// Its label.
    pub label: String,
}

/// A row of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it shows.
    pub line: Line<'static>,
    /// The field it belongs to.
    pub field: Option<Field>,
}

/// Columns of labels.
const LABEL: usize = 20;
/// Columns of the mark that shows the focus.
const MARK: usize = 2;

/// A page under construction.
pub struct Sheet<'a> {
    /// The model.
    pub model: &'a Model,
    /// Styles.
    pub theme: Theme,
    /// Columns.
    pub width: usize,
    /// What scrolls.
    pub rows: Vec<Row>,
    /// The row of buttons at the bottom, which does not.
    pub buttons: Vec<(Field, String)>,
    /// All fields in their order; the buttons at the end.
    pub controls: Vec<Control>,
}

impl<'a> Sheet<'a> {
    /// An empty page.
    pub fn new(model: &'a Model, theme: Theme, width: usize) -> Self {
        Self { model, theme, width, rows: Vec::new(), buttons: Vec::new(), controls: Vec::new() }
    }

    fn is_focused(&self, field: Field) -> bool {
        self.model.dialog.is_none() && self.model.focused() == Some(field)
    }

    fn push(&mut self, line: Line<'static>, field: Option<Field>) {
        self.rows.push(Row { line, field });
    }

    fn control(&mut self, field: Field, kind: Kind, label: &str) {
        self.controls.push(Control { field, kind, label: label.to_owned() });
    }

    /// An empty row.
    pub fn gap(&mut self) {
        self.push(Line::default(), None);
    }

    /// The sentence on top of a page.
    pub fn lead(&mut self, text: &str) {
        self.wrapped(text, self.theme.strong(), 0, None);
        self.gap();
    }

    /// A heading within a page.
    pub fn heading(&mut self, text: &str) {
        self.push(Line::styled(text.to_owned(), self.theme.accent()), None);
    }

    /// Text in a style, broken at words.
    pub fn text(&mut self, text: &str, style: Style) {
        self.wrapped(text, style, MARK, None);
    }

    /// A muted explanation.
    pub fn note(&mut self, text: &str) {
        self.wrapped(text, self.theme.muted(), MARK, None);
    }

    fn wrapped(&mut self, text: &str, style: Style, indent: usize, field: Option<Field>) {
        for part in wrap(text, self.width.saturating_sub(indent)) {
            self.push(Line::from(vec![Span::raw(" ".repeat(indent)), Span::styled(part, style)]), field);
        }
    }

    /// A name and its value.
    pub fn fact(&mut self, name: &str, value: &str) {
        self.marked_fact(None, name, value);
    }

    /// A name and its value with a mark before the value.
    pub fn marked_fact(&mut self, outcome: Option<Outcome>, name: &str, value: &str) {
        let style = outcome.map_or(self.theme.text(), |outcome| self.theme.outcome(outcome));
        let mark = outcome.map_or_else(String::new, |outcome| format!("{} ", self.theme.mark(outcome)));
        let room = self.width.saturating_sub(MARK + LABEL + mark.chars().count());
        for (position, part) in wrap(value, room).into_iter().enumerate() {
            let (name, mark) =
                if position == 0 { (name, mark.clone()) } else { ("", " ".repeat(mark.chars().count())) };
            let spans = vec![
                Span::raw(" ".repeat(MARK)),
                Span::styled(padded(name, LABEL), self.theme.muted()),
                Span::styled(mark, style),
                Span::styled(
                    part,
                    if outcome.is_some_and(|outcome| outcome != Outcome::Pass) { style } else { self.theme.text() },
                ),
            ];
            self.push(Line::from(spans), None);
        }
    }

    fn marker(&self, field: Field) -> Span<'static> {
        if self.is_focused(field) { Span::styled("▸ ", self.theme.accent()) } else { Span::raw("  ") }
    }

    /// A line of text to fill in.
    pub fn text_field(&mut self, field: Field, label: &str, hint: &str) {
        let value = self.model.text(field).cloned().unwrap_or_default().replace('\n', "│");
        self.control(field, Kind::Text, label);
        let line = self.input_line(field, label, &value);
        self.push(line, Some(field));
        self.under(field, hint);
    }

    /// A secret to fill in; only its length is seen.
    pub fn secret_field(&mut self, field: Field, label: &str, hint: &str) {
        let count = self.model.secret(field).map_or(0, super::secret::Secret::count);
        self.control(field, Kind::Secret, label);
        let line = self.input_line(field, label, &"•".repeat(count));
        self.push(line, Some(field));
        self.under(field, hint);
    }

    fn input_line(&self, field: Field, label: &str, value: &str) -> Line<'static> {
        let is_focused = self.is_focused(field);
        let room = self.width.saturating_sub(MARK + LABEL + 2).min(54);
        let cursor = if is_focused { self.model.cursor.min(value.chars().count()) } else { 0 };
        let skipped = cursor.saturating_sub(room.saturating_sub(1));
        let shown: Vec<char> = value.chars().skip(skipped).take(room).collect();
        let style = if is_focused { self.theme.focus() } else { self.theme.field() };
        let (open, close) = if self.theme.mode() == Mode::Basic { ("[", "]") } else { (" ", " ") };
        let label_style = if is_focused { self.theme.strong() } else { self.theme.text() };
        let mut spans =
            vec![self.marker(field), Span::styled(padded(label, LABEL), label_style), Span::styled(open, style)];
        let at = cursor - skipped;
        let part = |range: &[char]| range.iter().collect::<String>();
        let full = format!("{:<room$}", part(&shown));
        let full: Vec<char> = full.chars().collect();
        if is_focused && at < full.len() {
            spans.push(Span::styled(part(&full[..at]), style));
            spans.push(Span::styled(part(&full[at..=at]), cursor_style(style, self.theme)));
            spans.push(Span::styled(part(&full[at + 1..]), style));
        } else {
            spans.push(Span::styled(part(&full), style));
        }
        spans.push(Span::styled(close, style));
        Line::from(spans)
    }

    /// What is wrong with a field, else its hint.
    fn under(&mut self, field: Field, hint: &str) {
        let page = self.model.page;
        let value = self.model.text(field).map_or("", |text| text.trim());
        let is_told = self.model.tried.contains(&page) || (!value.is_empty() && !self.is_focused(field));
        let problems = if is_told { self.model.problems(page) } else { Vec::new() };
        let problem = self.model.problem_of(field, &problems);
        let (text, style) = match problem {
            Some(problem) => (format!("{} {}", self.theme.mark(Outcome::Fail), problem.message), self.theme.bad()),
            None => (hint.to_owned(), self.theme.muted()),
        };
        if !text.is_empty() {
            self.wrapped(&text, style, MARK + LABEL + 1, Some(field));
        }
    }

    /// One of several.
    pub fn radio(&mut self, field: Field, on: bool, label: &str, detail: &str) {
        self.option(field, Kind::Radio(on), if on { "(•) " } else { "( ) " }, label, detail);
    }

    /// On or off.
    pub fn check(&mut self, field: Field, on: bool, label: &str, detail: &str) {
        self.option(field, Kind::Check(on), if on { "[×] " } else { "[ ] " }, label, detail);
    }

    fn option(&mut self, field: Field, kind: Kind, mark: &'static str, label: &str, detail: &str) {
        self.control(field, kind, label);
        let is_focused = self.is_focused(field);
        let is_on = matches!(kind, Kind::Radio(true) | Kind::Check(true));
        let style = match (is_focused, is_on) {
            (true, _) => self.theme.focus(),
            (false, true) => self.theme.strong(),
            (false, false) => self.theme.text(),
        };
        let label = cut(label, self.width.saturating_sub(MARK + 4));
        let line = Line::from(vec![
            self.marker(field),
            Span::styled(mark, if is_on { self.theme.accent() } else { self.theme.text() }),
            Span::styled(label, style),
        ]);
        self.push(line, Some(field));
        if !detail.is_empty() {
            self.wrapped(detail, self.theme.muted(), MARK + 4, Some(field));
        }
    }

    /// What cannot be chosen, and why not.
    pub fn unavailable(&mut self, label: &str, why: &str) {
        let label = cut(label, self.width.saturating_sub(MARK + 4));
        self.push(Line::from(vec![Span::raw("  "), Span::styled(format!(" –  {label}"), self.theme.muted())]), None);
        if !why.is_empty() {
            self.wrapped(why, self.theme.muted(), MARK + 4, None);
        }
    }

    /// One of a few words, changed in place.
    pub fn cycle(&mut self, field: Field, label: &str, value: &str, hint: &str) {
        self.control(field, Kind::Cycle, label);
        let style = if self.is_focused(field) { self.theme.focus() } else { self.theme.field() };
        let label_style = if self.is_focused(field) { self.theme.strong() } else { self.theme.text() };
        let line = Line::from(vec![
            self.marker(field),
            Span::styled(padded(label, LABEL), label_style),
            Span::styled(format!(" ‹ {value} › "), style),
        ]);
        self.push(line, Some(field));
        self.under(field, hint);
    }

    /// What a field is about; it stays when something is wrong with the field, too.
    pub fn help(&mut self, field: Field, text: &str) {
        self.wrapped(text, self.theme.muted(), MARK + LABEL + 1, Some(field));
    }

    /// What the questionnaire says for the last field, where its label alone says too little.
    pub fn said(&mut self, text: &str) {
        if let Some(control) = self.controls.last_mut() {
            text.clone_into(&mut control.label);
        }
    }

    /// Something to do, within the page.
    pub fn action(&mut self, field: Field, label: &str, detail: &str) {
        self.control(field, Kind::Button, label);
        let style = if self.is_focused(field) { self.theme.focus() } else { self.theme.accent() };
        let spans = vec![
            self.marker(field),
            Span::styled(format!("[ {label} ]"), style),
            Span::styled(format!("  {detail}"), self.theme.muted()),
        ];
        self.push(Line::from(spans), Some(field));
    }

    /// Something to do with the field above it: stands in the column of the entries.
    pub fn field_action(&mut self, field: Field, label: &str, detail: &str) {
        self.control(field, Kind::Button, label);
        let style = if self.is_focused(field) { self.theme.focus() } else { self.theme.accent() };
        let spans = vec![
            self.marker(field),
            Span::raw(" ".repeat(LABEL + 1)),
            Span::styled(format!("[ {label} ]"), style),
            Span::styled(format!("  {detail}"), self.theme.muted()),
        ];
        self.push(Line::from(spans), Some(field));
    }

    /// A button of the row at the bottom.
    pub fn button(&mut self, field: Field, label: &str) {
        self.buttons.push((field, label.to_owned()));
    }

    /// The result of a check. One that stands against an installation takes the focus.
    pub fn finding(&mut self, number: usize, finding: &Finding) {
        let field = Field::Finding(number);
        let can_focus = finding.blocks;
        if can_focus {
            self.control(field, Kind::Row, &finding.id);
        }
        let is_focused = can_focus && self.is_focused(field);
        let style = self.theme.outcome(finding.outcome);
        let mark = format!("{:<3}", self.theme.mark(finding.outcome));
        let id_style = if is_focused { self.theme.focus() } else { self.theme.text() };
        let mut measured = finding.measured.clone();
        if finding.outcome != Outcome::Pass {
            measured = format!("{measured} (wanted: {})", finding.threshold);
        }
        if finding.accepted {
            measured.push_str("  [accepted]");
        }
        let parts = wrap(&measured, self.width.saturating_sub(MARK + 3 + 22));
        for (position, part) in parts.into_iter().enumerate() {
            let mut spans = if position == 0 {
                let id = Span::styled(padded(&finding.id, 21), id_style);
                vec![self.row_marker(can_focus, field), Span::styled(mark.clone(), style), id, Span::raw(" ")]
            } else {
                vec![Span::raw(" ".repeat(MARK + 3 + 22))]
            };
            let text = if finding.outcome == Outcome::Pass { self.theme.muted() } else { self.theme.text() };
            spans.push(Span::styled(part, text));
            self.push(Line::from(spans), can_focus.then_some(field));
        }
        if let Some(hint) = &finding.hint {
            self.wrapped(&format!("hint: {hint}"), self.theme.muted(), MARK + 3 + 2, can_focus.then_some(field));
        }
    }

    fn row_marker(&self, can_focus: bool, field: Field) -> Span<'static> {
        if can_focus { self.marker(field) } else { Span::raw("  ") }
    }

    /// A box with a border; `style` is the border's.
    pub fn panel(&mut self, title: &str, style: Style, lines: Vec<Line<'static>>) {
        let inner = self.width.saturating_sub(4);
        let head = format!("┌─ {title} ");
        let rest = self.width.saturating_sub(head.chars().count() + 1);
        self.push(Line::styled(format!("{head}{}┐", "─".repeat(rest)), style), None);
        for line in lines {
            let padding = inner.saturating_sub(line.width());
            let mut spans = vec![Span::styled("│ ", style)];
            spans.extend(line.spans.into_iter().map(|span| span.patch_style(Style::default())));
            spans.push(Span::raw(" ".repeat(padding)));
            spans.push(Span::styled(" │", style));
            self.push(Line::from(spans), None);
        }
        self.push(Line::styled(format!("└{}┘", "─".repeat(self.width.saturating_sub(2))), style), None);
    }

    /// A line of its own making.
    pub fn line(&mut self, spans: Vec<Span<'static>>) {
        self.push(Line::from(spans), None);
    }

    /// A line that belongs to a field: it is seen while the focus is there.
    pub fn field_line(&mut self, field: Field, spans: Vec<Span<'static>>) {
        self.push(Line::from(spans), Some(field));
    }

    /// What runs in the background, or why it ended without a result. Says whether it said something.
    pub fn progress<Q: PartialEq + Clone, T>(&mut self, task: &Task<Q, T>, what: &str) -> bool {
        if let Some(running) = task.running() {
            let seconds = (self.model.tick - running.since.min(self.model.tick)) / super::task::TICKS_PER_SECOND;
            let waited = if seconds >= 3 { format!(" {seconds} s") } else { String::new() };
            let spinner = self.theme.spinner(self.model.tick);
            self.line(vec![
                Span::raw("  "),
                Span::styled(spinner, self.theme.accent()),
                Span::styled(format!(" {what}{waited}"), self.theme.muted()),
            ]);
            return true;
        }
        let text = match task.broken() {
            Some(Broken::TimedOut(seconds)) => format!("{what} gave no answer within {seconds} s; F4 or ^R asks again"),
            Some(Broken::Cancelled) => format!("{what} was stopped; F4 or ^R asks again"),
            None => return false,
        };
        self.text(&format!("{} {text}", self.theme.mark(Outcome::Unknown)), self.theme.warn());
        true
    }

    /// Adds the buttons to the controls; called when the page is complete.
    pub fn finish(&mut self) {
        for (field, label) in self.buttons.clone() {
            self.control(field, Kind::Button, &label);
        }
    }
}

fn cursor_style(style: Style, theme: Theme) -> Style {
    match theme.mode() {
        Mode::Colour => style.add_modifier(Modifier::REVERSED),
        Mode::Basic => Style::new().add_modifier(Modifier::UNDERLINED | Modifier::BOLD),
    }
}

/// Breaks a text at words into lines of at most `width` characters; a longer word is cut into pieces.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    let mut length = 0;
    for word in text.split_whitespace() {
        let mut characters: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + characters.len() <= width {
            length += 1;
            if let Some(line) = lines.last_mut() {
                line.push(' ');
            }
        } else if length > 0 {
            lines.push(String::new());
            length = 0;
        }
        while length + characters.len() > width {
            let rest = characters.split_off(width - length);
            if let Some(line) = lines.last_mut() {
                line.extend(characters);
            }
            lines.push(String::new());
            (characters, length) = (rest, 0);
        }
        length += characters.len();
        if let Some(line) = lines.last_mut() {
            line.extend(characters);
        }
    }
    lines
}

/// At most `width` characters; what is cut off is marked.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Exactly `width` characters.
pub fn padded(text: &str, width: usize) -> String {
    format!("{:<width$}", cut(text, width))
}

#[cfg(test)]
mod tests {
    use super::{cut, padded, wrap};

    #[test]
    fn text_is_broken_at_words() {
        let table: [(&str, usize, &[&str]); 5] = [
            ("", 10, &[""]),
            ("one two three", 7, &["one two", "three"]),
            ("abcdefghij", 4, &["abcd", "efgh", "ij"]),
            ("a bcdefghij k", 4, &["a", "bcde", "fghi", "j k"]),
            ("x", 0, &["x"]),
        ];
        for (text, width, expected) in table {
            assert_eq!(wrap(text, width), expected, "{text:?} {width}");
        }
        assert_eq!((cut("abcdef", 4), padded("ab", 4)), ("abc…".to_owned(), "ab  ".to_owned()));
    }
}
