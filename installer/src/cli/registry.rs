//! `cofferdam registry …`.

use std::net::SocketAddr;

use airgap_registry::{Config, Error, Store, TlsConfig};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};

use super::{Failure, Outcome, code, print, print_json};
use crate::headless::megabytes;

#[derive(Debug, Subcommand)]
pub(super) enum Registry {
    /// Serve the store
    #[command(after_help = "Example: cofferdam registry serve --config /etc/cofferdam/registry.yaml")]
    Serve(Box<Serve>),
    /// Check every blob and every link
    Fsck {
        #[arg(long)]
        store: Utf8PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Remove what nothing refers to
    Gc {
        #[arg(long)]
        store: Utf8PathBuf,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
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
    /// List repositories and tags
    Ls {
        #[arg(long)]
        store: Utf8PathBuf,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// registry.yaml; the other options are for a server without such a file
    #[arg(long, conflicts_with_all = ["store", "listen", "tls_cert", "tls_key", "client_ca", "htpasswd", "anonymous_pull", "plain_http"])]
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
    /// Users who may push, NAME:BCRYPT a line
    #[arg(long)]
    htpasswd: Option<Utf8PathBuf>,
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
            Self::Fsck { store, json } => {
                let report = existing(&store)?.fsck().map_err(|error| failure(&error))?;
                if json {
                    print_json(&report)?;
                } else {
                    let problems = report.problems.iter().fold(String::new(), |text, problem| {
                        format!("{text}{}: {}\n", problem.subject, problem.message)
                    });
                    print(&format!("{problems}{} blobs, {} read\n", report.blobs, megabytes(report.bytes)))?;
                }
                if report.is_clean() {
                    return Ok(());
                }
                let what = format!("the store {store} has {} problems", report.problems.len());
                Err(Failure::new(
                    code::UNEXPECTED,
                    what,
                    Some("load the bundle again to restore what is damaged".to_owned()),
                ))
            }
            Self::Gc { store, dry_run, json } => {
                let report = existing(&store)?.gc(dry_run).map_err(|error| failure(&error))?;
                if json {
                    return print_json(&report);
                }
                let verb = if dry_run { "would be removed" } else { "removed" };
                print(&format!("{} blobs {verb}, {}\n", report.removed_blobs.len(), megabytes(report.freed_bytes)))
            }
            Self::Activate { bundle, store } => existing(&store)?.activate(&bundle).map_err(|error| failure(&error)),
            Self::Ls { store, json } => {
                let list = existing(&store)?.list().map_err(|error| failure(&error))?;
                if json {
                    return print_json(&list);
                }
                let mut text = String::new();
                for repository in &list {
                    for tag in &repository.tags {
                        let size = megabytes(tag.size);
                        text.push_str(&format!("{}:{}  {}  {size}\n", repository.name, tag.tag, tag.digest));
                    }
                }
                print(&text)
            }
        }
    }
}

impl Serve {
    fn run(self) -> Outcome {
        let config = match (self.config, self.store) {
            (Some(file), _) => Config::read(&file).map_err(|error| failure(&error))?,
            (None, Some(store)) => Config {
                store,
                listen: self.listen,
                tls: self.tls_cert.zip(self.tls_key).map(|(certificate, key)| TlsConfig {
                    certificate,
                    key,
                    client_ca: self.client_ca,
                }),
                htpasswd: self.htpasswd,
                anonymous_pull: self.anonymous_pull,
                plain_http: self.plain_http,
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
