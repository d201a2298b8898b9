//! The sample bundle: a real Kubernetes and a real workload from the Debian archive, signed with keys made for this run.
//! Made by the product's own `bundle keygen` and `bundle create`. Called by the whole-product tests and the demo.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Where the sample lies.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The bundle.
    pub bundle: PathBuf,
    /// The public key that is trusted.
    pub trust: PathBuf,
    /// The folder that holds both.
    pub folder: PathBuf,
}

/// The `cofferdam` binary of this build: beside this test binary, or in `COFFERDAM_BINARY`.
pub fn cofferdam() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("COFFERDAM_BINARY") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("cofferdam")).find(|path| path.is_file());
    found.context("there is no cofferdam binary beside this test; build it first: cargo build --workspace --bins")
}

/// Makes the sample in a folder. The Kubernetes in it is built first if this machine has none yet.
pub fn make(folder: &Path) -> Result<Sample> {
    let cofferdam = cofferdam()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/bundle.sh");
    run(Command::new(script).arg(folder.join("source")))?;
    run(Command::new(&cofferdam).args(["bundle", "keygen"]).arg(folder.join("keys")))?;
    let bundle = folder.join("sample.tar.zst");
    run(Command::new(&cofferdam)
        .args(["bundle", "create", "-f"])
        .arg(folder.join("source/bundle.yaml"))
        .arg("-o")
        .arg(&bundle)
        .arg("--sign-key")
        .arg(folder.join("keys/signing.key")))?;
    let trust = folder.join("trust.pub");
    std::fs::copy(folder.join("keys/signing.pub"), &trust).context("the public key")?;
    Ok(Sample { bundle, trust, folder: folder.to_owned() })
}

fn run(command: &mut Command) -> Result<()> {
    // What it says on stderr is for the person who waits.
    let status = command.stdout(Stdio::null()).status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
