//! `cofferdam bundle …`.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use bundle::create::{CreateOptions, RegistryOptions, Stage};
use bundle::delta::{Base, INVENTORY_LIMIT, check_held};
use bundle::index::{Architecture, Index};
use bundle::keys::{SigningKey, TrustedKeys};
use bundle::load::{LoadOptions, LoadReport, SinkError};
use bundle::read::Head;
use camino::{Utf8Path, Utf8PathBuf};
use clap::Subcommand;
use serde_json::json;

use super::meter::{Meter, ProgressFormat};
use super::{Failure, Outcome, print, print_json, say};
use crate::headless::megabytes;

#[derive(Debug, Subcommand)]
pub(super) enum Bundle {
    /// Make a signing key pair: DIR/signing.key and DIR/signing.pub
    #[command(after_help = "Example: cofferdam bundle keygen keys")]
    Keygen {
        /// Where the two files go
        directory: Utf8PathBuf,
    },
    /// Build and sign a bundle
    #[command(after_help = "Example: cofferdam bundle create -f bundle.yaml -o out --sign-key keys/signing.key")]
    Create {
        /// What goes in
        #[arg(short, long)]
        file: Utf8PathBuf,
        /// File to write, or a directory for NAME-VERSION.tar.zst
        #[arg(short, long)]
        output: Utf8PathBuf,
        /// Secret key, made by `bundle keygen` or minisign
        #[arg(long)]
        sign_key: Utf8PathBuf,
        /// Certificates of private registries' CAs, PEM
        #[arg(long)]
        ca_file: Option<Utf8PathBuf>,
        /// Credentials of registries, in the format of Docker's config.json
        #[arg(long)]
        auth_file: Option<Utf8PathBuf>,
        /// Make a delta: leave out what sites hold that have loaded these bundles
        #[arg(long)]
        base: Vec<Utf8PathBuf>,
        /// Make a delta: leave out what a site holds, by its `bundle inventory`
        #[arg(long, conflicts_with = "base")]
        have: Option<Utf8PathBuf>,
    },
    /// What a store holds, as JSON: the base of the next delta
    #[command(
        after_help = "Example: cofferdam bundle inventory --store /var/lib/cofferdam/data/registry > site-a.json"
    )]
    Inventory {
        /// The store's directory
        #[arg(long)]
        store: Utf8PathBuf,
    },
    /// Show what is inside, without trusting it
    Inspect {
        /// The bundle
        bundle: Utf8PathBuf,
        #[arg(long)]
        json: bool,
        /// Public keys: say whether one of them signed it
        #[arg(long)]
        trust: Vec<Utf8PathBuf>,
    },
    /// Check all of it and write nothing
    Verify {
        /// The bundle, - for stdin
        bundle: Utf8PathBuf,
        /// Public keys; one of them must have signed it
        #[arg(long, required = true)]
        trust: Vec<Utf8PathBuf>,
        /// Of a delta: also read and check what it leaves out, in this store
        #[arg(long)]
        store: Option<Utf8PathBuf>,
        #[arg(long)]
        json: bool,
        /// Progress: text for people, or JSON lines on stderr
        #[arg(long, value_enum, default_value = "text")]
        progress: ProgressFormat,
    },
    /// Stream a bundle into a registry's store
    #[command(after_help = "Example: cofferdam bundle load b.tar.zst --store /srv/registry --trust signing.pub")]
    Load {
        /// The bundle, - for stdin
        bundle: Utf8PathBuf,
        /// The store's directory
        #[arg(long)]
        store: Utf8PathBuf,
        /// Public keys; one of them must have signed it
        #[arg(long, required = true)]
        trust: Vec<Utf8PathBuf>,
        /// End with the counts as JSON on stdout
        #[arg(long)]
        json: bool,
        /// Progress: text for people, or JSON lines on stderr
        #[arg(long, value_enum, default_value = "text")]
        progress: ProgressFormat,
    },
    /// Print the JSON Schema of bundle.yaml, or with --index of the signed index
    Schema {
        #[arg(long)]
        index: bool,
    },
}

impl Bundle {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Keygen { directory } => {
                let files = bundle::keys::keygen(&directory, None).map_err(|error| failure(&error))?;
                print(&format!(
                    "secret key: {}  (keep it off every network)\npublic key: {}  (goes to the sites)\nkey id:     {}\n",
                    files.secret, files.public, files.id
                ))
            }
            Self::Create { file, output, sign_key, ca_file, auth_file, base, have } => create(
                &file,
                &output,
                &sign_key,
                RegistryOptions { ca_file, auth_file },
                base_of(&base, have.as_deref())?,
            ),
            Self::Inventory { store } => {
                let inventory = super::registry::existing(&store)?.inventory();
                print_json(&inventory.map_err(|error| super::registry::failure(&error))?)
            }
            Self::Inspect { bundle, json, trust } => inspect(&bundle, json, &trust),
            Self::Verify { bundle, trust, store, json, progress } => {
                verify(&bundle, &trust, store.as_deref(), json, progress)
            }
            Self::Load { bundle, store, trust, json, progress } => load(&bundle, &store, &trust, json, progress),
            Self::Schema { index: true } => print_json(&Index::json_schema()),
            Self::Schema { index: false } => print_json(&bundle::definition::BundleDefinition::json_schema()),
        }
    }
}

pub(super) fn failure(error: &bundle::Error) -> Failure {
    Failure::new(error.exit_code(), error, error.hint().map(str::to_owned))
}

/// Opens a bundle, `-` being stdin.
fn open(path: &Utf8Path) -> Result<Box<dyn Read>, Failure> {
    if path == "-" {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = File::open(path).map_err(|error| {
        Failure::new(
            super::code::CONFIG,
            format!("cannot open {path}: {error}"),
            Some("is the medium there?".to_owned()),
        )
    })?;
    Ok(Box::new(file))
}

fn create(file: &Utf8Path, output: &Utf8Path, sign_key: &Utf8Path, registries: RegistryOptions, base: Base) -> Outcome {
    let definition = bundle::definition::BundleDefinition::read(file).map_err(|error| failure(&error))?;
    let signing_key = SigningKey::load(sign_key, None).map_err(|error| failure(&error))?;
    let options = CreateOptions { output: output.to_owned(), signing_key, registries, base };
    let mut last = (Stage::Gather, String::new());
    let mut at = Instant::now();
    let report = bundle::create::create(&definition, &options, &mut |progress| {
        let is_new = last.0 != progress.stage || last.1 != progress.what;
        // Small objects fly by; what takes long says how far it is.
        if is_new || at.elapsed() > Duration::from_secs(2) {
            at = Instant::now();
            last = (progress.stage, progress.what.to_owned());
            let verb = match progress.stage {
                Stage::Gather => "gather",
                Stage::Compress => "compress",
                Stage::Write => "write",
            };
            let (done, total) = (megabytes(progress.bytes_done), megabytes(progress.bytes_total));
            say(&format!("{verb:<9} {done} of {total}  {}", progress.what));
        }
    })
    .map_err(|error| failure(&error))?;
    print(&format!(
        "{}: {}, {} images, {} blobs{}, signed by {}\n",
        report.path,
        megabytes(report.size),
        report.index.images.len(),
        report.index.blobs.len(),
        left_out(&report.index),
        report.key_id
    ))
}

/// The words about what a delta leaves out; nothing for a full bundle.
fn left_out(index: &Index) -> String {
    if index.held.is_empty() {
        return String::new();
    }
    let bytes = megabytes(index.held.iter().map(|blob| blob.size).sum());
    format!(", {} left out ({bytes}) that sites with {} hold", index.held.len(), index.base.join(", "))
}

/// What the sites hold. A base is only read, not trusted: what it says wrongly, a site reports as missing.
fn base_of(bundles: &[Utf8PathBuf], inventory: Option<&Utf8Path>) -> Result<Base, Failure> {
    let mut base = Base::default();
    for path in bundles {
        let head = Head::read(open(path)?).map_err(|error| failure(&error))?;
        base.add_bundle(&head.untrusted_index().map_err(|error| failure(&error))?);
    }
    if let Some(path) = inventory {
        let fail =
            |why: String| Failure::new(super::code::CONFIG, format!("cannot use the inventory {path}: {why}"), None);
        let mut json = Vec::new();
        let read = File::open(path).and_then(|file| file.take(INVENTORY_LIMIT + 1).read_to_end(&mut json));
        read.map_err(|error| fail(error.to_string()))?;
        base.add_inventory(&json).map_err(fail)?;
    }
    Ok(base)
}

fn verify(
    bundle: &Utf8Path,
    trust: &[Utf8PathBuf],
    store: Option<&Utf8Path>,
    json: bool,
    format: ProgressFormat,
) -> Outcome {
    let trust = TrustedKeys::load(trust).map_err(|error| failure(&error))?;
    if let Some(store) = store {
        let index = Head::read(open(bundle)?).and_then(|head| head.verify(&trust)).map_err(|error| failure(&error))?;
        let store = super::registry::existing(store)?;
        check_held(index.index(), |held| {
            store.has_intact(held).map_err(|error| SinkError::new("look into the store", error))
        })
        .map_err(|error| failure(&error))?;
    }
    let mut meter = Meter::new(format);
    let report =
        bundle::load::verify(open(bundle)?, &trust, &LoadOptions::default(), &mut |progress| meter.show(progress))
            .map_err(|error| failure(&error))?;
    if json {
        return print_json(&report);
    }
    let delta = match (report.blobs_left_out, store) {
        (0, _) => String::new(),
        (count, Some(store)) => format!(", {count} blobs that it leaves out are good in {store}"),
        (count, None) => {
            format!(", {count} blobs ({}) left out: check them with --store DIR", megabytes(report.bytes_left_out))
        }
    };
    let LoadReport { name, version, key_id, .. } = &report;
    print(&format!("{name} {version}: good, signed by {key_id}, {} read{delta}\n", megabytes(report.bytes_read)))
}

fn inspect(path: &Utf8Path, as_json: bool, trust: &[Utf8PathBuf]) -> Outcome {
    let head = Head::read(open(path)?).map_err(|error| failure(&error))?;
    let index = head.untrusted_index().map_err(|error| failure(&error))?;
    let trusted = match trust {
        [] => None,
        keys => Some(head.check(&TrustedKeys::load(keys).map_err(|error| failure(&error))?).is_ok()),
    };
    if as_json {
        return print_json(&json!({"key-id": head.key_id().to_string(), "trusted": trusted, "index": index}));
    }
    let mut text = format!(
        "{} {} for {}, signed by {}{}\n",
        index.name,
        index.version,
        index.architecture,
        head.key_id(),
        match trusted {
            None => " (not checked: give --trust KEY)",
            Some(true) => " (a key that you trust)",
            Some(false) => " (NOT a key that you trust)",
        }
    );
    for pack in &index.packs {
        text.push_str(&format!("pack {} {}: {}\n", pack.name, pack.version, pack.description));
        if let Some(system) = &pack.system {
            let (version, kernel, hash) = (&system.version, &system.kernel, &system.root_hash);
            text.push_str(&format!("  system {version} of an appliance, kernel {kernel}, root hash {hash}\n"));
        }
        for image in &pack.images {
            text.push_str(&format!("  image {}\n", image.reference));
        }
        for file in &pack.files {
            text.push_str(&format!("  file {} ({})\n", file.name, megabytes(file.size)));
        }
        for question in &pack.questions {
            let default = question.default.as_ref().map_or_else(String::new, |value| format!(", default {value}"));
            text.push_str(&format!("  asks {}: {} ({}{default})\n", question.name, question.text, question.wanted()));
        }
    }
    let size = megabytes(index.blob_bytes());
    text.push_str(&format!("{} blobs, {size} in all{}\n", index.blobs.len(), left_out(&index)));
    print(&text)
}

fn load(path: &Utf8Path, store: &Utf8Path, trust: &[Utf8PathBuf], json: bool, format: ProgressFormat) -> Outcome {
    let trust = TrustedKeys::load(trust).map_err(|error| failure(&error))?;
    if path != "-" {
        // Not even the store's directory is made for a bundle that is not trusted, or for a delta without its base.
        let reader = Head::read(open(path)?).and_then(|head| head.verify(&trust)).map_err(|error| failure(&error))?;
        if !store.join("version").exists() {
            check_held(reader.index(), |_| Ok::<_, SinkError>(false)).map_err(|error| failure(&error))?;
        }
    }
    let mut store = super::registry::open_store(store)?;
    let mut meter = Meter::new(format);
    let options = LoadOptions { architecture: Architecture::of_this_machine() };
    let report = bundle::load::load(open(path)?, &trust, &mut store, &options, &mut |progress| meter.show(progress))
        .map_err(|error| failure(&error))?;
    if json {
        return print_json(&report);
    }
    print(&format!(
        "{} {}: {} images, {} packs; {} written, {} were there already\n",
        report.name,
        report.version,
        report.images,
        report.packs,
        megabytes(report.bytes_written),
        megabytes(report.bytes_skipped),
    ))
}
