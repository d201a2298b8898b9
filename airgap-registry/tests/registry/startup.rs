//! What goes wrong before anything is served, said with a hint; and what the log says afterwards.

use std::collections::BTreeSet;
use std::fs::{self, FileTimes};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use airgap_registry::{Config, Error, Server, Store};
use bundle::oci::Digest;
use camino::Utf8PathBuf;

use crate::harness::{Bench, Process, Running, USER};

type Breaking<'a> = &'a dyn Fn(&mut Config);

fn refused(config: Config) -> Error {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Server::bind(config).await.err().expect("the server started") })
}

#[test]
fn what_stands_against_a_start_is_named_with_a_hint() {
    let bench = Bench::new();
    let good = bench.tls_config();
    let taken = Running::start(good.clone());
    let tls = |config: &mut Config, change: &dyn Fn(&mut airgap_registry::TlsConfig)| {
        config.tls.as_mut().map(change).unwrap();
    };
    let table: [(&str, &str, Breaking<'_>); 11] = [
        ("cannot listen on 127.0.0.1", "another program listens there", &|config| config.listen = vec![taken.address]),
        ("cannot listen on 192.0.2.1:5000", "is not one of this machine's", &|config| {
            config.listen = vec!["192.0.2.1:5000".parse().unwrap()];
        }),
        ("another registry serves from it", "", &|config| config.store = bench.path("store")),
        ("is not a registry store", "an empty one", &|config| config.store = bench.path("pki")),
        ("server.crt: there is no certificate", "PEM", &|config| {
            tls(config, &|tls| {
                tls.certificate = bench.write("bad/server.crt", "nothing");
            });
        }),
        ("absent.crt: No such file", "readable", &|config| {
            tls(config, &|tls| tls.certificate = bench.path("absent.crt"));
        }),
        ("is not the key of the certificate", "one pair", &|config| {
            tls(config, &|tls| {
                tls.key = bench.path("pki/node.key");
            });
        }),
        ("there is no private key", "not encrypted", &|config| {
            tls(config, &|tls| {
                tls.key = bench.write("bad/key", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
            });
        }),
        ("names a credential", "through its unit", &|config| {
            tls(config, &|tls| {
                tls.key = "$CREDENTIALS_DIRECTORY/tls.key".into();
            });
        }),
        ("ca: there is no certificate", "PEM", &|config| {
            tls(config, &|tls| {
                tls.client_ca = Some(bench.write("bad/ca", ""));
            });
        }),
        ("line 1: the hash is neither bcrypt", "htpasswd -B", &|config| {
            config.htpasswd = Some(bench.write("bad/htpasswd", "ada:secret\n"));
        }),
    ];
    for (message, hint, breaking) in table {
        let mut config = Config { store: bench.path("fresh"), ..good.clone() };
        breaking(&mut config);
        let error = refused(config);
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().unwrap().contains(hint), "{error}: {:?}", error.hint());
        assert!(!error.to_string().contains("c2VjcmV0") && !error.to_string().contains("secret"), "{error}");
    }
}

/// A start costs the same whatever the store holds: no folder of blobs is read, as their times of access tell.
#[test]
fn a_start_reads_no_folder_of_blobs() {
    let bench = Bench::new();
    let config = bench.plain_config();
    drop(Running::start(config.clone()));
    let store = Store::open(&config.store).unwrap();
    let mut folders = BTreeSet::new();
    for number in 0..2_000_u32 {
        let content = number.to_be_bytes();
        let path = store.blob_path(&Digest::sha256_of(&content));
        let folder = path.parent().unwrap().to_owned();
        fs::create_dir_all(&folder).unwrap();
        fs::write(&path, content).unwrap();
        folders.insert(folder);
    }
    drop(store);
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_hours(24);
    let set_back = |folder: &Utf8PathBuf| {
        let times = FileTimes::new().set_accessed(long_ago);
        fs::File::open(folder).unwrap().set_times(times).unwrap();
    };
    let was_read = |folder: &&Utf8PathBuf| folder.metadata().unwrap().accessed().unwrap() != long_ago;
    folders.iter().for_each(set_back);
    // The filesystem must keep these times, or the test says nothing.
    let first = folders.first().unwrap();
    assert!(folders.len() > 200 && first.read_dir_utf8().unwrap().count() > 0);
    assert!(was_read(&first), "this filesystem keeps no times of access");
    set_back(first);

    let server = Running::start(config);
    assert_eq!(folders.iter().filter(was_read).count(), 0);
    drop(server);
}

#[test]
fn a_store_of_another_format_is_left_alone() {
    let bench = Bench::new();
    let config = bench.plain_config();
    drop(Running::start(config.clone()));
    bench.write("store/version", "cofferdam-registry-store 99\n");
    let error = refused(config);
    assert!(error.to_string().contains("99") && error.hint().is_some(), "{error}");
    assert_eq!(fs::read_to_string(bench.path("store/version")).unwrap(), "cofferdam-registry-store 99\n");
}

#[test]
fn writes_and_refusals_stand_in_the_audit_log_and_passwords_do_not() {
    let bench = Bench::new();
    let log = fs::File::create(bench.path("log")).unwrap();
    let process = Process::start_with(&bench, &bench.plain_config(), Stdio::from(log));
    let client = process.admin();
    let (digest, _) = client.push_image("a", "1", b"layer");
    client.get("/v2/a/manifests/1");
    client.anonymous().get("/v2/a/manifests/1");
    crate::http::Client { user: Some(("mallory", "guess-1234")), ..client.clone() }.get("/v2/");
    client.send("DELETE", "/v2/a/manifests/1", &[], b"");
    process.signal("TERM");
    process.wait();

    let text = fs::read_to_string(bench.path("log")).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| line["target"] == "cofferdam::audit")
        .map(|line| line["fields"].clone())
        .collect();
    let seen = |who: &str, action: &str, status: u64, digest: &str| {
        lines.iter().any(|line| {
            line["who"] == who && line["action"] == action && line["status"] == status && line["digest"] == digest
        })
    };
    let layer = Digest::sha256_of(b"layer").to_string();
    assert!(seen("user:ada", "finish-upload", 201, &layer), "{lines:#?}");
    assert!(seen("user:ada", "push-manifest", 201, &digest), "{lines:#?}");
    assert!(seen("anonymous", "pull-manifest", 401, ""), "{lines:#?}");
    assert!(seen("unproven:mallory", "base", 401, ""), "{lines:#?}");
    assert!(seen("user:ada", "delete-manifest", 202, ""), "{lines:#?}");
    assert!(!lines.iter().any(|line| line["action"] == "pull-manifest" && line["status"] == 200));
    assert!(lines.iter().all(|line| line["peer"].as_str().unwrap().starts_with("127.0.0.1:")));
    assert!(!text.contains(USER.1) && !text.contains("guess-1234"));
}
