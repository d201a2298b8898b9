//! Reading manifests as far as a registry must: what they are, what they refer to. The bytes are stored as they came.
//!
//! Invariant: a [`Manifest`] is one thing: never an image and an index at once, and its own `mediaType` agrees with
//! the one it was sent with (CVE-2021-41190). Called for each pushed manifest, on publishing, by fsck, list and gc.

use std::collections::BTreeMap;

use bundle::oci::{Digest, media_type};
use serde::{Deserialize, Serialize};

/// The most bytes a manifest may have (OCI distribution-spec, "Pushing Manifests": at least 4 MiB are to be taken).
pub const MAXIMUM_MANIFEST: usize = 4 << 20;

/// Why bytes are not a manifest that this registry takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a field is missing or wrong.
    #[error("the manifest cannot be understood: {0}")]
    Syntax(String),
    /// The media type is none that this registry keeps.
    #[error(
        "the media type {0:?} is not accepted; OCI image manifests and indexes and Docker schema 2 manifests and lists are"
    )]
    MediaType(String),
    /// Sent as one thing, says that it is another.
    #[error("it was sent as {sent}, and says that it is {says}")]
    Disagreement {
        /// The `Content-Type` of the request.
        sent: String,
        /// The `mediaType` field.
        says: String,
    },
    /// Holds fields of an image and of an index.
    #[error("it is an image manifest and an index at once")]
    Ambiguous,
}

/// A manifest, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it is; one of the four accepted media types.
    pub media_type: String,
    /// The configuration and the layers, in the order of the manifest.
    pub blobs: Vec<Link>,
    /// The manifests of an index.
    pub manifests: Vec<Link>,
    /// The manifest that this one is about.
    pub subject: Option<Link>,
    /// `artifactType`, or else the media type of the configuration (OCI distribution-spec, "Listing Referrers").
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest says about something that it refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl Link {
    /// Whether registries need not hold it: layers that only their vendor may distribute.
    pub fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.") || self.media_type.contains(".rootfs.foreign.")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Link>,
    #[serde(default, deserialize_with = "list")]
    layers: Option<Vec<Link>>,
    #[serde(default, deserialize_with = "list")]
    manifests: Option<Vec<Link>>,
    subject: Option<Link>,
    annotations: Option<BTreeMap<String, String>>,
}

/// `null` is an empty list: programs in Go write it so.
fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Link>>, D::Error> {
    Option::deserialize(deserializer).map(|list: Option<Vec<Link>>| Some(list.unwrap_or_default()))
}

impl Manifest {
    /// Takes apart the bytes of a manifest. `sent_as` is the `Content-Type` it came with, without parameters.
    pub fn parse(bytes: &[u8], sent_as: Option<&str>) -> Result<Self, ManifestError> {
        if let Some(sent) = sent_as
            && !is_accepted(sent)
        {
            return Err(ManifestError::MediaType(sent.to_owned()));
        }
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| ManifestError::Syntax(error.to_string()))?;
        if document.schema_version != 2 {
            return Err(ManifestError::Syntax(format!("schemaVersion is {}, not 2", document.schema_version)));
        }
        if document.manifests.is_some() && (document.layers.is_some() || document.config.is_some()) {
            return Err(ManifestError::Ambiguous);
        }
        let media_type = match (sent_as, document.media_type) {
            (Some(sent), Some(says)) if sent != says => {
                return Err(ManifestError::Disagreement { sent: sent.to_owned(), says });
            }
            (Some(sent), _) => sent.to_owned(),
            (None, Some(says)) if is_accepted(&says) => says,
            (None, Some(says)) => return Err(ManifestError::MediaType(says)),
            (None, None) if document.manifests.is_some() => media_type::OCI_INDEX.to_owned(),
            (None, None) => media_type::OCI_MANIFEST.to_owned(),
        };
        let missing = |field: &str| ManifestError::Syntax(format!("missing field `{field}`"));
        let (blobs, manifests, config_type) = if media_type::is_manifest_list(&media_type) {
            (Vec::new(), document.manifests.ok_or_else(|| missing("manifests"))?, None)
        } else {
            let config = document.config.ok_or_else(|| missing("config"))?;
            let config_type = config.media_type.clone();
            let mut blobs = vec![config];
            blobs.extend(document.layers.ok_or_else(|| missing("layers"))?);
            (blobs, Vec::new(), Some(config_type))
        };
        Ok(Self {
            media_type,
            blobs,
            manifests,
            subject: document.subject,
            artifact_type: document.artifact_type.filter(|kind| !kind.is_empty()).or(config_type),
            annotations: document.annotations.unwrap_or_default(),
        })
    }
}

fn is_accepted(kind: &str) -> bool {
    media_type::is_manifest(kind) || media_type::is_manifest_list(kind)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn link(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{DIGEST}","size":3}}"#)
    }

    #[test]
    fn an_image_and_an_index_are_taken_apart() {
        let image = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, link("c"), link("l"));
        let image = Manifest::parse(image.as_bytes(), Some(media_type::DOCKER_MANIFEST)).unwrap();
        assert_eq!((image.blobs.len(), image.manifests.len()), (2, 0));
        assert_eq!(image.artifact_type.as_deref(), Some("c"));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}],"subject":{}}}"#, link("m"), link("s"));
        let index = Manifest::parse(index.as_bytes(), None).unwrap();
        assert_eq!(index.media_type, media_type::OCI_INDEX);
        assert_eq!((index.blobs.len(), index.manifests.len(), index.subject.is_some()), (0, 1, true));
    }

    #[test]
    fn what_is_not_one_clear_manifest_is_refused() {
        let (c, l) = (link("c"), link("l"));
        let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        for (bytes, sent, part) in [
            (String::new(), None, "cannot be understood"),
            ("[]".to_owned(), None, "cannot be understood"),
            ("{}".to_owned(), None, "schemaVersion"),
            (r#"{"schemaVersion":1}"#.to_owned(), None, "schemaVersion is 1"),
            (r#"{"schemaVersion":2}"#.to_owned(), None, "config"),
            (format!(r#"{{"schemaVersion":2,"config":{c}}}"#), None, "layers"),
            (r#"{"schemaVersion":2}"#.to_owned(), Some(media_type::OCI_INDEX), "manifests"),
            (format!(r#"{{"schemaVersion":2,"config":{c},"layers":[{l}],"manifests":[]}}"#), None, "at once"),
            ("{}".to_owned(), Some(schema1), schema1),
            (
                format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX),
                Some(media_type::OCI_MANIFEST),
                "says that it is",
            ),
            (r#"{"schemaVersion":2,"mediaType":"text/html","manifests":[]}"#.to_owned(), None, "text/html"),
            (format!(r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#, c.replace("sha256", "md5")), None, "digest"),
        ] {
            let error = Manifest::parse(bytes.as_bytes(), sent).unwrap_err().to_string();
            assert!(error.contains(part), "{bytes}: {error}");
        }
    }
}
