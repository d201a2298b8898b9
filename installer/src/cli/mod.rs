//! The command line. Each command's file reads its arguments, calls the crate that owns the work, and prints.
//!
//! Data goes to stdout (JSON with `--json`), progress and errors to stderr. Exit codes: 0 ok, 1 unexpected, 2 config,
//! 3 preflight, 4 bundle not trusted, 5 step failed and can be resumed, 6 cancelled, 7 upgrade failed and was undone.

mod bundle;
mod certs;
mod config;
mod console;
mod disk;
mod install;
mod interactive;
mod iso;
mod medium;
mod meter;
mod registry;
mod resume;
mod status;
mod upgrade;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Installs an air-gapped, encrypted, verified Kubernetes management cluster.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version, max_term_width = 100, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install a site onto this host
    Install(install::Install),
    /// Check this host without changing it
    Check(install::Check),
    /// Go on with an interrupted installation
    Resume(resume::Resume),
    /// The running installation, read only, on a second console
    Monitor(console::Monitor),
    /// The installed site, kept on this console
    Dashboard(console::Dashboard),
    /// What support needs to know of this host, without secrets, in one file
    SupportBundle(console::SupportBundle),
    /// The answers file
    #[command(subcommand)]
    Config(config::Config),
    /// Bundles: create, inspect, verify, load
    #[command(subcommand)]
    Bundle(bundle::Bundle),
    /// The site's registry
    #[command(subcommand)]
    Registry(registry::Registry),
    /// Keys and certificates
    #[command(subcommand)]
    Certs(certs::Certs),
    /// The medium that a bare server boots, and the one that only carries a bundle
    #[command(subcommand)]
    Iso(iso::Iso),
    /// Offline upgrades of an installed site
    #[command(subcommand)]
    Upgrade(upgrade::Upgrade),
    /// The keys of the data volume
    #[command(subcommand)]
    Disk(disk::Disk),
    /// Who did what to this site
    #[command(subcommand)]
    Audit(upgrade::Audit),
    /// What the live system of a boot medium does before an installation
    #[command(subcommand, hide = true)]
    Medium(medium::Medium),
    /// The installed site at a glance
    Status(status::Status),
    /// Print the version
    Version,
    /// Print shell completions
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write man pages into a directory
    Man {
        /// The directory
        directory: std::path::PathBuf,
    },
}

/// Why a command ended without success.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

/// Exit codes of [`Failure`].
pub(crate) mod code {
    pub(crate) const UNEXPECTED: u8 = 1;
    pub(crate) const CONFIG: u8 = 2;
    pub(crate) const PREFLIGHT: u8 = 3;
    pub(crate) const BUNDLE: u8 = 4;
    pub(crate) const STEP: u8 = 5;
    /// An upgrade failed and was undone.
    pub(crate) const WENT_BACK: u8 = 7;
    pub(crate) const CANCELLED: u8 = 6;
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Display, hint: Option<String>) -> Self {
        Self { code, message: message.to_string(), hint }
    }

    pub(crate) fn unexpected(error: impl Display) -> Self {
        Self::new(code::UNEXPECTED, error, None)
    }
}

impl From<crate::prepare::Refusal> for Failure {
    fn from(refusal: crate::prepare::Refusal) -> Self {
        Self { code: refusal.code, message: refusal.message, hint: refusal.hint }
    }
}

type Outcome = Result<(), Failure>;

/// Runs the program.
pub fn main() -> ExitCode {
    // Every TLS user names its provider; this is for libraries that ask for the process's default.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let outcome = match Arguments::parse().command {
        Command::Install(arguments) => arguments.run(),
        Command::Check(arguments) => arguments.run(),
        Command::Resume(arguments) => arguments.run(),
        Command::Monitor(arguments) => arguments.run(),
        Command::Dashboard(arguments) => arguments.run(),
        Command::SupportBundle(arguments) => arguments.run(),
        Command::Config(command) => command.run(),
        Command::Bundle(command) => command.run(),
        Command::Registry(command) => command.run(),
        Command::Certs(command) => command.run(),
        Command::Iso(command) => command.run(),
        Command::Upgrade(command) => command.run(),
        Command::Disk(command) => command.run(),
        Command::Audit(command) => command.run(),
        Command::Medium(command) => command.run(),
        Command::Status(arguments) => arguments.run(),
        Command::Version => print(concat!("cofferdam ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "cofferdam", &mut std::io::stdout());
            Ok(())
        }
        Command::Man { directory } => {
            clap_mangen::generate_to(Arguments::command(), directory).map_err(Failure::unexpected)
        }
    };
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    // Who stopped a run, or had the machine restarted by its plan, sees no error.
    let word = if failure.code == code::CANCELLED { "" } else { "error: " };
    let mut text = format!("{word}{}\n", failure.message);
    if let Some(hint) = failure.hint {
        text.push_str("hint: ");
        text.push_str(&hint);
        text.push('\n');
    }
    // Nobody is left to hear that stderr is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(failure.code)
}

/// Writes to stdout. A reader that went away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Outcome {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::unexpected(error)),
        _ => Ok(()),
    }
}

/// Writes a value as JSON to stdout.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value).map_err(Failure::unexpected)?;
    print(&format!("{text}\n"))
}

/// A note for people on stderr.
pub(crate) fn say(text: &str) {
    // Progress that nobody reads is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::{Arguments, CommandFactory};

    /// What others parse: a change of a schema is seen in review, and its version is raised with it.
    #[test]
    fn schemas_are_as_recorded() {
        insta::assert_json_snapshot!("schema-config", crate::config::InstallConfig::json_schema());
        insta::assert_json_snapshot!("schema-plan", schemars::schema_for!(crate::plan::Plan));
        insta::assert_json_snapshot!("schema-event", schemars::schema_for!(crate::engine::event::Event));
        insta::assert_json_snapshot!("schema-facts", crate::facts::Facts::json_schema());
        insta::assert_json_snapshot!("schema-report", crate::check::Report::json_schema());
        insta::assert_json_snapshot!("schema-index", bundle::index::Index::json_schema());
        insta::assert_json_snapshot!("schema-upgrade", schemars::schema_for!(crate::upgrade::UpgradePlan));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
