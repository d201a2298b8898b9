//! `cofferdam iso build | inspect`: the medium that carries a bundle.

use camino::Utf8PathBuf;
use clap::Subcommand;
use iso::{MediumOptions, VolumeLabel};

use super::{Failure, Outcome, print, print_json};
use crate::headless::megabytes;

#[derive(Debug, Subcommand)]
pub(super) enum Iso {
    /// Write a data medium: bundle, trusted key, answers
    #[command(after_help = "Example: cofferdam iso build --bundle b.tar.zst --trust signing.pub -o medium.iso")]
    Build {
        /// The bundle, or its parts in order
        #[arg(long, required = true)]
        bundle: Vec<Utf8PathBuf>,
        /// The public key that it is signed with
        #[arg(long)]
        trust: Utf8PathBuf,
        /// Answers for an unattended installation
        #[arg(long)]
        config: Option<Utf8PathBuf>,
        /// The image to write
        #[arg(short, long)]
        output: Utf8PathBuf,
    },
    /// Show what an image carries and whether its digests hold
    Inspect {
        /// The image
        image: Utf8PathBuf,
        #[arg(long)]
        json: bool,
    },
}

impl Iso {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Build { bundle, trust, config, output } => {
                let options = MediumOptions {
                    bundle,
                    trust_key: trust,
                    config,
                    label: VolumeLabel::default(),
                    output: output.clone(),
                };
                let report = iso::build(&options, &mut |_| {}).map_err(|error| failure(&error))?;
                print(&format!("{output}: {}\n", megabytes(report.size)))
            }
            Self::Inspect { image, json } => {
                let report = iso::inspect(&image).map_err(|error| failure(&error))?;
                if json {
                    return print_json(&report);
                }
                let files = report.manifest.files.iter().fold(String::new(), |text, (name, file)| {
                    format!("{text}  {} {}, {}\n", name, megabytes(file.size), file.digest)
                });
                print(&format!("{}: volume {}, all digests hold\n{files}", image, report.label))
            }
        }
    }
}

fn failure(error: &iso::Error) -> Failure {
    Failure::new(error.exit_code(), error, error.hint().map(str::to_owned))
}
