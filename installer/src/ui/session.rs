//! The loop of the pages before the run: keys and results go into the model, pictures and jobs come out.
//!
//! Called by the command line with the real machine, and by the demo with a simulated one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::Event;
use zeroize::Zeroizing;

use super::machine::{Answer, Job, Machine};
use super::model::Model;
use super::run::signals::Signals;
use super::run::{self, Ended, SharedHost};
use super::terminal::Terminal;
use super::theme::{Mode, Theme};
use super::update::{Effect, Message, update};
use super::view;
use crate::engine::Stop;
use crate::plan::Plan;

/// How the installer was left.
#[derive(Debug)]
pub enum Left {
    /// Before anything was begun.
    Quit,
    /// Only the host was to be checked.
    Checked,
    /// The plan was run.
    Ran(Box<Ended>, Plan),
}

/// A tick of the model.
const TICK: Duration = Duration::from_millis(100);
/// How often a picture is drawn while only time passes: a serial line is slow.
const QUIET_TICKS: (u32, u32) = (1, 5);

struct Session {
    machine: Arc<dyn Machine>,
    sender: Sender<(u64, Answer)>,
    results: Receiver<(u64, Answer)>,
    stops: BTreeMap<u64, Stop>,
}

/// Shows the pages until the operator leaves, or the engine has run.
pub fn run(
    terminal: &mut Terminal,
    model: &mut Model,
    machine: Arc<dyn Machine>,
    host: &SharedHost,
) -> std::io::Result<Left> {
    let signals = Signals::listen()?;
    let (sender, results) = mpsc::channel();
    let mut session = Session { machine, sender, results, stops: BTreeMap::new() };
    let mut last_tick = Instant::now();
    let mut quiet = u32::MAX;
    loop {
        let often = if model.look == Mode::Basic { QUIET_TICKS.1 } else { QUIET_TICKS.0 };
        if quiet >= often {
            terminal.draw(|frame| view::draw(model, frame.area(), frame.buffer_mut()))?;
            quiet = 0;
        }
        // Nothing is begun yet, so both simply leave.
        if signals.take_terminate() || signals.is_hung_up() {
            return Ok(Left::Quit);
        }
        let mut messages: Vec<Message> = run::input::wait(TICK)?.into_iter().filter_map(message).collect();
        messages.extend(session.results.try_iter().map(|(serial, answer)| Message::Answer(serial, answer)));
        let (width, height) = terminal.size();
        if model.size != (width, height) {
            messages.insert(0, Message::Size(width, height));
        }
        if !messages.is_empty() {
            quiet = u32::MAX;
        }
        while last_tick.elapsed() >= TICK {
            last_tick += TICK;
            messages.push(Message::Tick);
            // Nothing turns when nothing runs.
            if model.is_busy() || model.begins_at.is_some() {
                quiet = quiet.saturating_add(1);
            }
        }
        for message in messages {
            for effect in update(model, message) {
                if let Some(left) = session.act(effect, model, terminal, host)? {
                    return Ok(left);
                }
            }
        }
    }
}

impl Session {
    fn act(
        &mut self,
        effect: Effect,
        model: &mut Model,
        terminal: &mut Terminal,
        host: &SharedHost,
    ) -> std::io::Result<Option<Left>> {
        match effect {
            Effect::Run(serial, job) => self.begin(serial, job),
            Effect::Cancel(serial) => {
                if let Some(stop) = self.stops.remove(&serial) {
                    stop.request();
                }
            }
            Effect::Redraw => terminal.redraw()?,
            Effect::Shell => {
                if let Err(error) = terminal.lend(crate::host::real::shell)? {
                    model.log.push(format!("no shell: {error}"));
                }
            }
            Effect::Quit => return Ok(Some(Left::Quit)),
            Effect::Finish => return Ok(Some(Left::Checked)),
            Effect::Start(start) => {
                let plan = start.plan.clone();
                match run::run(terminal, Theme::new(model.look), *start, host) {
                    Ended::BackToSettings => {
                        terminal.redraw()?;
                        model.tasks.prepare.forget();
                        // What is wanted is asked for with the next tick.
                    }
                    ended => return Ok(Some(Left::Ran(Box::new(ended), plan))),
                }
            }
        }
        Ok(None)
    }

    /// A thread for each job. One that is given up ends by itself, at the latest with the program.
    fn begin(&mut self, serial: u64, job: Job) {
        let stop = Stop::default();
        self.stops.retain(|other, _| serial.saturating_sub(*other) < 64);
        self.stops.insert(serial, stop.clone());
        let (machine, sender) = (Arc::clone(&self.machine), self.sender.clone());
        std::thread::spawn(move || {
            // The pages may have been left by now.
            machine.work(job, &stop, &mut |answer| drop(sender.send((serial, answer))));
        });
    }
}

fn message(event: Event) -> Option<Message> {
    match event {
        Event::Key(key) => Some(Message::Key(key)),
        Event::Paste(text) => Some(Message::Paste(Zeroizing::new(text))),
        Event::Resize(width, height) => Some(Message::Size(width, height)),
        _ => None,
    }
}
