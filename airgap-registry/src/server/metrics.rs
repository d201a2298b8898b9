//! The numbers of a server, in the text format of Prometheus ("Exposition formats", version 0.0.4).
//!
//! Invariant: counters only grow, and counting never waits for the disk. Written by the server's parts, read at
//! `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What is counted.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Requests by action and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// Bytes of blobs and manifests that were sent.
    pub(crate) sent: AtomicU64,
    /// Bytes of blobs that were received.
    pub(crate) received: AtomicU64,
    /// Connections that are open.
    pub(crate) connections: AtomicU64,
    /// Connections that were closed because one address had too many.
    pub(crate) turned_away: AtomicU64,
    /// Bytes that were hashed again in the background.
    pub(crate) scrubbed: AtomicU64,
    /// Complete passes over all blobs.
    pub(crate) scrub_passes: AtomicU64,
    /// Blobs that were found damaged and taken away.
    pub(crate) damaged: AtomicU64,
    /// Damaged blobs that were put back from a bundle.
    pub(crate) repaired: AtomicU64,
    /// Blobs and manifests that were missing here and were taken over from a peer.
    pub(crate) taken_over: AtomicU64,
    /// When this server was last equal to the one that it follows, in seconds since 1970; 0: never.
    pub(crate) followed: AtomicU64,
    /// Blobs that nothing referred to and that were removed.
    pub(crate) collected: AtomicU64,
}

/// What is looked up when somebody asks.
pub(crate) struct Gauges {
    pub(crate) free_bytes: u64,
    pub(crate) watermark_bytes: u64,
    pub(crate) uploads: u64,
    pub(crate) passwords_compared: u64,
}

pub(crate) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

impl Metrics {
    /// Counts a request that was answered.
    pub(crate) fn count(&self, action: &'static str, status: u16) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry((action, status)).or_default() += 1;
    }

    /// All of it as text.
    pub(crate) fn render(&self, gauges: &Gauges) -> String {
        let mut text = String::from("# TYPE cofferdam_registry_requests_total counter\n");
        for ((action, status), number) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ =
                writeln!(text, "cofferdam_registry_requests_total{{action=\"{action}\",status=\"{status}\"}} {number}");
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, kind, value) in [
            ("sent_bytes_total", "counter", read(&self.sent)),
            ("received_bytes_total", "counter", read(&self.received)),
            ("connections", "gauge", read(&self.connections)),
            ("connections_turned_away_total", "counter", read(&self.turned_away)),
            ("passwords_compared_total", "counter", gauges.passwords_compared),
            ("uploads", "gauge", gauges.uploads),
            ("scrubbed_bytes_total", "counter", read(&self.scrubbed)),
            ("scrub_passes_total", "counter", read(&self.scrub_passes)),
            ("damaged_blobs_total", "counter", read(&self.damaged)),
            ("repaired_blobs_total", "counter", read(&self.repaired)),
            ("taken_over_total", "counter", read(&self.taken_over)),
            ("followed_timestamp_seconds", "gauge", read(&self.followed)),
            ("collected_blobs_total", "counter", read(&self.collected)),
            ("free_bytes", "gauge", gauges.free_bytes),
            ("watermark_bytes", "gauge", gauges.watermark_bytes),
        ] {
            let _ = writeln!(text, "# TYPE cofferdam_registry_{name} {kind}\ncofferdam_registry_{name} {value}");
        }
        text
    }
}
