//! The registry's configuration. Invariant: a [`Config`] that [`Config::validate`] passed never serves without TLS on
//! an address that another machine can reach. Made from a file by `registry serve --config`, or from its flags.

use std::fs;
use std::net::SocketAddr;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The most bytes a configuration file may have.
const MAXIMUM_SIZE: u64 = 64 << 10;

/// What stands before the name of a systemd credential in a path of the configuration.
const CREDENTIALS: [&str; 2] = ["${CREDENTIALS_DIRECTORY}/", "$CREDENTIALS_DIRECTORY/"];

/// The configuration of the server (`registry.yaml`).
// Reasons: each of the switches is a key of the file.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The folder of the store; made when it is not there.
    pub store: Utf8PathBuf,
    /// Addresses to listen on, `IP:PORT`.
    pub listen: Vec<SocketAddr>,
    /// Certificate and key. Absent only with `plain-http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Users who may push and delete, one `NAME:HASH` a line, bcrypt or argon2id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub htpasswd: Option<Utf8PathBuf>,
    /// Whether everybody who reaches the port may pull.
    #[serde(default)]
    pub anonymous_pull: bool,
    /// Serve without TLS; refused on anything but a loopback address.
    #[serde(default)]
    pub plain_http: bool,
    /// Who may do what in which repository. Absent: users with a password may do everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Utf8PathBuf>,
    /// Give bearer tokens at `/token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokensConfig>,
    /// What a client may cost.
    #[serde(default)]
    pub limits: Limits,
    /// Hashing all blobs again in the background.
    #[serde(default)]
    pub scrub: ScrubConfig,
    /// Removing what nothing refers to.
    #[serde(default)]
    pub garbage: GarbageConfig,
    /// Other registries of the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeersConfig>,
    /// One line in the log for each request, and not only for writes and refusals.
    #[serde(default)]
    pub access_log: bool,
    /// Take manifests whose blobs are not all here (OCI distribution-spec, "Pushing Manifests", leaves that open).
    #[serde(default)]
    pub sparse_manifests: bool,
}

/// Bearer tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TokensConfig {
    /// How many seconds a token is good.
    pub lifetime_seconds: u64,
}

impl Default for TokensConfig {
    fn default() -> Self {
        Self { lifetime_seconds: 300 }
    }
}

/// What a client may cost. Fixed beside these: headers of 32 KiB and 64 in number, manifests of 4 MiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Connections at once from one address; more are closed.
    pub connections_per_address: usize,
    /// Uploads at once.
    pub uploads: usize,
    /// Seconds within which a body must go on by [`MINIMUM_PROGRESS`] bytes, in either direction.
    pub idle_seconds: u64,
    /// Seconds that the head of a request may take, and a TLS handshake.
    pub head_seconds: u64,
    /// MiB of the store's filesystem that stay free: a push is refused with 507 before.
    pub free_space_mib: u64,
    /// GiB that one blob may have.
    pub blob_gib: u64,
}

/// How many bytes of a body must arrive, or be taken, within `idle-seconds`. A layer that crawls at 100 bytes a second
/// goes on; a client that sends one byte now and then is cut off.
pub const MINIMUM_PROGRESS: u64 = 4096;

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_address: 256,
            uploads: 1024,
            idle_seconds: 60,
            head_seconds: 20,
            free_space_mib: 256,
            blob_gib: 1024,
        }
    }
}

/// Hashing all blobs again, to find damage before a node does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ScrubConfig {
    /// MiB a second that are read; 0 switches it off.
    pub mib_per_second: u64,
    /// Hours from the end of one pass to the beginning of the next.
    pub pause_hours: u64,
    /// Bundles that damaged blobs are taken from; those that are not there are passed over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repair_from: Vec<Utf8PathBuf>,
    /// Public keys that those bundles must be signed with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trust: Vec<Utf8PathBuf>,
}

impl Default for ScrubConfig {
    fn default() -> Self {
        Self { mib_per_second: 16, pause_hours: 7 * 24, repair_from: Vec::new(), trust: Vec::new() }
    }
}

/// Garbage collection by the server itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GarbageConfig {
    /// Hours between two collections; 0 switches them off.
    pub every_hours: u64,
    /// Hours that something stays which nothing refers to: a push may be about to.
    pub grace_hours: u64,
    /// How many versions of each bundle are kept; absent: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_bundles: Option<usize>,
}

impl Default for GarbageConfig {
    fn default() -> Self {
        Self { every_hours: 24, grace_hours: 24, keep_bundles: None }
    }
}

/// Other registries of the site, each of them on a node of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PeersConfig {
    /// Those that are asked, one after the other, for what is missing here; `https://HOST:PORT`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// The one whose whole content is taken over, again and again; `https://HOST:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<String>,
    /// Minutes between two looks at the one that is followed.
    pub every_minutes: u64,
    /// The CA of their certificates, PEM. Absent: only peers by plain HTTP on a loopback address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<Utf8PathBuf>,
    /// The certificate of this node with its chain, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Utf8PathBuf>,
    /// Its private key, PEM; or a systemd credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Utf8PathBuf>,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self { servers: Vec::new(), follow: None, every_minutes: 5, ca: None, certificate: None, key: None }
    }
}

/// Where certificate and key are. A path that begins with `$CREDENTIALS_DIRECTORY/` names a credential that systemd
/// hands over (systemd.exec(5), `LoadCredential=`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate with its chain, PEM, leaf first.
    pub certificate: Utf8PathBuf,
    /// Its private key, PEM (PKCS#8, SEC 1 or PKCS#1), not encrypted.
    pub key: Utf8PathBuf,
    /// The CA, PEM, that client certificates are verified with. Absent: none are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<Utf8PathBuf>,
}

impl Config {
    /// A configuration with all that is not said left as it is by default; [`Config::validate`] refuses it without TLS
    /// or plain HTTP.
    pub fn new(store: Utf8PathBuf, listen: Vec<SocketAddr>) -> Self {
        Self {
            store,
            listen,
            tls: None,
            htpasswd: None,
            anonymous_pull: false,
            plain_http: false,
            policy: None,
            tokens: None,
            limits: Limits::default(),
            scrub: ScrubConfig::default(),
            garbage: GarbageConfig::default(),
            peers: None,
            access_log: false,
            sparse_manifests: false,
        }
    }

    /// Reads and validates a configuration file.
    pub fn read(path: &Utf8Path) -> Result<Self> {
        let size = fs::metadata(path).map_err(Error::io("read", path))?.len();
        if size > MAXIMUM_SIZE {
            let why = format!("it has {size} bytes, more than {MAXIMUM_SIZE}");
            return Err(Error::ConfigSyntax { path: path.to_owned(), why });
        }
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let config = Self::parse(&text).map_err(|why| Error::ConfigSyntax { path: path.to_owned(), why })?;
        config.validate()?;
        Ok(config)
    }

    /// Takes YAML apart; the error is the parser's.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    /// As YAML.
    pub fn to_yaml(&self) -> Result<String> {
        serde_yaml::to_string(self).map_err(|_| Error::Unexpected("cannot write the registry configuration as YAML"))
    }

    /// Refuses what contradicts itself or is unsafe.
    pub fn validate(&self) -> Result<()> {
        let refuse = |why: String, hint| Err(Error::ConfigRule { why, hint });
        if self.listen.is_empty() {
            return refuse("there is no address to listen on".to_owned(), "name at least one IP:PORT under `listen`");
        }
        self.validate_numbers()?;
        match (&self.tls, self.plain_http) {
            (None, false) => refuse(
                "there is neither a certificate nor plain HTTP".to_owned(),
                "give tls.certificate and tls.key; plain-http is for tests on the loopback address",
            ),
            (Some(_), true) => {
                refuse("TLS and plain HTTP are both asked for".to_owned(), "remove plain-http, or the tls section")
            }
            (None, true) => match self.listen.iter().find(|address| !address.ip().is_loopback()) {
                Some(address) => refuse(
                    format!("plain HTTP on {address} could be read and changed by everybody on the way"),
                    "use TLS, or listen on 127.0.0.1 or [::1] only",
                ),
                None => Ok(()),
            },
            (Some(_), false) => Ok(()),
        }
    }

    fn validate_numbers(&self) -> Result<()> {
        let Limits {
            connections,
            connections_per_address,
            uploads,
            idle_seconds,
            head_seconds,
            free_space_mib: _,
            blob_gib,
        } = self.limits;
        let numbers = [
            ("limits.connections", connections as u64, 1, 1 << 20),
            ("limits.connections-per-address", connections_per_address as u64, 1, 1 << 20),
            ("limits.uploads", uploads as u64, 1, 1 << 20),
            ("limits.idle-seconds", idle_seconds, 1, 86_400),
            ("limits.head-seconds", head_seconds, 1, 3600),
            ("limits.blob-gib", blob_gib, 1, 1 << 20),
            ("scrub.pause-hours", self.scrub.pause_hours, 0, 1 << 20),
            ("garbage.every-hours", self.garbage.every_hours, 0, 1 << 20),
            ("garbage.grace-hours", self.garbage.grace_hours, 1, 1 << 20),
            ("garbage.keep-bundles", self.garbage.keep_bundles.unwrap_or(1) as u64, 1, 1 << 20),
            ("peers.every-minutes", self.peers.as_ref().map_or(1, |peers| peers.every_minutes), 1, 1 << 20),
            ("tokens.lifetime-seconds", self.tokens.as_ref().map_or(60, |tokens| tokens.lifetime_seconds), 60, 86_400),
        ];
        match numbers.iter().find(|(_, value, least, most)| value < least || value > most) {
            None => Ok(()),
            Some((key, value, least, most)) => Err(Error::ConfigRule {
                why: format!("{key} is {value}; it may be from {least} to {most}"),
                hint: "leave the key out: the default fits most sites",
            }),
        }
    }

    /// The addresses, for people.
    pub fn addresses(&self) -> String {
        self.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// The path of a file, with a systemd credential looked up.
pub(crate) fn resolve(path: &Utf8Path) -> Result<Utf8PathBuf> {
    resolve_in(path, std::env::var("CREDENTIALS_DIRECTORY").ok().as_deref())
}

fn resolve_in(path: &Utf8Path, credentials: Option<&str>) -> Result<Utf8PathBuf> {
    let Some(name) = CREDENTIALS.iter().find_map(|prefix| path.as_str().strip_prefix(prefix)) else {
        return Ok(path.to_owned());
    };
    match credentials {
        Some(folder) => Ok(Utf8Path::new(folder).join(name)),
        None => Err(Error::ConfigRule {
            why: format!("{path} names a credential, and systemd handed over none"),
            hint: "start the registry through its unit, or name a file",
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const GOOD: &str =
        "store: /s\nlisten: ['127.0.0.1:5000', '10.0.0.5:5000']\ntls: {certificate: /c, key: /k, client-ca: /a}\n";

    #[test]
    fn a_file_is_read_and_written_again() {
        let config = Config::parse(GOOD).unwrap();
        config.validate().unwrap();
        assert!(!config.anonymous_pull && !config.plain_http);
        assert_eq!(Config::parse(&config.to_yaml().unwrap()).unwrap(), config);
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused_by_name() {
        for (yaml, part) in [
            (format!("{GOOD}anonymous_pull: true\n"), "anonymous_pull"),
            (GOOD.replace("key", "kee"), "kee"),
            (GOOD.replace("store", "stores"), "stores"),
            (GOOD.replace("127.0.0.1:5000", "localhost:5000"), "socket address"),
            ("listen: []\n".to_owned(), "store"),
            (String::new(), ""),
        ] {
            let error = Config::parse(&yaml).unwrap_err();
            assert!(error.contains(part), "{yaml}: {error}");
        }
    }

    #[test]
    fn unsafe_combinations_are_refused_with_a_hint() {
        let plain = "store: /s\nplain-http: true\n";
        for (yaml, part) in [
            (format!("{plain}listen: ['0.0.0.0:5000']\n"), "0.0.0.0:5000"),
            (format!("{plain}listen: ['127.0.0.1:5000', '10.0.0.5:5000']\n"), "10.0.0.5:5000"),
            (format!("{plain}listen: []\n"), "no address"),
            ("store: /s\nlisten: ['127.0.0.1:5000']\n".to_owned(), "neither"),
            (format!("{GOOD}plain-http: true\n"), "both"),
            (format!("{GOOD}limits: {{connections: 0}}\n"), "limits.connections is 0"),
            (format!("{GOOD}garbage: {{keep-bundles: 0}}\n"), "keep-bundles"),
            (format!("{GOOD}garbage: {{grace-hours: 0}}\n"), "grace-hours"),
            (format!("{GOOD}peers: {{every-minutes: 0}}\n"), "peers.every-minutes"),
            (format!("{GOOD}tokens: {{lifetime-seconds: 5}}\n"), "lifetime-seconds"),
        ] {
            let error = Config::parse(&yaml).unwrap().validate().unwrap_err();
            assert!(error.to_string().contains(part), "{yaml}: {error}");
            assert!(error.hint().is_some(), "{yaml}");
        }
        for address in ["127.0.0.1:0", "127.1.2.3:80", "[::1]:5000"] {
            Config::parse(&format!("{plain}listen: ['{address}']\n")).unwrap().validate().unwrap();
        }
    }

    #[test]
    fn credentials_are_found_where_systemd_puts_them() {
        let found = |path: &str, folder| resolve_in(Utf8Path::new(path), folder).map(Utf8PathBuf::into_string).ok();
        assert_eq!(found("/etc/k", None).as_deref(), Some("/etc/k"));
        assert_eq!(found("$CREDENTIALS_DIRECTORY/k", Some("/run/c")).as_deref(), Some("/run/c/k"));
        assert_eq!(found("${CREDENTIALS_DIRECTORY}/k", Some("/run/c")).as_deref(), Some("/run/c/k"));
        assert_eq!(found("$CREDENTIALS_DIRECTORY/k", None), None);
    }
}
