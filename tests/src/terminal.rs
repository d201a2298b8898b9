//! A person at a terminal: the real program in a pseudo terminal, its screen as `vt100` understands it, and keys.
//!
//! Invariant: a wait looks at the whole screen as a person would, and its error carries that screen. Dropping a terminal is
//! a line that drops: the program gets SIGHUP and its reads fail; it is not waited for. Called by the tests of the terminal
//! installer.

use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtySize, native_pty_system};

/// Keys that are no text.
pub mod key {
    /// Enter.
    pub const ENTER: &str = "\r";
    /// Tab.
    pub const TAB: &str = "\t";
    /// Escape.
    pub const ESCAPE: &str = "\u{1b}";
    /// Right.
    pub const RIGHT: &str = "\u{1b}[C";
    /// Down.
    pub const DOWN: &str = "\u{1b}[B";
    /// F5.
    pub const F5: &str = "\u{1b}[15~";

    /// Ctrl and a letter.
    pub fn control(letter: char) -> String {
        char::from(letter.to_ascii_lowercase() as u8 & 0x1f).to_string()
    }
}

/// How large the screen is unless a test says otherwise.
const SIZE: (u16, u16) = (24, 80);

/// A terminal with a program in it.
pub struct Terminal {
    screen: Arc<Mutex<Screen>>,
    keyboard: Box<dyn std::io::Write + Send>,
    master: Box<dyn MasterPty + Send>,
    child: Box<dyn Child + Send + Sync>,
    /// The reader holds the line too; it lets go at the next byte once this is set.
    is_dropped: Arc<AtomicBool>,
}

struct Screen {
    parser: vt100::Parser,
    /// All that ever came.
    raw: Vec<u8>,
}

impl Terminal {
    /// Starts a program in a terminal of 80×24. The command's variables are the program's, besides `TERM`.
    pub fn start(command: &Command, term: &str) -> Result<Self> {
        let (rows, cols) = SIZE;
        let pair = native_pty_system().openpty(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 })?;
        let mut builder = CommandBuilder::new(command.get_program());
        builder.args(command.get_args());
        builder.env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                builder.env(name, value);
            }
        }
        builder.env("TERM", term);
        builder.cwd("/");
        let child = pair.slave.spawn_command(builder).context("cannot start a program in a terminal")?;
        // Ours alone: when the master is dropped, nothing holds the line any more.
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader()?;
        let keyboard = pair.master.take_writer()?;
        let screen =
            Arc::new(Mutex::new(Screen { parser: vt100::Parser::new(cells(rows)?, cells(cols)?, 0), raw: Vec::new() }));
        let shared = Arc::clone(&screen);
        let is_dropped = Arc::new(AtomicBool::new(false));
        let lets_go = Arc::clone(&is_dropped);
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if lets_go.load(Ordering::SeqCst) {
                    return;
                }
                let mut screen = lock(&shared);
                let bytes = buffer.get(..count).unwrap_or_default();
                screen.parser.process(bytes);
                screen.raw.extend_from_slice(bytes);
            }
        });
        Ok(Self { screen, keyboard, master: pair.master, child, is_dropped })
    }

    /// The screen as text, one line a row.
    pub fn screen(&self) -> String {
        lock(&self.screen).parser.screen().contents()
    }

    /// Whether the program is on the second screen, which leaves nothing behind.
    pub fn is_on_second_screen(&self) -> bool {
        lock(&self.screen).parser.screen().alternate_screen()
    }

    /// Whether the cursor can be seen.
    pub fn has_cursor(&self) -> bool {
        !lock(&self.screen).parser.screen().hide_cursor()
    }

    /// All bytes that the program ever wrote.
    pub fn raw(&self) -> Vec<u8> {
        lock(&self.screen).raw.clone()
    }

    /// Waits until the screen is as wanted; the error has the last one.
    pub fn wait_until(&mut self, what: &str, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return Ok(screen);
            }
            if let Some(status) = self.child.try_wait()? {
                // What it wrote last may still be on its way.
                sleep(Duration::from_millis(300));
                let screen = self.screen();
                if wanted(&screen) {
                    return Ok(screen);
                }
                bail!("the program ended with {status:?} before {what}:\n{screen}");
            }
            if began.elapsed() > limit {
                bail!("no {what} within {} s:\n{screen}", limit.as_secs());
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits until this text is on the screen.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        self.wait_until(&format!("{text:?}"), limit, |screen| screen.contains(text))
    }

    /// The program's id.
    pub fn process_id(&self) -> Option<u32> {
        self.child.process_id()
    }

    /// Types.
    pub fn send(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).and_then(|()| self.keyboard.flush()).context("cannot type")
    }

    /// Gives the window another size.
    pub fn resize(&mut self, rows: u16, cols: u16) -> Result<()> {
        lock(&self.screen).parser.screen_mut().set_size(cells(rows)?, cells(cols)?);
        self.master.resize(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 })
    }

    /// Waits for the end of the program.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                sleep(Duration::from_millis(300));
                return Ok(status);
            }
            if began.elapsed() > limit {
                return Err(anyhow!("the program did not end within {} s:\n{}", limit.as_secs(), self.screen()));
            }
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::SeqCst);
        // Ctrl-L: the picture that comes back is what the reader lets go at.
        let _ = self.send("\u{c}");
    }
}

fn cells(count: u16) -> Result<NonZeroU16> {
    NonZeroU16::new(count).context("a terminal without rows or columns")
}

// A reader that panicked has at worst drawn less.
fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Command, Duration, Terminal, key};

    #[test]
    fn a_shell_sees_a_terminal() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "stty size; read line; echo got $line; exit 7"]).env("PATH", "/usr/bin:/bin");
        let mut terminal = Terminal::start(&command, "xterm").unwrap();
        let second = Duration::from_secs(20);
        terminal.wait_for("24 80", second).unwrap();
        terminal.send("words").unwrap();
        terminal.send(key::ENTER).unwrap();
        terminal.wait_for("got words", second).unwrap();
        assert_eq!(terminal.wait_for_end(second).unwrap().exit_code(), 7);
        assert!(!terminal.is_on_second_screen() && terminal.has_cursor());
        assert_eq!(key::control('c'), "\u{3}");
    }
}
