//! What hostile or broken clients do; each ends with a refusal and a clean store.

use std::io::{Read, Write};
use std::process::Command;

use bundle::oci::Digest;

use crate::harness::{Bench, Running, USER, assert_clean, attempt, run};
use crate::http::Client;

/// Everything below the store, to see that nothing came or went.
fn tree(bench: &Bench) -> String {
    run("find", &[bench.path("store").as_str(), "-type", "f", "-printf", "%P %s\n"])
}

#[test]
fn hostile_paths_never_leave_the_store() {
    let bench = Bench::new();
    bench.write("secret", b"outside");
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    client.push_image("a", "1", b"layer");
    let before = tree(&bench);
    for path in [
        "/v2/../../secret",
        "/v2/a/manifests/../../../../../secret",
        "/v2/a/manifests/..%2f..%2f..%2fsecret",
        "/v2/%2e%2e/%2e%2e/manifests/1",
        "/v2/a/blobs/sha256:../../../../secret",
        "/v2/a/blobs/sha256%3A..%2F..%2F..%2Fsecret",
        "/v2/a/../a/manifests/1",
        "/v2/a//manifests/1",
        "/v2/a/_manifests/manifests/1",
        "/v2/_uploads/manifests/1",
        "/v2/a%00/manifests/1",
        "/v2/a/manifests/1%00",
        "/v2/a/manifests/1?ns=..%2f..",
        "/v2/a/manifests/1?ns=%00",
        "/v2/a/referrers/sha256:..",
        "/v2/a/blobs/uploads/..%2f..%2flock",
        "//v2/a/manifests/1",
        "/v2/a/tags/list/../../../secret",
    ] {
        for method in ["GET", "PUT", "PATCH", "POST", "DELETE"] {
            let reply =
                client.send(method, path, &[("Content-Type", "application/vnd.oci.image.manifest.v1+json")], b"{}");
            assert!((400..500).contains(&reply.status), "{method} {path}: {reply:?}");
            assert!(!reply.body.windows(7).any(|window| window == b"outside"), "{path}");
        }
    }
    assert_eq!(tree(&bench), before);
    // The longest name that is allowed is taken, one longer is not.
    let longest = format!("{}/{}", "a".repeat(127), "b".repeat(127));
    assert_eq!(longest.len(), 255);
    client.push_blob(&longest, b"x");
    assert_eq!(client.send("POST", &format!("/v2/{longest}c/blobs/uploads/"), &[], b"").status, 400);
    assert_clean(&bench.path("store"));
}

#[test]
fn lies_about_digests_and_uploads_leave_nothing() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    client.push_blob("a", b"honest");
    let before = tree(&bench);
    let promised = Digest::sha256_of(b"good").to_string();
    let upload = client.send("POST", "/v2/a/blobs/uploads/", &[], b"").header("location").to_owned();
    let reply = client.send("PUT", &format!("{upload}?digest={promised}"), &[], b"evil");
    assert_eq!((reply.status, reply.code().as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(client.get(&format!("/v2/a/blobs/{promised}")).status, 404);
    assert_eq!(client.get(&upload).status, 404, "the upload is gone");
    let reply = client.send("POST", &format!("/v2/a/blobs/uploads/?digest={promised}"), &[], b"evil");
    assert_eq!(reply.status, 400);
    for digest in ["", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", &promised.to_uppercase()] {
        let upload = client.send("POST", "/v2/a/blobs/uploads/", &[], b"").header("location").to_owned();
        let reply = client.send("PUT", &format!("{upload}?digest={digest}"), &[], b"good");
        assert_eq!((reply.status, reply.code().as_str()), (400, "DIGEST_INVALID"), "{digest:?}");
        assert_eq!(client.send("PUT", &upload, &[], b"").status, 400, "without a digest");
        assert_eq!(client.send("DELETE", &upload, &[], b"").status, 204);
    }
    // An upload belongs to its repository.
    let upload = client.send("POST", "/v2/a/blobs/uploads/", &[], b"").header("location").to_owned();
    let foreign = upload.replace("/v2/a/", "/v2/b/");
    for method in ["GET", "PATCH", "PUT", "DELETE"] {
        let reply = client.send(method, &format!("{foreign}?digest={promised}"), &[], b"good");
        assert_eq!((reply.status, reply.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"), "{method}");
    }
    assert_eq!(client.get("/v2/a/blobs/uploads/00000000000000000000000000000000").status, 404);
    assert_eq!(client.send("DELETE", &upload, &[], b"").status, 204);
    assert_eq!(tree(&bench), before);
    assert_clean(&bench.path("store"));
}

#[test]
fn too_much_is_refused() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    let kind = "application/vnd.oci.image.index.v1+json";
    let filler = "x".repeat(airgap_registry::MAXIMUM_MANIFEST);
    let large = format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"x":"{filler}"}}}}"#);
    let reply = client.send("PUT", "/v2/a/manifests/1", &[("Content-Type", kind)], large.as_bytes());
    assert_eq!(reply.status, 413);
    // The same without a length: chunks until it is too much.
    let mut head = format!(
        "PUT /v2/a/manifests/1 HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nAuthorization: Basic "
    );
    head += &base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{}:{}", USER.0, USER.1));
    let mut stream = client.connect();
    stream.write_all(format!("{head}\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n", large.len()).as_bytes()).unwrap_or(());
    assert_eq!(crate::http::read_reply(stream, false).status, 413);
    // The largest that is allowed.
    let fits = large.replace(&filler, &filler[..filler.len() - 100]);
    assert_eq!(client.send("PUT", "/v2/a/manifests/1", &[("Content-Type", kind)], fits.as_bytes()).status, 201);

    let long = "y".repeat(40 << 10);
    assert!(matches!(client.send("GET", "/v2/", &[("X-Long", &long)], b"").status, 400 | 431));
    assert!(matches!(client.get(&format!("/v2/?x={}", "y".repeat(80 << 10))).status, 0 | 400 | 414 | 431));
    let many: Vec<_> = (0..100).map(|_| ("X-Many", "1")).collect();
    assert!(matches!(client.send("GET", "/v2/", &many, b"").status, 400 | 431));
}

/// The corpus: one file per attack, the request as it goes over the wire (`\\0` and `\\xNN` are bytes, ends of lines are
/// CR LF), and in the first line the answers that are right (0: closed without one).
#[test]
fn each_attack_of_the_corpus_is_refused_and_changes_nothing() {
    let bench = Bench::new();
    bench.write("secret", b"outside");
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    client.push_image("a", "1", b"layer");
    let before = tree(&bench);
    let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{}:{}", USER.0, USER.1));
    let blob = Digest::sha256_of(b"layer").to_string();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/registry/attacks");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut wrong = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let (first, request) = text.split_once('\n').unwrap();
        let statuses: Vec<u16> =
            first.strip_prefix("# status: ").unwrap().split(' ').map(|status| status.parse().unwrap()).collect();
        let request = request.replace("{auth}", &auth).replace("{blob}", &blob);
        let reply = client.raw(&bytes_of(&request));
        let leaks = reply.body.windows(7).any(|window| window == b"outside");
        let injected = reply.headers.contains_key("set-cookie") || reply.header("www-authenticate").contains("evil");
        if !statuses.contains(&reply.status) || leaks || injected {
            wrong.push(format!("{}: {} {:?}", file.display(), reply.status, String::from_utf8_lossy(&reply.body)));
        }
    }
    println!("{} attacks", files.len());
    assert!(wrong.is_empty() && files.len() >= 60, "{wrong:#?}");
    assert_eq!(client.get("/v2/").status, 200);
    let uploads = tree(&bench).lines().filter(|line| line.starts_with("uploads/")).count();
    assert_eq!(uploads, 0, "an upload was left");
    assert_eq!(tree(&bench), before);
    assert_clean(&bench.path("store"));
}

/// Ends of lines and escapes of a file of the corpus.
fn bytes_of(text: &str) -> Vec<u8> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let ends = if text.contains("\n\n") { "\r\n\r\n" } else { "" };
    let is_chunked = head.contains("Transfer-Encoding");
    let body = if is_chunked { body.replace('\n', "\r\n") } else { body.to_owned() };
    let whole = format!("{}{ends}{body}", head.replace('\n', "\r\n"));
    let mut bytes = Vec::new();
    let mut rest = whole.as_str();
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let length = match escape.as_bytes()[0] {
            b'0' => {
                bytes.push(0);
                1
            }
            b'x' => {
                bytes.push(u8::from_str_radix(&escape[1..3], 16).unwrap());
                3
            }
            other => {
                bytes.push(other);
                1
            }
        };
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[test]
fn who_may_do_what_is_proven_by_certificate_or_password() {
    let bench = Bench::new();
    let config = bench.tls_config();
    let server = Running::start(config);
    let (blob, user) = (bench.write("blob", b"blob"), format!("{}:{}", USER.0, USER.1));
    let digest = Digest::sha256_of(b"blob");
    let push = format!("/v2/a/blobs/uploads/?digest={digest}");
    let pull = format!("/v2/a/blobs/{digest}");
    let certificate = |name: &str| {
        vec![
            "--cert".to_owned(),
            bench.path(&format!("pki/{name}.crt")).into_string(),
            "--key".to_owned(),
            bench.path(&format!("pki/{name}.key")).into_string(),
        ]
    };
    let password = |user: &str| vec!["--user".to_owned(), user.to_owned()];
    let curl = |identity: &[String], method: &str, path: &str| {
        let url = format!("https://localhost:{}{path}", server.address.port());
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--cacert",
            bench.path("pki/ca.crt").as_str(),
            "-X",
            method,
        ]);
        if method == "POST" {
            command.args(["--data-binary", &format!("@{blob}")]);
        }
        let output = command.args(identity).arg(url).output().expect("curl must be installed");
        String::from_utf8(output.stdout).unwrap()
    };
    let both = [certificate("node"), password(&user)].concat();
    let wrong = [certificate("admin"), password("ada:wrong")].concat();
    // First an administrator, so that there is something to pull. 000: the handshake failed.
    for (who, identity, pushed, pulled, listed, deleted) in [
        ("admin certificate", certificate("admin"), "201", "200", "200", "404"),
        ("password", password(&user), "201", "200", "200", "404"),
        ("node certificate and password", both, "201", "200", "200", "404"),
        ("node certificate", certificate("node"), "403", "200", "403", "403"),
        ("nobody", vec![], "401", "401", "401", "401"),
        ("empty password", password(":"), "401", "401", "401", "401"),
        ("wrong password", password("ada:wrong"), "401", "401", "401", "401"),
        ("unknown user", password("bob:x"), "401", "401", "401", "401"),
        ("admin certificate and wrong password", wrong, "401", "401", "401", "401"),
        ("certificate of no organisation that counts", certificate("stranger"), "403", "403", "403", "403"),
        ("certificate of a foreign CA", certificate("forged"), "000", "000", "000", "000"),
        ("server certificate as client", certificate("not-client"), "000", "000", "000", "000"),
    ] {
        let seen = [
            curl(&identity, "POST", &push),
            curl(&identity, "GET", &pull),
            curl(&identity, "GET", "/v2/_catalog"),
            curl(&identity, "DELETE", "/v2/a/manifests/1"),
        ];
        assert_eq!(seen, [pushed, pulled, listed, deleted], "{who}");
        if pushed != "000" {
            assert_eq!(
                curl(&identity, "GET", "/healthz"),
                if who.contains("wrong") || who.contains("unknown") { "401" } else { "200" },
                "{who}"
            );
        }
    }
    // Nothing older than TLS 1.2, and no plain HTTP.
    let url = format!("https://localhost:{}/v2/", server.address.port());
    let ca = bench.path("pki/ca.crt");
    let host = format!("localhost:{}", server.address.port());
    for (protocol, works) in [("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &host, "-CAfile", ca.as_str(), "-verify_return_error", protocol])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.success(), works, "{protocol}");
    }
    assert_eq!(Client { address: server.address, user: None }.get("/v2/").status, 0);
    assert!(!attempt("curl", &["-sS", &url]).0, "an unknown CA is not trusted by the client");
    assert_clean(&bench.path("store"));
}

#[test]
fn a_body_that_never_ends_keeps_what_came_and_hurts_nobody() {
    let bench = Bench::new();
    let server = Running::start(bench.plain_config());
    let client = server.admin();
    let upload = client.send("POST", "/v2/a/blobs/uploads/", &[], b"").header("location").to_owned();
    let mut stream = client.open("PATCH", &upload, &[], 1_000_000);
    stream.write_all(&vec![7; 300_000]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    drop(stream);
    // The bytes that came are there, and the upload goes on behind them.
    let reply = client.get(&upload);
    assert_eq!((reply.status, reply.header("range")), (204, "0-299999"));
    assert_eq!(client.send("PATCH", &upload, &[("Content-Range", "300000-300001")], &[7; 2]).status, 202);
    let digest = Digest::sha256_of(&vec![7; 300_002]);
    assert_eq!(client.send("PUT", &format!("{upload}?digest={digest}"), &[], b"").status, 201);
    // A client that reads only the head of a large answer.
    let path = format!("/v2/a/blobs/{}", client.push_blob("a", &vec![9; 20 << 20]));
    for _ in 0..20 {
        let mut stream = client.open("GET", &path, &[], 0);
        stream.read_exact(&mut [0; 100]).unwrap();
    }
    assert_eq!(client.get("/v2/").status, 200);
    assert_clean(&bench.path("store"));
}
