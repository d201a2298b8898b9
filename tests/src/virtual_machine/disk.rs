//! Disks of machines, and what lies on them in the raw: the test's magnifying glass for "nothing readable is on this disk".

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

/// The longest serial number that virtio-blk shows to a guest.
const LONGEST_SERIAL: usize = 20;

/// Where a LUKS2 header ends at the latest: `cryptsetup luksFormat` puts the data at 16 MiB.
const LUKS2_HEADER_BYTES: u64 = 16 << 20;

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// In the guest `vda`, `vdb` … and `/dev/disk/by-id/virtio-SERIAL`.
    Virtio,
    /// In the guest `nvme0n1`, `nvme1n1` …
    Nvme,
}

impl Bus {
    pub(super) fn device(self) -> &'static str {
        match self {
            Self::Virtio => "virtio-blk-pci",
            Self::Nvme => "nvme",
        }
    }
}

/// A disk with a serial number.
#[derive(Debug, Clone)]
pub struct DataDisk {
    path: Utf8PathBuf,
    serial: String,
    bus: Bus,
}

impl DataDisk {
    /// An empty disk in a sparse file of `bytes`. Whatever was at `path` is gone.
    pub fn create(path: impl Into<Utf8PathBuf>, serial: &str, bytes: u64) -> Result<Self> {
        let disk = Self::existing(path, serial)?;
        let file = File::create(&disk.path).with_context(|| format!("cannot create {}", disk.path))?;
        file.set_len(bytes).with_context(|| format!("cannot give {bytes} bytes to {}", disk.path))?;
        Ok(disk)
    }

    /// A disk that is there already, a raw image.
    pub fn existing(path: impl Into<Utf8PathBuf>, serial: &str) -> Result<Self> {
        if serial.is_empty()
            || serial.len() > LONGEST_SERIAL
            || !serial.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            bail!("{serial:?} is no serial number: 1 to {LONGEST_SERIAL} letters and digits");
        }
        Ok(Self { path: path.into(), serial: serial.to_owned(), bus: Bus::Virtio })
    }

    /// The same disk, attached in another way; [`Bus::Virtio`] unless it is said.
    #[must_use]
    pub fn on(self, bus: Bus) -> Self {
        Self { bus, ..self }
    }

    /// How it is attached.
    pub fn bus(&self) -> Bus {
        self.bus
    }

    /// The raw image.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// As the guest sees it.
    pub fn serial(&self) -> &str {
        &self.serial
    }
}

/// A qcow2 file that keeps what differs from `base`, a raw image.
pub(super) fn create_overlay(base: &Utf8Path, path: &Utf8Path) -> Result<()> {
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", base.as_str(), path.as_str()]).map(drop)
}

fn qemu_img(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("qemu-img")
        .args(arguments)
        .output()
        .context("cannot start qemu-img\nhint: apt-get install --no-install-recommends qemu-utils")?;
    if !output.status.success() {
        bail!("qemu-img {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// How often each marker was found, and how much was read to say so.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MarkerHits {
    /// Marker to number of places; each marker that was asked for is in it.
    pub hits: BTreeMap<String, u64>,
    /// Bytes that are allocated and were read. A disk that no one wrote to proves nothing.
    pub scanned_bytes: u64,
}

/// Looks for texts in all bytes of an image (raw or qcow2) that were ever written; holes are left out.
pub fn plaintext_search(image: &Utf8Path, markers: &[&str]) -> Result<MarkerHits> {
    let map: Value = serde_json::from_slice(&qemu_img(&["map", "--output=json", image.as_str()])?)
        .context("qemu-img map gave no JSON")?;
    let mut file = File::open(image).with_context(|| format!("cannot open {image}"))?;
    let overlap = markers.iter().map(|marker| marker.len()).max().unwrap_or(1).saturating_sub(1);
    let mut result =
        MarkerHits { hits: markers.iter().map(|marker| ((*marker).to_owned(), 0)).collect(), scanned_bytes: 0 };
    let mut window: Vec<u8> = Vec::new();
    let mut expected = 0;
    for extent in map.as_array().context("qemu-img map gave no list")? {
        let field = |name: &str| extent.get(name).and_then(Value::as_u64);
        let (Some(start), Some(length), Some(offset)) = (field("start"), field("length"), field("offset")) else {
            continue;
        };
        // Depth 0 is the file itself, not what lies under it.
        if field("depth") != Some(0) || extent.get("data").and_then(Value::as_bool) != Some(true) {
            continue;
        }
        if start != expected {
            window.clear();
        }
        expected = start + length;
        file.seek(SeekFrom::Start(offset)).with_context(|| format!("cannot seek in {image}"))?;
        let mut rest = length;
        while rest > 0 {
            let step = rest.min(4 << 20);
            let kept = window.len().min(overlap);
            window.drain(..window.len() - kept);
            let read = (&file).take(step).read_to_end(&mut window).with_context(|| format!("cannot read {image}"))?;
            if read == 0 {
                break;
            }
            for marker in markers {
                // A hit that lies whole in what was kept was counted before.
                let from = kept.saturating_sub(marker.len().saturating_sub(1));
                let count = count(window.get(from..).unwrap_or_default(), marker.as_bytes());
                *result.hits.entry((*marker).to_owned()).or_default() += count;
            }
            result.scanned_bytes += read as u64;
            rest -= step;
        }
    }
    Ok(result)
}

fn count(haystack: &[u8], needle: &[u8]) -> u64 {
    let Some((first, _)) = needle.split_first() else { return 0 };
    let mut hits = 0;
    let mut rest = haystack;
    // The search for one byte is fast even in a build that is not optimised, because it runs in the standard library.
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        hits += u64::from(rest.starts_with(needle));
        rest = rest.get(1..).unwrap_or_default();
    }
    hits
}

/// The head of a disk with LUKS2 on it, in a file of its own: cryptsetup reads it without device-mapper.
#[derive(Debug)]
pub struct LuksHeader {
    file: tempfile::NamedTempFile,
}

impl LuksHeader {
    /// Copies the header that starts at byte `offset` of a raw image.
    pub fn read(image: &Utf8Path, offset: u64) -> Result<Self> {
        let mut disk = File::open(image).with_context(|| format!("cannot open {image}"))?;
        disk.seek(SeekFrom::Start(offset)).with_context(|| format!("cannot seek in {image}"))?;
        let mut file = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
        std::io::copy(&mut disk.take(LUKS2_HEADER_BYTES), &mut file).with_context(|| format!("cannot read {image}"))?;
        // The metadata names a segment behind the header; cryptsetup wants the device to reach that far.
        file.as_file().set_len(LUKS2_HEADER_BYTES + (1 << 20)).context("cannot stretch a temporary file")?;
        Ok(Self { file })
    }

    fn cryptsetup(&self, arguments: &[&str], input: &[u8]) -> Result<std::process::Output> {
        let mut child = Command::new("cryptsetup")
            .args(arguments)
            .arg(self.file.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start cryptsetup\nhint: apt-get install --no-install-recommends cryptsetup-bin")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input).context("cannot hand a key to cryptsetup")?;
        }
        child.wait_with_output().context("cannot wait for cryptsetup")
    }

    /// `cryptsetup luksDump`, for people.
    pub fn dump(&self) -> Result<String> {
        let output = self.cryptsetup(&["luksDump"], b"")?;
        if !output.status.success() {
            bail!("no LUKS header: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The metadata: `keyslots`, `tokens`, `segments` … as the LUKS2 on-disk format has them.
    pub fn metadata(&self) -> Result<Value> {
        let output = self.cryptsetup(&["luksDump", "--dump-json-metadata"], b"")?;
        if !output.status.success() {
            bail!("no LUKS2 header: {}", String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).context("the LUKS2 metadata is no JSON")
    }

    /// Whether this key opens any key slot. Other failures than a wrong key are errors.
    pub fn opens_with(&self, key: &[u8]) -> Result<bool> {
        let output = self.cryptsetup(&["open", "--test-passphrase", "--key-file", "-"], key)?;
        match output.status.code() {
            Some(0) => Ok(true),
            // cryptsetup(8), RETURN CODES: no permission (bad passphrase).
            Some(2) => Ok(false),
            _ => bail!("cannot try a key: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn directory() -> (tempfile::TempDir, Utf8PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        (directory, path)
    }

    #[test]
    fn the_search_finds_markers_across_reads_and_leaves_holes_out() {
        let (_keep, directory) = directory();
        let disk = DataDisk::create(directory.join("disk"), "A1", 1 << 30).unwrap();
        let mut file = File::options().write(true).open(disk.path()).unwrap();
        for at in [0, (4 << 20) - 3, 900 << 20] {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(b"marker").unwrap();
        }
        // The first 8 MiB are written through, so that the second marker lies across two reads.
        file.seek(SeekFrom::Start(6)).unwrap();
        file.write_all(&vec![7; (4 << 20) - 9]).unwrap();
        file.seek(SeekFrom::Start((4 << 20) + 3)).unwrap();
        file.write_all(&vec![7; 4 << 20]).unwrap();
        let found = plaintext_search(disk.path(), &["marker", "absent"]).unwrap();
        assert_eq!(found.hits.get("marker"), Some(&3));
        assert_eq!(found.hits.get("absent"), Some(&0));
        assert!(found.scanned_bytes < 16 << 20, "holes were read: {}", found.scanned_bytes);
    }

    #[test]
    fn a_serial_number_that_qemu_would_cut_is_refused() {
        for bad in ["", "123456789012345678901", "a,b"] {
            assert!(DataDisk::existing("x", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_header_is_read_without_device_mapper() {
        let (_keep, directory) = directory();
        let disk = DataDisk::create(directory.join("disk"), "A1", 64 << 20).unwrap();
        let header = |offset| LuksHeader::read(disk.path(), offset).unwrap();
        assert!(header(0).dump().is_err());
        let mut format = Command::new("cryptsetup")
            .args(
                "luksFormat -q --type luks2 --pbkdf argon2id --pbkdf-memory 32 --pbkdf-force-iterations 4 --key-file -"
                    .split(' '),
            )
            .arg(disk.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        format.stdin.take().unwrap().write_all(b"right").unwrap();
        assert!(format.wait().unwrap().success());
        assert!(header(0).opens_with(b"right").unwrap());
        assert!(!header(0).opens_with(b"wrong").unwrap());
        assert!(header(0).dump().unwrap().contains("argon2id"));
        assert_eq!(header(0).metadata().unwrap()["keyslots"].as_object().unwrap().len(), 1);
    }
}
