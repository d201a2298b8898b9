//! How a [`SecretSource`] is read. serde's own errors repeat what they do not understand, and in this place that may be a
//! secret which somebody wrote there.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::SecretSource;

const WANTED: &str = "wants `{ file: PATH }`: a secret never stands in the configuration itself";

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Source)
    }
}

struct Source;

impl<'de> Visitor<'de> for Source {
    type Value = SecretSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file that holds the secret")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretSource, A::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            file: camino::Utf8PathBuf,
        }
        Fields::deserialize(MapAccessDeserializer::new(map)).map(|Fields { file }| SecretSource { file })
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<SecretSource, E> {
        Err(E::custom(WANTED))
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<SecretSource, E> {
        Err(E::custom(WANTED))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<SecretSource, E> {
        Err(E::custom(WANTED))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<SecretSource, E> {
        Err(E::custom(WANTED))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<SecretSource, E> {
        Err(E::custom(WANTED))
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<SecretSource, E> {
        Err(E::custom(WANTED))
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<SecretSource, E> {
        Err(E::custom(WANTED))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<SecretSource, E> {
        Err(E::custom(WANTED))
    }
}
