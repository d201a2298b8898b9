//! What the TUI asks of the machine, in the background: looking, verifying, judging, and writing what the operator asks
//! for. Nothing of it changes a disk that the operator did not name.
//!
//! Called by the event loop in a thread of its own for each [`Job`]; the tests and the demo bring a machine of their own.

use bundle::keys::TrustedKeys;
use bundle::load::LoadOptions;
use camino::{Utf8Path, Utf8PathBuf};
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::config::{self, InstallConfig, Network};
use crate::engine::Stop;
use crate::facts::{Facts, Questions};
use crate::host::real::RealHost;
use crate::host::{EntryKind, Host, HostExt, Medium};
use crate::layout;
use crate::live;
use crate::prepare::{self, Prepared, Refusal, Signed};
use crate::step::State;

/// What lies on mounted media and in the present directory, and what is on this host already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Configuration files.
    pub configs: Vec<FoundConfig>,
    /// Bundle files.
    pub bundles: Vec<Utf8PathBuf>,
    /// minisign public keys.
    pub keys: Vec<Utf8PathBuf>,
    /// The site that is installed here, in words.
    pub installed: Option<String>,
    /// The first mounted medium, where things are saved unless the operator says otherwise.
    pub medium: Option<Utf8PathBuf>,
}

/// A configuration file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundConfig {
    /// Where.
    pub path: Utf8PathBuf,
    /// SHA-256 of its bytes, the first sixteen hex digits.
    pub hash: String,
    /// What it says, or why it cannot be used.
    pub config: Result<InstallConfig, String>,
}

/// Which bundle, and whose signature is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleQuestion {
    /// The file.
    pub path: Utf8PathBuf,
    /// Public keys.
    pub trust: Vec<Utf8PathBuf>,
}

/// What was found about the operator's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// What is wrong or worth knowing; failures first.
    pub findings: Vec<certs::Finding>,
    /// What it is, in words, when it can be used.
    pub summary: Vec<(&'static str, String)>,
}

/// A piece of background work. Some of it is secret, so it has no `Debug`.
#[derive(Clone)]
pub enum Job {
    /// What media carry.
    Discover,
    /// All facts.
    Probe(Questions),
    /// The verified head of a bundle.
    Head(BundleQuestion),
    /// All of a bundle.
    Verify(BundleQuestion),
    /// The operator's certificate.
    Judge(Box<InstallConfig>),
    /// A certificate request.
    Request(Box<InstallConfig>, Utf8PathBuf),
    /// A password.
    Hash(Secret),
    /// The network of the live system; `None` is DHCP.
    SetUpNetwork(Option<Network>),
    /// Writes what the operator asks for.
    Keep(Utf8PathBuf, Zeroizing<Vec<u8>>, u32),
    /// Report and plan.
    Prepare(Box<(InstallConfig, Signed)>),
}

/// What came of it.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Of [`Job::Discover`].
    Discovered(Discovered),
    /// Of [`Job::Probe`].
    Facts(Box<Facts>),
    /// Of [`Job::Head`].
    Head(Box<Result<Signed, Refusal>>),
    /// How far [`Job::Verify`] is: bytes done and in all.
    Verifying(u64, u64),
    /// Of [`Job::Verify`].
    Verified(Result<(), Refusal>),
    /// Of [`Job::Judge`].
    Judged(Judged),
    /// Of [`Job::Request`].
    Request(Result<String, String>),
    /// Of [`Job::Hash`].
    Hash(Result<String, String>),
    /// Of [`Job::SetUpNetwork`].
    NetworkSetUp(Result<(), String>),
    /// Of [`Job::Keep`].
    Kept(Result<(), String>),
    /// Of [`Job::Prepare`].
    Prepared(Box<Prepared>),
}

/// The machine as the TUI needs it.
pub trait Machine: Send + Sync {
    /// What media carry.
    fn discover(&self) -> Discovered;
    /// All facts.
    fn probe(&self, questions: &Questions) -> Facts;
    /// The verified head of a bundle.
    fn head(&self, bundle: &BundleQuestion) -> Result<Signed, Refusal>;
    /// All of a bundle; `progress` takes bytes done and in all.
    fn verify(&self, bundle: &BundleQuestion, stop: &Stop, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Refusal>;
    /// The operator's certificate.
    fn judge(&self, config: &InstallConfig) -> Judged;
    /// Makes a certificate request and writes it.
    fn request(&self, config: &InstallConfig, target: &Utf8Path) -> Result<String, String>;
    /// Sets up the network of the live system; `None` is DHCP. Fails when a fixed address does not come up.
    fn set_up_network(&self, network: Option<&Network>) -> Result<(), String>;
    /// Writes a file.
    fn keep(&self, path: &Utf8Path, content: &[u8], mode: u32) -> Result<(), String>;
    /// Report and plan.
    fn prepare(&self, config: &InstallConfig, signed: &Signed) -> Prepared;

    /// Does a job; what comes of it, and how far it is, goes to `tell`.
    fn work(&self, job: Job, stop: &Stop, tell: &mut dyn FnMut(Answer)) {
        let answer = match job {
            Job::Discover => Answer::Discovered(self.discover()),
            Job::Probe(questions) => Answer::Facts(Box::new(self.probe(&questions))),
            Job::Head(bundle) => Answer::Head(Box::new(self.head(&bundle))),
            Job::Verify(bundle) => {
                let result = self.verify(&bundle, stop, &mut |done, total| tell(Answer::Verifying(done, total)));
                Answer::Verified(result)
            }
            Job::Judge(config) => Answer::Judged(self.judge(&config)),
            Job::Request(config, target) => Answer::Request(self.request(&config, &target)),
            Job::Hash(secret) => Answer::Hash(hash(&secret)),
            Job::SetUpNetwork(network) => Answer::NetworkSetUp(self.set_up_network(network.as_ref())),
            Job::Keep(path, content, mode) => Answer::Kept(self.keep(&path, &content, mode)),
            Job::Prepare(input) => Answer::Prepared(Box::new(self.prepare(&input.0, &input.1))),
        };
        tell(answer);
    }
}

/// bcrypt's cost: about a third of a second on a server. crypt(5) of Debian 12 knows `$2b$`.
const HASH_COST: u32 = 12;

fn hash(secret: &Secret) -> Result<String, String> {
    bcrypt::non_truncating_hash(secret.expose(), HASH_COST).map_err(|error| error.to_string())
}

/// This machine.
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn discover(&self) -> Discovered {
        discover(&RealHost)
    }

    fn probe(&self, questions: &Questions) -> Facts {
        Facts::probe(&RealHost, questions)
    }

    fn head(&self, bundle: &BundleQuestion) -> Result<Signed, Refusal> {
        Signed::from_bundle(&bundle.path, &bundle.trust, &mut |_| ())
    }

    fn verify(&self, bundle: &BundleQuestion, stop: &Stop, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Refusal> {
        verify(bundle, stop, progress)
    }

    fn judge(&self, config: &InstallConfig) -> Judged {
        judge(&RealHost, config)
    }

    fn request(&self, config: &InstallConfig, target: &Utf8Path) -> Result<String, String> {
        crate::request::make(&RealHost, config, target)
    }

    fn set_up_network(&self, network: Option<&Network>) -> Result<(), String> {
        let done = match network {
            Some(network) => live::network::set_up(&RealHost, network),
            None => live::network::reset(&RealHost),
        };
        done.map_err(|error| error.to_string())
    }

    fn keep(&self, path: &Utf8Path, content: &[u8], mode: u32) -> Result<(), String> {
        keep(&RealHost, path, content, mode)
    }

    fn prepare(&self, config: &InstallConfig, signed: &Signed) -> Prepared {
        prepare::prepare(&RealHost, config, signed)
    }
}

/// Verifies a whole bundle file; stops at the next read when it is cancelled.
pub fn verify(bundle: &BundleQuestion, stop: &Stop, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Refusal> {
    struct Stoppable<'a, R>(R, &'a Stop);
    impl<R: std::io::Read> std::io::Read for Stoppable<'_, R> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.1.is_requested() { Err(std::io::Error::other("cancelled")) } else { self.0.read(buffer) }
        }
    }
    let trust = TrustedKeys::load(&bundle.trust)?;
    std::fs::File::open(&bundle.path).map_err(|error| {
        let message = format!("cannot open the bundle {}: {error}", bundle.path);
        Refusal::new(prepare::code::CONFIG, message, "is the medium there?")
    })?;
    let (mut last, mut silent) = (0, |_: &str| ());
    let stream = Medium::new(&bundle.path, stop).plain(&mut silent);
    bundle::verify(Stoppable(stream, stop), &trust, &LoadOptions::default(), &mut |state| {
        // A step each MiB is more than any screen shows.
        if state.bytes_done == state.bytes_total || state.bytes_done >= last + (1 << 20) {
            last = state.bytes_done;
            progress(state.bytes_done, state.bytes_total);
        }
    })?;
    Ok(())
}

/// Judges the operator's certificate for the site's names.
pub fn judge(host: &dyn Host, config: &InstallConfig) -> Judged {
    let failed = |message: String| Judged {
        findings: vec![certs::Finding {
            id: "cert.parse",
            severity: certs::Severity::Fail,
            message,
            hint: Some("check the path; is the medium mounted?".to_owned()),
        }],
        summary: Vec::new(),
    };
    let Some((certificate, key, roots)) = config.certificates.files() else {
        return Judged { findings: Vec::new(), summary: Vec::new() };
    };
    match crate::step::judge_files(host, config, certificate, key, roots) {
        Ok(report) => {
            let summary =
                report.certificate.as_ref().map(|imported| summary(imported.certificate())).unwrap_or_default();
            Judged { findings: report.findings, summary }
        }
        Err(reason) => failed(reason),
    }
}

fn summary(certificate: &certs::Certificate) -> Vec<(&'static str, String)> {
    let summary = certificate.summary();
    let names: Vec<String> =
        summary.dns_names.iter().cloned().chain(summary.ip_addresses.iter().map(ToString::to_string)).collect();
    vec![
        ("Subject", summary.subject.clone()),
        ("Issuer", summary.issuer.clone()),
        ("Names", names.join(" ")),
        ("Valid until", format!("{:.0}", summary.not_after)),
        ("Key", summary.key.clone()),
    ]
}

fn keep(host: &dyn Host, path: &Utf8Path, content: &[u8], mode: u32) -> Result<(), String> {
    if !path.is_absolute() {
        return Err(format!("{path} is no absolute path"));
    }
    if path.starts_with(layout::PASTED) {
        host.make_directory(layout::PASTED.into(), 0o700).map_err(|error| error.to_string())?;
    }
    host.write(path, content, mode).map_err(|error| error.to_string())
}

/// Directories in which media are mounted, by themselves or one and two levels down.
const PLACES: &[&str] = &["/media", "/mnt", "/run/media"];
/// More entries than a medium's top has.
const MOST_ENTRIES: usize = 200;

fn discover(host: &dyn Host) -> Discovered {
    let mut found = Discovered {
        installed: State::read(host)
            .ok()
            .flatten()
            .map(|state| format!("{} ({} {})", state.site, state.bundle, state.version)),
        ..Discovered::default()
    };
    if live::is_live(host).unwrap_or_default() {
        discover_live(host, &mut found);
        return found;
    }
    let here = std::env::current_dir().ok().and_then(|path| Utf8PathBuf::from_path_buf(path).ok());
    for place in
        here.iter().map(|path| (path.clone(), 0)).chain(PLACES.iter().map(|place| (Utf8PathBuf::from(place), 2)))
    {
        look_into(host, &place.0, place.1, &mut found);
    }
    let mounted = |path: &Utf8Path| PLACES.iter().any(|place| path.starts_with(place));
    let all = found.bundles.iter().chain(&found.keys).chain(found.configs.iter().map(|config| &config.path));
    found.medium = all.filter(|path| mounted(path)).find_map(|path| path.parent().map(Utf8Path::to_owned));
    found
}

/// A live system looks at its own medium, and at the volume that is there for answers. It trusts the keys of its verified
/// root, and no key that merely lies on a medium.
fn discover_live(host: &dyn Host, found: &mut Discovered) {
    for place in [live::medium::MOUNT, live::answers::VOLUME] {
        look_into(host, place.into(), 1, found);
    }
    found.keys.clear();
    look_into(host, live::medium::KEYS.into(), 0, found);
}

fn look_into(host: &dyn Host, directory: &Utf8Path, deeper: u8, found: &mut Discovered) {
    for name in host.list(directory).unwrap_or_default().into_iter().take(MOST_ENTRIES) {
        let path = directory.join(&name);
        let kind = host.look(&path).ok().flatten().map(|entry| entry.kind);
        match kind {
            Some(EntryKind::Directory) if deeper > 0 => look_into(host, &path, deeper - 1, found),
            Some(EntryKind::File) if name == "install.yaml" || name == "cofferdam.yaml" => {
                found.configs.extend(read_config(host, path));
            }
            Some(EntryKind::File) if name.ends_with(".tar.zst") => found.bundles.push(path),
            Some(EntryKind::File) if path.extension() == Some("pub") && is_minisign_key(host, &path) => {
                found.keys.push(path);
            }
            _ => {}
        }
    }
}

fn is_minisign_key(host: &dyn Host, path: &Utf8Path) -> bool {
    host.read_text(path).ok().flatten().is_some_and(|text| TrustedKeys::default().add(&text).is_ok())
}

/// A configuration file with its hash, as a page shows it.
pub fn read_config(host: &dyn Host, path: Utf8PathBuf) -> Option<FoundConfig> {
    let text = host.read_text(&path).ok().flatten()?;
    let hash = bundle::oci::Digest::sha256_of(text.as_bytes()).hex()[..16].to_owned();
    Some(FoundConfig { path, hash, config: config::parse(&text).map_err(|error| error.to_string()) })
}
