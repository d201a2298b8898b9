//! An installed site on the simulated host, the bundle that comes in, and what of the site can be compared.

use std::collections::BTreeMap;

use bundle::index::Index;
use bundle::oci::Digest;
use installer::config::{self, Answers, InstallConfig};
use installer::engine::question::Unattended;
use installer::engine::{Engine, Stop};
use installer::host::Host;
use installer::layout;
use installer::plan;
use installer::upgrade::plan::Incoming;
use installer::upgrade::run::{self, Ended, RunError};
use installer::upgrade::site::Site;
use installer::upgrade::transaction::Transaction;
use installer::upgrade::{AUDIT, CURRENT, FOLDER, SNAPSHOTS, UpgradePlan, audit};
use serde_json::{Value, json};

use super::appliance::{BOOT, MEDIUM_ROOT};
use super::release::{Variant, machine, release};
use super::{Medium, SimulatedHost, State, VOLUME};

/// An installed site and the bundle that comes in.
pub struct Bench {
    pub installed: State,
    pub next: Index,
    pub bytes: Vec<u8>,
    pub digest: String,
    pub medium: Medium,
    /// Given for the upgrade.
    pub answers: Answers,
}

fn medium(index: &Index, bytes: &[u8], blobs: Vec<Vec<u8>>) -> Medium {
    Medium {
        index: bytes.to_vec(),
        name: format!("{}-{}", index.name, index.version),
        blobs,
        images: index.images.iter().map(|image| image.reference.to_string()).collect(),
    }
}

pub fn answers() -> InstallConfig {
    let mut answers: Value = serde_yaml::from_str(config::example::EXAMPLE).unwrap();
    answers["storage"] = json!({"encryption": {"mode": "none", "token": config::PLAINTEXT_TOKEN}});
    config::parse(&serde_yaml::to_string(&answers).unwrap()).unwrap()
}

/// Those of an appliance.
fn appliance_answers() -> InstallConfig {
    let mut answers: Value = serde_yaml::from_str(config::example::EXAMPLE).unwrap();
    let recipient = certs::EscrowIdentity::generate().recipient().to_string();
    answers["storage"]["encryption"]["escrow-recipients"] = json!([recipient]);
    config::parse(&serde_yaml::to_string(&answers).unwrap()).unwrap()
}

/// Places on the boot partitions of medium and disk.
const BOOT_FILES: [(&str, &str); 2] = [
    ("EFI/Linux/cofferdam_1.0.0.efi", "EFI/Linux/cofferdam_1.0.0+3.efi"),
    ("EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/BOOTX64.EFI"),
];

/// The machine of an appliance, booted from the medium.
fn bare_machine() -> plan::Machine {
    let file = |(from, to): &(&str, &str)| plan::BootFile {
        from: (*from).to_owned(),
        to: (*to).to_owned(),
        digest: Digest::sha256_of(from.as_bytes()),
    };
    let system = plan::SystemImage {
        version: "1.0.0".to_owned(),
        root_hash: MEDIUM_ROOT.to_owned(),
        root_bytes: 200 << 20,
        verity_bytes: 2 << 20,
        boot: BOOT_FILES.iter().map(file).collect(),
    };
    plan::Machine { system: Some(system), ..machine() }
}

impl Bench {
    pub fn new(variant: Variant) -> Self {
        Self::of(answers(), release(Variant::First), release(variant))
    }

    /// A site that these answers made of the first release.
    pub fn of(mut config: InstallConfig, (first, blobs): (Index, Vec<Vec<u8>>), next: (Index, Vec<Vec<u8>>)) -> Self {
        let bytes = serde_json::to_vec(&first).unwrap();
        let plan = plan::plan(&config, &machine(), &first, &Digest::sha256_of(&bytes).to_string(), 1 << 20).unwrap();
        let host = SimulatedHost::new(medium(&first, &bytes, blobs));
        config.answers.clone_from(&plan.answers);
        host.write(layout::CONFIG.into(), config.to_yaml().unwrap().as_bytes(), 0o600).unwrap();
        host.write(layout::PLAN.into(), &serde_json::to_vec(&plan).unwrap(), 0o644).unwrap();
        Self::install(&host, &config, &plan, next)
    }

    /// A site that the medium installed.
    pub fn appliance(variant: Variant) -> Self {
        let config = appliance_answers();
        let (first, blobs) = release(Variant::First);
        let bytes = serde_json::to_vec(&first).unwrap();
        let digest = Digest::sha256_of(&bytes).to_string();
        let plan = plan::plan(&config, &bare_machine(), &first, &digest, 1 << 20).unwrap();
        let files = vec![
            (layout::CONFIG.to_owned(), config.to_yaml().unwrap().into_bytes()),
            (layout::PLAN.to_owned(), serde_json::to_vec(&plan).unwrap()),
            (format!("{}/1.pub", layout::TRUST), b"untrusted comment: test\nRW\n".to_vec()),
        ];
        let boot = BOOT_FILES.iter().map(|(from, _)| ((*from).to_owned(), from.as_bytes().to_vec())).collect();
        let host = SimulatedHost::live(medium(&first, &bytes, blobs), files, boot);
        Self::install(&host, &config, &plan, release(variant))
    }

    fn install(
        host: &SimulatedHost,
        config: &InstallConfig,
        plan: &plan::Plan,
        (next, next_blobs): (Index, Vec<Vec<u8>>),
    ) -> Self {
        let bytes = host.medium.index.clone();
        let first: Index = serde_json::from_slice(&bytes).unwrap();
        let engine = Engine {
            host,
            config,
            plan,
            index: &first,
            signed_index: (&bytes, b"signature"),
            answers: &Unattended,
            stop: &Stop::default(),
        };
        if let Err(error) = engine.run(&mut |_| {}) {
            assert!(host.has_restarted(), "{error}");
            engine.run(&mut |_| {}).unwrap();
        }
        let mut installed = host.state.borrow().clone();
        installed.effects = 0;
        installed.commands.clear();

        let next_bytes = serde_json::to_vec(&next).unwrap();
        let digest = Digest::sha256_of(&next_bytes).to_string();
        let medium = medium(&next, &next_bytes, next_blobs);
        Self { installed, medium, bytes: next_bytes, digest, next, answers: Answers::new() }
    }

    pub fn host(&self) -> SimulatedHost {
        let host = SimulatedHost::new(self.medium.clone());
        *host.state.borrow_mut() = self.installed.clone();
        host
    }

    pub fn incoming(&self) -> Incoming<'_> {
        Incoming {
            index: &self.next,
            digest: &self.digest,
            path: "/media/next".into(),
            bytes: 1 << 20,
            signer: "KEY",
            answers: &self.answers,
        }
    }

    pub fn plan(&self, host: &SimulatedHost) -> (Site, UpgradePlan) {
        let site = Site::survey(host, &self.next, 4.0).unwrap();
        let plan = installer::upgrade::plan::plan(&site, &self.incoming()).unwrap();
        (site, plan)
    }

    pub fn apply(&self, host: &SimulatedHost) -> Result<Ended, RunError> {
        let (site, plan) = self.plan(host);
        let bad: Vec<_> = plan.blocking().into_iter().map(|finding| (&finding.id, &finding.measured)).collect();
        assert!(bad.is_empty(), "{bad:?}");
        let signed = (self.bytes.as_slice(), b"signature".as_slice());
        let transaction = run::begin(host, &plan, &self.incoming(), signed, site.sequence, "tester")?;
        self.go_on(host, transaction)
    }

    /// Through the restarts that are part of the plan.
    pub fn go_on(&self, host: &SimulatedHost, transaction: Transaction) -> Result<Ended, RunError> {
        match run::go_on(host, transaction, "tester", &Stop::default(), &mut |_| {}) {
            Err(_) if host.has_restarted() => self.resume(host),
            ended => ended,
        }
    }

    /// What `cofferdam resume` does; without a transaction the upgrade begins anew.
    pub fn resume(&self, host: &SimulatedHost) -> Result<Ended, RunError> {
        match Transaction::read(host, CURRENT)? {
            Some(transaction) => self.go_on(host, transaction),
            // The last effect was the removal of the transaction.
            None if host.seen_text(layout::STATE).contains(&self.digest) => Ok(Ended::Committed),
            None => {
                // Somebody begins anew once the cluster is up.
                host.pause(std::time::Duration::from_mins(1));
                self.apply(host)
            }
        }
    }
}

/// All of the site in words that can be compared; what tells the time or how the way was is left out.
pub fn look(state: &State) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    // The way, not the end: journal, transactions, snapshots, what etcd's way back leaves as a trace.
    let passing = [layout::JOURNAL, layout::EVENTS, AUDIT, "/run", "/var/lib/cofferdam/data/etcd/cofferdam-"];
    for (path, node) in &state.nodes {
        // The volume of an appliance is seen at these places.
        let seen = path.replace(&format!("{VOLUME}/lib/overlay/etc"), "/etc").replace(VOLUME, "/var");
        let path = if state.appliance.is_some() { &seen } else { path };
        let is_passing = passing.iter().any(|prefix| path.starts_with(prefix))
            || path.starts_with(FOLDER)
            || path.starts_with(SNAPSHOTS)
            || path.starts_with("/var/lib/cofferdam/data/etcd");
        if is_passing {
            continue;
        }
        let content = match &node.content {
            None => "directory".to_owned(),
            Some(_) if path.starts_with(layout::ESCROW) => "made anew".to_owned(),
            Some(content) if path == layout::STATE => {
                let mut site: Value = serde_json::from_slice(content).unwrap();
                site["upgraded"] = json!(site["upgraded"].is_string());
                site.to_string()
            }
            Some(content) => String::from_utf8_lossy(content).into_owned(),
        };
        all.insert(path.clone(), format!("{:o} {} {content}", node.mode, node.owner));
    }
    all.insert("units".to_owned(), format!("enabled {:?} active {:?}", state.enabled, state.active));
    for (name, (_, object)) in &state.objects {
        all.insert(format!("object {name}"), object.to_string());
    }
    all
}

/// As [`look`], of a site that went back: what the old release did not have and what may stay. Images and blobs of the next
/// release stay in containerd and in the store until the garbage is collected, Jobs of migrations until their owner's.
pub fn look_back(state: &State) -> BTreeMap<String, String> {
    let mut all = look(state);
    let blobs = format!("{}/blobs/", layout::STORE);
    let bundles = format!("{}/bundles/", layout::STORE);
    all.retain(|name, _| {
        !name.starts_with(&blobs)
            && !name.starts_with(&bundles)
            && name != &format!("{}/blobs", layout::STORE)
            && !["object job/portal/", "object configmap/portal/migrated", "object configmap/portal/undone"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            && name != "/etc/site"
            // A newer loader starts older systems, too.
            && name != &format!("{BOOT}/EFI/BOOT/BOOTX64.EFI")
    });
    all
}

pub fn difference(expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> String {
    let names: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let different = names.into_iter().filter(|name| expected.get(*name) != found.get(*name));
    different.fold(String::new(), |text, name| {
        format!("{text}{name}:\n  expected {:?}\n  found    {:?}\n", expected.get(name), found.get(name))
    })
}

#[track_caller]
pub fn same(expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>, what: &str) {
    assert!(expected == found, "{what}:\n{}", difference(expected, found));
}

pub fn is_clean(host: &SimulatedHost) {
    assert!(host.seen(CURRENT).is_none(), "a transaction is left");
    let verdict = audit::verify(&host.seen_text(AUDIT), None);
    assert!(verdict.problems.is_empty() && verdict.records > 0, "{verdict:?}");
}
