//! Work in the background, as the model sees it: what is wanted, what runs, what came of it.
//!
//! Invariant: a result counts only for the question it answers; what was cancelled or took too long is never mistaken
//! for a result. Time is counted in ticks, so that the model stays a pure fold.

/// Ticks in a second.
pub const TICKS_PER_SECOND: u64 = 10;

/// Why a piece of work ended without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// It was given up after so many seconds.
    TimedOut(u64),
    /// The operator stopped it.
    Cancelled,
}

/// What runs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running<Q> {
    /// What was asked.
    pub question: Q,
    /// Its number.
    pub serial: u64,
    /// The tick at which it began.
    pub since: u64,
}

/// A kind of background work. The last result stays until there is a newer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task<Q, T> {
    running: Option<Running<Q>>,
    done: Option<(Q, T)>,
    broken: Option<(Q, Broken)>,
    is_stale: bool,
    limit: u64,
}

impl<Q: PartialEq + Clone, T> Task<Q, T> {
    /// A task that is given up after `limit` seconds.
    pub fn new(limit: u64) -> Self {
        Self { running: None, done: None, broken: None, is_stale: false, limit }
    }

    /// Whether this question was neither asked nor answered.
    pub fn is_open(&self, question: &Q) -> bool {
        self.running.as_ref().is_none_or(|running| running.question != *question)
            && (self.is_stale
                || (self.done.as_ref().is_none_or(|(asked, _)| asked != question)
                    && self.broken.as_ref().is_none_or(|(asked, _)| asked != question)))
    }

    /// It was asked; what ran before counts no more. Gives the number of what ran before.
    pub fn begin(&mut self, question: Q, serial: u64, tick: u64) -> Option<u64> {
        self.is_stale = false;
        self.broken = None;
        self.running.replace(Running { question, serial, since: tick }).map(|before| before.serial)
    }

    /// Takes a result; false when nobody waits for it.
    pub fn settle(&mut self, serial: u64, result: T) -> bool {
        let Some(running) = self.running.take_if(|running| running.serial == serial) else { return false };
        self.done = Some((running.question, result));
        true
    }

    /// Gives up what took too long; gives its number.
    pub fn tick(&mut self, tick: u64) -> Option<u64> {
        let limit = self.limit;
        let running = self.running.take_if(|running| tick.saturating_sub(running.since) >= limit * TICKS_PER_SECOND)?;
        self.broken = Some((running.question, Broken::TimedOut(limit)));
        Some(running.serial)
    }

    /// Stops what runs; gives its number.
    pub fn cancel(&mut self) -> Option<u64> {
        let running = self.running.take()?;
        self.broken = Some((running.question, Broken::Cancelled));
        Some(running.serial)
    }

    /// What came of it is to be asked again.
    pub fn forget(&mut self) {
        self.is_stale = true;
    }

    /// Whether it is to be asked again.
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Whether the work with this number runs.
    pub fn is_running(&self, serial: u64) -> bool {
        self.running.as_ref().is_some_and(|running| running.serial == serial)
    }

    /// What runs.
    pub fn running(&self) -> Option<&Running<Q>> {
        self.running.as_ref()
    }

    /// Why the last one ended without a result.
    pub fn broken(&self) -> Option<Broken> {
        self.broken.as_ref().map(|(_, broken)| *broken)
    }

    /// The last result, whatever it was asked.
    pub fn result(&self) -> Option<&T> {
        self.done.as_ref().map(|(_, result)| result)
    }

    /// The result for this question.
    pub fn answer(&self, question: &Q) -> Option<&T> {
        self.done.as_ref().filter(|(asked, _)| asked == question && !self.is_stale).map(|(_, result)| result)
    }
}

#[cfg(test)]
mod tests {
    use super::{Broken, Task};

    #[test]
    fn only_the_awaited_result_counts() {
        let mut task: Task<&str, u8> = Task::new(2);
        assert!(task.is_open(&"a"));
        task.begin("a", 1, 0);
        assert!(!task.is_open(&"a") && task.is_open(&"b"));
        task.begin("b", 2, 5);
        assert!(!task.settle(1, 10), "an old answer");
        assert!(task.settle(2, 20));
        assert_eq!((task.answer(&"b"), task.answer(&"a"), task.result()), (Some(&20), None, Some(&20)));
        task.forget();
        assert!(task.is_open(&"b") && task.answer(&"b").is_none());
        assert_eq!(task.result(), Some(&20), "shown until there is a newer one");
    }

    #[test]
    fn patience_ends() {
        let mut task: Task<&str, u8> = Task::new(2);
        task.begin("a", 1, 100);
        assert_eq!(task.tick(119), None);
        assert_eq!(task.tick(120), Some(1));
        assert_eq!(task.broken(), Some(Broken::TimedOut(2)));
        assert!(!task.settle(1, 10), "too late");
        task.begin("b", 2, 130);
        assert_eq!(task.cancel(), Some(2));
        assert_eq!((task.broken(), task.cancel()), (Some(Broken::Cancelled), None));
    }
}
