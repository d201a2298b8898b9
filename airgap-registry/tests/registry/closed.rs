//! Who gets in, how far, and what a client may cost: policy, tokens, passwords, certificates, limits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bundle::oci::Digest;
use serde_json::Value;

use crate::harness::{Bench, Process, Running, USER, assert_clean, attempt, run};
use crate::http::{Client, read_reply};

const POLICY: &str = "
rules:
  - { repositories: ['team/**'], who: ['user:ada'], allow: [pull, push] }
  - { repositories: ['team/**'], who: ['user:bob'], allow: [pull] }
  - { repositories: [public], who: [anyone], allow: [pull] }
  - { repositories: [public], who: ['user:ada'], allow: [push, delete] }
";

fn with_policy(bench: &Bench) -> airgap_registry::Config {
    let mut config = bench.plain_config();
    let ada = bcrypt::hash(USER.1, 4).unwrap();
    let bob = argon_hash("bobs password");
    config.htpasswd = Some(bench.write("htpasswd", format!("ada:{ada}\nbob:{bob}\n")));
    config.policy = Some(bench.write("policy.yaml", POLICY));
    config.tokens = Some(airgap_registry::TokensConfig::default());
    config
}

fn argon_hash(password: &str) -> String {
    use argon2::password_hash::{PasswordHasher, SaltString};
    let params = argon2::Params::new(64, 1, 1, None).unwrap();
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    argon.hash_password(password.as_bytes(), &SaltString::from_b64("c2FsdHNhbHRzYWx0").unwrap()).unwrap().to_string()
}

#[test]
fn a_policy_file_says_who_may_do_what_where() {
    let bench = Bench::new();
    let server = Process::start(&bench, &with_policy(&bench));
    let ada = server.admin();
    let bob = Client { user: Some(("bob", "bobs password")), ..ada.clone() };
    let nobody = ada.anonymous();
    ada.push_image("team/app", "1", b"secret layer");
    ada.push_image("public", "1", b"public layer");
    let secret = format!("/v2/team/app/blobs/{}", Digest::sha256_of(b"secret layer"));
    let mount = format!("mount={}", Digest::sha256_of(b"secret layer"));
    for (who, client, method, path, status) in [
        ("ada", &ada, "GET", "/v2/team/app/manifests/1", 200),
        ("ada", &ada, "GET", "/v2/other/manifests/1", 403),
        ("ada", &ada, "POST", "/v2/other/blobs/uploads/", 403),
        ("ada", &ada, "DELETE", "/v2/team/app/manifests/1", 403),
        ("ada", &ada, "GET", "/v2/_catalog", 403),
        ("ada", &ada, "GET", "/metrics", 403),
        ("ada", &ada, "GET", "/v2/", 200),
        ("bob", &bob, "GET", "/v2/team/app/manifests/1", 200),
        ("bob", &bob, "GET", &secret, 200),
        ("bob", &bob, "POST", "/v2/team/app/blobs/uploads/", 403),
        ("bob", &bob, "PUT", "/v2/team/app/manifests/1", 403),
        ("nobody", &nobody, "GET", "/v2/public/manifests/1", 200),
        ("nobody", &nobody, "GET", "/v2/team/app/manifests/1", 401),
        ("nobody", &nobody, "GET", &secret, 401),
        ("nobody", &nobody, "POST", "/v2/public/blobs/uploads/", 401),
        // What one may not read cannot be mounted into what one may push to.
        ("ada", &ada, "POST", &format!("/v2/public/blobs/uploads/?{mount}&from=team/app"), 201),
        ("ada", &ada, "DELETE", "/v2/public/manifests/1", 202),
    ] {
        assert_eq!(client.send(method, path, &[], b"").status, status, "{who} {method} {path}");
    }

    // A new policy is read on SIGHUP; one that cannot be used changes nothing.
    bench.write("policy.yaml", "rules: [{repositories: ['**'], who: ['user:bob'], allow: [pull, push, fly]}]");
    server.signal("HUP");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(bob.get("/v2/team/app/manifests/1").status, 200);
    bench.write("policy.yaml", "rules: [{repositories: [team/app], who: ['user:ada'], allow: [pull]}, {repositories: [mine], who: ['user:bob'], allow: [pull, push]}]");
    server.signal("HUP");
    let deadline = Instant::now() + Duration::from_secs(10);
    while bob.get("/v2/team/app/manifests/1").status != 403 {
        assert!(Instant::now() < deadline, "the new policy does not hold");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Bob knows the digest of what he may no longer read: neither a mount nor a manifest gets it for him.
    for query in [format!("{mount}&from=team/app"), mount.clone()] {
        let reply = bob.send("POST", &format!("/v2/mine/blobs/uploads/?{query}"), &[], b"");
        assert_eq!(reply.status, 202, "an upload, not a mount");
    }
    let manifest = ada.get("/v2/team/app/manifests/1").body;
    bob.push_blob("mine", br#"{"architecture":"amd64","os":"linux"}"#);
    let reply = bob.put_manifest("mine", "1", &manifest);
    assert_eq!((reply.status, reply.code().as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    server.kill();
    assert_clean(&bench.path("store"));
}

fn token(client: &Client, scopes: &[&str]) -> (u16, String) {
    let query = ["service=cofferdam-registry"].iter().chain(scopes).copied().collect::<Vec<_>>().join("&scope=");
    let reply = client.get(&format!("/token?{query}"));
    let text = if reply.status == 200 { reply.json()["token"].as_str().unwrap().to_owned() } else { String::new() };
    (reply.status, text)
}

#[test]
fn a_token_is_good_for_what_it_was_asked_for_and_no_more() {
    let bench = Bench::new();
    let server = Running::start(with_policy(&bench));
    let ada = server.admin();
    let nobody = ada.anonymous();
    ada.push_image("team/app", "1", b"layer");
    let with = |token: &str, method: &str, path: &str| {
        nobody.send(method, path, &[("Authorization", &format!("Bearer {token}"))], b"").status
    };
    // The challenge says where, and for what.
    let challenge = nobody.get("/v2/team/app/manifests/1").header("www-authenticate").to_owned();
    let expected = format!(
        "Bearer realm=\"http://{}/token\",service=\"cofferdam-registry\",scope=\"repository:team/app:pull\", Basic",
        server.address
    );
    assert!(challenge.starts_with(&expected), "{challenge}");

    let (status, pull) = token(&ada, &["repository:team/app:pull"]);
    assert_eq!(status, 200);
    assert_eq!(with(&pull, "GET", "/v2/team/app/manifests/1"), 200);
    assert_eq!(with(&pull, "POST", "/v2/team/app/blobs/uploads/"), 401, "ask for more");
    assert_eq!(with(&pull, "GET", "/v2/public/manifests/1"), 401);
    let (_, push) = token(&ada, &["repository:team/app:pull,push,delete", "repository:other:push"]);
    assert_eq!(with(&push, "POST", "/v2/team/app/blobs/uploads/"), 202);
    assert_eq!(with(&push, "DELETE", "/v2/team/app/manifests/1"), 401, "the policy gave no delete");
    assert_eq!(with(&push, "POST", "/v2/other/blobs/uploads/"), 401);
    // What the token says for people: claims in the open, and no more access than the policy has.
    let claims = push.split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["sub"], &claims["aud"]), (&"user:ada".into(), &"cofferdam-registry".into()));
    assert_eq!(claims["access"][0]["actions"], serde_json::json!(["pull", "push"]));
    assert_eq!(claims["access"][1]["actions"], serde_json::json!([]));

    // Somebody with a wrong password gets none; nobody gets one for what is public.
    let wrong = Client { user: Some(("ada", "wrong")), ..ada.clone() };
    assert_eq!(token(&wrong, &["repository:team/app:pull"]).0, 401);
    let (status, public) = token(&nobody, &["repository:public:pull", "repository:team/app:pull"]);
    assert_eq!(status, 200);
    assert_eq!(with(&public, "GET", "/v2/public/manifests/none"), 404);
    assert_eq!(with(&public, "GET", "/v2/team/app/manifests/1"), 401);
    for forged in ["", "a.b.c", &pull[..pull.len() - 2], &format!("{pull}x"), &pull.replacen('.', "..", 1)] {
        assert_eq!(with(forged, "GET", "/v2/team/app/manifests/1"), 401, "{forged}");
    }
    assert_eq!(ada.get("/token?service=another").status, 400);
    assert_eq!(ada.send("POST", "/token", &[], b"grant_type=password").status, 405);
}

#[test]
fn skopeo_and_oci_client_sign_in_with_tokens() {
    use bundle::create::RegistryOptions;
    let bench = Bench::new();
    let layout = bench.layout(&["app"], 100_000);
    let server = Running::start(with_policy(&bench));
    let at = format!("docker://{}/team/app:1", server.address);
    let source = format!("oci:{layout}:app");
    let credentials = format!("{}:{}", USER.0, USER.1);
    run(
        "skopeo",
        &["--insecure-policy", "copy", "--dest-tls-verify=false", "--dest-creds", &credentials, &source, &at],
    );
    run("skopeo", &["inspect", "--tls-verify=false", "--creds", "bob:bobs password", &at]);
    // A bundle is made from it: oci-client pulls with the credentials of a file.
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "bob:bobs password");
    let auth_file = bench.write("auth.json", format!(r#"{{"auths":{{"{}":{{"auth":"{basic}"}}}}}}"#, server.address));
    let report = crate::import::bundle_of(
        &bench,
        &format!("{}/team/app:1", server.address),
        RegistryOptions { ca_file: None, auth_file: Some(auth_file) },
    );
    assert_eq!(report.index.images.len(), 1);
    let (good, text) = attempt(
        "skopeo",
        &["--insecure-policy", "copy", "--dest-tls-verify=false", "--dest-creds", "bob:bobs password", &source, &at],
    );
    assert!(
        !good && (text.contains("denied") || text.contains("unauthorized") || text.contains("authentication")),
        "{text}"
    );
    assert!(!attempt("skopeo", &["inspect", "--tls-verify=false", &at]).0);
}

#[test]
fn one_address_has_only_so_many_connections() {
    let bench = Bench::new();
    let mut config = bench.plain_config();
    config.limits.connections_per_address = 5;
    let server = Running::start(config);
    let client = server.admin();
    let held: Vec<TcpStream> = (0..5)
        .map(|_| {
            let mut stream = client.connect();
            // Answered once, so that it is certain that the server has taken it.
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 10]).unwrap();
            stream
        })
        .collect();
    assert_eq!(client.get("/healthz").status, 0, "one too many is closed");
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.get("/healthz").status != 200 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A client that sends next to nothing is cut off; one that is slow and gets on is not.
#[test]
fn what_makes_no_progress_is_cut_and_what_is_slow_is_not() {
    let bench = Bench::new();
    let mut config = bench.plain_config();
    (config.limits.head_seconds, config.limits.idle_seconds) = (2, 2);
    let server = Running::start(config);
    let client = server.admin();
    let upload = client.send("POST", "/v2/a/blobs/uploads/", &[], b"").header("location").to_owned();
    let slow = std::thread::spawn({
        let (client, upload) = (client.clone(), upload.clone());
        move || {
            // Eight seconds for a body, four times the patience, with progress in each.
            let mut stream = client.open("PATCH", &upload, &[], 16 * 4096);
            for _ in 0..16 {
                std::thread::sleep(Duration::from_millis(500));
                stream.write_all(&[7; 4096]).unwrap();
            }
            read_reply(stream, false).status
        }
    });
    let trickles: Vec<_> = [
        ("the head of a read", "GET /v2/ HTTP/1.1\r\nHost: x\r\nX: "),
        ("the head of a write", "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nX: "),
        ("nothing at all", ""),
    ]
    .into_iter()
    .map(|(what, start)| {
        let client = client.clone();
        std::thread::spawn(move || {
            let mut stream = client.connect();
            stream.write_all(start.as_bytes()).unwrap();
            let before = Instant::now();
            // A byte now and then, for much longer than the patience.
            while before.elapsed() < Duration::from_secs(20) {
                if !start.is_empty() && stream.write_all(b"x").is_err() {
                    return;
                }
                stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                match stream.read(&mut [0; 100]) {
                    Ok(0) => return,
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                    _ => {}
                }
            }
            panic!("{what} was not cut off");
        })
    })
    .collect();
    // A body that trickles: what came is kept, and the client is told.
    let other = client.send("POST", "/v2/a/blobs/uploads/", &[], b"").header("location").to_owned();
    let mut stream = client.open("PATCH", &other, &[], 100_000);
    stream.write_all(&[1; 50]).unwrap();
    let reply = read_reply(stream, false);
    assert_eq!(reply.status, 408);
    assert_eq!(client.get(&other).header("range"), "0-49");
    for trickle in trickles {
        trickle.join().unwrap();
    }
    assert_eq!(slow.join().unwrap(), 202);
}

#[test]
fn a_disk_that_is_nearly_full_takes_no_more() {
    let bench = Bench::new();
    let mut config = bench.plain_config();
    {
        let server = Running::start(config.clone());
        server.admin().push_image("a", "1", b"layer");
    }
    // More than any disk has.
    config.limits.free_space_mib = 1 << 40;
    let server = Running::start(config);
    let client = server.admin();
    let reply = client.send("POST", "/v2/a/blobs/uploads/", &[], b"");
    assert_eq!((reply.status, reply.code().as_str()), (507, "DENIED"));
    let manifest = client.get("/v2/a/manifests/1").body;
    assert_eq!(client.put_manifest("a", "2", &manifest).status, 507);
    assert_eq!(client.send("DELETE", "/v2/a/manifests/1", &[], b"").status, 202, "what makes room is allowed");
}

#[test]
fn only_hardened_suites_and_a_certificate_is_replaced_under_open_connections() {
    let bench = Bench::new();
    let config = bench.tls_config();
    let server = Process::start(&bench, &config);
    let (address, ca) = (server.address.to_string(), bench.path("pki/ca.crt"));
    let connects = |arguments: &[&str]| {
        let common = ["s_client", "-connect", &address, "-CAfile", ca.as_str(), "-verify_return_error"];
        let output = Command::new("openssl").args(common).args(arguments).stdin(Stdio::null()).output().unwrap();
        output.status.success()
    };
    for (arguments, works) in [
        (vec!["-tls1_3"], true),
        (vec!["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], true),
        (vec!["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"], false),
        (vec!["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], true),
        (vec!["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], true),
        (vec!["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"], false),
        (vec!["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], false),
        (vec!["-tls1_2", "-cipher", "AES256-GCM-SHA384"], false),
        (vec!["-tls1_2", "-cipher", "DHE-RSA-AES256-GCM-SHA384"], false),
        (vec!["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], false),
        (vec!["-groups", "P-256"], true),
        (vec!["-groups", "P-521"], false),
    ] {
        assert_eq!(connects(&arguments), works, "{arguments:?}");
    }
    // A connection that is open while the certificate is replaced goes on.
    let mut open = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &address, "-CAfile", ca.as_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut to, mut from) = (open.stdin.take().unwrap(), open.stdout.take().unwrap());
    let mut ask = || {
        to.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        to.flush().unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            let mut byte = [0];
            from.read_exact(&mut byte).expect("the connection was dropped");
            answer.push(byte[0]);
        }
    };
    ask();
    let serial = || {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-CAfile", ca.as_str()])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).split("-----END").next().unwrap_or_default().to_owned()
    };
    let before = serial();
    bench.leaf("server", "ca", "/CN=registry.test", "subjectAltName=DNS:localhost,IP:127.0.0.1", "serverAuth");
    server.signal("HUP");
    let deadline = Instant::now() + Duration::from_secs(10);
    while serial() == before {
        assert!(Instant::now() < deadline, "the old certificate is still there");
    }
    ask();
    open.kill().unwrap();
    open.wait().unwrap();
}
