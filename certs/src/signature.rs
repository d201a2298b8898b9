//! How certificates are signed, and whether one certificate signed another.
//!
//! Import looks also at what it will refuse (SHA-1, RSA of 1024 bits), so that a person hears "weak" and not "broken".
//! What is trusted is decided afterwards by rustls-webpki, which knows none of the weak algorithms.

use std::fmt;

use aws_lc_rs::signature as aws;
use x509_parser::{
    oid_registry::{
        OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512, OID_PKCS1_MD5WITHRSAENC, OID_PKCS1_RSASSAPSS,
        OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
        OID_SHA1_WITH_RSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512,
        OID_SIG_ED25519, asn1_rs::oid,
    },
    prelude::{FromDer as _, X509Certificate},
    signature_algorithm::RsaSsaPssParams,
    x509::AlgorithmIdentifier,
};

use crate::{Certificate, KeyKind};

/// A hash function in a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// A signature algorithm, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SignatureKind {
    RsaPkcs1(Hash),
    RsaPss(Hash),
    Ecdsa(Hash),
    Ed25519,
    /// RSA with MD5; the library has no MD5 to check it with.
    Md5,
    Other(String),
}

/// Whether one certificate was signed by the key of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Signed,
    NotSigned,
    /// The algorithm is not known here, so nobody can tell.
    Unknown,
}

impl SignatureKind {
    pub(crate) fn of(identifier: &AlgorithmIdentifier<'_>) -> Self {
        let oid = &identifier.algorithm;
        let table = [
            (OID_PKCS1_SHA1WITHRSA, Self::RsaPkcs1(Hash::Sha1)),
            (OID_SHA1_WITH_RSA, Self::RsaPkcs1(Hash::Sha1)),
            (OID_PKCS1_SHA256WITHRSA, Self::RsaPkcs1(Hash::Sha256)),
            (OID_PKCS1_SHA384WITHRSA, Self::RsaPkcs1(Hash::Sha384)),
            (OID_PKCS1_SHA512WITHRSA, Self::RsaPkcs1(Hash::Sha512)),
            (OID_PKCS1_MD5WITHRSAENC, Self::Md5),
            // ecdsa-with-SHA1, RFC 3279 section 2.2.3
            (oid!(1.2.840.10045.4.1), Self::Ecdsa(Hash::Sha1)),
            (OID_SIG_ECDSA_WITH_SHA256, Self::Ecdsa(Hash::Sha256)),
            (OID_SIG_ECDSA_WITH_SHA384, Self::Ecdsa(Hash::Sha384)),
            (OID_SIG_ECDSA_WITH_SHA512, Self::Ecdsa(Hash::Sha512)),
            (OID_SIG_ED25519, Self::Ed25519),
        ];
        if let Some((_, kind)) = table.into_iter().find(|(known, _)| known == oid) {
            return kind;
        }
        if *oid == OID_PKCS1_RSASSAPSS
            && let Some(hash) = pss_hash(identifier)
        {
            return Self::RsaPss(hash);
        }
        Self::Other(format!("signature algorithm {oid}"))
    }

    /// Whether collisions of its hash can be made, so that it proves nothing.
    pub(crate) fn is_weak(&self) -> bool {
        matches!(self, Self::Md5 | Self::RsaPkcs1(Hash::Sha1) | Self::RsaPss(Hash::Sha1) | Self::Ecdsa(Hash::Sha1))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        })
    }
}

impl fmt::Display for SignatureKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RsaPkcs1(hash) => write!(formatter, "RSA with {hash}"),
            Self::RsaPss(hash) => write!(formatter, "RSA-PSS with {hash}"),
            Self::Ecdsa(hash) => write!(formatter, "ECDSA with {hash}"),
            Self::Ed25519 => formatter.write_str("Ed25519"),
            Self::Md5 => formatter.write_str("RSA with MD5"),
            Self::Other(name) => formatter.write_str(name),
        }
    }
}

/// Whether `issuer`'s key signed `certificate`.
pub(crate) fn link(certificate: &Certificate, issuer: &Certificate) -> Link {
    let Some(algorithm) = algorithm(certificate.signature_kind(), issuer.key_kind()) else {
        // An RSA signature is never by an ECDSA key; a pair that only lacks its algorithm here could be right.
        let same_family = match (certificate.signature_kind(), issuer.key_kind()) {
            (SignatureKind::Other(_), _) | (_, KeyKind::Other(_)) => true,
            (SignatureKind::Md5 | SignatureKind::RsaPkcs1(_) | SignatureKind::RsaPss(_), key) => {
                matches!(key, KeyKind::Rsa(_))
            }
            (SignatureKind::Ecdsa(_), key) => {
                matches!(key, KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521)
            }
            (SignatureKind::Ed25519, _) => false,
        };
        return if same_family { Link::Unknown } else { Link::NotSigned };
    };
    let Ok((_, parsed)) = X509Certificate::from_der(certificate.der()) else {
        return Link::Unknown;
    };
    let key = aws::UnparsedPublicKey::new(algorithm, issuer.public_key());
    match key.verify(parsed.tbs_certificate.as_ref(), &parsed.signature_value.data) {
        Ok(()) => Link::Signed,
        Err(_) => Link::NotSigned,
    }
}

fn algorithm(signature: &SignatureKind, key: &KeyKind) -> Option<&'static dyn aws::VerificationAlgorithm> {
    use Hash::{Sha1, Sha256, Sha384, Sha512};
    Some(match (signature, key) {
        (SignatureKind::RsaPkcs1(Sha1), KeyKind::Rsa(_)) => &aws::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        (SignatureKind::RsaPkcs1(Sha256), KeyKind::Rsa(_)) => &aws::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        // There is no lax form of this one: below 2048 bits the link stays unknown.
        (SignatureKind::RsaPkcs1(Sha384), KeyKind::Rsa(2048..)) => &aws::RSA_PKCS1_2048_8192_SHA384,
        (SignatureKind::RsaPkcs1(Sha512), KeyKind::Rsa(_)) => &aws::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        (SignatureKind::RsaPss(Sha256), KeyKind::Rsa(2048..)) => &aws::RSA_PSS_2048_8192_SHA256,
        (SignatureKind::RsaPss(Sha384), KeyKind::Rsa(2048..)) => &aws::RSA_PSS_2048_8192_SHA384,
        (SignatureKind::RsaPss(Sha512), KeyKind::Rsa(2048..)) => &aws::RSA_PSS_2048_8192_SHA512,
        (SignatureKind::Ecdsa(Sha1), KeyKind::EcdsaP256) => &aws::ECDSA_P256_SHA1_ASN1,
        (SignatureKind::Ecdsa(Sha256), KeyKind::EcdsaP256) => &aws::ECDSA_P256_SHA256_ASN1,
        (SignatureKind::Ecdsa(Sha384), KeyKind::EcdsaP256) => &aws::ECDSA_P256_SHA384_ASN1,
        (SignatureKind::Ecdsa(Sha512), KeyKind::EcdsaP256) => &aws::ECDSA_P256_SHA512_ASN1,
        (SignatureKind::Ecdsa(Sha256), KeyKind::EcdsaP384) => &aws::ECDSA_P384_SHA256_ASN1,
        (SignatureKind::Ecdsa(Sha384), KeyKind::EcdsaP384) => &aws::ECDSA_P384_SHA384_ASN1,
        (SignatureKind::Ecdsa(Sha512), KeyKind::EcdsaP384) => &aws::ECDSA_P384_SHA512_ASN1,
        (SignatureKind::Ecdsa(Sha256), KeyKind::EcdsaP521) => &aws::ECDSA_P521_SHA256_ASN1,
        (SignatureKind::Ecdsa(Sha384), KeyKind::EcdsaP521) => &aws::ECDSA_P521_SHA384_ASN1,
        (SignatureKind::Ecdsa(Sha512), KeyKind::EcdsaP521) => &aws::ECDSA_P521_SHA512_ASN1,
        (SignatureKind::Ed25519, KeyKind::Ed25519) => &aws::ED25519,
        _ => return None,
    })
}

fn pss_hash(identifier: &AlgorithmIdentifier<'_>) -> Option<Hash> {
    let parameters = RsaSsaPssParams::try_from(identifier.parameters.as_ref()?).ok()?;
    let oid = parameters.hash_algorithm_oid();
    let table = [
        (OID_NIST_HASH_SHA256, Hash::Sha256),
        (OID_NIST_HASH_SHA384, Hash::Sha384),
        (OID_NIST_HASH_SHA512, Hash::Sha512),
    ];
    // RFC 4055: SHA-1 is what stands there when nothing stands there.
    Some(table.into_iter().find(|(known, _)| known == oid).map_or(Hash::Sha1, |(_, hash)| hash))
}
