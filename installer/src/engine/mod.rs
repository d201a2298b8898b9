//! The engine: runs a plan step by step, says what happens, and writes the journal.
//!
//! Invariant: a step's `done()` is asked before it acts; the journal says "started" before the first effect of a step
//! and "finished" after its last, fsynced both times. So a plan that was cut off anywhere can be run again.
//! Each event is also appended to `/var/lib/cofferdam/events.jsonl`, for a second console and for the support bundle.
//! Called by the command line and by `ui/run/`.

pub mod event;
pub mod journal;
pub mod question;
mod record;
mod stop;

use std::time::Duration;

use bundle::index::Index;

use crate::config::InstallConfig;
use crate::host::{Host, HostError};
use crate::plan::{Plan, Step};
use crate::step::{self, StepError};
use event::{Event, Progress};
use journal::{Journal, Record};
use question::Answers;
use record::EventRecord;
pub use stop::Stop;

/// Where events go.
pub type Listener<'a> = dyn FnMut(&Event) + 'a;

/// Everything that a run of a plan needs.
pub struct Engine<'a> {
    /// The machine.
    pub host: &'a dyn Host,
    /// The answers.
    pub config: &'a InstallConfig,
    /// What to do.
    pub plan: &'a Plan,
    /// The verified index of the bundle.
    pub index: &'a Index,
    /// The index and its signature as they were signed, to be stored on the host.
    pub signed_index: (&'a [u8], &'a [u8]),
    /// Who answers the steps' questions.
    pub answers: &'a dyn Answers,
    /// The operator's wish to stop.
    pub stop: &'a Stop,
}

/// How a run ended without success. The step can be run again.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A step failed as often as it may be tried.
    #[error("step {id} ({title}) failed: {source}")]
    Step {
        /// Its id.
        id: String,
        /// Its title.
        title: String,
        /// Why.
        source: StepError,
    },
    /// The journal could not be written: nothing is done without it.
    #[error("the journal cannot be kept: {0}")]
    Journal(#[source] HostError),
    /// The machine restarts, as the plan says; the run goes on afterwards by itself.
    #[error("the machine restarts, and goes on from the step {next} by itself")]
    Restarting {
        /// The id of the step that asked for it.
        next: String,
    },
    /// The operator stopped the run between two steps, or at a question.
    #[error("stopped before the step {next}; nothing is half done")]
    Stopped {
        /// The id of the step that comes next.
        next: String,
    },
}

impl EngineError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        let resume = "mend the cause, then `cofferdam resume` goes on from this step";
        match self {
            Self::Step { source, .. } => {
                source.hint().map_or_else(|| resume.to_owned(), |hint| format!("{hint}; {resume}"))
            }
            Self::Restarting { .. } => {
                "`cofferdam status` tells how it ended; of an upgrade `cofferdam upgrade history` does, too".to_owned()
            }
            Self::Stopped { .. } => "`cofferdam resume` goes on from there".to_owned(),
            Self::Journal(_) => format!("look at the root filesystem's space and health; {resume}"),
        }
    }
}

impl Engine<'_> {
    /// Runs the plan to its end.
    pub fn run(&self, listen: &mut Listener) -> Result<(), EngineError> {
        let journal = Journal::new(self.host);
        let mut record = EventRecord::new(self.host);
        let mut tell = |event: &Event| {
            record.hear(event);
            listen(event);
        };
        let total: u64 = self.plan.steps.iter().map(|step| u64::from(step.weight)).sum();
        tell(&Event::Started { site: self.plan.site.clone(), steps: self.plan.steps.len(), weight: total });
        let mut weight = 0;
        for (position, step) in self.plan.steps.iter().enumerate() {
            self.step(position, step, &journal, &mut tell)?;
            weight += u64::from(step.weight);
            tell(&Event::Overall { weight, total });
        }
        tell(&Event::Finished { site: self.plan.site.clone() });
        Ok(())
    }

    fn step(&self, position: usize, step: &Step, journal: &Journal, listen: &mut Listener) -> Result<(), EngineError> {
        let fail = |source| EngineError::Step { id: step.id.clone(), title: step.title.clone(), source };
        let number = position + 1;
        if self.stop.is_requested() {
            return Err(stopped(step, listen));
        }
        let started = self.host.now();
        let context = step::Context::new(self, step);
        let is_done = context.done().map_err(|error| {
            // No attempt was made, so none is written down; whoever watches still has to hear of it.
            listen(&failure(step, &error, 0, false));
            fail(error)
        })?;
        if is_done {
            journal.append(&Record::skipped(step, self.host.now())).map_err(EngineError::Journal)?;
            listen(&Event::StepSkipped { id: step.id.clone(), title: step.title.clone(), number });
            return Ok(());
        }
        listen(&Event::StepStarted {
            id: step.id.clone(),
            title: step.title.clone(),
            number,
            of: self.plan.steps.len(),
        });
        let mut attempt = 1;
        loop {
            journal.append(&Record::started(step, attempt, self.host.now())).map_err(EngineError::Journal)?;
            let result = context.run(&mut |progress: Progress| {
                listen(&Event::StepProgress { id: step.id.clone(), progress });
            });
            let Err(error) = result else { break };
            journal.append(&Record::failed(step, attempt, self.host.now(), &error)).map_err(EngineError::Journal)?;
            match error {
                StepError::Stopped => return Err(stopped(step, listen)),
                // Nobody is told that it stopped: what is shown is that the machine restarts.
                StepError::Restarting => return Err(EngineError::Restarting { next: step.id.clone() }),
                _ => {}
            }
            let last = attempt >= step.attempts || !error.can_be_retried();
            listen(&failure(step, &error, attempt, !last));
            if last {
                return Err(fail(error));
            }
            if self.stop.is_requested() {
                return Err(stopped(step, listen));
            }
            self.host.pause(Duration::from_secs(2 * u64::from(attempt)));
            attempt += 1;
        }
        let ended = self.host.now();
        journal.append(&Record::finished(step, attempt, ended)).map_err(EngineError::Journal)?;
        let milliseconds = u64::try_from(ended.duration_since(started).as_millis()).unwrap_or(0);
        listen(&Event::StepFinished { id: step.id.clone(), title: step.title.clone(), number, milliseconds });
        Ok(())
    }
}

fn failure(step: &Step, error: &StepError, attempt: u32, again: bool) -> Event {
    Event::StepFailed {
        id: step.id.clone(),
        title: step.title.clone(),
        code: error.code().to_owned(),
        error: error.to_string(),
        hint: error.hint(),
        attempt,
        again,
    }
}

fn stopped(next: &Step, listen: &mut Listener) -> EngineError {
    listen(&Event::Stopped { next: next.id.clone() });
    EngineError::Stopped { next: next.id.clone() }
}
