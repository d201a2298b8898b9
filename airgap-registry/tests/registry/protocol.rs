//! The OCI distribution specification, endpoint by endpoint; the "end-N" are those of its table.

use bundle::oci::Digest;
use serde_json::json;

use crate::harness::{Bench, Running, assert_clean, noise};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[test]
fn end_1_the_base_says_that_this_is_a_registry() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let reply = server.admin().get("/v2/");
    assert_eq!((reply.status, reply.header("docker-distribution-api-version")), (200, "registry/2.0"));
    let reply = server.admin().anonymous().get("/v2/");
    assert_eq!((reply.status, reply.code().as_str()), (401, "UNAUTHORIZED"));
    assert!(reply.header("www-authenticate").starts_with("Basic realm="));
    for page in ["/healthz", "/readyz"] {
        assert_eq!(server.admin().anonymous().get(page).status, 200);
    }
}

#[test]
fn end_2_and_3_what_was_pushed_is_pulled() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    let layer = noise("layer", 3 << 20);
    let (digest, manifest) = client.push_image("k8s.gcr.io/pause", "3.2", &layer);
    for reference in ["3.2", digest.as_str()] {
        let path = format!("/v2/k8s.gcr.io/pause/manifests/{reference}");
        for reply in [client.get(&path), client.head(&path)] {
            assert_eq!(reply.status, 200);
            assert_eq!(reply.header("content-type"), "application/vnd.oci.image.manifest.v1+json");
            assert_eq!(reply.header("docker-content-digest"), digest);
            assert_eq!(reply.header("content-length"), manifest.len().to_string());
        }
        assert_eq!(client.get(&path).body, manifest);
    }
    let layer_digest = Digest::sha256_of(&layer);
    let path = format!("/v2/k8s.gcr.io/pause/blobs/{layer_digest}");
    let reply = client.get(&path);
    assert!(reply.status == 200 && reply.body == layer);
    let reply = client.head(&path);
    assert_eq!((reply.status, reply.header("content-length")), (200, layer.len().to_string().as_str()));
    let etag = reply.header("etag").to_owned();
    assert_eq!(client.send("GET", &path, &[("If-None-Match", &etag)], b"").status, 304);

    // The namespace of a mirror request: the upstream host is the head of the repository's name.
    for (path, status) in [
        ("/v2/pause/manifests/3.2?ns=k8s.gcr.io", 200),
        ("/v2/pause/manifests/3.2?ns=K8S.gcr.io", 200),
        ("/v2/pause/manifests/3.2", 404),
        ("/v2/pause/manifests/3.2?ns=docker.io", 404),
        ("/v2/k8s.gcr.io/pause/manifests/3.2?ns=k8s.gcr.io", 404),
        (&format!("/v2/k8s.gcr.io/pause/manifests/3.2?ns={}", server.address), 200),
        ("/v2/pause/manifests/3.2?ns=..", 400),
        ("/v2/pause/manifests/3.2?ns=a%2Fb", 400),
        ("/v2/pause/manifests/3.2?ns=", 400),
        ("/v2/pause/manifests/3.2?ns=a&ns=k8s.gcr.io", 400),
    ] {
        assert_eq!(client.get(path).status, status, "{path}");
    }

    let other = Digest::sha256_of(b"other");
    for (path, status, code) in [
        (format!("/v2/k8s.gcr.io/pause/blobs/{other}"), 404, "BLOB_UNKNOWN"),
        (format!("/v2/another/blobs/{layer_digest}"), 404, "BLOB_UNKNOWN"),
        (format!("/v2/k8s.gcr.io/pause/manifests/{other}"), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/k8s.gcr.io/pause/manifests/{layer_digest}"), 404, "MANIFEST_UNKNOWN"),
        ("/v2/k8s.gcr.io/pause/manifests/9".to_owned(), 404, "MANIFEST_UNKNOWN"),
        ("/v2/k8s.gcr.io/nothing/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("/v2/k8s.gcr.io/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("/v2/UPPER/tags/list".to_owned(), 400, "NAME_INVALID"),
    ] {
        let reply = client.get(&path);
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{path}");
    }
    assert_clean(&bench.path("store"));
}

#[test]
fn end_2_ranges_of_a_blob() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    // More than two pieces of a file body.
    let blob = noise("range", 700_001);
    let path = format!("/v2/a/blobs/{}", client.push_blob("a", &blob));
    for (range, status, content_range, start, end) in [
        ("bytes=0-0", 206, "bytes 0-0/700001", 0, 1),
        ("bytes=100-299", 206, "bytes 100-299/700001", 100, 300),
        ("bytes=1-", 206, "bytes 1-700000/700001", 1, 700_001),
        ("bytes=-5", 206, "bytes 699996-700000/700001", 699_996, 700_001),
        ("bytes=262143-524289", 206, "bytes 262143-524289/700001", 262_143, 524_290),
        ("bytes=0-9999999", 206, "bytes 0-700000/700001", 0, 700_001),
        ("bytes=0-1,5-6", 200, "", 0, 700_001),
        ("bytes=700001-", 416, "bytes */700001", 0, 0),
        ("bytes=9-3", 416, "bytes */700001", 0, 0),
        ("bytes=x", 416, "bytes */700001", 0, 0),
    ] {
        let reply = client.send("GET", &path, &[("Range", range)], b"");
        assert_eq!((reply.status, reply.header("content-range")), (status, content_range), "{range}");
        if status != 416 {
            assert!(reply.body == blob[start..end], "{range}");
        }
    }
    let reply = client.send("GET", &path, &[("Range", "bytes=0-1"), ("If-Range", "\"other\"")], b"");
    assert_eq!((reply.status, reply.body.len()), (200, blob.len()));
}

#[test]
fn end_4_to_6_and_13_every_way_to_push_a_blob() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    let blob = noise("push", 1_500_000);
    let digest = Digest::sha256_of(&blob).to_string();
    let start = "/v2/lib/a/blobs/uploads/";

    // 4b: all in one POST.
    let reply = client.send("POST", &format!("{start}?digest={digest}"), &[], &blob);
    assert_eq!((reply.status, reply.header("location")), (201, format!("/v2/lib/a/blobs/{digest}").as_str()));
    assert_eq!(reply.header("docker-content-digest"), digest);

    // 4a, 5, 6: in chunks, in order.
    let other = noise("chunks", 1_000_000);
    let other_digest = Digest::sha256_of(&other).to_string();
    let started = client.send("POST", start, &[], b"");
    assert_eq!((started.status, started.header("range")), (202, "0-0"));
    let upload = started.header("location").to_owned();
    let chunk = |range: &str, bytes: &[u8]| client.send("PATCH", &upload, &[("Content-Range", range)], bytes);
    assert_eq!(chunk("0-399999", &other[..400_000]).header("range"), "0-399999");
    for (range, bytes, status, code) in [
        ("0-399999", &other[..400_000], 416, "BLOB_UPLOAD_INVALID"),
        ("500000-599999", &other[500_000..600_000], 416, "BLOB_UPLOAD_INVALID"),
        ("400000-400001", &other[400_000..500_000], 400, "SIZE_INVALID"),
        ("nonsense", &other[400_000..500_000], 416, "BLOB_UPLOAD_INVALID"),
    ] {
        let reply = chunk(range, bytes);
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{range}");
    }
    let reply = client.get(&upload);
    assert_eq!((reply.status, reply.header("range")), (204, "0-399999"));
    assert_eq!(chunk("400000-499999", &other[400_000..500_000]).status, 202);
    // A stream without Content-Range goes to the end, and the last part may come with the PUT.
    assert_eq!(client.send("PATCH", &upload, &[], &other[500_000..700_000]).header("range"), "0-699999");
    let reply = client.send(
        "PUT",
        &format!("{upload}?digest={other_digest}"),
        &[("Content-Range", "700000-999999")],
        &other[700_000..],
    );
    assert_eq!(reply.status, 201);
    assert!(client.get(&format!("/v2/lib/a/blobs/{other_digest}")).body == other);
    assert_eq!(client.get(&upload).code(), "BLOB_UPLOAD_UNKNOWN");

    // 11: mounted from another repository; what cannot be mounted becomes an upload.
    for (query, status) in [
        (format!("mount={digest}&from=lib/a"), 201),
        (format!("mount={digest}"), 201),
        (format!("mount={digest}&from=lib/nothing"), 202),
        (format!("mount={}&from=lib/a", Digest::sha256_of(b"?")), 202),
        ("mount=nonsense&from=lib/a".to_owned(), 400),
        (format!("mount={digest}&from=../a"), 400),
    ] {
        let reply = client.send("POST", &format!("/v2/lib/mounted/blobs/uploads/?{query}"), &[], b"");
        assert_eq!(reply.status, status, "{query}");
    }
    assert!(client.get(&format!("/v2/lib/mounted/blobs/{digest}")).body == blob);

    // Cancelled.
    let upload = client.send("POST", start, &[], b"").header("location").to_owned();
    assert_eq!(client.send("DELETE", &upload, &[], b"").status, 204);
    assert_eq!(client.send("PUT", &format!("{upload}?digest={digest}"), &[], &blob).status, 404);

    // SHA-512, and an empty blob.
    let mut hasher = bundle::oci::Hasher::new(bundle::oci::Algorithm::Sha512);
    hasher.update(&blob);
    let long = hasher.finish();
    for query in ["", "?digest-algorithm=sha512"] {
        let upload = client.send("POST", &format!("{start}{query}"), &[], b"").header("location").to_owned();
        assert_eq!(client.send("PUT", &format!("{upload}?digest={long}"), &[], &blob).status, 201);
    }
    assert!(client.get(&format!("/v2/lib/a/blobs/{long}")).body == blob);
    assert_eq!(client.send("POST", &format!("{start}?digest-algorithm=md5"), &[], b"").status, 400);
    let empty = client.push_blob("lib/a", b"");
    let reply = client.get(&format!("/v2/lib/a/blobs/{empty}"));
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_clean(&bench.path("store"));
}

#[test]
fn end_7_a_manifest_is_taken_when_all_of_it_is_there() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    let (digest, manifest) = client.push_image("a", "1", b"layer");
    let missing = String::from_utf8(manifest.clone())
        .unwrap()
        .replace(&Digest::sha256_of(b"layer").to_string(), &Digest::sha256_of(b"never pushed").to_string());
    let reply = client.put_manifest("a", "2", missing.as_bytes());
    assert_eq!((reply.status, reply.code().as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(reply.json()["errors"][0]["detail"]["digests"][0], Digest::sha256_of(b"never pushed").to_string());
    // What another repository holds is taken from there: who pushes may read it.
    assert_eq!(client.put_manifest("b", "1", &manifest).status, 201);
    assert_eq!(client.get(&format!("/v2/b/blobs/{}", Digest::sha256_of(b"layer"))).body, b"layer");
    let wrong = client.put_manifest("a", &Digest::sha256_of(b"other").to_string(), &manifest);
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "DIGEST_INVALID"));
    for (kind, body, status) in [
        ("application/vnd.oci.image.manifest.v1+json", "{}", 400),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}", 415),
        ("text/html", "{}", 415),
        (OCI_INDEX, std::str::from_utf8(&manifest).unwrap(), 400),
    ] {
        let reply = client.send("PUT", "/v2/a/manifests/3", &[("Content-Type", kind)], body.as_bytes());
        assert_eq!((reply.status, reply.code().as_str()), (status, "MANIFEST_INVALID"), "{kind}");
    }
    // An index: complete, sparse, and of nothing that is here.
    let entry = |digest: &str| json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len()});
    let absent = Digest::sha256_of(b"arm64").to_string();
    for (tag, entries, status) in [
        ("whole", vec![entry(&digest)], 201),
        ("sparse", vec![entry(&digest), entry(&absent)], 201),
        ("empty", vec![], 201),
        ("absent", vec![entry(&absent)], 404),
    ] {
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string();
        let reply =
            client.send("PUT", &format!("/v2/a/manifests/{tag}"), &[("Content-Type", OCI_INDEX)], index.as_bytes());
        assert_eq!(reply.status, status, "{tag}");
        assert_eq!(client.get(&format!("/v2/a/manifests/{tag}")).status, if status == 201 { 200 } else { 404 });
    }
    // A Docker manifest comes back as one.
    let docker = String::from_utf8(manifest)
        .unwrap()
        .replace("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json");
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    assert_eq!(client.send("PUT", "/v2/a/manifests/docker", &[("Content-Type", kind)], docker.as_bytes()).status, 201);
    assert_eq!(client.head("/v2/a/manifests/docker").header("content-type"), kind);
    assert_clean(&bench.path("store"));
}

#[test]
fn end_8_tags_in_pages_and_the_catalog_for_administrators() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    let (_, manifest) = client.push_image("x/y", "b", b"layer");
    for tag in ["a", "c", "d"] {
        client.put_manifest("x/y", tag, &manifest);
    }
    client.put_manifest("x", "only", &manifest);
    assert_eq!(client.get("/v2/x/y/tags/list").json(), json!({"name": "x/y", "tags": ["a", "b", "c", "d"]}));
    let mut path = "/v2/x/y/tags/list?n=3".to_owned();
    let mut pages = Vec::new();
    loop {
        let reply = client.get(&path);
        pages.push(reply.json()["tags"].clone());
        let Some(next) = reply.header("link").strip_prefix('<').and_then(|link| link.split_once('>')) else { break };
        assert_eq!(next.1, "; rel=\"next\"");
        path = next.0.to_owned();
    }
    assert_eq!(pages, [json!(["a", "b", "c"]), json!(["d"])]);
    assert_eq!(client.get("/v2/x/y/tags/list?n=0").json()["tags"], json!([]));
    assert_eq!(client.get("/v2/x/y/tags/list?n=x").status, 400);
    assert_eq!(client.get("/v2/_catalog").json(), json!({"repositories": ["x", "x/y"]}));
    assert_eq!(client.get("/v2/_catalog?n=1").json(), json!({"repositories": ["x"]}));
    assert_eq!(client.anonymous().get("/v2/_catalog").status, 401);
}

#[test]
fn end_9_and_10_what_is_deleted_is_gone() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    let (digest, manifest) = client.push_image("a", "1", b"layer");
    client.put_manifest("a", "2", &manifest);
    client.put_manifest("b", "1", &manifest);
    let delete = |path: &str| client.send("DELETE", path, &[], b"").status;
    assert_eq!(delete("/v2/a/manifests/1"), 202);
    assert_eq!(delete("/v2/a/manifests/1"), 404);
    assert_eq!(client.get("/v2/a/manifests/2").status, 200);
    assert_eq!(delete(&format!("/v2/a/manifests/{digest}")), 202);
    assert_eq!(client.get("/v2/a/manifests/2").status, 404);
    assert_eq!(client.get("/v2/a/tags/list").json()["tags"], json!([]));
    let blob = format!("/v2/a/blobs/{}", Digest::sha256_of(b"layer"));
    assert_eq!((delete(&blob), delete(&blob), client.get(&blob).status), (202, 404, 404));
    // The other repository has all of it.
    assert_eq!(client.get("/v2/b/manifests/1").body, manifest);
    assert_eq!(client.get(&format!("/v2/b/blobs/{}", Digest::sha256_of(b"layer"))).body, b"layer");
    assert_clean(&bench.path("store"));
}

#[test]
fn end_12_referrers() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    let (subject, manifest) = client.push_image("a", "1", b"layer");
    let empty = client.push_blob("a", b"{}");
    let mut digests = Vec::new();
    for kind in ["application/spdx", "application/signature"] {
        let referrer = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": kind,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
            "layers": [],
            "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject, "size": manifest.len()},
            "annotations": {"kind": kind},
        });
        let reply = client.put_manifest(
            "a",
            &Digest::sha256_of(referrer.to_string().as_bytes()).to_string(),
            referrer.to_string().as_bytes(),
        );
        assert_eq!((reply.status, reply.header("oci-subject")), (201, subject.as_str()));
        digests.push(reply.header("docker-content-digest").to_owned());
    }
    let path = format!("/v2/a/referrers/{subject}");
    let reply = client.get(&path);
    assert_eq!((reply.status, reply.header("content-type")), (200, OCI_INDEX));
    assert_eq!(reply.json()["manifests"].as_array().unwrap().len(), 2);
    let reply = client.get(&format!("{path}?artifactType=application%2Fspdx"));
    assert_eq!(reply.header("oci-filters-applied"), "artifactType");
    let found = reply.json()["manifests"].clone();
    assert_eq!((found.as_array().unwrap().len(), found[0]["artifactType"].as_str()), (1, Some("application/spdx")));
    assert_eq!(found[0]["annotations"]["kind"], "application/spdx");
    assert_eq!(client.send("DELETE", &format!("/v2/a/manifests/{}", digests[0]), &[], b"").status, 202);
    assert_eq!(client.get(&path).json()["manifests"].as_array().unwrap().len(), 1);
    let nothing = client.get(&format!("/v2/nowhere/referrers/{subject}"));
    assert_eq!((nothing.status, nothing.json()["manifests"].clone()), (200, json!([])));
}

#[test]
fn anonymous_pull_is_a_switch_and_never_more_than_pull() {
    let bench = Bench::new();
    let mut config = bench.plain_config();
    let image = {
        let server = Running::start(config.clone());
        server.admin().push_image("a", "1", b"layer");
        server.admin().anonymous().get("/v2/a/manifests/1").status
    };
    assert_eq!(image, 401);
    config.anonymous_pull = true;
    let server = Running::start(config);
    let nobody = server.admin().anonymous();
    assert_eq!(nobody.get("/v2/a/manifests/1").status, 200);
    // The challenge is there all the same: clients that push learn from it how to say who they are.
    let base = nobody.get("/v2/");
    assert!(base.status == 200 && base.header("www-authenticate").starts_with("Basic"));
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/"),
        ("PUT", "/v2/a/manifests/1"),
        ("DELETE", "/v2/a/manifests/1"),
        ("GET", "/v2/_catalog"),
    ] {
        assert_eq!(nobody.send(method, path, &[], b"").status, 401, "{method} {path}");
    }
}
