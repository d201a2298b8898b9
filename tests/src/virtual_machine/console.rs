//! The serial console of a machine: what it said, and a keyboard.
//!
//! Invariant: every byte that came is kept, and a wait never sees the same text twice. QEMU writes the same bytes to `console.log`.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

#[derive(Debug, Default)]
struct Heard {
    bytes: Vec<u8>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Heard>,
    more: Condvar,
}

impl Shared {
    // A reader that panicked has at worst heard less: what is there is still whole.
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The far end of the machine's serial line.
#[derive(Debug)]
pub struct Console {
    keyboard: UnixStream,
    shared: Arc<Shared>,
    /// All before this was seen by a wait.
    seen: usize,
}

impl Console {
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut listener = stream.try_clone().context("cannot share the console's socket")?;
        let writer = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = listener.read(&mut buffer).unwrap_or(0);
                let mut heard = writer.lock();
                heard.bytes.extend(buffer.iter().take(count));
                heard.closed = count == 0;
                writer.more.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        Ok(Self { keyboard: stream, shared, seen: 0 })
    }

    /// Waits until one of `texts` was said after the place where the last wait ended; gives its number.
    pub fn wait_for_any(&mut self, texts: &[&str], end: Instant) -> Result<usize> {
        let mut heard = self.shared.lock();
        loop {
            let fresh = heard.bytes.get(self.seen..).unwrap_or_default();
            let first = texts
                .iter()
                .enumerate()
                .filter_map(|(number, text)| find(fresh, text.as_bytes()).map(|at| (at + text.len(), number)))
                .min();
            if let Some((length, number)) = first {
                self.seen += length;
                return Ok(number);
            }
            if heard.closed {
                bail!("the machine went away before it said {texts:?}");
            }
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                bail!("waited in vain for {texts:?}");
            }
            heard = self
                .shared
                .more
                .wait_timeout(heard, rest.min(Duration::from_secs(1)))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until `text` was said after the place where the last wait ended.
    pub fn wait_for(&mut self, text: &str, end: Instant) -> Result<()> {
        self.wait_for_any(&[text], end).map(drop)
    }

    /// Types a line and the return key.
    pub fn send_line(&mut self, line: &str) -> Result<()> {
        self.keyboard.write_all(format!("{line}\r").as_bytes()).context("cannot type on the console")
    }

    /// Presses keys.
    pub fn send(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).context("cannot type on the console")
    }

    /// What a terminal of 80×24 at the end of the line shows.
    pub fn screen(&self) -> String {
        let mut terminal = vt100::Parser::default();
        terminal.process(&self.shared.lock().bytes);
        terminal.screen().contents()
    }

    /// Presses a key until that screen has this text, as long as a page has fields.
    pub fn press_until(&mut self, key: &str, text: &str) -> Result<String> {
        for _ in 0..60 {
            if let Ok(screen) = self.wait_for_screen(text, Instant::now() + Duration::from_millis(1500)) {
                return Ok(screen);
            }
            self.send(key)?;
        }
        bail!("{key:?} does not lead to {text:?}; the screen shows\n{}", self.screen())
    }

    /// Waits until that screen has this text; gives the screen.
    pub fn wait_for_screen(&self, text: &str, end: Instant) -> Result<String> {
        loop {
            let screen = self.screen();
            if screen.contains(text) {
                return Ok(screen);
            }
            if Instant::now() > end {
                bail!("waited in vain for {text:?} on the screen:\n{screen}");
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Whether `text` was ever said in this boot.
    pub fn has_said(&self, text: &str) -> bool {
        find(&self.shared.lock().bytes, text.as_bytes()).is_some()
    }

    /// The last lines, without control sequences.
    pub fn tail(&self, lines: usize) -> String {
        let text = plain(&String::from_utf8_lossy(&self.shared.lock().bytes));
        let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}

/// Drops what only a terminal understands: `ESC [ … letter`, other escapes, carriage returns.
fn plain(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' if letters.peek() == Some(&'[') => {
                letters.next();
                while letters.next().is_some_and(|letter| !('@'..='~').contains(&letter)) {}
            }
            '\u{1b}' => {
                letters.next();
            }
            '\n' | '\t' => result.push(letter),
            letter if letter.is_control() => {}
            letter => result.push(letter),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pair() -> (Console, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Console::new(near).unwrap(), far)
    }

    #[test]
    fn a_wait_does_not_see_the_same_text_twice() {
        let (mut console, mut far) = pair();
        far.write_all(b"one two one").unwrap();
        let soon = || Instant::now() + Duration::from_secs(5);
        console.wait_for("one", soon()).unwrap();
        console.wait_for("one", soon()).unwrap();
        assert!(console.wait_for("one", Instant::now() + Duration::from_millis(50)).is_err());
        assert!(console.has_said("two"));
    }

    #[test]
    fn the_first_of_several_texts_wins() {
        let (mut console, mut far) = pair();
        far.write_all(b"login: passphrase").unwrap();
        assert_eq!(console.wait_for_any(&["passphrase", "login"], Instant::now() + Duration::from_secs(5)).unwrap(), 1);
    }

    #[test]
    fn a_machine_that_goes_away_ends_the_wait() {
        let (mut console, far) = pair();
        drop(far);
        let error = console.wait_for("never", Instant::now() + Duration::from_mins(1)).unwrap_err();
        assert!(error.to_string().contains("went away"), "{error}");
    }

    #[test]
    fn control_sequences_are_dropped() {
        assert_eq!(plain("\u{1b}[0;32m  OK  \u{1b}[0m done\r\n"), "  OK   done\n");
    }
}
