//! The clients that a site really has: skopeo, and containerd through its `_default` mirror.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bundle::oci::Digest;

use crate::harness::{Bench, Process, Running, USER, assert_clean, attempt, run};

/// A folder as skopeo's `--cert-dir` wants it.
pub(crate) fn cert_dir(bench: &Bench, identity: Option<&str>) -> String {
    let folder = bench.path(&format!("certs-{}", identity.unwrap_or("none")));
    fs::create_dir_all(&folder).unwrap();
    fs::copy(bench.path("pki/ca.crt"), folder.join("ca.crt")).unwrap();
    if let Some(identity) = identity {
        fs::copy(bench.path(&format!("pki/{identity}.crt")), folder.join("client.cert")).unwrap();
        fs::copy(bench.path(&format!("pki/{identity}.key")), folder.join("client.key")).unwrap();
    }
    folder.into_string()
}

#[test]
fn skopeo_pushes_and_pulls_over_tls() {
    let bench = Bench::new();
    let layout = bench.layout(&["pause", "app"], 6 << 20);
    let server = Running::start(bench.tls_config());
    let at = |name: &str| format!("docker://localhost:{}/{name}", server.address.port());
    let (nobody, node, admin) =
        (cert_dir(&bench, None), cert_dir(&bench, Some("node")), cert_dir(&bench, Some("admin")));
    let credentials = format!("{}:{}", USER.0, USER.1);
    let source = |name: &str| format!("oci:{layout}:{name}");
    let policy = "--insecure-policy";

    // Push by password and by certificate; not as nobody, not as a node, not with a wrong password.
    run(
        "skopeo",
        &[
            policy,
            "copy",
            "--preserve-digests",
            "--dest-cert-dir",
            &nobody,
            "--dest-creds",
            &credentials,
            &source("pause"),
            &at("k8s.gcr.io/pause:3.2"),
        ],
    );
    run("skopeo", &[policy, "copy", "--dest-cert-dir", &admin, &source("app"), &at("team/app:1")]);
    run(
        "skopeo",
        &[policy, "copy", "--dest-cert-dir", &admin, "--format", "v2s2", &source("app"), &at("team/app:docker")],
    );
    for arguments in [
        vec!["--dest-cert-dir", &nobody],
        vec!["--dest-cert-dir", &node],
        vec!["--dest-cert-dir", &nobody, "--dest-creds", "ada:wrong"],
    ] {
        let (good, text) = attempt(
            "skopeo",
            &[&[policy, "copy"], arguments.as_slice(), &[&source("pause"), &at("team/no:1")]].concat(),
        );
        assert!(
            !good && (text.contains("denied") || text.contains("unauthorized") || text.contains("say who you are")),
            "{arguments:?}: {text}"
        );
    }

    // Pull as a node; what arrives is what was sent.
    let back = bench.path("back");
    run(
        "skopeo",
        &[
            policy,
            "copy",
            "--preserve-digests",
            "--src-cert-dir",
            &node,
            &at("k8s.gcr.io/pause:3.2"),
            &format!("oci:{back}:pause"),
        ],
    );
    for entry in fs::read_dir(back.join("blobs/sha256")).unwrap() {
        let name = entry.unwrap().file_name();
        assert_eq!(
            fs::read(back.join("blobs/sha256").join(name.to_str().unwrap())).unwrap(),
            fs::read(layout.join("blobs/sha256").join(name.to_str().unwrap())).unwrap()
        );
    }
    let raw = run("skopeo", &["inspect", "--raw", "--cert-dir", &node, &at("team/app:docker")]);
    assert!(raw.contains("application/vnd.docker.distribution.manifest.v2+json"));
    assert!(run("skopeo", &["list-tags", "--cert-dir", &node, &at("team/app")]).contains("\"docker\""));
    assert!(!attempt("skopeo", &["inspect", "--cert-dir", &nobody, &at("team/app:1")]).0);
    assert!(!attempt("skopeo", &["delete", "--cert-dir", &node, &at("team/app:1")]).0);
    run("skopeo", &["delete", "--cert-dir", &admin, &at("team/app:1")]);
    assert!(!attempt("skopeo", &["inspect", "--cert-dir", &node, &at("team/app:1")]).0);
    assert_clean(&bench.path("store"));
}

#[test]
fn skopeo_pulls_anonymously_and_still_pushes_with_a_password() {
    let bench = Bench::new();
    let layout = bench.layout(&["pause"], 10_000);
    let mut config = bench.tls_config();
    config.anonymous_pull = true;
    let server = Running::start(config);
    let at = format!("docker://localhost:{}/a:1", server.address.port());
    let nobody = cert_dir(&bench, None);
    let credentials = format!("{}:{}", USER.0, USER.1);
    let source = format!("oci:{layout}:pause");
    assert!(!attempt("skopeo", &["--insecure-policy", "copy", "--dest-cert-dir", &nobody, &source, &at]).0);
    run(
        "skopeo",
        &["--insecure-policy", "copy", "--dest-cert-dir", &nobody, "--dest-creds", &credentials, &source, &at],
    );
    run("skopeo", &["inspect", "--cert-dir", &nobody, &at]);
}

#[test]
fn a_certificate_is_replaced_without_a_restart() {
    let bench = Bench::new();
    let config = bench.tls_config();
    let server = Process::start(&bench, &config);
    let serial = || {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &server.address.to_string(), "-CAfile", bench.path("pki/ca.crt").as_str()])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let start = text.find("-----BEGIN CERTIFICATE").unwrap_or_else(|| panic!("{text}"));
        text[start..].split("-----END").next().unwrap().to_owned()
    };
    let before = serial();
    // A key that does not belong to the certificate changes nothing.
    let key = fs::read(bench.path("pki/server.key")).unwrap();
    fs::copy(bench.path("pki/node.key"), bench.path("pki/server.key")).unwrap();
    server.signal("HUP");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(serial(), before);
    fs::write(bench.path("pki/server.key"), key).unwrap();
    bench.leaf("server", "ca", "/CN=registry.test", "subjectAltName=DNS:localhost,IP:127.0.0.1", "serverAuth");
    server.signal("HUP");
    let deadline = Instant::now() + Duration::from_secs(5);
    while serial() == before {
        assert!(Instant::now() < deadline, "the old certificate is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A containerd of its own: own root, state and socket.
struct Containerd {
    child: Child,
    socket: String,
}

impl Containerd {
    fn start(bench: &Bench) -> Self {
        let (root, state, socket) =
            (bench.path("containerd/root"), bench.path("containerd/state"), bench.path("containerd/sock"));
        let config = bench.write(
            "containerd/config.toml",
            format!(
                "
version = 2
root = '{root}'
state = '{state}'
disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.internal.v1.opt']
[grpc]
address = '{socket}'
[ttrpc]
address = '{socket}.ttrpc'
"
            ),
        );
        let log = fs::File::create(bench.path("containerd/log")).unwrap();
        let child = Command::new("containerd")
            .args(["--config", config.as_str()])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd must be installed");
        let containerd = Self { child, socket: socket.into_string() };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !attempt("ctr", &["-a", &containerd.socket, "version"]).0 {
            let log = fs::read_to_string(bench.path("containerd/log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "containerd does not come up: {log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        containerd
    }

    fn pull(&self, hosts: &str, image: &str) -> (bool, String) {
        attempt("ctr", &["-a", &self.socket, "images", "pull", "--snapshotter", "native", "--hosts-dir", hosts, image])
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // SIGTERM first, so that it takes its mounts away.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && self.child.try_wait().is_ok_and(|status| status.is_none()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn containerd_pulls_every_upstream_name_through_one_mirror() {
    let bench = Bench::new();
    let (bundle, trust) = crate::import::make(&bench, 2 << 20);
    let server = Running::start(bench.tls_config());
    let mut store = airgap_registry::Store::open(&bench.path("store")).unwrap();
    crate::import::load_into(&mut store, &bundle, &trust).unwrap();

    let url = format!("https://127.0.0.1:{}", server.address.port());
    // containerd 1.6 wants a [host] table, or it takes the file for broken and asks the upstream itself; and what
    // follows it is `server`, which needs CA and certificate too.
    let hosts = |name: &str, client: &str| {
        let access = format!("capabilities = ['pull', 'resolve']\nca = '{}'\n{client}\n", bench.path("pki/ca.crt"));
        bench.write(
            &format!("{name}/_default/hosts.toml"),
            format!("server = '{url}'\n{access}[host.'{url}']\n{access}"),
        );
        bench.path(name).into_string()
    };
    let certificate = format!("client = [['{}', '{}']]", bench.path("pki/node.crt"), bench.path("pki/node.key"));
    let (node, nobody) = (hosts("hosts-node", &certificate), hosts("hosts-nobody", ""));
    let containerd = Containerd::start(&bench);

    let pinned = format!(
        "k8s.gcr.io/pause@{}",
        bundle.index.images.iter().find(|image| image.reference.registry() == "k8s.gcr.io").unwrap().digest
    );
    for image in ["k8s.gcr.io/pause:3.2", "docker.io/library/busybox:v1.0.0", &pinned] {
        let (good, text) = containerd.pull(&node, image);
        assert!(good, "{image}: {text}");
        println!("pulled {image}");
    }
    let images = run("ctr", &["-a", &containerd.socket, "images", "list"]);
    for image in &bundle.index.images {
        assert!(images.contains(&image.digest.to_string()), "{images}");
    }
    // Nobody gets nothing, and what is not here is not looked for elsewhere.
    let (good, text) = containerd.pull(&nobody, "k8s.gcr.io/pause:3.2");
    assert!(!good && text.contains("401"), "{text}");
    let (good, text) = containerd.pull(&node, "docker.io/library/alpine:3");
    assert!(!good && text.contains("not found"), "{text}");
    let (good, text) = containerd.pull(&node, "docker.io/library/pause:3.2");
    assert!(!good && text.contains("not found"), "another upstream's image of the same name: {text}");
    assert_clean(&bench.path("store"));
}

/// A layer of ten gigabytes in by skopeo and out by containerd, both by certificate; then thirty-two downloads of it at once.
/// The server's memory stays below 50 MiB.
#[test]
#[ignore = "slow: 20 GB are written, some minutes"]
fn slow_a_layer_of_ten_gigabytes_goes_in_and_out() {
    const SIZE: u64 = 10_000_000_000;
    let bench = Bench::new();
    let layout = bench.path("layout");
    let layer = bench.path("layer");
    // A hole: what is measured is the server.
    fs::File::create(&layer).unwrap().set_len(SIZE).unwrap();
    let sum = run("sha256sum", &[layer.as_str()]);
    let digest = sum.split_whitespace().next().unwrap();
    let blob = |bytes: &[u8]| {
        let digest = Digest::sha256_of(bytes);
        bench.write(&format!("layout/blobs/sha256/{}", digest.hex()), bytes);
        digest
    };
    let config = blob(
        format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#
        )
        .as_bytes(),
    );
    let length = fs::metadata(layout.join("blobs/sha256").join(config.hex())).unwrap().len();
    fs::rename(&layer, layout.join("blobs/sha256").join(digest)).unwrap();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":{length}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{digest}","size":{SIZE}}}]}}"#
    );
    let manifest_digest = blob(manifest.as_bytes());
    bench.write("layout/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    let size = manifest.len();
    bench.write(
        "layout/index.json",
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{kind}","digest":"{manifest_digest}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":"large"}}}}]}}"#
        ),
    );
    let server = Process::start(&bench, &bench.tls_config());
    let (admin, port) = (cert_dir(&bench, Some("admin")), server.address.port());
    let to = format!("docker://localhost:{port}/example.com/large:1");
    let from = format!("oci:{layout}:large");
    let began = Instant::now();
    let copy = ["--insecure-policy", "copy", "--preserve-digests", "--dest-cert-dir", &admin, &from, &to];
    run("skopeo", &copy);
    println!("skopeo pushed it in {:.0} s, peak {} KiB", began.elapsed().as_secs_f64(), server.peak_memory());

    let pki = |name: &str| bench.path(&format!("pki/{name}"));
    let url = format!("https://localhost:{port}");
    let access = format!(
        "capabilities = ['pull', 'resolve']\nca = '{}'\nclient = [['{}', '{}']]\n",
        pki("ca.crt"),
        pki("node.crt"),
        pki("node.key")
    );
    bench.write("hosts/_default/hosts.toml", format!("server = '{url}'\n{access}[host.'{url}']\n{access}"));
    let containerd = Containerd::start(&bench);
    let began = Instant::now();
    let hosts = bench.path("hosts").into_string();
    let fetch = ["-a", &containerd.socket, "content", "fetch", "--hosts-dir", &hosts, "example.com/large:1"];
    run("ctr", &fetch);
    let held = run("ctr", &["-a", &containerd.socket, "content", "list", "--quiet"]);
    assert!(held.contains(digest), "{held}");
    println!("containerd fetched it in {:.0} s, peak {} KiB", began.elapsed().as_secs_f64(), server.peak_memory());
    drop(containerd);

    let (ca, certificate, key) = (pki("ca.crt"), pki("node.crt"), pki("node.key"));
    let address = format!("{url}/v2/example.com/large/blobs/sha256:{digest}");
    let access = ["--cacert", ca.as_str(), "--cert", certificate.as_str(), "--key", key.as_str()];
    let readers: Vec<_> = (0..32)
        .map(|_| {
            let mut curl = Command::new("curl");
            curl.args(["-s", "--max-time", "20", "-o", "/dev/null"]).args(access).arg(&address).spawn().unwrap()
        })
        .collect();
    for mut reader in readers {
        // Within its time or with "operation timed out": nobody was refused.
        assert!(matches!(reader.wait().unwrap().code(), Some(0 | 28)));
    }
    let peak = server.peak_memory();
    println!("thirty-two downloads at once, peak {peak} KiB");
    assert!(peak <= 50 << 10, "{peak} KiB");
    assert_clean(&bench.path("store"));
}

#[test]
fn podman_pushes_with_a_password_and_pulls_as_a_node() {
    let bench = Bench::new();
    let layout = bench.layout(&["pause"], 1 << 20);
    let server = Running::start(bench.tls_config());
    let at = format!("localhost:{}/team/pause:1", server.address.port());
    let (nobody, node) = (cert_dir(&bench, None), cert_dir(&bench, Some("node")));
    let credentials = format!("{}:{}", USER.0, USER.1);
    let places = ["root", "runroot"].map(|name| format!("--{name}={}", bench.path(&format!("podman/{name}"))));
    let podman = |arguments: &[&str]| {
        let global =
            [&places[0], &places[1], "--storage-driver=vfs", "--events-backend=none", "--cgroup-manager=cgroupfs"];
        attempt("podman", &[&global.map(|word| word as &str)[..], arguments].concat())
    };
    // What it says to standard error stands in the text, too.
    let must = |arguments: &[&str]| {
        let (good, text) = podman(arguments);
        assert!(good, "{arguments:?}: {text}");
        text.lines().find(|line| line.len() == 64).unwrap_or_default().to_owned()
    };
    let source = format!("oci:{layout}:pause");
    let first = format!("docker://{at}");
    run(
        "skopeo",
        &["--insecure-policy", "copy", "--dest-cert-dir", &nobody, "--dest-creds", &credentials, &source, &first],
    );
    let (good, text) = podman(&["pull", "--cert-dir", &nobody, &at]);
    assert!(!good, "nobody may not pull: {text}");
    let id = must(&["pull", "--quiet", "--cert-dir", &node, &at]);
    let other = at.replace("pause:1", "again:1");
    let (good, text) = podman(&["push", "--cert-dir", &node, &id, &format!("docker://{other}")]);
    assert!(!good && text.contains("denied"), "a node may not push: {text}");
    must(&["push", "--cert-dir", &nobody, "--creds", &credentials, &id, &format!("docker://{other}")]);
    must(&["rmi", "--force", &id]);
    assert_eq!(must(&["pull", "--quiet", "--cert-dir", &node, &other]), id, "it is the same image");
    assert_clean(&bench.path("store"));
}
