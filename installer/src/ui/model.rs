//! The state of the terminal installer before the engine runs.
//!
//! Invariant: everything a picture shows is here; nothing here touches the machine. [`super::update`] is the only code
//! that changes it.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{self, Finding, Report};
use crate::config::{Encryption, InstallConfig, Network, Page, Problem};
use crate::facts::disk::Disk;
use crate::facts::network::Adapter;
use crate::facts::{Facts, Probed, Questions};
use crate::prepare::{Prepared, Refusal, Signed};

use super::answers::{Answers, CertificateMode};
use super::dialog::Dialog;
use super::field::{self, Field, Mode, Pem};
use super::machine::{BundleQuestion, Discovered, Judged};
use super::secret::Secret;
use super::task::Task;
use super::theme;

/// A line above the footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The text.
    pub text: String,
    /// Whether it is about something wrong.
    pub is_bad: bool,
}

/// Background work, by kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Tasks {
    /// What media carry.
    pub discover: Task<(), Discovered>,
    /// Facts, with what was asked beyond the machine itself.
    pub probe: Task<Questions, Facts>,
    /// Head of the bundle.
    pub head: Task<BundleQuestion, Result<Signed, Refusal>>,
    /// All of the bundle.
    pub verify: Task<BundleQuestion, Result<(), Refusal>>,
    /// The operator's certificate.
    pub judge: Task<InstallConfig, Judged>,
    /// A certificate request.
    pub request: Task<InstallConfig, Result<String, String>>,
    /// The typed passphrase of the disk, on its way into memory.
    pub passphrase: Task<(), Result<(), String>>,
    /// The administrator's password.
    pub hash: Task<(), Result<String, String>>,
    /// The network of a live system, `None` for DHCP.
    pub network: Task<Option<Network>, Result<(), String>>,
    /// A file to be written, and what the operator calls it.
    pub keep: Task<(String, Option<Pem>), Result<(), String>>,
    /// Report and plan.
    pub prepare: Task<InstallConfig, Prepared>,
}

/// The model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The page that is shown.
    pub page: Page,
    /// What to do.
    pub mode: Mode,
    /// The answers.
    pub answers: Answers,
    /// Fields that the operator or a file filled: no default replaces them.
    pub edited: BTreeSet<Field>,
    /// Where the focus is and was, by page.
    pub focus: BTreeMap<Page, Field>,
    /// Place of the cursor in the text field in focus, in characters.
    pub cursor: usize,
    /// How far the page was scrolled by hand, in rows.
    pub scroll: usize,
    /// Pages that the operator wanted to leave: what is missing on them is said.
    pub tried: BTreeSet<Page>,
    /// Pages that the operator has seen.
    pub seen: BTreeSet<Page>,
    /// The pages on which it stops.
    pub stops: Vec<Page>,
    /// Which of the configuration files that were found was taken.
    pub taken: Option<usize>,
    /// The file that was named on the command line, with its hash.
    pub named_file: Option<String>,
    /// Answers to which the operator can come back: those without a file, and those of each file.
    pub aside: BTreeMap<Option<usize>, (Answers, BTreeSet<Field>, Vec<Page>)>,
    /// The answers may begin by the file's own erase token: at this tick, unless a key is pressed.
    pub begins_at: Option<u64>,
    /// The passphrase of the disk as typed, until it is kept in memory.
    pub passphrase: Secret,
    /// The passphrase typed again.
    pub passphrase_again: Secret,
    /// The password as typed, until its hash is there.
    pub password: Secret,
    /// The password typed again.
    pub password_again: Secret,
    /// What is open over the page.
    pub dialog: Option<Dialog>,
    /// What just happened.
    pub notice: Option<Notice>,
    /// What happened, for the log pane.
    pub log: Vec<String>,
    /// Background work.
    pub tasks: Tasks,
    /// Bytes done and in all of the verification that runs.
    pub verified_bytes: (u64, u64),
    /// Tenths of a second since the start.
    pub tick: u64,
    /// Number of the last job.
    pub serial: u64,
    /// Colour or basic.
    pub look: theme::Mode,
    /// A shell may be opened.
    pub has_shell: bool,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// What runs was begun in order to leave the page: a password's hash, or the network.
    pub leaves_when_done: bool,
}

/// Most bytes of a pasted PEM.
pub const PASTE_LIMIT: usize = 64 << 10;

impl Model {
    /// A fresh installer.
    pub fn new(look: theme::Mode) -> Self {
        Self {
            page: Page::Welcome,
            mode: Mode::Install,
            answers: Answers::default(),
            edited: BTreeSet::new(),
            focus: BTreeMap::new(),
            cursor: 0,
            scroll: 0,
            tried: BTreeSet::new(),
            seen: BTreeSet::from([Page::Welcome]),
            stops: Page::ALL.to_vec(),
            taken: None,
            named_file: None,
            aside: BTreeMap::new(),
            begins_at: None,
            passphrase: Secret::with_limit(crate::passphrase::MOST),
            passphrase_again: Secret::with_limit(crate::passphrase::MOST),
            password: Secret::with_limit(super::secret::PASSWORD_MOST),
            password_again: Secret::with_limit(super::secret::PASSWORD_MOST),
            dialog: None,
            notice: None,
            log: Vec::new(),
            tasks: Tasks {
                discover: Task::new(20),
                probe: Task::new(120),
                head: Task::new(60),
                verify: Task::new(24 * 3600),
                judge: Task::new(20),
                request: Task::new(20),
                passphrase: Task::new(30),
                hash: Task::new(30),
                network: Task::new(150),
                keep: Task::new(30),
                prepare: Task::new(180),
            },
            verified_bytes: (0, 0),
            tick: 0,
            serial: 0,
            look,
            has_shell: true,
            size: super::terminal::SMALLEST,
            leaves_when_done: false,
        }
    }

    /// The field in focus.
    pub fn focused(&self) -> Option<Field> {
        self.focus.get(&self.page).copied()
    }

    /// What is known of the machine.
    pub fn facts(&self) -> Option<&Facts> {
        self.tasks.probe.result()
    }

    /// The disks of the machine.
    pub fn disks(&self) -> &[Disk] {
        self.facts().and_then(|facts| facts.disks.known()).map_or(&[], Vec::as_slice)
    }

    /// The chosen disk.
    pub fn disk(&self) -> Option<&Disk> {
        let chosen = self.answers.disk.as_ref()?;
        self.disks().iter().find(|disk| disk.path == chosen.path)
    }

    /// Addresses of the machine that a node can have, with their adapter.
    pub fn addresses(&self) -> Vec<(String, String)> {
        let Some(Probed::Known(adapters)) = self.facts().map(|facts| &facts.network.adapters) else {
            return Vec::new();
        };
        let usable = |address: &std::net::IpAddr| match address {
            std::net::IpAddr::V4(address) => !address.is_link_local(),
            std::net::IpAddr::V6(address) => !address.is_unicast_link_local(),
        };
        let mut found: Vec<_> = adapters
            .iter()
            .filter(|adapter| !adapter.is_loopback)
            .flat_map(|adapter| adapter.addresses.iter().map(move |own| (own.address, adapter.name.clone())))
            .filter(|(address, _)| usable(address))
            .collect();
        found.sort_by_key(|(address, _)| address.is_ipv6());
        found.into_iter().map(|(address, adapter)| (address.to_string(), adapter)).collect()
    }

    /// This is the live system of a boot medium: it brings the machine's system and sets up its network.
    pub fn is_appliance(&self) -> bool {
        let system = self.facts().and_then(|facts| facts.machine.system.known());
        system.is_some_and(|system| system.is_appliance)
    }

    /// The adapters that an appliance's network can be made of.
    pub fn adapters(&self) -> Vec<&Adapter> {
        let adapters = self.facts().and_then(|facts| facts.network.adapters.known());
        adapters.into_iter().flatten().filter(|adapter| adapter.is_hardware).collect()
    }

    /// The network settings that the live system does not have yet; `None` when there is nothing to set up. What does not
    /// parse or breaks a rule is not set up.
    pub fn network_to_set_up(&self) -> Option<Option<Network>> {
        if !self.is_appliance() {
            return None;
        }
        let (draft, problems) = self.answers.draft();
        let broken = crate::config::problems(&draft);
        if problems.iter().chain(&broken).any(|problem| problem.key.starts_with("network.")) {
            return None;
        }
        let is_set_up = match self.tasks.network.result() {
            None => draft.network.is_none(),
            Some(_) => matches!(self.tasks.network.answer(&draft.network), Some(Ok(()))),
        };
        (!is_set_up).then_some(draft.network)
    }

    /// The bundle as it is asked for now.
    pub fn bundle_question(&self) -> BundleQuestion {
        BundleQuestion {
            path: self.answers.bundle.trim().into(),
            trust: self.answers.trust.split_whitespace().map(Into::into).collect(),
        }
    }

    /// The verified head of the bundle that is asked for now.
    pub fn signed(&self) -> Option<&Signed> {
        self.tasks.head.answer(&self.bundle_question())?.as_ref().ok()
    }

    /// What is asked of the machine now. Half-typed names and addresses are not asked for.
    pub fn questions(&self) -> Questions {
        let (draft, problems) = self.answers.draft();
        let is_good = |key: &str| !problems.iter().any(|problem| problem.key == key);
        Questions {
            fqdn: draft.site.fqdn.parse::<certs::Fqdn>().ok().map(|name| name.to_string()),
            address: is_good("node.address").then_some(draft.node.address),
            vip: draft.site.vip,
            time_servers: draft.network.map(|network| network.time_servers).unwrap_or_default(),
            paths: if draft.bundle.path.as_str().is_empty() { Vec::new() } else { vec![draft.bundle.path.clone()] },
            sync_directory: matches!(draft.storage.encryption, Encryption::None { .. })
                .then(|| crate::layout::DATA.into()),
        }
    }

    /// What the checks say about the answers so far.
    pub fn report(&self) -> Option<Report> {
        let facts = self.facts()?;
        Some(check::run(&self.answers.draft().0, facts, self.signed().map(|signed| &signed.index)))
    }

    /// The findings that belong to a page and do not judge a stand-in.
    pub fn findings(&self, page: Page) -> Vec<Finding> {
        let Some(report) = self.report() else { return Vec::new() };
        let (_, problems) = self.answers.draft();
        let is_open = |key: &str| problems.iter().any(|problem| problem.key == key);
        let asked = self.tasks.probe.answer(&self.questions()).is_some();
        let is_stand_in = |id: &str| match id {
            "net.address" | "net.mtu" | "net.link" => is_open("node.address"),
            "net.address-conflict" => is_open("node.address") || !asked,
            "time.skew" => !asked,
            "host.name" => is_open("node.name"),
            "dns.forward" | "dns.reverse" => is_open("site.fqdn") || is_open("node.address") || !asked,
            "disk.size" | "time.sane" => self.signed().is_none(),
            "disk.choice" => self.answers.disk.is_none(),
            _ => false,
        };
        let mut findings: Vec<_> = report
            .findings
            .into_iter()
            .filter(|finding| field::page_of_check(&finding.id) == page && !is_stand_in(&finding.id))
            .collect();
        findings.sort_by_key(|finding| match finding.outcome {
            check::Outcome::Fail => 0,
            check::Outcome::Unknown if finding.blocks => 1,
            check::Outcome::Warn => 2,
            check::Outcome::Unknown => 3,
            check::Outcome::Pass => 4,
        });
        findings
    }

    /// What is missing or wrong in the answers of a page.
    pub fn problems(&self, page: Page) -> Vec<Problem> {
        let problems = self.answers.config().err().unwrap_or_default();
        let mut problems: Vec<_> = problems.into_iter().filter(|problem| field::page_of(problem.key) == page).collect();
        if page == Page::Disks && self.answers.encrypt && self.answers.disk.is_none() {
            problems.retain(|problem| problem.key != "storage.disk");
            let message = "choose the disk that becomes the encrypted data volume".to_owned();
            problems.insert(0, Problem { key: "storage.disk", message });
        }
        if page == Page::Disks && self.needs_passphrase() {
            problems.retain(|problem| problem.key != "storage.encryption.passphrase");
        }
        if page == Page::Administrator && self.needs_password() {
            problems.retain(|problem| problem.key != "administrator");
        }
        problems
    }

    /// The problem of a field among those of its page.
    pub fn problem_of<'p>(&self, field: Field, problems: &'p [Problem]) -> Option<&'p Problem> {
        match field {
            Field::Question(number) => self.answers.questions.problem_of(number, problems),
            _ => problems.iter().find(|problem| field::keys_of(field).contains(&problem.key)),
        }
    }

    /// A passphrase of the disk was begun, and is not kept yet.
    pub fn needs_passphrase(&self) -> bool {
        let is_asked = self.answers.encrypt && self.answers.use_passphrase;
        is_asked && !(self.passphrase.is_empty() && self.passphrase_again.is_empty())
    }

    /// A password was begun, and its hash is not there yet.
    pub fn needs_password(&self) -> bool {
        self.answers.make_administrator && !(self.password.is_empty() && self.password_again.is_empty())
    }

    /// Whether the page may be left for the next one.
    pub fn is_complete(&self, page: Page) -> bool {
        self.problems(page).is_empty()
    }

    /// The finished report and plan for the answers as they are.
    pub fn prepared(&self) -> Option<&Prepared> {
        let config = self.answers.config().ok()?;
        self.tasks.prepare.answer(&config)
    }

    /// Whether the certificate has to be judged.
    pub fn brings_certificate(&self) -> bool {
        self.answers.certificate_mode != CertificateMode::Generate
    }

    /// Something runs in the background.
    pub fn is_busy(&self) -> bool {
        let Tasks { discover, probe, head, verify, judge, request, passphrase, hash, network, keep, prepare } =
            &self.tasks;
        discover.running().is_some()
            || probe.running().is_some()
            || head.running().is_some()
            || verify.running().is_some()
            || judge.running().is_some()
            || request.running().is_some()
            || passphrase.running().is_some()
            || hash.running().is_some()
            || network.running().is_some()
            || keep.running().is_some()
            || prepare.running().is_some()
    }

    /// The text of a field; `None` for what is no text field, or a secret.
    pub fn text(&self, field: Field) -> Option<&String> {
        let answers = &self.answers;
        Some(match field {
            Field::Recipients => &answers.recipients,
            Field::EscrowDirectory => &answers.escrow_directory,
            Field::PlaintextToken => &answers.plaintext_token,
            Field::NodeName => &answers.node_name,
            Field::Vlan => &answers.network.vlan,
            Field::Mtu => &answers.network.mtu,
            Field::Addresses => &answers.network.addresses,
            Field::Gateways => &answers.network.gateways,
            Field::NameServers => &answers.network.name_servers,
            Field::SearchDomains => &answers.network.search_domains,
            Field::TimeServers => &answers.network.time_servers,
            Field::Fqdn => &answers.fqdn,
            Field::SiteName => &answers.site_name,
            Field::Vip => &answers.vip,
            Field::Request => &answers.request,
            Field::Certificate => &answers.certificate,
            Field::Key => &answers.key,
            Field::Roots => &answers.roots,
            Field::BundlePath => &answers.bundle,
            Field::Trust => &answers.trust,
            Field::PodCidr => &answers.pod_cidr,
            Field::ServiceCidr => &answers.service_cidr,
            Field::Question(number) => &answers.questions.get(number)?.text,
            Field::AccountName => &answers.administrator,
            Field::SshKeys => &answers.ssh_keys,
            _ => return None,
        })
    }

    /// The same, to be changed.
    pub fn text_mut(&mut self, field: Field) -> Option<&mut String> {
        let answers = &mut self.answers;
        Some(match field {
            Field::Recipients => &mut answers.recipients,
            Field::EscrowDirectory => &mut answers.escrow_directory,
            Field::PlaintextToken => &mut answers.plaintext_token,
            Field::NodeName => &mut answers.node_name,
            Field::Vlan => &mut answers.network.vlan,
            Field::Mtu => &mut answers.network.mtu,
            Field::Addresses => &mut answers.network.addresses,
            Field::Gateways => &mut answers.network.gateways,
            Field::NameServers => &mut answers.network.name_servers,
            Field::SearchDomains => &mut answers.network.search_domains,
            Field::TimeServers => &mut answers.network.time_servers,
            Field::Fqdn => &mut answers.fqdn,
            Field::SiteName => &mut answers.site_name,
            Field::Vip => &mut answers.vip,
            Field::Request => &mut answers.request,
            Field::Certificate => &mut answers.certificate,
            Field::Key => &mut answers.key,
            Field::Roots => &mut answers.roots,
            Field::BundlePath => &mut answers.bundle,
            Field::Trust => &mut answers.trust,
            Field::PodCidr => &mut answers.pod_cidr,
            Field::ServiceCidr => &mut answers.service_cidr,
            // What is chosen is not typed.
            Field::Question(number) => {
                let asked = answers.questions.get_mut(number).filter(|asked| asked.options().is_empty())?;
                &mut asked.text
            }
            Field::AccountName => &mut answers.administrator,
            Field::SshKeys => &mut answers.ssh_keys,
            _ => return None,
        })
    }

    /// The secret of a field.
    pub fn secret(&self, field: Field) -> Option<&Secret> {
        match field {
            Field::Passphrase => Some(&self.passphrase),
            Field::PassphraseAgain => Some(&self.passphrase_again),
            Field::Password => Some(&self.password),
            Field::PasswordAgain => Some(&self.password_again),
            _ => None,
        }
    }

    /// Where things are saved unless the operator says otherwise.
    pub fn save_directory(&self) -> String {
        let medium = self.tasks.discover.result().and_then(|found| found.medium.clone());
        medium.map_or_else(|| "/root".to_owned(), |path| path.to_string())
    }

    /// Fills what has a default and was not edited.
    pub fn fill_defaults(&mut self) {
        let is_free = |model: &Self, field| !model.edited.contains(&field);
        if is_free(self, Field::NodeName)
            && let Some(name) = self.facts().and_then(|facts| facts.machine.host_name.known())
        {
            let short = name.split('.').next().unwrap_or_default().to_lowercase();
            self.answers.node_name = if short == "localhost" { String::new() } else { short };
        }
        if is_free(self, Field::Address(0)) {
            let addresses = self.addresses();
            if let Some((address, _)) = self.default_address(&addresses) {
                self.answers.address = address;
            }
        }
        if is_free(self, Field::Adapter(0)) && self.answers.network.is_own {
            let with_link = self.adapters().into_iter().find(|adapter| adapter.has_carrier);
            let adapter = with_link.or_else(|| self.adapters().first().copied());
            self.answers.network.adapters = adapter.map(|adapter| adapter.name.clone()).into_iter().collect();
        }
        if is_free(self, Field::Administrator(true)) && self.is_appliance() {
            // Root has no password there: without an account nobody could log in.
            self.answers.make_administrator = true;
        }
        if is_free(self, Field::SiteName) {
            self.answers.site_name = site_name_of(self.answers.fqdn.trim());
        }
        if is_free(self, Field::Disk(0)) {
            let free: Vec<Disk> = self.disks().iter().filter(|disk| disk.is_free()).cloned().collect();
            // A disk is never guessed: only where there is no choice, it is made.
            if let [only] = free.as_slice() {
                self.answers.choose_disk(only);
            }
        }
        let asks = self.signed().filter(|signed| !self.answers.questions.is_of(&signed.digest));
        if let Some((digest, index)) = asks.map(|signed| (signed.digest.clone(), signed.index.clone())) {
            self.answers.questions.ask(&digest, &index);
        }
        let Some(found) = self.tasks.discover.result().cloned() else { return };
        if is_free(self, Field::BundlePath)
            && let [only] = found.bundles.as_slice()
        {
            self.answers.bundle = only.to_string();
        }
        if is_free(self, Field::Trust) && !found.keys.is_empty() {
            self.answers.trust = found.keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(" ");
        }
        if is_free(self, Field::Request) {
            self.answers.request = format!("{}/{}.csr", self.save_directory(), self.answers.fqdn.trim());
        }
    }

    /// The address towards the default route, or the first.
    fn default_address(&self, addresses: &[(String, String)]) -> Option<(String, String)> {
        let routes = self.facts().and_then(|facts| facts.network.routes.known());
        let adapter = routes.and_then(|routes| routes.iter().find(|route| route.is_default())?.adapter.clone());
        let towards = addresses.iter().find(|(_, name)| adapter.as_ref() == Some(name));
        towards.or_else(|| addresses.first()).cloned()
    }
}

/// A short name out of a FQDN: `rack7` out of `mgmt.rack7.example.com`, `mgmt` out of `mgmt.example.com`.
fn site_name_of(fqdn: &str) -> String {
    let labels: Vec<&str> = fqdn.split('.').filter(|label| !label.is_empty()).collect();
    let label = if labels.len() >= 4 { labels.get(1) } else { labels.first() };
    label.map(|label| label.to_lowercase()).unwrap_or_default()
}
