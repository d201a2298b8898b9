//! A delta goes into a store that holds its base; what it left out is part of it from then on.

use std::fs;

use airgap_registry::Store;
use bundle::create::{BundleDefinition, CreateOptions, CreateReport, RegistryOptions, create};
use bundle::delta::Base;
use bundle::keys::SigningKey;

use crate::harness::{Bench, assert_clean, noise};
use crate::import::{load_into, make};

/// The bundle of [`make`] with another tool, as a delta on `base`.
fn second(bench: &Bench, base: Base) -> CreateReport {
    bench.write("tool", noise("another tool", 100_000));
    let path = bench.path("bundle.yaml");
    let text = fs::read_to_string(&path).unwrap().replace("version: 1.0.0", "version: 1.1.0");
    fs::write(&path, text).unwrap();
    let options = CreateOptions {
        output: bench.path("second.tar.zst"),
        signing_key: SigningKey::load(&bench.path("keys/signing.key"), None).unwrap(),
        registries: RegistryOptions::default(),
        base,
    };
    create(&BundleDefinition::read(&path).unwrap(), &options, &mut |_| ()).unwrap()
}

#[test]
fn a_delta_is_whole_once_it_is_loaded() {
    let bench = Bench::new();
    let (first, trust) = make(&bench, 1 << 20);
    let mut store = Store::create(&bench.path("store")).unwrap();
    load_into(&mut store, &first, &trust).unwrap();

    // The site's own inventory is the base.
    let mut base = Base::default();
    base.add_inventory(&serde_json::to_vec(&store.inventory().unwrap()).unwrap()).unwrap();
    let delta = second(&bench, base);
    assert!(delta.size < first.size / 2, "{} of {}", delta.size, first.size);

    let mut empty = Store::create(&bench.path("empty")).unwrap();
    let error = load_into(&mut empty, &delta, &trust).unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    assert!(empty.blobs().unwrap().is_empty() && !bench.path("empty/staging/blobs").exists(), "something was written");

    let report = load_into(&mut store, &delta, &trust).unwrap();
    assert_eq!(report.blobs_left_out, delta.index.held.len() as u64);
    assert_clean(&bench.path("store"));
    for held in &delta.index.held {
        assert!(store.has_intact(held).unwrap());
    }

    // The first bundle's record goes; what the second one left out must stay.
    for name in ["sample-1.0.0.json", "sample-1.0.0.json.minisig"] {
        fs::remove_file(bench.path("store/bundles").join(name)).unwrap();
    }
    drop(store);
    let store = Store::open(&bench.path("store")).unwrap();
    store.gc(&crate::import::NO_GRACE).unwrap();
    for held in &delta.index.held {
        assert!(store.has_intact(held).unwrap(), "{} was collected", held.digest);
    }
    assert_clean(&bench.path("store"));
    // Rot is found where only its size is right.
    let rotten = delta.index.held[0];
    let path = store.blob_path(&rotten.digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(!store.has_intact(&rotten).unwrap());
}

#[test]
fn the_tags_go_back_to_a_bundle_of_before() {
    let bench = Bench::new();
    let (first, trust) = make(&bench, 1 << 16);
    let mut store = Store::create(&bench.path("store")).unwrap();
    load_into(&mut store, &first, &trust).unwrap();
    // The same names with other content.
    bench.layout(&["pause", "app", "more"], (1 << 16) + 7);
    let next = second(&bench, Base::default());
    load_into(&mut store, &next, &trust).unwrap();
    let tag_of = |store: &Store| {
        let list = store.list().unwrap();
        let repository = list.iter().find(|repository| repository.name.as_str() == "k8s.gcr.io/pause").unwrap();
        repository.tags[0].digest
    };
    let digest_in = |report: &CreateReport| report.index.images[0].digest;
    assert_ne!(digest_in(&first), digest_in(&next));
    assert_eq!(tag_of(&store), digest_in(&next));
    store.activate("sample-1.0.0").unwrap();
    assert_eq!(tag_of(&store), digest_in(&first));
    assert_eq!(store.bundles().unwrap().len(), 2);
    assert_clean(&bench.path("store"));
    store.activate("sample-1.1.0").unwrap();
    assert_eq!(tag_of(&store), digest_in(&next));
    assert!(store.activate("sample-9.9.9").unwrap_err().to_string().contains("sample-9.9.9"));
}
