//! The pages that begin when the engine starts: a fold over keys, the engine's events and answers, and the clock.
//!
//! Invariant: [`Session::update`] neither touches the machine nor reads a clock; what is to be done comes back as
//! [`Effect`]s. Nothing but a confirmed dialog stops a run. Driven by `mod.rs`, drawn by `view/`.

use camino::Utf8PathBuf;
use jiff::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyEvent};

use super::ceremony::Ceremony;
use super::changes::may_change_settings;
use super::model::{Failure, Outcome, Run};
use crate::engine::event::Event;
use crate::engine::question::{Answer, RecoveryKeyShown};
use crate::plan::Plan;
use crate::site::Overview;
use crate::ui::keymap::Command;
use crate::ui::theme::Mode;

/// How long the last page of an installation stays before the dashboard comes, in milliseconds. Any key stops it.
pub const COUNTDOWN: u64 = 60_000;
/// Where a support bundle goes unless another place is typed.
const SUPPORT_PLACE: &str = "/media";
const PLACE_LIMIT: usize = 200;

/// The pages of a run.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a state of its own")]
pub struct Session {
    /// The run.
    pub run: Run,
    /// Its plan.
    pub plan: Plan,
    /// The recovery key, while it is asked for.
    pub ceremony: Option<Ceremony>,
    /// What lies over the page.
    pub dialog: Option<Dialog>,
    /// The log pane: how many lines it is scrolled back from the newest.
    pub log: Option<usize>,
    /// Which line of the failure page's menu the keys act on.
    pub choice: usize,
    /// The operator wants to stop.
    pub is_stopping: bool,
    /// A support bundle is being written.
    pub is_saving: bool,
    /// What just happened.
    pub notice: String,
    /// The finished site.
    pub site: Option<Overview>,
    /// Whether the dashboard is shown instead of the last page.
    pub is_dashboard: bool,
    /// Colour or basic.
    pub mode: Mode,
    /// Counts the clock's ticks, for turning marks.
    pub ticks: u64,
    /// Where this run may go.
    pub may: May,
    finished: Option<Timestamp>,
    is_counting: bool,
    now: Timestamp,
}

/// What is allowed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct May {
    /// There are pages of settings to go back to.
    pub change_settings: bool,
    /// A shell may be opened.
    pub open_shell: bool,
}

/// What lies over the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialog {
    /// Stop the run, or leave the page? The focus begins on No.
    Abort {
        /// The focus is on the button that does it.
        yes: bool,
    },
    /// Switch the machine off?
    PowerOff {
        /// The focus is on the button that does it.
        yes: bool,
    },
    /// Where the support bundle goes.
    SaveTo {
        /// The directory, as it is typed.
        place: String,
    },
    /// Help for this page.
    Help,
}

/// Which page is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// 11.
    Progress,
    /// 11, when it stopped.
    Failure,
    /// 12.
    RecoveryKey,
    /// 13.
    Done,
    /// 13, as it remains.
    Dashboard,
}

/// The lines of the failure page's menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Run the plan again; what is done is passed over.
    Retry,
    /// Back to the pages of settings.
    Settings,
    /// Write a support bundle.
    Support,
    /// Open a shell.
    Shell,
    /// Leave; `cofferdam resume` goes on.
    Leave,
    /// Switch off.
    PowerOff,
}

/// What happens to a session.
#[derive(Debug)]
pub enum Input {
    /// A key.
    Key(KeyEvent),
    /// Pasted text.
    Paste(String),
    /// The engine said something.
    Heard(Timestamp, Event),
    /// The engine asks, and waits.
    Asked(RecoveryKeyShown),
    /// The engine came to its end for a reason that no event tells.
    Broke(Failure),
    /// A support bundle is written, or not.
    Saved(Result<Utf8PathBuf, String>),
    /// The installed site, looked at anew.
    Site(Box<Overview>),
    /// SIGTERM: stop as soon as nothing is half done.
    Terminate,
    /// Time goes by.
    Tick(Timestamp),
}

/// What is to be done for a session.
#[derive(Debug)]
pub enum Effect {
    /// The answer to the question that was asked.
    Answer(Answer),
    /// The engine stops before the next step.
    Stop,
    /// The engine begins anew.
    Retry,
    /// Leave for the pages of settings.
    BackToSettings,
    /// Write a support bundle into this directory.
    Save(Utf8PathBuf),
    /// A shell in place of the screen.
    Shell,
    /// Switch the machine off.
    PowerOff,
    /// Look at the installed site.
    LookAtSite,
    /// Draw everything anew.
    Redraw,
    /// The end of these pages.
    Leave,
}

impl Session {
    /// A run of which nothing was heard yet.
    pub fn new(plan: Plan, mode: Mode, may: May, now: Timestamp) -> Self {
        Self {
            run: Run::new(&plan, now),
            plan,
            ceremony: None,
            dialog: None,
            log: None,
            choice: 0,
            is_stopping: false,
            is_saving: false,
            notice: String::new(),
            site: None,
            is_dashboard: false,
            mode,
            ticks: 0,
            may,
            finished: None,
            is_counting: true,
            now,
        }
    }

    /// The page that is shown.
    pub fn page(&self) -> Page {
        match self.run.outcome {
            Outcome::Finished if self.is_dashboard => Page::Dashboard,
            Outcome::Finished => Page::Done,
            Outcome::Failed(_) => Page::Failure,
            _ if self.ceremony.is_some() => Page::RecoveryKey,
            _ => Page::Progress,
        }
    }

    /// The failure page's menu as it is now.
    pub fn choices(&self) -> Vec<Choice> {
        let mut choices = vec![Choice::Retry];
        if self.may.change_settings && may_change_settings(&self.plan, &self.run) {
            choices.push(Choice::Settings);
        }
        choices.push(Choice::Support);
        if self.may.open_shell {
            choices.push(Choice::Shell);
        }
        choices.extend([Choice::Leave, Choice::PowerOff]);
        choices
    }

    /// Seconds until the dashboard comes by itself.
    pub fn countdown(&self) -> Option<u64> {
        let since = self.finished.filter(|_| self.is_counting && self.page() == Page::Done)?;
        let gone = u64::try_from(self.now.duration_since(since).as_millis()).unwrap_or(0);
        Some(COUNTDOWN.saturating_sub(gone).div_ceil(1000))
    }

    /// Takes in what happened.
    pub fn update(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Key(key) => return self.key(&key),
            Input::Paste(text) => self.paste(&text),
            Input::Heard(time, event) => return self.hear(time, &event),
            Input::Asked(shown) => {
                if self.is_stopping {
                    return vec![Effect::Answer(Answer::Stop)];
                }
                self.log = None;
                if self.dialog == Some(Dialog::Help) {
                    self.dialog = None;
                }
                self.ceremony = Some(Ceremony::new(shown));
            }
            Input::Broke(failure) => {
                self.ceremony = None;
                self.choice = 0;
                self.run.fail(failure);
            }
            Input::Saved(result) => {
                self.is_saving = false;
                self.notice = match result {
                    Ok(path) => format!("written: {path}"),
                    Err(error) => format!("no support bundle: {error}"),
                };
            }
            Input::Site(site) => self.site = Some(*site),
            Input::Terminate => return self.stop(),
            Input::Tick(now) => {
                self.ticks += 1;
                self.now = self.now.max(now);
                self.run.tick(now);
                if self.countdown() == Some(0) {
                    self.is_dashboard = true;
                }
            }
        }
        Vec::new()
    }

    fn hear(&mut self, time: Timestamp, event: &Event) -> Vec<Effect> {
        let before = self.page();
        self.run.hear(time, event);
        match self.run.outcome {
            Outcome::Stopped { .. } => return vec![Effect::Leave],
            Outcome::Finished if self.finished.is_none() => {
                self.finished = Some(self.now.max(time));
                // Keys that were pressed while it ran do not count.
                self.is_counting = true;
                self.now = self.now.max(time);
                self.log = None;
                self.dialog = None;
                self.notice = String::new();
                return vec![Effect::LookAtSite];
            }
            Outcome::Failed(_) if before != Page::Failure => {
                self.ceremony = None;
                self.choice = 0;
                self.notice = String::new();
                if self.is_stopping {
                    return vec![Effect::Leave];
                }
            }
            _ => {}
        }
        Vec::new()
    }

    fn stop(&mut self) -> Vec<Effect> {
        match self.page() {
            Page::Progress | Page::RecoveryKey => {
                self.is_stopping = true;
                self.dialog = None;
                let mut effects = vec![Effect::Stop];
                if self.ceremony.take().is_some() {
                    effects.extend([Effect::Answer(Answer::Stop), Effect::Redraw]);
                }
                effects
            }
            Page::Failure | Page::Done | Page::Dashboard => vec![Effect::Leave],
        }
    }

    fn key(&mut self, key: &KeyEvent) -> Vec<Effect> {
        self.is_counting = false;
        let command = crate::ui::keymap::command(key);
        match command {
            Some(Command::Look) => {
                self.mode = self.mode.toggled();
                return vec![Effect::Redraw];
            }
            Some(Command::Redraw) => return vec![Effect::Redraw],
            _ => {}
        }
        if self.dialog.is_some() {
            return self.dialog_key(command, key);
        }
        if self.log.is_some() && self.log_key(command, key) {
            return Vec::new();
        }
        match command {
            Some(Command::Help) => self.dialog = Some(Dialog::Help),
            Some(Command::Abort) => match self.page() {
                Page::Done | Page::Dashboard => return vec![Effect::Leave],
                _ if self.is_stopping => {}
                _ => self.dialog = Some(Dialog::Abort { yes: false }),
            },
            // Not over the key: the log would show nothing of it, and a shell would leave it on the screen.
            Some(Command::Log) if self.page() != Page::RecoveryKey => self.log = Some(0),
            Some(Command::Shell) if self.may.open_shell && self.page() != Page::RecoveryKey => {
                return vec![Effect::Shell];
            }
            _ => return self.page_key(command, key),
        }
        Vec::new()
    }

    fn page_key(&mut self, command: Option<Command>, key: &KeyEvent) -> Vec<Effect> {
        match self.page() {
            Page::Progress => Vec::new(),
            Page::RecoveryKey => {
                let answer = self.ceremony.as_mut().and_then(|ceremony| {
                    let Some(command) = command else {
                        ceremony.key(key);
                        return None;
                    };
                    ceremony.command(command)
                });
                let Some(answer) = answer else { return Vec::new() };
                self.ceremony = None;
                self.notice = match answer {
                    Answer::WrittenDown(_) => "the recovery key was written down".to_owned(),
                    _ => "the recovery key is left to the escrow".to_owned(),
                };
                vec![Effect::Answer(answer), Effect::Redraw]
            }
            Page::Failure => self.failure_key(command),
            Page::Done | Page::Dashboard => match (command, key.code) {
                (Some(Command::Enter | Command::Continue), _) => {
                    self.is_dashboard = true;
                    vec![Effect::LookAtSite]
                }
                (Some(Command::Back), _) => {
                    self.is_dashboard = false;
                    Vec::new()
                }
                (Some(Command::Again), _) => vec![Effect::LookAtSite],
                (None, KeyCode::Char('q')) => vec![Effect::Leave],
                _ => Vec::new(),
            },
        }
    }

    fn failure_key(&mut self, command: Option<Command>) -> Vec<Effect> {
        let choices = self.choices();
        let count = choices.len();
        match command {
            Some(Command::Next) => self.choice = (self.choice + 1) % count,
            Some(Command::Previous) => self.choice = (self.choice + count - 1) % count,
            Some(Command::Again) => return self.retry(),
            Some(Command::Enter) => match choices.get(self.choice) {
                Some(Choice::Retry) => return self.retry(),
                Some(Choice::Settings) => return vec![Effect::BackToSettings],
                Some(Choice::Support) if !self.is_saving => {
                    self.dialog = Some(Dialog::SaveTo { place: SUPPORT_PLACE.to_owned() });
                }
                Some(Choice::Shell) => return vec![Effect::Shell],
                Some(Choice::Leave) => return vec![Effect::Leave],
                Some(Choice::PowerOff) => self.dialog = Some(Dialog::PowerOff { yes: false }),
                Some(Choice::Support) | None => {}
            },
            _ => {}
        }
        Vec::new()
    }

    fn retry(&mut self) -> Vec<Effect> {
        // What comes next is said by the engine's own first event.
        self.run.outcome = Outcome::Waiting;
        self.choice = 0;
        self.notice = String::new();
        vec![Effect::Retry]
    }

    fn dialog_key(&mut self, command: Option<Command>, key: &KeyEvent) -> Vec<Effect> {
        let Some(dialog) = &mut self.dialog else { return Vec::new() };
        match (dialog, command, key.code) {
            (_, Some(Command::Back | Command::Abort), _)
            | (Dialog::Help, Some(Command::Enter | Command::Help), _)
            | (Dialog::Help, None, KeyCode::Char('q'))
            | (Dialog::Abort { yes: false } | Dialog::PowerOff { yes: false }, Some(Command::Enter), _) => {
                self.dialog = None;
            }
            (Dialog::Abort { yes } | Dialog::PowerOff { yes }, Some(Command::Next | Command::Previous), _)
            | (Dialog::Abort { yes } | Dialog::PowerOff { yes }, None, KeyCode::Left | KeyCode::Right) => *yes = !*yes,
            (Dialog::Abort { yes: true }, Some(Command::Enter), _) => {
                self.dialog = None;
                return self.stop();
            }
            (Dialog::PowerOff { yes: true }, Some(Command::Enter), _) => {
                self.dialog = None;
                return vec![Effect::PowerOff];
            }
            (Dialog::SaveTo { place }, Some(Command::Enter), _) if !place.trim().is_empty() => {
                let place = Utf8PathBuf::from(place.trim());
                self.dialog = None;
                self.is_saving = true;
                "collecting the support bundle".clone_into(&mut self.notice);
                return vec![Effect::Save(place)];
            }
            (Dialog::SaveTo { place }, None, KeyCode::Char(letter)) if place.len() < PLACE_LIMIT => place.push(letter),
            (Dialog::SaveTo { place }, None, KeyCode::Backspace) => {
                place.pop();
            }
            _ => {}
        }
        Vec::new()
    }

    /// Keys of the log pane; says whether the key was one.
    fn log_key(&mut self, command: Option<Command>, key: &KeyEvent) -> bool {
        let Some(back) = &mut self.log else { return false };
        let most = self.run.log.len().saturating_sub(1);
        match (command, key.code) {
            (Some(Command::Log | Command::Back), _) => self.log = None,
            (Some(Command::Previous), _) => *back = (*back + 1).min(most),
            (Some(Command::Next), _) => *back = back.saturating_sub(1),
            (None, KeyCode::PageUp) => *back = (*back + 10).min(most),
            (None, KeyCode::PageDown) => *back = back.saturating_sub(10),
            (None, KeyCode::Home) => *back = most,
            (None, KeyCode::End) => *back = 0,
            _ => return false,
        }
        true
    }

    fn paste(&mut self, text: &str) {
        if let Some(Dialog::SaveTo { place }) = &mut self.dialog {
            place.extend(
                text.chars().filter(|letter| !letter.is_control()).take(PLACE_LIMIT.saturating_sub(place.len())),
            );
        }
    }
}
