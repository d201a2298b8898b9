//! The pages against a machine that is made of files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kept;
mod line_by_line;
mod paths;
mod pictures;
mod properties;
mod questions;
mod snapshots;

use std::sync::Mutex;

use bundle::index::Index;
use camino::{Utf8Path, Utf8PathBuf};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::answers::Answers;
use super::field::{Field, page_of};
use super::machine::{BundleQuestion, Discovered, FoundConfig, Judged, Machine};
use super::model::Model;
use super::run::Start;
use super::theme::Mode;
use super::update::{Effect, Message, update};
use super::view;
use crate::config::{self, InstallConfig, Network, Page};
use crate::engine::Stop;
use crate::facts::network::{Address, Name};
use crate::facts::time::TimeServer;
use crate::facts::{Facts, Probed, Questions};
use crate::prepare::{self, Prepared, Refusal, Signed};

const BUNDLE: &str = "/media/cofferdam/cofferdam-1.4.0.tar.zst";
const KEY: &str = "/media/cofferdam/trust.pub";

/// A machine of files.
pub(super) struct Fixture {
    pub(super) facts: Facts,
    pub(super) index: Index,
    pub(super) found: Discovered,
    pub(super) head: Result<(), Refusal>,
    pub(super) judged: Judged,
    pub(super) set_up: Result<(), String>,
    /// What the machine was set up with.
    pub(super) network: Mutex<Option<Network>>,
    pub(super) kept: Mutex<Vec<(Utf8PathBuf, Vec<u8>)>>,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self {
            facts: serde_json::from_str(include_str!("facts.json")).unwrap(),
            index: serde_json::from_str(include_str!("index.json")).unwrap(),
            found: Discovered {
                bundles: vec![BUNDLE.into()],
                keys: vec![KEY.into()],
                medium: Some("/media/cofferdam".into()),
                ..Discovered::default()
            },
            head: Ok(()),
            judged: Judged {
                findings: Vec::new(),
                summary: vec![
                    ("Subject", "CN=mgmt.rack7.example.com".to_owned()),
                    ("Issuer", "CN=Example Issuing CA 3, O=Example".to_owned()),
                    ("Names", "mgmt.rack7.example.com mgmt 192.0.2.11".to_owned()),
                    ("Valid until", "2027-11-23T12:00:00Z".to_owned()),
                    ("Key", "ECDSA P-256".to_owned()),
                ],
            },
            set_up: Ok(()),
            network: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// The live system of a medium, with two adapters and no address.
    pub(super) fn appliance() -> Self {
        let mut machine = Self::new();
        if let Probed::Known(system) = &mut machine.facts.machine.system {
            system.is_appliance = true;
            system.name = "Cofferdam 1.4.0".to_owned();
        }
        if let Probed::Known(adapters) = &mut machine.facts.network.adapters {
            adapters.retain(|adapter| !adapter.is_loopback);
            adapters.truncate(1);
            let first = &mut adapters[0];
            first.is_hardware = true;
            first.mac = Some("02:00:5e:10:00:01".to_owned());
            first.addresses.clear();
            let mut second = first.clone();
            second.name = "eno2".to_owned();
            second.mac = Some("02:00:5e:10:00:02".to_owned());
            second.has_carrier = false;
            second.speed = Probed::unknown("the adapter's driver does not tell");
            adapters.push(second);
        }
        machine
    }

    pub(super) fn with_file(mut self, config: &InstallConfig) -> Self {
        self.found.configs = vec![FoundConfig {
            path: "/media/cofferdam/install.yaml".into(),
            hash: "9f86d081884c7d65".to_owned(),
            config: Ok(config.clone()),
        }];
        self
    }

    pub(super) fn signed(&self) -> Signed {
        Signed {
            index: self.index.clone(),
            index_bytes: b"index".to_vec(),
            signature: b"signature".to_vec(),
            digest: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
            bytes: 1_300_000_000,
            key_id: "7EA64BA51A4C7734".to_owned(),
        }
    }
}

impl Machine for Fixture {
    fn discover(&self) -> Discovered {
        self.found.clone()
    }

    fn probe(&self, questions: &Questions) -> Facts {
        let mut facts = self.facts.clone();
        let resolves = |name: &String| Name {
            name: name.clone(),
            addresses: match &facts.network.fqdn {
                Some(known) => known.addresses.clone(),
                None => Probed::Known(vec!["192.0.2.11".parse().unwrap()]),
            },
        };
        // The first adapter has what it was set up with.
        if let (Some(network), Probed::Known(adapters)) = (&*self.network.lock().unwrap(), &mut facts.network.adapters)
            && !network.addresses.is_empty()
        {
            adapters[0].addresses = network
                .addresses
                .iter()
                .map(|own| Address { address: own.address, prefix_length: own.prefix_length })
                .collect();
        }
        facts.network.fqdn = questions.fqdn.as_ref().map(resolves);
        if !questions.time_servers.is_empty() {
            facts.network.time_servers.truncate(1);
            let first = facts.network.time_servers[0].clone();
            let said = |name: &String| TimeServer { name: name.clone(), ..first.clone() };
            facts.network.time_servers = questions.time_servers.iter().map(said).collect();
        }
        facts
    }

    fn head(&self, _: &BundleQuestion) -> Result<Signed, Refusal> {
        self.head.clone().map(|()| self.signed())
    }

    fn verify(&self, _: &BundleQuestion, _: &Stop, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Refusal> {
        progress(650_000_000, 1_300_000_000);
        Ok(())
    }

    fn judge(&self, _: &InstallConfig) -> Judged {
        self.judged.clone()
    }

    fn request(&self, _: &InstallConfig, _: &Utf8Path) -> Result<String, String> {
        Ok("-----BEGIN CERTIFICATE REQUEST-----\nMIIBETCBuA==\n-----END CERTIFICATE REQUEST-----\n".to_owned())
    }

    fn set_up_network(&self, network: Option<&Network>) -> Result<(), String> {
        self.network.lock().unwrap().clone_from(&network.cloned());
        self.set_up.clone()
    }

    fn keep(&self, path: &Utf8Path, content: &[u8], _: u32) -> Result<(), String> {
        self.kept.lock().unwrap().push((path.to_owned(), content.to_vec()));
        Ok(())
    }

    fn prepare(&self, config: &InstallConfig, signed: &Signed) -> Prepared {
        let host = kept::KeptFiles(self.kept.lock().unwrap().clone());
        prepare::judge(&host, config, signed, &self.probe(&Questions::of(config)))
    }
}

/// Somebody at the keys.
pub(super) struct Operator {
    pub(super) machine: Fixture,
    pub(super) model: Model,
    pub(super) started: Option<Start>,
    pub(super) left: bool,
    /// Keys that were pressed besides typed text.
    pub(super) presses: usize,
}

impl Operator {
    pub(super) fn at(machine: Fixture, look: Mode) -> Self {
        let mut operator = Self { machine, model: Model::new(look), started: None, left: false, presses: 0 };
        operator.tell(Message::Tick);
        operator
    }

    /// Gives a message, and does at once what comes of it.
    pub(super) fn tell(&mut self, message: Message) {
        let mut effects = update(&mut self.model, message);
        while !effects.is_empty() {
            let mut next = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Run(serial, job) => {
                        let mut answers = Vec::new();
                        self.machine.work(job, &Stop::default(), &mut |answer| answers.push(answer));
                        for answer in answers {
                            next.extend(update(&mut self.model, Message::Answer(serial, answer)));
                        }
                    }
                    Effect::Start(start) => self.started = Some(*start),
                    Effect::Quit | Effect::Finish => self.left = true,
                    Effect::Cancel(_) | Effect::Shell | Effect::Redraw => {}
                }
            }
            effects = next;
        }
    }

    pub(super) fn press(&mut self, code: KeyCode) {
        self.presses += 1;
        self.tell(Message::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    }

    pub(super) fn control(&mut self, letter: char) {
        self.presses += 1;
        self.tell(Message::Key(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL)));
    }

    pub(super) fn enter(&mut self) {
        self.press(KeyCode::Enter);
    }

    pub(super) fn write(&mut self, text: &str) {
        for character in text.chars() {
            self.tell(Message::Key(KeyEvent::new(KeyCode::Char(character), KeyModifiers::NONE)));
        }
    }

    /// Puts the focus on a field, by Tab.
    pub(super) fn go_to(&mut self, field: Field) {
        for _ in 0..100 {
            if self.model.focused() == Some(field) {
                return;
            }
            self.press(KeyCode::Tab);
        }
        panic!("there is no {field:?} on {:?}", self.model.page);
    }

    /// Shows a page, whatever is missing on those before it.
    pub(super) fn open(&mut self, page: Page) {
        self.model.page = page;
        self.model.scroll = 0;
        self.tell(Message::Tick);
    }

    pub(super) fn picture(&self, width: u16, height: u16) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut model = self.model.clone();
        model.size = (width, height);
        terminal.draw(|frame| view::draw(&model, frame.area(), frame.buffer_mut())).unwrap();
        terminal.backend().buffer().clone()
    }
}

/// The text of a picture, without the blanks at the ends of lines.
pub(super) fn text(picture: &Buffer) -> String {
    let width = usize::from(picture.area.width);
    let lines = picture.content.chunks(width).map(|row| row.iter().map(Cell::symbol).collect::<String>());
    lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// All that can be answered, answered.
pub(super) fn answered() -> Operator {
    let mut operator = Operator::at(Fixture::new(), Mode::Colour);
    operator.model.answers.fqdn = "mgmt.rack7.example.com".to_owned();
    operator.tell(Message::Tick);
    operator
}

pub(super) fn example() -> InstallConfig {
    let mut config = config::parse(config::example::EXAMPLE).unwrap();
    config.bundle.path = BUNDLE.into();
    config.bundle.trust = vec![KEY.into()];
    config
}

#[test]
fn answers_come_out_as_they_went_in() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6wu3xDlzCNWtgvCzd1GkbEFAE2kyAaodjzEyA2JTuB operator@desk";
    let changes: [fn(&mut InstallConfig); 10] = [
        |_| {},
        |config| config.site.vip = Some("192.0.2.10".parse().unwrap()),
        |config| {
            config.storage.encryption = config::Encryption::None { token: config::PLAINTEXT_TOKEN.to_owned() };
            config.storage.disk = None;
        },
        |config| {
            config.certificates = config::Certificates::Import {
                certificate: "/a.pem".into(),
                key: config::SecretSource { file: "/a.key".into() },
                roots: "/root.pem".into(),
            };
        },
        |config| {
            config.certificates = config::Certificates::Request {
                request: "/a.csr".into(),
                certificate: "/a.pem".into(),
                roots: "/root.pem".into(),
            };
        },
        |config| {
            if let config::Encryption::Luks2 { passphrase, .. } = &mut config.storage.encryption {
                *passphrase = Some(config::SecretSource { file: "/run/cofferdam/volume/passphrase".into() });
            }
        },
        |config| config.cluster.packs = Some(vec!["portal".to_owned()]),
        |config| config.answers = config::answers::parse("{portal: {size: 5, on: true}, door: {a: b}}").unwrap(),
        |config| config.accept = vec!["disk.fsync".to_owned()],
        |config| config.interactive = vec![Page::Disks],
    ];
    for change in changes {
        let mut config = example();
        change(&mut config);
        assert_eq!(Answers::from_config(&config).config().unwrap(), config);
    }
    let mut config = example();
    config.administrator = Some(config::Administrator {
        name: "operator".to_owned(),
        password_hash: Some(format!("$y$j9T$F5Jx5fExrKuPp53xLKQ..1${}", "a".repeat(43))),
        ssh_keys: vec![key.to_owned(), key.to_owned()],
    });
    assert_eq!(Answers::from_config(&config).config().unwrap(), config);
}

#[test]
fn what_is_missing_is_asked_on_a_page() {
    let problems = Answers::default().config().unwrap_err();
    for problem in &problems {
        assert_ne!(page_of(problem.key), Page::Review, "{problem}");
    }
    assert!(problems.iter().any(|problem| problem.key == "site.fqdn"));
}
