//! Signals while a terminal is ours. None of them ends the program by itself, so that no step is cut off:
//!
//! | signal | what happens |
//! |---|---|
//! | SIGTERM, SIGINT | the installation stops before its next step, exit code 6 |
//! | SIGHUP (the line dropped, the window was closed) | the screen is given up, the installation goes on without it |
//! | SIGWINCH | the next picture has the new size |
//! | SIGPIPE, SIGTSTP | ignored; Ctrl-C and Ctrl-Z are plain keys in raw mode |
//!
//! Called by `mod.rs`, the second console and the unattended installation.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP};

use crate::engine::Stop;

/// Which signals came.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    terminate: Arc<AtomicBool>,
    hangup: Arc<AtomicBool>,
}

impl Signals {
    /// Listens from now on, for as long as the program runs.
    pub fn listen() -> io::Result<Self> {
        let signals = Self::default();
        for (signal, flag) in [(SIGTERM, &signals.terminate), (SIGINT, &signals.terminate), (SIGHUP, &signals.hangup)] {
            signal_hook::flag::register(signal, Arc::clone(flag))?;
        }
        // Heard and forgotten.
        signal_hook::flag::register(SIGTSTP, Arc::default())?;
        Ok(signals)
    }

    /// Without a terminal: SIGTERM and SIGINT are the wish to stop, a hang-up is heard and forgotten.
    pub fn stop_a_run(stop: &Stop) -> io::Result<()> {
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, stop.flag())?;
        }
        signal_hook::flag::register(SIGHUP, Arc::default()).map(drop)
    }

    /// SIGTERM or SIGINT came since the last time that this was asked.
    pub fn take_terminate(&self) -> bool {
        self.terminate.swap(false, Ordering::SeqCst)
    }

    /// SIGHUP came: nobody is at the terminal.
    pub fn is_hung_up(&self) -> bool {
        self.hangup.load(Ordering::SeqCst)
    }
}
