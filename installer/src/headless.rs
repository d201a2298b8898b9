//! The engine's events for people without a TUI: text on stderr, JSON lines into a file.
//!
//! A line of progress is rewritten in place on a terminal, and printed at most every ten seconds elsewhere.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::engine::event::{Event, Line, Progress};

/// Listens to the engine.
pub struct Console {
    events: Option<File>,
    started: Instant,
    step_started: Instant,
    last_progress: Option<Instant>,
    is_terminal: bool,
    is_line_open: bool,
    weight: (u64, u64),
    words: (&'static str, &'static str),
}

impl Console {
    /// `events`: where JSON lines go.
    pub fn new(events: Option<File>) -> Self {
        let now = Instant::now();
        Self {
            events,
            started: now,
            step_started: now,
            last_progress: None,
            is_terminal: std::io::stderr().is_terminal(),
            is_line_open: false,
            weight: (0, 0),
            words: ("Installing", "is installed"),
        }
    }

    /// What is done to the site, and what it is afterwards; `Installing` and `is installed` unless it is said.
    #[must_use]
    pub fn saying(mut self, doing: &'static str, done: &'static str) -> Self {
        self.words = (doing, done);
        self
    }

    /// Takes an event.
    pub fn hear(&mut self, event: &Event) {
        if let Some(file) = &mut self.events {
            // A listener that went away must not stop an installation; the journal has it all.
            let _ = file.write_all(Line::new(Timestamp::now(), event).text().as_bytes());
        }
        match event {
            Event::Started { site, steps, weight } => {
                self.weight = (0, *weight);
                self.line(&format!("{} site {site}: {steps} steps", self.words.0));
            }
            Event::StepStarted { title, number, of, .. } => {
                self.step_started = Instant::now();
                self.last_progress = None;
                self.line(&format!("[{number:>2}/{of}] {title}"));
            }
            Event::StepSkipped { title, number, .. } => self.line(&format!("[{number:>2}] {title}: done already")),
            Event::StepProgress { progress, .. } => self.progress(progress),
            Event::StepFailed { error, hint, attempt, again, .. } => {
                let what = if *again { format!("attempt {attempt} failed, trying again") } else { "failed".to_owned() };
                self.line(&format!("        {what}: {error}"));
                if let Some(hint) = hint {
                    self.line(&format!("        hint: {hint}"));
                }
            }
            Event::StepFinished { milliseconds, .. } => {
                let (done, total) = self.weight;
                let seconds = *milliseconds / 1000;
                let tenth = *milliseconds % 1000 / 100;
                self.line(&format!("        ok, {seconds}.{tenth} s ({} % of the whole)", done * 100 / total.max(1)));
            }
            Event::Overall { weight, total } => self.weight = (*weight, *total),
            Event::Stopped { next } => self.line(&format!("Stopped before the step {next}")),
            Event::Finished { site } => {
                self.line(&format!("Site {site} {}, {} s", self.words.1, self.started.elapsed().as_secs()));
            }
        }
    }

    fn progress(&mut self, progress: &Progress) {
        let pause = if self.is_terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        let is_wanted = match progress {
            Progress::Bytes { done, total, .. } => done == total,
            // Rare, and what nobody must miss: the step waits for a person.
            Progress::Medium { .. } => true,
            Progress::Items { .. } | Progress::Note { .. } => false,
        };
        if !is_wanted && self.last_progress.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.last_progress = Some(Instant::now());
        let text = match progress {
            Progress::Bytes { done, total, .. } => bytes_line(*done, *total, self.step_started.elapsed()),
            Progress::Items { done, total, item } => format!("{done}/{total} {item}"),
            Progress::Note { text } => text.chars().take(100).collect(),
            Progress::Medium { text } => text.clone(),
        };
        if self.is_terminal && !matches!(progress, Progress::Medium { .. }) {
            let width = 100;
            let _ = write!(std::io::stderr(), "\r        {text:<width$.width$}");
            self.is_line_open = true;
        } else {
            self.line(&format!("        {text}"));
        }
    }

    fn line(&mut self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        if std::mem::take(&mut self.is_line_open) {
            let _ = write!(stderr, "\r{:110}\r", "");
        }
        let _ = writeln!(stderr, "{text}");
    }
}

/// Bytes, rate and time left.
pub fn bytes_line(done: u64, total: u64, elapsed: Duration) -> String {
    let per_second = u128::from(done) * 1000 / elapsed.as_millis().max(1);
    let left = match per_second {
        0 => "?".to_owned(),
        rate => format!("{} s", u128::from(total.saturating_sub(done)) / rate),
    };
    let rate = u64::try_from(per_second).unwrap_or(u64::MAX);
    format!("{} of {}, {}/s, {left} left", megabytes(done), megabytes(total), megabytes(rate))
}

/// For example `12.3 MB`.
pub fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

#[cfg(test)]
mod tests {
    use super::{Duration, bytes_line};

    #[test]
    fn progress_in_bytes() {
        let line = |done, total, seconds| bytes_line(done, total, Duration::from_secs(seconds));
        assert_eq!(line(50_000_000, 150_000_000, 5), "50.0 MB of 150.0 MB, 10.0 MB/s, 10 s left");
        assert_eq!(line(0, 150_000_000, 0), "0.0 MB of 150.0 MB, 0.0 MB/s, ? left");
        assert_eq!(line(7, 7, 1), "0.0 MB of 0.0 MB, 0.0 MB/s, 0 s left");
    }
}
