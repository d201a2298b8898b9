//! How things look: roles, never colours, are named by the pages. Two modes: 256 colours, or basic (no colour, ASCII) for
//! serial lines.
//!
//! Invariant: colour never carries meaning alone: each role has a mark, a word or a bracket too, and [`Theme::flatten`]
//! makes sure that in basic mode no cell holds a colour or a character beyond ASCII. Called by every page.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

use crate::check::Outcome;

/// Colours and box drawing, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// 256 colours and box drawing characters.
    Colour,
    /// ASCII, bold and reverse only.
    Basic,
}

impl Mode {
    /// The mode that fits a terminal: basic for `TERM=linux|vt*|dumb`, no `TERM` at all, or `NO_COLOR`
    /// (<https://no-color.org>).
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Self {
        let term = variable("TERM").unwrap_or_default();
        let is_plain = ["", "linux", "dumb"].contains(&term.as_str()) || term.starts_with("vt");
        let is_unwanted = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
        if is_plain || is_unwanted { Self::Basic } else { Self::Colour }
    }

    /// The other one.
    #[must_use]
    pub fn toggled(self) -> Self {
        match self {
            Self::Colour => Self::Basic,
            Self::Basic => Self::Colour,
        }
    }
}

/// Gives each role its style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    mode: Mode,
}

const BACKGROUND: Color = Color::Indexed(234);
const TEXT: Color = Color::Indexed(252);
const BRIGHT: Color = Color::Indexed(231);
const MUTED: Color = Color::Indexed(246);
const FAINT: Color = Color::Indexed(240);
const DEEP: Color = Color::Indexed(24);
const ACCENT: Color = Color::Indexed(80);
const FIELD: Color = Color::Indexed(237);
const GOOD: Color = Color::Indexed(114);
const WARN: Color = Color::Indexed(221);
const BAD: Color = Color::Indexed(210);

impl Theme {
    /// The theme of a mode.
    pub fn new(mode: Mode) -> Self {
        Self { mode }
    }

    /// Its mode.
    pub fn mode(self) -> Mode {
        self.mode
    }

    fn is_basic(self) -> bool {
        self.mode == Mode::Basic
    }

    fn pick(self, colour: Style, basic: Modifier) -> Style {
        if self.is_basic() { Style::new().add_modifier(basic) } else { colour }
    }

    /// Usual text on the background of the screen.
    pub fn text(self) -> Style {
        self.pick(Style::new().fg(TEXT).bg(BACKGROUND), Modifier::empty())
    }

    /// Explanations, units, what is not current.
    pub fn muted(self) -> Style {
        self.pick(Style::new().fg(MUTED), Modifier::empty())
    }

    /// Rules and borders.
    pub fn faint(self) -> Style {
        self.pick(Style::new().fg(FAINT), Modifier::empty())
    }

    /// What stands out: headings, values that matter.
    pub fn strong(self) -> Style {
        self.pick(Style::new().fg(BRIGHT).add_modifier(Modifier::BOLD), Modifier::BOLD)
    }

    /// Names of keys, links to act on.
    pub fn accent(self) -> Style {
        self.pick(Style::new().fg(ACCENT), Modifier::BOLD)
    }

    /// The bar on top.
    pub fn title(self) -> Style {
        self.pick(Style::new().fg(BRIGHT).bg(DEEP).add_modifier(Modifier::BOLD), Modifier::REVERSED)
    }

    /// What the keys act on now.
    pub fn focus(self) -> Style {
        self.pick(Style::new().fg(BRIGHT).bg(DEEP).add_modifier(Modifier::BOLD), Modifier::REVERSED)
    }

    /// A field that is not in focus.
    pub fn field(self) -> Style {
        self.pick(Style::new().fg(TEXT).bg(FIELD), Modifier::UNDERLINED)
    }

    /// What cannot be chosen.
    pub fn disabled(self) -> Style {
        self.pick(Style::new().fg(FAINT), Modifier::DIM)
    }

    /// As it should be.
    pub fn good(self) -> Style {
        self.pick(Style::new().fg(GOOD), Modifier::empty())
    }

    /// With a drawback.
    pub fn warn(self) -> Style {
        self.pick(Style::new().fg(WARN), Modifier::BOLD)
    }

    /// Wrong.
    pub fn bad(self) -> Style {
        self.pick(Style::new().fg(BAD), Modifier::BOLD)
    }

    /// The border and head of what destroys.
    pub fn danger(self) -> Style {
        self.pick(Style::new().fg(BAD).add_modifier(Modifier::BOLD), Modifier::BOLD)
    }

    /// Style of a check's result.
    pub fn outcome(self, outcome: Outcome) -> Style {
        match outcome {
            Outcome::Pass => self.good(),
            Outcome::Warn => self.warn(),
            Outcome::Fail => self.bad(),
            Outcome::Unknown => self.muted(),
        }
    }

    /// Mark of a check's result, told apart without colour; two columns wide at most.
    pub fn mark(self, outcome: Outcome) -> &'static str {
        match (outcome, self.is_basic()) {
            (Outcome::Pass, false) => "✔",
            (Outcome::Pass, true) => "ok",
            (Outcome::Warn, _) => "!",
            (Outcome::Fail, false) => "✘",
            (Outcome::Fail, true) => "XX",
            (Outcome::Unknown, _) => "?",
        }
    }

    /// A turning mark while something runs in the background.
    pub fn spinner(self, tick: u64) -> &'static str {
        const TURNING: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
        const BASIC: [&str; 4] = ["|", "/", "-", "\\"];
        let frames: &[&str] = if self.is_basic() { &BASIC } else { &TURNING };
        let at = usize::try_from(tick).unwrap_or(0) % frames.len();
        frames.get(at).copied().unwrap_or("|")
    }

    /// A bar of `width` columns of which `done` of `total` are filled.
    pub fn bar(self, done: u64, total: u64, width: usize) -> (String, String) {
        let share = u128::from(done.min(total)) * width as u128 / u128::from(total.max(1));
        let filled = usize::try_from(share).unwrap_or(width).min(width);
        let (full, empty) = if self.is_basic() { ("#", ".") } else { ("━", "─") };
        (full.repeat(filled), empty.repeat(width - filled))
    }

    /// In basic mode: takes all colour out of a picture and puts ASCII in place of what lies beyond.
    pub fn flatten(self, picture: &mut Buffer) {
        if !self.is_basic() {
            return;
        }
        for cell in &mut picture.content {
            cell.fg = Color::Reset;
            cell.bg = Color::Reset;
            if !cell.symbol().is_ascii() {
                let ascii = ascii(cell.symbol());
                cell.set_symbol(ascii);
            }
        }
    }
}

/// What stands for a character on a line that only knows ASCII.
fn ascii(symbol: &str) -> &'static str {
    match symbol {
        "─" | "━" | "–" | "—" | "═" => "-",
        "│" | "┃" | "║" => "|",
        "┌" | "┐" | "└" | "┘" | "├" | "┤" | "┬" | "┴" | "┼" | "╭" | "╮" | "╰" | "╯" | "╔" | "╗" | "╚" | "╝" => {
            "+"
        }
        "▸" | "›" | "→" => ">",
        "‹" | "←" => "<",
        "▲" | "↑" => "^",
        "▼" | "↓" => "v",
        "•" | "●" | "·" | "✔" => "*",
        "…" => "~",
        "█" | "▓" | "▒" => "#",
        "░" => ".",
        "▀" | "▄" => "=",
        "✘" | "×" | "✕" => "x",
        "’" | "‘" => "'",
        "“" | "”" => "\"",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::{Mode, Theme};

    #[test]
    fn the_mode_fits_the_terminal() {
        let table = [
            (Some("xterm-256color"), None, Mode::Colour),
            (Some("tmux-256color"), None, Mode::Colour),
            (Some("xterm"), Some(""), Mode::Colour),
            (Some("xterm"), Some("1"), Mode::Basic),
            (Some("linux"), None, Mode::Basic),
            (Some("vt100"), None, Mode::Basic),
            (Some("vt220"), None, Mode::Basic),
            (Some("dumb"), None, Mode::Basic),
            (None, None, Mode::Basic),
        ];
        for (term, no_color, expected) in table {
            let mode = Mode::detect(|name| match name {
                "TERM" => term.map(str::to_owned),
                _ => no_color.map(str::to_owned),
            });
            assert_eq!(mode, expected, "{term:?} {no_color:?}");
        }
    }

    #[test]
    fn bars() {
        let theme = Theme::new(Mode::Basic);
        for (done, total, expected) in
            [(0, 10, "....."), (5, 10, "##..."), (10, 10, "#####"), (20, 10, "#####"), (1, 0, ".....")]
        {
            let (full, empty) = theme.bar(done, total, 5);
            assert_eq!(full + &empty, expected, "{done}/{total}");
        }
    }
}
