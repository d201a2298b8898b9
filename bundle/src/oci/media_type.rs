//! Media types that appear in a bundle. Called by create, read and the registry.

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, not compressed.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The two bytes `{}`, where a descriptor is needed and nothing is to be said.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Artifact type of a pack.
pub const PACK: &str = "application/vnd.cofferdam.pack.v1";
/// A pack's descriptor, the config blob of its manifest.
pub const PACK_CONFIG: &str = "application/vnd.cofferdam.pack.config.v1+json";
/// A file of a pack.
pub const PACK_FILE: &str = "application/vnd.cofferdam.pack.file.v1";
/// A Kubernetes manifest of a pack.
pub const PACK_MANIFEST: &str = "application/vnd.cofferdam.pack.manifest.v1+yaml";
/// The signed index.
pub const BUNDLE_INDEX: &str = "application/vnd.cofferdam.bundle.index.v1+json";

/// Whether it is the manifest of one image (OCI or Docker schema 2).
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Whether it lists manifests, one per platform (OCI or Docker).
pub fn is_manifest_list(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_MANIFEST_LIST)
}

/// The OCI media type that stands for the same content as one of Docker's, or is one of OCI already.
pub fn oci_for_docker(media_type: &str) -> Option<&'static str> {
    Some(match media_type {
        "application/vnd.docker.container.image.v1+json" | OCI_CONFIG => OCI_CONFIG,
        "application/vnd.docker.image.rootfs.diff.tar.gzip" | OCI_LAYER_GZIP => OCI_LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" | OCI_LAYER_ZSTD => OCI_LAYER_ZSTD,
        "application/vnd.docker.image.rootfs.diff.tar" | OCI_LAYER => OCI_LAYER,
        _ => return None,
    })
}

/// Whether it says itself that the content is compressed already.
pub fn is_compressed(media_type: &str) -> bool {
    media_type.ends_with("gzip") || media_type.ends_with("zstd")
}
