//! What others say about our bundles, and we about theirs: tar, zstd, minisign, skopeo, docker-registry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bench::{Bench, Layout, gzip, run, tar_of, try_run};
use bundle::index::Index;
use bundle::keys::{Signature, SigningKey, TrustedKeys};
use camino::Utf8PathBuf;

/// Decompresses and untars a bundle with the system's tools.
fn unpack(bench: &Bench, bundle: &str) -> Utf8PathBuf {
    let (file, tar, directory) = (bench.path(bundle), bench.path("unpacked.tar"), bench.path("unpacked"));
    run("zstd", &["-t", "-q", file.as_str()]);
    run("zstd", &["-d", "-q", "-f", file.as_str(), "-o", tar.as_str()]);
    fs::create_dir_all(&directory).unwrap();
    run("tar", &["-xf", tar.as_str(), "-C", directory.as_str()]);
    directory
}

#[test]
fn tar_and_zstd_read_a_bundle() {
    let bench = Bench::new();
    let created = bench.create(&bench.sample_yaml(), "a.tar.zst").unwrap();
    let directory = unpack(&bench, "a.tar.zst");
    let members = run("tar", &["-tf", bench.path("unpacked.tar").as_str()]);
    let mut expected = vec![
        "cofferdam/index.json".to_owned(),
        "cofferdam/index.json.minisig".to_owned(),
        "oci-layout".to_owned(),
        "index.json".to_owned(),
    ];
    expected.extend(created.index.blobs.iter().map(|blob| format!("blobs/sha256/{}", blob.digest.hex())));
    assert_eq!(members.lines().collect::<Vec<_>>(), expected);
    let listing = run("tar", &["--numeric-owner", "--utc", "-tvf", bench.path("unpacked.tar").as_str()]);
    assert!(
        listing.lines().all(|line| line.starts_with("-rw-r--r-- 0/0") && line.contains("1970-01-01 00:00")),
        "{listing}"
    );
    // One frame per member: zstd -l counts them.
    let frames = run("zstd", &["-l", "-v", bench.path("a.tar.zst").as_str()]);
    assert!(frames.contains(&format!("# Zstandard Frames: {}", expected.len())), "{frames}");
    for blob in &created.index.blobs {
        assert_eq!(bench::digest_of(&directory.join("blobs/sha256").join(blob.digest.hex())), blob.digest);
    }
}

#[test]
fn skopeo_reads_every_image_of_the_layout() {
    let bench = Bench::new();
    let created = bench.create(&bench.sample_yaml(), "a.tar.zst").unwrap();
    let directory = unpack(&bench, "a.tar.zst");
    for image in &created.index.images {
        let raw = run("skopeo", &["inspect", "--raw", &format!("oci:{directory}:{}", image.reference)]);
        assert_eq!(bundle::oci::Digest::sha256_of(raw.as_bytes()), image.digest);
        let config = run("skopeo", &["inspect", "--config", &format!("oci:{directory}:{}", image.reference)]);
        assert!(config.contains("amd64"), "the right architecture was chosen: {config}");
        // A whole copy reads every layer.
        let copy = bench.path("copy");
        run(
            "skopeo",
            &[
                "copy",
                "-q",
                "--preserve-digests",
                &format!("oci:{directory}:{}", image.reference),
                &format!("dir:{copy}"),
            ],
        );
    }
    for pack in &created.index.packs {
        let raw = run("skopeo", &["inspect", "--raw", &format!("oci:{directory}:{}", pack.layout_name())]);
        assert_eq!(bundle::oci::Digest::sha256_of(raw.as_bytes()), pack.digest);
    }
}

#[test]
fn minisign_verifies_our_signature() {
    let bench = Bench::new();
    bench.create(&bench.sample_yaml(), "a.tar.zst").unwrap();
    let index = unpack(&bench, "a.tar.zst").join("cofferdam/index.json");
    let said = run("minisign", &["-V", "-H", "-p", bench.keys.public.as_str(), "-m", index.as_str()]);
    assert!(said.contains("Signature and comment signature verified"), "{said}");
    assert!(said.contains("Trusted comment: cofferdam bundle sample 1.2.3"), "{said}");
    fs::write(&index, fs::read_to_string(&index).unwrap().replace("1.2.3", "1.2.4")).unwrap();
    assert!(!try_run("minisign", &["-V", "-p", bench.keys.public.as_str(), "-m", index.as_str()]).status.success());
}

#[test]
fn we_use_keys_and_signatures_of_minisign() {
    let bench = Bench::new();
    let (secret, public, message) = (bench.path("m.key"), bench.path("m.pub"), bench.write("message", "hello"));
    run("minisign", &["-G", "-W", "-s", secret.as_str(), "-p", public.as_str()]);
    run("minisign", &["-S", "-s", secret.as_str(), "-m", message.as_str()]);
    let trusted = TrustedKeys::load(&[&public]).unwrap();
    let theirs = Signature::parse(&fs::read(bench.path("message.minisig")).unwrap()).unwrap();
    let id = trusted.verify(b"hello", &theirs).unwrap();
    assert!(fs::read_to_string(&public).unwrap().contains(&id.to_string()), "the id prints as minisign prints it");
    assert!(trusted.verify(b"hallo", &theirs).is_err());
    // Our signature with their key, checked by them.
    let ours = SigningKey::load(&secret, None).unwrap().sign(b"hello", "by cofferdam");
    fs::write(bench.path("message.minisig"), ours).unwrap();
    run("minisign", &["-V", "-p", public.as_str(), "-m", message.as_str()]);
}

/// Loads a bundle of one image and gives its index and manifest.
fn bundle_of_one(bench: &Bench, source: &str) -> Result<(Index, bundle::oci::ImageManifest), bundle::Error> {
    let yaml = format!(
        "schema-version: 1\nname: one\nversion: 1.0.0\narchitecture: amd64\npacks:\n  - name: one\n    version: '1'\n    \
         layer: addon\n    description: one image\n    images: [{{ name: 'registry.example/one:1', source: '{source}' }}]\n"
    );
    let created = bench.create(&yaml, "one.tar.zst")?;
    let (result, sink) = bench.load(&fs::read(created.path).unwrap());
    result.unwrap();
    let state = sink.state.lock().unwrap();
    let manifest = serde_json::from_slice(&state.blobs[&created.index.images[0].digest]).unwrap();
    Ok((created.index, manifest))
}

#[test]
fn archives_that_skopeo_made() {
    let bench = Bench::new();
    let layout = bench.layout(&["app"]);
    let source = format!("oci:{layout}:app");
    let (oci, docker) = (bench.path("oci.tar"), bench.path("docker.tar"));
    run("skopeo", &["copy", "-q", "--preserve-digests", &source, &format!("oci-archive:{oci}:app")]);
    run("skopeo", &["copy", "-q", &source, &format!("docker-archive:{docker}:registry.example/app:1")]);

    let (direct, _) = bundle_of_one(&bench, &source).unwrap();
    let (from_oci, _) = bundle_of_one(&bench, "oci-archive:oci.tar:app").unwrap();
    assert_eq!(from_oci.images, direct.images, "the archive holds the same manifest");
    assert_eq!(bundle_of_one(&bench, "oci-archive:oci.tar").unwrap().0.images, direct.images);

    let (from_docker, manifest) = bundle_of_one(&bench, "docker-archive:docker.tar").unwrap();
    let named = bundle_of_one(&bench, "docker-archive:docker.tar:registry.example/app:1").unwrap().0;
    assert_eq!(from_docker, named, "the conversion is deterministic");
    assert_eq!(manifest.layers.len(), 2);
    assert!(manifest.layers.iter().all(|layer| layer.media_type == "application/vnd.oci.image.layer.v1.tar"));
    // The layers are the uncompressed ones that the image's configuration names.
    let config = run("skopeo", &["inspect", "--config", &source]);
    for layer in &manifest.layers {
        assert!(config.contains(&layer.digest.to_string()), "{layer:?} in {config}");
    }
    // And skopeo takes the converted image for a good one.
    let directory = unpack(&bench, "one.tar.zst");
    let copy = bench.path("copy");
    run("skopeo", &["copy", "-q", &format!("oci:{directory}:registry.example/one:1"), &format!("dir:{copy}")]);

    for (source, says) in [
        ("docker-archive:docker.tar:registry.example/other:1", "no such image"),
        ("oci-archive:oci.tar:other", "no image named"),
        ("oci-archive:docker.tar", "index.json"),
        ("docker-archive:oci.tar", "manifest.json"),
        ("docker-archive:bundle.yaml", "tar archive"),
        ("oci:images:other", "no image named"),
        ("oci:images", "several images"),
    ] {
        let error = bundle_of_one(&bench, source).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains(says), "{source}: {error}");
    }
    let zipped = bench.write("zipped.tar", bench::pipe("gzip", &["-c"], &fs::read(&docker).unwrap()));
    let error = bundle_of_one(&bench, &format!("docker-archive:{zipped}")).unwrap_err();
    assert!(error.to_string().contains("gunzip"), "{error}");
}

#[test]
fn an_image_for_another_architecture_is_refused() {
    let bench = Bench::new();
    let mut layout = Layout::new(bench.path("images"));
    let manifest = layout.image("arm64", &[tar_of("a", b"b")]);
    layout.tag(manifest, "arm");
    layout.finish();
    let error = bundle_of_one(&bench, "oci:images:arm").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("linux/arm64"), "{error}");
}

#[test]
fn a_damaged_layout_is_refused() {
    let bench = Bench::new();
    let layout = bench.layout(&["app"]);
    let (index, manifest) = bundle_of_one(&bench, "oci:images:app").unwrap();
    let parts = [index.images[0].digest, manifest.config.digest, manifest.layers[0].digest, manifest.layers[1].digest];
    for digest in parts {
        let path = layout.join("blobs/sha256").join(digest.hex());
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        for bytes in [&bad[..], &good[..good.len() - 1], b""] {
            fs::write(&path, bytes).unwrap();
            let error = bundle_of_one(&bench, "oci:images:app").unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.to_string().contains(&digest.to_string()), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(bundle_of_one(&bench, "oci:images:app").is_err());
        fs::write(&path, good).unwrap();
    }
    bundle_of_one(&bench, "oci:images:app").unwrap();
}

/// A Debian docker-registry on a free port of loopback.
struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    fn start(bench: &Bench, tls: Option<(&str, &str)>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let tls = tls.map_or(String::new(), |(certificate, key)| {
            format!("  tls: {{ certificate: {certificate}, key: {key} }}\n")
        });
        let config = bench.write(
            "registry.yml",
            format!(
                "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\n\
                 http:\n  addr: 127.0.0.1:{port}\n{tls}",
                bench.path("registry")
            ),
        );
        let child = Command::new("docker-registry")
            .args(["serve", config.as_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the peer docker-registry must be installed");
        let registry = Self { child, port };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return registry;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("docker-registry does not answer");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn pulls_from_a_registry_on_loopback() {
    let bench = Bench::new();
    let mut layout = Layout::new(bench.path("images"));
    let big: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let manifest = layout.image("amd64", &[gzip(b"small"), tar_of("big", &big)]);
    layout.tag(manifest, "app");
    layout.finish();
    bench.layout_multi();
    let registry = Registry::start(&bench, None);
    let host = format!("127.0.0.1:{}", registry.port);
    let push = |source: &str, name: &str, more: &[&str]| {
        let (source, target) = (format!("oci:{}:{source}", bench.path("images")), format!("docker://{host}/{name}"));
        let arguments =
            [&["copy", "-q", "--dest-tls-verify=false"], more, &[source.as_str(), target.as_str()]].concat();
        run("skopeo", &arguments);
    };
    push("app", "app:1", &["--preserve-digests"]);
    push("app", "docker:1", &["--format", "v2s2"]);
    push("multi", "multi:1", &["--all", "--preserve-digests"]);

    let (direct, _) = bundle_of_one(&bench, "oci:images:app").unwrap();
    let (pulled, _) = bundle_of_one(&bench, &format!("docker://{host}/app:1")).unwrap();
    assert_eq!(pulled, direct);
    let pinned = format!("{host}/app@{}", direct.images[0].digest);
    assert_eq!(bundle_of_one(&bench, &pinned).unwrap().0, direct);
    let (multi, _) = bundle_of_one(&bench, &format!("{host}/multi:1")).unwrap();
    assert_eq!(multi.images, bundle_of_one(&bench, "oci:images:multi").unwrap().0.images);

    let (docker, _) = bundle_of_one(&bench, &format!("{host}/docker:1")).unwrap();
    assert_eq!(docker.images[0].media_type, "application/vnd.oci.image.manifest.v1+json", "converted");
    let directory = unpack(&bench, "one.tar.zst");
    run("skopeo", &["inspect", &format!("oci:{directory}:registry.example/one:1")]);

    let error = bundle_of_one(&bench, &format!("{host}/nothing:1")).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("nothing"), "{error}");
    // A blob that the registry damaged.
    let layer = &direct.blobs.iter().find(|blob| blob.size > 1_000_000).unwrap().digest.hex();
    let data = bench.path("registry").join(format!("docker/registry/v2/blobs/sha256/{}/{layer}/data", &layer[..2]));
    let mut bytes = fs::read(&data).unwrap();
    bytes[1000] ^= 1;
    fs::write(&data, bytes).unwrap();
    let error = bundle_of_one(&bench, &format!("{host}/app:1")).unwrap_err();
    assert!(error.to_string().contains(layer), "{error}");
}

#[test]
fn pulls_over_tls_with_a_private_ca_only_if_it_is_named() {
    let bench = Bench::new();
    bench.layout(&["app"]);
    let (authority, authority_key) = (bench.path("ca.crt"), bench.path("ca.key"));
    let (certificate, key) = (bench.path("tls.crt"), bench.path("tls.key"));
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let openssl = |more: &[&str]| run("openssl", &[&request[..], more].concat());
    openssl(&["-subj", "/CN=test CA", "-keyout", authority_key.as_str(), "-out", authority.as_str()]);
    openssl(&[
        "-subj",
        "/CN=registry",
        "-CA",
        authority.as_str(),
        "-CAkey",
        authority_key.as_str(),
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        key.as_str(),
        "-out",
        certificate.as_str(),
    ]);
    let registry = Registry::start(&bench, Some((certificate.as_str(), key.as_str())));
    let image = format!("127.0.0.1:{}/app:1", registry.port);
    run(
        "skopeo",
        &[
            "copy",
            "-q",
            "--dest-tls-verify=false",
            &format!("oci:{}:app", bench.path("images")),
            &format!("docker://{image}"),
        ],
    );
    let error = bundle_of_one(&bench, &image).unwrap_err();
    assert_eq!(error.exit_code(), 1, "{error}");

    let yaml = fs::read_to_string(bench.path("bundle.yaml")).unwrap();
    let options = bundle::create::RegistryOptions { ca_file: Some(authority), auth_file: None };
    bench.create_with(&yaml, "tls.tar.zst", options).unwrap();
}
