//! The same input gives the same bytes, signature included; and a bundle loads as what it was made from.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::fs;

use bench::Bench;
use bundle::diff;
use bundle::load::{LoadOptions, load};

#[test]
fn twice_the_same_bytes() {
    let bench = Bench::new();
    let yaml = bench.sample_yaml();
    bench.create(&yaml, "a.tar.zst").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let report = bench.create(&yaml, "b.tar.zst").unwrap();
    let (a, b) = (fs::read(bench.path("a.tar.zst")).unwrap(), fs::read(bench.path("b.tar.zst")).unwrap());
    assert!(a == b, "two runs differ");
    assert_eq!(report.size, b.len() as u64);
    let left: Vec<_> = fs::read_dir(bench.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "left behind: {left:?}");
}

#[test]
fn a_directory_as_output_gets_the_bundles_name() {
    let bench = Bench::new();
    let yaml = bench.sample_yaml();
    fs::create_dir(bench.path("out")).unwrap();
    let report = bench.create(&yaml, "out").unwrap();
    assert_eq!(report.path, bench.path("out/sample-1.2.3.tar.zst"));
    assert!(report.path.is_file());
}

#[test]
fn loads_as_what_it_was_made_from() {
    let bench = Bench::new();
    let yaml = bench.sample_yaml();
    let created = bench.create(&yaml, "a.tar.zst").unwrap();
    let bytes = fs::read(&created.path).unwrap();
    let mut sink = bench::MemorySink::default();
    let mut last = (0, 0);
    let report = load(bytes.as_slice(), &bench.trust(), &mut sink, &LoadOptions::default(), &mut |progress| {
        assert!(progress.bytes_done >= last.0, "progress went back");
        last = (progress.bytes_done, progress.bytes_total);
    })
    .unwrap();
    assert_eq!(last, (bytes.len() as u64, bytes.len() as u64), "the total was known from the index");
    assert_eq!(report.bytes_read, bytes.len() as u64);
    assert_eq!((report.blobs_skipped, report.bytes_skipped), (0, 0));
    assert_eq!(report.blobs_written, created.index.blobs.len() as u64);
    assert_eq!(report.bytes_written, created.index.blob_bytes());
    assert_eq!(report.key_id, bench.keys.id);
    let state = sink.state.lock().unwrap();
    let (index, index_bytes, signature) = &state.published[0];
    assert_eq!(*index, created.index);
    assert_eq!(serde_json::from_slice::<bundle::index::Index>(index_bytes).unwrap(), created.index);
    let parsed = bundle::keys::Signature::parse(signature).unwrap();
    assert_eq!(bench.trust().verify(index_bytes, &parsed).unwrap(), bench.keys.id);

    // Manifests and configurations come first; what a pack says is what its files hold.
    let pack = index.pack("hello").unwrap();
    assert_eq!(state.blobs[&pack.files[0].digest], fs::read(bench.path("tool")).unwrap());
    assert_eq!(state.blobs[&pack.manifests[0].digest], bench::HELLO.as_bytes());
    assert!(pack.manifests[0].template);
    let manifest: bundle::oci::ImageManifest = serde_json::from_slice(&state.blobs[&pack.digest]).unwrap();
    assert_eq!(manifest.artifact_type.as_deref(), Some("application/vnd.cofferdam.pack.v1"));
    let titles: Vec<_> =
        manifest.layers.iter().map(|layer| layer.annotations["org.opencontainers.image.title"].as_str()).collect();
    assert_eq!(titles, ["hello.yaml", "tool"]);
    let config: bundle::index::PackDescriptor = serde_json::from_slice(&state.blobs[&manifest.config.digest]).unwrap();
    assert_eq!(config, pack.descriptor);
    assert!(index.blobs.iter().any(|blob| blob.packed.is_none()), "the gzip layers are stored");
    assert!(index.blobs.iter().any(|blob| blob.packed.is_some()), "the rest is packed");
    assert_eq!(index.images.len(), 3);
    assert_eq!(index.images[0].reference.to_string(), "docker.io/library/pause:3");
}

#[test]
fn what_is_held_is_verified_but_not_written() {
    let bench = Bench::new();
    let created = bench.create(&bench.sample_yaml(), "a.tar.zst").unwrap();
    let bytes = fs::read(&created.path).unwrap();
    let sink = bench::MemorySink::default();
    let run = |bytes: &[u8]| load(bytes, &bench.trust(), &mut sink.clone(), &LoadOptions::default(), &mut |_| ());

    sink.state.lock().unwrap().fail_after_writes = Some(5);
    let failed = run(&bytes).unwrap_err();
    assert_eq!(failed.exit_code(), 1);
    assert!(failed.to_string().contains("the disk is full"), "{failed}");
    assert!(sink.state.lock().unwrap().published.is_empty());
    sink.state.lock().unwrap().fail_after_writes = None;

    let resumed = run(&bytes).unwrap();
    assert_eq!(resumed.blobs_skipped, 5, "each of the five blobs before the crash had one chunk");
    assert_eq!(resumed.blobs_written + resumed.blobs_skipped, created.index.blobs.len() as u64);
    let again = run(&bytes).unwrap();
    assert_eq!((again.blobs_written, again.bytes_written), (0, 0));
    assert_eq!(again.bytes_skipped, created.index.blob_bytes());

    // Also a blob that is held is read and verified.
    let mut flipped = bytes.clone();
    let at = flipped.len() - 3;
    flipped[at] ^= 1;
    assert_eq!(run(&flipped).unwrap_err().exit_code(), 4);
}

#[test]
fn a_bundle_for_another_machine_is_reported_before_a_blob_is_read() {
    let bench = Bench::new();
    let created = bench.create(&bench.sample_yaml(), "a.tar.zst").unwrap();
    let bytes = fs::read(&created.path).unwrap();
    let mut sink = bench::MemorySink::default();
    let options = LoadOptions { architecture: Some(bundle::index::Architecture::Arm64) };
    let error = load(bytes.as_slice(), &bench.trust(), &mut sink, &options, &mut |_| panic!("a blob was read"));
    let error = error.unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(matches!(error, bundle::Error::Architecture { .. }), "{error}");
}

#[test]
fn the_difference_of_two_bundles() {
    let bench = Bench::new();
    let yaml = bench.sample_yaml();
    let before = bench.create(&yaml, "a.tar.zst").unwrap().index;
    assert!(diff(&before, &before).packs.is_empty());
    bench.write("tool", "changed");
    let after =
        bench.create(&yaml.replace("\"1.0\"", "\"1.1\"").replace("example/multi:1", "example/multi:2"), "b.tar.zst");
    let difference = diff(&before, &after.unwrap().index);
    assert_eq!(difference.packs["hello"].before.as_deref(), Some("1.0"));
    assert_eq!(difference.packs["hello"].after.as_deref(), Some("1.1"));
    assert!(difference.packs.contains_key("base"), "its list of images changed");
    assert_eq!(difference.images.len(), 2);
    assert_eq!(difference.images["registry.example/multi:2"].before, None);
    // The file, and manifest and descriptor of both packs.
    assert_eq!((difference.blobs_added, difference.blobs_removed), (5, 5));
}

#[test]
fn the_system_of_an_appliance_is_four_files_of_its_pack() {
    use bundle::system::System;
    let bench = Bench::new();
    let system = System {
        version: "1.2.0".to_owned(),
        kernel: "6.12".to_owned(),
        root_hash: "ab".repeat(32),
        pcr_key: bundle::oci::Digest::sha256_of(b"key"),
    };
    for (name, content) in System::PARTS.into_iter().zip(["root", "tree", "", "loader"]) {
        bench.write(&format!("system/{name}"), content);
    }
    bench.write("system/system.json", system.to_json());
    let pack = "  - { name: system, version: 1.2.0, layer: os, description: The system, system: system }\n";
    let yaml = format!("{}{pack}", bench.sample_yaml());
    // An image that starts another root belongs to another build.
    let error = bench.create(&yaml, "a.tar.zst").unwrap_err();
    assert!(error.to_string().contains("another system"), "{error}");
    bench.write("system/system.efi", format!("roothash={}", system.root_hash));
    let index = bench.create(&yaml, "a.tar.zst").unwrap().index;
    let pack = index.pack("system").unwrap();
    assert_eq!(pack.system.as_ref(), Some(&system));
    let names: Vec<_> = pack.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, System::PARTS);
    assert_eq!(pack.files[1].digest, bundle::oci::Digest::sha256_of(b"tree"));
    let (loaded, sink) = bench.load(&std::fs::read(bench.path("a.tar.zst")).unwrap());
    loaded.unwrap();
    assert!(sink.state.lock().unwrap().blobs.contains_key(&pack.files[0].digest));
    let error = bench.create(&yaml.replace("layer: os", "layer: addon"), "b.tar.zst").unwrap_err();
    assert!(error.to_string().contains("layer os"), "{error}");
}
