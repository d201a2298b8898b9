//! An installation on the simulated host: what it begins with, who sits there, and what of its end can be compared.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use bundle::index::Index;
use bundle::oci::Digest;
use certs::{EscrowBundle, EscrowIdentity, EscrowKind};
use installer::config::{self, InstallConfig};
use installer::engine::journal::Journal;
use installer::engine::question::{Answer, Answers, Question, Unattended};
use installer::engine::{Engine, EngineError, Stop};
use installer::layout;
use installer::plan::{self, BootFile, Disk, Machine, Plan, SystemImage};
use serde_json::{Value, json};

use super::appliance::BOOT;
use super::small_bundle::small_bundle;
use super::{Crash, Medium, SimulatedHost, State, VOLUME};

/// How the recovery key leaves the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    Plain,
    Escrowed,
    /// By the screen alone.
    Shown,
    /// As an escrow; the machine is bare and has booted the medium.
    Appliance,
}

/// Somebody who writes every key down and types the two groups back; the machine may crash while they write.
pub struct Person<'a> {
    pub host: &'a SimulatedHost,
    pub written: RefCell<Vec<String>>,
    pub crash: Cell<Option<Crash>>,
    pub wants_to_stop: bool,
}

impl<'a> Person<'a> {
    pub fn at(host: &'a SimulatedHost) -> Self {
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
pub struct Site {
    pub storage: Storage,
    pub config: InstallConfig,
    pub plan: Plan,
    pub index: Index,
    pub medium: Medium,
    pub identity: EscrowIdentity,
    /// The operator's, with its key and its root; PEM.
    pub certificate: [Vec<u8>; 3],
}

/// Where a medium has the operator's certificate, its key and its root.
pub const CERTIFICATE: [&str; 3] =
    ["/run/cofferdam/volume/chain.pem", "/run/cofferdam/volume/key.pem", "/run/cofferdam/volume/root.pem"];

/// The passphrase of the disk, and where the operator has it: on a host's medium, on the volume with an appliance's answers.
pub const PASSPHRASE: &str = "correct horse battery staple";
pub const PASSPHRASE_FILES: [&str; 2] = ["/media/answers/passphrase", "/run/cofferdam/volume/passphrase"];

/// A certificate of the operator's own authority for the names of the example.
pub fn operators_certificate(now: jiff::Timestamp) -> [Vec<u8>; 3] {
    let algorithm = certs::KeyAlgorithm::EcdsaP256;
    let authority = certs::SiteAuthority::generate("Example CA", algorithm, certs::Validity::AUTHORITY, now).unwrap();
    let names = certs::ServerNames::new("mgmt.rack7.example.com".parse().unwrap()).with("mgmt".parse().unwrap());
    let key = certs::PrivateKey::generate(algorithm).unwrap();
    let profile = certs::CertificateProfile::Server(names);
    let certificate = authority.issue(&profile, &key, certs::Validity::LEAF, now).unwrap();
    [certificate.to_pem().into(), key.to_pem().as_bytes().to_vec(), authority.certificate_pem().as_bytes().to_vec()]
}

impl Site {
    pub fn new(storage: Storage) -> Self {
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

    pub fn host(&self) -> SimulatedHost {
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
    pub fn run_all(&self, host: &SimulatedHost, events: &mut String) -> Result<(), EngineError> {
        loop {
            match self.run(host, events) {
                Err(_) if host.has_restarted() => {}
                ended => return ended,
            }
        }
    }

    /// With nobody there unless the key has to be shown.
    pub fn run(&self, host: &SimulatedHost, events: &mut String) -> Result<(), EngineError> {
        let person = Person::at(host);
        let answers: &dyn Answers = if self.config.needs_a_person() { &person } else { &Unattended };
        self.run_with(host, answers, &Stop::default(), events)
    }

    pub fn engine<'a>(&'a self, host: &'a SimulatedHost, answers: &'a dyn Answers, stop: &'a Stop) -> Engine<'a> {
        Engine {
            host,
            config: &self.config,
            plan: &self.plan,
            index: &self.index,
            signed_index: (&self.medium.index, b"signature"),
            answers,
            stop,
        }
    }

    pub fn run_with(
        &self,
        host: &SimulatedHost,
        answers: &dyn Answers,
        stop: &Stop,
        events: &mut String,
    ) -> Result<(), EngineError> {
        self.engine(host, answers, stop).run(&mut |event| {
            events.push_str(&serde_json::to_string(event).unwrap());
            events.push('\n');
        })
    }
}

/// Places on the medium's and on the disk's boot partition; each file's content is its first place.
pub const BOOT_FILES: [(&str, &str); 3] = [
    ("EFI/Linux/cofferdam_1.efi", "EFI/Linux/cofferdam_1+3.efi"),
    ("loader/loader.conf", "loader/loader.conf"),
    ("EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/BOOTX64.EFI"),
];

pub fn system() -> SystemImage {
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

pub fn machine(storage: Storage) -> Machine {
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
pub fn is_made_anew(path: &str) -> bool {
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
pub fn final_state(state: &State) -> BTreeMap<String, String> {
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
pub fn check_structure(site: &Site, host: &SimulatedHost) {
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
        let on_disk = escrow(format!("{BOOT}/cofferdam/escrow/disk.age"));
        assert_eq!(on_disk, escrow(format!("{}/disk.age", layout::ESCROW)), "the escrow on the boot partition");
        assert_eq!(state.mounts["/var"], VOLUME);
    } else {
        assert_eq!(state.mounts[layout::DATA], VOLUME);
    }
}

/// The lines that differ.
pub fn difference(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> String {
    let names: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let different = names.into_iter().filter(|name| one.get(*name) != other.get(*name));
    different.fold(String::new(), |text, name| {
        format!("{text}{name}:\n  uninterrupted {:?}\n  interrupted   {:?}\n", one.get(name), other.get(name))
    })
}
