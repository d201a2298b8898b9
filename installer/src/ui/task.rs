//! Work in the background, as the model sees it: what is wanted, what runs, what came of it.
//!
//! Invariant: a result counts only for the question it answers; what was cancelled or took too long is never mistaken
//! for a result. Time is counted in ticks, so that the model stays a pure fold.

/// Ticks in a second.
pub const TICKS_PER_SECOND: u64 = 10;

/// How a piece of work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended<T> {
    /// With a result.
    Done(T),
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

/// A kind of background work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task<Q, T> {
    running: Option<Running<Q>>,
    ended: Option<(Q, Ended<T>)>,
    limit: u64,
}

impl<Q: PartialEq + Clone, T> Task<Q, T> {
    /// A task that is given up after `limit` seconds.
    pub fn new(limit: u64) -> Self {
        Self { running: None, ended: None, limit }
    }

    /// Whether this question was neither asked nor answered.
    pub fn is_open(&self, question: &Q) -> bool {
        self.running.as_ref().is_none_or(|running| running.question != *question)
            && self.ended.as_ref().is_none_or(|(asked, _)| asked != question)
    }

    /// It was asked; what ran before counts no more.
    pub fn begin(&mut self, question: Q, serial: u64, tick: u64) {
        self.running = Some(Running { question, serial, since: tick });
    }

    /// Takes a result; false when nobody waits for it.
    pub fn settle(&mut self, serial: u64, result: T) -> bool {
        match self.running.take_if(|running| running.serial == serial) {
            Some(running) => {
                self.ended = Some((running.question, Ended::Done(result)));
                true
            }
            None => false,
        }
    }

    /// Gives up what took too long; gives its number.
    pub fn tick(&mut self, tick: u64) -> Option<u64> {
        let limit = self.limit;
        let running = self.running.take_if(|running| tick.saturating_sub(running.since) >= limit * TICKS_PER_SECOND)?;
        self.ended = Some((running.question, Ended::TimedOut(limit)));
        Some(running.serial)
    }

    /// Stops what runs; gives its number.
    pub fn cancel(&mut self) -> Option<u64> {
        let running = self.running.take()?;
        self.ended = Some((running.question, Ended::Cancelled));
        Some(running.serial)
    }

    /// Forgets what came of it, so that it is asked again.
    pub fn forget(&mut self) {
        self.ended = None;
    }

    /// What runs.
    pub fn running(&self) -> Option<&Running<Q>> {
        self.running.as_ref()
    }

    /// How the last one ended, whatever it was asked.
    pub fn ended(&self) -> Option<&Ended<T>> {
        self.ended.as_ref().map(|(_, ended)| ended)
    }

    /// The last result, whatever it was asked.
    pub fn result(&self) -> Option<&T> {
        match self.ended() {
            Some(Ended::Done(result)) => Some(result),
            _ => None,
        }
    }

    /// The result for this question.
    pub fn answer(&self, question: &Q) -> Option<&T> {
        match &self.ended {
            Some((asked, Ended::Done(result))) if asked == question => Some(result),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, Task};

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
        assert!(task.is_open(&"b"));
    }

    #[test]
    fn patience_ends() {
        let mut task: Task<&str, u8> = Task::new(2);
        task.begin("a", 1, 100);
        assert_eq!(task.tick(119), None);
        assert_eq!(task.tick(120), Some(1));
        assert_eq!(task.ended(), Some(&Ended::TimedOut(2)));
        assert!(!task.settle(1, 10), "too late");
        task.begin("b", 2, 130);
        assert_eq!(task.cancel(), Some(2));
        assert_eq!((task.ended(), task.cancel()), (Some(&Ended::Cancelled), None));
    }
}
