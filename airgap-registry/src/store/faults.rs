//! Faults for the tests: the n-th change of the file tree fails, in one of four ways; and a record of all changes, to
//! see that what is renamed was synced before and what was renamed is synced after. Only in tests.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};

use super::disk::Change;

/// How the n-th change fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It and all after it have no effect: the process was killed.
    Killed,
    /// It has no effect, and the next ones do again: a full disk for a moment.
    Once,
    /// Of a write the first half arrives, another change happens; then the process was killed.
    TornAndKilled,
    /// Of a write the first half arrives, another change happens; it is reported as failed, and the next ones work.
    TornOnce,
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [Self::Killed, Self::Once, Self::TornAndKilled, Self::TornOnce];
}

/// A change that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recorded {
    Create(Utf8PathBuf),
    Write(Utf8PathBuf),
    SyncFile(Utf8PathBuf),
    MakeDirectory(Utf8PathBuf),
    Rename(Utf8PathBuf, Utf8PathBuf),
    Remove(Utf8PathBuf),
    SyncDirectory(Utf8PathBuf),
}

#[derive(Debug, Default)]
struct State {
    /// Changes until the fault, and which.
    planned: Option<(usize, Fault)>,
    is_dead: bool,
    has_failed: bool,
    record: Option<Vec<Recorded>>,
}

/// What goes wrong.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<State>);

enum Verdict {
    Works,
    Fails,
    HappensAndFails,
}

impl Faults {
    /// Lets the change after so many others fail.
    pub(crate) fn plan(&self, after: usize, fault: Fault) {
        *self.state() = State { planned: Some((after, fault)), ..State::default() };
    }

    /// Whether it came to that; from here on all works again.
    pub(crate) fn clear(&self) -> bool {
        let mut state = self.state();
        let has_failed = state.has_failed;
        *state = State::default();
        has_failed
    }

    pub(crate) fn start_record(&self) {
        self.state().record = Some(Vec::new());
    }

    pub(crate) fn take_record(&self) -> Vec<Recorded> {
        self.state().record.take().unwrap_or_default()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verdict(&self) -> Verdict {
        let mut state = self.state();
        if state.is_dead {
            return Verdict::Fails;
        }
        match state.planned {
            None => Verdict::Works,
            Some((0, fault)) => {
                state.planned = None;
                state.has_failed = true;
                state.is_dead = matches!(fault, Fault::Killed | Fault::TornAndKilled);
                match fault {
                    Fault::Killed | Fault::Once => Verdict::Fails,
                    Fault::TornAndKilled | Fault::TornOnce => Verdict::HappensAndFails,
                }
            }
            Some((left, fault)) => {
                state.planned = Some((left - 1, fault));
                Verdict::Works
            }
        }
    }

    fn remember(&self, change: Change<'_>) {
        if let Some(record) = &mut self.state().record {
            record.push(match change {
                Change::Create(path) => Recorded::Create(path.to_owned()),
                Change::SyncFile(path) => Recorded::SyncFile(path.to_owned()),
                Change::MakeDirectory(path) => Recorded::MakeDirectory(path.to_owned()),
                Change::Rename(from, to) => Recorded::Rename(from.to_owned(), to.to_owned()),
                Change::Remove(path) => Recorded::Remove(path.to_owned()),
                Change::SyncDirectory(path) => Recorded::SyncDirectory(path.to_owned()),
            });
        }
    }

    pub(super) fn change<T>(&self, change: Change<'_>, effect: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let fault = || io::Error::other("a fault of the test");
        match self.verdict() {
            Verdict::Fails => Err(fault()),
            Verdict::HappensAndFails => {
                effect()?;
                Err(fault())
            }
            Verdict::Works => {
                let result = effect()?;
                self.remember(change);
                Ok(result)
            }
        }
    }

    /// A write that is torn, fails or works.
    pub(super) fn write(&self, file: &mut File, path: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
        let fault = || io::Error::other("a fault of the test");
        match self.verdict() {
            Verdict::Fails => Err(fault()),
            Verdict::HappensAndFails => file.write_all(&bytes[..bytes.len() / 2]).and_then(|()| Err(fault())),
            Verdict::Works => {
                if let Some(record) = &mut self.state().record {
                    record.push(Recorded::Write(path.to_owned()));
                }
                file.write_all(bytes)
            }
        }
    }
}
