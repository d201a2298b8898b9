//! A machine whose files lie in a folder, with the real cryptsetup on a real LUKS2 header; the power fails where it is asked to.
//!
//! Only the TPM is a model: its token is a real one in the header, and it opens its slot while the machine has that TPM. What
//! needs device-mapper is left out: opening a volume is proving that its key opens the header.

#[path = "../simulated/small_bundle.rs"]
mod small_bundle;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bundle::index::Index;
use bundle::oci::Digest;
use camino::{Utf8Path, Utf8PathBuf};
use certs::{EscrowBundle, EscrowIdentity, EscrowKind, RecoveryKey};
use installer::config::{self, InstallConfig};
use installer::disk::{self, Key, Volume};
use installer::engine::question::{Answer, Answers, Question, Unattended};
use installer::engine::{Engine, EngineError, Stop};
use installer::host::real::RealHost;
use installer::host::{Command, Entry, Host, HostError, HttpsAnswer, HttpsRequest, Output, TimeAnswer, TimeRequest};
use installer::layout;
use installer::plan::{self, Machine, Plan};
use installer::step::StepError;
use installer::upgrade::{AUDIT, audit};
use jiff::Timestamp;
use serde_json::{Value, json};
use zeroize::Zeroizing;

pub const DEVICE: &str = "/dev/sdb";
pub const PASSPHRASE: &str = "correct horse battery";
pub const PASSPHRASE_FILE: &str = "/root/passphrase";

type Done<T> = Result<T, HostError>;

/// A machine whose files lie in a folder.
pub struct Bench {
    pub folder: tempfile::TempDir,
    pub escrow: Escrow,
    pub identity: EscrowIdentity,
    pub old_key: RecoveryKey,
    /// Which TPM the machine has.
    pub tpm: Cell<u32>,
    pub tpm_is_broken: Cell<bool>,
    pub is_locked_out: Cell<bool>,
    pub enrolled: Cell<u32>,
    pub effects: Cell<usize>,
    /// At this effect, before it or after it.
    pub crash: Cell<Option<(usize, bool)>>,
    pub is_off: Cell<bool>,
    pub lines: RefCell<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escrow {
    Sealed,
    Shown,
}

impl Bench {
    /// A site as its installation leaves it: the real step has made its volume, with the recovery key in slot 0, TPM number 1 in
    /// slot 1, and the passphrase in slot 2 where the recovery key is sealed.
    pub fn new(escrow: Escrow) -> Self {
        let mut bench = Self::empty(escrow);
        let person = Person::default();
        let answers: &dyn Answers = if escrow == Escrow::Shown { &person } else { &Unattended };
        bench.install(answers).unwrap();
        let key = match escrow {
            Escrow::Shown => person.0.take().remove(0),
            Escrow::Sealed => bench.escrowed(&bench.escrows()[0]).0,
        };
        bench.old_key = RecoveryKey::parse(std::str::from_utf8(&key).unwrap()).unwrap();
        bench.effects.set(0);
        bench
    }

    /// Another machine that is the same.
    pub fn copy(&self) -> Self {
        let copy = Self::in_folder(self.escrow, EscrowIdentity::parse(&self.identity.expose()).unwrap());
        let copied = std::process::Command::new("cp").arg("-a").arg(self.place("/.")).arg(copy.place("/")).status();
        assert!(copied.unwrap().success());
        copy.enrolled.set(self.enrolled.get());
        Self { old_key: self.old_key.clone(), ..copy }
    }

    /// A machine with an empty disk, and what an installation has stored before its first step.
    pub fn empty(escrow: Escrow) -> Self {
        let bench = Self::in_folder(escrow, EscrowIdentity::generate());
        bench.write(layout::CONFIG.into(), bench.config().to_yaml().unwrap().as_bytes(), 0o600).unwrap();
        bench.write(layout::PLAN.into(), &serde_json::to_vec(&bench.plan().0).unwrap(), 0o600).unwrap();
        bench.write(PASSPHRASE_FILE.into(), format!("{PASSPHRASE}\n").as_bytes(), 0o600).unwrap();
        bench.write("/sys/class/tpm/tpm0/tpm_version_major".into(), b"2\n", 0o644).unwrap();
        bench.write("/dev/tpmrm0".into(), b"", 0o600).unwrap();
        bench.write(DEVICE.into(), b"", 0o600).unwrap();
        let device = std::fs::OpenOptions::new().write(true).open(bench.place(DEVICE)).unwrap();
        device.set_len(17 << 20).unwrap();
        bench.effects.set(0);
        bench
    }

    fn in_folder(escrow: Escrow, identity: EscrowIdentity) -> Self {
        Self {
            folder: tempfile::tempdir_in(if Utf8Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).unwrap(),
            escrow,
            identity,
            old_key: RecoveryKey::generate().unwrap(),
            tpm: Cell::new(1),
            tpm_is_broken: Cell::default(),
            is_locked_out: Cell::default(),
            enrolled: Cell::default(),
            effects: Cell::default(),
            crash: Cell::default(),
            is_off: Cell::default(),
            lines: RefCell::default(),
        }
    }

    /// Runs `disk.encrypt`.
    pub fn install(&self, answers: &dyn Answers) -> Result<(), EngineError> {
        let (mut plan, index) = self.plan();
        plan.steps.retain(|step| step.id == "disk.encrypt");
        let engine = Engine {
            host: self,
            config: &self.config(),
            plan: &plan,
            index: &index,
            signed_index: (b"index", b"signature"),
            answers,
            stop: &Stop::default(),
        };
        engine.run(&mut |event| self.lines.borrow_mut().push(serde_json::to_string(event).unwrap()))
    }

    fn plan(&self) -> (Plan, Index) {
        let disk = plan::Disk {
            path: DEVICE.to_owned(),
            serial: "S6CTNX0T512345".to_owned(),
            model: "PM9A3".to_owned(),
            size: 960_000_000_000,
            contents: Vec::new(),
        };
        let (index, _) = small_bundle::small_bundle();
        let machine = Machine { disk: Some(disk), tpm2: true, slowness: 4.0, secure_boot: false, system: None };
        (plan::plan(&self.config(), &machine, &index, "sha256:00", 1 << 20).unwrap(), index)
    }

    fn config(&self) -> InstallConfig {
        let mut answers: Value = serde_yaml::from_str(config::example::EXAMPLE).unwrap();
        let encryption = &mut answers["storage"]["encryption"];
        encryption["tpm2"] = json!("require");
        encryption["key-derivation"] = json!({"memory-kib": 32, "iterations": 4});
        encryption["escrow-recipients"] = json!([self.identity.recipient().to_string()]);
        encryption["escrow-directory"] = json!("/media/escrow");
        encryption["passphrase"] = json!({"file": PASSPHRASE_FILE});
        if self.escrow == Escrow::Shown {
            encryption["passphrase"] = Value::Null;
            encryption["escrow-recipients"] = json!([]);
            encryption["escrow-directory"] = Value::Null;
            encryption["show-recovery-key"] = json!(true);
            answers["administrator"] = json!({
                "name": "operator",
                "password-hash": format!("$2b$12${}", "a".repeat(53)),
                "ssh-keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6wu3xDlzCNWtgvCzd1GkbEFAE2kyAaodjzEyA2JTuB operator@desk"],
            });
        }
        config::parse(&serde_yaml::to_string(&answers).unwrap()).unwrap()
    }

    pub fn escrows(&self) -> [String; 2] {
        let site = self.config().site.name;
        [format!("{}/disk.age", layout::ESCROW), format!("/media/escrow/{site}/disk.age")]
    }

    pub fn place(&self, path: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.folder.path()).unwrap().join(path.trim_start_matches('/'))
    }

    pub fn must(&self, command: &Command) -> Output {
        let output = self.run(command, &mut |_| {}).unwrap();
        assert!(output.success(), "{command}: {}", output.stderr);
        output
    }

    /// The real program, with the paths of this machine; `input` in the place of the command's.
    pub fn real(&self, command: &Command, input: &[u8]) -> Output {
        let is_path = |word: &str| word == DEVICE || word.starts_with("/run/cofferdam/") || word.starts_with("/other/");
        let words = command.arguments().iter();
        let words = words.map(|word| if is_path(word) { self.place(word).into_string() } else { word.clone() });
        RealHost.run(&Command::new(command.program()).args(words).stdin(input), &mut |_| {}).unwrap()
    }

    pub fn opens(&self, path: &str, key: &[u8]) -> bool {
        let open = Command::new("cryptsetup").args(["open", "--test-passphrase", "--key-file", "-", path]);
        self.real(&open, key).success()
    }

    pub fn header(&self) -> Value {
        let dump = Command::new("cryptsetup").args(["luksDump", "--dump-json-metadata", DEVICE]);
        serde_json::from_slice(&self.real(&dump, b"").stdout).unwrap()
    }

    pub fn tokens(&self) -> Vec<(String, Value)> {
        let header = self.header();
        header["tokens"].as_object().unwrap().iter().map(|(id, token)| (id.clone(), token.clone())).collect()
    }

    /// What the TPM that is in the machine unseals.
    fn unsealed(&self) -> Option<Vec<u8>> {
        let tokens = self.tokens().into_iter().filter(|(_, token)| token["type"] == "systemd-tpm2");
        let blobs = tokens.map(|(_, token)| BASE64_STANDARD.decode(token["tpm2-blob"].as_str().unwrap()).unwrap());
        blobs.into_iter().find(|blob| blob.starts_with(format!("tpm {} ", self.tpm.get()).as_bytes()))
    }

    pub fn opens_by_tpm(&self) -> bool {
        self.unsealed().is_some_and(|secret| self.opens(DEVICE, &secret))
    }

    fn enrol_command() -> Command {
        Command::new("systemd-cryptenroll").args([
            "--unlock-key-file=/dev/stdin",
            "--tpm2-device=auto",
            "--tpm2-pcrs=7",
            DEVICE,
        ])
    }

    /// The slot first, then the token, and nothing at all when a token has this policy: as systemd does it.
    fn enrol(&self, command: &Command) -> Done<Output> {
        assert_eq!(command.arguments(), Self::enrol_command().arguments());
        if self.tpm_is_broken.get() {
            return Ok(ended(1, "Failed to create TPM2 context"));
        }
        let is_enrolled = |(_, token): &(String, Value)| token["type"] == "systemd-tpm2";
        if self.tokens().iter().any(is_enrolled) {
            return Ok(ended(0, "This PCR set is already enrolled, executing no operation."));
        }
        let key = command.input().unwrap();
        if !self.opens(DEVICE, key) {
            return Ok(ended(1, "wrong key"));
        }
        self.enrolled.set(self.enrolled.get() + 1);
        let secret = format!("tpm {} seals {}", self.tpm.get(), self.enrolled.get());
        let before: Vec<String> = self.header()["keyslots"].as_object().unwrap().keys().cloned().collect();
        let cheap = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        let length = key.len().to_string();
        let add = Command::new("cryptsetup").args(["luksAddKey", "--batch-mode"]).args(cheap);
        let add = add.args(["--key-file", "-", "--keyfile-size", &length, DEVICE, "-"]);
        self.effect(|| assert!(self.real(&add, &[key, secret.as_bytes()].concat()).success()))?;
        let after = self.header();
        let slot = after["keyslots"].as_object().unwrap().keys().find(|slot| !before.contains(slot)).unwrap().clone();
        let token = json!({
            "type": "systemd-tpm2", "keyslots": [slot], "tpm2-blob": BASE64_STANDARD.encode(&secret), "tpm2-pcrs": [7],
            "tpm2-pcr-bank": "sha256", "tpm2-primary-alg": "ecc", "tpm2-policy-hash": "00", "tpm2-pin": false,
        });
        let import = Command::new("cryptsetup").args(["token", "import", "--json-file", "-", DEVICE]);
        self.effect(|| assert!(self.real(&import, token.to_string().as_bytes()).success()))?;
        Ok(ended(0, ""))
    }

    fn cryptsetup(&self, command: &Command) -> Done<Output> {
        let input = command.input().unwrap_or_default();
        let mut arguments = command.arguments().to_vec();
        let mut input = input.to_vec();
        if let Some(at) = arguments.iter().position(|word| word == "--token-type") {
            assert_eq!(arguments[at + 1..at + 3], ["systemd-tpm2", "--token-only"]);
            let Some(secret) = self.unsealed() else { return Ok(ended(1, "No usable token is available.")) };
            let length = secret.len().to_string();
            arguments.splice(at..at + 3, ["--key-file", "-", "--keyfile-size", &length].map(str::to_owned));
            input.splice(0..0, secret);
        }
        // The name of an opened volume.
        if arguments.last().is_some_and(|word| word == layout::VOLUME) {
            arguments.truncate(arguments.len() - 1);
            arguments.insert(1, "--test-passphrase".to_owned());
        }
        let real = Command::new("cryptsetup").args(arguments.clone());
        if ["open", "luksDump", "isLuks"].contains(&arguments[0].as_str()) {
            return Ok(self.real(&real, &input));
        }
        let mut output = None;
        self.effect(|| output = Some(self.real(&real, &input)))?;
        Ok(output.unwrap())
    }

    fn effect(&self, act: impl FnOnce()) -> Done<()> {
        self.effect_or(|| {}, act)
    }

    fn effect_or(&self, torn: impl FnOnce(), act: impl FnOnce()) -> Done<()> {
        self.alive()?;
        self.effects.set(self.effects.get() + 1);
        let (is_before, is_after) = match self.crash.get() {
            Some((at, is_before)) if at == self.effects.get() => (is_before, !is_before),
            _ => (false, false),
        };
        if is_before {
            torn();
        } else {
            act();
        }
        self.is_off.set(is_before || is_after);
        self.alive()
    }

    fn alive(&self) -> Done<()> {
        if self.is_off.get() { Err(HostError::PowerLost) } else { Ok(()) }
    }

    pub fn come_back(&self) {
        assert!(self.is_off.replace(false), "the effect was not reached");
        self.crash.set(None);
        let _ = std::fs::remove_dir_all(self.place("/run"));
    }

    /// The recovery key of an escrow, and the header in it.
    pub fn escrowed(&self, place: &str) -> (Vec<u8>, Option<Vec<u8>>) {
        let sealed = std::fs::read(self.place(place)).unwrap();
        let opened = EscrowBundle::open(&sealed, &self.identity).unwrap();
        let find = |kind| opened.items.iter().find(|item| item.kind == kind).map(|item| item.data.to_vec());
        let header = find(EscrowKind::LuksHeader).map(|packed| zstd::decode_all(packed.as_slice()).unwrap());
        (find(EscrowKind::RecoveryKey).unwrap(), header)
    }

    pub fn old(&self) -> Vec<u8> {
        self.old_key.expose().as_bytes().to_vec()
    }

    pub fn rotate(&self, by_tpm: bool, answers: &dyn Answers) -> Result<(), StepError> {
        let volume = Volume::of(self)?;
        let mut ask = || Ok(if by_tpm { Key::Tpm } else { Key::read(&self.old_key.expose().to_uppercase()) });
        disk::audited(&volume, "root", "disk.rotate-recovery", || disk::rotate(&volume, &mut ask, answers, &mut |_| {}))
    }

    pub fn rebind(&self, key: &str) -> Result<(), StepError> {
        let volume = Volume::of(self)?;
        let mut ask = || Ok(Key::read(key));
        disk::audited(&volume, "root", "disk.rebind", || disk::rebind(&volume, &mut ask, &mut |_| {}))
    }

    /// Each slot with its token, the mark of the site, and nothing of an interrupted run.
    pub fn is_tidy(&self, has_rotated: bool) {
        let header = self.header();
        let has_passphrase = self.escrow == Escrow::Sealed;
        assert_eq!(header["keyslots"].as_object().unwrap().len(), 2 + usize::from(has_passphrase), "{header}");
        let tokens = self.tokens();
        let count = |test: &dyn Fn(&Value) -> bool| tokens.iter().filter(|(_, token)| test(token)).count();
        assert_eq!(count(&|token| token["proven"] == true), 1, "{tokens:?}");
        assert_eq!(
            count(&|token| token["type"] == "systemd-tpm2" && token["keyslots"][0].is_string()),
            1,
            "{tokens:?}"
        );
        assert_eq!(tokens.len(), 2 + usize::from(has_passphrase) + usize::from(has_rotated), "{tokens:?}");
        if has_rotated {
            let is_right = |token: &Value| {
                token["holder"] == "recovery-key" && token["keyslots"][0].is_string() && token["replaces"].is_null()
            };
            assert_eq!(count(&is_right), 1, "{tokens:?}");
        }
        if has_passphrase {
            let is_right = |token: &Value| token["holder"] == "passphrase" && token["keyslots"] == json!(["2"]);
            assert_eq!(count(&is_right), 1, "{tokens:?}");
            assert!(self.opens(DEVICE, PASSPHRASE.as_bytes()), "the passphrase opens nothing");
            assert!(
                !self.lines.borrow().iter().any(|line| line.contains("horse")),
                "the passphrase in argv or an event"
            );
        }
        assert!(self.opens_by_tpm());
        let log = String::from_utf8(std::fs::read(self.place(AUDIT)).unwrap()).unwrap();
        let verdict = audit::verify(&log, None);
        assert!(verdict.problems.is_empty() && verdict.records >= 2, "{verdict:?}");
        let commands = self.lines.borrow();
        let groups = self.old_key.expose();
        assert!(commands.iter().all(|line| groups.split('-').all(|group| !line.contains(group))), "a key in argv");
    }

    pub fn has_rotated(&self) {
        self.is_tidy(true);
        assert!(!self.opens(DEVICE, &self.old()), "the old key still opens");
        for place in self.escrows() {
            let (key, header) = self.escrowed(&place);
            assert!(self.opens(DEVICE, &key), "{place}");
            assert!(!self.lines.borrow().iter().any(|line| line.contains(std::str::from_utf8(&key).unwrap())));
            std::fs::create_dir_all(self.place("/other")).unwrap();
            std::fs::write(self.place("/other/header"), header.unwrap()).unwrap();
            assert!(self.opens("/other/header", &key) && !self.opens("/other/header", &self.old()), "{place}");
            assert!(self.opens("/other/header", PASSPHRASE.as_bytes()), "{place}");
        }
        assert!(!self.place("/run/cofferdam/luks-header").exists(), "the copy of the header is left");
    }
}

fn ended(status: i32, stderr: &str) -> Output {
    Output { status, stdout: Zeroizing::default(), stderr: stderr.to_owned() }
}

impl Host for Bench {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_750_000_000).unwrap()
    }
    fn pause(&self, _: Duration) {
        panic!("nothing is waited for")
    }
    fn run(&self, command: &Command, _: &mut dyn FnMut(&str)) -> Done<Output> {
        self.alive()?;
        self.lines.borrow_mut().push(command.to_string());
        match command.program() {
            "cryptsetup" => self.cryptsetup(command),
            "systemd-cryptenroll" => self.enrol(command),
            "/lib/systemd/systemd-cryptsetup" => Ok(ended(i32::from(!self.opens_by_tpm()), "")),
            "wipefs" | "mkfs.ext4" => Ok(ended(0, "")),
            "tpm2_getcap" => {
                let text = format!("TPM2_PT_PERMANENT:\n  inLockout:    {}\n", u8::from(self.is_locked_out.get()));
                Ok(Output { status: 0, stdout: Zeroizing::new(text.into_bytes()), stderr: String::new() })
            }
            other => panic!("{other} is not expected"),
        }
    }
    fn read(&self, path: &Utf8Path) -> Done<Option<Zeroizing<Vec<u8>>>> {
        self.alive()?;
        RealHost.read(&self.place(path.as_str()))
    }
    fn look(&self, path: &Utf8Path) -> Done<Option<Entry>> {
        self.alive()?;
        RealHost.look(&self.place(path.as_str()))
    }
    fn list(&self, directory: &Utf8Path) -> Done<Vec<String>> {
        self.alive()?;
        RealHost.list(&self.place(directory.as_str()))
    }
    fn write(&self, path: &Utf8Path, content: &[u8], mode: u32) -> Done<()> {
        self.effect(|| RealHost.write(&self.place(path.as_str()), content, mode).unwrap())
    }
    fn append(&self, path: &Utf8Path, content: &[u8]) -> Done<()> {
        let path = self.place(path.as_str());
        let torn = || RealHost.append(&path, &content[..content.len() / 2]).unwrap();
        self.effect_or(torn, || RealHost.append(&path, content).unwrap())
    }
    /// No effect: what is noted may be lost in a crash.
    fn note(&self, path: &Utf8Path, content: &[u8]) -> Done<()> {
        self.alive()?;
        RealHost.append(&self.place(path.as_str()), content)
    }
    fn make_directory(&self, path: &Utf8Path, mode: u32) -> Done<()> {
        self.effect(|| RealHost.make_directory(&self.place(path.as_str()), mode).unwrap())
    }
    fn remove(&self, path: &Utf8Path) -> Done<()> {
        self.effect(|| RealHost.remove(&self.place(path.as_str())).unwrap())
    }
    fn copy(&self, _: &Utf8Path, _: &Utf8Path, _: u32, _: Option<&Digest>) -> Done<()> {
        panic!("nothing is copied")
    }
    fn digest(&self, path: &Utf8Path) -> Done<Option<Digest>> {
        RealHost.digest(&self.place(path.as_str()))
    }
    fn measure_sync(&self, _: &Utf8Path, _: u32) -> Done<Duration> {
        panic!("the disk is not measured")
    }
    fn ask_time(&self, requests: &[TimeRequest]) -> Vec<Done<TimeAnswer>> {
        assert!(requests.is_empty(), "nobody is asked for the time");
        Vec::new()
    }
    fn https_get(&self, _: &HttpsRequest) -> Done<HttpsAnswer> {
        panic!("nobody is asked")
    }
}

/// Somebody who writes the key down.
#[derive(Default)]
pub struct Person(pub RefCell<Vec<Vec<u8>>>);

impl Answers for Person {
    fn ask(&self, question: Question) -> Answer {
        let Question::RecoveryKey(shown) = question;
        let text = shown.text();
        self.0.borrow_mut().push(text.as_bytes().to_vec());
        let group = |number: usize| text.split('-').nth(number - 1).unwrap();
        let [first, second] = shown.asked();
        Answer::WrittenDown(shown.confirm([group(first), group(second)]).unwrap())
    }
}
