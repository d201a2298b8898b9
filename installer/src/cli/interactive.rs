//! `cofferdam install` on a terminal: the pages, then the run.

use std::sync::Arc;

use camino::Utf8Path;

use super::{Failure, Outcome, code, console, print, resume};
use crate::config::InstallConfig;
use crate::host::Host;
use crate::host::real::RealHost;
use crate::layout;
use crate::live;
use crate::prepare;
use crate::ui::machine::{ThisMachine, read_config};
use crate::ui::model::Model;
use crate::ui::plain;
use crate::ui::run::SharedHost;
use crate::ui::session::{self, Left};
use crate::ui::update;

/// The installer for a person. `file`: answers to begin with, and the pages on which to stop.
pub(super) fn run(file: Option<(&Utf8Path, InstallConfig)>, is_plain: bool) -> Outcome {
    prepare::require_root()?;
    let host: SharedHost = Arc::new(RealHost);
    if is_plain {
        prepare::refuse_second_run(&*host)?;
    }
    let (mut terminal, theme) = if is_plain { return plainly(file, &host) } else { console::open()? };
    if let Some(closing) = resume::offer(&mut terminal, theme, &host) {
        drop(terminal);
        return print(&closing?);
    }
    let mut model = Model::new(theme.mode());
    // On the console of a medium nobody has logged in.
    model.has_shell = !live::is_live(&*host).map_err(Failure::unexpected)?;
    take(&mut model, file, &host);
    let left = session::run(&mut terminal, &mut model, Arc::new(ThisMachine), &host).map_err(Failure::unexpected);
    drop(terminal);
    finish(left?, &*host)
}

fn plainly(file: Option<(&Utf8Path, InstallConfig)>, host: &SharedHost) -> Outcome {
    let mut model = Model::new(crate::ui::theme::Mode::Basic);
    take(&mut model, file, host);
    let (input, output) = (std::io::stdin().lock(), std::io::stdout());
    match plain::ask(&mut model, &ThisMachine, input, output).map_err(Failure::unexpected)? {
        None => cancelled(&**host),
        Some(start) => {
            prepare::store(&**host, &start.config, &start.plan)?;
            resume::unattended(host, &start.config, &start.plan, &start.signed, None, &plain::Person)
        }
    }
}

fn take(model: &mut Model, file: Option<(&Utf8Path, InstallConfig)>, host: &SharedHost) {
    if let Some((path, config)) = file {
        let found = read_config(&**host, path.to_owned());
        update::take_config(model, &config, found.map(|found| format!("{path}, SHA-256 {}", found.hash)));
    }
}

fn finish(left: Left, host: &dyn Host) -> Outcome {
    match left {
        Left::Quit => cancelled(host),
        Left::Checked => Ok(()),
        Left::Ran(ended, plan) => print(&resume::closing(*ended, &plan)?),
    }
}

fn cancelled(host: &dyn Host) -> Outcome {
    // Saved answers do not name it, so nobody would find it again.
    host.remove(layout::PASTED_PASSPHRASE.into()).map_err(Failure::unexpected)?;
    let hint = "nothing was changed; `cofferdam install` begins again".to_owned();
    Err(Failure::new(code::CANCELLED, "the installation was not begun", Some(hint)))
}
