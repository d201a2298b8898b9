//! The words of the OCI specifications as types that cannot hold nonsense.
//!
//! Invariant: a value of one of these types was parsed; it never holds a path separator where none belongs, never an
//! upper-case digest, never a name that a registry would refuse. Called by every module of this crate and by
//! `airgap-registry`.

mod descriptor;
mod digest;
pub mod media_type;
mod reference;

pub use descriptor::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Platform, RootFilesystem};
pub use digest::{Algorithm, Digest, Hasher};
pub use reference::{Reference, RepositoryName, Tag};

/// Why a text is not a digest, repository name, tag or reference. Holds the text and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}: {why}")]
pub struct ParseError {
    /// What the text was meant to be, for example `digest`.
    pub what: &'static str,
    /// The text, cut at 200 characters.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, text: &str, why: &'static str) -> Self {
        Self { what, text: text.chars().take(200).collect(), why }
    }
}

/// Serde and schema through `Display` and `FromStr`: the types appear as plain strings in JSON and YAML.
macro_rules! string_serde {
    ($type:ty, $name:literal, $description:literal, $pattern:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "description": $description, "pattern": $pattern})
            }
        }
    };
}
pub(crate) use string_serde;
