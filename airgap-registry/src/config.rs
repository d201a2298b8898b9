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
    /// Users who may push and delete, one `NAME:BCRYPT` a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub htpasswd: Option<Utf8PathBuf>,
    /// Whether everybody who reaches the port may pull.
    #[serde(default)]
    pub anonymous_pull: bool,
    /// Serve without TLS; refused on anything but a loopback address.
    #[serde(default)]
    pub plain_http: bool,
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
