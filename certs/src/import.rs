//! Takes in a certificate that somebody else issued, and says everything about it that matters, at once.
//!
//! Invariant: an [`ImportedCertificate`] exists only when nothing failed, and then rustls-webpki, which judges
//! handshakes, has accepted it for the FQDN at the given time. Called by the installer's checks before a disk is
//! touched, and by `cofferdam certs import`.

use std::net::IpAddr;

use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::{
    Certificate, CertsError, Finding, Fqdn, KeyKind, PrivateKey, Severity, SubjectAltName,
    chain::{self, Chain, End},
    key, parse_certificates, pem, verify,
};

/// With fewer days left a certificate is warned about.
const DAYS_LEFT_WARN: i64 = 90;
const RSA_BITS_FAIL: usize = 2048;
const RSA_BITS_WARN: usize = 3072;

/// What was brought in, and what it has to be good for.
#[derive(Clone, Copy)]
pub struct ImportRequest<'a> {
    /// PEM: the server's certificate and its chain, in any order.
    pub certificate_pem: &'a str,
    /// PEM: its private key, not encrypted.
    pub key_pem: &'a str,
    /// PEM: the roots that clients shall trust. Without it the chain must hold its root.
    pub roots_pem: Option<&'a str>,
    /// The name that it must cover.
    pub fqdn: &'a Fqdn,
    /// The virtual IP that it should cover.
    pub vip: Option<IpAddr>,
    /// Whether it should cover the first label of the FQDN too.
    pub short_name: bool,
    /// The time for which it is judged.
    pub now: Timestamp,
}

impl std::fmt::Debug for ImportRequest<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ImportRequest").field("fqdn", self.fqdn).finish_non_exhaustive()
    }
}

/// All findings, and the certificate when none of them failed.
#[derive(Debug)]
pub struct ImportReport {
    /// What is wrong or worth knowing; failures first.
    pub findings: Vec<Finding>,
    /// What can be used, if nothing failed.
    pub certificate: Option<ImportedCertificate>,
}

impl ImportReport {
    /// The certificate, or the findings that stand against it.
    pub fn into_result(self) -> Result<ImportedCertificate, Vec<Finding>> {
        self.certificate.ok_or(self.findings)
    }
}

/// A certificate that can be used as it stands, in repaired order.
#[derive(Debug)]
pub struct ImportedCertificate {
    leaf: Certificate,
    intermediates: Vec<Certificate>,
    roots: Vec<Certificate>,
    key: PrivateKey,
}

impl ImportedCertificate {
    /// The server's own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.leaf
    }

    /// What a server sends: its certificate, then each one's issuer, without the root.
    pub fn chain_pem(&self) -> String {
        std::iter::once(&self.leaf).chain(&self.intermediates).map(Certificate::to_pem).collect()
    }

    /// What clients trust.
    pub fn roots_pem(&self) -> String {
        self.roots.iter().map(Certificate::to_pem).collect()
    }

    /// What clients trust, parsed.
    pub fn roots(&self) -> &[Certificate] {
        &self.roots
    }

    /// The key as PKCS#8 PEM, whatever form it came in.
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.key.to_pem()
    }
}

/// Judges a certificate that somebody brought.
///
/// | id | fails | warns |
/// |---|---|---|
/// | `cert.parse` | no certificate in the text, or one that does not parse | |
/// | `cert.key` | the key does not parse, is encrypted or is of a kind that is not supported | |
/// | `cert.key-match` | the key belongs to none of the certificates, or to an authority | |
/// | `cert.chain` | an issuer is missing, did not sign, or is no authority; or webpki says no | |
/// | `cert.chain-extra` | | certificates that are not part of the chain |
/// | `cert.root` | no root known, or the chain ends at another one | the certificate is its own root |
/// | `cert.san` | the FQDN is not covered | |
/// | `cert.vip`, `cert.short-name` | | not covered |
/// | `cert.eku`, `cert.key-usage` | not for TLS servers; may not sign handshakes | |
/// | `cert.authority` | the server's certificate is one of an authority (`CA:TRUE`) | |
/// | `cert.expired`, `cert.not-yet-valid` | any certificate of the chain | |
/// | `cert.days-left` | | less than 90 days, or an issuer ends before the server's certificate |
/// | `cert.weak-key` | RSA below 2048 bits; kinds that TLS does not support | RSA below 3072 bits |
/// | `cert.weak-signature` | SHA-1 or MD5 below the root | |
pub fn import(request: &ImportRequest<'_>) -> ImportReport {
    let mut findings = Vec::new();
    let certificate = examine(request, &mut findings);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    ImportReport { findings, certificate }
}

fn examine(request: &ImportRequest<'_>, findings: &mut Vec<Finding>) -> Option<ImportedCertificate> {
    let pool = parsed("certificate file", request.certificate_pem, findings);
    let key = read_key(request.key_pem, findings);
    let roots = request.roots_pem.map(|text| parsed("file with the roots", text, findings));
    if pool.is_empty() || roots.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }

    let leaf = find_leaf(&pool, &key, findings)?;
    check_names(leaf, request, findings);
    check_uses(leaf, findings);
    let chain = chain::build(leaf, &pool, roots.as_deref());
    check_chain(&chain, roots.is_some(), findings);
    for (position, certificate) in chain.certificates.iter().enumerate() {
        let is_root = chain.end == End::Root && position + 1 == chain.certificates.len();
        check_times(certificate, request.now, findings);
        check_strength(certificate, is_root && certificate.is_self_issued(), findings);
    }
    check_days_left(&chain, request.now, findings);
    let strays: Vec<&str> = pool
        .iter()
        .filter(|certificate| !chain.certificates.contains(certificate) && !certificate.is_self_issued())
        .map(Certificate::subject)
        .collect();
    if !strays.is_empty() {
        findings.push(Finding::warn(
            "cert.chain-extra",
            format!("not part of the chain: {}", strays.join("; ")),
            "they are left out; if one of them was meant to be used, the wrong file was given",
        ));
    }
    if findings.iter().any(|finding| finding.severity == Severity::Fail) {
        return None;
    }

    let Key::Usable(key) = key else { return None };
    accept(&chain, roots.as_deref(), key, request, findings)
}

/// The last word is webpki's, so that nothing is accepted here that fails in a handshake.
fn accept(
    chain: &Chain<'_>,
    roots: Option<&[Certificate]>,
    key: PrivateKey,
    request: &ImportRequest<'_>,
    findings: &mut Vec<Finding>,
) -> Option<ImportedCertificate> {
    let (leaf, issuers) = chain.certificates.split_first()?;
    // The root is trusted and not sent; a certificate that is its own root is sent all the same.
    let (root, intermediates) = issuers.split_last().unwrap_or((leaf, &[]));
    let sent: Vec<&Certificate> = std::iter::once(*leaf).chain(intermediates.iter().copied()).collect();
    let trusted: Vec<&Certificate> = roots.map_or_else(|| vec![*root], |roots| roots.iter().collect());
    if let Err(error) = verify::verify(&sent, &trusted, &SubjectAltName::from(request.fqdn), request.now) {
        let hint = error.hint().unwrap_or_default();
        findings.push(Finding::fail("cert.chain", error.to_string(), hint));
        return None;
    }
    Some(ImportedCertificate {
        leaf: (*leaf).clone(),
        intermediates: intermediates.iter().copied().cloned().collect(),
        roots: trusted.into_iter().cloned().collect(),
        key,
    })
}

/// A key as far as it could be read.
enum Key {
    Usable(PrivateKey),
    /// An RSA key too short to be used, by its modulus: enough to tell whether it belongs to the certificate.
    ShortRsa(Vec<u8>),
    Unreadable,
}

impl Key {
    /// `None` when nobody can tell.
    fn matches(&self, certificate: &Certificate) -> Option<bool> {
        match self {
            Self::Usable(key) => Some(key.matches(certificate)),
            Self::ShortRsa(modulus) => {
                let other = key::rsa_public_modulus(certificate.public_key());
                Some(matches!(certificate.key_kind(), KeyKind::Rsa(_)) && other.as_ref() == Some(modulus))
            }
            Self::Unreadable => None,
        }
    }
}

fn parsed(what: &str, text: &str, findings: &mut Vec<Finding>) -> Vec<Certificate> {
    match parse_certificates(what, text) {
        Ok(all) => {
            let mut unique: Vec<Certificate> = Vec::with_capacity(all.len());
            for certificate in all {
                if !unique.contains(&certificate) {
                    unique.push(certificate);
                }
            }
            unique
        }
        Err(error) => {
            findings.push(Finding::fail("cert.parse", error.to_string(), error.hint().unwrap_or_default()));
            Vec::new()
        }
    }
}

fn read_key(text: &str, findings: &mut Vec<Finding>) -> Key {
    match PrivateKey::from_pem(text) {
        Ok(key) => Key::Usable(key),
        // Said once, about the certificate, if they belong together.
        Err(error @ CertsError::ShortKey { .. }) => {
            findings.push(Finding::fail("cert.weak-key", error.to_string(), error.hint().unwrap_or_default()));
            pem::parse_private_key(text)
                .ok()
                .and_then(|der| key::rsa_modulus(&der))
                .map_or(Key::Unreadable, Key::ShortRsa)
        }
        Err(error) => {
            findings.push(Finding::fail("cert.key", error.to_string(), error.hint().unwrap_or_default()));
            Key::Unreadable
        }
    }
}

/// The certificate that the key belongs to; failing that the first that is no authority, so that the rest can be said.
fn find_leaf<'a>(pool: &'a [Certificate], key: &Key, findings: &mut Vec<Finding>) -> Option<&'a Certificate> {
    if let Some(leaf) = pool.iter().find(|certificate| key.matches(certificate) == Some(true)) {
        return Some(leaf);
    }
    let leaf = pool.iter().find(|certificate| !certificate.summary().is_ca).or_else(|| pool.first())?;
    if key.matches(leaf) == Some(false) {
        let error = CertsError::KeyMismatch { subject: leaf.subject().to_owned() };
        findings.push(Finding::fail("cert.key-match", error.to_string(), error.hint().unwrap_or_default()));
    }
    Some(leaf)
}

fn check_names(leaf: &Certificate, request: &ImportRequest<'_>, findings: &mut Vec<Finding>) {
    const HINT: &str = "ask for a certificate with all names as subject alternative names";
    let summary = leaf.summary();
    let present = || {
        let addresses = summary.ip_addresses.iter().map(ToString::to_string);
        let names: Vec<String> = summary.dns_names.iter().cloned().chain(addresses).collect();
        if names.is_empty() { "no subject alternative name".to_owned() } else { names.join(", ") }
    };
    if !leaf.covers_dns(request.fqdn.as_str()) {
        findings.push(Finding::fail(
            "cert.san",
            format!("the certificate is not for {}; it names {}", request.fqdn, present()),
            format!("{HINT}; clients do not look at the common name ({})", leaf.subject()),
        ));
    }
    if let Some(vip) = request.vip
        && !leaf.covers_ip(vip)
    {
        findings.push(Finding::warn(
            "cert.vip",
            format!("the virtual IP {vip} is not in the certificate; it names {}", present()),
            format!("{HINT}; without it only access by name verifies"),
        ));
    }
    if request.short_name && !leaf.covers_dns(request.fqdn.host_label()) {
        findings.push(Finding::warn(
            "cert.short-name",
            format!("the short name {} is not in the certificate; it names {}", request.fqdn.host_label(), present()),
            format!("{HINT}; without it only access by the full name verifies"),
        ));
    }
}

fn check_uses(leaf: &Certificate, findings: &mut Vec<Finding>) {
    const HINT: &str = "ask for a TLS server certificate (key usage digitalSignature, extended key usage serverAuth)";
    let summary = leaf.summary();
    if summary.is_ca {
        findings.push(Finding::fail(
            "cert.authority",
            format!("{} is the certificate of an authority (CA:TRUE), not of a server", leaf.subject()),
            "`openssl req -x509` makes such certificates; add `-addext basicConstraints=critical,CA:FALSE`, or let \
             Cofferdam generate its own authority",
        ));
    }
    let usages = &summary.extended_key_usages;
    if !usages.is_empty() && !usages.iter().any(|usage| usage == "serverAuth") {
        let message = format!("its extended key usage is {}; serverAuth is missing", usages.join(", "));
        findings.push(Finding::fail("cert.eku", message, HINT));
    }
    if !summary.is_ca && !leaf.may_sign_handshakes() {
        let message = "its key usage lacks digitalSignature, without which there is no TLS 1.3";
        findings.push(Finding::fail("cert.key-usage", message, HINT));
    }
}

fn check_chain(chain: &Chain<'_>, roots_given: bool, findings: &mut Vec<Finding>) {
    for issuer in chain.certificates.iter().skip(1) {
        if !issuer.may_sign_certificates() {
            findings.push(Finding::fail(
                "cert.chain",
                format!("{} signed in this chain, but may not sign certificates", issuer.subject()),
                "its basic constraints need CA:TRUE and its key usage keyCertSign; ask the authority for the right chain",
            ));
        }
    }
    let Some(last) = chain.certificates.last() else { return };
    let issuer = &last.summary().issuer;
    match chain.end {
        End::Root if chain.certificates.len() == 1 => findings.push(Finding::warn(
            "cert.root",
            format!("{} is self-signed: each client has to trust this one certificate", last.subject()),
            "a renewed one will have to be trusted anew; with an authority only the authority is trusted",
        )),
        End::Root => {}
        End::ForeignRoot => findings.push(Finding::fail(
            "cert.root",
            format!(
                "the chain ends at {} ({}), which is not among the given roots",
                last.subject(),
                last.fingerprint()
            ),
            "if this root is to be trusted, add it to the file with the roots",
        )),
        End::NoIssuer if roots_given => findings.push(Finding::fail(
            "cert.chain",
            format!(
                "the chain breaks after {}: neither the certificate file nor the roots hold {issuer}",
                last.subject()
            ),
            "add the certificate of that authority to the certificate file",
        )),
        End::NoIssuer => findings.push(Finding::fail(
            "cert.root",
            format!("the chain stops at {}, and the certificate of {issuer} is not in the file", last.subject()),
            "a site without internet has to know its root: add it to the certificate file, or give it as roots",
        )),
        End::OtherKey(candidate) => findings.push(Finding::fail(
            "cert.chain",
            format!(
                "{} names {issuer} as its issuer, but was not signed by the key of the given one ({})",
                last.subject(),
                candidate.fingerprint()
            ),
            "the authority seems to have been renewed with another key; ask it for the certificate that fits",
        )),
        End::TooLong => findings.push(Finding::fail(
            "cert.chain",
            format!("the chain has more than {} certificates", chain.certificates.len()),
            "give only the server's certificate, its intermediates and the root",
        )),
    }
}

fn check_times(certificate: &Certificate, now: Timestamp, findings: &mut Vec<Finding>) {
    let summary = certificate.summary();
    if now > summary.not_after {
        findings.push(Finding::fail(
            "cert.expired",
            format!(
                "{} ended at {}, {} days before the clock of this machine ({now})",
                summary.subject,
                summary.not_after,
                days(summary.not_after, now)
            ),
            "renew it; if the date of this machine is wrong, set its clock first",
        ));
    }
    if now < summary.not_before {
        findings.push(Finding::fail(
            "cert.not-yet-valid",
            format!(
                "{} begins at {}, {} days after the clock of this machine ({now})",
                summary.subject,
                summary.not_before,
                days(now, summary.not_before)
            ),
            "set the clock of this machine; `timedatectl` shows it",
        ));
    }
}

fn check_days_left(chain: &Chain<'_>, now: Timestamp, findings: &mut Vec<Finding>) {
    let Some((leaf, issuers)) = chain.certificates.split_first() else { return };
    let left = days(now, leaf.not_after());
    if now <= leaf.not_after() && left < DAYS_LEFT_WARN {
        findings.push(Finding::warn(
            "cert.days-left",
            format!("{} ends in {left} days, at {}", leaf.subject(), leaf.not_after()),
            "plan its renewal now",
        ));
    }
    for issuer in issuers.iter().filter(|issuer| issuer.not_after() < leaf.not_after() && now <= issuer.not_after()) {
        findings.push(Finding::warn(
            "cert.days-left",
            format!(
                "{} ends at {}, before the server's certificate ({})",
                issuer.subject(),
                issuer.not_after(),
                leaf.not_after()
            ),
            "clients refuse the chain from then on; ask the authority for its renewed certificate",
        ));
    }
}

fn check_strength(certificate: &Certificate, is_root: bool, findings: &mut Vec<Finding>) {
    const HINT: &str = "ask for a new certificate with ECDSA P-256 or RSA 3072 and SHA-256";
    let subject = certificate.subject();
    match certificate.key_kind() {
        KeyKind::Rsa(bits) if *bits < RSA_BITS_FAIL => findings.push(Finding::fail(
            "cert.weak-key",
            format!("{subject} has an RSA key of {bits} bits; {RSA_BITS_FAIL} are the least"),
            HINT,
        )),
        KeyKind::Rsa(bits) if *bits < RSA_BITS_WARN => findings.push(Finding::warn(
            "cert.weak-key",
            format!(
                "{subject} has an RSA key of {bits} bits; {RSA_BITS_WARN} are advised (NIST SP 800-57, after 2030)"
            ),
            HINT,
        )),
        KeyKind::Other(name) => findings.push(Finding::fail(
            "cert.weak-key",
            format!("{subject} has a key that TLS does not support here: {name}"),
            HINT,
        )),
        _ => {}
    }
    // A root is trusted for what it is; nobody checks its signature on itself.
    if !is_root && certificate.signature_kind().is_weak() {
        let message = format!("{subject} is signed by {}, which can be forged", certificate.signature_kind());
        findings.push(Finding::fail("cert.weak-signature", message, HINT));
    }
}

/// Whole days between two moments.
fn days(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_hours() / 24
}
