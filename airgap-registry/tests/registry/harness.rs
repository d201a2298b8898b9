//! What the tests share: a directory, certificates made by openssl, a server inside the test or as a process that can
//! be killed, an image layout, and peers that must be there.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use airgap_registry::{Config, Server, Store, TlsConfig};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;
use tokio::sync::oneshot;

use crate::http::Client;

pub(crate) const USER: (&str, &str) = ("ada", "correct horse battery staple");

/// A directory of a test, removed at its end.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("cofferdam-registry-").tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.folder.path()).unwrap().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Utf8PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Plain HTTP on a free loopback port, one user who may push.
    pub(crate) fn plain_config(&self) -> Config {
        let hash = bcrypt::hash(USER.1, 4).unwrap();
        Config {
            htpasswd: Some(self.write("htpasswd", format!("{}:{hash}\n", USER.0))),
            plain_http: true,
            ..Config::new(self.path("store"), vec!["127.0.0.1:0".parse().unwrap()])
        }
    }

    /// TLS on a free loopback port, with all kinds of identities.
    pub(crate) fn tls_config(&self) -> Config {
        self.certificates();
        let tls = TlsConfig {
            certificate: self.path("pki/server.crt"),
            key: self.path("pki/server.key"),
            client_ca: Some(self.path("pki/ca.crt")),
        };
        Config { tls: Some(tls), plain_http: false, ..self.plain_config() }
    }

    /// A site CA, a server certificate, and client certificates by openssl, in `pki/`.
    pub(crate) fn certificates(&self) {
        fs::create_dir_all(self.path("pki")).unwrap();
        self.authority("ca");
        self.authority("foreign-ca");
        self.leaf(
            "server",
            "ca",
            "/CN=registry.test",
            "subjectAltName=DNS:registry.test,DNS:localhost,IP:127.0.0.1",
            "serverAuth",
        );
        self.leaf("node", "ca", "/O=cofferdam:nodes/CN=node-1", "subjectAltName=DNS:node-1", "clientAuth");
        self.leaf("admin", "ca", "/O=cofferdam:admins/CN=root", "subjectAltName=DNS:root", "clientAuth");
        self.leaf("stranger", "ca", "/O=somebody/CN=eve", "subjectAltName=DNS:eve", "clientAuth");
        self.leaf("not-client", "ca", "/O=cofferdam:admins/CN=web", "subjectAltName=DNS:web", "serverAuth");
        self.leaf("forged", "foreign-ca", "/O=cofferdam:admins/CN=mallory", "subjectAltName=DNS:m", "clientAuth");
    }

    fn authority(&self, name: &str) {
        let (key, certificate) = (self.path(&format!("pki/{name}.key")), self.path(&format!("pki/{name}.crt")));
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "3",
                "-subj",
                &format!("/CN={name}"),
                "-addext",
                "basicConstraints=critical,CA:TRUE",
                "-addext",
                "keyUsage=critical,keyCertSign,cRLSign",
                "-keyout",
                key.as_str(),
                "-out",
                certificate.as_str(),
            ],
        );
    }

    pub(crate) fn leaf(&self, name: &str, authority: &str, subject: &str, names: &str, usage: &str) {
        let path = |suffix: &str| self.path(&format!("pki/{name}.{suffix}"));
        let extensions = self.write(
            &format!("pki/{name}.ext"),
            format!("{names}\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n"),
        );
        run(
            "openssl",
            &[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                subject,
                "-keyout",
                path("key").as_str(),
                "-out",
                path("csr").as_str(),
            ],
        );
        run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                path("csr").as_str(),
                "-CA",
                self.path(&format!("pki/{authority}.crt")).as_str(),
                "-CAkey",
                self.path(&format!("pki/{authority}.key")).as_str(),
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                extensions.as_str(),
                "-out",
                path("crt").as_str(),
            ],
        );
    }

    /// An OCI layout `images` with an image per name: two layers that are real archives, one of `size` random bytes.
    pub(crate) fn layout(&self, names: &[&str], size: usize) -> Utf8PathBuf {
        let layout = self.path("images");
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        let blob = |bytes: &[u8], kind: &str| {
            let digest = bundle::oci::Digest::sha256_of(bytes);
            fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
            json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
        };
        let mut entries = Vec::new();
        for name in names {
            let layers: Vec<_> = [name.as_bytes().to_vec(), noise(name, size)]
                .iter()
                .enumerate()
                .map(|(at, content)| {
                    let root = self.path(&format!("root-{at}"));
                    fs::create_dir_all(root.join("etc")).unwrap();
                    fs::write(root.join(format!("etc/file-{at}")), content).unwrap();
                    let archive = self.path("layer.tar");
                    run("tar", &["-cf", archive.as_str(), "--mtime=@0", "-C", root.as_str(), "."]);
                    fs::read(archive).unwrap()
                })
                .collect();
            let diff_ids: Vec<_> = layers.iter().map(|layer| bundle::oci::Digest::sha256_of(layer)).collect();
            let config = json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
            let config = blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
            let layers: Vec<_> =
                layers.iter().map(|layer| blob(layer, "application/vnd.oci.image.layer.v1.tar")).collect();
            let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers});
            let mut entry = blob(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
            entries.push(entry);
        }
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        fs::write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": entries}).to_string()).unwrap();
        layout
    }
}

/// Bytes that no compressor likes, the same for the same seed.
pub(crate) fn noise(seed: &str, size: usize) -> Vec<u8> {
    let mut state = seed.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| state.rotate_left(5) ^ u64::from(byte));
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A server inside the test's process.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(config: Config) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(config).await.unwrap();
                tell.send(server.local_addresses()[0]).unwrap();
                server.run(async { drop(stopped.await) }).await.unwrap();
            });
        });
        Self { address: told.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    /// A client with the password of an administrator.
    pub(crate) fn admin(&self) -> Client {
        Client { address: self.address, user: Some(USER) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server failed");
        }
    }
}

/// A server as a process of its own, which can be killed. What it says to systemd tells when it is ready, and where.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    notify: UnixDatagram,
}

impl Process {
    pub(crate) fn start(bench: &Bench, config: &Config) -> Self {
        let is_verbose = std::env::var_os("COFFERDAM_TEST_VERBOSE").is_some();
        Self::start_with(bench, config, if is_verbose { Stdio::inherit() } else { Stdio::null() })
    }

    /// With its log somewhere.
    pub(crate) fn start_with(bench: &Bench, config: &Config, log: Stdio) -> Self {
        Self::start_as(bench, config, log, child_test("harness::server_process"))
    }

    /// With the store on a disk of its own of so many MiB, in a mount namespace of its own.
    pub(crate) fn start_on_small_disk(bench: &Bench, config: &Config, mebibytes: u32) -> Self {
        let script = format!("mount -t tmpfs -o size={mebibytes}m tmpfs {} && exec \"$0\" \"$@\"", config.store);
        let own = child_test("harness::server_process");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]).arg(own.get_program()).args(own.get_args());
        command.stdout(Stdio::null()).process_group(0);
        Self::start_as(bench, config, Stdio::null(), command)
    }

    fn start_as(bench: &Bench, config: &Config, log: Stdio, mut command: Command) -> Self {
        let socket = bench.path("notify");
        let _ = fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket).unwrap();
        notify.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let file = bench.write("registry.yaml", config.to_yaml().unwrap());
        let child =
            command.env("COFFERDAM_TEST_CONFIG", file).env("NOTIFY_SOCKET", &socket).stderr(log).spawn().unwrap();
        let mut process = Self { child, address: "127.0.0.1:1".parse().unwrap(), notify };
        let said = process.said();
        assert!(said.starts_with("READY=1\n"), "{said}");
        process.address = said.split("serving on ").nth(1).unwrap().trim().parse().unwrap();
        process
    }

    /// The next datagram for systemd.
    pub(crate) fn said(&self) -> String {
        let mut buffer = [0; 512];
        let count = self.notify.recv(&mut buffer).expect("the server said nothing to systemd");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    pub(crate) fn admin(&self) -> Client {
        Client { address: self.address, user: Some(USER) }
    }

    pub(crate) fn signal(&self, name: &str) {
        run("kill", &["-s", name, &self.child.id().to_string()]);
    }

    /// Waits until it ended by itself, without a failure.
    pub(crate) fn wait(mut self) {
        let deadline = Instant::now() + Duration::from_secs(25);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As a power cut would, as far as a process can tell.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The most memory it ever had, in KiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This test binary once more, running only the (ignored) test of that name: a process that can be killed.
pub(crate) fn child_test(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command
}

/// Not a test: what [`Process`] runs.
#[test]
#[ignore = "run as a process of its own by other tests"]
fn server_process() {
    let Ok(file) = std::env::var("COFFERDAM_TEST_CONFIG") else { return };
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    airgap_registry::run(Config::read(Utf8Path::new(&file)).unwrap()).unwrap();
}

/// The store must be clean, whatever happened before.
pub(crate) fn assert_clean(store: &Utf8Path) -> airgap_registry::store::FsckReport {
    let report = Store::open(store).unwrap().fsck().unwrap();
    assert!(report.is_clean(), "{:#?}", report.problems);
    report
}

/// Runs a peer that must be installed and must succeed; gives its output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let (good, text) = attempt(program, arguments);
    assert!(good, "{program} {} failed: {text}", arguments.join(" "));
    text
}

/// Runs a peer that must be installed; gives whether it succeeded, and all that it said.
pub(crate) fn attempt(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).env("XDG_RUNTIME_DIR", "/nonexistent").output();
    let output = output.unwrap_or_else(|error| panic!("the peer {program} must be installed: {error}"));
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
