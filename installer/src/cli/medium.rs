//! `cofferdam medium seek`: what the live system's units call before an installation begins.

use clap::Subcommand;

use super::{Failure, Outcome, code, print};
use crate::host::real::RealHost;
use crate::live::{LiveError, answers, medium};

#[derive(Debug, Subcommand)]
pub(super) enum Medium {
    /// Mount and verify the medium that this system was booted from, and look for answers
    Seek,
}

impl Medium {
    pub(super) fn run(self) -> Outcome {
        let Self::Seek = self;
        let host = RealHost;
        let told = |text: &str| {
            let _ = print(&format!("{text}\n"));
        };
        medium::mount(&host, &mut { told }).map_err(|error| failure(&error))?;
        let system = medium::verified(&host, &mut { told }).map_err(|error| failure(&error))?;
        told(&format!("medium: system {}, signature and root hash hold", system.version));
        match answers::seek(&host).map_err(|error| failure(&error))? {
            Some(found) => print(&format!("answers: {} (sha256 {})\n", found.place, found.digest)),
            None => print("answers: none found; the installer asks for them\n"),
        }
    }
}

pub(super) fn failure(error: &LiveError) -> Failure {
    let exit = if matches!(error, LiveError::Medium { .. }) { crate::prepare::code::BUNDLE } else { code::CONFIG };
    Failure::new(exit, error, Some(error.hint().to_owned()))
}
