//! A probe that asks a site again and again, as its users would, and tells how long it did not answer.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::fast_host::Lan;
use crate::fast_site::FQDN;

/// Between two questions.
const STEP: Duration = Duration::from_millis(250);
/// For an answer.
const LIMIT: Duration = Duration::from_secs(1);

/// What was out of reach, and for how long at the longest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outage {
    /// The longest time without an answer.
    pub longest: Duration,
    /// All of it together.
    pub total: Duration,
    /// Questions that were asked.
    pub asked: usize,
}

/// Asks the API server and the workload by FQDN from the LAN until it is stopped.
#[derive(Debug)]
pub struct Probe {
    child: Child,
    log: std::path::PathBuf,
}

impl Probe {
    /// Starts to ask. `address`: where the site is.
    pub fn start(lan: &Lan, address: &str) -> Result<Self> {
        let log = lan.folder().join("probe.log");
        let _ = std::fs::remove_file(&log);
        let script = script(address, STEP, LIMIT);
        let out = std::fs::File::create(&log)?;
        let mut command: Command = lan.command("sh");
        let child = command.args(["-c", &script]).stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn()?;
        Ok(Self { child, log })
    }

    /// Stops and tells about the API server and about the workload. Each must have been seen to answer at all.
    pub fn stop(mut self) -> Result<(Outage, Outage)> {
        self.child.kill()?;
        self.child.wait()?;
        let text = std::fs::read_to_string(&self.log).context("the probe wrote nothing")?;
        let (api, web) = outages(&text);
        ensure!(api.asked > 5, "the probe asked {} times only", api.asked);
        Ok((api, web))
    }
}

/// What asks, as a script for sh: one line a round, with milliseconds since the epoch, and 1 or 0 for the API server and for
/// the workload. An answer that takes longer than `limit` is none.
#[must_use]
pub fn script(address: &str, step: Duration, limit: Duration) -> String {
    format!(
        "while :; do
            api=0; web=0
            curl -sk -o /dev/null --fail --max-time {limit} --resolve {FQDN}:6443:{address} https://{FQDN}:6443/readyz && api=1
            curl -sk -o /dev/null --fail --max-time {limit} --resolve {FQDN}:443:{address} https://{FQDN}/ && web=1
            echo $(date +%s%3N) $api $web
            sleep {step}
        done",
        step = step.as_secs_f32(),
        limit = limit.as_secs()
    )
}

/// What the lines of [`script`] tell about the API server and about the workload.
#[must_use]
pub fn outages(log: &str) -> (Outage, Outage) {
    (judge(log, 1), judge(log, 2))
}

/// Time between the last answer before and the first answer after each silence.
fn judge(log: &str, column: usize) -> Outage {
    let mut outage = Outage::default();
    let (mut last_good, mut silent) = (None::<u64>, false);
    for line in log.lines() {
        let words: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [time, ..] = words[..] else { continue };
        let Some(answered) = words.get(column) else { continue };
        outage.asked += 1;
        if *answered == 0 {
            silent = true;
            continue;
        }
        if let Some(before) = last_good.filter(|_| silent) {
            let gap = Duration::from_millis(time.saturating_sub(before));
            outage.longest = outage.longest.max(gap);
            outage.total += gap;
        }
        (last_good, silent) = (Some(time), false);
    }
    outage
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::judge;

    #[test]
    fn silences() {
        let log = "1000 1 1\n1300 0 1\n1600 0 0\n1900 1 0\n2200 1 1\n2500 0 1\n2800 1 1\n";
        let api = judge(log, 1);
        assert_eq!((api.longest, api.total, api.asked), (Duration::from_millis(900), Duration::from_millis(1500), 7));
        assert_eq!(judge(log, 2).longest, Duration::from_millis(900));
        assert_eq!(judge("", 1).asked, 0);
    }
}
