//! Keys from the terminal, with an end: a line that dropped is an error here.
//!
//! crossterm 0.29 reads on for ever from a terminal that hung up (a read that gives nothing is no end to it), so the line
//! is asked first, by poll(2), whether somebody is still there.

use std::io;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// With no time at all crossterm would not look.
const LOOK: Duration = Duration::from_millis(1);

/// Waits at most so long for input and gives what came; an error when the terminal is gone.
pub fn wait(limit: Duration) -> io::Result<Vec<Event>> {
    let stdin = io::stdin();
    let mut line = [PollFd::new(&stdin, PollFlags::IN)];
    let limit = Timespec::try_from(limit).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    match poll(&mut line, Some(&limit)) {
        // A signal came, for example a new size.
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let came = line[0].revents();
    if came.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the terminal is gone"));
    }
    let mut events = Vec::new();
    // Also when no key came: crossterm hears of a new size by itself.
    while event::poll(LOOK)? {
        events.push(event::read()?);
    }
    Ok(events)
}
