//! `cofferdam install | check`: facts, checks and plan are shown before anything is done.

use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::{Failure, Outcome, code, console, print, print_json, say};
use crate::check;
use crate::config::InstallConfig;
use crate::engine::question::Unattended;
use crate::facts::{Facts, Questions};
use crate::host::real::RealHost;
use crate::live::answers;
use crate::prepare::{self, Signed};
use crate::ui::run::SharedHost;

#[derive(Debug, Args)]
#[command(after_help = "Example: cofferdam install --config install.yaml --plan-only")]
pub(super) struct Install {
    /// The answers; only the pages under `interactive:` are shown then
    #[arg(long)]
    config: Option<Utf8PathBuf>,
    /// Ask line by line, for screen readers and terminals that cannot place a cursor
    #[arg(long)]
    plain: bool,
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

impl Check {
    pub(super) fn run(self) -> Outcome {
        check(&super::config::read(&self.config)?, self.json)
    }
}

impl Install {
    pub(super) fn run(self) -> Outcome {
        let Some(file) = &self.config else {
            if self.plain || console::is_terminal() {
                let found = Utf8Path::new(answers::INTERACTIVE);
                let is_there = found.exists() && crate::live::is_live(&RealHost).map_err(Failure::unexpected)?;
                let file = if is_there { Some((found, super::config::read(found)?)) } else { None };
                return super::interactive::run(file, self.plain);
            }
            return Err(Failure::new(
                code::CONFIG,
                "without a terminal an installation needs a file of answers",
                Some(
                    "`cofferdam config example > install.yaml`, fill it in, `cofferdam install --config install.yaml`"
                        .to_owned(),
                ),
            ));
        };
        let config = super::config::read(file)?;
        if !config.interactive.is_empty() && !self.plan_only {
            if !self.plain && !console::is_terminal() {
                let hint = "take `interactive:` out of the file, or run it on a terminal".to_owned();
                return Err(Failure::new(code::CONFIG, "interactive: nobody is there to answer", Some(hint)));
            }
            return super::interactive::run(Some((file, config)), self.plain);
        }
        let host: SharedHost = Arc::new(RealHost);
        prepare::refuse_second_run(&*host)?;
        if !self.plan_only {
            prepare::require_root()?;
            prepare::request_certificate(&*host, &config)?;
        }
        let signed = Signed::from_bundle(&config.bundle.path, &config.bundle.trust, &mut { say })?;
        let prepared = prepare::prepare(&*host, &config, &signed);
        if !self.json {
            say(&prepared.report.to_text());
        }
        let plan = prepared.plan?;
        if self.plan_only {
            return if self.json { print_json(&plan) } else { print(&plan.to_text()) };
        }
        super::resume::refuse_without_person(&*host, &config, &plan)?;
        say(&plan.to_text());
        prepare::store(&*host, &config, &plan)?;
        super::resume::unattended(&host, &config, &plan, &signed, self.events.as_deref(), &Unattended)
    }
}

/// Runs the checks and prints their findings; fails with exit code 3 when one of them stands against an installation.
pub(super) fn check(config: &InstallConfig, json: bool) -> Outcome {
    let host = RealHost;
    let signed = Signed::from_bundle(&config.bundle.path, &config.bundle.trust, &mut { say })?;
    let report = check::run(config, &Facts::probe(&host, &Questions::of(config)), Some(&signed.index));
    if json {
        print_json(&report)?;
    } else {
        print(&report.to_text())?;
    }
    prepare::refuse_findings(&report)?;
    prepare::refuse_answers(config, &signed.index)?;
    prepare::refuse_certificate(&host, config)?;
    Ok(prepare::refuse_passphrase(&host, config)?)
}
