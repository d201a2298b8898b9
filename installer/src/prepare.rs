//! From answers to a plan that may be run: the bundle's verified head, the host checks, the operator's certificate, the
//! plan, and what is stored when a run begins.
//!
//! Invariant: until [`store`] nothing is written to a disk of the host. The unattended installation and the TUI both go
//! through [`prepare`], so the same answers give the same plan. Called by the command line and by `ui/`.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use bundle::index::Index;
use bundle::keys::TrustedKeys;
use bundle::oci::Digest;
use bundle::read::Head;
use camino::{Utf8Path, Utf8PathBuf};

use crate::check::{self, Report};
use crate::config::{Certificates, InstallConfig};
use crate::engine::Stop;
use crate::engine::journal::Journal;
use crate::facts::{Facts, Questions};
use crate::host::{Host, Medium};
use crate::layout;
use crate::live;
use crate::passphrase;
use crate::plan::{self, Machine, Plan, SystemImage};
use crate::step::State;

/// Exit codes of [`Refusal`].
pub mod code {
    /// Not foreseen.
    pub const UNEXPECTED: u8 = 1;
    /// The configuration has to be mended.
    pub const CONFIG: u8 = 2;
    /// The host has to be mended.
    pub const PREFLIGHT: u8 = 3;
    /// The bundle is not trusted.
    pub const BUNDLE: u8 = 4;
}

/// Why an installation does not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The exit code of the program.
    pub code: u8,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

#[expect(clippy::needless_pass_by_value, reason = "errors and texts come by value")]
impl Refusal {
    /// A refusal with a hint.
    pub fn new(code: u8, message: impl std::fmt::Display, hint: impl Into<String>) -> Self {
        Self { code, message: message.to_string(), hint: Some(hint.into()) }
    }

    fn unexpected(error: impl ToString) -> Self {
        Self { code: code::UNEXPECTED, message: error.to_string(), hint: None }
    }
}

impl From<bundle::Error> for Refusal {
    fn from(error: bundle::Error) -> Self {
        Self { code: error.exit_code(), message: error.to_string(), hint: error.hint().map(str::to_owned) }
    }
}

/// The verified head of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The index.
    pub index: Index,
    /// The index as it was signed.
    pub index_bytes: Vec<u8>,
    /// Its signature.
    pub signature: Vec<u8>,
    /// SHA-256 of the index.
    pub digest: String,
    /// Size of the bundle in bytes.
    pub bytes: u64,
    /// Id of the key that signed, as minisign prints it.
    pub key_id: String,
}

impl Signed {
    /// Reads the head of a bundle file and verifies it; the blobs are not looked at. `say` hears when its medium is waited for.
    pub fn from_bundle(path: &Utf8Path, trust: &[Utf8PathBuf], say: &mut dyn FnMut(&str)) -> Result<Self, Refusal> {
        let trust = TrustedKeys::load(trust)?;
        let file = File::open(path).map_err(|error| {
            Refusal::new(code::CONFIG, format!("cannot open the bundle {path}: {error}"), "is the medium there?")
        })?;
        let bytes = file.metadata().map_err(Refusal::unexpected)?.size();
        let stream = Medium::new(path, &Stop::default()).plain(say);
        let reader = Head::read(stream).and_then(|head| head.verify(&trust))?;
        Ok(Self {
            index: reader.index().clone(),
            index_bytes: reader.index_bytes().to_vec(),
            signature: reader.signature().to_vec(),
            digest: Digest::sha256_of(reader.index_bytes()).to_string(),
            bytes,
            key_id: reader.key_id().to_string(),
        })
    }

    /// The copy that `host.prepare` made, verified again with the pinned keys.
    pub fn stored(host: &dyn Host) -> Result<Self, Refusal> {
        let read = |path: &str| {
            let bytes = host.read(path.into()).map_err(Refusal::unexpected)?;
            bytes.map(|bytes| bytes.to_vec()).ok_or_else(|| Refusal::unexpected(format!("there is no file {path}")))
        };
        let (index_bytes, signature) = (read(layout::INDEX)?, read(layout::INDEX_SIGNATURE)?);
        let keys = host.list(layout::TRUST.into()).map_err(Refusal::unexpected)?;
        let keys: Vec<_> = keys.iter().map(|key| Utf8Path::new(layout::TRUST).join(key)).collect();
        let trust = TrustedKeys::load(&keys)?;
        let parsed = bundle::keys::Signature::parse(&signature).map_err(Refusal::unexpected)?;
        let key_id = trust.verify(&index_bytes, &parsed).map_err(Refusal::unexpected)?.to_string();
        let index: Index = serde_json::from_slice(&index_bytes).map_err(Refusal::unexpected)?;
        let digest = Digest::sha256_of(&index_bytes).to_string();
        Ok(Self { bytes: index.blob_bytes(), index, index_bytes, signature, digest, key_id })
    }
}

/// Checks and plan for a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// What the checks found.
    pub report: Report,
    /// The plan, or why there is none.
    pub plan: Result<Plan, Refusal>,
}

/// Judges the host and computes the plan. Nothing is changed.
pub fn prepare(host: &dyn Host, config: &InstallConfig, signed: &Signed) -> Prepared {
    judge(host, config, signed, &Facts::probe(host, &Questions::of(config)))
}

/// The same with facts that are known already.
pub fn judge(host: &dyn Host, config: &InstallConfig, signed: &Signed, facts: &Facts) -> Prepared {
    let report = check::run(config, facts, Some(&signed.index));
    let plan = refuse_findings(&report)
        .and_then(|()| refuse_certificate(host, config))
        .and_then(|()| refuse_passphrase(host, config))
        .and_then(|()| compute(host, config, facts, signed));
    Prepared { report, plan }
}

fn compute(host: &dyn Host, config: &InstallConfig, facts: &Facts, signed: &Signed) -> Result<Plan, Refusal> {
    let system = system(host)?;
    let plan = Machine::of(config, facts).and_then(|machine| {
        let machine = Machine { system, ..machine };
        plan::plan(config, &machine, &signed.index, &signed.digest, signed.bytes)
    });
    plan.map_err(|error| Refusal::new(code::CONFIG, &error, error.hint()))
}

/// The operating system that goes onto the disk: that of the medium, verified, when this is its live system.
fn system(host: &dyn Host) -> Result<Option<SystemImage>, Refusal> {
    if !live::is_live(host).map_err(Refusal::unexpected)? {
        return Ok(None);
    }
    let refused = |error: live::LiveError| Refusal::new(code::BUNDLE, &error, error.hint());
    live::medium::mount(host, &mut |_| ()).map_err(refused)?;
    live::medium::verified(host, &mut |_| ()).map(Some).map_err(refused)
}

/// A host has one site, and one installation at a time.
pub fn refuse_second_run(host: &dyn Host) -> Result<(), Refusal> {
    if let Some(state) = State::read(host).map_err(Refusal::unexpected)? {
        return Err(Refusal::new(
            code::PREFLIGHT,
            format!("site {} ({} {}) is installed on this host already", state.site, state.bundle, state.version),
            "`cofferdam status` shows it; a newer bundle comes in with `cofferdam upgrade`",
        ));
    }
    let is_begun = host.look(layout::PLAN.into()).map_err(Refusal::unexpected)?.is_some();
    if is_begun && !Journal::new(host).has_only(plan::HARMLESS_STEPS).map_err(Refusal::unexpected)? {
        return Err(Refusal::new(
            code::PREFLIGHT,
            "an installation was interrupted on this host",
            "`cofferdam resume` goes on with it",
        ));
    }
    Ok(())
}

/// Every question of the packs has an answer, and every answer a question.
pub fn refuse_answers(config: &InstallConfig, index: &Index) -> Result<(), Refusal> {
    let answered = plan::chosen_packs(config, index).and_then(|packs| plan::answered(config, index, &packs));
    answered.map(drop).map_err(|error| Refusal::new(code::CONFIG, &error, error.hint()))
}

/// What stands against an installation, as one refusal.
pub fn refuse_findings(report: &Report) -> Result<(), Refusal> {
    let blocking = report.blocking();
    if blocking.is_empty() {
        return Ok(());
    }
    let list = blocking.iter().fold(String::new(), |text, finding| {
        let hint = finding.hint.as_deref().map(|hint| format!("\n    hint: {hint}")).unwrap_or_default();
        format!("{text}\n  {}: {}{hint}", finding.id, finding.measured)
    });
    Err(Refusal::new(
        code::PREFLIGHT,
        format!("this host is not fit for the installation:{list}"),
        "mend them, or name an id under `accept:` in the configuration to let it pass, which is recorded",
    ))
}

/// An operator's certificate is judged before anything is written: all that is wrong with it, at once.
pub fn refuse_certificate(host: &dyn Host, config: &InstallConfig) -> Result<(), Refusal> {
    let Some((certificate, key, roots)) = config.certificates.files() else { return Ok(()) };
    if let Certificates::Request { request, .. } = &config.certificates
        && host.look(certificate).map_err(Refusal::unexpected)?.is_none()
    {
        return Err(Refusal::new(
            code::PREFLIGHT,
            format!("the certificate {certificate} is not there yet"),
            format!("`cofferdam install` writes the request to {request}; have it signed and bring the answer"),
        ));
    }
    crate::step::import_files(host, config, certificate, key, roots).map(drop).map_err(|reason| {
        let hint = format!(
            "`cofferdam certs verify --certificate {certificate} --key {key} --roots {roots} --fqdn {}` shows each finding with a hint",
            config.site.fqdn
        );
        Refusal::new(code::PREFLIGHT, format!("the certificate cannot be used: {reason}"), hint)
    })
}

/// The passphrase of the disk is judged before anything is written.
pub fn refuse_passphrase(host: &dyn Host, config: &InstallConfig) -> Result<(), Refusal> {
    let Some(path) = config.passphrase_file() else { return Ok(()) };
    passphrase::read(host, path).map(drop).map_err(|error| {
        let message = format!("storage.encryption.passphrase: {error}");
        Refusal::new(code::PREFLIGHT, message, error.hint())
    })
}

/// An unattended installation that waits for a certificate: writes the request for it, and ends here.
pub fn request_certificate(host: &dyn Host, config: &InstallConfig) -> Result<(), Refusal> {
    let Certificates::Request { request, certificate, .. } = &config.certificates else { return Ok(()) };
    if host.look(certificate).map_err(Refusal::unexpected)?.is_some() {
        return Ok(());
    }
    crate::request::make(host, config, request).map_err(Refusal::unexpected)?;
    Err(Refusal::new(
        code::PREFLIGHT,
        format!("the certificate {certificate} is not there yet; the request for it was written to {request}"),
        "have it signed, bring the answer, and run the same command again before the machine is restarted",
    ))
}

/// An installation changes what only root may change.
pub fn require_root() -> Result<(), Refusal> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Refusal::new(
        code::PREFLIGHT,
        "an installation needs to be root",
        "run it with sudo, or add --plan-only to look at the plan",
    ))
}

/// Pins the keys and stores what `resume` needs; the plan last, since it is what marks an installation as begun.
pub fn store(host: &dyn Host, config: &InstallConfig, plan: &Plan) -> Result<(), Refusal> {
    let write = |path: &Utf8Path, content: &[u8], mode| host.write(path, content, mode).map_err(Refusal::unexpected);
    // An attempt that ended before anything was erased may have pinned other keys.
    for key in host.list(layout::TRUST.into()).map_err(Refusal::unexpected)? {
        host.remove(&Utf8Path::new(layout::TRUST).join(key)).map_err(Refusal::unexpected)?;
    }
    for (number, key) in config.bundle.trust.iter().enumerate() {
        let content = host.read(key).map_err(Refusal::unexpected)?.unwrap_or_default();
        write(&Utf8Path::new(layout::TRUST).join(format!("{number}.pub")), &content, 0o644)?;
    }
    host.make_directory(layout::HOME.into(), 0o755).map_err(Refusal::unexpected)?;
    // An answer that was left to its default is an answer, too: another default of a later release does not change it.
    let config = InstallConfig { answers: plan.answers.clone(), ..config.clone() };
    write(layout::CONFIG.into(), config.to_yaml().map_err(Refusal::unexpected)?.as_bytes(), 0o600)?;
    let text = serde_json::to_string_pretty(plan).map_err(Refusal::unexpected)?;
    write(layout::PLAN.into(), text.as_bytes(), 0o644)
}
