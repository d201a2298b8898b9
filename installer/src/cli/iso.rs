//! `cofferdam iso build | customize | system | inspect`: the medium that a bare server boots, and the one that only carries a bundle.

use bundle::keys::TrustedKeys;
use camino::Utf8PathBuf;
use clap::{Args, Subcommand, ValueEnum};
use iso::appliance::{self, ApplianceOptions, ApplianceReport, Changes, Contents};
use iso::system::{Kernel, SecureBoot, SystemOptions};
use iso::{MediumOptions, VolumeLabel};

use super::{Failure, Outcome, code, print, print_json, say};
use crate::headless::megabytes;

#[derive(Debug, Subcommand)]
pub(super) enum Iso {
    /// Write a boot medium with its own operating system; with --data-only one that carries a bundle
    #[command(
        after_help = "Example: cofferdam iso build --sign-key signing.key --trust signing.pub --bundle b.tar.zst -o appliance.iso"
    )]
    Build(Box<Build>),
    /// Put other answers, keys, kernel arguments or another bundle on a finished boot medium
    #[command(
        after_help = "Example: cofferdam iso customize appliance.iso -o rack7.iso --config rack7.yaml --bundle b.tar.zst --trust signing.pub"
    )]
    Customize(Customize),
    /// Take the operating system out of a boot medium, for a pack of the layer os
    #[command(
        after_help = "Example: cofferdam iso system appliance.iso --trust signing.pub -o system, then `system: system` in bundle.yaml"
    )]
    System {
        /// The boot medium
        image: Utf8PathBuf,
        /// Public keys; one of them must have signed the system
        #[arg(long, required = true)]
        trust: Vec<Utf8PathBuf>,
        /// The folder to write; it must not be there yet
        #[arg(short, long)]
        output: Utf8PathBuf,
    },
    /// Show what an image carries and whether its digests hold
    Inspect {
        /// The image
        image: Utf8PathBuf,
        /// Public keys; one of them must have signed the system
        #[arg(long)]
        trust: Vec<Utf8PathBuf>,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Build {
    /// The bundle, or its parts in order
    #[arg(long)]
    bundle: Vec<Utf8PathBuf>,
    /// Public keys that the system trusts; the first is the bundle's
    #[arg(long, required = true)]
    trust: Vec<Utf8PathBuf>,
    /// Answers for an unattended installation
    #[arg(long)]
    config: Option<Utf8PathBuf>,
    /// The image to write
    #[arg(short, long)]
    output: Utf8PathBuf,
    /// No operating system: bundle, key and answers for a machine that has one
    #[arg(long, conflicts_with_all = ["sign_key", "pcr_key", "secure_boot_key"])]
    data_only: bool,
    /// The secret key that signs the system
    #[arg(long, required_unless_present = "data_only")]
    sign_key: Option<Utf8PathBuf>,
    /// The key whose signatures open encrypted volumes (PEM, RSA); made when the file is not there. Keep it: the next
    /// versions of a site's system need the same. Default: pcr-signing.key beside --sign-key
    #[arg(long)]
    pcr_key: Option<Utf8PathBuf>,
    /// Sign for Secure Boot with this key (PEM)
    #[arg(long, requires = "secure_boot_cert")]
    secure_boot_key: Option<Utf8PathBuf>,
    /// Its certificate (PEM)
    #[arg(long, requires = "secure_boot_key")]
    secure_boot_cert: Option<Utf8PathBuf>,
    /// Debian's kernel for servers, or the small one for virtual machines
    #[arg(long, value_enum, default_value = "generic")]
    kernel: KernelChoice,
    /// Firmware packages of Debian
    #[arg(long)]
    firmware: Vec<String>,
    /// A folder that is laid over the system: your own agents, certificates, units
    #[arg(long)]
    extra_tree: Option<Utf8PathBuf>,
    /// A kernel argument, part of the signed image
    #[arg(long = "kernel-arg", allow_hyphen_values = true)]
    kernel_arguments: Vec<String>,
    /// Version of the image
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    image_version: String,
    /// The program that goes in; this one when left out
    #[arg(long)]
    program: Option<Utf8PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KernelChoice {
    Generic,
    Cloud,
}

#[derive(Debug, Args)]
pub(super) struct Customize {
    /// The medium; it is not changed
    image: Utf8PathBuf,
    /// The image to write
    #[arg(short, long)]
    output: Utf8PathBuf,
    /// Answers for an unattended installation
    #[arg(long)]
    config: Option<Utf8PathBuf>,
    /// The public key that the bundle is signed with
    #[arg(long)]
    trust: Option<Utf8PathBuf>,
    /// The bundle, or its parts in order
    #[arg(long)]
    bundle: Vec<Utf8PathBuf>,
    /// Kernel arguments of the live system; they replace those that are there
    #[arg(long = "kernel-arg", allow_hyphen_values = true)]
    kernel_arguments: Vec<String>,
    /// Take all customisation away first
    #[arg(long)]
    reset: bool,
}

impl Iso {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Build(build) if build.data_only => build.data(),
            Self::Build(build) => build.appliance(),
            Self::Customize(customize) => customize.run(),
            Self::System { image, trust, output } => system(&image, &trust, &output),
            Self::Inspect { image, trust, json } => inspect(&image, &trust, json),
        }
    }
}

impl Build {
    fn data(self) -> Outcome {
        let trust = self.trust.into_iter().next();
        let trust = trust.ok_or_else(|| Failure::new(code::CONFIG, "no public key was named", None))?;
        let output = self.output;
        let options = MediumOptions {
            bundle: self.bundle,
            trust_key: trust,
            config: self.config,
            label: VolumeLabel::default(),
            output: output.clone(),
        };
        let report = iso::build(&options, &mut |_| {}).map_err(|error| failure(&error))?;
        print(&format!("{output}: {}\n", megabytes(report.size)))
    }

    fn appliance(self) -> Outcome {
        let signing_key = self.sign_key.unwrap_or_default();
        let pcr_key = self.pcr_key.unwrap_or_else(|| signing_key.with_file_name("pcr-signing.key"));
        if !pcr_key.exists() {
            say(&format!("{pcr_key} is made: keep it, the next versions of this system must be signed with it too"));
        }
        let program = match self.program {
            Some(program) => program,
            None => std::env::current_exe()
                .ok()
                .and_then(|path| Utf8PathBuf::from_path_buf(path).ok())
                .ok_or_else(|| Failure::unexpected("this program's own file has no UTF-8 name"))?,
        };
        let system = SystemOptions {
            version: self.image_version,
            kernel: match self.kernel {
                KernelChoice::Generic => Kernel::Generic,
                KernelChoice::Cloud => Kernel::Cloud,
            },
            firmware: self.firmware,
            program,
            extra_tree: self.extra_tree,
            trust: self.trust.clone(),
            pcr_key,
            secure_boot: self
                .secure_boot_key
                .zip(self.secure_boot_cert)
                .map(|(key, certificate)| SecureBoot { key, certificate }),
            kernel_arguments: self.kernel_arguments,
            compression: 6,
            cache: cache()?,
        };
        let trust_key = self.trust.into_iter().next();
        let contents = Contents { bundle: self.bundle, trust_key, config: self.config, arguments: String::new() };
        let options = ApplianceOptions { system, signing_key, contents, output: self.output };
        let began = std::time::Instant::now();
        let mut tell = |what: &str| say(&format!("[{:>4} s] {what}", began.elapsed().as_secs()));
        let report = appliance::build(&options, &mut tell).map_err(|error| failure(&error))?;
        print(&text(&options.output, &report))
    }
}

/// Where what is fetched once is kept: `XDG_CACHE_HOME/cofferdam`.
fn cache() -> Result<Utf8PathBuf, Failure> {
    let home = std::env::var("XDG_CACHE_HOME").map(Utf8PathBuf::from);
    let home = home.or_else(|_| std::env::var("HOME").map(|home| Utf8PathBuf::from(home).join(".cache")));
    let missing = || Failure::new(code::CONFIG, "neither XDG_CACHE_HOME nor HOME is set", None);
    home.map(|cache| cache.join("cofferdam")).map_err(|_| missing())
}

impl Customize {
    fn run(self) -> Outcome {
        let arguments = (!self.kernel_arguments.is_empty()).then(|| self.kernel_arguments.join(" "));
        let changes =
            Changes { reset: self.reset, bundle: self.bundle, trust_key: self.trust, config: self.config, arguments };
        let report = appliance::customise(&self.image, &self.output, &changes, &mut |what| say(what));
        print(&text(&self.output, &report.map_err(|error| failure(&error))?))
    }
}

fn system(image: &Utf8PathBuf, trust: &[Utf8PathBuf], output: &Utf8PathBuf) -> Outcome {
    let keys = TrustedKeys::load(trust).map_err(|error| super::bundle::failure(&error))?;
    let system =
        appliance::extract_system(image, &keys, output, &mut |what| say(what)).map_err(|error| failure(&error))?;
    print(&format!("{output}: system {}, kernel {}, root hash {}\n", system.version, system.kernel, system.root_hash))
}

fn inspect(image: &Utf8PathBuf, trust: &[Utf8PathBuf], json: bool) -> Outcome {
    let opened = iso::read::Image::open(image).map_err(|error| failure(&error))?;
    if appliance::is_appliance(&opened) {
        let keys = (!trust.is_empty()).then(|| TrustedKeys::load(trust)).transpose();
        let keys = keys.map_err(|error| super::bundle::failure(&error))?;
        let report = appliance::inspect(image, keys.as_ref()).map_err(|error| failure(&error))?;
        return if json { print_json(&report) } else { print(&text(image, &report)) };
    }
    let report = iso::inspect(image).map_err(|error| failure(&error))?;
    if json {
        return print_json(&report);
    }
    print(&format!("{}: volume {}, all digests hold\n{}", image, report.label, files(&report.manifest)))
}

fn files(manifest: &iso::Manifest) -> String {
    manifest.files.iter().fold(String::new(), |text, (name, file)| {
        format!("{text}  {} {}, {}\n", name, megabytes(file.size), file.digest)
    })
}

fn text(image: &Utf8PathBuf, report: &ApplianceReport) -> String {
    let signer = match (report.signed_by, report.is_trusted) {
        (Some(key), true) => format!("signed by {key}, which is trusted"),
        (Some(key), false) => format!("signed by {key} (not checked: name the key with --trust)"),
        (None, _) => "not signed".to_owned(),
    };
    let arguments = if report.arguments.is_empty() { "none" } else { &report.arguments };
    format!(
        "{image}: {}, all digests hold\nsystem {}, kernel {}, {signer}\n  root hash {}\nkernel arguments of its own: {arguments}\n{}",
        megabytes(report.size),
        report.system.version,
        report.system.kernel,
        report.system.root_hash,
        files(&report.files)
    )
}

fn failure(error: &iso::Error) -> Failure {
    Failure::new(error.exit_code(), error, error.hint().map(str::to_owned))
}
