//! Progress of `bundle load`, `bundle verify` and the registry's commands, on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use bundle::load::LoadProgress;
use clap::ValueEnum;
use serde_json::json;

use crate::headless::bytes_line;

/// How progress is told.
#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(super) enum ProgressFormat {
    Text,
    Json,
}

/// Tells it now and then: a line that is written over on a terminal, lines elsewhere.
pub(super) struct Meter {
    format: ProgressFormat,
    started: Instant,
    last: Option<Instant>,
}

impl Meter {
    pub(super) fn new(format: ProgressFormat) -> Self {
        Self { format, started: Instant::now(), last: None }
    }

    pub(super) fn show(&mut self, progress: &LoadProgress) {
        let is_terminal = std::io::stderr().is_terminal();
        let pause = match (self.format, is_terminal) {
            (ProgressFormat::Text, false) => Duration::from_secs(10),
            _ => Duration::from_millis(250),
        };
        let is_end = progress.bytes_done >= progress.bytes_total;
        if !is_end && self.last.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.last = Some(Instant::now());
        let mut stderr = std::io::stderr().lock();
        let (done, total) = (progress.bytes_done, progress.bytes_total);
        // Progress that nobody reads is no reason to stop.
        let _ = match self.format {
            ProgressFormat::Json => {
                let blobs = json!({"done": progress.blobs_done, "total": progress.blobs_total});
                writeln!(stderr, "{}", json!({"done": done, "total": total, "blob": progress.blob, "blobs": blobs}))
            }
            ProgressFormat::Text if is_terminal => {
                let end = if is_end { "\n" } else { "" };
                write!(stderr, "\r{:<78}{end}", bytes_line(done, total, self.started.elapsed()))
            }
            ProgressFormat::Text => writeln!(stderr, "{}", bytes_line(done, total, self.started.elapsed())),
        };
    }
}
