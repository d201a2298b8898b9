//! The console of the running site, by itself: `cofferdam dashboard`. It needs no login and shows no secret.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{Event as TerminalEvent, KeyCode};
use ratatui::text::Line;

use super::signals::Signals;
use super::view::{self, draw_dashboard};
use super::{SITE_INTERVAL, SharedHost, input};
use crate::site::Overview;
use crate::step::State;
use crate::ui::frame::{self, Chrome};
use crate::ui::keymap::{Command, Hint, command};
use crate::ui::terminal::Terminal;
use crate::ui::theme::Theme;

/// Shows the site until `q`, or until the terminal is gone. Looks run on the side, so that a key is never late; what is on
/// the screen changes where it differs, and nowhere else.
pub fn dashboard(terminal: &mut Terminal, theme: Theme, host: &SharedHost, state: &State) -> io::Result<()> {
    let signals = Signals::listen()?;
    let (sender, looks) = mpsc::channel();
    let mut mode = theme.mode();
    let mut site: Option<Overview> = None;
    let mut last: Option<Instant> = None;
    let mut is_looking = false;
    loop {
        if !is_looking && last.is_none_or(|last| last.elapsed() >= SITE_INTERVAL) {
            is_looking = true;
            last = Some(Instant::now());
            let (host, sender, known) = (Arc::clone(host), sender.clone(), state.clone());
            std::thread::spawn(move || {
                // An upgrade may have changed it since; a file that cannot be read for a moment changes nothing.
                let state = State::read(&*host).ok().flatten().unwrap_or(known);
                // The dashboard may have been left by now.
                let _ = sender.send(Overview::look(&*host, state));
            });
        }
        if let Some(look) = looks.try_iter().last() {
            site = Some(look);
            is_looking = false;
        }
        let theme = Theme::new(mode);
        let chrome = Chrome {
            product: view::product(),
            place: state.fqdn.clone(),
            trail: (vec!["Dashboard"], 0),
            notice: Line::default(),
            keys: vec![
                Hint::named(Command::Again, mode, Some("Refresh")),
                Hint::of(Command::Look, mode),
                Hint::new("q", "Leave"),
            ],
        };
        terminal.draw(|screen| {
            let area = screen.area();
            let picture = screen.buffer_mut();
            if let Some(body) = frame::draw(&chrome, theme, area, picture) {
                draw_dashboard(site.as_ref(), theme, body, picture);
            }
            theme.flatten(picture);
        })?;
        for event in input::wait(Duration::from_millis(500))? {
            let TerminalEvent::Key(key) = event else { continue };
            match (command(&key), key.code) {
                (Some(Command::Abort), _) | (None, KeyCode::Char('q')) => return Ok(()),
                (Some(Command::Again), _) => last = None,
                (Some(Command::Look), _) => {
                    mode = mode.toggled();
                    terminal.redraw()?;
                }
                (Some(Command::Redraw), _) => terminal.redraw()?,
                _ => {}
            }
        }
        if signals.take_terminate() || signals.is_hung_up() {
            return Ok(());
        }
    }
}
