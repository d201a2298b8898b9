//! Content digests. Invariant: a [`Digest`] is a known algorithm with exactly as many bytes as it has; it prints in the
//! one canonical spelling (lower-case hex), so that text and value are in one-to-one correspondence.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;

use super::{ParseError, string_serde};

/// A digest algorithm of the OCI image specification ("Registered algorithms").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// `sha256`, 32 bytes; what nearly everybody uses.
    Sha256,
    /// `sha512`, 64 bytes.
    Sha512,
}

impl Algorithm {
    /// The name as it stands before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// A content digest, `sha256:HEX` or `sha512:HEX` with lower-case hex (OCI image-spec, descriptor.md, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

impl Digest {
    /// The SHA-256 digest of bytes in memory.
    pub fn sha256_of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Which algorithm made it.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The lower-case hex part alone: 64 or 128 characters out of `[0-9a-f]`, safe as a file name.
    pub fn hex(&self) -> String {
        hex::encode(self.as_bytes())
    }

    /// The raw bytes, 32 or 64.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |why| ParseError::new("digest", text, why);
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| fail("there is no colon"))?;
        if hex.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(fail("only lower-case hex may follow the colon"));
        }
        let bytes = hex::decode(hex).map_err(|_| fail("the hex part has an odd length"))?;
        let length = |_| fail("the hex part has the wrong length");
        match algorithm {
            "sha256" => Ok(Self::Sha256(bytes.as_slice().try_into().map_err(length)?)),
            "sha512" => Ok(Self::Sha512(bytes.as_slice().try_into().map_err(length)?)),
            _ => Err(fail("only sha256 and sha512 are known")),
        }
    }
}

string_serde!(
    Digest,
    "Digest",
    "A content digest, sha256:HEX or sha512:HEX",
    "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"
);

/// A running digest.
pub struct Hasher {
    algorithm: Algorithm,
    context: digest::Context,
}

impl Hasher {
    /// Starts a digest.
    pub fn new(algorithm: Algorithm) -> Self {
        let context = digest::Context::new(match algorithm {
            Algorithm::Sha256 => &digest::SHA256,
            Algorithm::Sha512 => &digest::SHA512,
        });
        Self { algorithm, context }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        let digest = self.context.finish();
        // The context was made for this algorithm, so the length fits; zip copies what is there without a panic path.
        match self.algorithm {
            Algorithm::Sha256 => {
                let mut bytes = [0; 32];
                bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
                Digest::Sha256(bytes)
            }
            Algorithm::Sha512 => {
                let mut bytes = [0; 64];
                bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
                Digest::Sha512(bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vectors_of_fips_180() {
        assert_eq!(
            Digest::sha256_of(b"abc").to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"abc");
        assert!(hasher.finish().to_string().starts_with("sha512:ddaf35a193617abacc417349ae204131"));
    }

    #[test]
    fn refuses_all_but_the_canonical_spelling() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for bad in [
            String::new(),
            hex.to_owned(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{}", &hex[2..]),
            format!("sha256:{hex}00"),
            format!("sha512:{hex}"),
            format!("md5:{}", &hex[..32]),
            format!("SHA256:{hex}"),
            format!(" sha256:{hex}"),
            format!("sha256:{hex}\n"),
            format!("sha256:../{}", &hex[3..]),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn text_and_value_are_one_to_one(bytes: [u8; 32], more: [u8; 32], long: bool) {
            let digest = if long {
                let mut all = [0; 64];
                all[..32].copy_from_slice(&bytes);
                all[32..].copy_from_slice(&more);
                Digest::Sha512(all)
            } else {
                Digest::Sha256(bytes)
            };
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        }

        #[test]
        fn what_parses_prints_as_it_was(text in "(sha256|sha512|md5)?:?[0-9a-fA-F/.]{0,130}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
