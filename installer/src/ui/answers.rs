//! What the operator has answered so far: text as typed, choices as chosen. An `InstallConfig` comes out of it when all
//! of it parses, and goes into it when a file was found.
//!
//! Invariant: `Answers::from_config(c).config()` is `c`, also for what no page asks about. A typed secret is never here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::{
    self, Administrator, BundleSource, Certificates, Cluster, DiskChoice, DiskMatch, Encryption, InstallConfig,
    KeyDerivation, Node, PLAINTEXT_TOKEN, Page, Problem, SCHEMA_VERSION, SecretSource, Site, Storage, Tpm2,
};
use crate::facts::Facts;
use crate::facts::disk::Disk;
use crate::ui::network_answers::NetworkAnswers;
use crate::ui::question_answers::QuestionAnswers;

/// Where the server certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateMode {
    /// The site makes its own.
    Generate,
    /// Another authority signs a request.
    Request,
    /// Certificate and key are there.
    Import,
}

/// The disk that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenDisk {
    /// For example `/dev/sdb`; empty while the machine's disks are not known.
    pub path: String,
    /// How the configuration names it.
    pub matches: Vec<DiskMatch>,
    /// What allows it to be erased.
    pub token: String,
    /// A file chose it, with its own token.
    pub from_file: bool,
}

/// All answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is an answer of its own")]
#[allow(missing_docs, reason = "the names are those of the configuration, where they are explained")]
pub struct Answers {
    pub site_name: String,
    pub fqdn: String,
    pub vip: String,
    pub node_name: String,
    pub address: String,
    pub network: NetworkAnswers,
    pub disk: Option<ChosenDisk>,
    pub encrypt: bool,
    pub tpm2: Tpm2,
    pub show_recovery_key: bool,
    pub recipients: String,
    pub escrow_directory: String,
    pub use_passphrase: bool,
    /// The file with it.
    pub passphrase: String,
    pub plaintext_token: String,
    pub discards: bool,
    pub key_derivation: KeyDerivation,
    pub bundle: String,
    pub trust: String,
    pub certificate_mode: CertificateMode,
    pub algorithm: String,
    pub request: String,
    pub certificate: String,
    pub key: String,
    pub roots: String,
    pub pod_cidr: String,
    pub service_cidr: String,
    /// Packs of the upper layers that are left out.
    pub packs: Option<BTreeSet<String>>,
    pub schedule: bool,
    pub questions: QuestionAnswers,
    pub make_administrator: bool,
    pub administrator: String,
    pub password_hash: Option<String>,
    pub ssh_keys: String,
    pub interactive: Vec<Page>,
    pub accept: BTreeSet<String>,
}

impl Default for Answers {
    fn default() -> Self {
        let cluster = Cluster::default();
        Self {
            site_name: String::new(),
            fqdn: String::new(),
            vip: String::new(),
            node_name: String::new(),
            address: String::new(),
            network: NetworkAnswers::default(),
            disk: None,
            encrypt: true,
            tpm2: Tpm2::Auto,
            show_recovery_key: true,
            recipients: String::new(),
            escrow_directory: String::new(),
            use_passphrase: false,
            passphrase: String::new(),
            plaintext_token: String::new(),
            discards: false,
            key_derivation: KeyDerivation::default(),
            bundle: String::new(),
            trust: String::new(),
            certificate_mode: CertificateMode::Generate,
            algorithm: "ecdsa-p256".to_owned(),
            request: String::new(),
            certificate: String::new(),
            key: String::new(),
            roots: String::new(),
            pod_cidr: cluster.pod_cidr,
            service_cidr: cluster.service_cidr,
            packs: cluster.packs.map(BTreeSet::from_iter),
            schedule: cluster.schedule_on_control_plane,
            questions: QuestionAnswers::default(),
            make_administrator: false,
            administrator: String::new(),
            password_hash: None,
            ssh_keys: String::new(),
            interactive: Vec::new(),
            accept: BTreeSet::new(),
        }
    }
}

impl Answers {
    /// The answers of a file.
    pub fn from_config(config: &InstallConfig) -> Self {
        let mut answers = Self {
            site_name: config.site.name.clone(),
            fqdn: config.site.fqdn.clone(),
            vip: optional(config.site.vip),
            node_name: config.node.name.clone(),
            address: config.node.address.to_string(),
            network: NetworkAnswers::from_config(config.network.as_ref()),
            disk: config.storage.disk.as_ref().map(|choice| ChosenDisk {
                path: String::new(),
                matches: choice.matches.clone(),
                token: choice.erase.clone(),
                from_file: true,
            }),
            bundle: config.bundle.path.to_string(),
            trust: config.bundle.trust.iter().map(|path| path.as_str()).collect::<Vec<_>>().join(" "),
            pod_cidr: config.cluster.pod_cidr.clone(),
            service_cidr: config.cluster.service_cidr.clone(),
            packs: config.cluster.packs.as_ref().map(|packs| packs.iter().cloned().collect()),
            schedule: config.cluster.schedule_on_control_plane,
            questions: QuestionAnswers::from_config(&config.answers),
            interactive: config.interactive.clone(),
            accept: config.accept.iter().cloned().collect(),
            ..Self::default()
        };
        match &config.storage.encryption {
            Encryption::None { token } => {
                answers.encrypt = false;
                answers.plaintext_token.clone_from(token);
            }
            Encryption::Luks2 {
                tpm2,
                escrow_recipients,
                escrow_directory,
                show_recovery_key,
                discards,
                key_derivation,
                passphrase,
            } => {
                answers.use_passphrase = passphrase.is_some();
                answers.passphrase = passphrase.as_ref().map(|source| source.file.to_string()).unwrap_or_default();
                answers.tpm2 = *tpm2;
                answers.show_recovery_key = *show_recovery_key;
                answers.recipients = escrow_recipients.join(" ");
                answers.escrow_directory = escrow_directory.as_ref().map(ToString::to_string).unwrap_or_default();
                answers.discards = *discards;
                answers.key_derivation = *key_derivation;
            }
        }
        match &config.certificates {
            Certificates::Generate { algorithm } => answers.algorithm.clone_from(algorithm),
            Certificates::Import { certificate, key, roots } => {
                answers.certificate_mode = CertificateMode::Import;
                answers.certificate = certificate.to_string();
                answers.key = key.file.to_string();
                answers.roots = roots.to_string();
            }
            Certificates::Request { request, certificate, roots } => {
                answers.certificate_mode = CertificateMode::Request;
                answers.request = request.to_string();
                answers.certificate = certificate.to_string();
                answers.roots = roots.to_string();
            }
        }
        if let Some(administrator) = &config.administrator {
            answers.make_administrator = true;
            answers.administrator.clone_from(&administrator.name);
            answers.password_hash.clone_from(&administrator.password_hash);
            answers.ssh_keys = administrator.ssh_keys.join("\n");
        }
        answers
    }

    /// The configuration, or all that is missing or wrong.
    pub fn config(&self) -> Result<InstallConfig, Vec<Problem>> {
        let (config, mut problems) = self.draft();
        problems.extend(
            config::problems(&config)
                .into_iter()
                .filter(|problem| !is_known(&problems, problem.key))
                .collect::<Vec<_>>(),
        );
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// A configuration with stand-ins for what is missing or does not parse, and what that is.
    pub fn draft(&self) -> (InstallConfig, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut missing = |key: &'static str, text: &str| {
            if text.trim().is_empty() {
                problems.push(Problem { key, message: "is still empty".to_owned() });
            }
        };
        missing("site.fqdn", &self.fqdn);
        missing("site.name", &self.site_name);
        missing("node.name", &self.node_name);
        missing("node.address", &self.address);
        missing("bundle.path", &self.bundle);
        missing("bundle.trust", &self.trust);
        if self.certificate_mode == CertificateMode::Request {
            missing("certificates.request", &self.request);
        }
        if self.certificate_mode != CertificateMode::Generate {
            missing("certificates.certificate", &self.certificate);
            missing("certificates.roots", &self.roots);
        }
        if self.certificate_mode == CertificateMode::Import {
            missing("certificates.key", &self.key);
        }
        if self.encrypt && self.use_passphrase {
            missing("storage.encryption.passphrase", &self.passphrase);
        }
        if self.make_administrator {
            missing("administrator.name", &self.administrator);
        }
        let mut address = |key: &'static str, text: &str| -> Option<IpAddr> {
            let parsed = text.trim().parse().ok();
            if parsed.is_none() && !text.trim().is_empty() {
                problems.push(Problem { key, message: format!("{:?} is no IP address", text.trim()) });
            }
            parsed
        };
        let node_address = address("node.address", &self.address).unwrap_or(STAND_IN);
        let vip = address("site.vip", &self.vip);
        let network = self.network.draft(&mut problems);
        let answers = self.questions.draft(self.packs.as_ref(), &mut problems);
        let config = InstallConfig {
            schema_version: SCHEMA_VERSION,
            site: Site { name: self.site_name.trim().to_owned(), fqdn: self.fqdn.trim().to_owned(), vip },
            node: Node { name: self.node_name.trim().to_owned(), address: node_address },
            network,
            storage: self.storage(),
            bundle: BundleSource {
                path: self.bundle.trim().into(),
                trust: self.trust.split_whitespace().map(Into::into).collect(),
            },
            certificates: self.certificates(),
            cluster: Cluster {
                pod_cidr: self.pod_cidr.trim().to_owned(),
                service_cidr: self.service_cidr.trim().to_owned(),
                packs: self.packs.as_ref().map(|packs| packs.iter().cloned().collect()),
                schedule_on_control_plane: self.schedule,
            },
            answers,
            administrator: self.make_administrator.then(|| Administrator {
                name: self.administrator.trim().to_owned(),
                password_hash: self.password_hash.clone(),
                ssh_keys: lines(&self.ssh_keys),
            }),
            interactive: self.interactive.clone(),
            accept: self.accept.iter().cloned().collect(),
        };
        (config, problems)
    }

    fn storage(&self) -> Storage {
        // Without encryption no disk is taken; a file's own words stay all the same.
        let disk = self.disk.as_ref().filter(|disk| self.encrypt || disk.from_file);
        let disk = disk.map(|disk| DiskChoice { matches: disk.matches.clone(), erase: disk.token.clone() });
        if !self.encrypt {
            return Storage { disk, encryption: Encryption::None { token: self.plaintext_token.trim().to_owned() } };
        }
        let directory = self.escrow_directory.trim();
        let encryption = Encryption::Luks2 {
            tpm2: self.tpm2,
            escrow_recipients: self.recipients.split_whitespace().map(str::to_owned).collect(),
            escrow_directory: (!directory.is_empty()).then(|| directory.into()),
            show_recovery_key: self.show_recovery_key,
            discards: self.discards,
            key_derivation: self.key_derivation,
            passphrase: self.use_passphrase.then(|| SecretSource { file: self.passphrase.trim().into() }),
        };
        Storage { disk, encryption }
    }

    fn certificates(&self) -> Certificates {
        let (certificate, roots) = (self.certificate.trim().into(), self.roots.trim().into());
        match self.certificate_mode {
            CertificateMode::Generate => Certificates::Generate { algorithm: self.algorithm.clone() },
            CertificateMode::Import => {
                Certificates::Import { certificate, key: SecretSource { file: self.key.trim().into() }, roots }
            }
            CertificateMode::Request => {
                Certificates::Request { request: self.request.trim().into(), certificate, roots }
            }
        }
    }

    /// Takes a disk of this machine.
    pub fn choose_disk(&mut self, disk: &Disk) {
        if self.disk.as_ref().is_some_and(|chosen| chosen.path == disk.path) {
            return;
        }
        self.disk = Some(ChosenDisk {
            path: disk.path.clone(),
            matches: vec![match_of(disk)],
            token: token_of(disk),
            from_file: false,
        });
    }

    /// Finds the disk that a file names; a disk that is not there stays as the file says.
    pub fn find_disk(&mut self, facts: &Facts) {
        let Some(chosen) = self.disk.as_mut().filter(|chosen| chosen.path.is_empty()) else { return };
        let choice = DiskChoice { matches: chosen.matches.clone(), erase: chosen.token.clone() };
        if let Some(disk) = facts.disks.known().and_then(|disks| crate::facts::choice::choose(disks, &choice).ok()) {
            chosen.path.clone_from(&disk.path);
        }
    }
}

/// RFC 5737: an address that is nobody's, until the true one is known.
const STAND_IN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn is_known(problems: &[Problem], key: &str) -> bool {
    problems.iter().any(|problem| problem.key == key)
}

fn optional(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Lines that hold something.
pub fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// What has to be typed before a disk is erased: the end of its serial number, or its path if it has none.
pub fn token_of(disk: &Disk) -> String {
    match &disk.serial {
        Some(serial) => serial.chars().skip(serial.chars().count().saturating_sub(4)).collect(),
        None => disk.path.clone(),
    }
}

/// What is asked for: never less than a file's token, and never less than the usual end of a serial number.
pub fn token_of_serial(token: &str, serial: &str) -> String {
    let end: String = serial.chars().skip(serial.chars().count().saturating_sub(4)).collect();
    if token.starts_with('/') || token.chars().count() > end.chars().count() { token.to_owned() } else { end }
}

/// The narrowest description that a configuration can give of a disk.
fn match_of(disk: &Disk) -> DiskMatch {
    let gib = 1_u64 << 30;
    if disk.serial.is_some() {
        return DiskMatch { serial: disk.serial.clone(), ..DiskMatch::default() };
    }
    DiskMatch {
        wwn: disk.wwn.clone(),
        model: disk.model.clone(),
        bus: disk.bus.clone(),
        min_size_gib: Some(disk.size_bytes / gib),
        max_size_gib: Some(disk.size_bytes.div_ceil(gib)),
        ..DiskMatch::default()
    }
}

/// The token that an unencrypted site needs; here for the page that shows it.
pub const NO_ENCRYPTION: &str = PLAINTEXT_TOKEN;
