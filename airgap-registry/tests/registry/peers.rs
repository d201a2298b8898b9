//! More than one registry: a follower becomes equal to its leader, and what is missing is answered from a peer.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use airgap_registry::store::GcOptions;
use airgap_registry::{Config, Error, Limits, PeersConfig, Store, SyncOptions, SyncReport, TlsConfig, sync};
use bundle::oci::Digest;
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::clients::cert_dir;
use crate::harness::{Bench, Process, Running, assert_clean, attempt, noise, run};
use crate::import;

/// The first bench makes the certificates of the site, the others use them.
struct Site {
    pki: Bench,
}

impl Site {
    fn new() -> Self {
        let pki = Bench::new();
        pki.certificates();
        Self { pki }
    }

    /// How another registry of the site is reached, as the holder of that certificate.
    fn peers(&self, identity: &str, servers: &[SocketAddr]) -> PeersConfig {
        PeersConfig {
            servers: servers.iter().map(url).collect(),
            ca: Some(self.pki.path("pki/ca.crt")),
            certificate: Some(self.pki.path(&format!("pki/{identity}.crt"))),
            key: Some(self.pki.path(&format!("pki/{identity}.key"))),
            ..PeersConfig::default()
        }
    }

    fn server(&self, bench: &Bench, peers: &[SocketAddr]) -> Config {
        let tls = TlsConfig {
            certificate: self.pki.path("pki/server.crt"),
            key: self.pki.path("pki/server.key"),
            client_ca: Some(self.pki.path("pki/ca.crt")),
        };
        Config {
            tls: Some(tls),
            access_log: true,
            peers: (!peers.is_empty()).then(|| self.peers("node", peers)),
            ..Config::new(bench.path("store"), vec!["127.0.0.1:0".parse().unwrap()])
        }
    }

    fn options(&self, store: &Utf8Path, leader: SocketAddr) -> SyncOptions {
        SyncOptions {
            store: store.to_owned(),
            leader: url(&leader),
            peers: self.peers("node", &[]),
            limits: Limits::default(),
            prune: false,
        }
    }

    /// As a node.
    fn status(&self, server: SocketAddr, path: &str) -> u16 {
        let arguments = self.curl(server, path);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        run("curl", &[&["-o", "/dev/null", "-w", "%{http_code}"], arguments.as_slice()].concat()).parse().unwrap()
    }

    fn get(&self, server: SocketAddr, path: &str) -> String {
        run("curl", &self.curl(server, path).iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn curl(&self, server: SocketAddr, path: &str) -> Vec<String> {
        let pki = |name: &str| self.pki.path(&format!("pki/{name}")).into_string();
        let url = format!("https://localhost:{}{path}", server.port());
        [&["-sS", "--cacert"].map(str::to_owned)[..], &[pki("ca.crt"), "--cert".to_owned(), pki("node.crt")]]
            .concat()
            .into_iter()
            .chain(["--key".to_owned(), pki("node.key"), url])
            .collect()
    }

    /// One of a server's numbers; 0 when there is none of that name.
    fn number(&self, server: SocketAddr, name: &str) -> u64 {
        let text = self.get(server, "/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cofferdam_registry_{name} ")));
        line.map_or(0, |value| value.parse().unwrap())
    }
}

fn url(address: &SocketAddr) -> String {
    format!("https://127.0.0.1:{}", address.port())
}

/// Fills a store with all that one can hold: images, one blob in two repositories, a list of platforms, a referrer, a
/// manifest whose blobs are not all there.
fn fill(bench: &Bench, images: usize, size: usize) -> Utf8PathBuf {
    let config = Config { sparse_manifests: true, ..bench.plain_config() };
    let server = Running::start(config);
    let client = server.admin();
    for number in 0..images {
        client.push_image(&format!("team/app-{number}"), "1", &noise(&format!("layer {number}"), size));
    }
    client.push_image("other/app", "1", &noise("layer 0", size));
    let (child, bytes) = client.push_image("list", "amd64", b"a layer for one platform");
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let absent = Digest::sha256_of(b"another platform");
    let list = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        {"mediaType": kind, "digest": child, "size": bytes.len()}, {"mediaType": kind, "digest": absent, "size": 7}]});
    let kinds = [("Content-Type", "application/vnd.oci.image.index.v1+json")];
    let put = client.send("PUT", "/v2/list/manifests/all", &kinds, list.to_string().as_bytes());
    assert_eq!(put.status, 201, "{put:?}");
    let empty = client.push_blob("list", b"{}");
    let signature = json!({"schemaVersion": 2, "mediaType": kind, "artifactType": "application/x.signature",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2}, "layers": [],
        "subject": {"mediaType": kind, "digest": child, "size": bytes.len()}});
    assert_eq!(client.put_manifest("list", "signature", signature.to_string().as_bytes()).status, 201);
    let sparse = json!({"schemaVersion": 2, "mediaType": kind, "layers": [],
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": absent, "size": 7}});
    assert_eq!(client.put_manifest("sparse", "1", sparse.to_string().as_bytes()).status, 201);
    bench.path("store")
}

/// All that a client can see of a store.
fn seen(store: &Utf8Path) -> String {
    let store = Store::open(store).unwrap();
    let subjects = store.manifests(&"list".parse().unwrap()).unwrap_or_default();
    let referrers: Vec<_> =
        subjects.iter().map(|file| store.referrers(&"list".parse().unwrap(), &file.digest).unwrap().len()).collect();
    // A repository whose last image went stays as a name.
    let list: Vec<_> = store.list().unwrap().into_iter().filter(|one| !one.tags.is_empty()).collect();
    let manifests: Vec<_> = list.iter().map(|one| store.manifests(&one.name).unwrap()).collect();
    let bundles: Vec<_> = store.bundles().unwrap().into_iter().map(|record| record.index).collect();
    format!("{:#?} {:#?} {manifests:#?} {referrers:?} {bundles:?}", list, store.blobs().unwrap())
}

#[test]
fn a_follower_becomes_equal_and_then_nothing_is_missing() {
    let (site, leader, follower) = (Site::new(), Bench::new(), Bench::new());
    let store = fill(&leader, 12, 50_000);
    let (bundle, trust) = import::make(&leader, 1 << 20);
    import::load_into(&mut Store::open(&store).unwrap(), &bundle, &trust).unwrap();
    let server = Process::start(&leader, &site.server(&leader, &[]));
    let options = site.options(&follower.path("store"), server.address);
    let (most, least) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let report = sync(&options, &|progress| {
        assert!(progress.bytes_done <= progress.bytes_total && progress.blobs_done <= progress.blobs_total);
        most.fetch_max(progress.bytes_done, Ordering::Relaxed);
        least.fetch_min(progress.bytes_total, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(most.into_inner(), report.bytes, "the progress ends at all of it");
    assert_eq!(report.bytes, least.into_inner());
    assert!(seen(&follower.path("store")) == seen(&store), "the two are not equal");
    assert_clean(&follower.path("store"));
    assert_eq!((report.passes, report.tags, report.bundles), (2, 20, 1), "17 tags and those of the bundle: {report:?}");
    assert_eq!((report.removed, report.beyond), (0, 0));
    // Its record came along: the follower can go back to it, and a delta can be made on it.
    Store::open(&follower.path("store")).unwrap().activate("sample-1.0.0").unwrap();
    assert_eq!(sync(&options, &|_| ()).unwrap(), SyncReport { passes: 1, ..SyncReport::default() });

    // A tag is moved, one is deleted, an image comes in; the follower has one of its own.
    drop(server);
    {
        let server = Running::start(leader.plain_config());
        let client = server.admin();
        client.push_image("team/app-1", "1", b"the next version");
        client.push_image("team/new", "1", b"new");
        assert_eq!(client.send("DELETE", "/v2/team/app-2/manifests/1", &[], b"").status, 202);
        let own = Running::start(follower.plain_config());
        own.admin().push_image("own", "1", b"of the follower");
    }
    let server = Process::start(&leader, &site.server(&leader, &[]));
    let mut options = site.options(&follower.path("store"), server.address);
    let report = sync(&options, &|_| ()).unwrap();
    assert_eq!((report.tags, report.blobs, report.removed), (2, 2, 0), "{report:?}");
    assert_eq!(report.beyond, 3, "a tag that was deleted there; an image of the follower's own: manifest and tag");
    options.prune = true;
    let report = sync(&options, &|_| ()).unwrap();
    assert_eq!((report.tags, report.removed, report.beyond), (0, 3, 0), "{report:?}");
    let grace = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
    for store in [&store, &follower.path("store")] {
        Store::open(store).unwrap().gc(&grace).unwrap();
    }
    assert!(seen(&follower.path("store")) == seen(&store), "the two are not equal");
    assert_clean(&follower.path("store"));
}

#[test]
fn a_transfer_goes_on_where_it_was_cut_off() {
    const SIZE: usize = 96 << 20;
    let (site, leader, follower) = (Site::new(), Bench::new(), Bench::new());
    let store = fill(&leader, 1, SIZE);
    let server = Process::start(&leader, &site.server(&leader, &[]));
    let address = server.address;
    let options = site.options(&follower.path("store"), address);
    let arrived = AtomicU64::new(0);
    let child = std::sync::Mutex::new(Some(server));
    let error = sync(&options, &|progress| {
        arrived.fetch_max(progress.bytes_done, Ordering::Relaxed);
        if progress.bytes_done > 8 << 20
            && let Some(server) = child.lock().unwrap().take()
        {
            server.kill();
        }
    })
    .unwrap_err();
    assert!(matches!(error, Error::Peer { .. }) && error.hint().is_some(), "{error}");
    let before = arrived.into_inner();
    assert!(before > 8 << 20 && before < SIZE as u64, "{before}");
    let list = Store::open(&follower.path("store")).unwrap().list().unwrap();
    assert!(list.iter().all(|one| one.tags.is_empty() && one.untagged.is_empty()), "nothing is visible by halves");
    assert_clean(&follower.path("store"));

    let mut config = site.server(&leader, &[]);
    config.listen = vec![address];
    let _server = Process::start(&leader, &config);
    let report = sync(&options, &|_| ()).unwrap();
    let all = before + report.bytes;
    println!("{before} bytes before the leader was killed, {} after; the layer has {SIZE}", report.bytes);
    // The batch that was being received when the connection broke may come twice.
    assert!(all >= SIZE as u64 && all < SIZE as u64 + (2 << 20), "{before} + {}", report.bytes);
    assert!(seen(&follower.path("store")) == seen(&store), "the two are not equal");
}

#[test]
fn of_three_servers_one_is_killed_and_the_rest_answer() {
    let (site, benches) = (Site::new(), [Bench::new(), Bench::new(), Bench::new()]);
    let [a, b, c] = &benches;
    let store = fill(a, 6, 300_000);
    let first = Process::start(a, &site.server(a, &[]));
    let mut config = site.server(b, &[first.address]);
    config.peers.as_mut().unwrap().follow = Some(url(&first.address));
    let second = Process::start(b, &config);
    let third = Process::start(c, &site.server(c, &[first.address, second.address]));

    // The second one follows by itself.
    let deadline = Instant::now() + Duration::from_mins(1);
    while site.number(second.address, "followed_timestamp_seconds") == 0 {
        assert!(Instant::now() < deadline, "the second server does not follow the first");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(seen(&b.path("store")) == seen(&store), "the two are not equal");

    // The third one has nothing, and answers from a peer: by tag, by digest, and a part of a blob.
    let node = {
        fs::create_dir_all(site.pki.path("certs")).unwrap();
        cert_dir(&site.pki, Some("node"))
    };
    let at = |server: &Process, name: &str| format!("docker://localhost:{}/{name}", server.address.port());
    let pull = |server: &Process, name: &str, to: &str| {
        let target = format!("oci:{}:x", c.path(to));
        attempt(
            "skopeo",
            &["--insecure-policy", "copy", "--preserve-digests", "--src-cert-dir", &node, &at(server, name), &target],
        )
    };
    let (good, text) = pull(&third, "team/app-0:1", "pulled-0");
    assert!(good, "{text}");
    assert_eq!(site.number(third.address, "taken_over_total"), 3, "a manifest, a configuration and a layer");
    let layer = Digest::sha256_of(&noise("layer 1", 300_000));
    let path = format!("/v2/team/app-1/blobs/{layer}");
    let part = c.path("part");
    let arguments =
        [site.curl(third.address, &path), ["-r", "299990-299999", "-o", part.as_str()].map(str::to_owned).to_vec()]
            .concat();
    run("curl", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(fs::read(&part).unwrap(), noise("layer 1", 300_000)[299_990..]);

    // What nobody has costs each peer one question, and is refused as ever.
    let before = site.number(second.address, "requests_total{action=\"pull-manifest\",status=\"404\"}");
    assert_eq!(site.status(third.address, "/v2/team/app-0/manifests/none"), 404);
    let after = site.number(second.address, "requests_total{action=\"pull-manifest\",status=\"404\"}");
    assert_eq!(after - before, 1);

    // The first one is killed: what the third lacks comes from the second.
    let dead = first.address;
    first.kill();
    for number in 2..6 {
        let (good, text) = pull(&third, &format!("team/app-{number}:1"), &format!("pulled-{number}"));
        assert!(good, "{text}");
    }
    assert!(std::net::TcpStream::connect(dead).is_err());
    assert_eq!(site.status(third.address, "/v2/list/manifests/all"), 200);
    // And the second goes on serving and says that it cannot follow.
    assert_eq!(site.status(second.address, "/v2/team/app-3/manifests/1"), 200);
    drop((second, third));
    for bench in [b, c] {
        assert_clean(&bench.path("store"));
    }

    // A full run makes the third one equal too, from the second: the manifests that it took by themselves are complete.
    let second = Process::start(b, &site.server(b, &[]));
    sync(&site.options(&c.path("store"), second.address), &|_| ()).unwrap();
    assert!(seen(&c.path("store")) == seen(&store), "the two are not equal");
}

#[test]
fn two_servers_that_ask_each_other_do_not_ask_in_circles() {
    let (site, a, b) = (Site::new(), Bench::new(), Bench::new());
    fill(&b, 1, 1000);
    // The ports must be known before both start.
    let port = |bench: &Bench| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        (bench.path("store"), address)
    };
    let ((_, one), (_, two)) = (port(&a), port(&b));
    let config = |bench: &Bench, own: SocketAddr, other: SocketAddr| Config {
        listen: vec![own],
        ..site.server(bench, &[other])
    };
    let first = Process::start(&a, &config(&a, one, two));
    let second = Process::start(&b, &config(&b, two, one));
    let unknown = format!("/v2/team/app-0/blobs/{}", Digest::sha256_of(b"nowhere"));
    assert_eq!(site.status(first.address, &unknown), 404);
    let asked = |server: &Process| site.number(server.address, "requests_total{action=\"pull-blob\",status=\"404\"}");
    assert_eq!((asked(&first), asked(&second)), (1, 1));
    assert_eq!(site.status(first.address, "/v2/team/app-0/manifests/1"), 200);
}

#[test]
fn a_stranger_cannot_follow_and_a_false_leader_is_not_believed() {
    let (site, leader, follower) = (Site::new(), Bench::new(), Bench::new());
    let store = fill(&leader, 1, 10_000);
    let server = Process::start(&leader, &site.server(&leader, &[]));
    let options = |identity: &str| SyncOptions {
        peers: site.peers(identity, &[]),
        ..site.options(&follower.path("store"), server.address)
    };
    let error = sync(&options("stranger"), &|_| ()).unwrap_err().to_string();
    assert!(error.contains("does not know this node"), "{error}");
    let foreign = SyncOptions {
        peers: PeersConfig { ca: Some(site.pki.path("pki/foreign-ca.crt")), ..site.peers("node", &[]) },
        ..options("node")
    };
    let error = sync(&foreign, &|_| ()).unwrap_err().to_string();
    assert!(error.contains("cannot connect") && error.contains("certificate"), "{error}");
    let lonely = SyncOptions { peers: PeersConfig { key: None, ..site.peers("node", &[]) }, ..options("node") };
    assert!(matches!(sync(&lonely, &|_| ()).unwrap_err(), Error::ConfigRule { .. }));

    // The leader's disk has gone bad: what it sends is not what it says.
    let layer = Digest::sha256_of(&noise("layer 0", 10_000));
    let path = Store::open(&store).unwrap().blob_path(&layer);
    let mut bytes = fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = sync(&options("node"), &|_| ()).unwrap_err().to_string();
    assert!(error.contains(&layer.to_string()) && error.contains("has the digest"), "{error}");
    assert_eq!(Store::open(&follower.path("store")).unwrap().blob_size(&layer).unwrap(), None);
    assert_clean(&follower.path("store"));
}

#[test]
fn a_peer_that_says_nonsense_is_an_error_and_no_more() {
    let follower = Bench::new();
    for (answer, part) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "cannot be understood"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nhello", "broke off"),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "no Cofferdam registry"),
        ("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "500"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 58\r\n\r\n{\"schema-version\": 9, \"repositories\": [], \"bundles\": []}   ",
            "format 9",
        ),
        ("nonsense\r\n\r\n", "connection failed"),
        ("", "connection failed"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let options = SyncOptions {
            store: follower.path("store"),
            leader: format!("http://{address}"),
            peers: PeersConfig::default(),
            limits: Limits::default(),
            prune: true,
        };
        let error = sync(&options, &|_| ()).unwrap_err();
        assert!(error.to_string().contains(part), "{answer:?}: {error}");
        assert!(error.hint().is_some());
        thread.join().unwrap();
    }
}

#[test]
fn a_miss_opens_no_way_into_another_repository() {
    let (site, a, b) = (Site::new(), Bench::new(), Bench::new());
    fill(&a, 2, 1000);
    let first = Process::start(&a, &site.server(&a, &[]));
    let second = Process::start(&b, &site.server(&b, &[first.address]));
    let blob = |repository: &str| format!("/v2/{repository}/blobs/{}", Digest::sha256_of(&noise("layer 1", 1000)));
    // Here by now, and at the peer, in one repository: in no other one, not even for somebody who knows its digest.
    assert_eq!(site.status(second.address, &blob("team/app-1")), 200);
    for repository in ["team/app-0", "list", "nowhere"] {
        assert_eq!(site.status(second.address, &blob(repository)), 404, "{repository}");
    }
    let layer = Digest::sha256_of(&noise("layer 1", 1000));
    let store = Store::open(&b.path("store")).unwrap();
    assert_eq!(store.linked_blob(&"team/app-0".parse().unwrap(), &layer).unwrap(), None);
    // One that two repositories of the peer hold is taken over into both, and fetched once.
    let shared = |repository: &str| format!("/v2/{repository}/blobs/{}", Digest::sha256_of(&noise("layer 0", 1000)));
    let asked = || site.number(first.address, "requests_total{action=\"pull-blob\",status=\"200\"}");
    assert_eq!(site.status(second.address, &shared("team/app-0")), 200);
    let before = asked();
    assert_eq!(site.status(second.address, &shared("other/app")), 200);
    assert_eq!(asked() - before, 1, "it was asked whether it is there, and no more");
}

#[test]
fn what_cannot_be_a_peer_is_refused_before_anything_is_written() {
    let (site, bench) = (Site::new(), Bench::new());
    let store = bench.path("follower");
    let leader = "http://10.0.0.5:5000".to_owned();
    let options = SyncOptions { leader: leader.clone(), ..site.options(&store, "127.0.0.1:1".parse().unwrap()) };
    assert!(matches!(sync(&options, &|_| ()).unwrap_err(), Error::ConfigRule { .. }));
    assert!(!store.exists());
    let peers = PeersConfig { follow: Some(leader), ..site.peers("node", &[]) };
    let config = Config { peers: Some(peers), ..site.server(&bench, &[]) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(airgap_registry::Server::bind(config)).err().unwrap();
    assert!(error.to_string().contains("TLS"), "{error}");
}
