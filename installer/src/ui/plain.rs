//! The same questions line by line, for screen readers and terminals that cannot place a cursor (`--plain`).
//!
//! The model, the pages, the checks and the rules are those of the screens: each page's sheet is read out from top to
//! bottom, and its controls are asked in their order. Typed secrets are read without echo.

use std::io::{self, BufRead, Write};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use zeroize::Zeroizing;

use super::dialog::{BeginFocus, Dialog};
use super::field::{Field, page_name};
use super::machine::{Job, Machine};
use super::model::Model;
use super::sheet::{Control, Kind};
use super::theme::{Mode, Theme};
use super::update::{Effect, Message, update};
use super::{Start, screen};
use crate::config::Page;
use crate::engine::Stop;
use crate::engine::question::{Answer, Answers, Question, RecoveryKeyShown};

/// Columns of a line; braille displays and serial lines wrap by themselves.
const WIDTH: usize = 76;

/// Asks everything; gives what is to be run, or `None` when the operator leaves.
pub fn ask(
    model: &mut Model,
    machine: &dyn Machine,
    mut input: impl BufRead,
    mut output: impl Write,
) -> io::Result<Option<Start>> {
    let mut talk = Talk { machine, input: &mut input, output: &mut output };
    talk.say("Cofferdam: the installer, line by line. An empty line keeps what is shown. Type \"back\" for the page before, \"quit\" to leave.")?;
    talk.tell(model, Message::Tick)?;
    loop {
        let page = model.page;
        talk.read_out(model)?;
        match talk.page(model)? {
            Step::Quit => return Ok(None),
            Step::Start(start) => return Ok(Some(*start)),
            Step::Back => {
                talk.tell(model, key(KeyCode::Esc))?;
                if matches!(model.dialog, Some(Dialog::Abort(_))) {
                    model.dialog = None;
                }
            }
            Step::Next => {
                if model.page == page
                    && let Some(notice) = model.notice.take()
                {
                    talk.say(&notice.text)?;
                }
            }
        }
    }
}

/// What an answer leads to.
enum Step {
    Next,
    Back,
    Quit,
    Start(Box<Start>),
}

struct Talk<'a> {
    machine: &'a dyn Machine,
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
}

fn key(code: KeyCode) -> Message {
    Message::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

impl Talk<'_> {
    fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.output, "{text}")
    }

    fn prompt(&mut self, text: &str) -> io::Result<Option<String>> {
        write!(self.output, "{text} ")?;
        self.output.flush()?;
        let mut line = String::new();
        // The end of the input leaves, as "quit" does.
        Ok((self.input.read_line(&mut line)? > 0).then(|| line.trim_end_matches(['\n', '\r']).to_owned()))
    }

    /// Gives a message to the model and does what comes of it, one after the other.
    fn tell(&mut self, model: &mut Model, message: Message) -> io::Result<Option<Step>> {
        let mut effects = update(model, message);
        let mut step = None;
        while !effects.is_empty() {
            let mut next = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Run(serial, job) => {
                        let what = name_of(&job);
                        self.say(&format!("... {what}"))?;
                        let mut answers = Vec::new();
                        self.machine.work(job, &Stop::default(), &mut |answer| answers.push(answer));
                        for answer in answers {
                            next.extend(update(model, Message::Answer(serial, answer)));
                        }
                    }
                    Effect::Quit | Effect::Finish => step = Some(Step::Quit),
                    Effect::Start(start) => step = Some(Step::Start(start)),
                    Effect::Cancel(_) | Effect::Shell | Effect::Redraw => {}
                }
            }
            effects = next;
        }
        Ok(step)
    }

    /// The page from top to bottom, without what is asked one by one.
    fn read_out(&mut self, model: &Model) -> io::Result<()> {
        let sheet = screen::sheet(model, Theme::new(Mode::Basic), WIDTH);
        let title = format!("\n== {} ==", page_name(model.page));
        let texts: Vec<String> = sheet
            .rows
            .iter()
            .filter(|row| row.field.is_none() || matches!(row.field, Some(Field::Finding(_))))
            .map(|row| row.line.spans.iter().map(|span| span.content.as_ref()).collect::<String>())
            .collect();
        self.say(&title)?;
        for text in texts {
            let ascii: String =
                text.chars().map(|character| if character.is_ascii() { character } else { '-' }).collect();
            if !ascii.trim().is_empty() {
                self.say(ascii.trim_end())?;
            }
        }
        Ok(())
    }

    /// Asks the controls of the page in their order. What an answer adds to the page is asked, too.
    fn page(&mut self, model: &mut Model) -> io::Result<Step> {
        let mut asked: Vec<Field> = Vec::new();
        loop {
            let controls = screen::controls(model);
            let is_open = |control: &&Control| !asked.contains(&control.field) && is_asked(control);
            let Some(control) = controls.iter().find(is_open).cloned() else { break };
            let step = if let Kind::Radio(_) = control.kind {
                let group = std::mem::discriminant(&control.field);
                let is_file = |field| matches!(field, Field::NoConfigFile | Field::ConfigFile(_));
                let same = |other: &&Control| {
                    std::mem::discriminant(&other.field) == group || (is_file(other.field) && is_file(control.field))
                };
                let options: Vec<Control> = controls.iter().filter(same).cloned().collect();
                asked.extend(options.iter().map(|option| option.field));
                self.radio(model, &options)?
            } else {
                asked.push(control.field);
                self.control(model, &control)?
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
        self.leave(model)
    }

    fn radio(&mut self, model: &mut Model, options: &[Control]) -> io::Result<Option<Step>> {
        for (number, option) in options.iter().enumerate() {
            let mark = if option.kind == Kind::Radio(true) { "*" } else { " " };
            self.say(&format!(" {mark} {}. {}", number + 1, option.label))?;
        }
        loop {
            let Some(answer) = self.prompt("Number:")? else { return Ok(Some(Step::Quit)) };
            match answer.trim() {
                "" => return Ok(None),
                "back" => return Ok(Some(Step::Back)),
                "quit" => return Ok(Some(Step::Quit)),
                number => match number.parse::<usize>().ok().and_then(|number| options.get(number.checked_sub(1)?)) {
                    Some(option) => {
                        model.focus.insert(model.page, option.field);
                        return self.tell(model, key(KeyCode::Char(' ')));
                    }
                    None => self.say("a number of the list, please")?,
                },
            }
        }
    }

    fn control(&mut self, model: &mut Model, control: &Control) -> io::Result<Option<Step>> {
        model.focus.insert(model.page, control.field);
        match control.kind {
            Kind::Text => {
                let present = model.text(control.field).cloned().unwrap_or_default();
                let Some(answer) = self.prompt(&format!("{} [{present}]:", control.label))? else {
                    return Ok(Some(Step::Quit));
                };
                match answer.trim() {
                    "" => Ok(None),
                    "back" => Ok(Some(Step::Back)),
                    "quit" => Ok(Some(Step::Quit)),
                    text => {
                        model.cursor = present.chars().count();
                        let clear = KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL);
                        self.tell(model, Message::Key(clear))?;
                        self.tell(model, Message::Paste(Zeroizing::new(text.to_owned())))
                    }
                }
            }
            Kind::Secret => self.secret(model, control),
            Kind::Check(on) => {
                let present = if on { "yes" } else { "no" };
                let Some(answer) = self.prompt(&format!("{} (yes/no) [{present}]:", control.label))? else {
                    return Ok(Some(Step::Quit));
                };
                match (answer.trim(), on) {
                    ("back", _) => Ok(Some(Step::Back)),
                    ("quit", _) => Ok(Some(Step::Quit)),
                    ("yes" | "y", false) | ("no" | "n", true) => self.tell(model, key(KeyCode::Char(' '))),
                    _ => Ok(None),
                }
            }
            Kind::Cycle => self.cycle(model, control),
            Kind::Button | Kind::Row => {
                let Some(answer) = self.prompt(&format!("{}? (yes/no) [no]:", control.label))? else {
                    return Ok(Some(Step::Quit));
                };
                if !matches!(answer.trim(), "yes" | "y") {
                    return Ok(None);
                }
                let step = self.tell(model, key(KeyCode::Enter))?;
                self.dialogs(model, step)
            }
            Kind::Radio(_) => Ok(None),
        }
    }

    fn cycle(&mut self, model: &mut Model, control: &Control) -> io::Result<Option<Step>> {
        if matches!(control.field, Field::Question(_)) {
            self.say(&control.label)?;
        }
        loop {
            let rows = screen::sheet(model, Theme::new(Mode::Basic), WIDTH).rows;
            let row = rows.iter().find(|row| row.field == Some(control.field));
            let text = row
                .map(|row| row.line.spans.iter().map(|span| span.content.as_ref()).collect::<String>())
                .unwrap_or_default();
            let shown: String =
                text.chars().map(|character| if character.is_ascii() { character } else { ' ' }).collect();
            let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
            let Some(answer) = self.prompt(&format!("{shown} (\"other\" for the next):"))? else {
                return Ok(Some(Step::Quit));
            };
            match answer.trim() {
                "back" => return Ok(Some(Step::Back)),
                "quit" => return Ok(Some(Step::Quit)),
                "other" => {
                    self.tell(model, key(KeyCode::Right))?;
                }
                _ => return Ok(None),
            }
        }
    }

    fn secret(&mut self, model: &mut Model, control: &Control) -> io::Result<Option<Step>> {
        write!(self.output, "{} (not shown): ", control.label)?;
        self.output.flush()?;
        let quiet = Quiet::begin();
        let mut line = Zeroizing::new(String::with_capacity(256));
        let count = self.input.read_line(&mut line)?;
        drop(quiet);
        self.say("")?;
        if count == 0 {
            return Ok(Some(Step::Quit));
        }
        let clear = KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL);
        self.tell(model, Message::Key(clear))?;
        self.tell(model, Message::Paste(line))
    }

    /// Questions that a button opened.
    fn dialogs(&mut self, model: &mut Model, mut step: Option<Step>) -> io::Result<Option<Step>> {
        while step.is_none() {
            match model.dialog.clone() {
                None => break,
                Some(Dialog::Accept(accept)) => {
                    self.say(&format!("{}: {}", accept.id, accept.measured))?;
                    let sure = if accept.is_second { "Sure? The site's record will say so." } else { "Let it pass?" };
                    let answer = self.prompt(&format!("{sure} (yes/no) [no]:"))?.unwrap_or_default();
                    if answer.trim() == "yes" {
                        self.tell(model, key(KeyCode::Tab))?;
                    }
                    step = self.tell(model, key(KeyCode::Enter))?;
                }
                Some(Dialog::Save(save)) => {
                    let Some(answer) = self.prompt(&format!("Save the answers to [{}]:", save.path))? else {
                        return Ok(Some(Step::Quit));
                    };
                    if let (Some(Dialog::Save(save)), false) = (&mut model.dialog, answer.trim().is_empty()) {
                        answer.trim().clone_into(&mut save.path);
                    }
                    step = self.tell(model, Message::Key(KeyEvent::new(KeyCode::Char('n'), KeyModifiers::CONTROL)))?;
                }
                Some(Dialog::Request(text, _)) => {
                    self.say(&text)?;
                    model.dialog = None;
                }
                Some(Dialog::Begin(begin)) => {
                    let sure = format!("Type {} to begin; anything else goes back:", begin.wanted);
                    let Some(answer) = self.prompt(&sure)? else { return Ok(Some(Step::Quit)) };
                    if let Some(Dialog::Begin(question)) = &mut model.dialog {
                        answer.trim().clone_into(&mut question.typed);
                        question.focus = if question.is_confirmed() { BeginFocus::Yes } else { BeginFocus::No };
                    }
                    step = self.tell(model, key(KeyCode::Enter))?;
                }
                Some(_) => model.dialog = None,
            }
            if let Some(notice) = model.notice.take() {
                self.say(&notice.text)?;
            }
        }
        Ok(step)
    }

    /// The end of a page.
    fn leave(&mut self, model: &mut Model) -> io::Result<Step> {
        let word = if model.page == Page::Review {
            "Begin the installation? (yes/back/quit):"
        } else {
            "Enter goes on (back/quit):"
        };
        let Some(answer) = self.prompt(word)? else { return Ok(Step::Quit) };
        match answer.trim() {
            "back" => return Ok(Step::Back),
            "quit" => return Ok(Step::Quit),
            "yes" => {}
            _ if model.page == Page::Review => return Ok(Step::Next),
            _ => {}
        }
        model.focus.insert(model.page, Field::Continue);
        let step = self.tell(model, key(KeyCode::Enter))?;
        Ok(self.dialogs(model, step)?.unwrap_or(Step::Next))
    }
}

/// What is asked; the buttons at the end of a page are asked by [`Talk::leave`], and pasting is typing a path here.
fn is_asked(control: &Control) -> bool {
    !matches!(control.field, Field::Continue | Field::CheckAgain | Field::Paste(_) | Field::CancelVerify)
}

fn name_of(job: &Job) -> &'static str {
    match job {
        Job::Discover => "looking for media",
        Job::Probe(_) => "looking at the host",
        Job::Head(_) => "verifying the signature of the bundle",
        Job::Verify(_) => "verifying the bundle",
        Job::Judge(_) => "reading the certificate",
        Job::Request(..) => "making the request",
        Job::Hash(_) => "hashing the password",
        Job::SetUpNetwork(_) => "setting up the network",
        Job::Keep(..) => "writing",
        Job::Prepare(_) => "checking the host and computing the plan",
    }
}

/// Somebody who reads lines: the recovery key is said group by group, and two of its groups are typed back.
pub struct Person;

impl Answers for Person {
    fn ask(&self, question: Question) -> Answer {
        let Question::RecoveryKey(shown) = question;
        converse(&shown, &mut io::stdin().lock(), &mut io::stdout()).unwrap_or(Answer::Nobody)
    }
}

/// The ceremony of the recovery key, line by line.
fn converse(shown: &RecoveryKeyShown, input: &mut dyn BufRead, output: &mut dyn Write) -> io::Result<Answer> {
    let text = shown.text();
    writeln!(
        output,
        "\nThe recovery key of {} is said this once. Write it down, on paper, away from this machine.",
        shown.disk
    )?;
    for (number, group) in (1..).zip(text.split('-')) {
        writeln!(output, "  {number}. {group}")?;
    }
    writeln!(output, "The eight groups belong together in this order, joined by hyphens.")?;
    let [first, second] = shown.asked();
    loop {
        let mut typed = [Zeroizing::new(String::with_capacity(256)), Zeroizing::new(String::with_capacity(256))];
        for (number, line) in [first, second].into_iter().zip(&mut typed) {
            write!(output, "Type group {number} back (\"stop\" stops the installation): ")?;
            output.flush()?;
            if input.read_line(line)? == 0 {
                return Ok(Answer::Nobody);
            }
            if line.trim() == "stop" {
                return Ok(Answer::Stop);
            }
        }
        match shown.confirm([typed[0].trim(), typed[1].trim()]) {
            Some(written) => return Ok(Answer::WrittenDown(written)),
            None => writeln!(output, "That is not what was said; look at your paper and type both groups again.")?,
        }
    }
}

/// The terminal without echo, for as long as it lives.
struct Quiet(Option<rustix::termios::Termios>);

impl Quiet {
    fn begin() -> Self {
        let stdin = io::stdin();
        let Ok(before) = rustix::termios::tcgetattr(&stdin) else { return Self(None) };
        let mut quiet = before.clone();
        quiet.local_modes.remove(rustix::termios::LocalModes::ECHO);
        // A line that is no terminal echoes nothing anyway.
        let _ = rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Flush, &quiet);
        Self(Some(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Flush, before);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Answer, RecoveryKeyShown, converse};

    const KEY: &str = "cccbcdce-cfcgchci-cjckclcn-crctcucv-bcbbbdbe-bfbgbhbi-bjbkblbn-brbtbubv";

    #[test]
    fn the_recovery_key_is_said_and_typed_back() {
        let shown = RecoveryKeyShown::new(certs::RecoveryKey::parse(KEY).unwrap(), "/dev/sdb", false).unwrap();
        let group = |number: usize| KEY.split('-').nth(number - 1).unwrap();
        let [first, second] = shown.asked();
        let right = format!("{}\n{}\n", group(first), group(second));
        let ends = |typed: &str| {
            let mut said = Vec::new();
            let answer = converse(&shown, &mut typed.as_bytes(), &mut said).unwrap();
            assert!(KEY.split('-').all(|group| String::from_utf8_lossy(&said).contains(group)));
            answer
        };
        assert!(matches!(ends(&right), Answer::WrittenDown(_)));
        assert!(matches!(ends(&format!("wrong\nwrong\n{right}")), Answer::WrittenDown(_)));
        assert!(matches!(ends("stop\n"), Answer::Stop));
        assert!(matches!(ends("wrong\n"), Answer::Nobody));
    }
}
