//! `cofferdam registry …`.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use airgap_registry::store::{FsckReport, GcOptions, GcReport, ListedRepository, RepairReport, RepairSource};
use airgap_registry::{Config, Error, Store, SyncOptions, SyncProgress, SyncReport, TlsConfig, TokensConfig};
use bundle::keys::TrustedKeys;
use bundle::load::LoadProgress;
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use serde_json::json;

use super::meter::{Meter, ProgressFormat};
use super::{Failure, Outcome, code, print, print_json};
use crate::headless::megabytes;
use crate::layout;

#[derive(Debug, Subcommand)]
pub(super) enum Registry {
    /// Serve the store
    #[command(after_help = "Example: cofferdam registry serve --config /etc/cofferdam/registry.yaml")]
    Serve(Box<Serve>),
    /// Check every blob and every link; put back what is damaged from a bundle
    #[command(
        after_help = "Example: cofferdam registry fsck --store /srv/registry --repair-from b.tar.zst --trust signing.pub"
    )]
    Fsck {
        /// The store's directory
        #[arg(long, default_value = layout::STORE)]
        store: Utf8PathBuf,
        /// Bundles to take damaged and missing blobs from; damaged ones go to the store's quarantine
        #[arg(long)]
        repair_from: Vec<Utf8PathBuf>,
        /// Public keys, one of which must have signed the bundles; those of the site when none is given
        #[arg(long, requires = "repair_from")]
        trust: Vec<Utf8PathBuf>,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what nothing refers to; the registry may serve meanwhile
    #[command(after_help = "Example: cofferdam registry gc --store /srv/registry --keep-bundles 3 --dry-run")]
    Gc {
        /// The store's directory
        #[arg(long, default_value = layout::STORE)]
        store: Utf8PathBuf,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Drop all but the newest N versions of each bundle first
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        keep_bundles: Option<u32>,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Let the tags point to a bundle's images again that was loaded before
    Activate {
        /// NAME-VERSION, as `bundle inventory` lists it
        bundle: String,
        #[arg(long)]
        store: Utf8PathBuf,
    },
    /// Take over all that another registry of the site holds; goes on where it was cut off
    #[command(
        after_help = "Example: cofferdam registry sync --config /etc/cofferdam/registry.yaml --from https://10.0.0.5:5000"
    )]
    Sync(Box<Sync>),
    /// List repositories and tags
    #[command(after_help = "Example: cofferdam registry ls --store /srv/registry --json")]
    Ls {
        /// The store's directory
        #[arg(long, default_value = layout::STORE)]
        store: Utf8PathBuf,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Sync {
    /// registry.yaml, whose `store` and `peers` say what is taken over and how; the other options take their place
    #[arg(long)]
    config: Option<Utf8PathBuf>,
    /// The store's directory; made when it is missing
    #[arg(long, required_unless_present = "config")]
    store: Option<Utf8PathBuf>,
    /// The registry, https://HOST:PORT; `peers.follow` of the configuration when it is not given
    #[arg(long, required_unless_present = "config", value_name = "URL")]
    from: Option<String>,
    /// CA of its certificate, PEM
    #[arg(long)]
    ca: Option<Utf8PathBuf>,
    /// Certificate of this node, PEM
    #[arg(long, requires = "key")]
    cert: Option<Utf8PathBuf>,
    /// Its private key, PEM
    #[arg(long, requires = "cert")]
    key: Option<Utf8PathBuf>,
    /// Remove tags, manifests and records of bundles that the other one does not have
    #[arg(long)]
    prune: bool,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
    /// Progress: text for people, or JSON lines on stderr
    #[arg(long, value_enum, default_value = "text")]
    progress: ProgressFormat,
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// registry.yaml; the other options are for a server without such a file
    #[arg(long, conflicts_with_all = ["store", "listen", "tls_cert", "tls_key", "client_ca", "htpasswd", "policy", "tokens", "anonymous_pull", "plain_http"])]
    config: Option<Utf8PathBuf>,
    /// The store's directory; made when it is missing
    #[arg(long, required_unless_present = "config")]
    store: Option<Utf8PathBuf>,
    /// IP:PORT, can be given several times
    #[arg(long, required_unless_present = "config")]
    listen: Vec<SocketAddr>,
    /// Certificate and chain, PEM
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<Utf8PathBuf>,
    /// Private key, PEM
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<Utf8PathBuf>,
    /// CA of client certificates, PEM
    #[arg(long, requires = "tls_cert")]
    client_ca: Option<Utf8PathBuf>,
    /// Users who may push, NAME:HASH a line, bcrypt or argon2id
    #[arg(long)]
    htpasswd: Option<Utf8PathBuf>,
    /// Who may do what in which repository (docs/registry.md)
    #[arg(long)]
    policy: Option<Utf8PathBuf>,
    /// Give bearer tokens at /token
    #[arg(long)]
    tokens: bool,
    /// Everybody may pull
    #[arg(long)]
    anonymous_pull: bool,
    /// Without TLS; only on a loopback address
    #[arg(long)]
    plain_http: bool,
}

impl Registry {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Serve(serve) => serve.run(),
            Self::Sync(sync) => sync.run(),
            Self::Fsck { store, repair_from, trust, json } => fsck(&store, &repair_from, &trust, json),
            Self::Gc { store, dry_run, keep_bundles, json } => {
                let keep_bundles = keep_bundles.map(|number| number as usize);
                let options = GcOptions { dry_run, keep_bundles, ..GcOptions::default() };
                let report = existing(&store)?.gc(&options).map_err(|error| failure(&error))?;
                if json {
                    return print_json(&report);
                }
                print(&gc_table(&report))
            }
            Self::Activate { bundle, store } => existing(&store)?.activate(&bundle).map_err(|error| failure(&error)),
            Self::Ls { store, json } => {
                let list = existing(&store)?.list().map_err(|error| failure(&error))?;
                if json {
                    return print_json(&list);
                }
                print(&ls_table(&list))
            }
        }
    }
}

fn fsck(store: &Utf8Path, repair_from: &[Utf8PathBuf], trust: &[Utf8PathBuf], json: bool) -> Outcome {
    let opened = existing(store)?;
    let mut report = opened.fsck().map_err(|error| failure(&error))?;
    let mut repair = None;
    if !report.is_clean() && !repair_from.is_empty() {
        let trust = if trust.is_empty() { site_keys()? } else { trust.to_vec() };
        let sources = repair_from.iter().map(|bundle| {
            let trust = TrustedKeys::load(&trust).map_err(|error| Failure::new(code::CONFIG, error, None))?;
            Ok(RepairSource { bundle: bundle.clone(), trust })
        });
        let sources = sources.collect::<Result<Vec<_>, Failure>>()?;
        for digest in report.corrupt_blobs() {
            opened.quarantine(&digest).map_err(|error| failure(&error))?;
        }
        repair = Some(opened.repair(&report.damaged_blobs(), &sources).map_err(|error| failure(&error))?);
        report = opened.fsck().map_err(|error| failure(&error))?;
    }
    if json {
        let mut value = json!(report);
        value["repair"] = json!(repair);
        print_json(&value)?;
    } else {
        print(&fsck_table(&report, repair.as_ref()))?;
    }
    if report.is_clean() {
        return Ok(());
    }
    let what = format!("the store {store} has {} problems", report.problems.len());
    let hint = "load the bundle again, or name one with --repair-from, to restore what is damaged";
    Err(Failure::new(code::UNEXPECTED, what, Some(hint.to_owned())))
}

/// The keys that were pinned when the site was installed.
fn site_keys() -> Result<Vec<Utf8PathBuf>, Failure> {
    let hint = || Some("name the public key with --trust".to_owned());
    let entries = Utf8Path::new(layout::TRUST)
        .read_dir_utf8()
        .map_err(|error| Failure::new(code::CONFIG, format!("cannot read {}: {error}", layout::TRUST), hint()))?;
    let keys = entries.filter_map(Result::ok).map(camino::Utf8DirEntry::into_path);
    Ok(keys.filter(|path| path.extension() == Some("pub")).collect())
}

fn fsck_table(report: &FsckReport, repair: Option<&RepairReport>) -> String {
    let mut rows: Vec<[String; 3]> = report
        .problems
        .iter()
        .map(|problem| [problem.kind.to_string(), problem.subject.clone(), problem.message.clone()])
        .collect();
    if !rows.is_empty() {
        rows.insert(0, ["PROBLEM", "WHERE", "WHAT"].map(str::to_owned));
    }
    let mut text = table(&rows);
    if let Some(repair) = repair {
        let (repaired, lost) = (repair.repaired.len(), repair.lost.len());
        text.push_str(&format!("{repaired} blobs put back, {lost} not found, {} links made again\n", repair.relinked));
    }
    let FsckReport { blobs, bytes, repositories, manifests, tags, bundles, unfinished, .. } = report;
    text.push_str(&format!(
        "{blobs} blobs, {} read; {repositories} repositories, {manifests} manifests, {tags} tags; {bundles} bundles; \
         {unfinished} unfinished\n",
        megabytes(*bytes)
    ));
    text
}

fn gc_table(report: &GcReport) -> String {
    let mut rows = vec![["WHAT", "NAME"].map(str::to_owned)];
    rows.extend(report.dropped_bundles.iter().map(|name| ["bundle".to_owned(), name.clone()]));
    rows.extend(report.removed_blobs.iter().map(|digest| ["blob".to_owned(), digest.to_string()]));
    let mut text = if rows.len() > 1 { table(&rows) } else { String::new() };
    let verb = if report.dry_run { "would be removed" } else { "removed" };
    let GcReport { removed_blobs, removed_links, removed_unfinished, kept_blobs, freed_bytes, .. } = report;
    text.push_str(&format!(
        "{} blobs, {removed_links} links and {removed_unfinished} unfinished uploads {verb}, {}; {kept_blobs} blobs kept\n",
        removed_blobs.len(),
        megabytes(*freed_bytes)
    ));
    text
}

fn ls_table(list: &[ListedRepository]) -> String {
    let mut rows = vec![["REPOSITORY", "TAG", "DIGEST", "SIZE"].map(str::to_owned)];
    for repository in list {
        let name = repository.name.to_string();
        for tag in &repository.tags {
            rows.push([name.clone(), tag.tag.to_string(), tag.digest.to_string(), megabytes(tag.size)]);
        }
        for digest in &repository.untagged {
            rows.push([name.clone(), "-".to_owned(), digest.to_string(), "-".to_owned()]);
        }
    }
    table(&rows)
}

/// Rows in columns that are as wide as they must be.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

impl Sync {
    fn run(self) -> Outcome {
        let config = self.config.as_deref().map(Config::read).transpose().map_err(|error| failure(&error))?;
        let mut peers = config.as_ref().and_then(|config| config.peers.clone()).unwrap_or_default();
        peers.ca = self.ca.or(peers.ca);
        peers.certificate = self.cert.or(peers.certificate);
        peers.key = self.key.or(peers.key);
        let missing = |what: &str, hint: &str| Failure::new(code::CONFIG, what, Some(hint.to_owned()));
        let leader = self.from.or_else(|| peers.follow.clone()).ok_or_else(|| {
            missing("the configuration names no registry to follow", "name it with --from https://HOST:PORT")
        })?;
        let store = self.store.or_else(|| config.as_ref().map(|config| config.store.clone()));
        let store = store.ok_or_else(|| missing("no store was named", "name its directory with --store"))?;
        let limits = config.map(|config| config.limits).unwrap_or_default();
        let options = SyncOptions { store, leader, peers, limits, prune: self.prune };
        let meter = Mutex::new(Meter::new(self.progress));
        let report = airgap_registry::sync(&options, &|progress| {
            let SyncProgress { bytes_done, bytes_total, blob, blobs_done, blobs_total } = progress;
            let mut meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
            meter.show(&LoadProgress { bytes_done, bytes_total, blob: &blob, blobs_done, blobs_total });
        });
        let report = report.map_err(|error| failure(&error))?;
        if self.json {
            return print_json(&report);
        }
        print(&sync_line(&report))
    }
}

fn sync_line(report: &SyncReport) -> String {
    let SyncReport { blobs, bytes, manifests, tags, bundles, removed, beyond, .. } = report;
    let mut line = match blobs + manifests + tags + bundles {
        0 => "nothing was missing".to_owned(),
        _ => format!(
            "taken over: {blobs} blobs ({}), {manifests} manifests, {tags} tags, {bundles} bundles",
            megabytes(*bytes)
        ),
    };
    if *removed > 0 {
        line.push_str(&format!("; {removed} removed that the other one does not have"));
    }
    if *beyond > 0 {
        line.push_str(&format!("; {beyond} left that the other one does not have (--prune removes them)"));
    }
    line.push('\n');
    line
}

impl Serve {
    fn run(self) -> Outcome {
        let config = match (self.config, self.store) {
            (Some(file), _) => Config::read(&file).map_err(|error| failure(&error))?,
            (None, Some(store)) => Config {
                tls: self.tls_cert.zip(self.tls_key).map(|(certificate, key)| TlsConfig {
                    certificate,
                    key,
                    client_ca: self.client_ca,
                }),
                htpasswd: self.htpasswd,
                policy: self.policy,
                tokens: self.tokens.then(TokensConfig::default),
                anonymous_pull: self.anonymous_pull,
                plain_http: self.plain_http,
                ..Config::new(store, self.listen)
            },
            (None, None) => return Err(Failure::new(code::CONFIG, "neither --config nor --store was given", None)),
        };
        config.validate().map_err(|error| failure(&error))?;
        // The journal keeps what stderr gets; one JSON object a line.
        tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
        airgap_registry::run(config).map_err(|error| failure(&error))
    }
}

/// Opens a store, makes it when it is missing.
pub(super) fn open_store(path: &Utf8Path) -> Result<Store, Failure> {
    Store::create(path).map_err(|error| failure(&error))
}

pub(super) fn existing(path: &Utf8Path) -> Result<Store, Failure> {
    Store::open(path).map_err(|error| failure(&error))
}

pub(super) fn failure(error: &Error) -> Failure {
    Failure::new(code::UNEXPECTED, error, error.hint())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [["A", "LONG"], ["longer", "x"], ["ä", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "A       LONG\nlonger  x\nä\n");
        let report = GcReport { dry_run: true, removed_links: 2, kept_blobs: 7, ..GcReport::default() };
        let text = gc_table(&report);
        assert!(text.starts_with("0 blobs, 2 links and 0 unfinished uploads would be removed"), "{text}");
        assert_eq!(sync_line(&SyncReport::default()), "nothing was missing\n");
        let report = SyncReport { blobs: 2, bytes: 3_000_000, tags: 1, beyond: 4, ..SyncReport::default() };
        let text = sync_line(&report);
        assert!(text.starts_with("taken over: 2 blobs (3.0 MB), 0 manifests, 1 tags, 0 bundles; 4 left"), "{text}");
    }
}
