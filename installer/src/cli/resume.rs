//! `cofferdam resume`, and what every face of the engine shares: an interrupted plan, a run without a terminal, and how the
//! end of a run becomes an exit code.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::{Failure, Outcome, code, console, print, say};
use crate::config::{self, InstallConfig};
use crate::engine::journal::{self, Journal};
use crate::engine::question::{Answers, Unattended};
use crate::engine::{Engine, Stop};
use crate::headless::Console;
use crate::host::real::RealHost;
use crate::host::{Host, HostExt};
use crate::layout;
use crate::plan::{Action, Plan};
use crate::prepare::{self, Signed};
use crate::step::State;
use crate::ui::run::signals::Signals;
use crate::ui::run::{self, Ended, SharedHost, Start};
use crate::ui::terminal::Terminal;
use crate::ui::theme::Theme;
use crate::upgrade::audit;

#[derive(Debug, Args)]
#[command(after_help = "Example: cofferdam resume")]
pub(super) struct Resume {
    /// Events as JSON lines into a file; text instead of pages then, also on a terminal
    #[arg(long)]
    events: Option<Utf8PathBuf>,
}

/// A plan that was begun and is not at its end.
struct Interrupted {
    config: InstallConfig,
    plan: Plan,
    signed: Signed,
}

impl Resume {
    pub(super) fn run(self) -> Outcome {
        prepare::require_root()?;
        if let Some(outcome) = super::upgrade::resume(self.events.as_deref()) {
            return outcome;
        }
        let host: SharedHost = Arc::new(RealHost);
        let Some(plan) = stored_plan(&*host)? else {
            let hint = "`cofferdam install --config install.yaml` begins one".to_owned();
            return Err(Failure::new(code::CONFIG, "there is no interrupted installation on this host", Some(hint)));
        };
        if is_installed(&*host)? {
            return print(&format!("site {} is installed; nothing is left to do\n", plan.site));
        }
        let interrupted = Interrupted::read(&*host, plan)?;
        if self.events.is_none() && console::is_terminal() {
            let (mut terminal, theme) = console::open()?;
            let closing = interrupted.go_on(&mut terminal, theme, &host);
            drop(terminal);
            return print(&closing?);
        }
        let Interrupted { config, plan, signed } = interrupted;
        refuse_without_person(&*host, &config, &plan)?;
        unattended(&host, &config, &plan, &signed, self.events.as_deref(), &Unattended)
    }
}

impl Interrupted {
    fn read(host: &dyn Host, plan: Plan) -> Result<Self, Failure> {
        let text = host.read_text(layout::CONFIG.into()).map_err(Failure::unexpected)?;
        let text = text.ok_or_else(|| {
            let hint = format!("remove {} and begin again with `cofferdam install`", layout::PLAN);
            Failure::new(code::CONFIG, format!("{} is missing", layout::CONFIG), Some(hint))
        })?;
        let config = config::parse(&text).map_err(|error| Failure::new(code::CONFIG, &error, Some(error.hint())))?;
        let signed = Signed::stored(host)
            .or_else(|_| Signed::from_bundle(&config.bundle.path, &config.bundle.trust, &mut { say }))?;
        if signed.digest != plan.index {
            return Err(Failure::new(
                code::CONFIG,
                format!("the bundle {} is not the one that the interrupted plan was made for", config.bundle.path),
                Some(format!("bring back the bundle with the index {}", plan.index)),
            ));
        }
        Ok(Self { config, plan, signed })
    }

    fn go_on(self, terminal: &mut Terminal, theme: Theme, host: &SharedHost) -> Closing {
        let Self { config, plan, signed } = self;
        // At the console of a medium nobody has logged in.
        let may_open_shell = !crate::live::is_live(&**host).map_err(Failure::unexpected)?;
        let start = Start { config, plan: plan.clone(), signed, resumes: true, may_open_shell };
        closing(run::run(terminal, theme, start, host), &plan)
    }
}

/// What is printed once the terminal is given back.
pub(super) type Closing = Result<String, Failure>;

/// On a host with an interrupted installation: the page that offers to go on, and the run if it is taken. `None` when
/// there is none.
pub(super) fn offer(terminal: &mut Terminal, theme: Theme, host: &SharedHost) -> Option<Closing> {
    let plan = match stored_plan(&**host) {
        Ok(Some(plan)) => plan,
        Ok(None) => return None,
        Err(failure) => return Some(Err(failure)),
    };
    match is_installed(&**host) {
        Ok(false) => {}
        // What is said to somebody who wants to install a second time is another page's business.
        Ok(true) => return None,
        Err(failure) => return Some(Err(failure)),
    }
    match run::offer(terminal, theme, &plan, host) {
        Ok(true) => {
            Some(Interrupted::read(&**host, plan).and_then(|interrupted| interrupted.go_on(terminal, theme, host)))
        }
        Ok(false) => {
            let hint = "`cofferdam resume` goes on with it".to_owned();
            Some(Err(Failure::new(code::CANCELLED, "the interrupted installation was left as it is", Some(hint))))
        }
        Err(error) => Some(Err(Failure::unexpected(error))),
    }
}

/// Runs a plan without a terminal: text on stderr, and JSON lines into a file.
pub(super) fn unattended(
    host: &SharedHost,
    config: &InstallConfig,
    plan: &Plan,
    signed: &Signed,
    events: Option<&Utf8Path>,
    answers: &dyn Answers,
) -> Outcome {
    let _lock = run::lock(host)?;
    let events = events.map(|path| {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| Failure::new(code::CONFIG, format!("cannot write events to {path}: {error}"), None))
    });
    let mut console = Console::new(events.transpose()?);
    let stop = Stop::default();
    Signals::stop_a_run(&stop).map_err(Failure::unexpected)?;
    let engine = Engine {
        host: &**host,
        config,
        plan,
        index: &signed.index,
        signed_index: (&signed.index_bytes, &signed.signature),
        answers,
        stop: &stop,
    };
    let (who, subject) = (audit::who(), format!("site {}, {}", plan.site, plan.bundle));
    let note = |result, detail: &str| {
        audit::append(&**host, &who, "install", &subject, result, detail).map_err(Failure::unexpected)
    };
    note("begun", "")?;
    engine.run(&mut |event| console.hear(event)).map_err(|error| {
        // What failed is told in any case.
        let _ = note("failed", &error.to_string());
        Failure::new(run::exit_code(&error), &error, Some(error.hint()))
    })?;
    note("done", "")?;
    print(&ready(plan))
}

/// A recovery key that leaves by the screen alone needs somebody in front of it, unless that is over.
pub(super) fn refuse_without_person(host: &dyn Host, config: &InstallConfig, plan: &Plan) -> Outcome {
    if !config.needs_a_person() {
        return Ok(());
    }
    let ceremony = plan.steps.iter().find(|step| matches!(step.action, Action::EncryptDisk { .. }));
    let is_over = Journal::new(host).records().map_err(Failure::unexpected)?.iter().any(|record| {
        ceremony.is_some_and(|step| step.id == record.step) && record.result == journal::Outcome::Finished
    });
    if is_over {
        return Ok(());
    }
    let hint =
        "name `escrow-recipients`, or run it on a terminal without `--config` (an interrupted one: `cofferdam resume`)";
    Err(Failure::new(
        code::CONFIG,
        "storage.encryption: the recovery key leaves by the screen only (show-recovery-key), and nobody is there to see it",
        Some(hint.to_owned()),
    ))
}

/// How a run ended, as a closing word or an exit code.
pub(super) fn closing(ended: Ended, plan: &Plan) -> Closing {
    let exit_code = ended.exit_code();
    let resume = "`cofferdam resume` goes on from there".to_owned();
    match ended {
        Ended::Finished => Ok(ready(plan)),
        Ended::Failed(failure) => {
            let hint = failure.hint.map_or_else(|| resume.clone(), |hint| format!("{hint}; {resume}"));
            let what = format!("step {} ({}) failed: {}", failure.step, failure.title, failure.error);
            Err(Failure::new(exit_code, what, Some(hint)))
        }
        Ended::Stopped { next } => {
            let before = if next.is_empty() { String::new() } else { format!(" before the step {next}") };
            Err(Failure::new(exit_code, format!("stopped{before}; nothing is half done"), Some(resume)))
        }
        Ended::BackToSettings => Err(Failure::new(exit_code, "left for the settings", None)),
        Ended::PowerOff => Err(Failure::new(exit_code, "the machine is going off", Some(resume))),
        Ended::Refused(refusal) => Err(refusal.into()),
    }
}

fn stored_plan(host: &dyn Host) -> Result<Option<Plan>, Failure> {
    let text = host.read_text(layout::PLAN.into()).map_err(Failure::unexpected)?;
    text.map(|text| serde_json::from_str(&text).map_err(Failure::unexpected)).transpose()
}

/// The record is the last step of an installation; an upgrade changes what it says.
fn is_installed(host: &dyn Host) -> Result<bool, Failure> {
    Ok(State::read(host).map_err(Failure::unexpected)?.is_some())
}

fn ready(plan: &Plan) -> String {
    format!(
        "\nSite {} is ready.\n  API:        https://{}:{}\n  kubeconfig: {}\n  status:     cofferdam status\n",
        plan.site,
        plan.fqdn,
        layout::API_PORT,
        layout::ADMIN_KUBECONFIG
    )
}
