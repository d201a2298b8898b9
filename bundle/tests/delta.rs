//! Deltas: what sites hold is left out, what a site lacks is listed before anything is written, and no lie about it is
//! believed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::collections::HashSet;
use std::fs;

use bench::{Bench, MemorySink};
use bundle::create::{CreateReport, RegistryOptions};
use bundle::delta::{Base, HeldBlob, Inventory};
use bundle::index::Index;
use bundle::keys::keygen;
use bundle::load::{LoadOptions, load};
use bundle::oci::Digest;
use bundle::{Error, verify};

/// A release, its successor with another tool and another version of the pack, and the successor as a delta.
struct Releases {
    bench: Bench,
    first: CreateReport,
    second: CreateReport,
    delta: CreateReport,
}

fn second_yaml(bench: &Bench) -> String {
    bench.write("tool", b"#!/bin/sh\necho another tool\n".repeat(500));
    bench.write("migrate.yaml", "kind: Job\nspec: {template: {spec: {containers: [{image: \"pause:3\"}]}}}\n");
    bench.write("back.yaml", "kind: Job\nspec: {template: {spec: {containers: [{image: \"pause:3\"}]}}}\n");
    bench::SAMPLE.replace("1.2.3", "1.3.0").replace("\"1.0\"", "1.1.0")
        + "    migrations:
      - name: move
        from: \"<1.1.0\"
        apply: { name: migrate.yaml, source: migrate.yaml }
        undo: { name: back.yaml, source: back.yaml }
"
}

fn base_of(indexes: &[&Index]) -> Base {
    let mut base = Base::default();
    for index in indexes {
        base.add_bundle(index);
    }
    base
}

impl Releases {
    fn new() -> Self {
        let bench = Bench::new();
        let first = bench.create(&bench.sample_yaml(), "1.tar.zst").unwrap();
        let yaml = second_yaml(&bench);
        let second = bench.create(&yaml, "2.tar.zst").unwrap();
        let base = base_of(&[&first.index]);
        let delta = bench.create_on(&yaml, "delta.tar.zst", RegistryOptions::default(), base).unwrap();
        Self { bench, first, second, delta }
    }

    fn load(&self, sink: &mut MemorySink, path: &camino::Utf8Path) -> Result<bundle::load::LoadReport, Error> {
        let bytes = fs::read(path).unwrap();
        load(bytes.as_slice(), &self.bench.trust(), sink, &LoadOptions::default(), &mut |_| ())
    }
}

fn digests(index: &Index) -> HashSet<Digest> {
    index.contents().map(|blob| blob.digest).collect()
}

#[test]
fn a_delta_makes_a_site_hold_what_the_full_bundle_would() {
    let releases = Releases::new();
    let Releases { first, second, delta, .. } = &releases;
    assert_eq!(digests(&delta.index), digests(&second.index));
    assert_eq!(delta.index.base, ["sample-1.2.3"]);
    assert!(!delta.index.held.is_empty() && delta.size < second.size);
    // Everything that the proof reads is inside, also where the site holds it.
    let inside: HashSet<_> = delta.index.blobs.iter().map(|blob| blob.digest).collect();
    assert!(delta.index.images.iter().all(|image| inside.contains(&image.digest)));
    let yaml = delta.index.packs.iter().flat_map(|pack| pack.all_manifests());
    assert_eq!(yaml.filter(|manifest| inside.contains(&manifest.digest)).count(), 3);

    let mut by_delta = MemorySink::default();
    releases.load(&mut by_delta, &first.path).unwrap();
    let report = releases.load(&mut by_delta, &delta.path).unwrap();
    assert_eq!(report.blobs_left_out, delta.index.held.len() as u64);
    assert_eq!(report.bytes_read, delta.size);
    let mut by_full = MemorySink::default();
    releases.load(&mut by_full, &first.path).unwrap();
    releases.load(&mut by_full, &second.path).unwrap();
    let (by_delta, by_full) = (by_delta.state.lock().unwrap(), by_full.state.lock().unwrap());
    assert_eq!(by_delta.blobs, by_full.blobs);
    assert_eq!(by_delta.published[1].0.packs, by_full.published[1].0.packs);
}

#[test]
fn twice_the_same_bytes_whatever_the_base_is_given_as() {
    let releases = Releases::new();
    let Releases { bench, first, second, delta } = &releases;
    let yaml = second_yaml(bench);
    let good = fs::read(&delta.path).unwrap();
    let again = |name: &str, base: Base| {
        let made = bench.create_on(&yaml, name, RegistryOptions::default(), base).unwrap();
        fs::read(made.path).unwrap()
    };
    assert!(again("b.tar.zst", base_of(&[&first.index])) == good, "two runs differ");
    assert!(
        again("c.tar.zst", base_of(&[&first.index, &first.index])) == good,
        "a base that is named twice counts once"
    );
    let inventory = Inventory {
        schema_version: 1,
        bundles: vec!["sample-1.2.3".to_owned()],
        blobs: first.index.contents().collect(),
    };
    let mut base = Base::default();
    base.add_inventory(&serde_json::to_vec(&inventory).unwrap()).unwrap();
    assert!(again("d.tar.zst", base) == good, "an inventory of the same blobs gives another bundle");
    assert!(again("e.tar.zst", Base::default()) == fs::read(&second.path).unwrap(), "no base is no delta");

    // A delta can be made on a delta: its site holds both.
    let on_delta = base_of(&[&delta.index]);
    let made = bench.create_on(&yaml.replace("1.3.0", "1.4.0"), "f.tar.zst", RegistryOptions::default(), on_delta);
    let made = made.unwrap().index;
    assert_eq!(digests(&made), digests(&second.index));
    assert!(made.held.len() > delta.index.held.len(), "the new tool is left out, too");
}

#[test]
fn what_a_site_lacks_is_listed_before_anything_is_written() {
    let releases = Releases::new();
    let Releases { bench, first, delta, .. } = &releases;
    let mut empty = MemorySink::default();
    let error = releases.load(&mut empty, &delta.path).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    let Error::NotHeld { missing, base } = &error else { panic!("{error}") };
    assert_eq!((missing, base), (&delta.index.held, &delta.index.base));
    let text = error.to_string();
    assert!(
        text.contains("sample-1.2.3") && missing.iter().all(|blob| text.contains(&blob.digest.to_string())),
        "{text}"
    );
    assert!(error.hint().unwrap().contains("inventory"));
    assert!(empty.state.lock().unwrap().blobs.is_empty(), "something was written");

    // One blob is gone, another one has the wrong size: these two are named and no other.
    let mut sink = MemorySink::default();
    releases.load(&mut sink, &first.path).unwrap();
    let (gone, cut) = (delta.index.held[0], delta.index.held[1]);
    sink.state.lock().unwrap().blobs.remove(&gone.digest);
    sink.state.lock().unwrap().blobs.get_mut(&cut.digest).unwrap().pop();
    let error = releases.load(&mut sink, &delta.path).unwrap_err();
    let Error::NotHeld { missing, .. } = &error else { panic!("{error}") };
    assert_eq!(*missing, [gone, cut]);
    assert_eq!(sink.state.lock().unwrap().published.len(), 1);

    // Verified without a store it is good, and says what it leaves out.
    let bytes = fs::read(&delta.path).unwrap();
    let report = verify(bytes.as_slice(), &bench.trust(), &LoadOptions::default(), &mut |_| ()).unwrap();
    assert_eq!(report.blobs_left_out, delta.index.held.len() as u64);
    assert_eq!(report.bytes_left_out, delta.index.held.iter().map(|blob| blob.size).sum::<u64>());
}

#[test]
fn every_flipped_byte_of_a_delta_is_found() {
    let releases = Releases::new();
    let mut bytes = fs::read(&releases.delta.path).unwrap();
    let trust = releases.bench.trust();
    // All bytes are tried on full bundles; what a delta has of its own is in the index, at the front.
    for at in (0..bytes.len()).filter(|at| *at < 6000 || at % 7 == 0) {
        bytes[at] ^= 1 << (at % 8);
        let result = verify(bytes.as_slice(), &trust, &LoadOptions::default(), &mut |_| ());
        assert_eq!(result.expect_err("nobody noticed").exit_code(), 4, "byte {at}");
        bytes[at] ^= 1 << (at % 8);
    }
}

type Lie = Box<dyn Fn(&mut Index)>;

/// What only an attacker with a trusted key could make.
#[test]
fn indexes_that_lie_about_what_is_left_out() {
    let releases = Releases::new();
    let Releases { bench, delta, .. } = &releases;
    let bytes = fs::read(&delta.path).unwrap();
    let index = &delta.index;
    let (held, inside, manifest) = (index.held[0], index.blobs[0].digest, index.images[0].clone());
    let lies: Vec<(&str, Lie, &str)> = vec![
        ("left out twice", Box::new(move |index| index.held.push(held)), "listed twice"),
        (
            "left out and inside",
            Box::new(move |index| index.held.push(HeldBlob { digest: inside, size: 1 })),
            "listed twice, or is also inside",
        ),
        (
            "sizes that overflow",
            Box::new(|index| index.held.push(HeldBlob { digest: Digest::sha256_of(b"x"), size: u64::MAX })),
            "beyond any medium",
        ),
        (
            "an image's manifest is left out, so that nobody reads it",
            Box::new(move |index| {
                index.blobs.retain(|blob| blob.digest != manifest.digest);
                index.held.push(HeldBlob { digest: manifest.digest, size: manifest.size });
            }),
            "a manifest is left out",
        ),
        (
            "a migration's YAML is left out",
            Box::new(|index| {
                let apply = index.packs[1].descriptor.migrations[0].apply.clone();
                index.blobs.retain(|blob| blob.digest != apply.digest);
                index.held.push(HeldBlob { digest: apply.digest, size: apply.size });
            }),
            "a manifest is left out",
        ),
        ("a size that is not the manifest's", Box::new(|index| index.held[0].size += 1), "not complete"),
        (
            "not left out and not inside",
            Box::new(|index| {
                index.held.remove(0);
            }),
            "not complete",
        ),
        ("a next key that is none", Box::new(|index| index.trust.next_keys.push("RWQ".to_owned())), "public key"),
    ];
    for (name, lie, says) in lies {
        let mut index = index.clone();
        lie(&mut index);
        let forged = bench.forge_head(&bytes, &index);
        let error = verify(forged.as_slice(), &bench.trust(), &LoadOptions::default(), &mut |_| ());
        let error = error.expect_err(name);
        assert_eq!(error.exit_code(), 4, "{name}: {error}");
        assert!(error.to_string().contains(says), "{name}: {error}");
    }
    let honest = bench.forge_head(&bytes, index);
    verify(honest.as_slice(), &bench.trust(), &LoadOptions::default(), &mut |_| ()).unwrap();
}

#[test]
fn inventories_that_cannot_be_used() {
    for (json, says) in [
        ("{", "EOF"),
        ("{\"schema-version\": 2, \"bundles\": [], \"blobs\": []}", "schema version is 2"),
        ("{\"schema-version\": 1, \"bundles\": []}", "blobs"),
        ("{\"schema-version\": 1, \"bundles\": [], \"blobs\": [{\"digest\": \"sha256:../x\", \"size\": 1}]}", "digest"),
    ] {
        let error = Base::default().add_inventory(json.as_bytes()).unwrap_err();
        assert!(error.contains(says), "{json}: {error}");
    }
}

#[test]
fn keys_for_later_bundles_are_in_the_signed_index() {
    let bench = Bench::new();
    let next = keygen(&bench.path("next"), None).unwrap();
    let yaml = bench.sample_yaml().replace("upgrade-from:", "next-trust-keys: [next/signing.pub]\nupgrade-from:");
    let index = bench.create(&yaml, "a.tar.zst").unwrap().index;
    let mut trust = bundle::keys::TrustedKeys::default();
    assert_eq!(trust.add(&index.trust.next_keys[0]).unwrap(), next.id);
    let error = bench.create(&yaml.replace("next/signing.pub", "tool"), "b.tar.zst").unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
}
