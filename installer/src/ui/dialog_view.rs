//! The pictures of what opens over a page.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::dialog::{Accept, Begin, BeginFocus, Dialog, Save, SaveFocus};
use super::field::{Pem, page_name};
use super::frame::{centred, draw_box};
use super::keymap::{BINDINGS, Hint};
use super::model::Model;
use super::screen;
use super::secret::Secret;
use super::sheet::{cut, wrap};
use super::theme::{Mode, Theme};

/// Draws a dialog over the body of the page.
pub(super) fn draw(dialog: &Dialog, model: &Model, theme: Theme, body: Rect, picture: &mut Buffer) {
    match dialog {
        Dialog::Help => help(model, theme, body, picture),
        Dialog::Log(back) => log(model, *back, theme, body, picture),
        Dialog::Abort(yes) => {
            let text =
                "Nothing has been changed on this machine. The answers are lost unless you save them (F3 or ^O).";
            let buttons = [("Stay here", !yes), ("Quit", *yes)];
            question("Quit the installer?", text, &buttons, theme.accent(), theme, body, picture);
        }
        Dialog::Accept(accept) => accept_box(accept, theme, body, picture),
        Dialog::Save(save) => save_box(save, model, theme, body, picture),
        Dialog::Paste(pem, text) => paste_box(*pem, text, theme, body, picture),
        Dialog::Request(text, scrolled) => {
            let lines: Vec<Line> =
                text.lines().skip(*scrolled).map(|line| Line::styled(line.to_owned(), theme.text())).collect();
            show("Certificate request", &lines, theme.accent(), theme, body, picture);
        }
        Dialog::Begin(begin) => begin_box(begin, model, theme, body, picture),
    }
}

/// A box as high as its lines, at most as high as the body.
fn show(title: &str, lines: &[Line], border: Style, theme: Theme, body: Rect, picture: &mut Buffer) {
    let height = u16::try_from(lines.len() + 2).unwrap_or(body.height);
    let area = centred(76, height, body);
    let inner = draw_box(title, border, theme, area, picture);
    for (offset, line) in (0..inner.height).zip(lines) {
        picture.set_line(inner.x, inner.y + offset, line, inner.width);
    }
}

const INNER: usize = 72;

fn paragraph(text: &str, style: Style) -> Vec<Line<'static>> {
    wrap(text, INNER).into_iter().map(|part| Line::styled(part, style)).collect()
}

fn buttons(all: &[(&str, bool)], theme: Theme) -> Line<'static> {
    let mut line = Line::default();
    for (label, is_focused) in all {
        line.push_span(Span::styled(format!("[ {label} ]"), if *is_focused { theme.focus() } else { theme.accent() }));
        line.push_span(Span::raw("   "));
    }
    line
}

fn question(
    title: &str,
    text: &str,
    all: &[(&str, bool)],
    border: Style,
    theme: Theme,
    body: Rect,
    picture: &mut Buffer,
) {
    let mut lines = paragraph(text, theme.text());
    lines.push(Line::default());
    lines.push(buttons(all, theme));
    show(title, &lines, border, theme, body, picture);
}

fn help(model: &Model, theme: Theme, body: Rect, picture: &mut Buffer) {
    let mut lines = Vec::new();
    for part in screen::help(model.page).split("\n\n") {
        lines.extend(paragraph(part, theme.text()));
        lines.push(Line::default());
    }
    let mut keys = Line::default();
    for binding in BINDINGS {
        let function = Hint::of(binding.command, Mode::Colour).key;
        let twin = Hint::of(binding.command, Mode::Basic).key;
        let both = if function == twin { twin } else { format!("{function} {twin}") };
        keys.push_span(Span::styled(both, theme.accent()));
        keys.push_span(Span::styled(format!(" {}  ", binding.label), theme.muted()));
        if keys.width() > 50 {
            lines.push(std::mem::take(&mut keys));
        }
    }
    lines.push(keys);
    show(&format!("Help: {}", page_name(model.page)), &lines, theme.accent(), theme, body, picture);
}

fn log(model: &Model, back: usize, theme: Theme, body: Rect, picture: &mut Buffer) {
    let room = usize::from(body.height.saturating_sub(2));
    let end = model.log.len().saturating_sub(back);
    let start = end.saturating_sub(room);
    let mut lines: Vec<Line> = model
        .log
        .get(start..end)
        .unwrap_or_default()
        .iter()
        .map(|text| Line::styled(cut(text, INNER), theme.text()))
        .collect();
    if lines.is_empty() {
        lines.push(Line::styled("nothing has happened yet", theme.muted()));
    }
    show("Log", &lines, theme.accent(), theme, body, picture);
}

fn accept_box(accept: &Accept, theme: Theme, body: Rect, picture: &mut Buffer) {
    let mut lines = paragraph(&format!("{}: {}", accept.id, accept.measured), theme.strong());
    if !accept.hint.is_empty() {
        lines.extend(paragraph(&format!("hint: {}", accept.hint), theme.muted()));
    }
    lines.push(Line::default());
    let text = if accept.is_second {
        "Are you sure? The site's record will say for good that this check failed and was let pass."
    } else {
        "This check stands against an installation. It can be let pass; mending it is better."
    };
    lines.extend(paragraph(text, theme.text()));
    lines.push(Line::default());
    let yes = if accept.is_second { "Yes, I am sure" } else { "Let it pass" };
    lines.push(buttons(&[("No", !accept.yes), (yes, accept.yes)], theme));
    let title = if accept.is_second { "Let it pass? (2 of 2)" } else { "Let it pass? (1 of 2)" };
    show(title, &lines, theme.warn(), theme, body, picture);
}

/// A line of text to fill in, within a dialog.
fn input(text: &str, cursor: usize, is_focused: bool, theme: Theme) -> Line<'static> {
    let room = INNER - 4;
    let skipped = cursor.saturating_sub(room - 1);
    let shown: String = text.chars().skip(skipped).take(room).collect();
    let style = if is_focused { theme.focus() } else { theme.field() };
    let (open, close) = if theme.mode() == Mode::Basic { ("[", "]") } else { (" ", " ") };
    let marker = if is_focused { "▸ " } else { "  " };
    Line::from(vec![Span::styled(marker, theme.accent()), Span::styled(format!("{open}{shown:<room$}{close}"), style)])
}

fn save_box(save: &Save, model: &Model, theme: Theme, body: Rect, picture: &mut Buffer) {
    let is = |part| save.focus == part;
    let mut lines =
        paragraph("The file holds no secret, and `cofferdam install --config FILE` accepts it.", theme.text());
    lines.push(Line::default());
    lines.push(input(&save.path, save.cursor, is(SaveFocus::Path), theme));
    if model.answers.disk.is_some() && model.answers.encrypt {
        let mark = if save.with_token { "[×]" } else { "[ ]" };
        let style = if is(SaveFocus::Token) { theme.focus() } else { theme.text() };
        lines.push(Line::default());
        lines.push(Line::styled(format!("  {mark} It may erase the chosen disk without a question"), style));
    }
    let open = model.answers.config().err().map_or(0, |problems| problems.len());
    if open > 0 {
        lines.push(Line::default());
        lines.extend(paragraph(&format!("{open} answers are still open; the file will name them."), theme.warn()));
    }
    lines.push(Line::default());
    lines.push(buttons(&[("Cancel", is(SaveFocus::Cancel)), ("Save", is(SaveFocus::Save))], theme));
    show("Save the answers", &lines, theme.accent(), theme, body, picture);
}

fn paste_box(pem: Pem, text: &Secret, theme: Theme, body: Rect, picture: &mut Buffer) {
    let what = match pem {
        Pem::Certificate => "the certificate and its intermediates",
        Pem::Key => "the private key",
        Pem::Roots => "the root certificate",
    };
    let mut lines = paragraph(&format!("Paste {what} now, from -----BEGIN to END-----, all lines."), theme.text());
    lines.extend(paragraph("It is kept in memory (/run) until the disk is encrypted.", theme.muted()));
    lines.push(Line::default());
    let count = text.expose().lines().count();
    // Of a key nothing is shown but that it came.
    let heads = text.expose().lines().filter(|line| line.starts_with("-----BEGIN") || line.starts_with("-----END"));
    if text.is_empty() {
        lines.push(Line::styled("waiting for the text …", theme.muted()));
    } else {
        lines.push(Line::styled(format!("{count} lines so far"), theme.strong()));
        lines.extend(heads.take(8).map(|line| Line::styled(cut(line, 40), theme.muted())));
    }
    show("Paste", &lines, theme.accent(), theme, body, picture);
}

fn begin_box(begin: &Begin, model: &Model, theme: Theme, body: Rect, picture: &mut Buffer) {
    let Some(Ok(plan)) = model.prepared().map(|prepared| &prepared.plan) else { return };
    let mut lines = Vec::new();
    for disk in &plan.destroys {
        lines.push(Line::styled("Everything on this disk will be lost:", theme.bad()));
        lines.push(Line::default());
        lines.push(Line::styled(
            format!("  {}  {}  {}", disk.path, crate::facts::disk::size(disk.size), disk.model),
            theme.strong(),
        ));
        lines.push(Line::styled(format!("  serial {}", disk.serial), theme.strong()));
        let contents = if disk.contents.is_empty() {
            "nothing was found on it".to_owned()
        } else {
            format!("on it now: {}", disk.contents.join("; "))
        };
        lines
            .extend(wrap(&contents, INNER - 2).into_iter().map(|part| Line::styled(format!("  {part}"), theme.text())));
    }
    if plan.destroys.is_empty() {
        lines.extend(paragraph(
            "No disk is erased. The machine becomes the first node of the site, and its secrets are not encrypted.",
            theme.text(),
        ));
    }
    lines.push(Line::default());
    let wanted = match plan.destroys.first() {
        Some(disk) if begin.whole == disk.serial => {
            format!("To go on, type the last characters of its serial number: {}", begin.wanted)
        }
        Some(_) => format!("To go on, type its path: {}", begin.wanted),
        None => format!("To go on, type the node's name: {}", begin.wanted),
    };
    lines.extend(paragraph(&wanted, theme.text()));
    lines.push(input(&begin.typed, begin.typed.chars().count(), begin.focus == BeginFocus::Text, theme));
    lines.push(Line::default());
    let yes = if plan.destroys.is_empty() { "Yes, install" } else { "Yes, erase and install" };
    let mut row = Line::default();
    let no = begin.focus == BeginFocus::No;
    row.push_span(Span::styled("[ No, go back ]", if no { theme.focus() } else { theme.accent() }));
    row.push_span(Span::raw("   "));
    let style = match (begin.focus == BeginFocus::Yes, begin.is_confirmed()) {
        (true, _) => theme.focus(),
        (false, true) => theme.danger(),
        (false, false) => theme.disabled(),
    };
    row.push_span(Span::styled(format!("[ {yes} ]"), style));
    lines.push(row);
    show(
        if plan.destroys.is_empty() { "Begin the installation?" } else { "Erase and install?" },
        &lines,
        theme.danger(),
        theme,
        body,
        picture,
    );
}
