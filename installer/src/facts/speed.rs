//! How slow this machine is, for time limits that hold on a fast server and under an emulated processor.
//!
//! Two measures: hashing (pure arithmetic, slow under emulation) and starting a process (system calls and page faults,
//! slow in a user-mode kernel and under emulation). The slower of the two counts; of each the best
//! time, so that what else runs on the machine does not: limits, and with them the plan, are the same from run to run.

use jiff::Timestamp;

use bundle::oci::{Algorithm, Hasher};

use crate::host::{Command, Host};

/// Hashing 4 MiB with SHA-256 on a server core without SHA instructions: 350 MB/s.
const NORMAL_HASH_SECONDS: f64 = 0.012;
/// Starting `true` and waiting for its end, the polling of our own wait included.
const NORMAL_START_SECONDS: f64 = 0.008;
const CHUNK: usize = 4 << 20;
const CHUNKS: usize = 9;
const STARTS: usize = 20;

/// 1 to 20, in halves.
pub(super) fn slowness(host: &dyn Host) -> f64 {
    let zeroes = vec![0_u8; CHUNK];
    let hashes = (0..CHUNKS).map(|_| {
        let started = host.now();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&zeroes);
        let digest = hasher.finish();
        std::hint::black_box(digest);
        seconds(started, host.now())
    });
    let hash = best(hashes);
    let starts = (0..STARTS).map_while(|_| {
        let started = host.now();
        host.run(&Command::new("true"), &mut |_| {}).ok()?;
        Some(seconds(started, host.now()))
    });
    let start = best(starts);
    factor(hash, start)
}

fn factor(hash: f64, start: f64) -> f64 {
    let slower = (hash / NORMAL_HASH_SECONDS).max(start / NORMAL_START_SECONDS);
    ((slower * 2.0).round() / 2.0).clamp(1.0, 20.0)
}

/// Zero when the clock was set back meanwhile.
fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

/// The shortest; zero when there is none.
fn best(times: impl Iterator<Item = f64>) -> f64 {
    times.reduce(f64::min).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)]
    use super::{best, factor};

    #[test]
    fn factors() {
        let table = [(0.0, 0.0, 1.0), (0.004, 0.003, 1.0), (0.12, 0.003, 10.0), (0.004, 0.03, 4.0), (9.0, 9.0, 20.0)];
        for (hash, start, expected) in table {
            assert_eq!(factor(hash, start), expected, "{hash} {start}");
        }
    }

    #[test]
    fn a_busy_machine_is_not_a_slow_one() {
        assert_eq!(best([9.0, 1.0, 900.0].into_iter()), 1.0);
        assert_eq!(best(std::iter::empty()), 0.0);
    }
}
