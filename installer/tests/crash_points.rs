//! An installation that is cut off at any of its effects ends, run again, in the state of one that was not.
//!
//! The host is simulated; the plan, the engine, the steps, the keys, certificates and escrows are the real ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(unreachable_pub, reason = "a test is a crate of its own")]
#![allow(clippy::case_sensitive_file_extension_comparisons, reason = "our own names, all in lower case")]

mod simulated;

use std::collections::BTreeMap;

use base64::Engine as _;
use bundle::index::Index;
use bundle::oci::Digest;
use certs::{EscrowBundle, EscrowIdentity, EscrowKind};
use installer::config::{self, InstallConfig};
use installer::engine::journal::Journal;
use installer::engine::{Engine, EngineError};
use installer::layout;
use installer::plan::{self, BootFile, Disk, Machine, Plan, SystemImage};
use serde_json::{Value, json};
use simulated::{Crash, Medium, SimulatedHost, State, VOLUME};

/// All that an installation begins with.
struct Site {
    kind: Kind,
    config: InstallConfig,
    plan: Plan,
    index: Index,
    medium: Medium,
    identity: EscrowIdentity,
}

/// What is installed on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A host that is there, with a data disk.
    Encrypted,
    /// A host that is there, without one.
    Plain,
    /// A bare machine that has booted the medium.
    Appliance,
}

impl Site {
    fn new(kind: Kind) -> Self {
        let encrypted = kind != Kind::Plain;
        let identity = EscrowIdentity::generate();
        let mut answers: Value = serde_yaml::from_str(config::example::EXAMPLE).unwrap();
        if encrypted {
            answers["storage"]["encryption"]["tpm2"] = json!("require");
            answers["storage"]["encryption"]["escrow-recipients"] = json!([identity.recipient().to_string()]);
            answers["storage"]["encryption"]["escrow-directory"] = json!("/media/escrow");
        } else {
            answers["storage"] = json!({"encryption": {"mode": "none", "token": config::PLAINTEXT_TOKEN}});
        }
        let config = config::parse(&serde_yaml::to_string(&answers).unwrap()).unwrap();
        let (index, blobs) = small_bundle();
        let bytes = serde_json::to_vec(&index).unwrap();
        let plan =
            plan::plan(&config, &machine(kind), &index, &Digest::sha256_of(&bytes).to_string(), 1 << 20).unwrap();
        let medium = Medium {
            index: bytes,
            name: format!("{}-{}", index.name, index.version),
            blobs,
            images: index.images.iter().map(|image| image.reference.to_string()).collect(),
        };
        Self { kind, config, plan, index, medium, identity }
    }

    fn host(&self) -> SimulatedHost {
        if self.kind != Kind::Appliance {
            return SimulatedHost::new(self.medium.clone());
        }
        let answers = vec![
            (layout::CONFIG.to_owned(), self.config.to_yaml().unwrap().into_bytes()),
            (layout::PLAN.to_owned(), serde_json::to_vec(&self.plan).unwrap()),
            (format!("{}/1.pub", layout::TRUST), b"untrusted comment: test\nRW\n".to_vec()),
        ];
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

    fn run(&self, host: &SimulatedHost, events: &mut String) -> Result<(), EngineError> {
        let engine = Engine {
            host,
            config: &self.config,
            plan: &self.plan,
            index: &self.index,
            signed_index: (&self.medium.index, b"signature"),
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

fn machine(kind: Kind) -> Machine {
    let disk = Disk {
        path: "/dev/sdb".to_owned(),
        serial: "S6CTNX0T512345".to_owned(),
        model: "PM9A3".to_owned(),
        size: 960_000_000_000,
        contents: Vec::new(),
    };
    let system = (kind == Kind::Appliance).then(system);
    Machine { disk: Some(disk), tpm2: true, slowness: 4.0, secure_boot: false, system }
}

/// Three packs with every kind of file, manifest, secret and gate.
fn small_bundle() -> (Index, Vec<Vec<u8>>) {
    let mut blobs = Vec::new();
    let mut keep = |text: &str| {
        blobs.push(text.as_bytes().to_vec());
        (Digest::sha256_of(text.as_bytes()).to_string(), text.len())
    };
    let mut file = |name: &str, text: &str, path: &str, mode: &str, template: bool| {
        let (digest, size) = keep(text);
        json!({"name": name, "digest": digest, "size": size, "template": template, "install": [{"path": path, "mode": mode}]})
    };
    let mut files: Vec<Value> = ["containerd", "ctr", "kubelet", "kubeadm", "kubectl"]
        .iter()
        .map(|name| file(name, &format!("the program {name}"), &format!("/usr/local/bin/{name}"), "0755", false))
        .collect();
    files.push(file("site.conf", "fqdn ${fqdn}\n", "/etc/site.conf", "0644", true));
    let mut manifest = |kind: &str, name: &str| {
        let object = |kind: &str, namespace: &str| {
            format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: \"{namespace}\"}}\n")
        };
        let text = format!("{}---\n{}", object("Namespace", ""), object(kind, name));
        let (digest, size) = keep(&text);
        json!({"name": name, "digest": digest, "size": size, "template": false})
    };
    let (network, portal) = (manifest("DaemonSet", "network"), manifest("Deployment", "portal"));
    let gate = |kind: &str, name: &str| json!({"kind": kind, "namespace": name, "name": name, "timeout-seconds": 60});
    let secrets: Vec<Value> = ["random-256", "password", "ed25519", "ecdsa-p256", "site-certificate"]
        .iter()
        .map(|kind| {
            let mut secret = json!({"name": format!("a-{kind}"), "namespace": "portal", "kind": kind});
            if *kind != "site-certificate" {
                secret["key"] = json!("value");
            }
            secret
        })
        .collect();
    let nothing = Digest::sha256_of(b"").to_string();
    let names =
        ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "pause", "coredns"];
    let images: Vec<String> = names.iter().map(|name| format!("registry.k8s.io/{name}:v1.28.0")).collect();
    let others = ["docker.io/net/network:1.0".to_owned(), "quay.io/site/portal:2.0".to_owned()];
    let image = |reference: &String| json!({"reference": reference, "digest": nothing});
    let pack = |name: &str,
                version: &str,
                layer: &str,
                images: &[String],
                files: &[Value],
                rest: (Vec<Value>, Vec<Value>, Vec<Value>)| {
        json!({
            "digest": nothing, "size": 0, "name": name, "version": version, "layer": layer, "description": name,
            "images": images.iter().map(image).collect::<Vec<_>>(), "files": files, "manifests": rest.0,
            "secrets": rest.1, "gates": rest.2, "optional-images": [],
        })
    };
    let packs = [
        pack("kubernetes", "1.28.0", "kubernetes", &images, &files, (vec![], vec![], vec![])),
        pack(
            "network",
            "1.0.0",
            "network",
            &others[..1],
            &[],
            (vec![network], vec![], vec![gate("daemonset-ready", "network")]),
        ),
        pack(
            "portal",
            "2.0.0",
            "addon",
            &others[1..],
            &[],
            (vec![portal], secrets, vec![gate("deployment-available", "portal")]),
        ),
    ];
    let content = json!({"digest": nothing, "size": 0});
    let index = json!({
        "schema-version": 1, "media-type": "application/vnd.cofferdam.bundle.index.v1+json", "name": "cofferdam",
        "version": "1.0.0", "architecture": "amd64", "packs": packs, "blobs": [],
        "images": images.iter().chain(&others).map(|reference| json!({
            "reference": reference, "digest": nothing, "size": 0,
            "media-type": "application/vnd.oci.image.manifest.v1+json",
        })).collect::<Vec<_>>(),
        "oci-layout": content, "oci-index": content, "trust": {"next-keys": []},
    });
    (serde_json::from_value(index).unwrap(), blobs)
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

    let Some(luks) = &state.luks else { return };
    drop(records);
    let open = |name: &str, place: &str| {
        let sealed = state.get(&format!("{place}/{name}")).unwrap_or_else(|| panic!("{place}/{name}"));
        EscrowBundle::open(sealed.content.as_ref().unwrap(), &site.identity).unwrap()
    };
    // What the live system wrote to another medium is not in the machine any more.
    let places: &[&str] = match site.kind {
        Kind::Appliance => &[layout::ESCROW],
        _ => &[layout::ESCROW, "/media/escrow/rack7"],
    };
    for place in places {
        let disk = open("disk.age", place);
        let key = disk.items.iter().find(|item| item.kind == EscrowKind::RecoveryKey).unwrap();
        assert_eq!(key.data.as_slice(), luks.key, "the escrowed key opens the volume");
        let keys = open("keys.age", place);
        for name in ["site-ca.key", "server.key", "registry.key", "node.key"] {
            let item = keys.items.iter().find(|item| item.name == name).unwrap_or_else(|| panic!("{name}"));
            let path = format!("{}/{name}", layout::KEYSTORE);
            assert_eq!(Some(item.data.as_slice()), state.get(&path).unwrap().content.as_deref(), "{name}");
        }
        assert_eq!(keys.items.iter().filter(|item| item.kind == EscrowKind::PackSecret).count(), 5);
    }
    if site.kind == Kind::Appliance {
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

fn every_crash_point(kind: Kind) {
    let site = Site::new(kind);
    let host = site.host();
    site.run_all(&host, &mut String::new()).unwrap();
    check_structure(&site, &host);
    let (expected, effects) = (final_state(&host.state.borrow()), host.state.borrow().effects);

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
    assert!(effects > 100, "only {effects} effects");
    assert!(problems.is_empty(), "{} crash points end elsewhere:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn every_crash_point_of_an_encrypted_install_ends_in_the_same_state() {
    every_crash_point(Kind::Encrypted);
}

#[test]
fn every_crash_point_of_a_plain_install_ends_in_the_same_state() {
    every_crash_point(Kind::Plain);
}

#[test]
fn every_crash_point_of_an_appliance_ends_in_the_same_state() {
    every_crash_point(Kind::Appliance);
}

#[test]
fn the_same_answers_give_the_same_plan() {
    for kind in [Kind::Encrypted, Kind::Plain, Kind::Appliance] {
        let site = Site::new(kind);
        let again = config::parse(&site.config.to_yaml().unwrap()).unwrap();
        let (index, _) = small_bundle();
        let plan = plan::plan(&again, &machine(kind), &index, &site.plan.index, 1 << 20).unwrap();
        assert_eq!(serde_json::to_vec(&plan).unwrap(), serde_json::to_vec(&site.plan).unwrap());
        let stored: Plan = serde_json::from_slice(&serde_json::to_vec(&plan).unwrap()).unwrap();
        assert_eq!(stored, site.plan);
    }
}

#[test]
fn a_plan_and_a_journal_hold_no_secret() {
    let site = Site::new(Kind::Encrypted);
    let host = site.host();
    let mut events = String::new();
    site.run(&host, &mut events).unwrap();
    let journal = host.seen_text(layout::JOURNAL);
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
        ("commands", &commands),
        ("state", &record),
    ] {
        assert!(text.len() > 100, "{name}");
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "the {name} holds a secret");
        }
    }
    // What lies on the unencrypted root filesystem.
    for (path, node) in state.nodes.iter().filter(|(path, _)| !path.starts_with(VOLUME)) {
        let text = String::from_utf8_lossy(node.content.as_deref().unwrap_or_default());
        assert!(secrets.iter().all(|secret| !text.contains(secret.as_str())), "{path} holds a secret");
    }
}

/// The recovery key, the lines of private keys, the encryption key and the values of generated Secrets.
fn secrets(state: &State) -> Vec<String> {
    let mut secrets = vec![String::from_utf8(state.luks.as_ref().unwrap().key.clone()).unwrap()];
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
