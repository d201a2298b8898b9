//! The half of the terminal installer that begins when the engine starts: progress, failure, recovery key, done; and the
//! dashboard and the second console, which show the same.
//!
//! Invariant: the engine runs in a thread of its own and is never killed. What ends it early is a wish to stop, which it
//! hears between two steps. A terminal that is gone ends the drawing, not the installation. Called by the first half of
//! the TUI and by `cofferdam resume`.

pub mod ceremony;
mod changes;
mod dashboard;
mod estimate;
pub mod input;
pub mod model;
mod monitor;
mod offer;
pub mod session;
pub mod signals;
pub mod text;
pub mod view;
mod worker;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::Event as TerminalEvent;

use super::terminal::Terminal;
use super::theme::{Mode, Theme};
use crate::config::InstallConfig;
use crate::engine::EngineError;
use crate::engine::question::Answer;
use crate::host::Command;
use crate::layout;
use crate::plan::Plan;
use crate::prepare::{self, Refusal, Signed};
use crate::site::Overview;
use crate::step::{State, StepError};
use crate::support;
pub use dashboard::dashboard;
use model::{Failure, Outcome};
pub use monitor::monitor;
pub use offer::offer;
use session::{Effect, Input, May, Page, Session};
use signals::Signals;
pub use worker::SharedHost;
use worker::{Job, Worker};

/// How often the screen is drawn at least; a slow line gets fewer turning marks.
fn tick(mode: Mode) -> Duration {
    Duration::from_millis(if mode == Mode::Basic { 1000 } else { 250 })
}

/// How often the installed site is looked at.
const SITE_INTERVAL: Duration = Duration::from_secs(30);

/// What is to be run.
#[derive(Debug)]
pub struct Start {
    /// The answers.
    pub config: InstallConfig,
    /// The plan, as it was shown and agreed to.
    pub plan: Plan,
    /// The verified head of the bundle.
    pub signed: Signed,
    /// Whether it was begun before: then it is stored on the host already, and there are no pages to go back to.
    pub resumes: bool,
    /// Whether a shell may be opened.
    pub may_open_shell: bool,
}

/// How these pages were left.
#[derive(Debug)]
pub enum Ended {
    /// The site is installed.
    Finished,
    /// A step failed, and nobody tried again.
    Failed(Failure),
    /// The operator stopped the run before this step.
    Stopped {
        /// The id of the step that comes next.
        next: String,
    },
    /// The operator wants to change the answers; the plan is forgotten.
    BackToSettings,
    /// The machine is going off.
    PowerOff,
    /// It could not even begin.
    Refused(Refusal),
}

impl Ended {
    /// The exit code of the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Finished => 0,
            Self::Failed(failure) if failure.code == "bundle-refused" => 4,
            Self::Failed(_) => 5,
            Self::Stopped { .. } | Self::BackToSettings | Self::PowerOff => 6,
            Self::Refused(refusal) => refusal.code,
        }
    }
}

/// Runs a plan and shows it, until the operator leaves. The terminal is given back by its owner.
pub fn run(terminal: &mut Terminal, theme: Theme, start: Start, host: &SharedHost) -> Ended {
    let refused = |error: &dyn std::fmt::Display| {
        Ended::Refused(Refusal { code: prepare::code::UNEXPECTED, message: error.to_string(), hint: None })
    };
    // Held until these pages are left.
    let _lock = match lock(host) {
        Ok(lock) => lock,
        Err(refusal) => return Ended::Refused(refusal),
    };
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return refused(&error),
    };
    if !start.resumes
        && let Err(refusal) = prepare::store(&**host, &start.config, &start.plan)
    {
        return Ended::Refused(refusal);
    }
    let may = May { change_settings: !start.resumes, open_shell: start.may_open_shell };
    let session = Session::new(start.plan.clone(), theme.mode(), may, host.now());
    let job = Arc::new(Job { config: start.config, plan: start.plan, signed: start.signed });
    let worker = Worker::start(Arc::clone(host), Arc::clone(&job));
    let (sender, results) = mpsc::channel();
    let mut driver = Driver {
        host: Arc::clone(host),
        job,
        session,
        worker,
        signals,
        sender,
        results,
        looked_at: None,
        is_looking: false,
    };
    driver.drive(terminal)
}

/// One run at a time on a host.
pub fn lock(host: &SharedHost) -> Result<Box<dyn Send>, Refusal> {
    let busy = || {
        Refusal::new(
            prepare::code::PREFLIGHT,
            "an installation is running on this host",
            "`cofferdam monitor` shows it",
        )
    };
    let failed = |error: crate::host::HostError| Refusal {
        code: prepare::code::UNEXPECTED,
        message: error.to_string(),
        hint: None,
    };
    host.lock(layout::LOCK.into()).map_err(failed)?.ok_or_else(busy)
}

/// Turns effects into deeds and deeds into inputs.
struct Driver {
    host: SharedHost,
    job: Arc<Job>,
    session: Session,
    worker: Worker,
    signals: Signals,
    /// For what runs on the side: support bundles, looks at the site.
    sender: Sender<Input>,
    results: Receiver<Input>,
    looked_at: Option<Instant>,
    is_looking: bool,
}

impl Driver {
    fn drive(&mut self, terminal: &mut Terminal) -> Ended {
        loop {
            let session = &self.session;
            let drawn = terminal.draw(|frame| view::draw(session, frame.area(), frame.buffer_mut()));
            let keys = drawn.and_then(|()| input::wait(tick(self.session.mode).min(Duration::from_millis(100))));
            let Ok(keys) = keys else { return self.go_on_alone() };
            if self.signals.is_hung_up() {
                return self.go_on_alone();
            }
            let mut inputs: Vec<Input> = keys.into_iter().filter_map(key_input).collect();
            inputs.extend(self.heard());
            inputs.push(Input::Tick(self.host.now()));
            for input in inputs {
                for effect in self.session.update(input) {
                    match self.act(effect, terminal) {
                        Ok(None) => {}
                        Ok(Some(ended)) => return ended,
                        Err(_) => return self.go_on_alone(),
                    }
                }
            }
            if matches!(self.session.page(), Page::Done | Page::Dashboard)
                && self.looked_at.is_none_or(|last| last.elapsed() >= SITE_INTERVAL)
            {
                self.look_at_site();
            }
        }
    }

    /// What came from the engine, from the side, and from signals.
    fn heard(&mut self) -> Vec<Input> {
        let mut inputs: Vec<Input> = self.results.try_iter().collect();
        self.is_looking &= !inputs.iter().any(|input| matches!(input, Input::Site(_)));
        // Asked before the events are fetched: what was said before the end is then among them.
        let result = self.worker.result();
        inputs.extend(self.worker.events().map(|(time, event)| Input::Heard(time, event)));
        inputs.extend(self.worker.question().map(Input::Asked));
        if let Some(failure) = result.and_then(untold) {
            inputs.push(Input::Broke(failure));
        }
        if self.signals.take_terminate() {
            inputs.push(Input::Terminate);
        }
        inputs
    }

    fn act(&mut self, effect: Effect, terminal: &mut Terminal) -> io::Result<Option<Ended>> {
        match effect {
            Effect::Answer(answer) => self.worker.answer(answer),
            Effect::Stop => self.worker.stop(),
            Effect::Retry => self.worker = Worker::start(Arc::clone(&self.host), Arc::clone(&self.job)),
            Effect::BackToSettings => {
                // The plan is what marks an installation as begun.
                if let Err(error) = self.host.remove(layout::PLAN.into()) {
                    self.session.notice = error.to_string();
                } else {
                    return Ok(Some(Ended::BackToSettings));
                }
            }
            Effect::Save(directory) => {
                let (host, sender) = (Arc::clone(&self.host), self.sender.clone());
                std::thread::spawn(move || {
                    let result = support::write(&*host, &directory);
                    let result = result.map_err(|error| format!("{error} (hint: {})", error.hint()));
                    // These pages may have been left by now.
                    let _ = sender.send(Input::Saved(result));
                });
            }
            Effect::Shell => {
                let shell = terminal.lend(crate::host::real::shell)?;
                if let Err(error) = shell {
                    self.session.notice = format!("no shell: {error}");
                }
            }
            Effect::PowerOff => {
                let off = Command::new("systemctl").arg("poweroff");
                match self.host.run(&off, &mut |_| {}) {
                    Ok(output) if output.success() => return Ok(Some(Ended::PowerOff)),
                    Ok(output) => output.stderr.trim().clone_into(&mut self.session.notice),
                    Err(error) => self.session.notice = error.to_string(),
                }
            }
            Effect::LookAtSite => self.look_at_site(),
            Effect::Redraw => terminal.redraw()?,
            Effect::Leave => return Ok(Some(self.ended())),
        }
        Ok(None)
    }

    fn look_at_site(&mut self) {
        if self.is_looking {
            return;
        }
        self.is_looking = true;
        self.looked_at = Some(Instant::now());
        let (host, sender) = (Arc::clone(&self.host), self.sender.clone());
        std::thread::spawn(move || {
            if let Ok(Some(state)) = State::read(&*host) {
                // These pages may have been left by now.
                let _ = sender.send(Input::Site(Box::new(Overview::look(&*host, state))));
            }
        });
    }

    /// The terminal is gone. The installation goes on; what needs a person fails, and `resume` asks again.
    fn go_on_alone(&mut self) -> Ended {
        if self.session.ceremony.take().is_some() {
            self.worker.answer(Answer::Nobody);
        }
        let signals = self.signals.clone();
        self.worker.finish_alone(|worker| {
            if signals.take_terminate() {
                worker.stop();
            }
        });
        for input in self.heard() {
            self.session.update(input);
        }
        self.ended()
    }

    fn ended(&self) -> Ended {
        match &self.session.run.outcome {
            Outcome::Finished => Ended::Finished,
            Outcome::Failed(failure) => Ended::Failed(failure.clone()),
            Outcome::Stopped { next } => Ended::Stopped { next: next.clone() },
            // Left before the engine said a word.
            Outcome::Waiting | Outcome::Running => Ended::Stopped { next: String::new() },
        }
    }
}

fn key_input(event: TerminalEvent) -> Option<Input> {
    match event {
        TerminalEvent::Key(key) => Some(Input::Key(key)),
        TerminalEvent::Paste(text) => Some(Input::Paste(text)),
        // The next picture has the new size anyway.
        _ => None,
    }
}

/// A failure that no event told: the journal, or a fault of this program.
fn untold(result: Result<(), Option<EngineError>>) -> Option<Failure> {
    let (code, error, hint) = match result {
        Ok(()) | Err(Some(EngineError::Step { .. } | EngineError::Stopped { .. } | EngineError::Restarting { .. })) => {
            return None;
        }
        Err(Some(error)) => ("journal", error.to_string(), error.hint()),
        Err(None) => (
            "internal",
            "the engine came to an unexpected end; this is a fault of this program".to_owned(),
            "save a support bundle and report it; Retry goes on from this step".to_owned(),
        ),
    };
    Some(Failure {
        step: "engine".to_owned(),
        title: "the engine".to_owned(),
        code: code.to_owned(),
        error,
        hint: Some(hint),
    })
}

/// The exit code of an engine's error, the same for every face of the engine.
pub fn exit_code(error: &EngineError) -> u8 {
    match error {
        EngineError::Step { source: StepError::Bundle { .. }, .. } => 4,
        EngineError::Stopped { .. } | EngineError::Restarting { .. } => 6,
        _ => 5,
    }
}
