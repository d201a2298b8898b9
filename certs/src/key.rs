//! Private keys: made, read from what people have, written as PKCS#8.
//!
//! Invariant: the key lives in wiped memory only; `Debug` shows the kind and nothing else. Whatever form a key came in
//! (PKCS#8, SEC1, PKCS#1), it is held as PKCS#8 version 1, because OpenSSL 3.0 does not read version 2.

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    encoding::AsDer as _,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
    },
};
use rcgen::{CertificateParams, DistinguishedName, DnType, PublicKeyData as _};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use x509_parser::{
    der_parser::{asn1_rs::FromDer as _, ber::BerObjectContent, der::parse_der},
    oid_registry::OID_PKCS1_RSAENCRYPTION,
    public_key::RSAPublicKey,
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{Certificate, CertsError, ServerNames, pem};

/// The kinds of keys that are made here. In text (configuration, command line): `ecdsa-p256`, `ecdsa-p384`, `ed25519`,
/// `rsa3072`, `rsa4096`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256 with SHA-256: small, fast, understood by everything.
    #[default]
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// ECDSA on NIST P-384 with SHA-384.
    #[serde(rename = "ecdsa-p384")]
    EcdsaP384,
    /// Ed25519 (RFC 8410). Web browsers do not take it in server certificates.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// RSA with 3072 bits, PKCS#1 v1.5 with SHA-256.
    #[serde(rename = "rsa3072")]
    Rsa3072,
    /// RSA with 4096 bits. Making one takes seconds.
    #[serde(rename = "rsa4096")]
    Rsa4096,
}

impl KeyAlgorithm {
    /// All of them, for help texts and tests.
    pub const ALL: [Self; 5] = [Self::EcdsaP256, Self::EcdsaP384, Self::Ed25519, Self::Rsa3072, Self::Rsa4096];

    /// The text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::Ed25519 => "ed25519",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for KeyAlgorithm {
    type Err = CertsError;

    fn from_str(text: &str) -> Result<Self, CertsError> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text).ok_or_else(|| CertsError::Invalid {
            what: "key algorithm",
            reason: format!("{text:?} is none of {}", Self::ALL.map(Self::as_str).join(", ")),
        })
    }
}

/// What kind of key a certificate or a file holds; wider than [`KeyAlgorithm`], since people bring what they have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
    /// RSA with so many bits.
    Rsa(usize),
    /// Something that TLS here does not support; the text names it.
    Other(String),
}

impl fmt::Display for KeyKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcdsaP256 => formatter.write_str("ECDSA P-256"),
            Self::EcdsaP384 => formatter.write_str("ECDSA P-384"),
            Self::EcdsaP521 => formatter.write_str("ECDSA P-521"),
            Self::Ed25519 => formatter.write_str("Ed25519"),
            Self::Rsa(bits) => write!(formatter, "RSA {bits} bits"),
            Self::Other(name) => formatter.write_str(name),
        }
    }
}

/// A private key in memory that is wiped when it is dropped.
pub struct PrivateKey {
    kind: KeyKind,
    pkcs8: Zeroizing<Vec<u8>>,
    public_key: Vec<u8>,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PrivateKey").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl PrivateKey {
    /// A new random key.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, CertsError> {
        let failed = |_| CertsError::Random;
        match algorithm {
            KeyAlgorithm::EcdsaP256 => Self::from_ecdsa(
                KeyKind::EcdsaP256,
                &EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?,
            ),
            KeyAlgorithm::EcdsaP384 => Self::from_ecdsa(
                KeyKind::EcdsaP384,
                &EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).map_err(failed)?,
            ),
            KeyAlgorithm::Ed25519 => Self::from_ed25519(&Ed25519KeyPair::generate().map_err(failed)?),
            KeyAlgorithm::Rsa3072 => Self::from_rsa(&RsaKeyPair::generate(KeySize::Rsa3072).map_err(failed)?),
            KeyAlgorithm::Rsa4096 => Self::from_rsa(&RsaKeyPair::generate(KeySize::Rsa4096).map_err(failed)?),
        }
    }

    /// The first private key in PEM text: PKCS#8 (RFC 5958), SEC1 (RFC 5915) or PKCS#1 (RFC 8017), not encrypted.
    ///
    /// Takes also what is not made here (P-521, RSA of 2048 bits and more); RSA below 2048 bits is a
    /// [`CertsError::ShortKey`].
    pub fn from_pem(text: &str) -> Result<Self, CertsError> {
        let mut der = pem::parse_private_key(text)?;
        let key = Self::from_der(&der);
        der.zeroize();
        key
    }

    fn from_der(der: &PrivateKeyDer<'_>) -> Result<Self, CertsError> {
        const CURVES: [(&EcdsaSigningAlgorithm, KeyKind); 3] = [
            (&ECDSA_P256_SHA256_ASN1_SIGNING, KeyKind::EcdsaP256),
            (&ECDSA_P384_SHA384_ASN1_SIGNING, KeyKind::EcdsaP384),
            (&ECDSA_P521_SHA512_ASN1_SIGNING, KeyKind::EcdsaP521),
        ];
        let bytes = der.secret_der();
        if !matches!(der, PrivateKeyDer::Pkcs1(_)) {
            for (algorithm, kind) in CURVES {
                if let Ok(pair) = EcdsaKeyPair::from_private_key_der(algorithm, bytes) {
                    return Self::from_ecdsa(kind, &pair);
                }
            }
            if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
                return Self::from_ed25519(&pair);
            }
        }
        // The check comes first: aws-lc refuses short keys with a word that helps nobody.
        if let Some(bits) = rsa_modulus(der).map(|modulus| bit_length(&modulus))
            && bits < 2048
        {
            return Err(CertsError::ShortKey { bits });
        }
        let rsa = match der {
            PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(bytes),
            _ => RsaKeyPair::from_pkcs8(bytes),
        };
        match rsa {
            Ok(pair) => Self::from_rsa(&pair),
            Err(_) => Err(unusable("it is damaged, or of a kind that is not supported")),
        }
    }

    fn from_ecdsa(kind: KeyKind, pair: &EcdsaKeyPair) -> Result<Self, CertsError> {
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| unusable("it cannot be written as PKCS#8"))?;
        Ok(Self { kind, pkcs8: wiped(pkcs8.as_ref()), public_key: pair.public_key().as_ref().to_vec() })
    }

    fn from_ed25519(pair: &Ed25519KeyPair) -> Result<Self, CertsError> {
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| unusable("it cannot be written as PKCS#8"))?;
        let public_key = pair.public_key().as_ref().to_vec();
        Ok(Self { kind: KeyKind::Ed25519, pkcs8: wiped(pkcs8.as_ref()), public_key })
    }

    fn from_rsa(pair: &RsaKeyPair) -> Result<Self, CertsError> {
        let pkcs8 = pair.as_der().map_err(|_| unusable("it cannot be written as PKCS#8"))?;
        let kind = KeyKind::Rsa(pair.public_modulus_len() * 8);
        Ok(Self { kind, pkcs8: wiped(pkcs8.as_ref()), public_key: pair.public_key().as_ref().to_vec() })
    }

    /// What kind of key it is.
    pub fn kind(&self) -> &KeyKind {
        &self.kind
    }

    /// PKCS#8 as PEM (`BEGIN PRIVATE KEY`). To be written with mode 0600.
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::encode("PRIVATE KEY", &self.pkcs8)
    }

    /// The public half as PEM (`BEGIN PUBLIC KEY`, a `SubjectPublicKeyInfo` of RFC 5280).
    pub fn public_key_pem(&self) -> Result<String, CertsError> {
        Ok(pem::encode("PUBLIC KEY", &self.signer()?.0.subject_public_key_info()).to_string())
    }

    /// Whether the certificate was made for this key.
    pub fn matches(&self, certificate: &Certificate) -> bool {
        self.public_key == certificate.public_key()
    }

    /// A certificate signing request (RFC 2986) as PEM, for a certificate authority elsewhere to answer.
    pub fn certificate_request(&self, names: &ServerNames) -> Result<String, CertsError> {
        let what = || format!("the certificate request for {}", names.fqdn());
        let issue = |source| CertsError::Issue { what: what(), source };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, names.common_name());
        params.subject_alt_names = names.to_rcgen().map_err(issue)?;
        let request = params.serialize_request(&*self.signer()?).map_err(issue)?;
        Ok(pem::encode("CERTIFICATE REQUEST", request.der()).to_string())
    }

    /// The key in the form in which rcgen signs with it.
    pub(crate) fn signer(&self) -> Result<Signer, CertsError> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.as_slice()));
        let pair = rcgen::KeyPair::try_from(&der)
            .map_err(|source| CertsError::Issue { what: "a signer from the private key".to_owned(), source })?;
        Ok(Signer(pair))
    }
}

/// An rcgen key pair that is wiped when it is dropped; rcgen leaves that to its users.
pub(crate) struct Signer(rcgen::KeyPair);

impl std::ops::Deref for Signer {
    type Target = rcgen::KeyPair;

    fn deref(&self) -> &rcgen::KeyPair {
        &self.0
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The modulus of an RSA key, also of one that is too short for aws-lc, without leading zeros. It is public.
pub(crate) fn rsa_modulus(der: &PrivateKeyDer<'_>) -> Option<Vec<u8>> {
    // PKCS#8 is SEQUENCE { version, SEQUENCE { algorithm, … }, OCTET STRING { PKCS#1 } }.
    // PKCS#1 is SEQUENCE { version, modulus, … }.
    let sequence = |der| parse_der(der).ok()?.1.content.as_sequence().ok().cloned();
    let mut members = sequence(der.secret_der())?;
    if let PrivateKeyDer::Pkcs8(_) = der {
        let algorithm = members.get(1)?.as_sequence().ok()?.first()?.as_oid().ok()?;
        if *algorithm != OID_PKCS1_RSAENCRYPTION {
            return None;
        }
        members = sequence(members.get(2)?.as_slice().ok()?)?;
    }
    match members.get(1)?.content {
        BerObjectContent::Integer(modulus) => Some(strip_zeros(modulus).to_vec()),
        _ => None,
    }
}

/// The modulus of an RSA public key in PKCS#1 form, without leading zeros.
pub(crate) fn rsa_public_modulus(pkcs1: &[u8]) -> Option<Vec<u8>> {
    let (_, key) = RSAPublicKey::from_der(pkcs1).ok()?;
    Some(strip_zeros(key.modulus).to_vec())
}

/// Bits of a number without leading zeros.
pub(crate) fn bit_length(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

fn strip_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

fn wiped(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(bytes.to_vec())
}

fn unusable(reason: &str) -> CertsError {
    CertsError::Key { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn each_kind_survives_pem_and_never_shows_itself() {
        for algorithm in KeyAlgorithm::ALL {
            let key = PrivateKey::generate(algorithm).unwrap();
            let pem = key.to_pem();
            let again = PrivateKey::from_pem(&pem).unwrap();
            assert_eq!(*again.to_pem(), *pem, "{algorithm}");
            assert_eq!(again.kind(), key.kind());
            assert_eq!(again.public_key, key.public_key);

            let shown = format!("{key:?}");
            let secret_line = pem.lines().nth(1).unwrap();
            assert!(shown.len() < 80 && !shown.contains(secret_line), "{shown}");

            assert_eq!(algorithm.as_str().parse::<KeyAlgorithm>().unwrap(), algorithm);
            assert_eq!(serde_json::to_string(&algorithm).unwrap(), format!("\"{algorithm}\""));
        }
        assert!("rsa1024".parse::<KeyAlgorithm>().unwrap_err().to_string().contains("rsa3072"));
    }

    #[test]
    fn broken_keys_are_told_apart_without_quoting_them() {
        let whole = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap().to_pem();
        let body = whole.lines().nth(1).unwrap().to_owned();
        let table = [
            (String::new(), "no private key"),
            ("nothing here\n".to_owned(), "no private key"),
            (whole.replace("-----END PRIVATE KEY-----\n", ""), "damaged or cut off"),
            (whole.replace(&body[..4], "MIIB"), "damaged"),
            (whole.replace(&body[..8], "!!!!!!!!"), "damaged or cut off"),
            (whole.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), "passphrase"),
            ("x".repeat(2 << 20), "limit"),
        ];
        for (text, why) in table {
            let error = PrivateKey::from_pem(&text).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
            assert!(!format!("{error:?}{error}").contains(&body[8..24]));
            assert!(error.hint().is_some());
        }
    }
}
