//! The whole life of an image in a store, with the n-th change of the file tree failing, for every n; and a look at the
//! order of changes: nothing becomes visible that was not synced, and nothing is answered whose name was not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bundle::oci::{Algorithm, Digest, RepositoryName, Tag};
use camino::{Utf8Path, Utf8PathBuf};

use super::faults::{Fault, Recorded};
use super::{GcOptions, PutManifest, Store};
use crate::error::Result;
use crate::manifest::Manifest;

/// What was answered to the client; it must hold from then on.
#[derive(Debug, Default)]
struct Promises {
    blobs: BTreeSet<Digest>,
    manifests: BTreeSet<Digest>,
    tags: BTreeMap<&'static str, Option<Digest>>,
}

struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

fn image(seed: &str) -> Image {
    let layer = format!("layer of {seed} ").repeat(1000).into_bytes();
    let config = format!("{{\"config\":\"{seed}\"}}").into_bytes();
    let link =
        |bytes: &[u8]| serde_json::json!({"mediaType": "x", "digest": Digest::sha256_of(bytes), "size": bytes.len()});
    let subject = link(b"a subject that is not here");
    let manifest = serde_json::json!(
        {"schemaVersion": 2, "config": link(&config), "layers": [link(&layer)], "subject": subject}
    );
    Image { layer, config, manifest: manifest.to_string().into_bytes() }
}

fn name() -> RepositoryName {
    "lib/app".parse().unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn push_blob(store: &Store, bytes: &[u8], promises: &mut Promises) -> Result<()> {
    let digest = Digest::sha256_of(bytes);
    let mut upload = store.begin_upload(&name(), Algorithm::Sha256)?;
    for chunk in bytes.chunks(6000) {
        // As the handlers do: a chunk that failed is sent once more, from where the upload is.
        if store.append_to_upload(&mut upload, chunk).is_err() {
            store.append_to_upload(&mut upload, chunk)?;
        }
    }
    assert_eq!(upload.offset(), bytes.len() as u64);
    store.finish_upload(upload, &digest)?;
    promises.blobs.insert(digest);
    Ok(())
}

fn push_image(store: &Store, image: &Image, tags: &[&'static str], promises: &mut Promises) -> Result<()> {
    push_blob(store, &image.config, promises)?;
    push_blob(store, &image.layer, promises)?;
    let digest = Digest::sha256_of(&image.manifest);
    let manifest = Manifest::parse(&image.manifest, Some("application/vnd.oci.image.manifest.v1+json")).unwrap();
    for text in tags {
        // Until the answer it may be the old one or the new one.
        promises.tags.remove(text);
    }
    let names: Vec<_> = tags.iter().map(|text| tag(text)).collect();
    let outcome = store.put_manifest(&name(), &digest, &image.manifest, &manifest, &names, false)?;
    assert_eq!(outcome, PutManifest::Stored { missing: 0 });
    promises.manifests.insert(digest);
    promises.tags.extend(tags.iter().map(|text| (*text, Some(digest))));
    Ok(())
}

/// Push, push again, move a tag, delete, collect.
fn life(store: &Store, promises: &mut Promises) -> Result<()> {
    let (one, two) = (image("one"), image("two"));
    push_image(store, &one, &["v1", "latest"], promises)?;
    push_image(store, &one, &["v1"], promises)?;
    push_image(store, &two, &["v2", "latest"], promises)?;
    promises.tags.remove("v1");
    store.delete_tag(&name(), &tag("v1"))?;
    promises.tags.insert("v1", None);
    let gone = Digest::sha256_of(&one.manifest);
    promises.manifests.remove(&gone);
    store.delete_manifest(&name(), &gone)?;
    let gone: BTreeSet<_> =
        [&one.manifest, &one.layer, &one.config].iter().map(|bytes| Digest::sha256_of(bytes)).collect();
    promises.blobs.retain(|digest| !gone.contains(digest));
    store.gc(&GcOptions { grace: Duration::ZERO, ..GcOptions::default() })?;
    Ok(())
}

fn assert_kept(store: &Store, promises: &Promises, when: &str) {
    for digest in &promises.blobs {
        assert!(store.linked_blob(&name(), digest).unwrap().is_some(), "{when}: blob {digest}");
    }
    for digest in &promises.manifests {
        assert!(store.manifest(&name(), digest).unwrap().is_some(), "{when}: manifest {digest}");
    }
    for (text, digest) in &promises.tags {
        assert_eq!(store.resolve_tag(&name(), &tag(text)).unwrap(), *digest, "{when}: tag {text}");
    }
    let report = store.fsck().unwrap();
    assert!(report.is_clean(), "{when}: {:#?}", report.problems);
}

fn root_in(folder: &tempfile::TempDir) -> Utf8PathBuf {
    Utf8PathBuf::try_from(folder.path().join("store")).unwrap()
}

/// Whether the fault was reached.
fn trial(at: usize, fault: Fault) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let root = root_in(&folder);
    let store = Store::create(&root).unwrap();
    let mut promises = Promises::default();
    store.disk.faults.plan(at, fault);
    let result = life(&store, &mut promises);
    if !store.disk.faults.clear() {
        assert!(result.is_ok());
        return false;
    }
    let when = format!("{fault:?} at change {at}");
    if matches!(fault, Fault::Once | Fault::TornOnce) {
        // The server goes on: the store must be good as it is.
        assert_kept(&store, &promises, &when);
    }
    drop(store);
    let store = Store::open(&root).unwrap();
    assert_kept(&store, &promises, &format!("{when}, opened again"));
    // The client tries once more.
    let mut promises = Promises::default();
    life(&store, &mut promises).unwrap();
    assert_kept(&store, &promises, &format!("{when}, once more"));
    true
}

#[test]
fn whatever_change_fails_what_was_promised_is_kept_and_the_store_is_clean() {
    // Every fifth change, in another place for each way to fail.
    let trials = all_trials(5);
    assert!(trials > 100, "{trials}");
}

#[test]
#[ignore = "slow: some minutes"]
fn slow_every_change_fails_in_every_way() {
    let trials = all_trials(1);
    assert!(trials > 400, "{trials}");
}

fn all_trials(step: usize) -> usize {
    const LANES: usize = 8;
    let trials: usize = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let (fault, first) = (Fault::ALL[lane % 4], lane / 4);
                let start = first * step + lane % 4;
                scope.spawn(move || (start..).step_by(step * LANES / 4).take_while(|at| trial(*at, fault)).count())
            })
            .collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).sum()
    });
    println!("{trials} trials");
    trials
}

#[test]
fn nothing_is_renamed_before_it_is_synced_or_answered_before_its_name_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(&root_in(&folder)).unwrap();
    let (one, two) = (image("one"), image("two"));
    let mut promises = Promises::default();
    let mut renames = 0;
    // One answer after the other.
    let steps: [&dyn Fn(&mut Promises); 7] = [
        &|promises| push_blob(&store, &one.config, promises).unwrap(),
        &|promises| push_image(&store, &one, &["v1", "latest"], promises).unwrap(),
        &|promises| push_image(&store, &two, &["latest"], promises).unwrap(),
        &|_| assert!(store.link_blob(&"other".parse().unwrap(), &Digest::sha256_of(&one.layer)).unwrap()),
        &|_| assert!(store.unlink_blob(&"other".parse().unwrap(), &Digest::sha256_of(&one.layer)).unwrap()),
        &|_| assert!(store.delete_tag(&name(), &tag("v1")).unwrap()),
        &|_| assert!(store.delete_manifest(&name(), &Digest::sha256_of(&one.manifest)).unwrap()),
    ];
    for (number, step) in steps.iter().enumerate() {
        store.disk.faults.start_record();
        step(&mut promises);
        let record = store.disk.faults.take_record();
        renames += audit(&record, store.root(), number);
    }
    assert!(renames > 20, "{renames}");
}

/// Checks the order of the changes of one answer; gives how many renames there were.
fn audit(record: &[Recorded], root: &Utf8Path, step: usize) -> usize {
    let mut renames = 0;
    let synced_after = |at: usize, path: &Utf8Path| {
        record[at..].iter().any(|change| *change == Recorded::SyncDirectory(path.to_owned()))
    };
    for (at, change) in record.iter().enumerate() {
        let visible =
            |path: &Utf8Path| path.starts_with(root.join("blobs")) || path.starts_with(root.join("repositories"));
        match change {
            Recorded::Rename(from, to) => {
                renames += 1;
                let before = &record[..at];
                let written = before.iter().rposition(|change| *change == Recorded::Write(from.clone()));
                let synced = before.iter().rposition(|change| *change == Recorded::SyncFile(from.clone()));
                assert!(synced.is_some() && synced >= written, "step {step}: {to} was not synced before its rename");
                assert!(synced_after(at, to.parent().unwrap()), "step {step}: the name of {to} was not synced");
            }
            Recorded::MakeDirectory(path) if visible(path) => {
                assert!(synced_after(at, path.parent().unwrap()), "step {step}: the name of {path} was not synced");
            }
            Recorded::Remove(path) if visible(path) => {
                assert!(synced_after(at, path.parent().unwrap()), "step {step}: the end of {path} was not synced");
            }
            _ => {}
        }
    }
    renames
}
