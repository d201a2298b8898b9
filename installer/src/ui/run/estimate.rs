//! How far the whole is and how long it still takes.
//!
//! Invariant: within one run of the engine neither goes back. The share only grows. The time left only shrinks; when what
//! was measured says that more is left than was shown, the number stands still and says "at least". Called by `model.rs`.

/// Weight that counts as measured at one second each before anything was: a single quick step proves little.
const PRIOR_WEIGHT: u64 = 5;

/// Seconds of work on a normal server, in thousandths.
type Milliweight = u64;

/// What is known at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Situation {
    /// Weight of the steps that are done, however they became done.
    pub(super) done: u64,
    /// Weight of the steps that did their work in this run, and the time it took.
    pub(super) measured: (u64, u64),
    /// Weight of the steps that have not begun.
    pub(super) waiting: u64,
    /// The step in work.
    pub(super) current: Option<Working>,
}

/// The step in work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Working {
    pub(super) weight: u64,
    /// Milliseconds since it began.
    pub(super) elapsed: u64,
    /// Done and all, of bytes or things, where the step says so.
    pub(super) counted: Option<(u64, u64)>,
}

/// The figures that are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Estimate {
    permille: u16,
    left: Option<u64>,
    is_at_least: bool,
}

impl Estimate {
    /// Thousandths of the whole.
    pub fn permille(&self) -> u16 {
        self.permille
    }

    /// Milliseconds left, once enough was measured.
    pub fn left(&self) -> Option<u64> {
        self.left
    }

    /// More is left than was thought.
    pub fn is_at_least(&self) -> bool {
        self.is_at_least
    }

    /// The engine begins anew: the steps that are done are passed over, what is left is measured again.
    pub(super) fn restart(&mut self) {
        self.left = None;
        self.is_at_least = false;
    }

    /// All is done.
    pub(super) fn finish(&mut self) {
        *self = Self { permille: 1000, left: Some(0), is_at_least: false };
    }

    /// Takes in what is known now.
    pub(super) fn update(&mut self, now: &Situation) {
        let total = now.done + now.waiting + now.current.map_or(0, |current| current.weight);
        let expected = |weight: u64| weight.saturating_mul(pace(now.measured));
        let work = now.current.map(|current| current.state(expected(current.weight)));
        let (share, left_of_current) = work.unwrap_or((0, 0));
        let current: Milliweight = now.current.map_or(0, |current| current.weight * share);
        let permille = (now.done * 1000 + current) / total.max(1);
        // The last thousandth is for the end alone.
        self.permille = self.permille.max(u16::try_from(permille).unwrap_or(999).min(999));

        let measured = now.measured.0 * 1000 + current;
        let rest = total - now.done + now.measured.0;
        if measured < rest * 100 {
            return;
        }
        let left = expected(now.waiting).saturating_add(left_of_current);
        let shown = self.left.unwrap_or(left);
        self.is_at_least = left > shown.saturating_add(shown / 10 + 1000);
        self.left = Some(shown.min(left));
    }
}

/// Milliseconds for a weight of one.
fn pace((weight, milliseconds): (u64, u64)) -> u64 {
    milliseconds.saturating_add(PRIOR_WEIGHT * 1000) / weight.saturating_add(PRIOR_WEIGHT)
}

impl Working {
    /// Thousandths of it that are done, and milliseconds left. `expected` is how long it should take by its weight.
    fn state(self, expected: u64) -> (u64, u64) {
        match self.counted {
            Some((done, total)) if total > 0 => {
                let (done, total) = (u128::from(done.min(total)), u128::from(total));
                let share = done * 1000 / total;
                let left = match done {
                    0 => u128::from(expected.saturating_sub(self.elapsed)),
                    done => u128::from(self.elapsed) * (total - done) / done,
                };
                (u64::try_from(share).unwrap_or(0), u64::try_from(left).unwrap_or(u64::MAX / 4))
            }
            _ => {
                // Time alone proves nothing: nine tenths is as far as it goes.
                let share = (self.elapsed * 900).checked_div(expected).unwrap_or(0).min(900);
                (share, expected.saturating_sub(self.elapsed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(done: u64, measured: (u64, u64), waiting: u64, current: Option<Working>) -> Situation {
        Situation { done, measured, waiting, current }
    }

    #[test]
    fn nothing_is_promised_before_a_tenth_was_measured() {
        let mut estimate = Estimate::default();
        estimate.update(&at(2, (2, 500), 98, None));
        assert_eq!((estimate.permille(), estimate.left()), (20, None));
        estimate.update(&at(20, (20, 40_000), 80, None));
        assert_eq!((estimate.permille(), estimate.left()), (200, Some(80 * 1800)));
        // Steps that were done before say nothing about the pace.
        let mut resumed = Estimate::default();
        resumed.update(&at(90, (0, 0), 10, None));
        assert_eq!((resumed.permille(), resumed.left()), (900, None));
    }

    #[test]
    fn bytes_decide_over_weights() {
        let working = Working { weight: 50, elapsed: 10_000, counted: Some((25, 100)) };
        let mut estimate = Estimate::default();
        estimate.update(&at(0, (0, 0), 50, Some(working)));
        assert_eq!((estimate.permille(), estimate.left()), (125, Some(50 * 1000 + 30_000)));
    }

    #[test]
    fn a_step_that_takes_longer_holds_the_number_and_says_so() {
        let mut estimate = Estimate::default();
        estimate.update(&at(50, (50, 50_000), 50, None));
        let first = estimate.left().unwrap();
        let slow = Working { weight: 10, elapsed: 500_000, counted: None };
        estimate.update(&at(50, (50, 50_000), 40, Some(slow)));
        assert!(estimate.left().unwrap() < first && !estimate.is_at_least());
        let held = estimate.left().unwrap();
        estimate.update(&at(60, (60, 550_000), 40, None));
        assert_eq!((estimate.left().unwrap(), estimate.is_at_least()), (held, true));
    }

    #[test]
    fn only_the_end_is_the_whole() {
        let mut estimate = Estimate::default();
        estimate.update(&at(100, (100, 1), 0, None));
        assert_eq!(estimate.permille(), 999);
        estimate.finish();
        assert_eq!((estimate.permille(), estimate.left()), (1000, Some(0)));
    }
}
