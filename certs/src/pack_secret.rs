//! Secrets that a pack asks for by kind and that each site makes for itself (`root-key`, signing keys, salts).
//! The installer puts the parts into a Kubernetes Secret and into the escrow.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{CertsError, KeyAlgorithm, PrivateKey, random_bytes};

/// Letters and digits without those that are taken for each other (0 O o, 1 l I).
const PASSWORD_ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const PASSWORD_LENGTH: usize = 32;

/// What kind of secret is made. In text: `random-256`, `password`, `ed25519`, `ecdsa-p256`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PackSecretKind {
    /// 32 random bytes, as 44 characters of base64 text.
    #[serde(rename = "random-256")]
    Random256,
    /// 32 letters and digits, 185 bits.
    #[serde(rename = "password")]
    Password,
    /// An Ed25519 key pair, PEM.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// An ECDSA P-256 key pair, PEM.
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
}

/// One value of a generated secret.
pub struct PackSecretPart {
    /// What follows the secret's name in the key of the Kubernetes Secret: nothing, `.key` (private) or `.pub`.
    pub suffix: &'static str,
    /// The value as text.
    pub data: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for PackSecretPart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PackSecretPart").field("suffix", &self.suffix).finish_non_exhaustive()
    }
}

impl PackSecretKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Random256, Self::Password, Self::Ed25519, Self::EcdsaP256];

    /// The text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Random256 => "random-256",
            Self::Password => "password",
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256 => "ecdsa-p256",
        }
    }

    /// A new secret of this kind: one part, or the private (PKCS#8) and the public half (`SubjectPublicKeyInfo`) of a
    /// key pair.
    pub fn generate(self) -> Result<Vec<PackSecretPart>, CertsError> {
        match self {
            Self::Random256 => {
                let random = random_bytes::<32>()?;
                let mut text = Zeroizing::new(vec![0; 44]);
                // 32 bytes are 44 characters; the length cannot be wrong.
                STANDARD.encode_slice(random.as_slice(), text.as_mut_slice()).map_err(|_| CertsError::Random)?;
                Ok(vec![PackSecretPart { suffix: "", data: text }])
            }
            Self::Password => Ok(vec![PackSecretPart { suffix: "", data: password()? }]),
            Self::Ed25519 => key_pair(KeyAlgorithm::Ed25519),
            Self::EcdsaP256 => key_pair(KeyAlgorithm::EcdsaP256),
        }
    }
}

impl fmt::Display for PackSecretKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for PackSecretKind {
    type Err = CertsError;

    fn from_str(text: &str) -> Result<Self, CertsError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| CertsError::Invalid {
            what: "kind of a pack secret",
            reason: format!("{text:?} is none of {}", Self::ALL.map(Self::as_str).join(", ")),
        })
    }
}

fn key_pair(algorithm: KeyAlgorithm) -> Result<Vec<PackSecretPart>, CertsError> {
    let key = PrivateKey::generate(algorithm)?;
    Ok(vec![
        PackSecretPart { suffix: ".key", data: Zeroizing::new(key.to_pem().as_bytes().to_vec()) },
        PackSecretPart { suffix: ".pub", data: Zeroizing::new(key.public_key_pem()?.into_bytes()) },
    ])
}

fn password() -> Result<Zeroizing<Vec<u8>>, CertsError> {
    // Bytes at and above the largest multiple of the alphabet's size are thrown away, else some letters come more often.
    let limit = 256 - 256 % PASSWORD_ALPHABET.len();
    let mut password = Zeroizing::new(Vec::with_capacity(PASSWORD_LENGTH));
    while password.len() < PASSWORD_LENGTH {
        let random = random_bytes::<64>()?;
        let letters = random
            .iter()
            .map(|byte| usize::from(*byte))
            .filter(|byte| *byte < limit)
            .map(|byte| PASSWORD_ALPHABET[byte % PASSWORD_ALPHABET.len()])
            .take(PASSWORD_LENGTH - password.len());
        password.extend(letters);
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_kind_makes_its_parts() {
        for (kind, suffixes) in [
            (PackSecretKind::Random256, vec![""]),
            (PackSecretKind::Password, vec![""]),
            (PackSecretKind::Ed25519, vec![".key", ".pub"]),
            (PackSecretKind::EcdsaP256, vec![".key", ".pub"]),
        ] {
            let (one, other) = (kind.generate().unwrap(), kind.generate().unwrap());
            assert_eq!(one.iter().map(|part| part.suffix).collect::<Vec<_>>(), suffixes);
            assert!(one.iter().zip(&other).all(|(one, other)| *one.data != *other.data), "{kind}");
            assert_eq!(kind.as_str().parse::<PackSecretKind>().unwrap(), kind);
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        let random = &PackSecretKind::Random256.generate().unwrap()[0];
        assert_eq!(STANDARD.decode(random.data.as_slice()).unwrap().len(), 32);
        assert!(!format!("{random:?}").contains("data"));
    }

    #[test]
    fn passwords_use_the_whole_alphabet_evenly() {
        let mut counts = [0_u32; 256];
        for _ in 0..2000 {
            let password = password().unwrap();
            assert_eq!(password.len(), PASSWORD_LENGTH);
            for byte in password.iter() {
                counts[usize::from(*byte)] += 1;
            }
        }
        // 64000 letters over 56: 1143 each, standard deviation 34; without the throwing away some would have 1250.
        let expected = 64_000 / u32::try_from(PASSWORD_ALPHABET.len()).unwrap();
        for letter in PASSWORD_ALPHABET {
            let count = counts[usize::from(*letter)];
            assert!(count.abs_diff(expected) < 250, "{}: {count}", char::from(*letter));
        }
    }
}
