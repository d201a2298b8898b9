//! `cofferdam certs …`: keys and certificates outside of an installation.

use std::net::IpAddr;

use camino::{Utf8Path, Utf8PathBuf};
use certs::{
    CertificateProfile, CertsError, EntryName, Fqdn, ImportRequest, KeyAlgorithm, Keystore, PrivateKey, ServerNames,
    Severity, SiteAuthority, SubjectAltName, Validity,
};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{Failure, Outcome, code, print, print_json};

#[derive(Debug, Subcommand)]
pub(super) enum Certs {
    /// Make a site CA and a server certificate for a name
    #[command(after_help = "Example: cofferdam certs generate --fqdn mgmt.example.com --output keys")]
    Generate {
        /// The name of the server
        #[arg(long)]
        fqdn: Fqdn,
        /// Further names and addresses
        #[arg(long)]
        san: Vec<SubjectAltName>,
        /// ecdsa-p256, ecdsa-p384, ed25519, rsa3072, rsa4096
        #[arg(long, default_value = "ecdsa-p256")]
        algorithm: KeyAlgorithm,
        /// A directory, made with mode 0700
        #[arg(short, long)]
        output: Utf8PathBuf,
    },
    /// Check a certificate, its chain and its key for a name and keep them in a directory
    Import {
        #[command(flatten)]
        files: Files,
        /// A directory, made with mode 0700
        #[arg(short, long)]
        output: Utf8PathBuf,
    },
    /// Check a certificate, its chain and its key for a name; all findings at once
    Verify {
        #[command(flatten)]
        files: Files,
        #[arg(long)]
        json: bool,
    },
    /// Show what is in a PEM file
    Inspect {
        /// Certificates, PEM
        file: Utf8PathBuf,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Files {
    /// Certificate and chain, PEM, in any order
    #[arg(long)]
    certificate: Utf8PathBuf,
    /// Private key, PEM
    #[arg(long)]
    key: Utf8PathBuf,
    /// Roots that clients trust, PEM
    #[arg(long)]
    roots: Option<Utf8PathBuf>,
    /// The name that it must cover
    #[arg(long)]
    fqdn: Fqdn,
    /// The virtual IP that it should cover
    #[arg(long)]
    vip: Option<IpAddr>,
}

impl Certs {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Generate { fqdn, san, algorithm, output } => generate(&fqdn, san, algorithm, &output),
            Self::Import { files, output } => {
                let report = files.judge()?;
                let imported = report.into_result().map_err(|findings| refused(&findings))?;
                let store = Keystore::open(output.as_std_path()).map_err(|error| failure(&error))?;
                keep(&store, "server.key", imported.key_pem().as_bytes())?;
                keep(&store, "server.crt", imported.chain_pem().as_bytes())?;
                keep(&store, "roots.crt", imported.roots_pem().as_bytes())?;
                print(&format!("{output}: server.key server.crt roots.crt\n"))
            }
            Self::Verify { files, json } => {
                let report = files.judge()?;
                if json {
                    print_json(&report.findings)?;
                } else {
                    let text = report.findings.iter().fold(String::new(), |text, finding| {
                        let mark = if finding.severity == Severity::Fail { "FAIL" } else { "warn" };
                        let hint =
                            finding.hint.as_ref().map(|hint| format!("      hint: {hint}\n")).unwrap_or_default();
                        format!("{text}{mark}  {}: {}\n{hint}", finding.id, finding.message)
                    });
                    print(&text)?;
                }
                match report.into_result() {
                    Ok(_) => print("the certificate can be used\n"),
                    Err(findings) => Err(refused(&findings)),
                }
            }
            Self::Inspect { file, json } => {
                let list = certs::inspect(file.as_str(), &read(&file)?).map_err(|error| failure(&error))?;
                if json {
                    return print_json(&list);
                }
                let text = list.iter().fold(String::new(), |text, certificate| {
                    format!(
                        "{text}subject   {}\nissuer    {}\nnames     {} {}\nvalid     {} to {}\nkey       {}{}\nSHA-256   {}\n\n",
                        certificate.subject,
                        certificate.issuer,
                        certificate.dns_names.join(" "),
                        certificate.ip_addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                        certificate.not_before,
                        certificate.not_after,
                        certificate.key,
                        if certificate.is_ca { ", an authority" } else { "" },
                        certificate.sha256,
                    )
                });
                print(&text)
            }
        }
    }
}

impl Files {
    fn judge(&self) -> Result<certs::ImportReport, Failure> {
        let roots = self.roots.as_deref().map(read).transpose()?;
        Ok(certs::import(&ImportRequest {
            certificate_pem: &read(&self.certificate)?,
            key_pem: &read(&self.key)?,
            roots_pem: roots.as_ref().map(|text| text.as_str()),
            fqdn: &self.fqdn,
            vip: self.vip,
            short_name: true,
            now: Timestamp::now(),
        }))
    }
}

fn generate(fqdn: &Fqdn, names: Vec<SubjectAltName>, algorithm: KeyAlgorithm, output: &Utf8Path) -> Outcome {
    let failed = |error: CertsError| failure(&error);
    let now = Timestamp::now();
    let authority =
        SiteAuthority::generate(&format!("{} site CA", fqdn.host_label()), algorithm, Validity::AUTHORITY, now)
            .map_err(failed)?;
    let key = PrivateKey::generate(algorithm).map_err(failed)?;
    let names = names.into_iter().fold(ServerNames::new(fqdn.clone()).with_short_name(), ServerNames::with);
    let server = authority.issue(&CertificateProfile::Server(names), &key, Validity::LEAF, now).map_err(failed)?;
    let store = Keystore::open(output.as_std_path()).map_err(failed)?;
    keep(&store, "site-ca.key", authority.key_pem().as_bytes())?;
    keep(&store, "site-ca.crt", authority.certificate_pem().as_bytes())?;
    keep(&store, "server.key", key.to_pem().as_bytes())?;
    keep(&store, "server.crt", server.to_pem().as_bytes())?;
    print(&format!("{output}: site-ca.key site-ca.crt server.key server.crt\n"))
}

fn keep(store: &Keystore, name: &str, content: &[u8]) -> Outcome {
    let name: EntryName = name.parse().map_err(|error: CertsError| failure(&error))?;
    store.write(&name, content).map_err(|error| failure(&error))
}

fn read(path: &Utf8Path) -> Result<zeroize::Zeroizing<String>, Failure> {
    std::fs::read_to_string(path)
        .map(zeroize::Zeroizing::new)
        .map_err(|error| Failure::new(code::CONFIG, format!("cannot read {path}: {error}"), None))
}

fn refused(findings: &[certs::Finding]) -> Failure {
    let failing: Vec<_> =
        findings.iter().filter(|finding| finding.severity == Severity::Fail).map(|finding| finding.id).collect();
    Failure::new(code::CONFIG, format!("the certificate cannot be used: {}", failing.join(", ")), None)
}

fn failure(error: &CertsError) -> Failure {
    Failure::new(code::CONFIG, error, error.hint())
}
