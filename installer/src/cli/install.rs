//! `cofferdam install | check | resume`: facts, checks and plan are shown before anything is done.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use bundle::index::Index;
use bundle::keys::TrustedKeys;
use bundle::oci::Digest;
use bundle::read::Head;
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::bundle::failure as bundle_failure;
use super::{Failure, Outcome, code, print, print_json, say};
use crate::check;
use crate::config::{self, InstallConfig};
use crate::engine::{Engine, EngineError};
use crate::facts::{Facts, Questions};
use crate::headless::Console;
use crate::host::real::RealHost;
use crate::host::{Host, HostExt};
use crate::layout;
use crate::live;
use crate::plan::{self, Machine, Plan, SystemImage};
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
        refuse_second_run(&host)?;
        let signed = Signed::from_bundle(&config)?;
        let facts = Facts::probe(&host, &Questions::of(&config));
        let report = check::run(&config, &facts, Some(&signed.index));
        if !self.json {
            say(&report.to_text());
        }
        refuse_findings(&report)?;
        refuse_certificate(&host, &config)?;
        let plan = compute(&host, &config, &facts, &signed)?;
        if self.plan_only {
            return if self.json { print_json(&plan) } else { print(&plan.to_text()) };
        }
        require_root()?;
        say(&plan.to_text());
        store(&host, &config, &plan)?;
        run(&host, &config, &plan, &signed, self.events.as_deref())
    }
}

impl Resume {
    pub(super) fn run(self) -> Outcome {
        require_root()?;
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
        let signed = Signed::stored(&host).or_else(|_| Signed::from_bundle(&config))?;
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
    let signed = Signed::from_bundle(config)?;
    let facts = Facts::probe(&host, &Questions::of(config));
    let report = check::run(config, &facts, Some(&signed.index));
    if json {
        print_json(&report)?;
    } else {
        print(&report.to_text())?;
    }
    refuse_findings(&report)?;
    refuse_certificate(&host, config)
}

/// The verified head of a bundle.
struct Signed {
    index: Index,
    index_bytes: Vec<u8>,
    signature: Vec<u8>,
    digest: String,
    bytes: u64,
}

impl Signed {
    fn from_bundle(config: &InstallConfig) -> Result<Self, Failure> {
        let path = &config.bundle.path;
        let trust = TrustedKeys::load(&config.bundle.trust).map_err(|error| bundle_failure(&error))?;
        let file = File::open(path).map_err(|error| {
            Failure::new(
                code::CONFIG,
                format!("cannot open the bundle {path}: {error}"),
                Some("is the medium there?".to_owned()),
            )
        })?;
        let bytes = file.metadata().map_err(Failure::unexpected)?.size();
        let reader = Head::read(file).and_then(|head| head.verify(&trust)).map_err(|error| bundle_failure(&error))?;
        Ok(Self {
            index: reader.index().clone(),
            index_bytes: reader.index_bytes().to_vec(),
            signature: reader.signature().to_vec(),
            digest: Digest::sha256_of(reader.index_bytes()).to_string(),
            bytes,
        })
    }

    /// The copy that `host.prepare` made, verified again with the pinned keys.
    fn stored(host: &dyn Host) -> Result<Self, Failure> {
        let read = |path: &str| {
            let bytes = host.read(path.into()).map_err(Failure::unexpected)?;
            bytes.map(|bytes| bytes.to_vec()).ok_or_else(|| Failure::unexpected(format!("there is no file {path}")))
        };
        let (index_bytes, signature) = (read(layout::INDEX)?, read(layout::INDEX_SIGNATURE)?);
        let keys = host.list(layout::TRUST.into()).map_err(Failure::unexpected)?;
        let keys: Vec<_> = keys.iter().map(|key| Utf8Path::new(layout::TRUST).join(key)).collect();
        let trust = TrustedKeys::load(&keys).map_err(|error| bundle_failure(&error))?;
        let parsed = bundle::keys::Signature::parse(&signature).map_err(Failure::unexpected)?;
        trust.verify(&index_bytes, &parsed).map_err(Failure::unexpected)?;
        let index: Index = serde_json::from_slice(&index_bytes).map_err(Failure::unexpected)?;
        let digest = Digest::sha256_of(&index_bytes).to_string();
        Ok(Self { bytes: index.blob_bytes(), index, index_bytes, signature, digest })
    }
}

fn compute(host: &dyn Host, config: &InstallConfig, facts: &Facts, signed: &Signed) -> Result<Plan, Failure> {
    let system = system(host)?;
    let plan = Machine::of(config, facts).and_then(|machine| {
        let machine = Machine { system, ..machine };
        plan::plan(config, &machine, &signed.index, &signed.digest, signed.bytes)
    });
    plan.map_err(|error| Failure::new(code::CONFIG, &error, Some(error.hint().to_owned())))
}

/// The operating system that goes onto the disk: that of the medium, verified, when this is its live system.
fn system(host: &dyn Host) -> Result<Option<SystemImage>, Failure> {
    if !live::is_live(host).map_err(Failure::unexpected)? {
        return Ok(None);
    }
    let failed = |error: live::LiveError| super::medium::failure(&error);
    live::medium::mount(host, &mut |text| say(text)).map_err(failed)?;
    live::medium::verified(host).map(Some).map_err(failed)
}

fn refuse_second_run(host: &dyn Host) -> Outcome {
    if let Some(state) = State::read(host).map_err(Failure::unexpected)? {
        return Err(Failure::new(
            code::PREFLIGHT,
            format!("site {} ({} {}) is installed on this host already", state.site, state.bundle, state.version),
            Some("`cofferdam status` shows it; a newer bundle comes in with `cofferdam upgrade`".to_owned()),
        ));
    }
    if host.look(layout::PLAN.into()).map_err(Failure::unexpected)?.is_some() {
        return Err(Failure::new(
            code::PREFLIGHT,
            "an installation was interrupted on this host",
            Some("`cofferdam resume` goes on with it".to_owned()),
        ));
    }
    Ok(())
}

fn refuse_findings(report: &check::Report) -> Outcome {
    let blocking = report.blocking();
    if blocking.is_empty() {
        return Ok(());
    }
    let list = blocking.iter().fold(String::new(), |text, finding| {
        let hint = finding.hint.as_deref().map(|hint| format!("\n    hint: {hint}")).unwrap_or_default();
        format!("{text}\n  {}: {}{hint}", finding.id, finding.measured)
    });
    let hint =
        "mend them, or name an id under `accept:` in the configuration to let it pass, which is recorded".to_owned();
    Err(Failure::new(code::PREFLIGHT, format!("this host is not fit for the installation:{list}"), Some(hint)))
}

/// An operator's certificate is judged before anything is written: all that is wrong with it, at once.
fn refuse_certificate(host: &dyn Host, config: &InstallConfig) -> Outcome {
    let config::Certificates::Import { certificate, key, roots } = &config.certificates else { return Ok(()) };
    crate::step::import_files(host, config, certificate, &key.file, roots).map(drop).map_err(|reason| {
        let hint = format!(
            "`cofferdam certs verify --certificate {certificate} --key {} --roots {roots} --fqdn {}` shows each finding with a hint",
            key.file, config.site.fqdn
        );
        Failure::new(code::PREFLIGHT, format!("the certificate cannot be used: {reason}"), Some(hint))
    })
}

fn require_root() -> Outcome {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let hint = "run it with sudo, or add --plan-only to look at the plan".to_owned();
    Err(Failure::new(code::PREFLIGHT, "an installation needs to be root", Some(hint)))
}

/// Pins the keys and stores what `resume` needs; the plan last, since it is what marks an installation as begun.
fn store(host: &dyn Host, config: &InstallConfig, plan: &Plan) -> Outcome {
    let write = |path: &Utf8Path, content: &[u8], mode| host.write(path, content, mode).map_err(Failure::unexpected);
    for (number, key) in config.bundle.trust.iter().enumerate() {
        let content = host.read(key).map_err(Failure::unexpected)?.unwrap_or_default();
        write(&Utf8Path::new(layout::TRUST).join(format!("{number}.pub")), &content, 0o644)?;
    }
    host.make_directory(layout::HOME.into(), 0o755).map_err(Failure::unexpected)?;
    write(layout::CONFIG.into(), config.to_yaml().map_err(Failure::unexpected)?.as_bytes(), 0o600)?;
    let text = serde_json::to_string_pretty(plan).map_err(Failure::unexpected)?;
    write(layout::PLAN.into(), text.as_bytes(), 0o644)
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
    let engine =
        Engine { host, config, plan, index: &signed.index, signed_index: (&signed.index_bytes, &signed.signature) };
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
