//! What a store does for itself: garbage collection beside pushes, pulls and loads; retention; the background check.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use airgap_registry::store::{GcOptions, PutManifest};
use airgap_registry::{Error, Manifest, ScrubConfig, Store};
use bundle::oci::{Algorithm, Digest, RepositoryName, Tag};
use serde_json::json;

use crate::harness::{Bench, Running, assert_clean, noise};
use crate::import::{self, NO_GRACE};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

#[test]
fn garbage_is_collected_while_others_push_mount_and_delete() {
    collect_under_load(300);
}

#[test]
#[ignore = "slow: some minutes"]
fn slow_garbage_is_collected_while_others_push_mount_and_delete_many_times() {
    collect_under_load(6_000);
}

/// Pushers that share layers, in several repositories, against a collector that leaves nothing for its youth.
fn collect_under_load(pushes: usize) {
    const PUSHERS: usize = 4;
    let bench = Bench::new();
    let store = Store::create(&bench.path("store")).unwrap();
    let (done, again, mounted) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let is_over = AtomicBool::new(false);
    let (rounds, removed) = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            // As another process would: with an own opening of the store.
            let store = Store::open(&bench.path("store")).unwrap();
            let (mut rounds, mut removed) = (0, 0);
            while !is_over.load(Ordering::Acquire) {
                removed += store.gc(&NO_GRACE).unwrap().removed_blobs.len();
                rounds += 1;
            }
            (rounds, removed)
        });
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|pusher| {
                let (store, done, again, mounted) = (&store, &done, &again, &mounted);
                scope.spawn(move || {
                    let mut random = noise(&pusher.to_string(), 1 << 16).into_iter().cycle();
                    while done.fetch_add(1, Ordering::AcqRel) < pushes {
                        let mut pick = |number: u8| random.next().unwrap() % number;
                        push_and_look(store, &mut pick, again, mounted);
                    }
                })
            })
            .collect();
        for pusher in pushers {
            pusher.join().unwrap();
        }
        is_over.store(true, Ordering::Release);
        collector.join().unwrap()
    });
    println!(
        "{pushes} pushes, {} of them once more, {} mounts; {rounds} collections removed {removed} blobs",
        again.load(Ordering::Acquire),
        mounted.load(Ordering::Acquire)
    );
    assert!(rounds > 20 && removed > 20, "{rounds} {removed}");
    assert_clean(&bench.path("store"));
}

/// One image of two of eight shared layers goes in by upload or mount; then all of it must be there and stay there.
fn push_and_look(store: &Store, pick: &mut dyn FnMut(u8) -> u8, again: &AtomicUsize, mounted: &AtomicUsize) {
    let name: RepositoryName = format!("r{}", pick(3)).parse().unwrap();
    let layers = [pick(8), pick(8)].map(|number| format!("layer {number}").into_bytes());
    let link = |bytes: &[u8]| json!({"mediaType": "x", "digest": Digest::sha256_of(bytes), "size": bytes.len()});
    // Nobody else's manifest is the same: it is this thread's to delete.
    let owner = format!("{:?} {} {}", std::thread::current().id(), pick(250), pick(250));
    let manifest = json!({"schemaVersion": 2, "config": link(b"{}"), "layers": layers.each_ref().map(|bytes| link(bytes)), "annotations": {"owner": owner}});
    let bytes = manifest.to_string().into_bytes();
    let digest = Digest::sha256_of(&bytes);
    let parsed = Manifest::parse(&bytes, Some(IMAGE)).unwrap();
    let tag: Tag = format!("t{}", pick(200)).parse().unwrap();
    loop {
        for blob in [b"{}".as_slice(), &layers[0], &layers[1]] {
            let digest = Digest::sha256_of(blob);
            if pick(3) == 0 && store.link_blob(&name, &digest).unwrap() {
                mounted.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            // With no grace at all even an upload that nobody touched for a moment may go.
            let pushed = store.begin_upload(&name, Algorithm::Sha256).and_then(|mut upload| {
                store.append_to_upload(&mut upload, blob)?;
                store.finish_upload(upload, &digest)
            });
            if pushed.is_err() {
                again.fetch_add(1, Ordering::Relaxed);
            }
        }
        let tags = if pick(2) == 0 { vec![tag.clone()] } else { Vec::new() };
        match store.put_manifest(&name, &digest, &bytes, &parsed, &tags, false).unwrap() {
            PutManifest::Stored { .. } => break,
            // Between the upload and the manifest nothing referred to it: a real client has the grace period for that.
            PutManifest::Missing(_) => {
                again.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    // From the answer on nothing of it may go.
    for _ in 0..5 {
        let file = store.manifest(&name, &digest).unwrap().expect("the manifest was collected");
        assert_eq!(store.read_manifest(&file).unwrap(), parsed);
        for blob in &layers {
            let found = store.linked_blob(&name, &Digest::sha256_of(blob)).unwrap();
            assert_eq!(found, Some(blob.len() as u64), "a layer was collected");
        }
        std::thread::yield_now();
    }
    if pick(4) > 0 {
        store.delete_manifest(&name, &digest).unwrap();
    }
}

#[test]
fn what_was_asked_for_lately_is_not_collected() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    let digest = client.push_blob("a", b"asked for");
    let store = Store::open(&bench.path("store")).unwrap();
    let hour = GcOptions { grace: Duration::from_hours(1), ..NO_GRACE };
    let link = format!("repositories/a/_blobs/{}", digest.replace(':', "/"));
    let age = |path: &str| {
        let file = fs::File::options().write(true).open(bench.path("store").join(path)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_hours(2)).unwrap();
    };
    let blob = store.blob_path(&digest.parse().unwrap());
    let blob = blob.strip_prefix(bench.path("store")).unwrap().to_string();
    age(&link);
    age(&blob);
    assert_eq!(store.gc(&GcOptions { dry_run: true, ..hour }).unwrap().removed_links, 1);
    // skopeo asks, hears that it is there, and goes on with the manifest.
    assert_eq!(client.head(&format!("/v2/a/blobs/{digest}")).status, 200);
    let report = store.gc(&hour).unwrap();
    assert_eq!((report.removed_blobs.len(), report.removed_links), (0, 0));
    age(&link);
    age(&blob);
    let report = store.gc(&hour).unwrap();
    assert_eq!(report.removed_links, 1);
    assert_eq!(client.head(&format!("/v2/a/blobs/{digest}")).status, 404);
}

#[test]
fn the_newest_versions_of_a_bundle_are_kept() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    // By age the last one is the newest, by version the second.
    for (size, version) in [(100_000, "1.9.0"), (110_000, "1.10.0"), (120_000, "1.2.0")] {
        let (bundle, trust) = import::make_version(&bench, size, version);
        let mut store = Store::open(&bench.path("store")).unwrap();
        import::load_into(&mut store, &bundle, &trust).unwrap();
    }
    let busybox = |version: &str| client.get(&format!("/v2/docker.io/library/busybox/manifests/v{version}")).status;
    let old = client.get("/v2/docker.io/library/busybox/manifests/v1.9.0").header("docker-content-digest").to_owned();
    // Somebody gave one image of an old bundle a tag of his own.
    let body = client.get(&format!("/v2/docker.io/library/busybox/manifests/{old}")).body;
    assert_eq!(client.put_manifest("docker.io/library/busybox", "mine", &body).status, 201);

    let store = Store::open(&bench.path("store")).unwrap();
    let before = store.blobs().unwrap().len();
    let keep = |number, dry_run| GcOptions { keep_bundles: Some(number), dry_run, ..NO_GRACE };
    let dry = store.gc(&keep(1, true)).unwrap();
    assert_eq!(dry.dropped_bundles, ["sample-1.9.0", "sample-1.2.0"]);
    assert_eq!((store.blobs().unwrap().len(), store.bundles().unwrap().len()), (before, 3));
    assert_eq!(store.gc(&keep(3, false)).unwrap().removed_blobs.len(), 0);
    let report = store.gc(&keep(1, false)).unwrap();
    assert_eq!(report.dropped_bundles, dry.dropped_bundles);
    assert_eq!(report.removed_blobs, dry.removed_blobs);
    assert!(report.removed_blobs.len() >= 3, "{report:?}");
    assert_eq!((busybox("1.10.0"), busybox("1.9.0"), busybox("1.2.0")), (200, 404, 404));
    assert_eq!(client.get("/v2/docker.io/library/busybox/manifests/mine").body, body);
    assert_eq!(store.inventory().unwrap().bundles, ["sample-1.10.0"]);
    assert_clean(&bench.path("store"));
}

#[test]
fn a_collection_and_a_load_exclude_each_other() {
    use bundle::load::Sink;
    let bench = Bench::new();
    let mut loading = Store::create(&bench.path("store")).unwrap();
    let store = Store::open(&bench.path("store")).unwrap();
    assert!(!loading.holds(&Digest::sha256_of(b"x"), 1).unwrap());
    assert!(matches!(store.gc(&NO_GRACE), Err(Error::Busy { .. })));
    store.gc(&GcOptions { dry_run: true, ..NO_GRACE }).unwrap();
    drop(loading);
    store.gc(&NO_GRACE).unwrap();
}

#[test]
fn the_server_finds_damage_and_repairs_it_from_a_bundle() {
    let bench = Bench::new();
    let (bundle, trust) = import::make(&bench, 300_000);
    let mut store = Store::create(&bench.path("store")).unwrap();
    import::load_into(&mut store, &bundle, &trust).unwrap();
    let layer = bundle.index.blobs.iter().max_by_key(|blob| blob.size).unwrap().digest;
    let path = store.blob_path(&layer);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[1234] ^= 4;
    fs::write(&path, &bad).unwrap();
    drop(store);
    let mut config = bench.plain_config();
    config.scrub = ScrubConfig {
        pause_hours: 0,
        mib_per_second: 1000,
        repair_from: vec![bench.path("a medium that is away.tar.zst"), bundle.path.clone()],
        trust: vec![bench.path("keys/signing.pub")],
    };
    let server = Running::start(config);
    let deadline = Instant::now() + Duration::from_mins(1);
    while fs::read(&path).ok().as_ref() != Some(&good) {
        assert!(Instant::now() < deadline, "the blob was not repaired");
        std::thread::sleep(Duration::from_millis(50));
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let reply = server.admin().get("/metrics");
        let numbers = String::from_utf8(reply.body).unwrap();
        if numbers.contains("cofferdam_registry_damaged_blobs_total 1\n")
            && numbers.contains("cofferdam_registry_repaired_blobs_total 1\n")
        {
            break;
        }
        assert!(Instant::now() < deadline, "{numbers}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(fs::read_dir(bench.path("store/quarantine")).unwrap().count(), 1);
    assert_clean(&bench.path("store"));
}
