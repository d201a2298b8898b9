//! The engine's events in a file of the host: one JSON object a line, for `cofferdam monitor` and the support bundle.
//!
//! Invariant: what is written here never stops or slows an installation. A line may be lost in a crash (the journal has
//! what counts), and of a stream of byte counts two a second are kept.

use jiff::{SignedDuration, Timestamp};

use super::event::{Event, Line, Progress};
use crate::host::Host;
use crate::layout;

const PAUSE: SignedDuration = SignedDuration::from_millis(500);

/// Writes events into `/var/lib/cofferdam/events.jsonl`.
pub(super) struct EventRecord<'a> {
    host: &'a dyn Host,
    last_bytes: Option<Timestamp>,
}

impl<'a> EventRecord<'a> {
    pub(super) fn new(host: &'a dyn Host) -> Self {
        Self { host, last_bytes: None }
    }

    pub(super) fn hear(&mut self, event: &Event) {
        let now = self.host.now();
        if let Event::StepProgress { progress: Progress::Bytes { done, total, .. }, .. } = event {
            if done < total && self.last_bytes.is_some_and(|last| now.duration_since(last) < PAUSE) {
                return;
            }
            self.last_bytes = Some(now);
        }
        // The leading newline ends a line that a crash left torn.
        let begins = if matches!(event, Event::Started { .. }) { "\n" } else { "" };
        let line = format!("{begins}{}", Line::new(now, event).text());
        // A full disk shows itself in the journal, without which nothing goes on.
        let _ = self.host.note(layout::EVENTS.into(), line.as_bytes());
    }
}
