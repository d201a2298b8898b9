//! A host in memory that loses power, or whose installer is killed, at the n-th effect.
//!
//! Every change is an effect and counted; a command that changes several things is several effects, in the order of the
//! real program. What outlives a crash is what outlives it on a real host: files on disk, not `/run`, not what runs. A new file
//! that a program wrote without a sync is there after a loss of power, and empty.
//! The data volume and bind mounts are modelled: what lies on a volume is not seen while it is not mounted.

pub mod appliance;
#[allow(dead_code, reason = "for upgrades whose packs ask something")]
pub mod asking;
mod cluster;
mod commands;
#[allow(dead_code, reason = "for installations")]
pub mod installation;
#[allow(dead_code, reason = "for upgrades")]
pub mod release;
#[allow(dead_code, reason = "for upgrades")]
pub mod site;
#[allow(dead_code, reason = "for installations")]
pub mod small_bundle;
mod upgrade;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bundle::oci::Digest;
use camino::Utf8Path;
use installer::host::{
    Command, Entry, EntryKind, Host, HostError, HttpsAnswer, HttpsRequest, Output, TimeAnswer, TimeRequest,
};
use installer::layout;
use jiff::Timestamp;
use zeroize::Zeroizing;

/// Where files of the encrypted volume are kept in the map.
pub const VOLUME: &str = "/@volume";

/// What happens at the chosen effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Power is lost before the effect; an append is torn in the middle.
    PowerBefore,
    /// Power is lost after the effect.
    PowerAfter,
    /// The installer alone is killed after the effect; the host runs on.
    KilledAfter,
}

/// A file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `None`: a directory.
    pub content: Option<Vec<u8>>,
    pub mode: u32,
    pub owner: String,
}

/// The LUKS2 volume.
#[derive(Debug, Clone)]
pub struct Luks {
    pub uuid: String,
    pub key: Vec<u8>,
    pub tpm_slot: bool,
    /// Slot and key.
    pub passphrase: Option<(String, Vec<u8>)>,
    pub tokens: Vec<serde_json::Value>,
    /// The label says that a site was finished on it.
    pub is_labelled: bool,
}

/// What a bundle brings.
#[derive(Clone)]
pub struct Medium {
    pub index: Vec<u8>,
    pub name: String,
    pub blobs: Vec<Vec<u8>>,
    pub images: Vec<String>,
}

/// All of the host.
#[derive(Default, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a state of its own of the model")]
pub struct State {
    /// PCR 11 is not what the system's image was signed for.
    pub is_measured_otherwise: bool,
    pub nodes: BTreeMap<String, Node>,
    /// Places of files whose content is not on the disk yet.
    pub unsynced: BTreeSet<String>,
    pub clock: i64,
    pub effects: usize,
    pub crash: Option<(usize, Crash)>,
    pub dead: bool,
    pub serial: u32,
    pub luks: Option<Luks>,
    pub open: bool,
    pub filesystem: bool,
    pub mounts: BTreeMap<String, String>,
    pub loaded: BTreeMap<String, String>,
    pub enabled: BTreeSet<String>,
    pub active: BTreeSet<String>,
    pub users: BTreeSet<String>,
    pub journal_is_persistent: bool,
    pub images: BTreeMap<String, BTreeSet<String>>,
    pub objects: BTreeMap<String, (i64, serde_json::Value)>,
    pub api_since: Option<i64>,
    /// Shown command lines, without what went to stdin.
    pub commands: Vec<String>,
    /// Each time a Secret was created in the cluster.
    pub secrets_made: Vec<String>,
    /// Each time the encryption configuration was written.
    pub encryption_made: usize,
    /// What does not work once the second release is there.
    pub fault: Option<&'static str>,
    pub appliance: Option<appliance::Appliance>,
}

pub struct SimulatedHost {
    pub state: RefCell<State>,
    pub medium: Medium,
}

pub type Done<T> = Result<T, HostError>;

impl SimulatedHost {
    pub fn new(medium: Medium) -> Self {
        let host = Self { state: RefCell::default(), medium };
        {
            let mut state = host.state.borrow_mut();
            state.clock = 1_750_000_000;
            state.put("/proc/self/exe", b"the program", 0o755);
            state.put(&format!("{}/1.pub", layout::TRUST), b"untrusted comment: test\nRW\n", 0o644);
        }
        host
    }

    pub fn crash_at(&self, effect: usize, crash: Crash) {
        self.state.borrow_mut().crash = Some((effect, crash));
    }

    /// The crash happens now, while nothing is in work.
    pub fn crash_now(&self, crash: Crash) {
        let mut state = self.state.borrow_mut();
        state.crash = Some((state.effects, crash));
        state.dead = true;
    }

    /// The host, or the installer alone, comes back.
    pub fn come_back(&self) {
        let mut state = self.state.borrow_mut();
        let (_, crash) = state.crash.take().expect("it did not crash");
        assert!(state.dead, "the effect was not reached");
        state.dead = false;
        if crash != Crash::KilledAfter {
            for place in std::mem::take(&mut state.unsynced) {
                if let Some(node) = state.nodes.get_mut(&place) {
                    node.content = Some(Vec::new());
                }
            }
            state.reboot();
        }
    }

    /// One effect. `torn` is what a loss of power in the middle leaves.
    fn effect_or(&self, torn: impl FnOnce(&mut State), act: impl FnOnce(&mut State)) -> Done<()> {
        drop(self.alive()?);
        let mut state = self.state.borrow_mut();
        state.effects += 1;
        match state.crash {
            Some((effect, crash)) if effect == state.effects => {
                if crash == Crash::PowerBefore {
                    torn(&mut state);
                } else {
                    act(&mut state);
                }
                state.dead = true;
                Err(HostError::PowerLost)
            }
            _ => {
                act(&mut state);
                Ok(())
            }
        }
    }

    pub fn effect(&self, act: impl FnOnce(&mut State)) -> Done<()> {
        self.effect_or(|_| {}, act)
    }

    pub fn alive(&self) -> Done<std::cell::Ref<'_, State>> {
        let state = self.state.borrow();
        let is_off = state.appliance.as_ref().is_some_and(|appliance| appliance.is_off);
        if state.dead || is_off { Err(HostError::PowerLost) } else { Ok(state) }
    }

    pub fn seen(&self, path: &str) -> Option<Vec<u8>> {
        self.state.borrow().get(path).and_then(|node| node.content.clone())
    }

    pub fn seen_text(&self, path: &str) -> String {
        String::from_utf8(self.seen(path).unwrap_or_else(|| panic!("there is no {path}"))).unwrap()
    }
}

impl State {
    /// The place in the map, through bind mounts and the volume.
    fn place(&self, path: &str) -> String {
        let mut path = path.trim_end_matches('/').to_owned();
        // The bind mounts lie on the volume, so they are followed first.
        let mut mounts: Vec<_> = self.mounts.iter().collect();
        mounts.sort_by_key(|(place, _)| [layout::DATA, "/var", "/etc", "/usr/local"].contains(&place.as_str()));
        for (place, source) in mounts {
            if path == *place {
                path.clone_from(source);
            } else if let Some(rest) = path.strip_prefix(&format!("{place}/")) {
                path = format!("{source}/{rest}");
            }
        }
        path
    }

    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&self.place(path))
    }

    pub fn has(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    /// What is there is more than a name.
    pub fn has_content(&self, path: &str) -> bool {
        self.get(path).is_some_and(|node| node.content.as_ref().is_some_and(|content| !content.is_empty()))
    }

    pub fn text(&self, path: &str) -> Option<String> {
        let content = self.get(path)?.content.clone()?;
        Some(String::from_utf8(content).unwrap())
    }

    fn parents(&mut self, place: &str) {
        let parts: Vec<_> = place.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).collect();
        for at in parts {
            let directory = Node { content: None, mode: 0o755, owner: "root".to_owned() };
            let node = self.nodes.entry(place[..at].to_owned()).or_insert(directory);
            assert!(node.content.is_none(), "{} is a file", &place[..at]);
        }
    }

    pub fn put(&mut self, path: &str, content: &[u8], mode: u32) {
        if path.ends_with("cofferdam/encryption.yaml") {
            self.encryption_made += 1;
        }
        let place = self.place(path);
        self.parents(&place);
        let is_static_pod = path.starts_with("/etc/kubernetes/manifests/");
        if is_static_pod && self.nodes.get(&place).is_none_or(|node| node.content.as_deref() != Some(content)) {
            // The kubelet starts it anew.
            let clock = self.clock;
            self.api_since = self.api_since.map(|_| clock);
        }
        self.unsynced.remove(&place);
        self.nodes.insert(place, Node { content: Some(content.to_vec()), mode, owner: "root".to_owned() });
    }

    /// A file as programs write it that sync nothing. ext4 writes what replaces a file's content at once (ext4(5),
    /// `auto_da_alloc`), so only a new file is in danger.
    pub fn put_unsynced(&mut self, path: &str, content: &[u8], mode: u32) {
        let place = self.place(path);
        let is_in_danger = self.unsynced.contains(&place) || !self.nodes.contains_key(&place);
        self.put(path, content, mode);
        if is_in_danger {
            self.unsynced.insert(place);
        }
    }

    /// `sync --file-system`: the volume is one, all else another.
    pub fn sync(&mut self, path: &str) {
        let is_on_volume = self.place(path).starts_with(VOLUME);
        self.unsynced.retain(|place| place.starts_with(VOLUME) != is_on_volume);
    }

    /// A file whose content is another each time it is made; nobody syncs it.
    pub fn put_unique(&mut self, path: &str, mode: u32) {
        self.serial += 1;
        let content = format!("{path} made as number {}\n", self.serial);
        self.put_unsynced(path, content.as_bytes(), mode);
    }

    pub fn directory(&mut self, path: &str, mode: u32) {
        let place = self.place(path);
        self.parents(&place);
        let node = self.nodes.entry(place).or_insert(Node { content: None, mode, owner: "root".to_owned() });
        assert!(node.content.is_none(), "{path} is a file");
        node.mode = mode;
    }

    fn reboot(&mut self) {
        self.unsynced.clear();
        if self.appliance.is_some() {
            // What is enabled lies in /etc, which is read again.
            let enabled = std::mem::take(&mut self.enabled);
            self.boot_appliance();
            if self.appliance.as_ref().is_some_and(|appliance| !appliance.is_live) {
                self.enabled = enabled;
            }
        }
        self.restart_units();
    }

    fn restart_units(&mut self) {
        if self.appliance.is_none() {
            self.forget();
        }
        self.api_since = None;
        self.journal_is_persistent = false;
        self.clock += 60;
        self.reload();
        self.apply_sysctls("/etc/sysctl.d/90-cofferdam.conf");
        // Units start as far as what they need is there; mounts before services, the volume before what lies on it.
        if self.crypttab_opens() {
            self.open = true;
        }
        let mut units: Vec<String> = self.enabled.iter().cloned().collect();
        units.sort_by_key(|unit| {
            let order = ["var-lib-cofferdam-data.mount", ".mount", "registry.service", "containerd.service"];
            order.iter().position(|end| unit.ends_with(end)).unwrap_or(order.len())
        });
        for unit in units {
            let _ = self.start(&unit);
        }
        self.journald();
    }

    fn forget(&mut self) {
        self.nodes.retain(|path, _| !path.starts_with("/run/") && !path.starts_with("/proc/sys/"));
        self.mounts.clear();
        self.active.clear();
        self.open = false;
    }
}

impl Host for SimulatedHost {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.state.borrow().clock).unwrap()
    }

    fn pause(&self, time: Duration) {
        self.state.borrow_mut().clock += i64::try_from(time.as_secs().max(1)).unwrap();
    }

    fn run(&self, command: &Command, watch: &mut dyn FnMut(&str)) -> Done<Output> {
        drop(self.alive()?);
        self.state.borrow_mut().commands.push(command.to_string());
        let (status, stdout, stderr) = self.command(command, watch)?;
        Ok(Output { status, stdout: Zeroizing::new(stdout), stderr })
    }

    fn read(&self, path: &Utf8Path) -> Done<Option<Zeroizing<Vec<u8>>>> {
        Ok(self.alive()?.get(path.as_str()).and_then(|node| node.content.clone()).map(Zeroizing::new))
    }

    fn look(&self, path: &Utf8Path) -> Done<Option<Entry>> {
        let state = self.alive()?;
        if path == "/dev/mapper/cofferdam" {
            let device = Entry { kind: EntryKind::BlockDevice, size: 0, mode: 0o660 };
            return Ok(state.open.then_some(device));
        }
        Ok(state.get(path.as_str()).map(|node| Entry {
            kind: if node.content.is_some() { EntryKind::File } else { EntryKind::Directory },
            size: node.content.as_ref().map_or(0, |content| content.len() as u64),
            mode: node.mode,
        }))
    }

    fn list(&self, directory: &Utf8Path) -> Done<Vec<String>> {
        let state = self.alive()?;
        let prefix = format!("{}/", state.place(directory.as_str()));
        let names = state.nodes.keys().filter_map(|path| path.strip_prefix(&prefix));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn write(&self, path: &Utf8Path, content: &[u8], mode: u32) -> Done<()> {
        self.effect(|state| state.put(path.as_str(), content, mode))
    }

    fn append(&self, path: &Utf8Path, content: &[u8]) -> Done<()> {
        let append = |state: &mut State, bytes: &[u8]| {
            let mut all = state.get(path.as_str()).and_then(|node| node.content.clone()).unwrap_or_default();
            all.extend_from_slice(bytes);
            state.put(path.as_str(), &all, 0o600);
        };
        self.effect_or(|state| append(state, &content[..content.len() / 2]), |state| append(state, content))
    }

    /// No effect that counts: what is noted may be lost in a crash and nothing depends on it.
    fn note(&self, path: &Utf8Path, content: &[u8]) -> Done<()> {
        drop(self.alive()?);
        let mut state = self.state.borrow_mut();
        let mut all = state.get(path.as_str()).and_then(|node| node.content.clone()).unwrap_or_default();
        all.extend_from_slice(content);
        state.put(path.as_str(), &all, 0o600);
        Ok(())
    }

    fn make_directory(&self, path: &Utf8Path, mode: u32) -> Done<()> {
        self.effect(|state| state.directory(path.as_str(), mode))
    }

    fn remove(&self, path: &Utf8Path) -> Done<()> {
        self.effect(|state| {
            let place = state.place(path.as_str());
            state.unsynced.remove(&place);
            if let Some(node) = state.nodes.remove(&place) {
                assert!(node.content.is_some(), "{path} is a directory");
            }
        })
    }

    fn copy(&self, source: &Utf8Path, target: &Utf8Path, mode: u32, digest: Option<&Digest>) -> Done<()> {
        let content = self.read(source)?.unwrap_or_else(|| panic!("there is no {source} to copy"));
        if let Some(digest) = digest {
            assert_eq!(Digest::sha256_of(&content), *digest, "{source}");
        }
        self.write(target, &content, mode)
    }

    fn digest(&self, path: &Utf8Path) -> Done<Option<Digest>> {
        Ok(self.read(path)?.map(|content| Digest::sha256_of(&content)))
    }

    fn measure_sync(&self, _: &Utf8Path, _: u32) -> Done<Duration> {
        panic!("no step measures the disk")
    }

    fn ask_time(&self, _: &[TimeRequest]) -> Vec<Done<TimeAnswer>> {
        panic!("no step asks for the time")
    }

    fn https_get(&self, request: &HttpsRequest) -> Done<HttpsAnswer> {
        let state = self.alive()?;
        let trusted = |path: &str| state.text(path).is_some_and(|text| text == request.roots_pem);
        let answers = match request.port {
            layout::REGISTRY_PORT => {
                !state.has_fault("registry")
                    && state.active.contains("cofferdam-registry.service")
                    && trusted("/etc/cofferdam/tls/site-ca.crt")
            }
            layout::API_PORT => state.api_is_up() && trusted("/etc/kubernetes/pki/ca.crt"),
            443 => state.object_is_ready("deployment/portal/portal") && !state.has_fault("rehearsal"),
            port => panic!("nobody should ask port {port}"),
        };
        if answers {
            return Ok(HttpsAnswer { status: 200, body: b"ok".to_vec(), protocol: "TLSv1_3".to_owned() });
        }
        Err(HostError::Https {
            server: request.server.clone(),
            port: request.port,
            path: request.path.clone(),
            reason: "connection refused".to_owned(),
        })
    }
}
