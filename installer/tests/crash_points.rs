//! An installation that is cut off at any of its effects ends, run again, in the state of one that was not.
//!
//! The host is simulated; the plan, the engine, the steps, the keys, certificates and escrows are the real ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(unreachable_pub, reason = "a test is a crate of its own")]
#![allow(clippy::case_sensitive_file_extension_comparisons, reason = "our own names, all in lower case")]

mod simulated;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use base64::Engine as _;
use bundle::index::Index;
use bundle::oci::Digest;
use certs::{EscrowBundle, EscrowIdentity, EscrowKind};
use installer::config::{self, Encryption, InstallConfig};
use installer::engine::event::{Event, Heard};
use installer::engine::journal::Journal;
use installer::engine::question::{Answer, Answers, Question, Unattended};
use installer::engine::{Engine, EngineError, Stop};
use installer::layout;
use installer::plan::{self, BootFile, Disk, Machine, Plan, SystemImage};
use serde_json::{Value, json};
use simulated::small_bundle::small_bundle;
use simulated::{Crash, Medium, SimulatedHost, State, VOLUME};

/// How the recovery key leaves the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    Plain,
    Escrowed,
    /// By the screen alone.
    Shown,
    /// As an escrow; the machine is bare and has booted the medium.
    Appliance,
}

/// Somebody who writes every key down and types the two groups back; the machine may crash while they write.
struct Person<'a> {
    host: &'a SimulatedHost,
    written: RefCell<Vec<String>>,
    crash: Cell<Option<Crash>>,
    wants_to_stop: bool,
}

impl<'a> Person<'a> {
    fn at(host: &'a SimulatedHost) -> Self {
        Self { host, written: RefCell::default(), crash: Cell::default(), wants_to_stop: false }
    }
}

impl Answers for Person<'_> {
    fn ask(&self, question: Question) -> Answer {
        let Question::RecoveryKey(shown) = question;
        let key = shown.text().to_string();
        if let Some(crash) = self.crash.take() {
            self.written.borrow_mut().push(key);
            self.host.crash_now(crash);
            return Answer::Nobody;
        }
        if self.wants_to_stop {
            return Answer::Stop;
        }
        let group = |number: usize| key.split('-').nth(number - 1).unwrap();
        let [first, second] = shown.asked();
        let answer = shown.confirm([group(first), group(second)]).unwrap();
        self.written.borrow_mut().push(key);
        Answer::WrittenDown(answer)
    }
}

/// All that an installation begins with.
struct Site {
    storage: Storage,
    config: InstallConfig,
    plan: Plan,
    index: Index,
    medium: Medium,
    identity: EscrowIdentity,
    /// The operator's, with its key and its root; PEM.
    certificate: [Vec<u8>; 3],
}

/// Where a medium has the operator's certificate, its key and its root.
const CERTIFICATE: [&str; 3] =
    ["/run/cofferdam/volume/chain.pem", "/run/cofferdam/volume/key.pem", "/run/cofferdam/volume/root.pem"];

/// The passphrase of the disk, and where the operator has it: on a host's medium, on the volume with an appliance's answers.
const PASSPHRASE: &str = "correct horse battery staple";
const PASSPHRASE_FILES: [&str; 2] = ["/media/answers/passphrase", "/run/cofferdam/volume/passphrase"];

/// A certificate of the operator's own authority for the names of the example.
fn operators_certificate(now: jiff::Timestamp) -> [Vec<u8>; 3] {
    let algorithm = certs::KeyAlgorithm::EcdsaP256;
    let authority = certs::SiteAuthority::generate("Example CA", algorithm, certs::Validity::AUTHORITY, now).unwrap();
    let names = certs::ServerNames::new("mgmt.rack7.example.com".parse().unwrap()).with("mgmt".parse().unwrap());
    let key = certs::PrivateKey::generate(algorithm).unwrap();
    let profile = certs::CertificateProfile::Server(names);
    let certificate = authority.issue(&profile, &key, certs::Validity::LEAF, now).unwrap();
    [certificate.to_pem().into(), key.to_pem().as_bytes().to_vec(), authority.certificate_pem().as_bytes().to_vec()]
}

impl Site {
    fn new(storage: Storage) -> Self {
        let identity = EscrowIdentity::generate();
        let mut answers: Value = serde_yaml::from_str(config::example::EXAMPLE).unwrap();
        if storage == Storage::Appliance {
            answers["network"] = json!({"adapters": ["eno1"], "vlan": 120, "addresses": ["192.0.2.11/24"]});
            let [certificate, key, roots] = CERTIFICATE;
            answers["certificates"] =
                json!({"mode": "import", "certificate": certificate, "key": {"file": key}, "roots": roots});
        }
        let encryption = &mut answers["storage"]["encryption"];
        encryption["tpm2"] = json!("require");
        match storage {
            Storage::Escrowed | Storage::Appliance => {
                encryption["escrow-recipients"] = json!([identity.recipient().to_string()]);
                encryption["escrow-directory"] = json!("/media/escrow");
                let [on_medium, on_volume] = PASSPHRASE_FILES;
                let file = if storage == Storage::Appliance { on_volume } else { on_medium };
                encryption["passphrase"] = json!({"file": file});
            }
            Storage::Shown => {
                encryption["escrow-recipients"] = json!([]);
                encryption["show-recovery-key"] = json!(true);
                answers["administrator"] = json!({
                    "name": "operator",
                    "password-hash": format!("$2b$12${}", "a".repeat(53)),
                    "ssh-keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6wu3xDlzCNWtgvCzd1GkbEFAE2kyAaodjzEyA2JTuB operator@desk"],
                });
            }
            Storage::Plain => {
                answers["storage"] = json!({"encryption": {"mode": "none", "token": config::PLAINTEXT_TOKEN}});
            }
        }
        let config = config::parse(&serde_yaml::to_string(&answers).unwrap()).unwrap();
        let (index, blobs) = small_bundle();
        let bytes = serde_json::to_vec(&index).unwrap();
        let plan =
            plan::plan(&config, &machine(storage), &index, &Digest::sha256_of(&bytes).to_string(), 1 << 20).unwrap();
        let medium = Medium {
            index: bytes,
            name: format!("{}-{}", index.name, index.version),
            blobs,
            images: index.images.iter().map(|image| image.reference.to_string()).collect(),
        };
        let certificate = operators_certificate(installer::host::Host::now(&SimulatedHost::new(medium.clone())));
        Self { storage, config, plan, index, medium, identity, certificate }
    }

    fn host(&self) -> SimulatedHost {
        if self.storage != Storage::Appliance {
            let host = SimulatedHost::new(self.medium.clone());
            host.state.borrow_mut().put(PASSPHRASE_FILES[0], PASSPHRASE.as_bytes(), 0o600);
            return host;
        }
        let mut answers = vec![
            (layout::CONFIG.to_owned(), self.config.to_yaml().unwrap().into_bytes()),
            (layout::PLAN.to_owned(), serde_json::to_vec(&self.plan).unwrap()),
            (format!("{}/1.pub", layout::TRUST), b"untrusted comment: test\nRW\n".to_vec()),
        ];
        answers.push((PASSPHRASE_FILES[1].to_owned(), format!("{PASSPHRASE}\n").into_bytes()));
        answers.extend(CERTIFICATE.map(str::to_owned).into_iter().zip(self.certificate.iter().cloned()));
        let boot = BOOT_FILES.iter().map(|(from, _)| ((*from).to_owned(), from.as_bytes().to_vec())).collect();
        SimulatedHost::live(self.medium.clone(), answers, boot)
    }

    /// Runs the plan to its end, through the restarts that are part of it.
    fn run_all(&self, host: &SimulatedHost, events: &mut String) -> Result<(), EngineError> {
        loop {
            match self.run(host, events) {
                Err(_) if host.has_restarted() => {}
                ended => return ended,
            }
        }
    }

    /// With nobody there unless the key has to be shown.
    fn run(&self, host: &SimulatedHost, events: &mut String) -> Result<(), EngineError> {
        let person = Person::at(host);
        let answers: &dyn Answers = if self.config.needs_a_person() { &person } else { &Unattended };
        self.run_with(host, answers, &Stop::default(), events)
    }

    fn run_with(
        &self,
        host: &SimulatedHost,
        answers: &dyn Answers,
        stop: &Stop,
        events: &mut String,
    ) -> Result<(), EngineError> {
        let engine = Engine {
            host,
            config: &self.config,
            plan: &self.plan,
            index: &self.index,
            signed_index: (&self.medium.index, b"signature"),
            answers,
            stop,
        };
        engine.run(&mut |event| {
            events.push_str(&serde_json::to_string(event).unwrap());
            events.push('\n');
        })
    }
}

/// Places on the medium's and on the disk's boot partition; each file's content is its first place.
const BOOT_FILES: [(&str, &str); 3] = [
    ("EFI/Linux/cofferdam_1.efi", "EFI/Linux/cofferdam_1+3.efi"),
    ("loader/loader.conf", "loader/loader.conf"),
    ("EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/BOOTX64.EFI"),
];

fn system() -> SystemImage {
    let file = |(from, to): &(&str, &str)| BootFile {
        from: (*from).to_owned(),
        to: (*to).to_owned(),
        digest: Digest::sha256_of(from.as_bytes()),
    };
    SystemImage {
        version: "1".to_owned(),
        root_hash: "0123456789abcdef".repeat(4),
        root_bytes: 200 << 20,
        verity_bytes: 2 << 20,
        boot: BOOT_FILES.iter().map(file).collect(),
    }
}

fn machine(storage: Storage) -> Machine {
    let disk = Disk {
        path: "/dev/sdb".to_owned(),
        serial: "S6CTNX0T512345".to_owned(),
        model: "PM9A3".to_owned(),
        size: 960_000_000_000,
        contents: Vec::new(),
    };
    let system = (storage == Storage::Appliance).then(system);
    Machine { disk: Some(disk), tpm2: true, slowness: 4.0, secure_boot: false, system }
}

/// Files whose content is random, made of random keys, or tells the time: their structure is looked at instead.
fn is_made_anew(path: &str) -> bool {
    let inside = |folder: &str| path.contains(folder);
    inside("/keystore/")
        || inside("kubernetes/pki/")
        || inside("/escrow/")
        || path.starts_with("/etc/cofferdam/tls/")
        || path.ends_with("kubernetes/cofferdam/encryption.yaml")
        || (path.ends_with(".conf") && inside("kubernetes/"))
        || path == layout::JOURNAL
        || path == layout::EVENTS
}

/// What must be the same after every installation, in words that can be compared.
fn final_state(state: &State) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (path, node) in &state.nodes {
        if path.starts_with("/run/") || path == "/run" {
            continue;
        }
        // The volume of an appliance is seen at these places.
        let seen = path.replace(&format!("{VOLUME}/lib/overlay/etc"), "/etc").replace(VOLUME, "/var");
        let path = if state.appliance.is_some() { &seen } else { path };
        let content = match &node.content {
            None => "directory".to_owned(),
            Some(_) if is_made_anew(path) => "made anew".to_owned(),
            Some(content) if path == layout::STATE => {
                let mut site: Value = serde_json::from_slice(content).unwrap();
                for key in ["installed", "ca-fingerprint"] {
                    site[key] = json!(site[key].as_str().unwrap().len() > 10);
                }
                site.to_string()
            }
            Some(content) => {
                let text = String::from_utf8_lossy(content).into_owned();
                state.luks.as_ref().map_or(text.clone(), |luks| text.replace(&luks.uuid, "UUID"))
            }
        };
        all.insert(path.clone(), format!("{:o} {} {content}", node.mode, node.owner));
    }
    let luks = state.luks.as_ref().map(|luks| luks.metadata().to_string());
    all.insert("LUKS header".to_owned(), format!("{luks:?} open {}", state.open));
    let slots = state.appliance.as_ref().map(|appliance| &appliance.slots);
    all.insert("slots".to_owned(), format!("{slots:?}"));
    all.insert("mounts".to_owned(), format!("{:?}", state.mounts));
    all.insert("units".to_owned(), format!("enabled {:?} active {:?}", state.enabled, state.active));
    all.insert("users".to_owned(), format!("{:?}", state.users));
    all.insert("images".to_owned(), format!("{:?}", state.images));
    all.insert("journald".to_owned(), state.journal_is_persistent.to_string());
    for (name, (_, object)) in &state.objects {
        let content = if name.starts_with("secret/") { "secret".to_owned() } else { object.to_string() };
        all.insert(format!("object {name}"), content);
    }
    all
}

/// What is made anew must fit together.
fn check_structure(site: &Site, host: &SimulatedHost) {
    let keystore = |name: &str| host.seen_text(&format!("{}/{name}", layout::KEYSTORE));
    for name in ["server", "registry", "node"] {
        let certificate = &certs::parse_certificates(name, &keystore(&format!("{name}.crt"))).unwrap()[0];
        assert!(certs::PrivateKey::from_pem(&keystore(&format!("{name}.key"))).unwrap().matches(certificate), "{name}");
    }
    for name in ["site-ca.crt", "registry.crt", "server-roots.crt"] {
        assert_eq!(keystore(name), host.seen_text(&format!("{}/{name}", layout::TLS)), "{name}");
    }
    let records = Journal::new(host).records().unwrap();
    assert_eq!(records.last().unwrap().step, "site.record");
    let state = host.state.borrow();
    assert_eq!(state.encryption_made, 1, "the encryption configuration was made more than once");
    let mut made = state.secrets_made.clone();
    made.sort();
    made.dedup();
    assert_eq!((made.len(), state.secrets_made.len()), (5, 5), "each Secret is made once: {:?}", state.secrets_made);

    drop(records);
    let Some(luks) = &state.luks else { return };
    if site.config.needs_a_person() {
        assert!(!state.has(layout::ESCROW), "there is an escrow for nobody");
        return;
    }
    let (slot, passphrase) = luks.passphrase.as_ref().expect("a passphrase was asked for");
    assert_eq!(passphrase, PASSPHRASE.as_bytes());
    let named = |token: &&Value| token["holder"] == "passphrase" && token["keyslots"] == json!([slot]);
    assert_eq!(luks.tokens.iter().filter(named).count(), 1, "{:?}", luks.tokens);
    let open = |name: &str, place: &str| {
        let sealed = state.get(&format!("{place}/{name}")).unwrap_or_else(|| panic!("{place}/{name}"));
        EscrowBundle::open(sealed.content.as_ref().unwrap(), &site.identity).unwrap()
    };
    // What the live system wrote to another medium is not in the machine any more.
    let places: &[&str] = match site.storage {
        Storage::Appliance => &[layout::ESCROW],
        _ => &[layout::ESCROW, "/media/escrow/rack7"],
    };
    for place in places {
        let disk = open("disk.age", place);
        let key = disk.items.iter().find(|item| item.kind == EscrowKind::RecoveryKey).unwrap();
        assert_eq!(key.data.as_slice(), luks.key, "the escrowed key opens the volume");
        let header = disk.items.iter().find(|item| item.kind == EscrowKind::LuksHeader).unwrap();
        let header: Value = serde_json::from_slice(&zstd::decode_all(header.data.as_slice()).unwrap()).unwrap();
        assert!(header["keyslots"][slot].is_object(), "the escrowed header has the passphrase: {header}");
        let keys = open("keys.age", place);
        for name in ["site-ca.key", "server.key", "registry.key", "node.key"] {
            let item = keys.items.iter().find(|item| item.name == name).unwrap_or_else(|| panic!("{name}"));
            let path = format!("{}/{name}", layout::KEYSTORE);
            assert_eq!(Some(item.data.as_slice()), state.get(&path).unwrap().content.as_deref(), "{name}");
        }
        assert_eq!(keys.items.iter().filter(|item| item.kind == EscrowKind::PackSecret).count(), 5);
    }
    if site.storage == Storage::Appliance {
        let escrow = |path: String| state.get(&path).unwrap().content.clone();
        let on_disk = escrow(format!("{}/cofferdam/escrow/disk.age", simulated::appliance::BOOT));
        assert_eq!(on_disk, escrow(format!("{}/disk.age", layout::ESCROW)), "the escrow on the boot partition");
        assert_eq!(state.mounts["/var"], VOLUME);
    } else {
        assert_eq!(state.mounts[layout::DATA], VOLUME);
    }
}

/// The lines that differ.
fn difference(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> String {
    let names: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let different = names.into_iter().filter(|name| one.get(*name) != other.get(*name));
    different.fold(String::new(), |text, name| {
        format!("{text}{name}:\n  uninterrupted {:?}\n  interrupted   {:?}\n", one.get(name), other.get(name))
    })
}

fn every_crash_point(storage: Storage) {
    every_crash_point_until(storage, usize::MAX);
}

fn every_crash_point_until(storage: Storage, last: usize) {
    let site = Site::new(storage);
    let host = site.host();
    site.run_all(&host, &mut String::new()).unwrap();
    check_structure(&site, &host);
    let (expected, effects) = (final_state(&host.state.borrow()), host.state.borrow().effects.min(last));

    let mut problems = Vec::new();
    for crash in [Crash::PowerBefore, Crash::PowerAfter, Crash::KilledAfter] {
        for effect in 1..=effects {
            let host = site.host();
            host.crash_at(effect, crash);
            let mut events = String::new();
            site.run_all(&host, &mut events).expect_err("the host lost power");
            let last = host.state.borrow().commands.last().cloned().unwrap_or_default();
            let step = events.lines().rev().find(|line| line.contains("step-started")).unwrap_or_default().to_owned();
            let place = format!("{crash:?} at effect {effect} of {effects}, {step}, last command `{last}`");
            host.come_back();
            if let Err(error) = site.run_all(&host, &mut events) {
                problems.push(format!("{place}: {error}"));
                continue;
            }
            let found = final_state(&host.state.borrow());
            if found == expected {
                check_structure(&site, &host);
            } else {
                problems.push(format!("{place}:\n{}", difference(&expected, &found)));
            }
        }
    }
    eprintln!("{} crash points tried ({effects} effects, three ways to crash)", effects * 3);
    assert!(effects > 30, "only {effects} effects");
    assert!(problems.is_empty(), "{} crash points end elsewhere:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn every_crash_point_of_an_encrypted_install_ends_in_the_same_state() {
    every_crash_point(Storage::Escrowed);
}

#[test]
fn every_crash_point_of_a_plain_install_ends_in_the_same_state() {
    every_crash_point(Storage::Plain);
}

#[test]
fn every_crash_point_of_an_appliance_ends_in_the_same_state() {
    every_crash_point(Storage::Appliance);
}

#[test]
fn the_same_answers_give_the_same_plan() {
    for storage in [Storage::Escrowed, Storage::Plain, Storage::Shown, Storage::Appliance] {
        let site = Site::new(storage);
        let again = config::parse(&site.config.to_yaml().unwrap()).unwrap();
        let (index, _) = small_bundle();
        let plan = plan::plan(&again, &machine(storage), &index, &site.plan.index, 1 << 20).unwrap();
        assert_eq!(serde_json::to_vec(&plan).unwrap(), serde_json::to_vec(&site.plan).unwrap());
        let stored: Plan = serde_json::from_slice(&serde_json::to_vec(&plan).unwrap()).unwrap();
        assert_eq!(stored, site.plan);
    }
}

#[test]
fn every_crash_point_of_an_install_that_shows_its_key_ends_in_the_same_state() {
    // Behind the data volume this is the installation with an escrow, whose every crash point is tried above.
    let site = Site::new(Storage::Shown);
    let host = site.host();
    let mut last = 0;
    let engine = Engine {
        host: &host,
        config: &site.config,
        plan: &site.plan,
        index: &site.index,
        signed_index: (&site.medium.index, b"signature"),
        answers: &Person::at(&host),
        stop: &Stop::default(),
    };
    engine
        .run(&mut |event| {
            if matches!(event, Event::StepFinished { id, .. } if id == "data.mount") {
                last = host.state.borrow().effects;
            }
        })
        .unwrap();
    every_crash_point_until(Storage::Shown, last);
}

/// A key that was on the screen when the machine crashed opens nothing any more; the next attempt shows a new one.
#[test]
fn a_crash_in_the_middle_of_the_ceremony_means_a_new_key_and_a_new_ceremony() {
    let site = Site::new(Storage::Shown);
    let uninterrupted = site.host();
    site.run(&uninterrupted, &mut String::new()).unwrap();
    for crash in [Crash::PowerBefore, Crash::PowerAfter, Crash::KilledAfter] {
        let host = site.host();
        let person = Person::at(&host);
        person.crash.set(Some(crash));
        let mut events = String::new();
        site.run_with(&host, &person, &Stop::default(), &mut events).expect_err("it crashed");
        host.come_back();
        site.run_with(&host, &person, &Stop::default(), &mut events).unwrap();
        let written = person.written.borrow();
        assert_eq!(written.len(), 2, "{crash:?}: the key was shown {} times", written.len());
        assert_ne!(written[0], written[1], "{crash:?}");
        let state = host.state.borrow();
        assert_eq!(state.luks.as_ref().unwrap().key, written[1].as_bytes(), "{crash:?}");
        assert_eq!(final_state(&state), final_state(&uninterrupted.state.borrow()), "{crash:?}");
        // Once it is done, nobody is asked again.
        drop(state);
        site.run_with(&host, &person, &Stop::default(), &mut events).unwrap();
        assert_eq!(person.written.borrow().len(), 2);
        for key in written.iter() {
            assert!(key.split('-').all(|group| !events.contains(group)), "the events hold a part of the key");
        }
    }
}

#[test]
fn a_key_that_nobody_wrote_down_guards_nothing() {
    let site = Site::new(Storage::Shown);
    let host = site.host();
    let mut events = String::new();
    let error = site.run_with(&host, &Unattended, &Stop::default(), &mut events).unwrap_err();
    assert!(error.to_string().contains("nobody wrote down the recovery key"), "{error}");
    assert!(error.hint().contains("cofferdam resume"), "{}", error.hint());
    assert!(events.contains(r#""code":"unanswered""#), "{events}");
    assert!(!host.state.borrow().filesystem, "the volume was made use of");

    // A person who stops at the question is no failure; the next run asks again.
    let leaves = Person { wants_to_stop: true, ..Person::at(&host) };
    let error = site.run_with(&host, &leaves, &Stop::default(), &mut events).unwrap_err();
    assert!(matches!(&error, EngineError::Stopped { next } if next == "disk.encrypt"), "{error}");
    assert!(!host.state.borrow().filesystem);
    site.run(&host, &mut events).unwrap();
}

/// What was typed on the pages stands in memory: it goes when the disk has it, and a power cut before that is told.
#[test]
fn a_typed_passphrase_is_kept_until_the_disk_has_it() {
    let mut site = Site::new(Storage::Escrowed);
    let Encryption::Luks2 { passphrase: Some(source), .. } = &mut site.config.storage.encryption else {
        panic!("LUKS")
    };
    source.file = layout::PASTED_PASSPHRASE.into();
    site.plan = plan::plan(&site.config, &machine(site.storage), &site.index, &site.plan.index, 1 << 20).unwrap();
    let typed =
        |host: &SimulatedHost| host.state.borrow_mut().put(layout::PASTED_PASSPHRASE, PASSPHRASE.as_bytes(), 0o600);
    let host = site.host();
    typed(&host);
    site.run(&host, &mut String::new()).unwrap();
    check_structure(&site, &host);
    let expected = final_state(&host.state.borrow());
    let effects = host.state.borrow().effects;
    let (mut told, mut kept) = (0, 0);
    for crash in [Crash::PowerBefore, Crash::PowerAfter, Crash::KilledAfter] {
        for effect in 1..=effects {
            let host = site.host();
            typed(&host);
            host.crash_at(effect, crash);
            site.run(&host, &mut String::new()).expect_err("the host lost power");
            host.come_back();
            kept += usize::from(host.state.borrow().has(layout::PASTED_PASSPHRASE));
            let mut ended = site.run(&host, &mut String::new());
            if let Err(error) = &ended {
                assert!(error.to_string().contains("there is no file /run/cofferdam/pasted/passphrase"), "{error}");
                assert!(error.hint().contains("cofferdam resume"), "{}", error.hint());
                told += 1;
                typed(&host);
                ended = site.run(&host, &mut String::new());
            }
            ended.unwrap_or_else(|error| panic!("{crash:?} at effect {effect}: {error}"));
            check_structure(&site, &host);
            assert!(
                !host.state.borrow().has(layout::PASTED_PASSPHRASE),
                "{crash:?} at effect {effect}: it is still there"
            );
            let found = final_state(&host.state.borrow());
            assert!(found == expected, "{crash:?} at effect {effect}:\n{}", difference(&expected, &found));
        }
    }
    assert!(told > 10 && kept > 10, "{told} were told, {kept} still had it");
}

/// The volume of an interrupted installation is kept for the same answers alone.
#[test]
fn an_appliance_is_made_anew_for_another_passphrase() {
    let site = Site::new(Storage::Appliance);
    let host = site.host();
    let other = "another horse battery";
    for (passphrase, volumes) in [(PASSPHRASE, 1), (PASSPHRASE, 1), (other, 2)] {
        let is_it = |(path, _): &&mut (String, Vec<u8>)| path == PASSPHRASE_FILES[1];
        let mut state = host.state.borrow_mut();
        state.appliance.as_mut().unwrap().answers.iter_mut().find(is_it).unwrap().1 = passphrase.as_bytes().to_vec();
        drop(state);
        // The live system starts anew with these answers, and is stopped once the volume is in use.
        host.crash_now(Crash::PowerBefore);
        host.come_back();
        let stop = Stop::default();
        let engine = Engine {
            host: &host,
            config: &site.config,
            plan: &site.plan,
            index: &site.index,
            signed_index: (&site.medium.index, b"signature"),
            answers: &Unattended,
            stop: &stop,
        };
        let listen = &mut |event: &Event| {
            if matches!(event, Event::StepStarted { id, .. } | Event::StepSkipped { id, .. } if id == "bundle.load") {
                stop.request();
            }
        };
        assert!(matches!(engine.run(listen), Err(EngineError::Stopped { .. })));
        let state = host.state.borrow();
        let luks = state.luks.as_ref().unwrap();
        assert!(luks.uuid.ends_with(&volumes.to_string()), "{} for {passphrase}", luks.uuid);
        assert_eq!(luks.passphrase.as_ref().unwrap().1, passphrase.as_bytes());
    }
}

/// A wish to stop is heard between any two steps; a run that was stopped goes on where it was.
#[test]
fn a_run_stops_between_steps_and_goes_on() {
    let site = Site::new(Storage::Escrowed);
    let uninterrupted = site.host();
    site.run(&uninterrupted, &mut String::new()).unwrap();
    for (position, step) in site.plan.steps.iter().enumerate() {
        let host = site.host();
        let stop = Stop::default();
        let engine = Engine {
            host: &host,
            config: &site.config,
            plan: &site.plan,
            index: &site.index,
            signed_index: (&site.medium.index, b"signature"),
            answers: &Unattended,
            stop: &stop,
        };
        // In the middle of the step before this one.
        let before = position.checked_sub(1).map(|before| site.plan.steps[before].id.clone());
        let mut heard = Vec::new();
        let error = engine
            .run(&mut |event| {
                heard.push(event.clone());
                let is_there = match event {
                    Event::Started { .. } => before.is_none(),
                    Event::StepStarted { id, .. } | Event::StepSkipped { id, .. } => before.as_ref() == Some(id),
                    _ => false,
                };
                if is_there {
                    stop.request();
                }
            })
            .unwrap_err();
        assert!(matches!(&error, EngineError::Stopped { next } if *next == step.id), "{}: {error}", step.id);
        assert_eq!(heard.last(), Some(&Event::Stopped { next: step.id.clone() }));
        site.run(&host, &mut String::new()).unwrap();
        let (found, expected) = (final_state(&host.state.borrow()), final_state(&uninterrupted.state.borrow()));
        assert!(found == expected, "{}:\n{}", step.id, difference(&expected, &found));
    }
}

#[test]
fn a_plan_and_a_journal_hold_no_secret() {
    for storage in [Storage::Escrowed, Storage::Shown] {
        nothing_holds_a_secret(&Site::new(storage));
    }
}

fn nothing_holds_a_secret(site: &Site) {
    let host = site.host();
    let mut events = String::new();
    site.run(&host, &mut events).unwrap();
    let journal = host.seen_text(layout::JOURNAL);
    let recorded = host.seen_text(layout::EVENTS);
    assert!(recorded.lines().filter_map(Heard::parse).count() > 40, "{recorded}");
    let state = host.state.borrow();
    let secrets = secrets(&state);
    assert!(secrets.len() > 20, "{} secrets", secrets.len());
    let plan = serde_json::to_string(&site.plan).unwrap();
    let commands = state.commands.join("\n");
    let record = state.text(layout::STATE).unwrap();
    for (name, text) in [
        ("plan", plan.as_str()),
        ("plan as text", &site.plan.to_text()),
        ("journal", &journal),
        ("events", &events),
        ("events file", &recorded),
        ("commands", &commands),
        ("state", &record),
    ] {
        assert!(text.len() > 100, "{name}");
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "the {name} holds a secret");
        }
    }
    // What lies on the unencrypted root filesystem.
    let is_theirs = |path: &str| PASSPHRASE_FILES.contains(&path);
    for (path, node) in state.nodes.iter().filter(|(path, _)| !path.starts_with(VOLUME) && !is_theirs(path)) {
        let text = String::from_utf8_lossy(node.content.as_deref().unwrap_or_default());
        assert!(secrets.iter().all(|secret| !text.contains(secret.as_str())), "{path} holds a secret");
    }
}

/// The recovery key, the lines of private keys, the encryption key and the values of generated Secrets.
fn secrets(state: &State) -> Vec<String> {
    let mut secrets = vec![String::from_utf8(state.luks.as_ref().unwrap().key.clone()).unwrap(), PASSPHRASE.to_owned()];
    for (path, node) in &state.nodes {
        let text = String::from_utf8_lossy(node.content.as_deref().unwrap_or_default()).into_owned();
        if path.ends_with(".key") {
            // The first line of an EC key's DER is the same for all keys; the second is the key.
            secrets.extend(
                text.lines()
                    .filter(|line| !line.starts_with('-'))
                    .skip(usize::from(text.contains("BEGIN")))
                    .map(str::to_owned),
            );
        }
        if path.ends_with("encryption.yaml") {
            let line = text.lines().find_map(|line| line.trim().strip_prefix("secret: ")).unwrap();
            secrets.push(line.to_owned());
        }
    }
    for (name, (_, object)) in state.objects.iter().filter(|(name, _)| name.starts_with("secret/")) {
        for (key, value) in object["data"].as_object().unwrap() {
            if key.ends_with(".crt") || key.ends_with(".pub") || name.ends_with("site-certificate") {
                continue;
            }
            let value = value.as_str().unwrap();
            let decoded = base64::engine::general_purpose::STANDARD.decode(value).unwrap();
            secrets.push(value.to_owned());
            secrets.extend(String::from_utf8(decoded));
        }
    }
    secrets
}
