//! What the integration tests share: a directory of their own, image layouts made by hand, a key pair, a bundle, and
//! real peers that must be there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use bundle::create::{BundleDefinition, CreateOptions, CreateReport, RegistryOptions, create};
use bundle::delta::Base;
use bundle::index::Index;
use bundle::keys::{KeyFiles, SigningKey, TrustedKeys, keygen};
use bundle::load::{BlobWriter, LoadOptions, LoadReport, Sink, SinkError, load};
use bundle::oci::{Algorithm, Digest, Hasher};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

/// A directory that is removed at the end, with a key pair in it.
pub struct Bench {
    pub directory: tempfile::TempDir,
    pub keys: KeyFiles,
}

impl Bench {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keys = keygen(&Utf8Path::from_path(directory.path()).unwrap().join("keys"), None).unwrap();
        Self { directory, keys }
    }

    pub fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.directory.path()).unwrap().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Utf8PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn trust(&self) -> TrustedKeys {
        TrustedKeys::load(&[&self.keys.public]).unwrap()
    }

    /// Creates a bundle from the text of a `bundle.yaml`.
    pub fn create(&self, yaml: &str, output: &str) -> Result<CreateReport, bundle::Error> {
        self.create_with(yaml, output, RegistryOptions::default())
    }

    pub fn create_with(
        &self,
        yaml: &str,
        output: &str,
        registries: RegistryOptions,
    ) -> Result<CreateReport, bundle::Error> {
        self.create_on(yaml, output, registries, Base::default())
    }

    /// Creates a delta, or with an empty base a full bundle.
    pub fn create_on(
        &self,
        yaml: &str,
        output: &str,
        registries: RegistryOptions,
        base: Base,
    ) -> Result<CreateReport, bundle::Error> {
        let definition = self.write("bundle.yaml", yaml);
        let definition = BundleDefinition::read(&definition)?;
        let signing_key = SigningKey::load(&self.keys.secret, None).unwrap();
        let options = CreateOptions { output: self.path(output), signing_key, registries, base };
        create(&definition, &options, &mut |_| ())
    }

    /// The members of a bundle behind a head that was signed anew with our own key: frames that fit the index, whatever it
    /// says of what is left out.
    pub fn forge_head(&self, bundle: &[u8], index: &Index) -> Vec<u8> {
        let key = SigningKey::load(&self.keys.secret, None).unwrap();
        let json = serde_json::to_vec(index).unwrap();
        let signature = key.sign(&json, "forged");
        // Two stored frames are passed over: 14 bytes of head, then blocks of 3 + size until the last one.
        let mut at = 0;
        for _ in 0..2 {
            at += 14;
            loop {
                let head = u32::from_le_bytes([bundle[at], bundle[at + 1], bundle[at + 2], 0]);
                at += 3 + usize::try_from(head >> 3).unwrap();
                if head & 1 == 1 {
                    break;
                }
            }
        }
        let member = |name: &str, content: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(content.len() as u64);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_cksum();
            let mut bytes = [header.as_bytes(), content].concat();
            bytes.resize(bytes.len().next_multiple_of(512), 0);
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0x38];
            frame.extend((bytes.len() as u64).to_le_bytes());
            let blocks: Vec<_> = bytes.chunks(128 * 1024).collect();
            for (at, block) in blocks.iter().enumerate() {
                let head = u32::try_from(block.len()).unwrap() << 3 | u32::from(at + 1 == blocks.len());
                frame.extend(&head.to_le_bytes()[..3]);
                frame.extend(*block);
            }
            frame
        };
        let index = member("cofferdam/index.json", &json);
        [index, member("cofferdam/index.json.minisig", signature.as_bytes()), bundle[at..].to_vec()].concat()
    }

    /// Loads bytes into memory.
    pub fn load(&self, bytes: &[u8]) -> (Result<LoadReport, bundle::Error>, MemorySink) {
        let mut sink = MemorySink::default();
        let result = load(bytes, &self.trust(), &mut sink, &LoadOptions::default(), &mut |_| ());
        (result, sink)
    }

    /// A small layout `images` with one image for amd64 per name, two layers each (gzip and plain), and an index for
    /// two architectures named `multi`.
    pub fn layout(&self, names: &[&str]) -> Utf8PathBuf {
        let mut layout = Layout::new(self.path("images"));
        for name in names {
            let manifest = layout.image("amd64", &[gzip(name.as_bytes()), tar_of(name, b"plain layer, plain layer")]);
            layout.tag(manifest, name);
        }
        let entries = ["amd64", "arm64"].map(|architecture| {
            let mut entry = layout.image(architecture, &[gzip(architecture.as_bytes())]);
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entry
        });
        let index =
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
        let index = layout.blob("application/vnd.oci.image.index.v1+json", &serde_json::to_vec(&index).unwrap());
        layout.tag(index, "multi");
        layout.finish()
    }

    /// Adds `multi` to the layout `images` that is there already.
    pub fn layout_multi(&self) {
        let path = self.path("images");
        let before: serde_json::Value = serde_json::from_slice(&fs::read(path.join("index.json")).unwrap()).unwrap();
        self.layout(&[]);
        let mut after: serde_json::Value = serde_json::from_slice(&fs::read(path.join("index.json")).unwrap()).unwrap();
        after["manifests"].as_array_mut().unwrap().extend(before["manifests"].as_array().unwrap().iter().cloned());
        fs::write(path.join("index.json"), serde_json::to_vec(&after).unwrap()).unwrap();
    }

    /// The bundle that most tests use: two packs, three images, a manifest, a template, a file.
    pub fn sample_yaml(&self) -> String {
        self.layout(&["registry.example/app:1", "pause"]);
        self.write("hello.yaml", HELLO);
        self.write("tool", b"#!/bin/sh\necho tool\n".repeat(500));
        SAMPLE.to_owned()
    }
}

pub const HELLO: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello, namespace: hello}
spec:
  template:
    spec:
      initContainers: [{name: init, image: \"docker.io/library/pause:3\"}]
      containers: [{name: hello, image: \"registry.example/app:1\", args: [\"--host=${fqdn}\", \"$${HOME}\"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: extra}
spec: {containers: [{name: extra, image: coredns/coredns}, {name: pause, image: \"pause:3\"}]}
";

pub const SAMPLE: &str = r#"
schema-version: 1
name: sample
version: 1.2.3
architecture: amd64
created: 2026-11-01T00:00:00Z
upgrade-from: ">=1.0.0"
packs:
  - name: base
    version: 1.20.2
    layer: kubernetes
    description: images only
    images:
      - { name: "pause:3", source: "oci:images:pause" }
      - { name: "registry.example/multi:1", source: "oci:images:multi" }
  - name: hello
    version: "1.0"
    layer: addon
    description: a workload
    optional-images: [coredns/coredns]
    images:
      - { name: "registry.example/app:1", source: "oci:images:registry.example/app:1" }
    manifests:
      - { name: hello.yaml, source: hello.yaml, template: true }
    files:
      - { name: tool, source: tool, install: [{ path: /usr/local/bin/tool, mode: "0755" }] }
    secrets:
      - { name: root-key, namespace: hello, kind: random-256, key: root-key }
    gates:
      - { kind: deployment-available, namespace: hello, name: hello, timeout-seconds: 120 }
"#;

/// An OCI layout under construction.
pub struct Layout {
    path: Utf8PathBuf,
    entries: Vec<serde_json::Value>,
}

impl Layout {
    pub fn new(path: Utf8PathBuf) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { path, entries: Vec::new() }
    }

    pub fn blob(&mut self, media_type: &str, bytes: &[u8]) -> serde_json::Value {
        let digest = Digest::sha256_of(bytes);
        fs::write(self.path.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    pub fn image(&mut self, architecture: &str, layers: &[Vec<u8>]) -> serde_json::Value {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::sha256_of(&unzip(layer))).collect();
        let config = json!({"architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = self.blob("application/vnd.oci.image.config.v1+json", &serde_json::to_vec(&config).unwrap());
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| {
                let suffix = if layer.starts_with(&[0x1f, 0x8b]) { "+gzip" } else { "" };
                self.blob(&format!("application/vnd.oci.image.layer.v1.tar{suffix}"), layer)
            })
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers});
        self.blob("application/vnd.oci.image.manifest.v1+json", &serde_json::to_vec(&manifest).unwrap())
    }

    pub fn tag(&mut self, mut entry: serde_json::Value, name: &str) {
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        self.entries.push(entry);
    }

    pub fn finish(self) -> Utf8PathBuf {
        let index = json!({"schemaVersion": 2, "manifests": self.entries});
        fs::write(self.path.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
        self.path
    }
}

/// A tar archive with one file.
pub fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append_data(&mut header, name.replace([':', '/'], "-"), content).unwrap();
    builder.into_inner().unwrap()
}

/// A gzipped tar archive with one file.
pub fn gzip(content: &[u8]) -> Vec<u8> {
    pipe("gzip", &["-n", "-c"], &tar_of("file", content))
}

fn unzip(bytes: &[u8]) -> Vec<u8> {
    if bytes.starts_with(&[0x1f, 0x8b]) { pipe("gzip", &["-dc"], bytes) } else { bytes.to_vec() }
}

/// Runs a filter.
pub fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} must be installed: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} failed");
    output.stdout
}

/// Runs a peer that must be installed and must succeed; gives its standard output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = try_run(program, arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub fn try_run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("the peer {program} must be installed: {error}"))
}

/// A sink in memory that records what it is asked.
#[derive(Default, Clone)]
pub struct MemorySink {
    pub state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub struct State {
    pub blobs: HashMap<Digest, Vec<u8>>,
    pub published: Vec<(Index, Vec<u8>, Vec<u8>)>,
    /// Fail at the n-th write from now on, for crash tests.
    pub fail_after_writes: Option<usize>,
}

struct MemoryWriter {
    state: Arc<Mutex<State>>,
    digest: Digest,
    size: u64,
    bytes: Vec<u8>,
}

impl Sink for MemorySink {
    fn holds(&mut self, digest: &Digest, size: u64) -> Result<bool, SinkError> {
        Ok(self.state.lock().unwrap().blobs.get(digest).is_some_and(|bytes| bytes.len() as u64 == size))
    }

    fn begin(&mut self, digest: &Digest, size: u64) -> Result<Box<dyn BlobWriter>, SinkError> {
        Ok(Box::new(MemoryWriter { state: Arc::clone(&self.state), digest: *digest, size, bytes: Vec::new() }))
    }

    fn publish(&mut self, index: &Index, index_bytes: &[u8], signature: &[u8]) -> Result<(), SinkError> {
        let mut state = self.state.lock().unwrap();
        assert!(index.contents().all(|blob| state.blobs.contains_key(&blob.digest)), "published before all is held");
        state.published.push((index.clone(), index_bytes.to_vec(), signature.to_vec()));
        Ok(())
    }
}

impl BlobWriter for MemoryWriter {
    fn write(&mut self, chunk: &[u8]) -> Result<(), SinkError> {
        let mut state = self.state.lock().unwrap();
        if let Some(left) = &mut state.fail_after_writes {
            *left = left.checked_sub(1).ok_or_else(|| SinkError::new("write a blob", "the disk is full"))?;
        }
        assert!(chunk.len() <= 256 * 1024);
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), SinkError> {
        let mut hasher = Hasher::new(self.digest.algorithm());
        hasher.update(&self.bytes);
        assert_eq!(hasher.finish(), self.digest, "committed with a wrong digest");
        assert_eq!(self.bytes.len() as u64, self.size, "committed with a wrong size");
        self.state.lock().unwrap().blobs.insert(self.digest, self.bytes);
        Ok(())
    }
}

/// Digest of a file.
pub fn digest_of(path: &Utf8Path) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&fs::read(path).unwrap());
    hasher.finish()
}
