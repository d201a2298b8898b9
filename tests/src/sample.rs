//! The sample bundle: a real Kubernetes and a real workload from the Debian archive, signed with keys made for this run.
//! Made by the product's own `bundle keygen` and `bundle create`. Called by the whole-product tests and the demo.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

const NAME: &str = "sample";

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
    run(Command::new(cofferdam()?).args(["bundle", "keygen"]).arg(folder.join("keys")))?;
    let sample = made_in(folder);
    std::fs::copy(folder.join("keys/signing.pub"), &sample.trust).context("the public key")?;
    release(folder, NAME, &Release::default(), None)?;
    Ok(sample)
}

/// The sample that [`make`] has made in a folder.
#[must_use]
pub fn made_in(folder: &Path) -> Sample {
    let (bundle, trust) = (folder.join(NAME).with_extension("tar.zst"), folder.join("trust.pub"));
    Sample { bundle, trust, folder: folder.to_owned() }
}

/// Which versions a release of the sample has.
#[derive(Debug, Clone, Copy)]
pub struct Release {
    /// Of Kubernetes: the stamp of the same sources.
    pub kubernetes: &'static str,
    /// Of the bundle.
    pub bundle: &'static str,
    /// Of the workload's pack; see `kubernetes/bundle.sh` for what each one is.
    pub hello: &'static str,
}

impl Default for Release {
    fn default() -> Self {
        Self { kubernetes: "v1.20.2", bundle: "1.0.0", hello: "1.0.0" }
    }
}

/// Makes `NAME.tar.zst` of a release with the keys that lie in the folder; on a base it is a delta.
pub fn release(folder: &Path, name: &str, release: &Release, base: Option<&Path>) -> Result<PathBuf> {
    let definition = define(folder, name, release)?;
    create(folder, name, &definition, base)
}

/// Writes the definition of a release; gives the path of its `bundle.yaml`.
pub fn define(folder: &Path, name: &str, release: &Release) -> Result<PathBuf> {
    let source = folder.join(format!("source-{name}"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/bundle.sh");
    run(Command::new(script).arg(&source).args([release.kubernetes, release.bundle, release.hello]))?;
    Ok(source.join("bundle.yaml"))
}

/// Makes `NAME.tar.zst` of a definition with the keys that lie in the folder; on a base it is a delta.
pub fn create(folder: &Path, name: &str, definition: &Path, base: Option<&Path>) -> Result<PathBuf> {
    let bundle = folder.join(format!("{name}.tar.zst"));
    let mut create = Command::new(cofferdam()?);
    create.args(["bundle", "create", "-f"]).arg(definition).arg("-o").arg(&bundle);
    create.arg("--sign-key").arg(folder.join("keys/signing.key"));
    if let Some(base) = base {
        create.arg("--base").arg(base);
    }
    run(&mut create)?;
    Ok(bundle)
}

fn run(command: &mut Command) -> Result<()> {
    // What it says on stderr is for the person who waits.
    let status = command.stdout(Stdio::null()).status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
