//! The second console: the run as its event file tells it, read only. It may be started before, during and after a run.
//!
//! Invariant: nothing is written and nothing is held; a wrong line of the file is passed over.

use std::io;
use std::time::{Duration, Instant};

use camino::Utf8Path;
use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event as TerminalEvent, KeyCode};
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::model::{Outcome, Run};
use super::signals::Signals;
use super::view::{self, draw_progress, progress_shown};
use super::{SharedHost, input, tick};
use crate::engine::event::Heard;
use crate::host::{Host, HostExt};
use crate::layout;
use crate::plan::Plan;
use crate::ui::frame::{self, Chrome};
use crate::ui::keymap::{Command, Hint, command};
use crate::ui::terminal::Terminal;
use crate::ui::theme::{Mode, Theme};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// What the second console shows.
pub(super) struct Watched {
    run: Option<(Plan, Run)>,
    /// Bytes of the event file that were read.
    read: usize,
    is_alive: bool,
    log: Option<usize>,
    mode: Mode,
    ticks: u64,
}

impl Watched {
    pub(super) fn new(mode: Mode) -> Self {
        Self { run: None, read: 0, is_alive: false, log: None, mode, ticks: 0 }
    }

    /// Reads what is new.
    fn look(&mut self, host: &dyn Host) {
        let plan = host.read_text(layout::PLAN.into()).ok().flatten().and_then(|text| serde_json::from_str(&text).ok());
        let events = host.read(layout::EVENTS.into()).ok().flatten();
        self.is_alive = is_running(host);
        self.hear(plan, events.as_deref().map_or(&[][..], Vec::as_slice), host.now());
    }

    /// Takes the plan and the whole event file. A plan that is another one begins from the start.
    fn hear(&mut self, plan: Option<Plan>, bytes: &[u8], now: Timestamp) {
        match (plan, &self.run) {
            (Some(plan), Some((known, _))) if plan == *known => {}
            (Some(plan), _) => {
                let run = Run::new(&plan, Timestamp::UNIX_EPOCH);
                self.run = Some((plan, run));
                self.read = 0;
            }
            (None, _) => self.run = None,
        }
        let Some((_, run)) = &mut self.run else { return };
        if bytes.len() < self.read {
            self.read = 0;
        }
        let fresh = bytes.get(self.read..).unwrap_or_default();
        // A line that is being written has no end yet.
        let whole = fresh.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in String::from_utf8_lossy(fresh.get(..whole).unwrap_or_default()).lines() {
            if let Some(heard) = Heard::parse(line) {
                run.hear(heard.time, &heard.event);
            }
        }
        self.read += whole;
        if self.is_alive {
            run.tick(now);
        }
    }

    /// Takes a key; says whether to go on.
    fn key(&mut self, event: &TerminalEvent) -> bool {
        let TerminalEvent::Key(key) = event else { return true };
        match (command(key), key.code) {
            (Some(Command::Abort), _) | (None, KeyCode::Char('q')) => return false,
            (Some(Command::Look), _) => self.mode = self.mode.toggled(),
            (Some(Command::Log), _) => self.log = if self.log.is_some() { None } else { Some(0) },
            (Some(Command::Previous), _) => self.log = self.log.map(|back| back + 1),
            (Some(Command::Next), _) => self.log = self.log.map(|back| back.saturating_sub(1)),
            _ => {}
        }
        true
    }

    /// What is to be said in place of the step in work.
    fn remark(&self) -> Option<&'static str> {
        let (_, run) = self.run.as_ref()?;
        match &run.outcome {
            Outcome::Finished => Some("The site is installed; `cofferdam dashboard` shows it."),
            Outcome::Stopped { .. } => Some("The operator stopped it; `cofferdam resume` goes on."),
            Outcome::Failed(_) if self.is_alive => Some("It failed, and waits for the operator at its own console."),
            Outcome::Failed(_) => Some("It failed; `cofferdam resume` goes on once the cause is mended."),
            Outcome::Running | Outcome::Waiting if !self.is_alive => {
                Some("It was interrupted: no installer runs. `cofferdam resume` goes on.")
            }
            Outcome::Running | Outcome::Waiting => None,
        }
    }

    pub(super) fn draw(&self, area: Rect, picture: &mut Buffer) {
        let theme = Theme::new(self.mode);
        let chrome = Chrome {
            product: view::product(),
            place: self.run.as_ref().map_or_else(String::new, |(plan, _)| plan.fqdn.clone()),
            trail: (vec!["Monitor, read only"], 0),
            notice: Line::default(),
            keys: vec![
                Hint::named(Command::Log, self.mode, Some(if self.log.is_some() { "Hide log" } else { "Log" })),
                Hint::of(Command::Look, self.mode),
                Hint::new("q", "Leave"),
            ],
        };
        if let Some(body) = frame::draw(&chrome, theme, area, picture) {
            match &self.run {
                None => {
                    let text = Line::styled("No installation was begun on this host; waiting for one.", theme.muted());
                    picture.set_line(body.x, body.y, &text, body.width);
                }
                Some((_, run)) => {
                    draw_progress(&progress_shown(run, self.ticks, self.log, self.remark()), theme, body, picture);
                }
            }
        }
        theme.flatten(picture);
    }
}

/// Whether some process holds the run's lock.
fn is_running(host: &dyn Host) -> bool {
    host.is_locked(Utf8Path::new(layout::LOCK)).unwrap_or(false)
}

/// Shows the run until `q`, until the terminal is gone, or until `is_over` says so, which is asked twice a second.
pub fn monitor(
    terminal: &mut Terminal,
    theme: Theme,
    host: &SharedHost,
    is_over: &mut dyn FnMut() -> bool,
) -> io::Result<()> {
    let signals = Signals::listen()?;
    let mut watched = Watched::new(theme.mode());
    let mut looked: Option<Instant> = None;
    loop {
        if looked.is_none_or(|last| last.elapsed() >= INTERVAL) {
            if is_over() {
                return Ok(());
            }
            watched.look(&**host);
            watched.ticks += 1;
            looked = Some(Instant::now());
        }
        terminal.draw(|frame| watched.draw(frame.area(), frame.buffer_mut()))?;
        for event in input::wait(tick(watched.mode).min(INTERVAL))? {
            let before = watched.mode;
            if !watched.key(&event) {
                return Ok(());
            }
            if before != watched.mode
                || matches!(&event, TerminalEvent::Key(key) if command(key) == Some(Command::Redraw))
            {
                terminal.redraw()?;
            }
        }
        if signals.take_terminate() || signals.is_hung_up() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Watched;
    use crate::engine::event::{Event, Line, Progress};
    use crate::ui::run::tests::{clock, in_three_looks, sample_plan};

    /// The event file of a run that came to its load of the bundle, with the beginning of a line that is being written.
    fn events(more: &[Event]) -> Vec<u8> {
        let plan = sample_plan();
        let mut all = vec![Event::Started { site: plan.site.clone(), steps: plan.steps.len(), weight: 0 }];
        for (position, step) in plan.steps.iter().enumerate() {
            let (id, title, number) = (step.id.clone(), step.title.clone(), position + 1);
            all.push(Event::StepStarted { id: id.clone(), title: title.clone(), number, of: plan.steps.len() });
            if id == "bundle.load" {
                let progress = Progress::Bytes { done: 1_900_000_000, total: 4_700_000_000, blobs: None };
                all.push(Event::StepProgress { id, progress });
                break;
            }
            all.push(Event::StepFinished { id, title, number, milliseconds: 7000 });
        }
        all.extend_from_slice(more);
        let mut bytes: Vec<u8> =
            (0..).zip(&all).flat_map(|(at, event)| Line::new(clock(at), event).text().into_bytes()).collect();
        bytes.extend_from_slice(b"{\"v\":1,\"ti");
        bytes
    }

    #[test]
    fn the_second_console() {
        in_three_looks("monitor-waiting", |mode, area, picture| Watched::new(mode).draw(area, picture));
        let watched = |mode, is_alive| {
            let mut watched = Watched::new(mode);
            watched.is_alive = is_alive;
            watched.hear(Some(sample_plan()), &events(&[]), clock(20));
            watched
        };
        in_three_looks("monitor-running", |mode, area, picture| watched(mode, true).draw(area, picture));
        in_three_looks("monitor-interrupted", |mode, area, picture| watched(mode, false).draw(area, picture));
    }
}
