//! A disk that fills up, that becomes read-only, and folders that vanish: each in a mount namespace of its own.

use std::fs;

use airgap_registry::Store;
use camino::Utf8PathBuf;

use crate::harness::{Bench, Process, assert_clean, noise, run};

/// The store as the server sees it, from outside of its mount namespace.
fn seen_from_outside(bench: &Bench, process: &Process) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("/proc/{}/root{}", process.child.id(), bench.path("store")))
}

#[test]
fn a_disk_that_fills_up_or_becomes_read_only_harms_nothing() {
    let bench = Bench::new();
    fs::create_dir(bench.path("store")).unwrap();
    let mut config = bench.plain_config();
    config.limits.free_space_mib = 0;
    let process = Process::start_on_small_disk(&bench, &config, 24);
    let client = process.admin();
    let first = noise("first", 3 << 20);
    let (digest, _) = client.push_image("a", "1", &first);
    let path = format!("/v2/a/blobs/{}", bundle::oci::Digest::sha256_of(&first));
    // Until nothing fits any more.
    let mut answers = Vec::new();
    for number in 0..12 {
        let blob = noise(&number.to_string(), 3 << 20);
        let digest = bundle::oci::Digest::sha256_of(&blob);
        answers.push(client.send("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[], &blob).status);
    }
    assert!(answers.contains(&201) && answers.contains(&507), "{answers:?}");
    assert!(answers.iter().all(|status| matches!(status, 201 | 507)), "{answers:?}");
    assert!(client.get(&path).body == first);
    assert_eq!(client.get(&format!("/v2/a/manifests/{digest}")).status, 200);
    let outside = seen_from_outside(&bench, &process);
    assert_clean(&outside);

    // What is deleted and collected makes room again.
    let store = Store::open(&outside).unwrap();
    store.gc(&crate::import::NO_GRACE).unwrap();
    drop(store);
    let more = noise("more", 3 << 20);
    client.push_blob("a", &more);

    let remount = |how: &str| {
        let pid = process.child.id().to_string();
        run("nsenter", &["-t", &pid, "-m", "mount", "-o", &format!("remount,{how}"), bench.path("store").as_str()]);
    };
    remount("ro");
    assert!(client.get(&path).body == first);
    assert_eq!(client.send("POST", "/v2/a/blobs/uploads/", &[], b"").status, 500);
    assert_eq!(client.send("DELETE", "/v2/a/manifests/1", &[], b"").status, 500);
    assert_eq!(client.get("/v2/a/manifests/1").status, 200);
    remount("rw");
    client.push_image("a", "2", b"small");
    assert_clean(&outside);
    process.kill();
}

#[test]
fn folders_that_vanish_are_made_again_and_missed_bytes_are_said_to_be_missing() {
    let bench = Bench::new();
    let process = Process::start(&bench, &bench.plain_config());
    let client = process.admin();
    let (_, manifest) = client.push_image("a", "1", b"layer");
    for folder in ["uploads", "temporary", "quarantine", "bundles"] {
        fs::remove_dir_all(bench.path("store").join(folder)).unwrap();
    }
    client.push_image("b", "1", b"another layer");
    assert_eq!(client.get("/v2/a/manifests/1").body, manifest);
    assert_clean(&bench.path("store"));
    // All blobs gone: said so, and a new push brings them back.
    fs::remove_dir_all(bench.path("store/blobs")).unwrap();
    assert_eq!(client.get("/v2/a/manifests/1").code(), "MANIFEST_UNKNOWN");
    assert_eq!(client.get("/healthz").status, 200);
    let report = Store::open(&bench.path("store")).unwrap().fsck().unwrap();
    assert!(report.damaged_blobs().len() >= 4, "{report:#?}");
    client.push_image("a", "1", b"layer");
    client.push_image("b", "1", b"another layer");
    assert_clean(&bench.path("store"));
    process.kill();
}
