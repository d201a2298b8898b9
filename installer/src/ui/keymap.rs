//! Which key does what. Each function key has a Ctrl twin, since serial lines eat function keys.
//!
//! Invariant: footer and help are made from [`BINDINGS`], so what they list is what works. No twin is a key that a
//! terminal, a serial program or a line's flow control keeps for itself (^A ^B ^H ^I ^J ^M ^Q ^S ^Z ^[ ^]).

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::theme::Mode;

/// What a key stands for, whatever the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Help for this page.
    Help,
    /// A shell, if it is allowed.
    Shell,
    /// Save the answers.
    Save,
    /// Run the checks or the failed step again.
    Again,
    /// Show or hide the log.
    Log,
    /// Colour or basic.
    Look,
    /// To the next page.
    Continue,
    /// Draw the screen anew.
    Redraw,
    /// Stop, after a question.
    Abort,
    /// One page back, or close what is open.
    Back,
    /// Next field.
    Next,
    /// Previous field.
    Previous,
    /// Next, or do what the focus is on.
    Enter,
}

/// A command, its function key and its Ctrl twin.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// What it does.
    pub command: Command,
    /// Number of the function key; 0 for none.
    pub function: u8,
    /// Letter of the Ctrl twin.
    pub control: char,
    /// One word for the footer.
    pub label: &'static str,
}

/// All commands that have a function key or a Ctrl key.
pub const BINDINGS: &[Binding] = &[
    binding(Command::Help, 1, 'g', "Help"),
    binding(Command::Shell, 2, 't', "Shell"),
    binding(Command::Save, 3, 'o', "Save"),
    binding(Command::Again, 4, 'r', "Again"),
    binding(Command::Log, 5, 'e', "Log"),
    binding(Command::Look, 9, 'y', "Look"),
    binding(Command::Continue, 10, 'n', "Continue"),
    binding(Command::Redraw, 0, 'l', "Redraw"),
    binding(Command::Abort, 0, 'c', "Quit"),
];

const fn binding(command: Command, function: u8, control: char, label: &'static str) -> Binding {
    Binding { command, function, control, label }
}

/// What a key press stands for; `None` for keys that belong to the field in focus.
pub fn command(key: &KeyEvent) -> Option<Command> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::F(number) => BINDINGS.iter().find(|binding| binding.function == number).map(|binding| binding.command),
        KeyCode::Char(letter) if is_control => BINDINGS
            .iter()
            .find(|binding| binding.control == letter.to_ascii_lowercase())
            .map(|binding| binding.command),
        KeyCode::Tab | KeyCode::Down => Some(Command::Next),
        KeyCode::BackTab | KeyCode::Up => Some(Command::Previous),
        KeyCode::Enter => Some(Command::Enter),
        KeyCode::Esc => Some(Command::Back),
        _ => None,
    }
}

/// A key and its word for the footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// For example `F1` or `^G`.
    pub key: String,
    /// For example `Help`.
    pub label: String,
}

impl Hint {
    /// A key that has no binding of its own, for example `Space`.
    pub fn new(key: &str, label: &str) -> Self {
        Self { key: key.to_owned(), label: label.to_owned() }
    }

    /// The key of a command as this mode names it: serial lines get the Ctrl twin.
    pub fn of(command: Command, mode: Mode) -> Self {
        Self::named(command, mode, None)
    }

    /// The same with another word.
    pub fn named(command: Command, mode: Mode, label: Option<&str>) -> Self {
        let plain = |key: &str, word: &str| Self::new(key, label.unwrap_or(word));
        match command {
            Command::Back => return plain("Esc", "Back"),
            Command::Next => return plain("Tab", "Next"),
            Command::Previous => return plain("S-Tab", "Previous"),
            Command::Enter => return plain("Enter", "Next"),
            _ => {}
        }
        let Some(binding) = BINDINGS.iter().find(|binding| binding.command == command) else {
            return plain("", "");
        };
        let key = match (mode, binding.function) {
            (Mode::Basic, _) | (_, 0) => format!("^{}", binding.control.to_ascii_uppercase()),
            (Mode::Colour, number) => format!("F{number}"),
        };
        Self { key, label: label.unwrap_or(binding.label).to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::{BINDINGS, Command, KeyCode, KeyEvent, KeyModifiers, command};

    #[test]
    fn each_function_key_has_a_twin_that_reaches_us() {
        let kept_by_others = "abhijmqsz[]";
        for binding in BINDINGS {
            assert!(!kept_by_others.contains(binding.control), "{binding:?}");
            let twin = KeyEvent::new(KeyCode::Char(binding.control), KeyModifiers::CONTROL);
            assert_eq!(command(&twin), Some(binding.command));
            if binding.function > 0 {
                let key = KeyEvent::new(KeyCode::F(binding.function), KeyModifiers::NONE);
                assert_eq!(command(&key), Some(binding.command));
            }
            assert_eq!(BINDINGS.iter().filter(|other| other.control == binding.control).count(), 1, "{binding:?}");
        }
    }

    #[test]
    fn letters_belong_to_the_field() {
        for code in [KeyCode::Char('c'), KeyCode::Char(' '), KeyCode::Backspace, KeyCode::Left] {
            assert_eq!(command(&KeyEvent::new(code, KeyModifiers::NONE)), None);
        }
        assert_eq!(command(&KeyEvent::new(KeyCode::Up, KeyModifiers::NONE)), Some(Command::Previous));
    }
}
