//! A bundle made by `bundle::create` goes into the store by `bundle::load`, as `cofferdam bundle load` does it.

use std::fs;
use std::io::Read;

use airgap_registry::store::{GcOptions, RepairSource};
use airgap_registry::{Error, Store};
use bundle::create::{BundleDefinition, CreateOptions, CreateReport, RegistryOptions, create};
use bundle::delta::Base;
use bundle::keys::{SigningKey, TrustedKeys, keygen};
use bundle::load::{BlobWriter, LoadOptions, LoadReport, Sink, load};
use bundle::oci::Digest;

use crate::harness::{Bench, Running, assert_clean, noise, run};

/// All that nothing refers to, however young it is.
pub(crate) const NO_GRACE: GcOptions =
    GcOptions { dry_run: false, grace: std::time::Duration::ZERO, keep_bundles: None };

/// A bundle with two images and a pack with a file, and what trusts it.
pub(crate) fn make(bench: &Bench, size: usize) -> (CreateReport, TrustedKeys) {
    make_version(bench, size, "1.0.0")
}

/// Another size gives other layers.
pub(crate) fn make_version(bench: &Bench, size: usize, version: &str) -> (CreateReport, TrustedKeys) {
    let _ = fs::remove_dir_all(bench.path("images"));
    bench.layout(&["pause", "app"], size);
    bench.write("tool", noise("tool", 100_000));
    let definition = bench.write(
        "bundle.yaml",
        format!(
            "
schema-version: 1
name: sample
version: {version}
architecture: amd64
packs:
  - name: base
    version: 1.20.2
    layer: kubernetes
    description: a pack
    images:
      - {{ name: \"k8s.gcr.io/pause:3.2\", source: \"oci:images:pause\" }}
      - {{ name: \"docker.io/library/busybox:v{version}\", source: \"oci:images:app\" }}
    files:
      - {{ name: tool, source: tool }}
"
        ),
    );
    if !bench.path("keys").exists() {
        keygen(&bench.path("keys"), None).unwrap();
    }
    let options = CreateOptions {
        output: bench.path(if version == "1.0.0" { "sample.tar.zst" } else { "next.tar.zst" }),
        signing_key: SigningKey::load(&bench.path("keys/signing.key"), None).unwrap(),
        registries: RegistryOptions::default(),
        base: bundle::delta::Base::default(),
    };
    let report = create(&BundleDefinition::read(&definition).unwrap(), &options, &mut |_| ()).unwrap();
    (report, TrustedKeys::load(&[bench.path("keys/signing.pub")]).unwrap())
}

/// A bundle of one image, pulled from a registry.
pub(crate) fn bundle_of(bench: &Bench, image: &str, registries: RegistryOptions) -> CreateReport {
    let definition = bench.write(
        "pulled.yaml",
        format!(
            "
schema-version: 1
name: pulled
version: 1.0.0
architecture: amd64
packs:
  - name: base
    version: 1.0.0
    layer: addon
    description: a pack
    images:
      - {{ name: \"registry.example/app:1\", source: \"docker://{image}\" }}
"
        ),
    );
    let keys = keygen(&bench.path("keys"), None).unwrap();
    let options = CreateOptions {
        output: bench.path("pulled.tar.zst"),
        signing_key: SigningKey::load(&keys.secret, None).unwrap(),
        registries,
        base: Base::default(),
    };
    create(&BundleDefinition::read(&definition).unwrap(), &options, &mut |_| ()).unwrap()
}

pub(crate) fn load_into(
    store: &mut Store,
    bundle: &CreateReport,
    trust: &TrustedKeys,
) -> Result<LoadReport, bundle::Error> {
    let file = fs::File::open(&bundle.path).unwrap();
    load(file, trust, store, &LoadOptions::default(), &mut |_| ())
}

#[test]
fn a_loaded_bundle_is_served_under_its_upstream_names() {
    let bench = Bench::new();
    let (bundle, trust) = make(&bench, 1 << 20);
    // The server runs while the bundle is loaded, as on an upgrade.
    let server = Running::start(bench.plain_config());
    let mut store = Store::open(&bench.path("store")).unwrap();
    let report = load_into(&mut store, &bundle, &trust).unwrap();
    assert_eq!((report.blobs_skipped, report.blobs_written), (0, bundle.index.blobs.len() as u64));

    let client = server.admin();
    for image in &bundle.index.images {
        let name = airgap_registry::repository_of(&image.reference).unwrap();
        let reply = client.get(&format!("/v2/{name}/manifests/{}", image.reference.tag().unwrap()));
        assert_eq!((reply.status, reply.header("docker-content-digest")), (200, image.digest.to_string().as_str()));
        let manifest = reply.json();
        for blob in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
            let digest: Digest = blob["digest"].as_str().unwrap().parse().unwrap();
            let reply = client.get(&format!("/v2/{name}/blobs/{digest}"));
            assert_eq!(Digest::sha256_of(&reply.body), digest);
        }
    }
    // As containerd asks for it through a mirror.
    assert_eq!(client.get("/v2/pause/manifests/3.2?ns=k8s.gcr.io").status, 200);
    assert_eq!(client.get("/v2/library/busybox/manifests/v1.0.0?ns=docker.io").status, 200);
    // The pack is an artifact like any other, and its files are blobs of the store.
    assert_eq!(client.get("/v2/cofferdam/packs/base/manifests/1.20.2").status, 200);
    let pack = bundle.index.pack("base").unwrap();
    let mut tool = Vec::new();
    store.open_blob(&pack.files[0].digest).unwrap().read_to_end(&mut tool).unwrap();
    assert!(tool == noise("tool", 100_000));
    assert!(matches!(store.open_blob(&Digest::sha256_of(b"?")), Err(Error::MissingBlob { .. })));

    let records = store.bundles().unwrap();
    assert_eq!((records.len(), &records[0].index), (1, &bundle.index));
    assert!(fs::exists(format!("{}.minisig", records[0].path)).unwrap());
    let inventory = store.inventory().unwrap();
    assert_eq!(inventory.bundles, ["sample-1.0.0"]);
    assert_eq!(inventory.blobs.len(), bundle.index.blobs.len());
    let list = store.list().unwrap();
    let names: Vec<_> = list.iter().map(|repository| repository.name.as_str()).collect();
    assert_eq!(names, ["cofferdam/packs/base", "docker.io/library/busybox", "k8s.gcr.io/pause"]);
    assert!(list[2].tags[0].size > 1 << 20 && list[2].untagged.is_empty());

    // Once more: nothing is written.
    let again = load_into(&mut store, &bundle, &trust).unwrap();
    assert_eq!((again.blobs_written, again.blobs_skipped), (0, bundle.index.blobs.len() as u64));
    let report = store.fsck().unwrap();
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!((report.bundles, report.unfinished, report.repositories), (1, 0, 3));
    // Garbage collection waits for the load, not for the server, and finds nothing that may go.
    let other = Store::open(&bench.path("store")).unwrap();
    assert!(matches!(other.gc(&NO_GRACE), Err(Error::Busy { .. })));
    drop(store);
    let report = other.gc(&NO_GRACE).unwrap();
    assert_eq!((report.removed_blobs.len(), report.removed_links), (0, 0));
    assert_clean(&bench.path("store"));
}

#[test]
fn a_bundle_that_turns_out_broken_leaves_nothing_to_see() {
    let bench = Bench::new();
    let (bundle, trust) = make(&bench, 1 << 20);
    let good = fs::read(&bundle.path).unwrap();
    let mut store = Store::create(&bench.path("store")).unwrap();
    // A flipped bit near the end, and a file that was cut off: most blobs are staged before it is seen.
    let mut flipped = good.clone();
    let at = flipped.len() - 200_000;
    flipped[at] ^= 1;
    for bytes in [flipped.as_slice(), &good[..good.len() / 2]] {
        load(bytes, &trust, &mut store, &LoadOptions::default(), &mut |_| ()).unwrap_err();
        assert!(store.repositories().unwrap().is_empty() && store.blobs().unwrap().is_empty());
        assert!(store.bundles().unwrap().is_empty());
        let report = store.fsck().unwrap();
        assert!(report.is_clean() && report.unfinished > 0, "{report:?}");
    }
    // What was staged and good is not written again.
    let report = load_into(&mut store, &bundle, &trust).unwrap();
    assert!(report.blobs_skipped > 0 && report.blobs_written > 0, "{report:?}");
    assert_eq!(store.fsck().unwrap().unfinished, 0);
    assert_clean(&bench.path("store"));
}

#[test]
fn one_load_at_a_time() {
    let bench = Bench::new();
    let mut first = Store::create(&bench.path("store")).unwrap();
    let mut second = Store::open(&bench.path("store")).unwrap();
    let digest = Digest::sha256_of(b"abc");
    let mut writer = first.begin(&digest, 3).unwrap();
    writer.write(b"ab").unwrap();
    assert!(writer.commit().is_err(), "a blob that is too short");
    assert!(!first.holds(&digest, 3).unwrap());
    let error = second.holds(&digest, 3).unwrap_err();
    assert!(error.to_string().contains("being loaded"), "{error}");
    let mut writer: Box<dyn BlobWriter> = first.begin(&digest, 3).unwrap();
    writer.write(b"abc").unwrap();
    writer.commit().unwrap();
    drop(first);
    assert!(second.holds(&digest, 3).unwrap(), "staged by the first, found by the second");
    assert!(!second.holds(&digest, 4).unwrap(), "another size");
}

#[test]
fn fsck_finds_what_is_wrong_and_a_new_load_repairs_it() {
    let bench = Bench::new();
    let (bundle, trust) = make(&bench, 100_000);
    let mut store = Store::create(&bench.path("store")).unwrap();
    load_into(&mut store, &bundle, &trust).unwrap();
    let layer = bundle.index.blobs.iter().max_by_key(|blob| blob.size).unwrap().digest;
    let manifest = bundle.index.images[0].digest;
    let name = airgap_registry::repository_of(&bundle.index.images[0].reference).unwrap();
    // A flipped bit, a blob that is gone, a tag that points nowhere, a file that does not belong there.
    let path = store.blob_path(&layer);
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 0x10;
    fs::write(&path, bytes).unwrap();
    fs::remove_file(store.blob_path(&manifest)).unwrap();
    fs::write(bench.path(&format!("store/repositories/{name}/_tags/odd")), Digest::sha256_of(b"?").to_string())
        .unwrap();
    fs::write(bench.path("store/blobs/sha256/xx"), "").unwrap_or(());
    fs::create_dir_all(bench.path("store/blobs/sha256/zz")).unwrap();
    fs::write(bench.path("store/blobs/sha256/zz/stray"), "").unwrap();
    let report = store.fsck().unwrap();
    let json = serde_json::to_string(&report).unwrap();
    for kind in ["corrupt-blob", "missing-blob", "dangling-tag", "stray"] {
        assert!(json.contains(&format!("\"kind\":\"{kind}\"")), "{kind}: {json}");
    }
    assert!(report.damaged_blobs().contains(&layer) && report.damaged_blobs().contains(&manifest));
    // Nothing is collected from a store that is damaged.
    let collector = Store::open(&bench.path("store")).unwrap();
    assert!(collector.gc(&NO_GRACE).is_err());

    store.quarantine(&layer).unwrap();
    fs::remove_file(bench.path(&format!("store/repositories/{name}/_tags/odd"))).unwrap();
    fs::remove_file(bench.path("store/blobs/sha256/zz/stray")).unwrap();
    let report = load_into(&mut store, &bundle, &trust).unwrap();
    assert_eq!(report.blobs_written, 2);
    assert_clean(&bench.path("store"));

    // The same without loading: damaged and missing blobs come from the bundle, and a folder of links that is gone is
    // made again.
    fs::write(store.blob_path(&layer), "not the layer").unwrap();
    fs::remove_file(store.blob_path(&manifest)).unwrap();
    fs::remove_dir_all(bench.path(&format!("store/repositories/{name}/_blobs"))).unwrap();
    let report = store.fsck().unwrap();
    for digest in report.corrupt_blobs() {
        store.quarantine(&digest).unwrap();
    }
    let source = || RepairSource {
        bundle: bundle.path.clone(),
        trust: TrustedKeys::load(&[bench.path("keys/signing.pub")]).unwrap(),
    };
    let lost = Digest::sha256_of(b"in no bundle");
    let wanted: Vec<_> = report.damaged_blobs().into_iter().chain([lost]).collect();
    let repair = store.repair(&wanted, &[source()]).unwrap();
    assert_eq!(repair.lost, [lost]);
    assert!(
        repair.repaired.contains(&layer) && repair.repaired.contains(&manifest) && repair.relinked > 0,
        "{repair:?}"
    );
    assert_clean(&bench.path("store"));
    // A bundle that nobody trusts is not read.
    keygen(&bench.path("other"), None).unwrap();
    let foreign = RepairSource { trust: TrustedKeys::load(&[bench.path("other/signing.pub")]).unwrap(), ..source() };
    let error = store.repair(&wanted, &[foreign]).unwrap_err();
    assert!(error.to_string().contains("cannot take blobs from the bundle") && error.hint().is_some(), "{error}");
}

#[test]
fn garbage_is_what_nothing_refers_to() {
    let bench = Bench::new();
    {
        let server = Running::start(bench.plain_config());
        let client = server.admin();
        client.push_image("a", "1", b"kept layer");
        let (gone, _) = client.push_image("a", "2", b"layer that goes");
        client.push_blob("a", b"never referred to");
        client.send("POST", "/v2/a/blobs/uploads/", &[], b"");
        assert_eq!(client.send("DELETE", &format!("/v2/a/manifests/{gone}"), &[], b"").status, 202);
    }
    let store = Store::open(&bench.path("store")).unwrap();
    assert_eq!(
        store.gc(&GcOptions::default()).unwrap().removed_blobs.len(),
        0,
        "all of it is younger than the grace period"
    );
    let before = store.blobs().unwrap().len();
    let dry = store.gc(&GcOptions { dry_run: true, ..NO_GRACE }).unwrap();
    assert_eq!(store.blobs().unwrap().len(), before);
    let report = store.gc(&NO_GRACE).unwrap();
    assert_eq!(report.removed_blobs, dry.removed_blobs);
    // The manifest, its layer, and the blob that was pushed alone; the configuration is shared.
    assert_eq!((report.removed_blobs.len(), report.removed_links, report.removed_unfinished), (3, 2, 1));
    assert_eq!(store.blobs().unwrap().len(), before - 3);
    assert_clean(&bench.path("store"));
    drop(store);
    let server = Running::start(bench.plain_config());
    assert_eq!(server.admin().get("/v2/a/manifests/1").status, 200);
}

#[test]
fn what_root_loads_belongs_to_the_owner_of_the_store() {
    if run("id", &["-u"]).trim() != "0" {
        println!("not root: nothing to give away");
        return;
    }
    let bench = Bench::new();
    let (bundle, trust) = make(&bench, 10_000);
    fs::create_dir(bench.path("store")).unwrap();
    run("chown", &["12345:12346", bench.path("store").as_str()]);
    let mut store = Store::create(&bench.path("store")).unwrap();
    load_into(&mut store, &bundle, &trust).unwrap();
    let others =
        run("find", &[bench.path("store").as_str(), "(", "!", "-uid", "12345", "-o", "!", "-gid", "12346", ")"]);
    assert_eq!(others, "");
    let readable = run("find", &[bench.path("store").as_str(), "-mindepth", "1", "-perm", "/077"]);
    assert_eq!(readable, "", "nothing is open to others");
}
