//! `cofferdam install | check | resume`: facts, checks and plan are shown before anything is done.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::{Failure, Outcome, code, print, print_json, say};
use crate::check;
use crate::config::{self, InstallConfig};
use crate::engine::question::Unattended;
use crate::engine::{Engine, EngineError, Stop};
use crate::facts::{Facts, Questions};
use crate::headless::Console;
use crate::host::real::RealHost;
use crate::host::{Host, HostExt};
use crate::layout;
use crate::plan::Plan;
use crate::prepare::{self, Signed};
use crate::step::{State, StepError};

#[derive(Debug, Args)]
#[command(after_help = "Example: cofferdam install --config install.yaml --plan-only")]
pub(super) struct Install {
    /// The answers; no question is asked then
    #[arg(long)]
    config: Option<Utf8PathBuf>,
    /// Print the plan and change nothing
    #[arg(long)]
    plan_only: bool,
    /// With --plan-only: the plan as JSON
    #[arg(long)]
    json: bool,
    /// Events as JSON lines into a file
    #[arg(long)]
    events: Option<Utf8PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: cofferdam check --config install.yaml --json")]
pub(super) struct Check {
    /// The answers that the host is checked against
    #[arg(long)]
    config: Utf8PathBuf,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Resume {
    /// Events as JSON lines into a file
    #[arg(long)]
    events: Option<Utf8PathBuf>,
}

impl Check {
    pub(super) fn run(self) -> Outcome {
        check(&super::config::read(&self.config)?, self.json)
    }
}

impl Install {
    pub(super) fn run(self) -> Outcome {
        let Some(config) = self.config else {
            return Err(Failure::new(
                code::CONFIG,
                "the terminal installer is not part of this version",
                Some(
                    "`cofferdam config example > install.yaml`, fill it in, `cofferdam install --config install.yaml`"
                        .to_owned(),
                ),
            ));
        };
        let config = super::config::read(&config)?;
        let host = RealHost;
        prepare::refuse_second_run(&host)?;
        let signed = Signed::from_bundle(&config.bundle.path, &config.bundle.trust)?;
        let prepared = prepare::prepare(&host, &config, &signed);
        if !self.json {
            say(&prepared.report.to_text());
        }
        let plan = prepared.plan?;
        if self.plan_only {
            return if self.json { print_json(&plan) } else { print(&plan.to_text()) };
        }
        prepare::require_root()?;
        say(&plan.to_text());
        prepare::store(&host, &config, &plan)?;
        run(&host, &config, &plan, &signed, self.events.as_deref())
    }
}

impl Resume {
    pub(super) fn run(self) -> Outcome {
        prepare::require_root()?;
        let host = RealHost;
        let text = |path: &str| host.read_text(path.into()).map_err(Failure::unexpected);
        let nothing = || {
            let hint = "`cofferdam install --config install.yaml` begins one".to_owned();
            Failure::new(code::CONFIG, "there is no interrupted installation on this host", Some(hint))
        };
        let config = config::parse(&text(layout::CONFIG)?.ok_or_else(nothing)?)
            .map_err(|error| Failure::new(code::CONFIG, &error, Some(error.hint())))?;
        let plan: Plan =
            serde_json::from_str(&text(layout::PLAN)?.ok_or_else(nothing)?).map_err(Failure::unexpected)?;
        if State::read(&host).map_err(Failure::unexpected)?.is_some_and(|state| state.index == plan.index) {
            return print(&format!("site {} is installed; nothing is left to do\n", plan.site));
        }
        let signed =
            Signed::stored(&host).or_else(|_| Signed::from_bundle(&config.bundle.path, &config.bundle.trust))?;
        if signed.digest != plan.index {
            return Err(Failure::new(
                code::CONFIG,
                format!("the bundle {} is not the one that the interrupted plan was made for", config.bundle.path),
                Some(format!("bring back the bundle with the index {}", plan.index)),
            ));
        }
        run(&host, &config, &plan, &signed, self.events.as_deref())
    }
}

/// Runs the checks and prints their findings; fails with exit code 3 when one of them stands against an installation.
pub(super) fn check(config: &InstallConfig, json: bool) -> Outcome {
    let host = RealHost;
    let signed = Signed::from_bundle(&config.bundle.path, &config.bundle.trust)?;
    let report = check::run(config, &Facts::probe(&host, &Questions::of(config)), Some(&signed.index));
    if json {
        print_json(&report)?;
    } else {
        print(&report.to_text())?;
    }
    prepare::refuse_findings(&report)?;
    Ok(prepare::refuse_certificate(&host, config)?)
}

fn run(host: &dyn Host, config: &InstallConfig, plan: &Plan, signed: &Signed, events: Option<&Utf8Path>) -> Outcome {
    let events = events.map(|path| {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| Failure::new(code::CONFIG, format!("cannot write events to {path}: {error}"), None))
    });
    let mut console = Console::new(events.transpose()?);
    let engine = Engine {
        host,
        config,
        plan,
        index: &signed.index,
        signed_index: (&signed.index_bytes, &signed.signature),
        answers: &Unattended,
        stop: &Stop::default(),
    };
    engine.run(&mut |event| console.hear(event)).map_err(|error| {
        let is_refused = matches!(&error, EngineError::Step { source: StepError::Bundle { .. }, .. });
        Failure::new(if is_refused { code::BUNDLE } else { code::STEP }, &error, Some(error.hint()))
    })?;
    print(&format!(
        "\nSite {} is ready.\n  API:        https://{}:{}\n  kubeconfig: {}\n  status:     cofferdam status\n",
        plan.site,
        plan.fqdn,
        layout::API_PORT,
        layout::ADMIN_KUBECONFIG
    ))
}
