//! The run of a plan as it is shown: a pure fold over the engine's events and the clock.
//!
//! Invariant: any events in any order give a state that can be drawn; those of steps that the plan does not have are
//! passed over. Nothing here reads a clock or touches the host. Used by the progress page and by `cofferdam monitor`.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::estimate::{Estimate, Situation, Working};
use crate::engine::event::{Count, Event, Progress};
use crate::plan::Plan;

/// After so many milliseconds without an event the page says so.
pub const SILENCE: u64 = 60_000;
/// Lines kept for the log pane.
const LOG_LIMIT: usize = 1000;
/// Milliseconds over which the rate is measured.
const RATE_WINDOW: u64 = 10_000;

/// The run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Name of the site.
    pub site: String,
    /// Name and version of the bundle.
    pub bundle: String,
    /// The steps of the plan.
    pub steps: Vec<StepView>,
    /// How it stands.
    pub outcome: Outcome,
    /// The step in work.
    pub current: Option<Current>,
    /// Share and time left.
    pub estimate: Estimate,
    /// The last lines.
    pub log: VecDeque<LogLine>,
    began: Option<Timestamp>,
    ended: Option<Timestamp>,
    heard: Option<Timestamp>,
    now: Timestamp,
    measured: (u64, u64),
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepView {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// How it stands.
    pub state: StepState,
    weight: u64,
}

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// Its turn comes later.
    Waiting,
    /// It is in work.
    Running,
    /// It was done before this run.
    Skipped,
    /// It is done, after so many milliseconds.
    Finished(u64),
    /// It failed as often as it is tried.
    Failed,
}

/// The step in work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// Its place in the plan, from 0.
    pub position: usize,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// What it said last.
    pub note: String,
    /// Bytes or things, where it counts them.
    pub work: Option<Work>,
    since: Timestamp,
}

/// What a step counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Bytes.
    Bytes {
        /// So far.
        done: u64,
        /// In all.
        total: u64,
        /// The blobs that they are.
        blobs: Option<Count>,
        /// Bytes per second over the last seconds.
        rate: u64,
        /// When how many were done, oldest first, for the rate.
        samples: VecDeque<(Timestamp, u64)>,
    },
    /// Things.
    Items {
        /// So far.
        done: usize,
        /// In all.
        total: usize,
        /// The present one.
        item: String,
    },
}

/// How the run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was heard yet.
    Waiting,
    /// It goes on.
    Running,
    /// It stopped because of this.
    Failed(Failure),
    /// The operator stopped it before this step.
    Stopped {
        /// The id of the step that comes next.
        next: String,
    },
    /// All is done.
    Finished,
}

/// Why a run stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The step's id.
    pub step: String,
    /// The step's title.
    pub title: String,
    /// What kind of failure it is, stable.
    pub code: String,
    /// What failed.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When.
    pub time: Timestamp,
    /// What.
    pub text: String,
}

impl Run {
    /// A plan of which nothing was heard yet.
    pub fn new(plan: &Plan, now: Timestamp) -> Self {
        Self {
            site: plan.site.clone(),
            bundle: plan.bundle.clone(),
            steps: plan
                .steps
                .iter()
                .map(|step| StepView {
                    id: step.id.clone(),
                    title: step.title.clone(),
                    state: StepState::Waiting,
                    weight: u64::from(step.weight),
                })
                .collect(),
            outcome: Outcome::Waiting,
            current: None,
            estimate: Estimate::default(),
            log: VecDeque::new(),
            began: None,
            ended: None,
            heard: None,
            now,
            measured: (0, 0),
        }
    }

    /// Takes in an event.
    pub fn hear(&mut self, time: Timestamp, event: &Event) {
        self.now = self.now.max(time);
        self.heard = Some(self.now);
        self.write_log(event);
        match event {
            Event::Started { .. } => self.start(),
            Event::StepStarted { id, .. } => self.begin_step(id),
            Event::StepSkipped { id, .. } => {
                if let Some(step) = self.steps.iter_mut().find(|step| step.id == *id)
                    && !matches!(step.state, StepState::Finished(_))
                {
                    step.state = StepState::Skipped;
                }
            }
            Event::StepProgress { id, progress } => self.progress(id, progress),
            Event::StepFailed { id, title, code, error, hint, attempt, again } => {
                if *again {
                    if let Some(current) = self.current_of(id) {
                        current.attempt = attempt.saturating_add(1);
                        current.work = None;
                    }
                } else {
                    let failure = Failure {
                        step: id.clone(),
                        title: title.clone(),
                        code: code.clone(),
                        error: error.clone(),
                        hint: hint.clone(),
                    };
                    self.fail(failure);
                }
            }
            Event::StepFinished { id, milliseconds, .. } => self.finish_step(id, *milliseconds),
            Event::Overall { .. } => {}
            Event::Stopped { next } => self.end(Outcome::Stopped { next: next.clone() }, StepState::Waiting),
            Event::Finished { .. } => {
                self.end(Outcome::Finished, StepState::Skipped);
                self.estimate.finish();
            }
        }
        self.update_estimate();
    }

    /// Time goes by.
    pub fn tick(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.update_estimate();
    }

    /// The run stopped for a reason that no event told, for example because the journal cannot be written.
    pub fn fail(&mut self, failure: Failure) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.id == failure.step) {
            step.state = StepState::Failed;
        }
        self.end(Outcome::Failed(failure), StepState::Failed);
    }

    /// Milliseconds since the run began; it stands still once the run has ended.
    pub fn elapsed(&self) -> u64 {
        self.began.map_or(0, |began| between(began, self.ended.unwrap_or(self.now)))
    }

    /// Milliseconds since the step in work began.
    pub fn step_elapsed(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| between(current.since, self.now))
    }

    /// Milliseconds without an event while the run goes on, once they are worth a word.
    pub fn silence(&self) -> Option<u64> {
        let silent = between(self.heard?, self.now);
        (self.outcome == Outcome::Running && silent >= SILENCE).then_some(silent)
    }

    /// How many steps are done.
    pub fn steps_done(&self) -> usize {
        self.steps.iter().filter(|step| step.state.is_done()).count()
    }

    fn start(&mut self) {
        self.outcome = Outcome::Running;
        self.began = Some(self.now);
        self.ended = None;
        self.current = None;
        self.measured = (0, 0);
        self.estimate.restart();
        for step in &mut self.steps {
            if !step.state.is_done() {
                step.state = StepState::Waiting;
            }
        }
    }

    fn begin_step(&mut self, id: &str) {
        let Some(position) = self.steps.iter().position(|step| step.id == id) else { return };
        self.outcome = Outcome::Running;
        self.began.get_or_insert(self.now);
        for step in &mut self.steps {
            if step.state == StepState::Running {
                step.state = StepState::Waiting;
            }
        }
        // A step that was done and is begun again (its effects did not outlive a reboot) is in work again.
        self.steps[position].state = StepState::Running;
        self.current = Some(Current { position, attempt: 1, note: String::new(), work: None, since: self.now });
    }

    fn finish_step(&mut self, id: &str, milliseconds: u64) {
        let Some(step) = self.steps.iter_mut().find(|step| step.id == id) else { return };
        step.state = StepState::Finished(milliseconds);
        self.measured.0 += step.weight;
        self.measured.1 = self.measured.1.saturating_add(milliseconds.min(u64::MAX / 4));
        if self.current.as_ref().is_some_and(|current| self.steps[current.position].id == id) {
            self.current = None;
        }
    }

    fn current_of(&mut self, id: &str) -> Option<&mut Current> {
        let steps = &self.steps;
        self.current.as_mut().filter(|current| steps[current.position].id == id)
    }

    fn progress(&mut self, id: &str, progress: &Progress) {
        let now = self.now;
        let Some(current) = self.current_of(id) else { return };
        match progress {
            Progress::Note { text } | Progress::Medium { text } => current.note.clone_from(text),
            Progress::Items { done, total, item } => {
                current.note.clone_from(item);
                current.work = Some(Work::Items { done: *done, total: *total, item: item.clone() });
            }
            Progress::Bytes { done, total, blobs } => {
                let mut samples = match current.work.take() {
                    Some(Work::Bytes { samples, done: before, .. }) if before <= *done => samples,
                    _ => VecDeque::new(),
                };
                samples.push_back((now, *done));
                while samples.len() > 2 && samples.get(1).is_some_and(|(time, _)| between(*time, now) >= RATE_WINDOW) {
                    samples.pop_front();
                }
                let rate = rate(&samples, current.since);
                current.work = Some(Work::Bytes { done: *done, total: *total, blobs: *blobs, rate, samples });
            }
        }
    }

    fn end(&mut self, outcome: Outcome, in_work: StepState) {
        for step in self.steps.iter_mut().filter(|step| step.state == StepState::Running) {
            step.state = in_work;
        }
        self.current = None;
        self.outcome = outcome;
        self.ended = Some(self.now);
    }

    fn update_estimate(&mut self) {
        if !matches!(self.outcome, Outcome::Running | Outcome::Waiting) {
            return;
        }
        let weight = |wanted: fn(StepState) -> bool| {
            self.steps.iter().filter(|step| wanted(step.state)).map(|step| step.weight).sum::<u64>()
        };
        let current = self.current.as_ref().map(|current| Working {
            weight: self.steps[current.position].weight,
            elapsed: between(current.since, self.now),
            counted: current.work.as_ref().map(Work::counted),
        });
        let running = weight(|state| state == StepState::Running);
        let now = Situation {
            done: weight(StepState::is_done),
            measured: self.measured,
            waiting: weight(|state| matches!(state, StepState::Waiting | StepState::Failed))
                + if current.is_some() { 0 } else { running },
            current,
        };
        self.estimate.update(&now);
    }

    fn write_log(&mut self, event: &Event) {
        let text = match event {
            Event::Started { site, steps, .. } => format!("site {site}: {steps} steps"),
            Event::StepStarted { id, title, .. } => format!("{id}: {title}"),
            Event::StepSkipped { id, .. } => format!("{id}: done already"),
            Event::StepProgress { id, progress: Progress::Note { text } | Progress::Medium { text } } => {
                format!("{id}: {text}")
            }
            Event::StepProgress { id, progress: Progress::Items { done, total, item } } => {
                format!("{id}: {done}/{total} {item}")
            }
            Event::StepProgress { .. } | Event::Overall { .. } => return,
            Event::StepFailed { id, error, attempt, again, .. } => {
                let then = if *again { ", trying again" } else { "" };
                format!("{id}: attempt {attempt} FAILED{then}: {error}")
            }
            Event::StepFinished { id, milliseconds, .. } => {
                format!("{id}: done after {}", super::text::time(*milliseconds))
            }
            Event::Stopped { next } => format!("stopped before {next}"),
            Event::Finished { site } => format!("site {site} is installed"),
        };
        // One line of the screen for each: what a command printed may hold anything.
        let text = super::text::plain(&text);
        if self.log.len() == LOG_LIMIT {
            self.log.pop_front();
        }
        self.log.push_back(LogLine { time: self.now, text });
    }
}

impl StepState {
    /// Nothing is left to do.
    pub fn is_done(self) -> bool {
        matches!(self, Self::Skipped | Self::Finished(_))
    }
}

impl Work {
    /// So far and in all.
    pub fn counted(&self) -> (u64, u64) {
        match self {
            Self::Bytes { done, total, .. } => (*done, *total),
            Self::Items { done, total, .. } => (*done as u64, *total as u64),
        }
    }
}

/// Milliseconds from one time to a later one.
fn between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

/// Bytes per second over the window; from the step's beginning while there is one sample only.
fn rate(samples: &VecDeque<(Timestamp, u64)>, since: Timestamp) -> u64 {
    let (Some(first), Some(last)) = (samples.front(), samples.back()) else { return 0 };
    let (time, bytes) = if samples.len() > 1 { *first } else { (since, 0) };
    let milliseconds = u128::from(between(time, last.0));
    let bytes = u128::from(last.1.saturating_sub(bytes)) * 1000;
    u64::try_from(bytes.checked_div(milliseconds).unwrap_or(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
