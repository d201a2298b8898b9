//! QEMU's monitor (QMP): what somebody does to a machine from outside while it runs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// QEMU answers at once, on a busy machine within seconds.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// The monitor of a running machine; its clones are the same.
#[derive(Debug, Clone)]
pub struct Monitor(Arc<Mutex<BufReader<UnixStream>>>);

impl Monitor {
    pub(super) fn new(line: UnixStream) -> Result<Self> {
        line.set_read_timeout(Some(ANSWER_LIMIT)).context("cannot limit the wait for QEMU's monitor")?;
        let monitor = Self(Arc::new(Mutex::new(BufReader::new(line))));
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// The medium with this number in [`media`](super::MachineOptions::media) answers no more: what is asked of it waits.
    pub fn stall_medium(&self, number: usize) -> Result<()> {
        // One byte a second: the first request is let pass, the next would wait for days.
        self.throttle(number, 1)
    }

    /// It answers again, also what waited.
    pub fn release_medium(&self, number: usize) -> Result<()> {
        self.throttle(number, 0)
    }

    fn throttle(&self, number: usize, bytes_per_second: u64) -> Result<()> {
        let limits = json!({
            "device": format!("medium{number}"),
            "bps": bytes_per_second, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0
        });
        self.ask("block_set_io_throttle", &limits).map(drop)
    }

    /// The adapter with this number in [`Network::Wired`](super::Network::Wired) has its cable in, or not.
    pub fn plug(&self, adapter: usize, is_in: bool) -> Result<()> {
        self.ask("set_link", &json!({"name": format!("adapter{adapter}"), "up": is_in})).map(drop)
    }

    fn ask(&self, command: &str, arguments: &Value) -> Result<Value> {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let question = format!("{}\n", json!({"execute": command, "arguments": arguments}));
        line.get_mut().write_all(question.as_bytes()).context("cannot write to QEMU's monitor")?;
        loop {
            let mut text = String::new();
            if line.read_line(&mut text).context("QEMU's monitor does not answer")? == 0 {
                bail!("the machine went away");
            }
            let answer: Value = serde_json::from_str(&text).context("QEMU's monitor gave no JSON")?;
            if let Some(error) = answer.get("error") {
                bail!("{command}: {error}");
            }
            // Greetings and events are none.
            if let Some(result) = answer.get("return") {
                return Ok(result.clone());
            }
        }
    }
}
