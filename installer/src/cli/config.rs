//! `cofferdam config example | schema | validate`.

use camino::Utf8PathBuf;
use clap::Subcommand;

use super::{Failure, Outcome, code, print, print_json};
use crate::config::{self, InstallConfig, example::EXAMPLE};

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Print a complete, commented install.yaml
    Example,
    /// Print the JSON Schema of install.yaml
    Schema,
    /// Check an install.yaml; with --host also against this machine
    #[command(after_help = "Example: cofferdam config validate install.yaml")]
    Validate {
        /// The file
        file: Utf8PathBuf,
        /// Also run the host checks
        #[arg(long)]
        host: bool,
    },
}

impl Config {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Example => print(EXAMPLE),
            Self::Schema => print_json(&InstallConfig::json_schema()),
            Self::Validate { file, host } => {
                let config = read(&file)?;
                if host {
                    super::install::check(&config, false)?;
                }
                print(&format!("{file}: valid, site {} at {}\n", config.site.name, config.site.fqdn))
            }
        }
    }
}

/// Reads and checks a configuration file.
pub(super) fn read(file: &camino::Utf8Path) -> Result<InstallConfig, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(
            code::CONFIG,
            format!("cannot read {file}: {error}"),
            Some("`cofferdam config example > install.yaml` makes a file to begin with".to_owned()),
        )
    })?;
    config::parse(&text).map_err(|error| Failure::new(code::CONFIG, format!("{file}: {error}"), Some(error.hint())))
}
