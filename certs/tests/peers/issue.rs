//! What the site's authority issues, as OpenSSL sees it.

use std::collections::HashSet;

use certs::{
    Certificate, CertificateProfile, Fqdn, KeyAlgorithm, NodeName, PrivateKey, ServerNames, SiteAuthority, Validity,
    inspect, verify_server_chain,
};
use jiff::SignedDuration;

use crate::bench::{AUTHORITY, Bench, FQDN, Recipe, in_days, now};

fn names() -> ServerNames {
    let fqdn: Fqdn = FQDN.parse().unwrap();
    ServerNames::new(fqdn)
        .with_short_name()
        .with_address([10, 0, 0, 10].into())
        .with_address("fd00::10".parse().unwrap())
}

fn authority(algorithm: KeyAlgorithm) -> SiteAuthority {
    SiteAuthority::generate("mgmt.example.org site CA", algorithm, Validity::AUTHORITY, now()).unwrap()
}

#[test]
fn openssl_verifies_all_profiles_with_all_keys() {
    let bench = Bench::new();
    for algorithm in KeyAlgorithm::ALL {
        let authority = authority(algorithm);
        let key = PrivateKey::generate(algorithm).unwrap();
        let issue = |profile: &CertificateProfile| authority.issue(profile, &key, Validity::LEAF, now()).unwrap();
        bench.write("ca.pem", authority.certificate_pem());
        bench.write("server.pem", issue(&CertificateProfile::Server(names())).to_pem());
        bench.write("registry.pem", issue(&CertificateProfile::Registry(names())).to_pem());
        bench.write("node.pem", issue(&CertificateProfile::Node("worker-1.example.org".parse().unwrap())).to_pem());
        bench.write("admin.pem", issue(&CertificateProfile::Admin("release@example.org".parse().unwrap())).to_pem());

        let table = [
            ("sslserver", "-verify_hostname mgmt.example.org", "server.pem", true),
            ("sslserver", "-verify_hostname mgmt", "server.pem", true),
            ("sslserver", "-verify_ip 10.0.0.10", "server.pem", true),
            ("sslserver", "-verify_ip fd00::10", "server.pem", true),
            ("sslserver", "-verify_hostname other.example.org", "server.pem", false),
            ("sslserver", "-verify_ip 127.0.0.1", "server.pem", false),
            ("sslclient", "", "server.pem", false),
            ("sslserver", "-verify_hostname mgmt.example.org", "registry.pem", true),
            ("sslserver", "-verify_hostname localhost", "registry.pem", true),
            ("sslserver", "-verify_ip ::1", "registry.pem", true),
            ("sslclient", "", "node.pem", true),
            ("sslserver", "", "node.pem", false),
            ("sslclient", "", "admin.pem", true),
        ];
        for (purpose, name, file, good) in table {
            let (well, text) =
                bench.try_openssl(&format!("verify -x509_strict -CAfile ca.pem -purpose {purpose} {name} {file}"));
            assert_eq!(well, good, "{algorithm} {purpose} {name} {file}\n{text}");
        }
    }
}

#[test]
fn openssl_reads_what_was_meant() {
    let bench = Bench::new();
    let authority = authority(KeyAlgorithm::Rsa3072);
    let key = PrivateKey::generate(KeyAlgorithm::Rsa3072).unwrap();
    let issue = |profile: &CertificateProfile| authority.issue(profile, &key, Validity::LEAF, now()).unwrap().to_pem();
    let table = [
        (
            authority.certificate_pem(),
            vec![
                "subject=O = Cofferdam, CN = mgmt.example.org site CA",
                "CA:TRUE, pathlen:0",
                "X509v3 Key Usage: critical\n    Certificate Sign, CRL Sign",
                "X509v3 Subject Key Identifier",
            ],
        ),
        (
            issue(&CertificateProfile::Server(names())),
            vec![
                "subject=CN = mgmt.example.org\n",
                "CA:FALSE",
                "X509v3 Key Usage: critical\n    Digital Signature, Key Encipherment",
                "X509v3 Extended Key Usage: \n    TLS Web Server Authentication\n",
                "DNS:mgmt.example.org, DNS:mgmt, IP Address:10.0.0.10, IP Address:FD00:0:0:0:0:0:0:10\n",
                "X509v3 Authority Key Identifier",
            ],
        ),
        (
            issue(&CertificateProfile::Node("worker-1".parse().unwrap())),
            vec![
                "subject=O = cofferdam:nodes, CN = system:cofferdam:node:worker-1\n",
                "X509v3 Key Usage: critical\n    Digital Signature\n",
                "X509v3 Extended Key Usage: \n    TLS Web Client Authentication\n",
            ],
        ),
        (
            issue(&CertificateProfile::Admin("eve".parse().unwrap())),
            vec!["subject=O = cofferdam:admins, CN = cofferdam:admin:eve\n"],
        ),
    ];
    for (pem, expected) in table {
        bench.write("it.pem", &pem);
        let text = bench.openssl(
            "x509 -in it.pem -noout -subject -ext \
             basicConstraints,keyUsage,extendedKeyUsage,subjectAltName,subjectKeyIdentifier,authorityKeyIdentifier",
        );
        for part in expected {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let summary = &inspect("it.pem", &pem).unwrap()[0];
        let ours = format!("sha256 Fingerprint={}", summary.sha256);
        assert_eq!(bench.openssl("x509 -in it.pem -noout -fingerprint -sha256").trim(), ours);
        let serial = bench.openssl("x509 -in it.pem -noout -serial");
        assert_eq!(serial.trim(), format!("serial={}", summary.serial.replace(':', "")));
    }
}

#[test]
fn no_certificate_outlives_its_authority_and_serials_do_not_repeat() {
    let authority =
        SiteAuthority::generate("short", KeyAlgorithm::EcdsaP256, Validity::from_days(30).unwrap(), now()).unwrap();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let profile = CertificateProfile::Server(names());
    let issued = authority.issue(&profile, &key, Validity::LEAF, now()).unwrap();
    assert_eq!(issued.certificate().not_after(), authority.certificate().not_after());
    assert!(issued.certificate().summary().not_before <= now() - SignedDuration::from_mins(59));
    assert!(issued.certificate().summary().not_before >= authority.certificate().summary().not_before);

    for moment in [in_days(31), in_days(-1)] {
        let error = authority.issue(&profile, &key, Validity::LEAF, moment).unwrap_err().to_string();
        assert!(error.contains("the clock says"), "{error}");
    }
    let mut serials: HashSet<String> = HashSet::new();
    for _ in 0..50 {
        let issued = authority.issue(&profile, &key, Validity::LEAF, now()).unwrap();
        assert!(serials.insert(issued.certificate().summary().serial.clone()));
    }
    for days in [0, 9132] {
        assert!(Validity::from_days(days).is_err());
    }
    for name in ["", "  ", "a\nb", &"x".repeat(65)] {
        assert!(SiteAuthority::generate(name, KeyAlgorithm::EcdsaP256, Validity::LEAF, now()).is_err(), "{name:?}");
    }
}

#[test]
fn an_authority_comes_back_from_pem_and_one_of_a_company_can_be_used() {
    let bench = Bench::new();
    let ours = authority(KeyAlgorithm::EcdsaP384);
    let again = SiteAuthority::from_pem(&ours.certificate_pem(), &ours.key_pem()).unwrap();
    assert_eq!(again.certificate(), ours.certificate());

    let subject =
        "/C=DE/ST=Bayern/L=München/O=Muster + Söhne, GmbH/OU=IT/CN=Muster Issuing CA/emailAddress=pki@example.org";
    for key in ["rsa:3072", "ec -pkeyopt ec_paramgen_curve:P-521", "ed25519"] {
        bench.make(Recipe { subject, key: Some(key), ..Recipe::root() });
        let theirs = SiteAuthority::from_pem(&bench.read("root.pem"), &bench.read("root.key")).unwrap();
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let issued = theirs.issue(&CertificateProfile::Server(names()), &key, Validity::LEAF, now()).unwrap();
        bench.write("server.pem", issued.to_pem());
        bench.openssl("verify -x509_strict -CAfile root.pem -verify_hostname mgmt.example.org server.pem");
    }

    bench.make(Recipe::root());
    bench.make(Recipe::default());
    let no_authority = SiteAuthority::from_pem(&bench.read("leaf.pem"), &bench.read("leaf.key")).unwrap_err();
    assert!(no_authority.to_string().contains("cannot issue"), "{no_authority}");
    let other_key = SiteAuthority::from_pem(&bench.read("root.pem"), &bench.read("leaf.key")).unwrap_err();
    assert!(other_key.to_string().contains("does not belong"), "{other_key}");
}

#[test]
fn long_names_still_verify() {
    let bench = Bench::new();
    let authority = authority(KeyAlgorithm::EcdsaP256);
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let long = format!("{}.{}.example.org", "h".repeat(53), "d".repeat(60));
    let server = CertificateProfile::Server(ServerNames::new(long.parse().unwrap()).with_short_name());
    let node = CertificateProfile::Node(NodeName::from(&long.parse::<Fqdn>().unwrap()));
    bench.write("ca.pem", authority.certificate_pem());
    for (profile, name) in [(server, format!("-verify_hostname {long}")), (node, String::new())] {
        bench.write("it.pem", authority.issue(&profile, &key, Validity::LEAF, now()).unwrap().to_pem());
        bench.openssl(&format!("verify -CAfile ca.pem {name} it.pem"));
    }
}

#[test]
fn chains_are_verified_for_the_name_and_the_moment() {
    let bench = Bench::new();
    let root = bench.make(Recipe::root());
    let middle = bench.make(Recipe::intermediate());
    let leaf = bench.make(Recipe { issuer: Some("middle"), ..Recipe::default() });
    let short_root = bench.make(Recipe { name: "short", days: "10", ..Recipe::root() });
    let below_short = bench.make(Recipe { name: "below", issuer: Some("short"), ..Recipe::default() });
    let chain = format!("{leaf}{middle}");
    let table = [
        ("the chain", chain.clone(), root.clone(), FQDN, 1, Ok("Example Root")),
        ("by address", chain.clone(), root.clone(), "10.0.0.10", 1, Ok("Example Root")),
        ("root sent along", format!("{chain}{root}"), root.clone(), FQDN, 1, Ok("Example Root")),
        ("several roots", chain.clone(), format!("{short_root}{root}"), FQDN, 1, Ok("Example Root")),
        ("another name", chain.clone(), root.clone(), "other.example.org", 1, Err("mgmt.example.org")),
        ("another address", chain.clone(), root.clone(), "10.0.0.11", 1, Err("mgmt.example.org")),
        ("later", chain.clone(), root.clone(), FQDN, 366, Err("ended at")),
        ("earlier", chain.clone(), root.clone(), FQDN, -1, Err("begins at")),
        ("no intermediate", leaf.clone(), root.clone(), FQDN, 1, Err("no root that is trusted")),
        ("another root", chain.clone(), short_root.clone(), FQDN, 1, Err("wrong")),
        ("the root ended", below_short, short_root, FQDN, 11, Err("the root")),
        ("wrong order", format!("{middle}{leaf}"), root.clone(), FQDN, 1, Err("CA:TRUE")),
        ("no chain", String::new(), root, FQDN, 1, Err("no certificate")),
    ];
    for (case, chain, roots, name, days, expected) in table {
        let verified = verify_server_chain(&chain, &roots, &name.parse().unwrap(), in_days(days));
        match (verified, expected) {
            (Ok(verified), Ok(root)) => {
                assert!(verified.root.contains(root), "{case}: {verified:?}");
                assert!(verified.not_after < in_days(366) && verified.not_after > in_days(364), "{case}");
            }
            (Err(error), Err(reason)) => assert!(error.to_string().contains(reason), "{case}: {error}"),
            (other, expected) => panic!("{case}: {other:?} instead of {expected:?}"),
        }
    }
    assert!(AUTHORITY.contains("CA:TRUE"));
    let parsed: Vec<Certificate> = certs::parse_certificates("chain", &chain).unwrap();
    assert_eq!(parsed.len(), 2);
}
