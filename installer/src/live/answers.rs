//! Where the answers of an unattended installation come from. In this order: the kernel's command line
//! (`cofferdam.config=` a path or a URL, with `cofferdam.config.sha256=`), a volume labelled `COFFERDAM`, the boot medium.

use std::time::Duration;

use bundle::oci::Digest;
use camino::Utf8Path;
use iso::manifest::{CONFIG, FOLDER};

use super::{LiveError, argument, medium};
use crate::config;
use crate::host::{Command, Host, HostExt};

/// Where answers that were found are put: what the unattended installation reads.
pub const FOUND: &str = "/run/cofferdam/install.yaml";
/// The same for answers that want somebody at a console: the installer begins with them there.
pub const INTERACTIVE: &str = "/run/cofferdam/interactive.yaml";
/// Where a volume with the label `COFFERDAM` is mounted, read-only.
pub const VOLUME: &str = "/run/cofferdam/volume";
const LABEL: &str = "/dev/disk/by-label/COFFERDAM";
const FETCH_LIMIT: Duration = Duration::from_mins(3);

/// Answers that were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// Where, in words.
    pub place: String,
    /// SHA-256 of the file.
    pub digest: String,
}

/// Looks for answers and puts them to [`FOUND`]. The medium is mounted already.
pub fn seek(host: &dyn Host) -> Result<Option<Answers>, LiveError> {
    mount_volume(host)?;
    let Some((place, content)) = find(host)? else { return Ok(None) };
    let digest = Digest::sha256_of(&content).hex();
    // Answers that cannot be read are the installation's to refuse, with all that is wrong in them.
    let config = std::str::from_utf8(&content).ok().and_then(|text| config::parse(text).ok());
    if let Some(network) = config.as_ref().and_then(|config| config.network.as_ref()) {
        super::network::set_up(host, network)?;
    }
    let wants_a_person = config.is_some_and(|config| config.needs_a_person() || !config.interactive.is_empty());
    host.write(if wants_a_person { INTERACTIVE } else { FOUND }.into(), &content, 0o600)?;
    Ok(Some(Answers { place, digest }))
}

fn mount_volume(host: &dyn Host) -> Result<(), LiveError> {
    let is_mounted = Command::new("findmnt").args(["--noheadings", "--mountpoint", VOLUME]);
    if host.look(LABEL.into())?.is_none() || host.run(&is_mounted, &mut |_| {})?.success() {
        return Ok(());
    }
    host.make_directory(VOLUME.into(), 0o755)?;
    host.must(&Command::new("mount").args(["-o", "ro,nodev,nosuid,noexec", LABEL, VOLUME]).limit(FETCH_LIMIT))?;
    Ok(())
}

fn find(host: &dyn Host) -> Result<Option<(String, Vec<u8>)>, LiveError> {
    if let Some(place) = argument(host, "cofferdam.config")? {
        let wanted = argument(host, "cofferdam.config.sha256")?;
        let content = named(host, &place, wanted.is_some())?;
        let digest = Digest::sha256_of(&content).hex();
        if wanted.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&digest)) {
            return Err(LiveError::Answers { place, why: format!("their SHA-256 is {digest}") });
        }
        return Ok(Some((place, content)));
    }
    for path in [
        Utf8Path::new(VOLUME).join(CONFIG),
        Utf8Path::new(VOLUME).join(FOLDER).join(CONFIG),
        Utf8Path::new(medium::MOUNT).join(FOLDER).join(CONFIG),
    ] {
        if let Some(content) = host.read(&path)? {
            return Ok(Some((path.to_string(), content.to_vec())));
        }
    }
    Ok(None)
}

/// What the kernel's command line names: a URL, whose digest must be named too, or a path on a volume that is mounted.
fn named(host: &dyn Host, place: &str, has_digest: bool) -> Result<Vec<u8>, LiveError> {
    let bad = |why: &str| LiveError::Answers { place: place.to_owned(), why: why.to_owned() };
    if place.contains("://") {
        if !has_digest {
            return Err(bad("answers from the network need cofferdam.config.sha256="));
        }
        let command = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--location", "--max-filesize", "1048576", "--retry", "5"])
            .args(["--retry-all-errors", "--max-time", "60", place])
            .limit(FETCH_LIMIT);
        let output = host.run(&command, &mut |_| {})?;
        return if output.success() { Ok(output.stdout.to_vec()) } else { Err(bad(output.stderr.trim())) };
    }
    for base in [medium::MOUNT, VOLUME, "/"] {
        if let Some(content) = host.read(&Utf8Path::new(base).join(place.trim_start_matches('/')))? {
            return Ok(content.to_vec());
        }
    }
    Err(bad("there is no such file on the medium, on the volume COFFERDAM or in the live system"))
}
