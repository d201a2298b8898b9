//! Keys in all forms in which OpenSSL writes them, requests, and the key pairs of packs.

use certs::{
    Fqdn, ImportRequest, KeyAlgorithm, KeyKind, PackSecretKind, PrivateKey, ServerNames, import, parse_certificates,
};

use crate::bench::{Bench, FQDN, P256, Recipe, SERVER, now};

#[test]
fn openssl_reads_our_keys_and_we_read_its_forms() {
    let bench = Bench::new();
    for algorithm in KeyAlgorithm::ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        bench.write("ours.key", key.to_pem().as_bytes());
        bench.openssl("pkey -in ours.key -check -noout");
        assert_eq!(bench.openssl("pkey -in ours.key -pubout"), key.public_key_pem().unwrap(), "{algorithm}");
    }
    let table = [
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out it.key", KeyKind::EcdsaP256),
        ("ecparam -name secp384r1 -genkey -out it.key", KeyKind::EcdsaP384),
        ("ecparam -name prime256v1 -genkey -noout -out it.key", KeyKind::EcdsaP256),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out it.key", KeyKind::EcdsaP521),
        ("genpkey -algorithm ED25519 -out it.key", KeyKind::Ed25519),
        ("genrsa -out it.key 2048", KeyKind::Rsa(2048)),
        ("genrsa -traditional -out it.key 3072", KeyKind::Rsa(3072)),
    ];
    for (command, kind) in table {
        bench.openssl(command);
        let text = bench.read("it.key");
        let key = PrivateKey::from_pem(&text).unwrap_or_else(|error| panic!("{command}: {error}"));
        assert_eq!(*key.kind(), kind);
        bench.write("again.key", key.to_pem().as_bytes());
        assert_eq!(bench.openssl("pkey -in again.key -pubout"), bench.openssl("pkey -in it.key -pubout"), "{command}");
    }
}

#[test]
fn keys_that_cannot_be_used_say_why() {
    let bench = Bench::new();
    let table = [
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:geheim -out it.key", "passphrase"),
        ("genrsa -traditional -aes256 -passout pass:geheim -out it.key 2048", "passphrase"),
        ("genrsa -out it.key 1024", "1024 bits"),
        ("genrsa -traditional -out it.key 1024", "1024 bits"),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1 -out it.key", "not supported"),
        ("genpkey -algorithm X25519 -out it.key", "not supported"),
        ("genpkey -algorithm ED448 -out it.key", "not supported"),
    ];
    for (command, reason) in table {
        bench.openssl(command);
        let error = PrivateKey::from_pem(&bench.read("it.key")).unwrap_err();
        assert!(error.to_string().contains(reason), "{command}: {error}");
        assert!(error.hint().is_some(), "{command}");
    }
}

#[test]
fn a_request_is_answered_by_an_authority_elsewhere_and_the_answer_imported() {
    let bench = Bench::new();
    let fqdn: Fqdn = FQDN.parse().unwrap();
    let names = ServerNames::new(fqdn.clone()).with_short_name().with_address([10, 0, 0, 10].into());
    bench.make(Recipe::root());
    bench.write("copy.ext", SERVER);
    for algorithm in KeyAlgorithm::ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        bench.write("it.csr", key.certificate_request(&names).unwrap());
        let text = bench.openssl("req -in it.csr -verify -noout -text");
        assert!(text.contains("verify OK"), "{text}");
        assert!(text.contains("DNS:mgmt.example.org, DNS:mgmt, IP Address:10.0.0.10"), "{text}");

        bench.openssl(
            "x509 -req -in it.csr -CA root.pem -CAkey root.key -CAcreateserial -days 365 -extfile copy.ext -out it.pem",
        );
        let report = import(&ImportRequest {
            certificate_pem: &bench.read("it.pem"),
            key_pem: &key.to_pem(),
            roots_pem: Some(&bench.read("root.pem")),
            fqdn: &fqdn,
            vip: None,
            short_name: true,
            now: now(),
        });
        assert!(report.findings.is_empty(), "{algorithm}: {:?}", report.findings);
        let imported = report.into_result().unwrap();
        assert!(key.matches(imported.certificate()));
    }
}

#[test]
fn openssl_uses_the_key_pairs_of_packs() {
    let bench = Bench::new();
    for kind in [PackSecretKind::Ed25519, PackSecretKind::EcdsaP256] {
        let parts = kind.generate().unwrap();
        for part in &parts {
            bench.write(&format!("pair{}", part.suffix), part.data.as_slice());
        }
        assert_eq!(bench.openssl("pkey -in pair.key -pubout"), bench.read("pair.pub"), "{kind}");
    }
}

#[test]
fn a_key_knows_its_certificate() {
    let bench = Bench::new();
    bench.make(Recipe::root());
    for key in [P256, "ed25519", "rsa:2048"] {
        let certificate =
            &parse_certificates("leaf", &bench.make(Recipe { key: Some(key), ..Recipe::default() })).unwrap()[0];
        assert!(PrivateKey::from_pem(&bench.read("leaf.key")).unwrap().matches(certificate), "{key}");
        assert!(!PrivateKey::from_pem(&bench.read("root.key")).unwrap().matches(certificate), "{key}");
    }
}
