//! `cofferdam disk`: the keys of the installed site's data volume.

use std::io::{IsTerminal as _, Read as _};
use std::sync::Arc;

use camino::Utf8PathBuf;
use clap::{Args, Subcommand};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::{Failure, Outcome, code, print, say};
use crate::disk::{self, Key, Volume};
use crate::engine::question::{Answers, Unattended};
use crate::host::real::RealHost;
use crate::prepare;
use crate::step::StepError;
use crate::ui::plain::Person;
use crate::ui::run::{self, SharedHost};
use crate::upgrade::audit;

/// A key of LUKS2 has at most 512 characters when it is typed.
const MOST_BYTES: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(super) enum Disk {
    /// Replace the recovery key of the data volume
    RotateRecovery(RotateRecovery),
    /// Bind the data volume to this machine's TPM anew, after a change of the firmware
    Rebind(Rebind),
}

#[derive(Debug, Args)]
#[command(after_help = "Example: cofferdam disk rotate-recovery")]
pub(super) struct RotateRecovery {
    /// A file with a key that opens the volume, `-` for stdin. Else the TPM opens it, on a host, or the old recovery key is asked
    /// for
    #[arg(long)]
    key_file: Option<Utf8PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: cofferdam disk rebind")]
pub(super) struct Rebind {
    /// A file with a key that opens the volume, `-` for stdin. Else the recovery key is asked for
    #[arg(long)]
    key_file: Option<Utf8PathBuf>,
}

impl Disk {
    pub(super) fn run(self) -> Outcome {
        prepare::require_root()?;
        let host: SharedHost = Arc::new(RealHost);
        let _lock = run::lock(&host)?;
        let volume = Volume::of(&*host).map_err(|error| failed(&error))?;
        let who = audit::who();
        match self {
            Self::RotateRecovery(RotateRecovery { key_file }) => {
                let is_attended = key_file.is_none() && super::console::is_terminal();
                let answers: &dyn Answers = if is_attended { &Person } else { &Unattended };
                let uses_tpm = key_file.is_none() && volume.asks_tpm().map_err(|error| failed(&error))?;
                let mut ask = || if uses_tpm { Ok(Key::Tpm) } else { key(key_file.as_ref()) };
                let act = || match disk::rotate(&volume, &mut ask, answers, &mut say) {
                    // The TPM did not open it, and nothing was begun: a person may know better.
                    Err(error) if uses_tpm && is_attended && !volume.opens(&Key::Tpm) => {
                        say(&error.to_string());
                        disk::rotate(&volume, &mut || key(None), answers, &mut say)
                    }
                    ended => ended,
                };
                disk::audited(&volume, &who, "disk.rotate-recovery", act).map_err(|error| failed(&error))?;
                print(&format!("{} has a new recovery key; the old one opens nothing any more\n", volume.device()))
            }
            Self::Rebind(Rebind { key_file }) => {
                let act = || disk::rebind(&volume, &mut || key(key_file.as_ref()), &mut say);
                disk::audited(&volume, &who, "disk.rebind", act).map_err(|error| failed(&error))?;
                let when = if volume.is_appliances() { " from the next start on" } else { "" };
                print(&format!("the TPM of this machine opens {}{when}\n", volume.device()))
            }
        }
    }
}

fn failed(error: &StepError) -> Failure {
    Failure::new(code::STEP, error, error.hint())
}

/// The key from a file, stdin or a person.
fn key(file: Option<&Utf8PathBuf>) -> Result<Key, StepError> {
    let wrong = |what: String, hint: &str| StepError::State { what, hint: hint.to_owned() };
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MOST_BYTES).unwrap_or_default()));
    match file {
        Some(path) => {
            let read = if path == "-" {
                std::io::stdin().lock().take(MOST_BYTES).read_to_string(&mut text)
            } else {
                std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text))
            };
            read.map_err(|error| {
                wrong(format!("cannot read the key from {path}: {error}"), "`-` reads it from stdin")
            })?;
        }
        None if std::io::stdin().is_terminal() => {
            say("A key that opens the data volume, for example the recovery key (it is not shown):");
            let _quiet = Quiet::begin()
                .map_err(|error| wrong(format!("cannot switch off the echo: {error}"), "use `--key-file`"))?;
            std::io::stdin()
                .read_line(&mut text)
                .map_err(|error| wrong(format!("cannot read from the terminal: {error}"), "use `--key-file`"))?;
        }
        None => {
            let what = "a key that opens the data volume is needed, and nobody is there to type it".to_owned();
            return Err(wrong(what, "`--key-file -` reads it from stdin"));
        }
    }
    Ok(Key::read(&text))
}

/// The terminal without echo, for as long as it lives.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that went away has no echo to give back.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}
