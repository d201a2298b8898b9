//! A parsed X.509 certificate with all that is asked of it here: names, times, key, uses. Parsing says nothing about
//! trust; that is the business of [`crate::import`] and [`crate::verify_server_chain`].

use std::{fmt, net::IpAddr};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use x509_parser::{
    extensions::{GeneralName, KeyUsage},
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
        OID_PKCS1_RSASSAPSS, OID_SIG_ED25519, Oid,
    },
    prelude::{FromDer as _, X509Certificate},
    x509::{SubjectPublicKeyInfo, X509Name},
};

use crate::{CertsError, KeyKind, key, parse_certificates, pem, signature::SignatureKind};

/// SHA-256 over a certificate's DER, shown as `openssl x509 -fingerprint -sha256` shows it (`AB:CD:…`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&colon_hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a certificate says, for people and for `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CertificateSummary {
    /// Distinguished name, for example `O=Cofferdam, CN=mgmt.example.org`.
    pub subject: String,
    /// Distinguished name of the signer.
    pub issuer: String,
    /// Serial number as colon hex.
    pub serial: String,
    /// DNS names it speaks for, wildcards included.
    pub dns_names: Vec<String>,
    /// Addresses it speaks for.
    pub ip_addresses: Vec<IpAddr>,
    /// First moment at which it is valid.
    pub not_before: Timestamp,
    /// Last moment at which it is valid.
    pub not_after: Timestamp,
    /// Kind of its key, for example `RSA 3072 bits`.
    pub key: String,
    /// How it was signed, for example `ECDSA with SHA-256`.
    pub signature: String,
    /// SHA-256 of its DER.
    pub sha256: Fingerprint,
    /// Whether it may issue certificates (basic constraints).
    pub is_ca: bool,
    /// Extended key usages (`serverAuth`, `clientAuth`, … or an OID), if it names any.
    pub extended_key_usages: Vec<String>,
}

/// What is in PEM text, one summary for each certificate, in the order of the file.
///
/// `what` names the text in errors, for example its path.
pub fn inspect(what: &str, text: &str) -> Result<Vec<CertificateSummary>, CertsError> {
    Ok(parse_certificates(what, text)?.into_iter().map(|certificate| certificate.summary).collect())
}

/// A parsed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    summary: CertificateSummary,
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
    key_kind: KeyKind,
    public_key: Vec<u8>,
    signature_kind: SignatureKind,
    may_sign_certificates: bool,
    may_sign_handshakes: bool,
}

impl Certificate {
    /// Parses DER; `what` names it in the error.
    pub fn from_der(what: &str, der: CertificateDer<'static>) -> Result<Self, CertsError> {
        let bad = |reason: String| CertsError::Certificate { what: what.to_owned(), reason };
        let (rest, parsed) = X509Certificate::from_der(&der).map_err(|error| bad(error.to_string()))?;
        if !rest.is_empty() {
            return Err(bad(format!("{} bytes follow it", rest.len())));
        }
        let extension = |error: x509_parser::error::X509Error| bad(error.to_string());

        let mut dns_names = Vec::new();
        let mut ip_addresses = Vec::new();
        if let Some(names) = parsed.subject_alternative_name().map_err(extension)? {
            for name in &names.value.general_names {
                match name {
                    GeneralName::DNSName(name) => dns_names.push(printable(name)),
                    GeneralName::IPAddress(octets) => ip_addresses.push(
                        ip_address(octets).ok_or_else(|| bad(format!("an address of {} bytes in it", octets.len())))?,
                    ),
                    _ => {}
                }
            }
        }
        let key_usage = parsed.key_usage().map_err(extension)?.map(|usage| usage.value);
        let constraints = parsed.basic_constraints().map_err(extension)?.map(|constraints| constraints.value);
        let is_ca = constraints.is_some_and(|constraints| constraints.ca);
        let extended_key_usages = extended_key_usages(&parsed).map_err(extension)?;
        let time = |seconds: i64| Timestamp::from_second(seconds).map_err(|error| bad(error.to_string()));

        let spki = parsed.public_key();
        let key_kind = key_kind(spki);
        let signature_kind = SignatureKind::of(&parsed.signature_algorithm);
        let summary = CertificateSummary {
            subject: display_name(parsed.subject()),
            issuer: display_name(parsed.issuer()),
            serial: colon_hex(parsed.raw_serial()),
            dns_names,
            ip_addresses,
            not_before: time(parsed.validity().not_before.timestamp())?,
            not_after: time(parsed.validity().not_after.timestamp())?,
            key: key_kind.to_string(),
            signature: signature_kind.to_string(),
            sha256: fingerprint(&der),
            is_ca,
            extended_key_usages,
        };
        Ok(Self {
            summary,
            subject_der: parsed.subject().as_raw().to_vec(),
            issuer_der: parsed.issuer().as_raw().to_vec(),
            public_key: spki.subject_public_key.data.to_vec(),
            key_kind,
            signature_kind,
            // RFC 5280, section 4.2.1.3: no extension means no restriction.
            may_sign_certificates: is_ca && key_usage.is_none_or(KeyUsage::key_cert_sign),
            may_sign_handshakes: key_usage.is_none_or(KeyUsage::digital_signature),
            der,
        })
    }

    /// What it says, for people.
    pub fn summary(&self) -> &CertificateSummary {
        &self.summary
    }

    /// Its bytes.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The certificate as one PEM block.
    pub fn to_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der).to_string()
    }

    /// SHA-256 of its DER.
    pub fn fingerprint(&self) -> Fingerprint {
        self.summary.sha256
    }

    /// Its subject as text.
    pub fn subject(&self) -> &str {
        &self.summary.subject
    }

    /// Last moment at which it is valid.
    pub fn not_after(&self) -> Timestamp {
        self.summary.not_after
    }

    /// Kind of its key.
    pub fn key_kind(&self) -> &KeyKind {
        &self.key_kind
    }

    /// The public key's bits, as in `subjectPublicKey`.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// How it was signed.
    pub(crate) fn signature_kind(&self) -> &SignatureKind {
        &self.signature_kind
    }

    /// Whether basic constraints and key usage let it issue certificates.
    pub(crate) fn may_sign_certificates(&self) -> bool {
        self.may_sign_certificates
    }

    /// Whether its key usage lets it sign TLS handshakes, as TLS 1.3 needs.
    pub(crate) fn may_sign_handshakes(&self) -> bool {
        self.may_sign_handshakes
    }

    /// Whether its issuer bears the name of that one; says nothing about the signature.
    pub(crate) fn names_as_issuer(&self, other: &Self) -> bool {
        self.issuer_der == other.subject_der
    }

    /// Whether subject and issuer are the same, as in a root.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject_der == self.issuer_der
    }

    /// Whether a DNS name is covered, by the name itself or by a wildcard for its first label (RFC 6125).
    pub(crate) fn covers_dns(&self, name: &str) -> bool {
        let domain = name.split_once('.').map(|(_, domain)| domain);
        self.summary.dns_names.iter().any(|pattern| {
            let pattern = pattern.to_ascii_lowercase();
            pattern == name || (pattern.strip_prefix("*.").is_some_and(|suffix| Some(suffix) == domain))
        })
    }

    /// Whether an address is covered.
    pub(crate) fn covers_ip(&self, address: IpAddr) -> bool {
        self.summary.ip_addresses.contains(&address)
    }
}

impl fmt::Display for CertificateSummary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> =
            self.dns_names.iter().cloned().chain(self.ip_addresses.iter().map(ToString::to_string)).collect();
        writeln!(formatter, "subject:     {}", self.subject)?;
        writeln!(formatter, "issuer:      {}", self.issuer)?;
        if !names.is_empty() {
            writeln!(formatter, "names:       {}", names.join(", "))?;
        }
        writeln!(formatter, "valid:       {} to {}", self.not_before, self.not_after)?;
        writeln!(formatter, "key:         {}, signed by {}", self.key, self.signature)?;
        if !self.extended_key_usages.is_empty() {
            writeln!(formatter, "for:         {}", self.extended_key_usages.join(", "))?;
        }
        writeln!(formatter, "authority:   {}", if self.is_ca { "yes" } else { "no" })?;
        writeln!(formatter, "serial:      {}", self.serial)?;
        write!(formatter, "sha256:      {}", self.sha256)
    }
}

fn key_kind(spki: &SubjectPublicKeyInfo<'_>) -> KeyKind {
    let algorithm = &spki.algorithm.algorithm;
    if *algorithm == OID_PKCS1_RSAENCRYPTION || *algorithm == OID_PKCS1_RSASSAPSS {
        let bits = key::rsa_public_modulus(&spki.subject_public_key.data).map(|modulus| key::bit_length(&modulus));
        return bits.map_or_else(|| KeyKind::Other("damaged RSA key".to_owned()), KeyKind::Rsa);
    }
    if *algorithm == OID_SIG_ED25519 {
        return KeyKind::Ed25519;
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = spki.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 => KeyKind::EcdsaP256,
            Some(curve) if curve == OID_NIST_EC_P384 => KeyKind::EcdsaP384,
            Some(curve) if curve == OID_NIST_EC_P521 => KeyKind::EcdsaP521,
            Some(curve) => KeyKind::Other(format!("ECDSA on the curve {curve}")),
            None => KeyKind::Other("ECDSA on a curve without name".to_owned()),
        };
    }
    KeyKind::Other(format!("key algorithm {algorithm}"))
}

fn extended_key_usages(certificate: &X509Certificate<'_>) -> Result<Vec<String>, x509_parser::error::X509Error> {
    let Some(extension) = certificate.extended_key_usage()? else {
        return Ok(Vec::new());
    };
    let usage = extension.value;
    let known = [
        (usage.any, "anyExtendedKeyUsage"),
        (usage.server_auth, "serverAuth"),
        (usage.client_auth, "clientAuth"),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let names = known.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned());
    Ok(names.chain(usage.other.iter().map(Oid::to_id_string)).collect())
}

fn ip_address(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

fn fingerprint(der: &[u8]) -> Fingerprint {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, der).as_ref());
    Fingerprint(bytes)
}

fn colon_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn display_name(name: &X509Name<'_>) -> String {
    let text = printable(&name.to_string());
    if text.is_empty() { "(no name)".to_owned() } else { text }
}

/// Text out of a certificate goes to terminals; whoever made it does not get to steer them.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}
