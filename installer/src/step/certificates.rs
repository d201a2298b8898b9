//! `certificates.issue`: the site CA, the registry's and the node's certificates, and the server certificate for the
//! FQDN, on the data volume. Done when the marker is there, which is written last; until then everything is made anew,
//! since nothing uses it yet.

use camino::{Utf8Path, Utf8PathBuf};
use certs::{CertificateProfile, Fqdn, KeyAlgorithm, PrivateKey, ServerNames, SiteAuthority, Validity};

use super::{Context, StepError};
use crate::config::InstallConfig;
use crate::host::{Host, HostExt};
use crate::layout;
use crate::plan::ServerCertificate;

const MARKER: &str = "issued";

/// A file of the keystore.
pub(super) fn entry(name: &str) -> Utf8PathBuf {
    Utf8Path::new(layout::KEYSTORE).join(name)
}

pub(super) fn done(context: &Context) -> Result<bool, StepError> {
    Ok(context.host.look(&entry(MARKER))?.is_some())
}

pub(super) fn run(
    context: &Context,
    algorithm: &str,
    server: &ServerCertificate,
    names: &[String],
) -> Result<(), StepError> {
    let algorithm: KeyAlgorithm = algorithm.parse().map_err(|error| failed("key algorithm", &error))?;
    let now = context.host.now();
    let site = &context.config.site;
    let title = format!("{} site CA", site.name);
    let authority = SiteAuthority::generate(&title, algorithm, Validity::AUTHORITY, now)
        .map_err(|error| failed("site CA", &error))?;
    keep(context.host, "site-ca.key", authority.key_pem().as_bytes())?;
    keep(context.host, "site-ca.crt", authority.certificate_pem().as_bytes())?;

    let fqdn: Fqdn = site.fqdn.parse().map_err(|error| failed("FQDN", &error))?;
    let mut all = ServerNames::new(fqdn);
    for name in names {
        all = all.with(name.parse().map_err(|error| failed("alternative name", &error))?);
    }
    let issue = |name: &str, profile: CertificateProfile| -> Result<(), StepError> {
        let made = |error: certs::CertsError| failed("certificate", &error);
        let key = PrivateKey::generate(algorithm).map_err(made)?;
        let certificate = authority.issue(&profile, &key, Validity::LEAF, now).map_err(made)?;
        keep(context.host, &format!("{name}.key"), key.to_pem().as_bytes())?;
        keep(context.host, &format!("{name}.crt"), certificate.to_pem().as_bytes())
    };
    match server {
        ServerCertificate::Issued => {
            issue("server", CertificateProfile::Server(all.clone()))?;
            keep(context.host, "server-roots.crt", authority.certificate_pem().as_bytes())?;
        }
        ServerCertificate::Imported { certificate, key, roots } => {
            let imported = import(context, certificate, key, roots)?;
            keep(context.host, "server.key", imported.key_pem().as_bytes())?;
            keep(context.host, "server.crt", imported.chain_pem().as_bytes())?;
            keep(context.host, "server-roots.crt", imported.roots_pem().as_bytes())?;
        }
    }
    issue("registry", CertificateProfile::Registry(all))?;
    let node = context.config.node.name.parse().map_err(|error| failed("node name", &error))?;
    issue("node", CertificateProfile::Node(node))?;

    for name in ["site-ca.crt", "registry.crt", "server-roots.crt"] {
        let content = read(context, &entry(name))?;
        context.host.ensure(&Utf8Path::new(layout::TLS).join(name), &content, 0o644)?;
    }
    context.host.write(&entry(MARKER), b"", 0o600)?;
    Ok(())
}

/// `certificates.bring`: done when all three files are on the volume, or the medium has left.
pub(super) fn brought(context: &Context) -> Result<bool, StepError> {
    let mut is_there = true;
    for path in layout::BROUGHT {
        is_there &= context.host.look(path.into())?.is_some();
    }
    Ok(is_there || !context.is_live()?)
}

pub(super) fn bring(context: &Context, from: &[Utf8PathBuf; 3]) -> Result<(), StepError> {
    let [certificate, key, roots] = from;
    import(context, certificate, key, roots)?;
    for (from, to) in from.iter().zip(layout::BROUGHT) {
        context.host.write(to.into(), &read(context, from)?, 0o600)?;
    }
    Ok(())
}

/// Checks the operator's certificate again: the file may have changed since the host checks.
fn import(
    context: &Context,
    certificate: &Utf8Path,
    key: &Utf8Path,
    roots: &Utf8Path,
) -> Result<certs::ImportedCertificate, StepError> {
    import_files(context.host, context.config, certificate, key, roots).map_err(|reason| StepError::State {
        what: format!("the certificate {certificate} was refused: {reason}"),
        hint: "`cofferdam certs verify --fqdn NAME` shows all findings".to_owned(),
    })
}

/// Reads and verifies an operator's certificate for the FQDN; the error lists all that fails.
pub(crate) fn import_files(
    host: &dyn Host,
    config: &InstallConfig,
    certificate: &Utf8Path,
    key: &Utf8Path,
    roots: &Utf8Path,
) -> Result<certs::ImportedCertificate, String> {
    judge_files(host, config, certificate, key, roots)?.into_result().map_err(|findings| {
        findings.iter().map(|finding| format!("{}: {}", finding.id, finding.message)).collect::<Vec<_>>().join("; ")
    })
}

/// Reads an operator's certificate and judges it for the site's names; the error is a file that cannot be read.
pub(crate) fn judge_files(
    host: &dyn Host,
    config: &InstallConfig,
    certificate: &Utf8Path,
    key: &Utf8Path,
    roots: &Utf8Path,
) -> Result<certs::ImportReport, String> {
    let text = |path: &Utf8Path| -> Result<zeroize::Zeroizing<String>, String> {
        host.read_text(path).map_err(|error| error.to_string())?.ok_or_else(|| format!("there is no file {path}"))
    };
    let fqdn: Fqdn = config.site.fqdn.parse().map_err(|error: certs::CertsError| error.to_string())?;
    let (certificate, key, roots) = (text(certificate)?, text(key)?, text(roots)?);
    Ok(certs::import(&certs::ImportRequest {
        certificate_pem: &certificate,
        key_pem: &key,
        roots_pem: Some(&roots),
        fqdn: &fqdn,
        vip: config.site.vip,
        short_name: true,
        now: host.now(),
    }))
}

fn keep(host: &dyn Host, name: &str, content: &[u8]) -> Result<(), StepError> {
    Ok(host.write(&entry(name), content, 0o600)?)
}

fn read(context: &Context, path: &Utf8Path) -> Result<zeroize::Zeroizing<Vec<u8>>, StepError> {
    context.host.read(path)?.ok_or_else(|| StepError::State {
        what: format!("there is no file {path}"),
        hint: "was a medium taken away?".to_owned(),
    })
}

fn failed(what: &'static str, error: &dyn std::fmt::Display) -> StepError {
    StepError::Certificates { what, reason: error.to_string() }
}
