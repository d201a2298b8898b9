//! The keystore on a real file system.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use certs::{CertsError, EntryName, Keystore};
use tempfile::TempDir;

fn name(text: &str) -> EntryName {
    text.parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn entries_are_private_and_come_back() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keystore");
    let store = Keystore::open(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
    let big: Vec<u8> = (0..=255).cycle().take(16 * 1024 * 1024).collect();
    for (entry, data) in [("site-ca.key", b"one".as_slice()), ("empty", b""), ("luks-header", &big)] {
        store.write(&name(entry), data).unwrap();
        assert_eq!(mode(&path.join(entry)), 0o600, "{entry}");
        assert!(*store.read(&name(entry)).unwrap() == data, "{entry}");
    }
    store.write(&name("site-ca.key"), b"two").unwrap();
    assert_eq!(**store.read(&name("site-ca.key")).unwrap(), *b"two");
    assert_eq!(store.list().unwrap(), [name("empty"), name("luks-header"), name("site-ca.key")]);
    assert!(store.contains(&name("empty")).unwrap());
    store.remove(&name("empty")).unwrap();
    assert!(!store.contains(&name("empty")).unwrap());
    assert!(matches!(store.read(&name("empty")), Err(CertsError::NoEntry { .. })));
    assert!(matches!(store.remove(&name("empty")), Err(CertsError::NoEntry { .. })));
    assert_eq!(Keystore::open(&path).unwrap().list().unwrap().len(), 2);
    assert!(store.write(&name("huge"), &vec![0; 33 * 1024 * 1024]).is_err());
    assert!(Keystore::open(&folder.path().join("no/parent")).is_err());
}

#[test]
fn what_is_open_to_others_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keystore");
    let store = Keystore::open(&path).unwrap();
    store.write(&name("key"), b"secret").unwrap();
    let refused = |what: &str| {
        let error = store.read(&name("key")).unwrap_err();
        assert!(matches!(error, CertsError::Unsafe { .. }), "{what}: {error}");
        assert!(!error.to_string().contains("secret") && error.hint().is_some());
        error.to_string()
    };
    for open in [0o640, 0o604, 0o620, 0o602, 0o610] {
        chmod(&path.join("key"), open);
        assert!(refused("mode").contains(&format!("{open:04o}")));
    }
    fs::remove_file(path.join("key")).unwrap();
    fs::write(folder.path().join("elsewhere"), "secret").unwrap();
    chmod(&folder.path().join("elsewhere"), 0o600);
    symlink("../elsewhere", path.join("key")).unwrap();
    refused("link");
    // Writing replaces the link and does not follow it.
    store.write(&name("key"), b"mine").unwrap();
    assert_eq!(fs::read(folder.path().join("elsewhere")).unwrap(), b"secret");
    assert_eq!(**store.read(&name("key")).unwrap(), *b"mine");
    fs::remove_file(path.join("key")).unwrap();
    fs::create_dir(path.join("key")).unwrap();
    refused("folder");
    fs::remove_dir(path.join("key")).unwrap();
    let fifo = Command::new("mkfifo").arg(path.join("key")).status().unwrap();
    assert!(fifo.success());
    refused("pipe");

    for open in [0o750, 0o705, 0o711] {
        chmod(&path, open);
        assert!(matches!(Keystore::open(&path), Err(CertsError::Unsafe { .. })), "{open:o}");
    }
    chmod(&path, 0o700);
    symlink("keystore", folder.path().join("link")).unwrap();
    assert!(Keystore::open(&folder.path().join("link")).is_err());
    assert!(Keystore::open(&folder.path().join("elsewhere")).is_err());
}

#[test]
fn names_cannot_leave_the_folder() {
    for bad in ["", ".", "..", "../x", "a/b", "/etc/passwd", ".new-1", "-x", "A", "a b", "ü", "a\0b", &"a".repeat(101)]
    {
        assert!(bad.parse::<EntryName>().is_err(), "{bad:?}");
    }
    for good in ["a", "site-ca.key", "node_1.pem", &"a".repeat(100)] {
        assert_eq!(good.parse::<EntryName>().unwrap().as_str(), good);
    }
}

#[test]
fn leftovers_of_a_crash_are_swept_and_never_seen() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keystore");
    let store = Keystore::open(&path).unwrap();
    fs::write(path.join(".new-0011223344556677"), "half a sec").unwrap();
    assert!(store.list().unwrap().is_empty());
    store.write(&name("key"), b"whole").unwrap();
    let files: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["key"]);
}

#[test]
fn a_reader_sees_the_old_or_the_new_and_nothing_between() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keystore");
    let (one, other) = (vec![b'1'; 300_000], vec![b'2'; 200_000]);
    let store = Keystore::open(&path).unwrap();
    store.write(&name("key"), &one).unwrap();
    let done = AtomicBool::new(false);
    let reads = thread::scope(|scope| {
        let writers: Vec<_> = [&one, &other]
            .into_iter()
            .map(|data| {
                let store = Keystore::open(&path).unwrap();
                scope.spawn(move || (0..100).for_each(|_| store.write(&name("key"), data).unwrap()))
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                let seen = store.read(&name("key")).unwrap();
                assert!(*seen == one || *seen == other, "{} bytes", seen.len());
                reads += 1;
            }
            reads
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(reads > 10, "{reads}");
    assert_eq!(store.list().unwrap(), [name("key")]);
}

#[test]
fn a_writer_that_is_killed_leaves_a_whole_entry() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keystore");
    let store = Keystore::open(&path).unwrap();
    store.write(&name("key"), &vec![b'0'; 100_000]).unwrap();
    for round in 0..20_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "keystore::write_until_killed", "--ignored", "--nocapture"])
            .env("CERTS_TEST_KEYSTORE", &path)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // It writes another letter than the one that is there when it begins; from then on, at another moment each round.
        let before = store.read(&name("key")).unwrap()[0];
        while store.read(&name("key")).unwrap()[0] == before && child.try_wait().unwrap().is_none() {
            thread::sleep(std::time::Duration::from_millis(1));
        }
        thread::sleep(std::time::Duration::from_micros(700 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let seen = store.read(&name("key")).unwrap();
        assert_eq!(seen.len(), 100_000);
        assert!(seen.iter().all(|byte| *byte == seen[0]));
    }
    let seen = store.read(&name("key")).unwrap();
    assert_ne!(seen[0], b'0', "the writers never got to write");
    store.write(&name("key"), b"after").unwrap();
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "leftovers were not swept");
}

#[test]
#[ignore = "is run by the test above, in a process that it kills"]
fn write_until_killed() {
    let Some(path) = std::env::var_os("CERTS_TEST_KEYSTORE") else { return };
    let store = Keystore::open(Path::new(&path)).unwrap();
    for byte in (b'a'..=b'z').cycle() {
        store.write(&name("key"), &vec![byte; 100_000]).unwrap();
    }
}
