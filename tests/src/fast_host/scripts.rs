//! Where the scripts of the bed and its folders lie, and how stale folders go. Called by `lan` and `host` only.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{FlockOperation, flock};

/// `tests/hosts/NAME`.
pub(super) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hosts").join(name)
}

/// The read-only root tree that all hosts share; built at the first call on a machine (about a minute), told on stderr.
pub(super) fn tree() -> Result<PathBuf> {
    static TREE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    TREE.get_or_init(|| build_tree().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))
}

fn build_tree() -> Result<PathBuf> {
    let output =
        Command::new(script("tree.sh")).stderr(Stdio::inherit()).output().context("cannot run tests/hosts/tree.sh")?;
    if !output.status.success() {
        bail!("tests/hosts/tree.sh ended with {}; its reason stands above", output.status);
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim_end()))
}

/// The folder that holds a folder for each LAN: on a real filesystem, since containerd refuses others.
pub(super) fn runs() -> Result<PathBuf> {
    crate::cache::folder("fast-host")
}

/// Opens and locks `FOLDER/lock`, which marks the folder as in use for as long as the file is open.
pub(super) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    flock(&file, FlockOperation::NonBlockingLockShared).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Removes what test processes left behind that had no time to clean up.
pub(super) fn sweep(runs: &Path) -> Result<()> {
    for entry in fs::read_dir(runs)? {
        let folder = entry?.path();
        // A folder without a lock was created a moment ago by a process that runs beside us.
        let Ok(lock) = File::open(folder.join("lock")) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        for host in fs::read_dir(&folder)?.flatten() {
            for group in fs::read_to_string(host.path().join("cgroups")).unwrap_or_default().lines() {
                remove_cgroup(Path::new(group));
            }
        }
        // Another process may sweep the same folder at the same time: gone is what both want.
        let _ = fs::remove_dir_all(&folder);
    }
    Ok(())
}

fn remove_cgroup(group: &Path) {
    for child in fs::read_dir(group).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&child.path());
        }
    }
    let _ = fs::remove_dir(group);
}

/// Asks `done` every 10 ms until it says yes; the error says `what` did not come within `limit`.
pub(super) fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !done()? {
        if began.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}
