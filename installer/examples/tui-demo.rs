//! `make tui-demo`: the terminal installer against simulated facts, and the real engine against a host in memory. Nothing
//! of this machine is read or changed, so anybody can click through it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "it is a demo")]
#![allow(dead_code, unreachable_pub, reason = "the simulated host is that of the tests")]
#![allow(clippy::case_sensitive_file_extension_comparisons, reason = "our own names, all in lower case")]

#[path = "../tests/simulated/mod.rs"]
mod simulated;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bundle::index::Index;
use bundle::oci::Digest;
use camino::{Utf8Path, Utf8PathBuf};
use installer::config::{InstallConfig, Network};
use installer::engine::Stop;
use installer::facts::network::Name;
use installer::facts::{Facts, Probed, Questions};
use installer::host::{Command, Entry, Host, HostError, HttpsAnswer, HttpsRequest, Output, TimeAnswer, TimeRequest};
use installer::prepare::{self, Prepared, Refusal, Signed};
use installer::ui::machine::{self, BundleQuestion, Discovered, Judged, Machine};
use installer::ui::model::Model;
use installer::ui::run::SharedHost;
use installer::ui::session;
use installer::ui::terminal::Terminal;
use installer::ui::theme::Mode;
use jiff::Timestamp;
use simulated::small_bundle::small_bundle;
use simulated::{Medium, SimulatedHost};
use zeroize::Zeroizing;

/// So that progress is seen.
const PACE: Duration = Duration::from_millis(250);

/// The host in memory, for several threads, at the pace of people.
struct DemoHost(Mutex<SimulatedHost>);

impl DemoHost {
    fn inner(&self) -> MutexGuard<'_, SimulatedHost> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the host in memory knows; the rest is "not there".
const PROGRAMS: [&str; 24] = [
    "wipefs",
    "cryptsetup",
    "systemd-cryptenroll",
    "/lib/systemd/systemd-cryptsetup",
    "mkfs.ext4",
    "mount",
    "findmnt",
    "systemctl",
    "sync",
    "journalctl",
    "modprobe",
    "sysctl",
    "systemd-sysusers",
    "id",
    "chown",
    "chmod",
    "setpriv",
    "containerd",
    "ctr",
    "kubeadm",
    "kubectl",
    "useradd",
    "getent",
    "chpasswd",
];

impl Host for DemoHost {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time.min(PACE));
        self.inner().pause(time);
    }

    fn run(&self, command: &Command, watch: &mut dyn FnMut(&str)) -> Result<Output, HostError> {
        if !PROGRAMS.contains(&command.program()) {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(HostError::Start { program: command.program().to_owned(), source });
        }
        std::thread::sleep(PACE);
        self.inner().run(command, watch)
    }

    fn read(&self, path: &Utf8Path) -> Result<Option<Zeroizing<Vec<u8>>>, HostError> {
        self.inner().read(path)
    }

    fn look(&self, path: &Utf8Path) -> Result<Option<Entry>, HostError> {
        self.inner().look(path)
    }

    fn list(&self, directory: &Utf8Path) -> Result<Vec<String>, HostError> {
        self.inner().list(directory)
    }

    fn write(&self, path: &Utf8Path, content: &[u8], mode: u32) -> Result<(), HostError> {
        self.inner().write(path, content, mode)
    }

    fn append(&self, path: &Utf8Path, content: &[u8]) -> Result<(), HostError> {
        self.inner().append(path, content)
    }

    fn make_directory(&self, path: &Utf8Path, mode: u32) -> Result<(), HostError> {
        self.inner().make_directory(path, mode)
    }

    fn remove(&self, path: &Utf8Path) -> Result<(), HostError> {
        self.inner().remove(path)
    }

    fn copy(&self, from: &Utf8Path, to: &Utf8Path, mode: u32, digest: Option<&Digest>) -> Result<(), HostError> {
        self.inner().copy(from, to, mode, digest)
    }

    fn digest(&self, path: &Utf8Path) -> Result<Option<Digest>, HostError> {
        self.inner().digest(path)
    }

    fn measure_sync(&self, _: &Utf8Path, _: u32) -> Result<Duration, HostError> {
        Ok(Duration::from_micros(900))
    }

    fn ask_time(&self, _: &[TimeRequest]) -> Vec<Result<TimeAnswer, HostError>> {
        panic!("the machine that the pages see asks nobody")
    }

    fn https_get(&self, request: &HttpsRequest) -> Result<HttpsAnswer, HostError> {
        std::thread::sleep(PACE);
        self.inner().https_get(request)
    }
}

/// The machine that the pages see.
struct DemoMachine {
    facts: Facts,
    signed: Signed,
    host: Arc<DemoHost>,
}

impl Machine for DemoMachine {
    fn discover(&self) -> Discovered {
        std::thread::sleep(PACE);
        Discovered {
            bundles: vec!["/media/cofferdam/cofferdam-1.0.0.tar.zst".into()],
            keys: vec!["/media/cofferdam/trust.pub".into()],
            medium: Some(Utf8PathBuf::from("/media/cofferdam")),
            ..Discovered::default()
        }
    }

    fn probe(&self, questions: &Questions) -> Facts {
        std::thread::sleep(PACE * 4);
        let mut facts = self.facts.clone();
        let address = "192.0.2.11".parse().unwrap();
        facts.network.fqdn =
            questions.fqdn.as_ref().map(|name| Name { name: name.clone(), addresses: Probed::Known(vec![address]) });
        facts.network.reverse = Probed::Known(questions.fqdn.clone());
        facts.network.vip_taken = questions.vip.map(|_| Probed::Known(false));
        facts
    }

    fn head(&self, _: &BundleQuestion) -> Result<Signed, Refusal> {
        Ok(self.signed.clone())
    }

    fn verify(&self, _: &BundleQuestion, stop: &Stop, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Refusal> {
        let total = self.signed.bytes;
        for part in 0..=40 {
            if stop.is_requested() {
                break;
            }
            progress(total / 40 * part, total);
            std::thread::sleep(PACE / 2);
        }
        Ok(())
    }

    fn judge(&self, config: &InstallConfig) -> Judged {
        machine::judge(&*self.host, config)
    }

    fn request(&self, config: &InstallConfig, target: &Utf8Path) -> Result<String, String> {
        installer::request::make(&*self.host, config, target)
    }

    fn set_up_network(&self, _: Option<&Network>) -> Result<(), String> {
        Err("this host keeps the network that it has".to_owned())
    }

    fn keep(&self, path: &Utf8Path, content: &[u8], mode: u32) -> Result<(), String> {
        self.host.write(path, content, mode).map_err(|error| error.to_string())
    }

    fn prepare(&self, config: &InstallConfig, signed: &Signed) -> Prepared {
        prepare::judge(&*self.host, config, signed, &self.probe(&Questions::of(config)))
    }
}

fn main() -> std::io::Result<()> {
    let (index, blobs) = small_bundle();
    let index_bytes = serde_json::to_vec(&index).unwrap();
    let host = Arc::new(DemoHost(Mutex::new(SimulatedHost::new(Medium {
        index: index_bytes.clone(),
        name: format!("{}-{}", index.name, index.version),
        blobs,
        images: index.images.iter().map(|image| image.reference.to_string()).collect(),
    }))));
    let machine = DemoMachine {
        facts: serde_json::from_str(include_str!("../src/ui/tests/facts.json")).unwrap(),
        signed: signed(index, index_bytes),
        host: Arc::clone(&host),
    };
    let shared: SharedHost = host;
    let mut terminal = Terminal::open()?;
    let mut model = Model::new(Mode::detect(|name| std::env::var(name).ok()));
    let left = session::run(&mut terminal, &mut model, Arc::new(machine), &shared);
    drop(terminal);
    println!("The demo is over ({left:?}). Nothing was changed on this machine.", left = left.map(|_| "left"));
    Ok(())
}

fn signed(index: Index, index_bytes: Vec<u8>) -> Signed {
    Signed {
        digest: Digest::sha256_of(&index_bytes).to_string(),
        index,
        index_bytes,
        signature: b"signature".to_vec(),
        bytes: 1_300_000_000,
        key_id: "7EA64BA51A4C7734".to_owned(),
    }
}
