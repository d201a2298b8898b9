//! The terminal: raw mode and the second screen, given back whatever happens; its size; a shell in between.
//!
//! Invariant: while a [`Terminal`] lives, the screen is ours; when it is dropped, or the program panics, the terminal is
//! as it was. A size of 0×0, which serial lines report, counts as 80×24.

use std::io::{self, Stdout, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use ratatui::crossterm::{cursor, execute, terminal};
use ratatui::layout::Rect;
use ratatui::{Frame, TerminalOptions, Viewport};

/// Smallest size for which pages are laid out.
pub const SMALLEST: (u16, u16) = (80, 24);

/// The terminal in raw mode.
pub struct Terminal {
    inner: ratatui::Terminal<CrosstermBackend<Stdout>>,
    area: Rect,
}

impl Terminal {
    /// Takes the terminal. From now on a panic gives it back before it prints.
    pub fn open() -> io::Result<Self> {
        let (previous, owner) = (std::panic::take_hook(), std::thread::current().id());
        std::panic::set_hook(Box::new(move |panic| {
            // A job that panics in a thread of its own is given up by who waits for it; the screen stays.
            if IS_OURS.load(Ordering::SeqCst) && std::thread::current().id() != owner {
                return;
            }
            give_back();
            previous(panic);
        }));
        take()?;
        let area = size();
        let options = TerminalOptions { viewport: Viewport::Fixed(area) };
        let inner = ratatui::Terminal::with_options(CrosstermBackend::new(io::stdout()), options)
            .inspect_err(|_| give_back())?;
        Ok(Self { inner, area })
    }

    /// Draws a picture of the present size.
    pub fn draw(&mut self, picture: impl FnOnce(&mut Frame)) -> io::Result<()> {
        let area = size();
        if area != self.area {
            self.area = area;
            self.inner.resize(area)?;
        }
        self.inner.draw(picture).map(drop)
    }

    /// Columns and rows.
    pub fn size(&self) -> (u16, u16) {
        let area = size();
        (area.width, area.height)
    }

    /// Draws everything anew with the next picture: noise on a serial line is wiped away.
    pub fn redraw(&mut self) -> io::Result<()> {
        // Not `clear`, which asks the terminal where its cursor is: a serial line that does not answer costs two seconds and
        // is an error, and one that dropped meanwhile is waited for without an end (crossterm 0.29).
        self.inner.resize(self.area)
    }

    /// Gives the terminal back for as long as `other` runs, for example a shell.
    pub fn lend<T>(&mut self, other: impl FnOnce() -> T) -> io::Result<T> {
        give_back();
        let result = other();
        take()?;
        self.redraw()?;
        Ok(result)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whether the screen is ours now.
static IS_OURS: AtomicBool = AtomicBool::new(false);

fn take() -> io::Result<()> {
    IS_OURS.store(true, Ordering::SeqCst);
    terminal::enable_raw_mode()?;
    execute!(io::stdout(), terminal::EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)
        .inspect_err(|_| give_back())
}

/// Nobody is left to hear that the terminal is gone; each part is tried all the same.
fn give_back() {
    if !IS_OURS.swap(false, Ordering::SeqCst) {
        return;
    }
    let _ = execute!(io::stdout(), DisableBracketedPaste, cursor::Show, terminal::LeaveAlternateScreen);
    let _ = terminal::disable_raw_mode();
    let _ = io::stdout().flush();
}

fn size() -> Rect {
    let (width, height) = usable_size(terminal::size().unwrap_or_default());
    Rect::new(0, 0, width, height)
}

/// 0×0 is what a line says that does not know its size.
fn usable_size((width, height): (u16, u16)) -> (u16, u16) {
    let or = |found, otherwise| if found == 0 { otherwise } else { found };
    (or(width, SMALLEST.0), or(height, SMALLEST.1))
}

#[cfg(test)]
mod tests {
    use super::usable_size;

    #[test]
    fn no_size_is_the_usual_size() {
        assert_eq!(usable_size((0, 0)), (80, 24));
        assert_eq!(usable_size((132, 0)), (132, 24));
        assert_eq!(usable_size((40, 10)), (40, 10));
    }
}
