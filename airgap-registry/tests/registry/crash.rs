//! kill −9 at any moment: the store is clean afterwards, what was answered with 201 is there, and work goes on.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use airgap_registry::Store;
use bundle::keys::TrustedKeys;
use bundle::load::{LoadOptions, load};
use bundle::oci::Digest;
use camino::Utf8Path;

use crate::harness::{Bench, Process, assert_clean, child_test, noise};
use crate::import;

#[test]
fn a_server_that_is_killed_under_load_keeps_what_it_promised() {
    kill_under_load(10);
}

#[test]
#[ignore = "slow: some minutes"]
fn slow_a_server_that_is_killed_hundreds_of_times_keeps_what_it_promised() {
    // A new store now and then: each round looks at all of it.
    (0..8).for_each(|_| kill_under_load(25));
}

fn kill_under_load(kills: u64) {
    let bench = Bench::new();
    let config = bench.plain_config();
    let promised: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
    for round in 0..kills {
        let process = Process::start(&bench, &config);
        let client = process.admin();
        for (path, body) in &*promised.lock().unwrap() {
            let reply = client.get(path);
            assert!(reply.status == 200 && reply.body == *body, "round {round}: {path} was promised: {}", reply.status);
        }
        let pushers: Vec<_> = (0..3)
            .map(|pusher| {
                let (client, promised) = (client.clone(), Arc::clone(&promised));
                std::thread::spawn(move || {
                    // The loop ends when the server does: then a request gets no answer, and an expectation fails.
                    let ended = std::panic::catch_unwind(|| {
                        for number in 0.. {
                            let name = format!("r{pusher}/i{}", number % 3);
                            let size = 50_000 + usize::try_from(number % 5).unwrap() * 200_000;
                            let layer = noise(&format!("{round} {pusher} {number}"), size);
                            let tag = format!("t{round}-{number}");
                            let (digest, manifest) = client.push_image(&name, &tag, &layer);
                            let mut promised = promised.lock().unwrap();
                            promised.insert(format!("/v2/{name}/manifests/{tag}"), manifest.clone());
                            promised.insert(format!("/v2/{name}/manifests/{digest}"), manifest);
                            if number % 4 == 0 {
                                promised.insert(format!("/v2/{name}/blobs/{}", Digest::sha256_of(&layer)), layer);
                            }
                        }
                    });
                    let why = ended.unwrap_err().downcast_ref::<String>().cloned().unwrap_or_default();
                    let is_end = ["status: 0", "Connection", "BrokenPipe", "shorter than promised"]
                        .iter()
                        .any(|word| why.contains(word));
                    assert!(is_end, "the server answered what it should not: {why}");
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(30 + round * 37 % 300));
        process.kill();
        for pusher in pushers {
            assert!(pusher.join().is_ok());
        }
        assert_clean(&bench.path("store"));
    }
    let promised = promised.lock().unwrap().len();
    assert!(promised > 20, "the pushers hardly got anything done: {promised}");
    println!("{kills} kills, {promised} promises kept");
}

#[test]
fn an_upload_goes_on_after_the_server_was_killed() {
    let bench = Bench::new();
    let config = bench.plain_config();
    let blob = noise("resume", 5_000_000);
    let digest = Digest::sha256_of(&blob);

    let process = Process::start(&bench, &config);
    let upload = process.admin().send("POST", "/v2/a/blobs/uploads/", &[], b"").header("location").to_owned();
    assert_eq!(
        process.admin().send("PATCH", &upload, &[("Content-Range", "0-999999")], &blob[..1_000_000]).status,
        202
    );
    let mut stream = process.admin().open("PATCH", &upload, &[("Content-Range", "1000000-4999999")], 4_000_000);
    stream.write_all(&blob[1_000_000..3_000_000]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    process.kill();

    let report = assert_clean(&bench.path("store"));
    assert_eq!((report.blobs, report.unfinished), (0, 1));
    let process = Process::start(&bench, &config);
    let reply = process.admin().get(&upload);
    let there: usize = reply.header("range").strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
    assert!(reply.status == 204 && (1_000_000..=3_000_000).contains(&there), "{reply:?}");
    assert_eq!(process.admin().get(&format!("/v2/a/blobs/{digest}")).status, 404);
    let range = format!("{there}-4999999");
    let reply = process.admin().send("PATCH", &upload, &[("Content-Range", &range)], &blob[there..]);
    assert_eq!(reply.status, 202);
    assert_eq!(process.admin().send("PUT", &format!("{upload}?digest={digest}"), &[], b"").status, 201);
    assert!(process.admin().get(&format!("/v2/a/blobs/{digest}")).body == blob);
    process.kill();
    assert_eq!(assert_clean(&bench.path("store")).unfinished, 0);
}

/// Not a test: a load that can be killed.
#[test]
#[ignore = "run as a process of its own by another test"]
fn load_process() {
    let Ok(folder) = std::env::var("COFFERDAM_TEST_LOAD") else { return };
    let folder = Utf8Path::new(&folder);
    let trust = TrustedKeys::load(&[folder.join("keys/signing.pub")]).unwrap();
    let file = std::fs::File::open(folder.join("sample.tar.zst")).unwrap();
    let mut store = Store::create(&folder.join("store")).unwrap();
    load(file, &trust, &mut store, &LoadOptions::default(), &mut |_| ()).unwrap();
}

#[test]
fn a_load_that_is_killed_shows_nothing_and_goes_on() {
    let bench = Bench::new();
    let (bundle, trust) = import::make(&bench, 12 << 20);
    let (mut kills, mut whole, mut skipped) = (0, 0, Vec::new());
    let mut wait = Duration::from_millis(5);
    loop {
        let mut child = child_test("crash::load_process").env("COFFERDAM_TEST_LOAD", bench.path("")).spawn().unwrap();
        let deadline = Instant::now() + wait;
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "the load failed");
                break true;
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                break false;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        if !bench.path("store/version").exists() {
            wait += Duration::from_millis(10);
            continue;
        }
        let store = Store::open(&bench.path("store")).unwrap();
        let visible =
            (store.repositories().unwrap().len(), store.blobs().unwrap().len(), store.bundles().unwrap().len());
        let complete = (3, bundle.index.blobs.len(), 1);
        assert!(visible == complete || (!ended && visible == (0, 0, 0)), "{visible:?}");
        let report = store.fsck().unwrap();
        assert!(report.is_clean(), "{:#?}", report.problems);
        skipped.push(report.unfinished);
        kills += usize::from(!ended);
        if visible == complete {
            whole += 1;
            if ended {
                break;
            }
        }
        // Each next load gets further, because it need not write what is staged.
        wait += Duration::from_millis(8);
    }
    assert!(kills >= 5, "the load was too quick to be killed: {kills}");
    assert!(skipped.iter().any(|staged| *staged > 0), "no kill hit in the middle: {skipped:?}");
    println!("{kills} kills; staged after each: {skipped:?}; complete {whole} times");
    let mut store = Store::open(&bench.path("store")).unwrap();
    assert_eq!(import::load_into(&mut store, &bundle, &trust).unwrap().blobs_written, 0);
    assert_clean(&bench.path("store"));
}

#[test]
fn memory_does_not_grow_with_blobs_and_the_end_is_orderly() {
    let bench = Bench::new();
    let process = Process::start(&bench, &bench.plain_config());
    let client = process.admin();
    let size = 200 << 20;
    let blob = noise("large", size);
    let digest = client.push_blob("a", &blob);
    // Eight at once, and a client that does not read.
    let path = format!("/v2/a/blobs/{digest}");
    let lazy = client.open("GET", &path, &[], 0);
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (client, path) = (client.clone(), path.clone());
            std::thread::spawn(move || client.get(&path).body.len())
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), size);
    }
    let pushers: Vec<_> = (0..4)
        .map(|number| {
            let (client, bytes) = (client.clone(), blob[number..50 << 20].to_vec());
            std::thread::spawn(move || client.push_blob("b", &bytes))
        })
        .collect();
    for pusher in pushers {
        pusher.join().unwrap();
    }
    let peak = process.peak_memory();
    println!("peak memory: {peak} KiB");
    assert!(peak <= 50 << 10, "{peak} KiB");

    // SIGTERM: a request that is going on is finished, and systemd is told.
    let upload = client.send("POST", "/v2/a/blobs/uploads/", &[], b"").header("location").to_owned();
    let late = format!("{upload}?digest={}", Digest::sha256_of(b"late"));
    let mut stream = client.open("PUT", &late, &[], 4);
    std::thread::sleep(Duration::from_millis(100));
    process.signal("TERM");
    assert!(process.said().starts_with("STOPPING=1"));
    std::thread::sleep(Duration::from_millis(100));
    stream.write_all(b"late").unwrap();
    assert_eq!(crate::http::read_reply(stream, false).status, 201);
    drop(lazy);
    process.wait();
    assert_clean(&bench.path("store"));
}
