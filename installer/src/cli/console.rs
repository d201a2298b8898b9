//! `cofferdam monitor | dashboard | support-bundle`: what a person at a console looks at.

use std::io::IsTerminal as _;
use std::sync::Arc;

use camino::Utf8PathBuf;
use clap::Args;

use super::{Failure, Outcome, code, print};
use crate::host::real::RealHost;
use crate::step::State;
use crate::support;
use crate::ui::run::{self, SharedHost};
use crate::ui::terminal::Terminal;
use crate::ui::theme::{Mode, Theme};

#[derive(Debug, Args)]
#[command(after_help = "Example: cofferdam monitor    (on a second console, while an installation runs)")]
pub(super) struct Monitor {}

#[derive(Debug, Args)]
#[command(after_help = "Example: cofferdam dashboard")]
pub(super) struct Dashboard {
    /// For the machine's own screen: until the site is installed, show the installation
    #[arg(long)]
    console: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: cofferdam support-bundle --output /media/stick")]
pub(super) struct SupportBundle {
    /// The directory that it is written to
    #[arg(long, short, default_value = "/root")]
    output: Utf8PathBuf,
}

impl Monitor {
    #[allow(clippy::unused_self, reason = "all commands are called alike")]
    pub(super) fn run(self) -> Outcome {
        let (mut terminal, theme) = open()?;
        let host: SharedHost = Arc::new(RealHost);
        left(run::monitor(&mut terminal, theme, &host, &mut || false))
    }
}

impl Dashboard {
    pub(super) fn run(self) -> Outcome {
        let host: SharedHost = Arc::new(RealHost);
        if self.console {
            return watch(&host);
        }
        let state = super::status::installed(&*host)?;
        let (mut terminal, theme) = open()?;
        left(run::dashboard(&mut terminal, theme, &host, &state))
    }
}

impl SupportBundle {
    pub(super) fn run(self) -> Outcome {
        let path = support::write(&RealHost, &self.output)
            .map_err(|error| Failure::new(code::UNEXPECTED, &error, Some(error.hint().to_owned())))?;
        print(&format!("{path}\n"))
    }
}

/// The installation, and when it is finished the site.
fn watch(host: &SharedHost) -> Outcome {
    let (mut terminal, theme) = open()?;
    let installed = || State::read(&**host).ok().flatten();
    left(run::monitor(&mut terminal, theme, host, &mut || installed().is_some()))?;
    match installed() {
        Some(state) => left(run::dashboard(&mut terminal, theme, host, &state)),
        None => Ok(()),
    }
}

/// The terminal, in the mode that fits it.
pub(super) fn open() -> Result<(Terminal, Theme), Failure> {
    if !is_terminal() {
        let hint = "`cofferdam status` and the journal tell the same without one".to_owned();
        return Err(Failure::new(code::CONFIG, "this needs a terminal", Some(hint)));
    }
    let terminal = Terminal::open().map_err(Failure::unexpected)?;
    Ok((terminal, Theme::new(Mode::detect(|name| std::env::var(name).ok()))))
}

/// Whether somebody can see and type.
pub(super) fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// A line that dropped is no failure of a page that only shows.
fn left(result: std::io::Result<()>) -> Outcome {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(Failure::unexpected(error)),
    }
}
