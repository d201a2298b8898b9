//! What a configuration must fulfil beyond its types; checked without the machine, all problems at once.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;

use super::{Administrator, Certificates, Encryption, InstallConfig, PLAINTEXT_TOKEN, SCHEMA_VERSION, SIZE_LIMIT};
use crate::network::Cidr;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// More than [`SIZE_LIMIT`].
    #[error("the configuration has {size} bytes, more than {SIZE_LIMIT}")]
    TooLarge {
        /// In bytes.
        size: usize,
    },
    /// Not YAML, an unknown key, a wrong type, a missing key.
    #[error("the configuration cannot be read: {0}")]
    Format(#[from] serde_yaml::Error),
    /// Read, but against the rules.
    #[error("the configuration is not valid:{}", list(.problems))]
    Rules {
        /// All of them.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::TooLarge { .. } => "an install.yaml has a few dozen lines; is this the right file?".to_owned(),
            Self::Format(_) => "`cofferdam config example` prints a complete file with comments".to_owned(),
            Self::Rules { .. } => "mend the keys above, then `cofferdam config validate FILE`".to_owned(),
        }
    }
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's path, for example `storage.disk.erase`.
    pub key: &'static str,
    /// What is wrong and what is wanted.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |text, problem| format!("{text}\n  {problem}"))
}

/// All rules that a configuration breaks.
pub fn problems(config: &InstallConfig) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut problem = |key, message: String| found.push(Problem { key, message });

    if config.schema_version != SCHEMA_VERSION {
        problem(
            "schema-version",
            format!("{} is not known; this program reads {SCHEMA_VERSION}", config.schema_version),
        );
    }
    if let Some(why) = label_problem(&config.site.name, 40) {
        problem("site.name", format!("{:?} {why}", config.site.name));
    }
    if let Err(error) = config.site.fqdn.parse::<certs::Fqdn>() {
        problem("site.fqdn", error.to_string());
    }
    if let Some(why) = label_problem(&config.node.name, 53) {
        problem("node.name", format!("{:?} {why}", config.node.name));
    }
    if unusable(config.node.address) {
        problem("node.address", format!("{} is no address of a host in a network", config.node.address));
    }
    if let Some(vip) = config.site.vip {
        if vip == config.node.address {
            problem("site.vip", "is the node's own address; leave it out for a single node".to_owned());
        }
        if vip.is_ipv4() != config.node.address.is_ipv4() {
            problem("site.vip", "is of another address family than node.address".to_owned());
        }
    }
    storage_problems(config, &mut problem);
    if config.bundle.trust.is_empty() {
        problem("bundle.trust", "names no key: a bundle is never loaded without a verified signature".to_owned());
    }
    if let Certificates::Generate { algorithm } = &config.certificates
        && algorithm.parse::<certs::KeyAlgorithm>().is_err()
    {
        problem(
            "certificates.algorithm",
            format!("{algorithm:?} is not one of ecdsa-p256, ecdsa-p384, ed25519, rsa3072, rsa4096"),
        );
    }
    range_problems(config, &mut problem);
    super::network::problems(config, &mut problem);
    administrator_problems(config, &mut problem);
    found
}

fn administrator_problems(config: &InstallConfig, problem: &mut impl FnMut(&'static str, String)) {
    let Some(Administrator { name, password_hash, ssh_keys }) = &config.administrator else { return };
    if let Some(why) = account_problem(name) {
        problem("administrator.name", format!("{name:?} {why}"));
    }
    if password_hash.is_none() && ssh_keys.is_empty() {
        problem("administrator", "has neither password-hash nor ssh-keys: nobody could log in".to_owned());
    }
    // crypt(5): the method, then parts without `:`, which ends a field of /etc/shadow.
    if let Some(hash) = password_hash
        && !(["$y$", "$6$", "$2b$"].iter().any(|method| hash.starts_with(method))
            && hash.len() >= 50
            && hash.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'))
    {
        problem(
            "administrator.password-hash",
            "is no crypt(5) hash ($y$, $6$ or $2b$): `mkpasswd` makes one".to_owned(),
        );
    }
    for key in ssh_keys {
        if let Some(why) = ssh_key_problem(key) {
            problem("administrator.ssh-keys", format!("{:?} {why}", key.chars().take(24).collect::<String>()));
        }
    }
}

/// What is wrong with the name of an account (useradd(8), the part that all tools agree on).
pub fn account_problem(name: &str) -> Option<&'static str> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if name.is_empty() || name.len() > 32 {
        Some("must have 1 to 32 characters")
    } else if !is_plain || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        Some("must be lower-case letters, digits and dashes, a letter first")
    } else if ["root", "daemon", "nobody", "sshd", crate::layout::REGISTRY_USER].contains(&name) {
        Some("is an account of the system")
    } else {
        None
    }
}

/// `TYPE BASE64 [COMMENT]`; options before the type are not taken.
fn ssh_key_problem(line: &str) -> Option<&'static str> {
    const KINDS: [&str; 6] = [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    ];
    let mut words = line.split_whitespace();
    let (kind, body) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let decoded = base64::engine::general_purpose::STANDARD.decode(body).unwrap_or_default();
    let names_itself = strings_of(&decoded).is_some_and(|parts| parts.first() == Some(&kind.as_bytes()));
    if line.lines().count() != 1 || !KINDS.contains(&kind) {
        Some("is no line of an SSH public key (`ssh-ed25519 AAAA… name`)")
    } else if !names_itself {
        Some("is cut off or changed: its body does not fit its kind")
    } else {
        None
    }
}

fn storage_problems(config: &InstallConfig, problem: &mut impl FnMut(&'static str, String)) {
    if let Some(disk) = &config.storage.disk {
        // A shorter one is taken where the serial number is no longer.
        let is_whole = disk.matches.iter().any(|spec| spec.serial.as_ref() == Some(&disk.erase));
        if disk.erase.chars().count() < 4 && !is_whole {
            problem(
                "storage.disk.erase",
                "wants the last four or more characters of the disk's serial number".to_owned(),
            );
        }
        for spec in &disk.matches {
            if *spec == super::DiskMatch::default() {
                problem("storage.disk.match", "has an entry that names nothing and so fits every disk".to_owned());
            }
        }
    }
    match &config.storage.encryption {
        Encryption::Luks2 {
            escrow_recipients,
            escrow_directory,
            show_recovery_key,
            key_derivation,
            passphrase,
            ..
        } => {
            if config.storage.disk.is_none() {
                problem("storage.disk", "is missing: an encrypted data volume needs a disk of its own".to_owned());
            }
            if escrow_recipients.is_empty() && !show_recovery_key {
                problem(
                    "storage.encryption.escrow-recipients",
                    "is empty: the recovery key would exist nowhere outside of the machine; name a recipient, or set \
                     show-recovery-key: true and install on a terminal"
                        .to_owned(),
                );
            }
            if escrow_recipients.is_empty() && escrow_directory.is_some() {
                problem(
                    "storage.encryption.escrow-directory",
                    "is given, but escrow-recipients is empty: there is no escrow to copy".to_owned(),
                );
            }
            for recipient in escrow_recipients {
                if let Err(error) = recipient.parse::<certs::EscrowRecipient>() {
                    problem("storage.encryption.escrow-recipients", error.to_string());
                }
            }
            if !(32..=4_194_304).contains(&key_derivation.memory_kib) || key_derivation.iterations < 4 {
                problem(
                    "storage.encryption.key-derivation",
                    "wants 32 to 4194304 KiB and at least 4 iterations".to_owned(),
                );
            }
            if let Some(source) = passphrase
                && !source.file.is_absolute()
            {
                // It is read again by a run that goes on after a crash, from another directory.
                problem(
                    "storage.encryption.passphrase",
                    format!("wants the whole path of a file, not {}", source.file),
                );
            }
        }
        Encryption::None { token } if token != PLAINTEXT_TOKEN => problem(
            "storage.encryption.token",
            format!("an unencrypted site needs the token spelled out: {PLAINTEXT_TOKEN}"),
        ),
        Encryption::None { .. } => {}
    }
}

/// The parts of an SSH key blob (RFC 4251, 5: each a length of four bytes and as many bytes); `None` if it is cut off.
fn strings_of(mut blob: &[u8]) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    while !blob.is_empty() {
        let (length, rest) = blob.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
        parts.push(part);
        blob = rest;
    }
    Some(parts)
}

fn range_problems(config: &InstallConfig, problem: &mut impl FnMut(&'static str, String)) {
    let pods = config.cluster.pod_cidr.parse::<Cidr>();
    let services = config.cluster.service_cidr.parse::<Cidr>();
    if let (Ok(pods), Ok(services)) = (&pods, &services) {
        if pods.overlaps(services) {
            problem("cluster.pod-cidr", format!("{pods} and cluster.service-cidr {services} overlap"));
        }
        for (key, cidr) in [("cluster.pod-cidr", pods), ("cluster.service-cidr", services)] {
            for address in [Some(config.node.address), config.site.vip].into_iter().flatten() {
                if cidr.contains(address) {
                    problem(key, format!("{cidr} holds {address}, an address of this host"));
                }
            }
        }
    } else {
        if let Err(error) = pods {
            problem("cluster.pod-cidr", error.to_string());
        }
        if let Err(error) = services {
            problem("cluster.service-cidr", error.to_string());
        }
    }
}

/// RFC 1123 label.
fn label_problem(label: &str, longest: usize) -> Option<String> {
    if label.is_empty() || label.len() > longest {
        Some(format!("must have 1 to {longest} characters"))
    } else if label == "localhost" {
        Some("is every machine's name".to_owned())
    } else if label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
    {
        None
    } else {
        Some("must be lower-case letters, digits and inner dashes".to_owned())
    }
}

pub(super) fn unusable(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified() || address.is_multicast()
}
