//! A work bench: a folder of its own and OpenSSL, which makes and judges certificates in it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

pub(crate) const FQDN: &str = "mgmt.example.org";

/// The moment at which OpenSSL's certificates are made; it has no other clock than the machine's.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

pub(crate) fn in_days(days: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * days)
}

pub(crate) struct Bench {
    folder: TempDir,
}

/// How OpenSSL makes a certificate. The files are NAME.pem and NAME.key.
#[derive(Clone, Copy)]
pub(crate) struct Recipe<'a> {
    pub(crate) name: &'a str,
    pub(crate) subject: &'a str,
    /// `None`: signs itself.
    pub(crate) issuer: Option<&'a str>,
    /// Arguments of `openssl req -newkey`; `None`: NAME.key is there already.
    pub(crate) key: Option<&'a str>,
    pub(crate) digest: &'a str,
    pub(crate) days: &'a str,
    /// Lines of an OpenSSL extension section.
    pub(crate) extensions: &'a str,
}

pub(crate) const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
                                    subjectKeyIdentifier=hash\n";
pub(crate) const SERVER: &str = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                                 extendedKeyUsage=serverAuth\nsubjectAltName=DNS:mgmt.example.org,DNS:mgmt,IP:10.0.0.10\n";
pub(crate) const P256: &str = "ec -pkeyopt ec_paramgen_curve:P-256";

impl Default for Recipe<'_> {
    fn default() -> Self {
        Self {
            name: "leaf",
            subject: "/CN=mgmt.example.org",
            issuer: Some("root"),
            key: Some(P256),
            digest: "-sha256",
            days: "365",
            extensions: SERVER,
        }
    }
}

impl Recipe<'_> {
    pub(crate) fn root() -> Self {
        Self {
            name: "root",
            subject: "/O=Example/CN=Example Root",
            issuer: None,
            days: "3650",
            extensions: AUTHORITY,
            ..Self::default()
        }
    }

    pub(crate) fn intermediate() -> Self {
        Self {
            name: "middle",
            subject: "/O=Example/CN=Example Issuing CA",
            days: "1800",
            extensions: AUTHORITY,
            ..Self::default()
        }
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs OpenSSL in the folder; standard output and error in one text, and whether it ended well.
    pub(crate) fn try_openssl(&self, arguments: &str) -> (bool, String) {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        run("openssl", self.folder.path(), &words, b"")
    }

    pub(crate) fn openssl(&self, arguments: &str) -> String {
        let (well, text) = self.try_openssl(arguments);
        assert!(well, "openssl {arguments}\n{text}");
        text
    }

    /// Makes a certificate; returns its PEM.
    pub(crate) fn make(&self, recipe: Recipe<'_>) -> String {
        let name = recipe.name;
        self.write(&format!("{name}.ext"), recipe.extensions);
        let key = match recipe.key {
            Some(key) => format!("-newkey {key} -nodes -keyout {name}.key"),
            None => format!("-key {name}.key"),
        };
        // The subject may hold blanks, so it does not go through the splitting above.
        let mut request: Vec<&str> = vec!["req", "-new", "-utf8", "-subj", recipe.subject];
        let rest = format!("{key} -out {name}.csr");
        request.extend(rest.split_whitespace());
        let (well, text) = run("openssl", self.folder.path(), &request, b"");
        assert!(well, "openssl {request:?}\n{text}");
        let signer = match recipe.issuer {
            Some(issuer) => format!("-CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial"),
            None => format!("-signkey {name}.key"),
        };
        let (days, digest) = (recipe.days, recipe.digest);
        self.openssl(&format!(
            "x509 -req -in {name}.csr {signer} -days {days} {digest} -extfile {name}.ext -out {name}.pem"
        ));
        self.read(&format!("{name}.pem"))
    }
}

/// Runs a peer program; standard output and error in one text, and whether it ended well.
pub(crate) fn run(program: &str, folder: &Path, arguments: &[&str], input: &[u8]) -> (bool, String) {
    let output = output(program, folder, arguments, input);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

pub(crate) fn output(program: &str, folder: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is needed for this test (apt-get install {program}): {error}"));
    // A peer that ends early closes its end; what it says then is what the test looks at.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}
