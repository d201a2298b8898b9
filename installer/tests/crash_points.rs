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
use installer::plan::{self, Plan};
use serde_json::{Value, json};
use simulated::release::{Variant, machine, release};
use simulated::{Crash, Medium, SimulatedHost, State, VOLUME};

/// All that an installation begins with.
struct Site {
    config: InstallConfig,
    plan: Plan,
    index: Index,
    medium: Medium,
    identity: EscrowIdentity,
}

impl Site {
    fn new(encrypted: bool) -> Self {
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
        let (index, blobs) = release(Variant::First);
        let bytes = serde_json::to_vec(&index).unwrap();
        let plan = plan::plan(&config, &machine(), &index, &Digest::sha256_of(&bytes).to_string(), 1 << 20).unwrap();
        let medium = Medium {
            index: bytes,
            name: format!("{}-{}", index.name, index.version),
            blobs,
            images: index.images.iter().map(|image| image.reference.to_string()).collect(),
        };
        Self { config, plan, index, medium, identity }
    }

    fn host(&self) -> SimulatedHost {
        SimulatedHost::new(self.medium.clone())
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
    for place in [layout::ESCROW, "/media/escrow/rack7"] {
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
    assert_eq!(state.mounts[layout::DATA], VOLUME);
}

/// The lines that differ.
fn difference(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> String {
    let names: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let different = names.into_iter().filter(|name| one.get(*name) != other.get(*name));
    different.fold(String::new(), |text, name| {
        format!("{text}{name}:\n  uninterrupted {:?}\n  interrupted   {:?}\n", one.get(name), other.get(name))
    })
}

fn every_crash_point(encrypted: bool) {
    let site = Site::new(encrypted);
    let host = site.host();
    site.run(&host, &mut String::new()).unwrap();
    check_structure(&site, &host);
    let (expected, effects) = (final_state(&host.state.borrow()), host.state.borrow().effects);

    let mut problems = Vec::new();
    for crash in [Crash::PowerBefore, Crash::PowerAfter, Crash::KilledAfter] {
        for effect in 1..=effects {
            let host = site.host();
            host.crash_at(effect, crash);
            let mut events = String::new();
            site.run(&host, &mut events).expect_err("the host lost power");
            let last = host.state.borrow().commands.last().cloned().unwrap_or_default();
            let step = events.lines().rev().find(|line| line.contains("step-started")).unwrap_or_default().to_owned();
            let place = format!("{crash:?} at effect {effect} of {effects}, {step}, last command `{last}`");
            host.come_back();
            if let Err(error) = site.run(&host, &mut events) {
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
    every_crash_point(true);
}

#[test]
fn every_crash_point_of_a_plain_install_ends_in_the_same_state() {
    every_crash_point(false);
}

#[test]
fn the_same_answers_give_the_same_plan() {
    for encrypted in [true, false] {
        let site = Site::new(encrypted);
        let again = config::parse(&site.config.to_yaml().unwrap()).unwrap();
        let (index, _) = release(Variant::First);
        let plan = plan::plan(&again, &machine(), &index, &site.plan.index, 1 << 20).unwrap();
        assert_eq!(serde_json::to_vec(&plan).unwrap(), serde_json::to_vec(&site.plan).unwrap());
        let stored: Plan = serde_json::from_slice(&serde_json::to_vec(&plan).unwrap()).unwrap();
        assert_eq!(stored, site.plan);
    }
}

#[test]
fn a_plan_and_a_journal_hold_no_secret() {
    let site = Site::new(true);
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
