//! The OCI distribution specification 1.1, row by row: each row names the endpoint of its table ("end-N") and the
//! section that asks for it. What the conformance suite of 2026 checks in its strict profile stands here too: both
//! digest algorithms through each way of pushing, chunks out of order, tag parameters, sparse manifests.

use std::collections::BTreeMap;

use bundle::oci::{Algorithm, Digest, Hasher};
use serde_json::json;

use crate::harness::{Bench, Running, assert_clean, noise};
use crate::http::{Client, Reply};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A request and what must come back.
struct Row {
    end: &'static str,
    section: &'static str,
    method: &'static str,
    /// With names in braces for what the fixture holds.
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    /// The name of a body of the fixture.
    body: &'static str,
    status: u16,
    /// Headers of the answer: a value with names in braces, `*` for any, an empty one for none.
    expect: &'static [(&'static str, &'static str)],
    /// The code of the error.
    code: &'static str,
}

#[allow(clippy::too_many_arguments)]
const fn row(
    end: &'static str,
    section: &'static str,
    method: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    status: u16,
    expect: &'static [(&'static str, &'static str)],
    code: &'static str,
) -> Row {
    Row { end, section, method, path, headers, body, status, expect, code }
}

const AS_IMAGE: &[(&str, &str)] = &[("Content-Type", IMAGE)];
const AS_INDEX: &[(&str, &str)] = &[("Content-Type", INDEX)];
const OCTETS: &[(&str, &str)] = &[("Content-Type", "application/octet-stream")];
const NONE: &[(&str, &str)] = &[];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("end-1", "Determining Support", "GET", "/v2/", NONE, "", 200, &[("docker-distribution-api-version", "registry/2.0")], ""),
    row("end-1", "Determining Support", "HEAD", "/v2/", NONE, "", 200, &[], ""),

    row("end-2", "Pulling blobs", "GET", "/v2/c/one/blobs/{layer}", NONE, "=layer", 200, &[("docker-content-digest", "{layer}"), ("content-length", "{layer-size}"), ("accept-ranges", "bytes")], ""),
    row("end-2", "Pulling blobs", "GET", "/v2/c/one/blobs/{layer512}", NONE, "=layer", 200, &[("docker-content-digest", "{layer512}"), ("content-length", "{layer-size}")], ""),
    row("end-2", "Pulling blobs", "GET", "/v2/c/one/blobs/{empty}", NONE, "=empty", 200, &[("content-length", "0")], ""),
    row("end-2", "Pulling blobs", "GET", "/v2/c/one/blobs/{absent}", NONE, "", 404, &[], "BLOB_UNKNOWN"),
    row("end-2", "Pulling blobs", "GET", "/v2/c/nothing/blobs/{layer}", NONE, "", 404, &[], "BLOB_UNKNOWN"),
    row("end-2", "Pulling blobs", "GET", "/v2/c/one/blobs/sha256:baddigeststring", NONE, "", 400, &[], "DIGEST_INVALID"),
    row("end-2", "Pulling blobs", "GET", "/v2/c/one/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", NONE, "", 400, &[], "DIGEST_INVALID"),
    row("end-2", "Pulling blobs", "GET", "/v2/C/blobs/{layer}", NONE, "", 400, &[], "NAME_INVALID"),
    row("end-2", "Pulling blobs: Range", "GET", "/v2/c/one/blobs/{layer}", &[("Range", "bytes=500-1499")], "=500-1499", 206, &[("content-length", "1000"), ("content-range", "bytes 500-1499/{layer-size}")], ""),
    row("end-2", "Pulling blobs: Range", "GET", "/v2/c/one/blobs/{layer}", &[("Range", "bytes=500-")], "=500-", 206, &[("content-range", "bytes 500-{layer-last}/{layer-size}")], ""),
    row("end-2", "Pulling blobs: Range", "GET", "/v2/c/one/blobs/{layer}", &[("Range", "bytes=-500")], "=-500", 206, &[("content-length", "500")], ""),
    row("end-2", "Pulling blobs: Range", "GET", "/v2/c/one/blobs/{layer}", &[("Range", "bytes=2000-999999")], "=2000-", 206, &[], ""),
    row("end-2", "Pulling blobs: Range", "GET", "/v2/c/one/blobs/{layer}", &[("Range", "bytes=500-0")], "", 416, &[("content-range", "bytes */{layer-size}")], "SIZE_INVALID"),
    row("end-2", "Pulling blobs: Range", "GET", "/v2/c/one/blobs/{layer}", &[("Range", "bytes=999999-1000000")], "", 416, &[("content-range", "bytes */{layer-size}")], "SIZE_INVALID"),
    row("end-2", "Checking if content exists", "HEAD", "/v2/c/one/blobs/{layer}", NONE, "", 200, &[("content-length", "{layer-size}"), ("docker-content-digest", "{layer}")], ""),
    row("end-2", "Checking if content exists", "HEAD", "/v2/c/one/blobs/{layer512}", NONE, "", 200, &[("docker-content-digest", "{layer512}")], ""),
    row("end-2", "Checking if content exists", "HEAD", "/v2/c/one/blobs/{absent}", NONE, "", 404, &[], ""),

    row("end-3", "Pulling manifests", "GET", "/v2/c/one/manifests/v1", &[("Accept", IMAGE)], "=image", 200, &[("content-type", IMAGE), ("docker-content-digest", "{image}"), ("content-length", "{image-size}")], ""),
    row("end-3", "Pulling manifests", "GET", "/v2/c/one/manifests/{image}", &[("Accept", IMAGE)], "=image", 200, &[("content-type", IMAGE)], ""),
    row("end-3", "Pulling manifests", "GET", "/v2/c/one/manifests/{image512}", NONE, "=image", 200, &[("docker-content-digest", "{image512}")], ""),
    row("end-3", "Pulling manifests", "GET", "/v2/c/one/manifests/absent", NONE, "", 404, &[], "MANIFEST_UNKNOWN"),
    row("end-3", "Pulling manifests", "GET", "/v2/c/one/manifests/{absent}", NONE, "", 404, &[], "MANIFEST_UNKNOWN"),
    row("end-3", "Pulling manifests", "GET", "/v2/c/one/manifests/{layer}", NONE, "", 404, &[], "MANIFEST_UNKNOWN"),
    row("end-3", "Pulling manifests", "GET", "/v2/c/nothing/manifests/v1", NONE, "", 404, &[], "MANIFEST_UNKNOWN"),
    row("end-3", "Pulling manifests", "GET", "/v2/c/one/manifests/sha256:baddigeststring", NONE, "", 400, &[], "DIGEST_INVALID"),
    row("end-3", "Pulling manifests", "GET", "/v2/c/one/manifests/.hidden", NONE, "", 400, &[], "TAG_INVALID"),
    row("end-3", "Checking if content exists", "HEAD", "/v2/c/one/manifests/v1", NONE, "", 200, &[("content-type", IMAGE), ("content-length", "{image-size}"), ("docker-content-digest", "{image}")], ""),
    row("end-3", "Checking if content exists", "HEAD", "/v2/c/one/manifests/{absent}", NONE, "", 404, &[], ""),

    row("end-4a", "Pushing a blob monolithically: POST then PUT", "POST", "/v2/c/one/blobs/uploads/", NONE, "", 202, &[("location", "*"), ("range", "0-0"), ("oci-chunk-min-length", "*")], ""),
    row("end-4a", "Pushing a blob monolithically: POST then PUT", "POST", "/v2/c/one/blobs/uploads", NONE, "", 202, &[("location", "*")], ""),
    row("end-4a", "Pushing a blob monolithically: POST then PUT", "POST", "/v2/c/one/blobs/uploads/?digest-algorithm=sha512", NONE, "", 202, &[("location", "*")], ""),
    row("end-4a", "Pushing a blob monolithically: POST then PUT", "POST", "/v2/c/one/blobs/uploads/?digest-algorithm=crc32", NONE, "", 400, &[], "DIGEST_INVALID"),
    row("end-4a", "Pushing a blob monolithically: POST then PUT", "POST", "/v2/c//one/blobs/uploads/", NONE, "", 400, &[], "NAME_INVALID"),
    row("end-4b", "Pushing a blob monolithically: Single POST", "POST", "/v2/c/new/blobs/uploads/?digest={other}", OCTETS, "other", 201, &[("location", "/v2/c/new/blobs/{other}"), ("docker-content-digest", "{other}")], ""),
    row("end-4b", "Pushing a blob monolithically: Single POST", "POST", "/v2/c/new/blobs/uploads/?digest={other512}", OCTETS, "other", 201, &[("docker-content-digest", "{other512}")], ""),
    row("end-4b", "Pushing a blob monolithically: Single POST", "POST", "/v2/c/new/blobs/uploads/?digest={absent}", OCTETS, "other", 400, &[], "DIGEST_INVALID"),

    row("end-5", "Pushing a blob in chunks", "PATCH", "{upload}", &[("Content-Range", "0-4"), ("Content-Type", "application/octet-stream")], "hello", 202, &[("location", "*"), ("range", "0-4")], ""),
    row("end-5", "Pushing a blob in chunks", "PATCH", "{upload}", OCTETS, "hello", 202, &[("range", "0-4")], ""),
    row("end-5", "Pushing a blob in chunks", "PATCH", "{upload-of-5}", &[("Content-Range", "5-9")], "hello", 202, &[("range", "0-9")], ""),
    row("end-5", "Pushing a blob in chunks", "PATCH", "{upload-of-5}", &[("Content-Range", "6-10")], "hello", 416, &[("range", "0-4"), ("location", "*")], "BLOB_UPLOAD_INVALID"),
    row("end-5", "Pushing a blob in chunks", "PATCH", "{upload-of-5}", &[("Content-Range", "0-4")], "hello", 416, &[("range", "0-4"), ("location", "*")], "BLOB_UPLOAD_INVALID"),
    row("end-5", "Pushing a blob in chunks", "PATCH", "{upload-of-5}", &[("Content-Range", "nonsense")], "hello", 416, &[("range", "0-4")], "BLOB_UPLOAD_INVALID"),
    row("end-5", "Pushing a blob in chunks", "PATCH", "{upload-of-5}", &[("Content-Range", "5-7")], "hello", 400, &[], "SIZE_INVALID"),
    row("end-5", "Pushing a blob in chunks", "PATCH", "/v2/c/one/blobs/uploads/0123456789abcdef0123456789abcdef", OCTETS, "hello", 404, &[], "BLOB_UPLOAD_UNKNOWN"),
    row("end-5", "Pushing a blob in chunks", "PATCH", "/v2/c/one/blobs/uploads/nonsense", OCTETS, "hello", 404, &[], "BLOB_UPLOAD_UNKNOWN"),

    row("end-6", "Pushing a blob monolithically: POST then PUT", "PUT", "{upload}?digest={other}", OCTETS, "other", 201, &[("location", "/v2/c/one/blobs/{other}"), ("docker-content-digest", "{other}")], ""),
    row("end-6", "Pushing a blob monolithically: POST then PUT", "PUT", "{upload}?digest={other512}", OCTETS, "other", 201, &[("location", "/v2/c/one/blobs/{other512}")], ""),
    row("end-6", "Pushing a blob monolithically: POST then PUT", "PUT", "{upload}?digest={empty}", OCTETS, "", 201, &[("docker-content-digest", "{empty}")], ""),
    row("end-6", "Pushing a blob monolithically: POST then PUT", "PUT", "{upload}?digest={absent}", OCTETS, "other", 400, &[], "DIGEST_INVALID"),
    row("end-6", "Pushing a blob monolithically: POST then PUT", "PUT", "{upload}?digest=sha256:baddigeststring", OCTETS, "other", 400, &[], "DIGEST_INVALID"),
    row("end-6", "Pushing a blob monolithically: POST then PUT", "PUT", "{upload}", OCTETS, "other", 400, &[], "DIGEST_INVALID"),
    row("end-6", "Pushing a blob in chunks", "PUT", "{upload-of-5}?digest={hellohello}", &[("Content-Range", "5-9")], "hello", 201, &[("docker-content-digest", "{hellohello}")], ""),
    row("end-6", "Pushing a blob in chunks", "PUT", "{upload-of-5}?digest={hello}", NONE, "", 201, &[("location", "/v2/c/one/blobs/{hello}")], ""),
    row("end-6", "Pushing a blob in chunks", "PUT", "{upload-of-5}?digest={hellohello}", &[("Content-Range", "7-11")], "hello", 416, &[("range", "0-4"), ("location", "*")], "BLOB_UPLOAD_INVALID"),

    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/again", AS_IMAGE, "image", 201, &[("location", "/v2/c/one/manifests/again"), ("docker-content-digest", "{image}"), ("oci-subject", "")], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/{image}", AS_IMAGE, "image", 201, &[("location", "/v2/c/one/manifests/{image}")], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/{image512}", AS_IMAGE, "image", 201, &[("docker-content-digest", "{image512}")], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/{absent}", AS_IMAGE, "image", 400, &[], "DIGEST_INVALID"),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/sha256:baddigeststring", AS_IMAGE, "image", 400, &[], "DIGEST_INVALID"),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/-bad", AS_IMAGE, "image", 400, &[], "TAG_INVALID"),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/x", AS_IMAGE, "hello", 400, &[], "MANIFEST_INVALID"),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/x", AS_INDEX, "image", 400, &[], "MANIFEST_INVALID"),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/x", &[("Content-Type", "text/html")], "image", 415, &[], "MANIFEST_INVALID"),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/x", AS_IMAGE, "lacking", 404, &[], "MANIFEST_BLOB_UNKNOWN"),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/x", AS_INDEX, "lacking-index", 404, &[], "MANIFEST_BLOB_UNKNOWN"),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/index", AS_INDEX, "index", 201, &[], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/nested", AS_INDEX, "nested-index", 201, &[], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/empty-index", AS_INDEX, "empty-index", 201, &[], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/sparse-index", AS_INDEX, "sparse-index", 201, &[], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/no-layers", AS_IMAGE, "no-layers", 201, &[], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/null-layers", AS_IMAGE, "null-layers", 201, &[], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/artifact", AS_IMAGE, "artifact", 201, &[], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/data", AS_IMAGE, "data-field", 201, &[], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/foreign", AS_IMAGE, "foreign-layers", 201, &[], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/custom", AS_IMAGE, "custom-fields", 201, &[], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/large", AS_IMAGE, "large-manifest", 201, &[], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/docker", &[("Content-Type", DOCKER)], "docker", 201, &[], ""),
    row("end-7", "Pushing Manifests", "PUT", "/v2/c/one/manifests/docker-list", &[("Content-Type", DOCKER_LIST)], "docker-list", 201, &[], ""),
    row("end-7", "Pushing Manifests with Tags", "PUT", "/v2/c/one/manifests/{image}?tag=p1&tag=p2", AS_IMAGE, "image", 201, &[("oci-tag", "p1, p2")], ""),
    row("end-7", "Pushing Manifests with Tags", "PUT", "/v2/c/one/manifests/{image512}?tag=p512", AS_IMAGE, "image", 201, &[("oci-tag", "p512")], ""),
    row("end-7", "Pushing Manifests with Tags", "PUT", "/v2/c/one/manifests/{image}?tag=..", AS_IMAGE, "image", 400, &[], "TAG_INVALID"),
    row("end-7", "Pushing Manifests with Tags", "PUT", "/v2/c/one/manifests/{image}?tag=1&tag=2&tag=3&tag=4&tag=5&tag=6&tag=7&tag=8&tag=9&tag=10&tag=11&tag=12&tag=13&tag=14&tag=15&tag=16&tag=17", AS_IMAGE, "image", 414, &[], "TAG_INVALID"),
    row("end-7", "Pushing Manifests with Subject", "PUT", "/v2/c/one/manifests/signed", AS_IMAGE, "referrer", 201, &[("oci-subject", "{image}")], ""),
    row("end-7", "Pushing Manifests with Subject", "PUT", "/v2/c/one/manifests/signed-index", AS_INDEX, "referrer-index", 201, &[("oci-subject", "{image}")], ""),
    row("end-7", "Pushing Manifests with Subject", "PUT", "/v2/c/one/manifests/early", AS_IMAGE, "referrer-of-nothing", 201, &[("oci-subject", "{absent}")], ""),

    row("end-8a", "Listing Tags", "GET", "/v2/c/tags/tags/list", NONE, "={\"name\":\"c/tags\",\"tags\":[\"a\",\"b\",\"c\",\"d\"]}", 200, &[("link", "")], ""),
    row("end-8a", "Listing Tags", "GET", "/v2/c/nothing/tags/list", NONE, "", 404, &[], "NAME_UNKNOWN"),
    row("end-8b", "Listing Tags", "GET", "/v2/c/tags/tags/list?n=2", NONE, "={\"name\":\"c/tags\",\"tags\":[\"a\",\"b\"]}", 200, &[("link", "</v2/c/tags/tags/list?n=2&last=b>; rel=\"next\"")], ""),
    row("end-8b", "Listing Tags", "GET", "/v2/c/tags/tags/list?n=2&last=b", NONE, "={\"name\":\"c/tags\",\"tags\":[\"c\",\"d\"]}", 200, &[("link", "")], ""),
    row("end-8b", "Listing Tags", "GET", "/v2/c/tags/tags/list?last=c", NONE, "={\"name\":\"c/tags\",\"tags\":[\"d\"]}", 200, &[], ""),
    row("end-8b", "Listing Tags", "GET", "/v2/c/tags/tags/list?n=0", NONE, "={\"name\":\"c/tags\",\"tags\":[]}", 200, &[("link", "")], ""),
    row("end-8b", "Listing Tags", "GET", "/v2/c/tags/tags/list?n=9", NONE, "={\"name\":\"c/tags\",\"tags\":[\"a\",\"b\",\"c\",\"d\"]}", 200, &[("link", "")], ""),
    row("end-8b", "Listing Tags", "GET", "/v2/c/tags/tags/list?n=-1", NONE, "", 400, &[], "UNSUPPORTED"),

    row("end-9", "Deleting tags", "DELETE", "/v2/c/gone/manifests/t1", NONE, "", 202, &[], ""),
    row("end-9", "Deleting tags", "HEAD", "/v2/c/gone/manifests/t1", NONE, "", 404, &[], ""),
    row("end-9", "Deleting tags", "GET", "/v2/c/gone/manifests/t2", NONE, "=image", 200, &[], ""),
    row("end-9", "Deleting tags", "DELETE", "/v2/c/gone/manifests/t1", NONE, "", 404, &[], "MANIFEST_UNKNOWN"),
    row("end-9", "Deleting Manifests", "DELETE", "/v2/c/gone/manifests/{image}", NONE, "", 202, &[], ""),
    row("end-9", "Deleting Manifests", "HEAD", "/v2/c/gone/manifests/{image}", NONE, "", 404, &[], ""),
    row("end-9", "Deleting Manifests", "HEAD", "/v2/c/gone/manifests/t2", NONE, "", 404, &[], ""),
    row("end-9", "Deleting Manifests", "GET", "/v2/c/one/manifests/{image}", NONE, "=image", 200, &[], ""),
    row("end-9", "Deleting Manifests", "DELETE", "/v2/c/gone/manifests/{absent}", NONE, "", 404, &[], "MANIFEST_UNKNOWN"),
    row("end-10", "Deleting Blobs", "DELETE", "/v2/c/gone/blobs/{layer}", NONE, "", 202, &[], ""),
    row("end-10", "Deleting Blobs", "HEAD", "/v2/c/gone/blobs/{layer}", NONE, "", 404, &[], ""),
    row("end-10", "Deleting Blobs", "DELETE", "/v2/c/gone/blobs/{layer}", NONE, "", 404, &[], "BLOB_UNKNOWN"),
    row("end-10", "Deleting Blobs", "GET", "/v2/c/one/blobs/{layer}", NONE, "=layer", 200, &[], ""),

    row("end-11", "Mounting a blob from another repository", "POST", "/v2/c/mounted/blobs/uploads/?mount={layer}&from=c/one", NONE, "", 201, &[("location", "/v2/c/mounted/blobs/{layer}"), ("docker-content-digest", "{layer}")], ""),
    row("end-11", "Mounting a blob from another repository", "POST", "/v2/c/mounted/blobs/uploads/?mount={layer512}", NONE, "", 201, &[("location", "/v2/c/mounted/blobs/{layer512}")], ""),
    row("end-11", "Mounting a blob from another repository", "GET", "/v2/c/mounted/blobs/{layer}", NONE, "=layer", 200, &[], ""),
    row("end-11", "Mounting a blob from another repository", "POST", "/v2/c/mounted/blobs/uploads/?mount={absent}&from=c/one", NONE, "", 202, &[("location", "*")], ""),
    row("end-11", "Mounting a blob from another repository", "POST", "/v2/c/mounted/blobs/uploads/?mount={layer}&from=c/nothing", NONE, "", 202, &[("location", "*")], ""),
    row("end-11", "Mounting a blob from another repository", "POST", "/v2/c/mounted/blobs/uploads/?mount=sha256:baddigeststring&from=c/one", NONE, "", 400, &[], "DIGEST_INVALID"),
    row("end-11", "Mounting a blob from another repository", "POST", "/v2/c/mounted/blobs/uploads/?mount={layer}&from=C", NONE, "", 400, &[], "NAME_INVALID"),

    row("end-12a", "Listing Referrers", "GET", "/v2/c/one/referrers/{image}", NONE, "2 manifests", 200, &[("content-type", INDEX), ("oci-filters-applied", "")], ""),
    row("end-12a", "Listing Referrers", "GET", "/v2/c/one/referrers/{absent}", NONE, "1 manifests", 200, &[("content-type", INDEX)], ""),
    row("end-12a", "Listing Referrers", "GET", "/v2/c/nothing/referrers/{image}", NONE, "0 manifests", 200, &[("content-type", INDEX)], ""),
    row("end-12a", "Listing Referrers", "GET", "/v2/c/one/referrers/sha256:baddigeststring", NONE, "", 400, &[], "DIGEST_INVALID"),
    row("end-12b", "Listing Referrers", "GET", "/v2/c/one/referrers/{image}?artifactType=application/signature", NONE, "1 manifests", 200, &[("oci-filters-applied", "artifactType")], ""),
    row("end-12b", "Listing Referrers", "GET", "/v2/c/one/referrers/{image}?artifactType=application%2Fnone", NONE, "0 manifests", 200, &[("oci-filters-applied", "artifactType")], ""),

    row("end-13", "Pushing a blob in chunks", "GET", "{upload-of-5}", NONE, "", 204, &[("location", "*"), ("range", "0-4")], ""),
    row("end-13", "Pushing a blob in chunks", "GET", "/v2/c/one/blobs/uploads/0123456789abcdef0123456789abcdef", NONE, "", 404, &[], "BLOB_UPLOAD_UNKNOWN"),
    row("end-14", "Cancel a blob upload", "DELETE", "{upload-of-5}", NONE, "", 204, &[], ""),
    row("end-14", "Cancel a blob upload", "DELETE", "/v2/c/one/blobs/uploads/0123456789abcdef0123456789abcdef", NONE, "", 404, &[], "BLOB_UPLOAD_UNKNOWN"),

    row("errors", "Error Codes: UNSUPPORTED", "PATCH", "/v2/c/one/tags/list", NONE, "", 405, &[("allow", "GET, HEAD")], "UNSUPPORTED"),
    row("errors", "Error Codes: UNSUPPORTED", "GET", "/v1/", NONE, "", 404, &[], "UNSUPPORTED"),
    row("errors", "Error Codes: SIZE_INVALID", "PUT", "/v2/c/one/manifests/x", AS_IMAGE, "too-large-manifest", 413, &[], "SIZE_INVALID"),
];

fn digest(algorithm: Algorithm, bytes: &[u8]) -> String {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish().to_string()
}

fn link(kind: &str, bytes: &[u8]) -> serde_json::Value {
    json!({"mediaType": kind, "digest": digest(Algorithm::Sha256, bytes), "size": bytes.len()})
}

/// Bodies and names that the rows use.
struct Fixture {
    bodies: BTreeMap<&'static str, Vec<u8>>,
    words: BTreeMap<&'static str, String>,
}

impl Fixture {
    // Reasons: a list of bodies and names, read from top to bottom.
    #[allow(clippy::too_many_lines)]
    fn make(client: &Client) -> Self {
        let layer = noise("conformance", 4321);
        let config = br#"{"architecture":"amd64","os":"linux"}"#.to_vec();
        let layer_type = "application/vnd.oci.image.layer.v1.tar";
        let config_link = link("application/vnd.oci.image.config.v1+json", &config);
        let layers = json!([link(layer_type, &layer)]);
        let manifest = |extra: serde_json::Value| {
            let mut value = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config_link, "layers": layers});
            value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            value.to_string().into_bytes()
        };
        let index = |kind: &str, extra: serde_json::Value| {
            let mut value = json!({"schemaVersion": 2, "mediaType": kind, "manifests": []});
            value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            value.to_string().into_bytes()
        };
        let image = manifest(json!({}));
        let image_link = link(IMAGE, &image);
        let absent_link = json!({"mediaType": IMAGE, "digest": digest(Algorithm::Sha256, b"absent"), "size": 6});
        let simple_index = index(INDEX, json!({"manifests": [image_link]}));
        let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
        let mut with_data = link(layer_type, b"{}");
        with_data["data"] = "e30=".into();
        let filler = "A".repeat(10_000);
        let many =
            |number: usize| (0..number).map(|at| (format!("a{at}"), json!(filler))).collect::<serde_json::Map<_, _>>();
        let docker_image = manifest(json!({"mediaType": DOCKER}));
        let bodies = BTreeMap::from([
            ("", Vec::new()),
            ("empty", Vec::new()),
            ("hello", b"hello".to_vec()),
            ("other", noise("other", 70_000)),
            ("layer", layer.clone()),
            ("image", image.clone()),
            ("index", simple_index.clone()),
            ("nested-index", index(INDEX, json!({"manifests": [link(INDEX, &simple_index)]}))),
            ("empty-index", index(INDEX, json!({}))),
            ("sparse-index", index(INDEX, json!({"manifests": [image_link, absent_link]}))),
            ("lacking-index", index(INDEX, json!({"manifests": [absent_link]}))),
            ("lacking", manifest(json!({"layers": [absent_link]}))),
            ("no-layers", manifest(json!({"layers": []}))),
            ("null-layers", manifest(json!({"layers": null}))),
            (
                "artifact",
                manifest(
                    json!({"artifactType": "application/x", "config": link(EMPTY, b"{}"), "layers": [link(EMPTY, b"{}")]}),
                ),
            ),
            ("data-field", manifest(json!({"layers": [with_data]}))),
            (
                "foreign-layers",
                manifest(
                    json!({"layers": [{"mediaType": foreign, "digest": digest(Algorithm::Sha256, b"elsewhere"), "size": 9, "urls": ["https://store.example/x"]}]}),
                ),
            ),
            ("custom-fields", manifest(json!({"org.example.field": {"a": [1, 2, null]}}))),
            ("large-manifest", manifest(json!({"annotations": many(390)}))),
            ("too-large-manifest", manifest(json!({"annotations": many(430)}))),
            ("docker", docker_image.clone()),
            ("docker-list", index(DOCKER_LIST, json!({"manifests": [link(DOCKER, &docker_image)]}))),
            (
                "referrer",
                manifest(
                    json!({"artifactType": "application/signature", "subject": image_link, "annotations": {"k": "v"}}),
                ),
            ),
            ("referrer-index", index(INDEX, json!({"artifactType": "application/sbom", "subject": image_link}))),
            ("referrer-of-nothing", manifest(json!({"subject": absent_link}))),
        ]);
        let words = BTreeMap::from([
            ("layer", digest(Algorithm::Sha256, &layer)),
            ("layer512", digest(Algorithm::Sha512, &layer)),
            ("layer-size", layer.len().to_string()),
            ("layer-last", (layer.len() - 1).to_string()),
            ("empty", digest(Algorithm::Sha256, b"")),
            ("absent", digest(Algorithm::Sha256, b"absent")),
            ("hello", digest(Algorithm::Sha256, b"hello")),
            ("hellohello", digest(Algorithm::Sha256, b"hellohello")),
            ("other", digest(Algorithm::Sha256, &bodies["other"])),
            ("other512", digest(Algorithm::Sha512, &bodies["other"])),
            ("image", digest(Algorithm::Sha256, &image)),
            ("image512", digest(Algorithm::Sha512, &image)),
            ("image-size", image.len().to_string()),
        ]);
        let fixture = Self { bodies, words };
        for repository in ["c/one", "c/gone", "c/tags"] {
            for bytes in [&layer, &config, &b"{}".to_vec(), &Vec::new()] {
                client.push_blob(repository, bytes);
            }
            let path = format!("/v2/{repository}/blobs/uploads/?digest={}", fixture.words["layer512"]);
            assert_eq!(client.send("POST", &path, OCTETS, &layer).status, 201);
        }
        for (repository, reference) in [
            ("c/one", "v1"),
            ("c/one", &fixture.words["image512"]),
            ("c/gone", "t1"),
            ("c/gone", "t2"),
            ("c/tags", "c"),
            ("c/tags", "a"),
            ("c/tags", "d"),
            ("c/tags", "b"),
        ] {
            assert_eq!(client.put_manifest(repository, reference, &image).status, 201);
        }
        fixture
    }

    /// Puts the words in.
    fn fill(&self, client: &Client, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, length) in [("{upload}", 0), ("{upload-of-5}", 5)] {
            if text.contains(name) {
                let started = client.send("POST", "/v2/c/one/blobs/uploads/", &[], b"");
                let location = started.header("location").to_owned();
                if length > 0 {
                    assert_eq!(client.send("PATCH", &location, &[], b"hello").status, 202);
                }
                text = text.replace(name, &location);
            }
        }
        for (word, value) in &self.words {
            text = text.replace(&format!("{{{word}}}"), value);
        }
        text
    }

    /// What is wrong with an answer; empty when nothing is.
    fn compare(&self, client: &Client, row: &Row, reply: &Reply) -> Vec<String> {
        let mut wrong = Vec::new();
        if reply.status != row.status {
            wrong.push(format!("status {}: {}", reply.status, String::from_utf8_lossy(&reply.body)));
        }
        for (name, value) in row.expect {
            let (expected, found) = (self.fill(client, value), reply.header(name));
            if (expected == "*" && found.is_empty()) || (expected != "*" && expected != found) {
                wrong.push(format!("{name}: {found:?}, expected {expected:?}"));
            }
        }
        if !row.code.is_empty() && row.method != "HEAD" && reply.status >= 400 && reply.code() != row.code {
            wrong.push(format!("code {}, expected {}", reply.code(), row.code));
        }
        let whole = &self.bodies["layer"];
        let expected: Option<&[u8]> = match row.body {
            "=500-1499" => Some(&whole[500..1500]),
            "=500-" => Some(&whole[500..]),
            "=-500" => Some(&whole[whole.len() - 500..]),
            "=2000-" => Some(&whole[2000..]),
            body => body.strip_prefix('=').map(|name| self.bodies.get(name).map_or(name.as_bytes(), Vec::as_slice)),
        };
        if expected.is_some_and(|expected| expected != reply.body) {
            wrong.push(format!("another body: {}", String::from_utf8_lossy(&reply.body)));
        }
        if let Some(number) = row.body.strip_suffix(" manifests") {
            let (index, number) = (reply.json(), number.parse::<usize>().unwrap());
            if index["manifests"].as_array().map(Vec::len) != Some(number) || index["mediaType"] != INDEX {
                wrong.push(format!("{index}"));
            }
        }
        if row.method == "HEAD" && !reply.body.is_empty() {
            wrong.push("a body".to_owned());
        }
        wrong
    }
}

#[test]
fn each_row_of_the_endpoints_table() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    let fixture = Fixture::make(&client);
    let mut table: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for row in ROWS {
        let body = fixture.bodies.get(row.body).cloned().unwrap_or_default();
        let reply = client.send(row.method, &fixture.fill(&client, row.path), row.headers, &body);
        let differences = fixture.compare(&client, row, &reply);
        let counts = table.entry((row.end, row.section)).or_default();
        counts.0 += 1;
        if !differences.is_empty() {
            counts.1 += 1;
            wrong.push(format!("{} {}: {} {}: {}", row.end, row.section, row.method, row.path, differences.join("; ")));
        }
    }
    println!("{:<8} {:<50} {:>5} {:>5}", "END", "SECTION", "ROWS", "FAIL");
    for ((end, section), (rows, failed)) in &table {
        println!("{end:<8} {section:<50} {rows:>5} {failed:>5}");
    }
    println!("{} rows, {} failed", ROWS.len(), wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_clean(&bench.path("store"));
}

/// Each way to push a blob of three chunks, with each algorithm, right and with a wrong digest.
#[test]
fn end_4_to_6_every_way_to_push_with_every_algorithm() {
    const CHUNK: usize = 65_536;
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    let ways = [
        "post only",
        "post+put",
        "stream",
        "chunked",
        "chunked, last by put",
        "out of order",
        "out of order, last by put",
    ];
    let mut pushed = 0;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for way in ways {
            for is_good in [true, false] {
                let mut bytes = noise(&format!("{way} {algorithm:?} {is_good}"), CHUNK * 3 - 5);
                let digest = digest(algorithm, &bytes);
                if !is_good {
                    bytes.extend_from_slice(b"oh no");
                }
                let reply = push(&client, way, &bytes, &digest, CHUNK);
                let what = format!("{way}, {algorithm:?}, {is_good}");
                if is_good {
                    assert_eq!((reply.status, reply.header("docker-content-digest")), (201, digest.as_str()), "{what}");
                    assert!(client.get(reply.header("location")).body == bytes, "{what}");
                    let path = format!("/v2/w/blobs/{digest}");
                    assert_eq!(client.send("DELETE", &path, &[], b"").status, 202, "{what}");
                    pushed += 1;
                } else {
                    assert_eq!((reply.status, reply.code().as_str()), (400, "DIGEST_INVALID"), "{what}");
                }
                assert_eq!(client.head(&format!("/v2/w/blobs/{digest}")).status, 404, "{what}");
            }
        }
    }
    assert_eq!(pushed, ways.len() * 2);
    assert_clean(&bench.path("store"));
}

/// The answer to the last request.
fn push(client: &Client, way: &str, bytes: &[u8], digest: &str, chunk: usize) -> Reply {
    let start = "/v2/w/blobs/uploads/";
    if way == "post only" {
        return client.send("POST", &format!("{start}?digest={digest}"), OCTETS, bytes);
    }
    let started = client.send("POST", start, &[], b"");
    assert!(started.header("oci-chunk-min-length").parse::<usize>().unwrap() <= chunk);
    let mut location = started.header("location").to_owned();
    let finish = |location: &str| format!("{location}?digest={digest}");
    match way {
        "post+put" => return client.send("PUT", &finish(&location), OCTETS, bytes),
        "stream" => {
            let reply = client.send("PATCH", &location, OCTETS, bytes);
            assert_eq!(reply.status, 202);
            return client.send("PUT", &finish(reply.header("location")), OCTETS, b"");
        }
        _ => {}
    }
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + chunk);
        if way.starts_with("out of order") {
            let bad = if end < bytes.len() { end } else { 0 };
            let range = format!("{bad}-{}", bytes.len().min(bad + chunk) - 1);
            let body = &bytes[bad..bytes.len().min(bad + chunk)];
            let reply = client.send("PATCH", &location, &[("Content-Range", &range)], body);
            // The very first chunk of an upload that has no byte is in order when it begins at 0.
            if bad != at {
                assert_eq!((reply.status, reply.header("location")), (416, location.as_str()), "{range} at {at}");
                let status = client.get(&location);
                let last = at.saturating_sub(1);
                assert_eq!((status.status, status.header("range")), (204, format!("0-{last}").as_str()));
            }
        }
        let range = format!("{at}-{}", end - 1);
        let is_last_by_put = way.ends_with("last by put") && end == bytes.len();
        let (method, path) = if is_last_by_put { ("PUT", finish(&location)) } else { ("PATCH", location.clone()) };
        let reply = client.send(method, &path, &[("Content-Range", &range)], &bytes[at..end]);
        if is_last_by_put {
            return reply;
        }
        assert_eq!((reply.status, reply.header("range")), (202, format!("0-{}", end - 1).as_str()));
        reply.header("location").clone_into(&mut location);
        at = end;
    }
    client.send("PUT", &finish(&location), OCTETS, b"")
}

#[test]
fn end_7_a_sparse_manifest_is_taken_when_the_site_wants_it_and_fsck_knows() {
    let bench = Bench::new();
    let mut config = bench.plain_config();
    config.sparse_manifests = true;
    let server = Running::start(config);
    let client = server.admin();
    let (_, image) = client.push_image("a", "whole", b"layer");
    let sparse = String::from_utf8(image)
        .unwrap()
        .replace(&Digest::sha256_of(b"layer").to_string(), &Digest::sha256_of(b"never pushed").to_string());
    let reply = client.put_manifest("a", "sparse", sparse.as_bytes());
    assert_eq!(reply.status, 201);
    assert_eq!(reply.header("warning"), "299 - \"the repository does not hold 1 of the manifest's blobs\"");
    assert_eq!(client.get("/v2/a/manifests/sparse").body, sparse.as_bytes());
    assert_eq!(client.get("/v2/a/manifests/whole").header("warning"), "");
    assert_clean(&bench.path("store"));
    // Garbage collection leaves it alone, and the missing blob can be pushed later.
    let store = airgap_registry::Store::open(&bench.path("store")).unwrap();
    store.gc(&crate::import::NO_GRACE).unwrap();
    assert_eq!(client.get("/v2/a/manifests/sparse").status, 200);
}

#[test]
fn error_codes_toomanyrequests_and_unauthorized_and_denied() {
    let bench = Bench::new();
    let mut config = bench.plain_config();
    config.limits.uploads = 3;
    config.policy =
        Some(bench.write("policy.yaml", "rules: [{repositories: [a], who: ['user:ada'], allow: [pull, push]}]"));
    let server = Running::start(config);
    let client = server.admin();
    let start = || client.send("POST", "/v2/a/blobs/uploads/", &[], b"");
    let first = start();
    for _ in 0..2 {
        assert_eq!(start().status, 202);
    }
    let reply = start();
    assert_eq!((reply.status, reply.code().as_str()), (429, "TOOMANYREQUESTS"));
    assert!(!reply.header("retry-after").is_empty());
    assert_eq!(client.send("DELETE", first.header("location"), &[], b"").status, 204);
    assert_eq!(start().status, 202);
    let reply = client.send("POST", "/v2/b/blobs/uploads/", &[], b"");
    assert_eq!((reply.status, reply.code().as_str()), (403, "DENIED"));
    let reply = client.anonymous().get("/v2/a/tags/list");
    assert_eq!((reply.status, reply.code().as_str()), (401, "UNAUTHORIZED"));
}
