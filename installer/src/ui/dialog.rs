//! What opens over a page: help, log, questions. Each has the focus on the safe answer.

use super::field::Pem;
use super::secret::Secret;

/// What is open.
#[derive(Debug, Clone, PartialEq)]
pub enum Dialog {
    /// Help for the page.
    Help,
    /// The log; how many lines it was scrolled back.
    Log(usize),
    /// Whether to stop; whether Yes has the focus.
    Abort(bool),
    /// Where to save the answers.
    Save(Save),
    /// Whether a failing check may pass.
    Accept(Accept),
    /// A PEM text, pasted or typed line by line.
    Paste(Pem, Secret),
    /// The certificate request, to be read off the screen; how far it was scrolled.
    Request(String, usize),
    /// Whether to begin.
    Begin(Begin),
}

/// Where to save the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save {
    /// An absolute path.
    pub path: String,
    /// Place of the cursor in it.
    pub cursor: usize,
    /// Whether the file allows the disk to be erased without a question.
    pub with_token: bool,
    /// Which of path, token and buttons has the focus.
    pub focus: SaveFocus,
}

/// Parts of [`Save`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveFocus {
    /// The path.
    Path,
    /// The token.
    Token,
    /// Cancel.
    Cancel,
    /// Save.
    Save,
}

/// Whether a failing check may pass: two steps, so that it is no slip of a finger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accept {
    /// Id of the check.
    pub id: String,
    /// What was found.
    pub measured: String,
    /// What to do about it instead.
    pub hint: String,
    /// It was asked once already.
    pub is_second: bool,
    /// Yes has the focus.
    pub yes: bool,
}

/// Whether to begin, and the text that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// What has to be typed: the end of a serial number or more of it, or a name.
    pub wanted: String,
    /// The whole of which `wanted` is the end.
    pub whole: String,
    /// What was typed.
    pub typed: String,
    /// What has the focus.
    pub focus: BeginFocus,
}

/// Parts of [`Begin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginFocus {
    /// The text.
    Text,
    /// No.
    No,
    /// Yes.
    Yes,
}

impl Begin {
    /// Whether enough was typed: the end of the serial number that is asked for, or more of it.
    pub fn is_confirmed(&self) -> bool {
        let typed = self.typed.trim();
        typed.chars().count() >= self.wanted.chars().count() && !typed.is_empty() && self.whole.ends_with(typed)
    }
}
