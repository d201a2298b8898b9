//! Memory stays bounded whatever the bundle's size. Each measured run is a process of its own (this test program
//! again), whose peak is read from `VmHWM` in `/proc/self/status`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod bench;

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

use bench::{Bench, Layout};
use bundle::create::{BundleDefinition, CreateOptions, RegistryOptions, create};
use bundle::delta::Base;
use bundle::keys::{SigningKey, TrustedKeys};
use bundle::load::{BlobWriter, LoadOptions, Sink, SinkError, load};
use bundle::oci::Digest;
use camino::{Utf8Path, Utf8PathBuf};

const MIB: u64 = 1 << 20;
const DIRECTORY: &str = "COFFERDAM_TEST_MEMORY_DIRECTORY";
/// What the issue allows for a load.
const LOAD_LIMIT: u64 = 64 * MIB;
/// Compressing needs more: libzstd's tables at level 10 beside the window of 8 MiB.
const CREATE_LIMIT: u64 = 128 * MIB;

/// Peak memory of this process, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A file of that many MiB: one random MiB, numbered, after a magic.
fn write_big(path: &Utf8Path, magic: &[u8], mebibytes: u64) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block: Vec<u8> = (0..MIB / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    let mut file = File::create(path).unwrap();
    file.write_all(magic).unwrap();
    for number in 0..mebibytes {
        block[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&block).unwrap();
    }
}

#[test]
fn create_and_load_half_a_gibibyte_in_bounded_memory() {
    let bench = Bench::new();
    let mut layout = Layout::new(bench.path("images"));
    let manifest = layout.image("amd64", &[bench::gzip(b"small")]);
    layout.tag(manifest, "app");
    layout.finish();
    write_big(&bench.path("stored"), &[0x1f, 0x8b], 256);
    write_big(&bench.path("packed"), b"plain", 256);
    bench.write(
        "bundle.yaml",
        "schema-version: 1\nname: big\nversion: 1.0.0\narchitecture: amd64\npacks:\n  - name: big\n    version: '1'\n    \
         layer: addon\n    description: two big files\n    images: [{ name: 'a.example/app:1', source: 'oci:images:app' }]\n    \
         files:\n      - { name: stored, source: stored }\n      - { name: packed, source: packed }\n",
    );
    let created = child("measured_create", &bench);
    let loaded = child("measured_load", &bench);
    let size = fs::metadata(bench.path("big.tar.zst")).unwrap().len();
    println!("bundle {} MiB: create {} MiB, load {} MiB", size / MIB, created / MIB, loaded / MIB);
    assert!(size > 256 * MIB, "the stored half is stored");
    assert!(loaded <= LOAD_LIMIT, "load took {} MiB", loaded / MIB);
    assert!(created <= CREATE_LIMIT, "create took {} MiB", created / MIB);
    assert_eq!(bench::digest_of(&bench.path("store/stored")), bench::digest_of(&bench.path("stored")));
    assert_eq!(bench::digest_of(&bench.path("store/packed")), bench::digest_of(&bench.path("packed")));
}

/// Runs one of the tests below in a process of its own; gives its peak.
fn child(test: &str, bench: &Bench) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, bench.path(""))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let peak = said.lines().find_map(|line| line.strip_prefix("peak ")).unwrap_or_else(|| panic!("{said}"));
    peak.parse().unwrap()
}

/// `None` if somebody runs all ignored tests: then there is nothing to measure, and nobody reads the outcome.
fn directory() -> Option<Utf8PathBuf> {
    std::env::var(DIRECTORY).ok().map(Utf8PathBuf::from)
}

#[test]
#[ignore = "run by create_and_load_half_a_gibibyte_in_bounded_memory in a process of its own"]
fn measured_create() {
    let Some(directory) = directory() else { return };
    let definition = BundleDefinition::read(&directory.join("bundle.yaml")).unwrap();
    let signing_key = SigningKey::load(&directory.join("keys/signing.key"), None).unwrap();
    let output = directory.join("big.tar.zst");
    create(
        &definition,
        &CreateOptions { output, signing_key, registries: RegistryOptions::default(), base: Base::default() },
        &mut |_| (),
    )
    .unwrap();
    println!("\npeak {}", peak());
}

#[test]
#[ignore = "run by create_and_load_half_a_gibibyte_in_bounded_memory in a process of its own"]
fn measured_load() {
    let Some(directory) = directory() else { return };
    let trust = TrustedKeys::load(&[directory.join("keys/signing.pub")]).unwrap();
    let mut sink = FileSink { directory: directory.join("store") };
    fs::create_dir(&sink.directory).unwrap();
    let file = File::open(directory.join("big.tar.zst")).unwrap();
    load(file, &trust, &mut sink, &LoadOptions::default(), &mut |_| ()).unwrap();
    println!("\npeak {}", peak());
}

/// Blobs as files named by their digests; publish names the two big ones.
struct FileSink {
    directory: Utf8PathBuf,
}

struct FileWriter(File);

fn sink_error(error: std::io::Error) -> SinkError {
    SinkError::new("write", error)
}

impl Sink for FileSink {
    fn holds(&mut self, _: &Digest, _: u64) -> Result<bool, SinkError> {
        Ok(false)
    }

    fn begin(&mut self, digest: &Digest, _: u64) -> Result<Box<dyn BlobWriter>, SinkError> {
        Ok(Box::new(FileWriter(File::create(self.directory.join(digest.hex())).map_err(sink_error)?)))
    }

    fn publish(&mut self, index: &bundle::index::Index, _: &[u8], _: &[u8]) -> Result<(), SinkError> {
        for file in &index.packs[0].files {
            fs::rename(self.directory.join(file.digest.hex()), self.directory.join(&file.name)).map_err(sink_error)?;
        }
        Ok(())
    }
}

impl BlobWriter for FileWriter {
    fn write(&mut self, chunk: &[u8]) -> Result<(), SinkError> {
        self.0.write_all(chunk).map_err(sink_error)
    }

    fn commit(self: Box<Self>) -> Result<(), SinkError> {
        self.0.sync_data().map_err(sink_error)
    }
}
