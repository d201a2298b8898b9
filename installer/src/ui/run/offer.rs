//! The page that meets somebody who begins an installation on a host where one was interrupted: go on with it, or leave.

use std::io;
use std::time::Duration;

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event as TerminalEvent, KeyCode};
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::signals::Signals;
use super::view::{self, below, paragraph, put, put_line};
use super::{SharedHost, input};
use crate::engine::journal::{Journal, Outcome, Record};
use crate::layout;
use crate::plan::Plan;
use crate::ui::frame::{self, Chrome};
use crate::ui::keymap::{Command, Hint, command};
use crate::ui::terminal::Terminal;
use crate::ui::theme::{Mode, Theme};

/// What the page shows.
pub(super) struct Offered {
    site: String,
    fqdn: String,
    bundle: String,
    /// Done and all.
    steps: (usize, usize),
    last: Option<(Timestamp, String)>,
    is_running: bool,
    pub(super) goes_on: bool,
    pub(super) mode: Mode,
}

impl Offered {
    pub(super) fn new(plan: &Plan, records: &[Record], is_running: bool, mode: Mode) -> Self {
        let is_done = |id: &str| {
            let last = records.iter().rev().find(|record| record.step == id);
            last.is_some_and(|record| matches!(record.result, Outcome::Finished | Outcome::Skipped))
        };
        let word = |result: Outcome| match result {
            Outcome::Started => "was begun",
            Outcome::Finished => "was done",
            Outcome::Failed => "failed",
            Outcome::Skipped => "was done already",
        };
        let title = |id: &str| plan.steps.iter().find(|step| step.id == id).map_or(id, |step| &step.title).to_owned();
        Self {
            site: plan.site.clone(),
            fqdn: plan.fqdn.clone(),
            bundle: plan.bundle.clone(),
            steps: (plan.steps.iter().filter(|step| is_done(&step.id)).count(), plan.steps.len()),
            last: records.last().map(|last| {
                let why = last.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
                (last.time, format!("\"{}\" {}{why}", title(&last.step), word(last.result)))
            }),
            is_running,
            // Somebody else's run is not joined, so the focus begins where nothing happens.
            goes_on: !is_running,
            mode,
        }
    }

    pub(super) fn draw(&self, area: Rect, picture: &mut Buffer) {
        let theme = Theme::new(self.mode);
        let named = |command, word| Hint::named(command, self.mode, Some(word));
        let chrome = Chrome {
            product: view::product(),
            place: self.fqdn.clone(),
            trail: (vec!["Interrupted installation"], 0),
            notice: Line::default(),
            keys: vec![
                Hint::new("Tab", "Choose"),
                named(Command::Enter, "OK"),
                named(Command::Abort, "Leave"),
                Hint::of(Command::Look, self.mode),
            ],
        };
        if let Some(body) = frame::draw(&chrome, theme, area, picture) {
            self.draw_body(theme, body, picture);
        }
        theme.flatten(picture);
    }

    fn draw_body(&self, theme: Theme, area: Rect, picture: &mut Buffer) {
        let head = if self.is_running {
            "An installation is running on this host"
        } else {
            "An installation was interrupted on this host"
        };
        let rest = put_line(&Line::styled(head, theme.strong()), area, picture);
        let (done, all) = self.steps;
        let about = format!("site {} at {}, {}: {done} of {all} steps are done", self.site, self.fqdn, self.bundle);
        let rest = put(&paragraph(&about, rest.width, 2), theme.text(), below(rest, 1), picture);
        let rest = match &self.last {
            Some((time, text)) => {
                let last = format!("{} UTC: {text}", time.strftime("%Y-%m-%d %H:%M:%S"));
                put(&paragraph(&last, rest.width, 5), theme.text(), rest, picture)
            }
            None => rest,
        };
        let rest = put_line(&Line::styled(format!("Log: {}", layout::JOURNAL), theme.muted()), rest, picture);
        let rest = below(rest, 1);
        if self.is_running {
            let text = "`cofferdam monitor` shows it, read only.";
            put(&[text.to_owned()], theme.text(), rest, picture);
            return;
        }
        let lines = [
            ("Go on", "with the same plan; what is done is not done again", self.goes_on),
            ("Leave", "nothing is changed", !self.goes_on),
        ];
        for (y, (label, what, is_focus)) in (rest.y..rest.bottom()).zip(lines) {
            let (mark, style) = if is_focus { ("▸", theme.focus()) } else { (" ", theme.text()) };
            picture.set_stringn(rest.x, y, format!("{mark} {label:<10}"), 12, style);
            picture.set_stringn(rest.x + 14, y, what, usize::from(rest.width).saturating_sub(14), theme.muted());
        }
    }
}

/// Shows the page; `true` when the installation is to go on.
pub fn offer(terminal: &mut Terminal, theme: Theme, plan: &Plan, host: &SharedHost) -> io::Result<bool> {
    let signals = Signals::listen()?;
    let look = |mode| {
        let records = Journal::new(&**host).records().unwrap_or_default();
        Offered::new(plan, &records, host.is_locked(layout::LOCK.into()).unwrap_or(false), mode)
    };
    let mut offered = look(theme.mode());
    loop {
        terminal.draw(|screen| offered.draw(screen.area(), screen.buffer_mut()))?;
        for event in input::wait(Duration::from_millis(500))? {
            let TerminalEvent::Key(key) = event else { continue };
            match (command(&key), key.code) {
                (Some(Command::Abort | Command::Back), _) | (None, KeyCode::Char('q')) => return Ok(false),
                (Some(Command::Enter), _) => return Ok(offered.goes_on),
                (Some(Command::Next | Command::Previous), _) if !offered.is_running => {
                    offered.goes_on = !offered.goes_on;
                }
                (Some(Command::Look), _) => {
                    offered.mode = offered.mode.toggled();
                    terminal.redraw()?;
                }
                (Some(Command::Redraw), _) => terminal.redraw()?,
                _ => {}
            }
        }
        if signals.take_terminate() || signals.is_hung_up() {
            return Ok(false);
        }
        // What runs goes on, and ends. The focus stays where Enter does nothing.
        if offered.is_running {
            offered = look(offered.mode);
            offered.goes_on = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Offered;
    use crate::engine::journal::{Outcome, Record};
    use crate::ui::run::tests::{clock, in_three_looks, sample_plan};

    #[test]
    fn what_was_begun_is_offered() {
        let record = |at, step: &str, result, error: Option<&str>| Record {
            time: clock(at),
            step: step.to_owned(),
            result,
            attempt: 1,
            error: error.map(str::to_owned),
        };
        let records = [
            record(1, "host.prepare", Outcome::Started, None),
            record(2, "host.prepare", Outcome::Finished, None),
            record(3, "disk.encrypt", Outcome::Started, None),
            record(4, "disk.encrypt", Outcome::Finished, None),
            record(5, "data.mount", Outcome::Failed, Some("/dev/mapper/cofferdam is not there")),
        ];
        for (name, count, is_running) in [("interrupted", 3, false), ("failed", 5, false), ("running", 3, true)] {
            in_three_looks(&format!("offer-{name}"), |mode, area, picture| {
                Offered::new(&sample_plan(), records.get(..count).unwrap_or_default(), is_running, mode)
                    .draw(area, picture);
            });
        }
    }
}
