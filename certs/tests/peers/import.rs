//! Certificates from OpenSSL, good and bad in all ways that people meet, and the exact findings about each.

use certs::{Fqdn, ImportReport, ImportRequest, Severity, import};
use jiff::Timestamp;

use crate::bench::{AUTHORITY, Bench, FQDN, P256, Recipe, SERVER, in_days, now};

const FAIL: Severity = Severity::Fail;
const WARN: Severity = Severity::Warn;

struct Case<'a> {
    name: &'a str,
    certificates: String,
    key: String,
    roots: Option<String>,
    now: Timestamp,
    expected: Vec<(&'a str, Severity)>,
    /// Parts that the messages must hold: the measured values.
    says: Vec<&'a str>,
}

fn run(case: &Case<'_>) -> ImportReport {
    let fqdn: Fqdn = FQDN.parse().unwrap();
    import(&ImportRequest {
        certificate_pem: &case.certificates,
        key_pem: &case.key,
        roots_pem: case.roots.as_deref(),
        fqdn: &fqdn,
        vip: Some([10, 0, 0, 10].into()),
        short_name: true,
        now: case.now,
    })
}

fn check(cases: Vec<Case<'_>>) {
    for case in cases {
        let report = run(&case);
        let mut found: Vec<_> = report.findings.iter().map(|finding| (finding.id, finding.severity)).collect();
        let mut expected = case.expected.clone();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{}: {:#?}", case.name, report.findings);
        let failed = expected.iter().any(|(_, severity)| *severity == FAIL);
        assert_eq!(report.certificate.is_none(), failed, "{}", case.name);
        let text: String = report.findings.iter().flat_map(|finding| [finding.message.as_str(), "\n"]).collect();
        for part in case.says {
            assert!(text.contains(part), "{}: {part:?} is not in\n{text}", case.name);
        }
        assert!(report.findings.iter().all(|finding| finding.hint.as_ref().is_some_and(|hint| !hint.is_empty())));
        assert!(report.findings.is_sorted_by_key(|finding| std::cmp::Reverse(finding.severity)), "{}", case.name);
    }
}

fn case(name: &str, certificates: String, key: String) -> Case<'_> {
    Case { name, certificates, key, roots: None, now: now(), expected: Vec::new(), says: Vec::new() }
}

#[test]
fn the_order_of_the_chain_does_not_matter() {
    let bench = Bench::new();
    let root = bench.make(Recipe::root());
    let middle = bench.make(Recipe::intermediate());
    let lower = bench.make(Recipe {
        name: "lower",
        subject: "/CN=Lower CA",
        issuer: Some("middle"),
        days: "900",
        ..Recipe::intermediate()
    });
    let leaf = bench.make(Recipe { issuer: Some("lower"), ..Recipe::default() });
    let key = bench.read("leaf.key");
    let all = [&leaf, &lower, &middle, &root];
    let (without_root, with_root) = (24, 24);
    let mut seen = 0;
    for order in orders(4) {
        let shuffled: String = order.iter().map(|position| all[*position].as_str()).collect();
        let no_root: String =
            order.iter().filter(|position| **position != 3).map(|position| all[*position].as_str()).collect();
        for (certificates, roots) in [(shuffled, None), (no_root, Some(root.clone()))] {
            let report = run(&Case { roots, ..case("shuffled", certificates, key.clone()) });
            assert!(report.findings.is_empty(), "{order:?}: {:?}", report.findings);
            let imported = report.into_result().unwrap();
            bench.write("chain.pem", imported.chain_pem());
            assert_eq!(normal(&imported.chain_pem()), normal(&format!("{leaf}{lower}{middle}")));
            assert_eq!(normal(&imported.roots_pem()), normal(&root));
            seen += 1;
        }
    }
    assert_eq!(seen, without_root + with_root);
    bench.openssl(
        "verify -x509_strict -CAfile root.pem -untrusted chain.pem -verify_hostname mgmt.example.org chain.pem",
    );
}

#[test]
fn good_ones_of_all_kinds() {
    let bench = Bench::new();
    let root = bench.make(Recipe::root());
    let mut cases = Vec::new();
    let wildcard = SERVER.replace("DNS:mgmt.example.org", "DNS:*.example.org");
    let no_usages = "basicConstraints=CA:FALSE\nsubjectAltName=DNS:mgmt.example.org,DNS:mgmt,IP:10.0.0.10\n";
    for (name, recipe) in [
        ("P-256", Recipe::default()),
        ("P-384", Recipe { key: Some("ec -pkeyopt ec_paramgen_curve:P-384"), digest: "-sha384", ..Recipe::default() }),
        ("P-521", Recipe { key: Some("ec -pkeyopt ec_paramgen_curve:P-521"), digest: "-sha512", ..Recipe::default() }),
        ("Ed25519", Recipe { key: Some("ed25519"), ..Recipe::default() }),
        ("RSA 3072", Recipe { key: Some("rsa:3072"), ..Recipe::default() }),
        ("wildcard", Recipe { extensions: &wildcard, ..Recipe::default() }),
        ("no usages named", Recipe { extensions: no_usages, ..Recipe::default() }),
        ("odd subject", Recipe { subject: "/C=DE/O=Köhler \u{1}/CN=x", ..Recipe::default() }),
    ] {
        let leaf = bench.make(recipe);
        cases.push(Case { roots: Some(root.clone()), ..case(name, leaf, bench.read("leaf.key")) });
    }
    let duplicate = bench.make(Recipe::default());
    let text = format!("Bag Attributes\n  friendlyName: x\n{duplicate}\n{root}{duplicate}{root}");
    cases.push(case("twice, with remarks", text, bench.read("leaf.key")));
    let together = format!("{}{duplicate}{root}", bench.read("leaf.key"));
    cases.push(case("key in the same file", together.clone(), together));
    check(cases);
}

#[test]
fn names_and_uses() {
    let bench = Bench::new();
    let root = bench.make(Recipe::root());
    let with = |extensions: &str| {
        let leaf = bench.make(Recipe { extensions, ..Recipe::default() });
        (format!("{leaf}{root}"), bench.read("leaf.key"))
    };
    let table = [
        (
            "another name",
            SERVER.replace("DNS:mgmt.example.org", "DNS:www.example.org"),
            vec![("cert.san", FAIL)],
            "it names www.example.org, mgmt, 10.0.0.10",
        ),
        (
            "wildcard one level up",
            SERVER.replace("DNS:mgmt.example.org", "DNS:*.org"),
            vec![("cert.san", FAIL)],
            "*.org",
        ),
        (
            "only the FQDN",
            SERVER.replace(",DNS:mgmt,IP:10.0.0.10", ""),
            vec![("cert.vip", WARN), ("cert.short-name", WARN)],
            "10.0.0.10",
        ),
        ("another address", SERVER.replace("10.0.0.10", "10.0.0.11"), vec![("cert.vip", WARN)], "10.0.0.11"),
        (
            "common name only",
            SERVER.lines().filter(|line| !line.starts_with("subjectAltName")).flat_map(|line| [line, "\n"]).collect(),
            vec![("cert.san", FAIL), ("cert.vip", WARN), ("cert.short-name", WARN)],
            "no subject alternative name",
        ),
        (
            "for clients",
            SERVER.replace("serverAuth", "clientAuth"),
            vec![("cert.eku", FAIL)],
            "clientAuth; serverAuth is missing",
        ),
        ("for both", SERVER.replace("serverAuth", "clientAuth,serverAuth"), vec![], ""),
        (
            "no signing",
            SERVER.replace("digitalSignature", "keyAgreement"),
            vec![("cert.key-usage", FAIL)],
            "digitalSignature",
        ),
        ("an authority", SERVER.replace("CA:FALSE", "CA:TRUE"), vec![("cert.authority", FAIL)], "CA:TRUE"),
    ];
    let mut cases = Vec::new();
    for (name, extensions, expected, says) in table {
        let (certificates, key) = with(&extensions);
        cases.push(Case { expected, says: vec![says], ..case(name, certificates, key) });
    }
    check(cases);
}

#[test]
fn keys() {
    let bench = Bench::new();
    let root = bench.make(Recipe::root());
    let root_key = bench.read("root.key");
    let good = bench.make(Recipe::default());
    let good_key = bench.read("leaf.key");
    bench.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out stray.key");
    bench.openssl("pkey -in leaf.key -aes256 -passout pass:geheim -out locked.key");
    let with = |recipe: Recipe<'_>| {
        let leaf = bench.make(Recipe { name: "other", ..recipe });
        (format!("{leaf}{root}"), bench.read("other.key"))
    };
    let (rsa1024, rsa1024_key) = with(Recipe { key: Some("rsa:1024"), ..Recipe::default() });
    let (rsa2048, rsa2048_key) = with(Recipe { key: Some("rsa:2048"), ..Recipe::default() });
    let (koblitz, koblitz_key) =
        with(Recipe { key: Some("ec -pkeyopt ec_paramgen_curve:secp256k1"), ..Recipe::default() });
    let chain = format!("{good}{root}");

    check(vec![
        Case {
            expected: vec![("cert.key-match", FAIL)],
            says: vec!["CN=mgmt.example.org"],
            ..case("another key", chain.clone(), bench.read("stray.key"))
        },
        Case {
            expected: vec![("cert.key", FAIL)],
            says: vec!["passphrase"],
            ..case("locked key", chain.clone(), bench.read("locked.key"))
        },
        Case {
            expected: vec![("cert.key", FAIL)],
            says: vec!["no private key"],
            ..case("no key", chain.clone(), String::new())
        },
        Case {
            // The key is one of the certificates', but an authority's.
            expected: vec![
                ("cert.authority", FAIL),
                ("cert.san", FAIL),
                ("cert.vip", WARN),
                ("cert.short-name", WARN),
                ("cert.root", WARN),
                ("cert.chain-extra", WARN),
            ],
            says: vec!["CN=Example Root"],
            ..case("the authority's key", chain.clone(), root_key)
        },
        Case {
            expected: vec![("cert.weak-key", FAIL), ("cert.weak-key", FAIL)],
            says: vec!["an RSA key of 1024 bits", "RSA key of 1024 bits; 2048 are"],
            ..case("RSA 1024", rsa1024.clone(), rsa1024_key)
        },
        Case {
            expected: vec![("cert.weak-key", FAIL), ("cert.weak-key", FAIL), ("cert.key-match", FAIL)],
            ..case("RSA 1024, another key", rsa1024, {
                bench.openssl("genrsa -out o.key 1024");
                bench.read("o.key")
            })
        },
        Case {
            expected: vec![("cert.weak-key", WARN)],
            says: vec!["2048 bits; 3072 are advised"],
            ..case("RSA 2048", rsa2048, rsa2048_key)
        },
        Case {
            expected: vec![("cert.weak-key", FAIL), ("cert.key", FAIL)],
            says: vec!["ECDSA on the curve 1.3.132.0.10"],
            ..case("secp256k1", koblitz, koblitz_key)
        },
        Case {
            expected: vec![("cert.parse", FAIL)],
            says: vec!["no certificate"],
            ..case("empty file", String::new(), good_key.clone())
        },
        Case {
            expected: vec![("cert.parse", FAIL), ("cert.key", FAIL)],
            ..case("both broken", good.replace("MII", "MIJ"), "x".to_owned())
        },
        Case {
            expected: vec![("cert.parse", FAIL)],
            roots: Some(String::new()),
            says: vec!["file with the roots"],
            ..case("empty roots", chain, good_key)
        },
    ]);
}

#[test]
fn signatures_and_weak_roots() {
    let bench = Bench::new();
    let rsa_root = bench.make(Recipe {
        name: "rsaroot",
        subject: "/CN=RSA Root",
        key: Some("rsa:3072"),
        digest: "-sha1",
        ..Recipe::root()
    });
    let sha1 = bench.make(Recipe { name: "sha1", issuer: Some("rsaroot"), digest: "-sha1", ..Recipe::default() });
    let md5 = bench.make(Recipe { name: "md5", issuer: Some("rsaroot"), digest: "-md5", ..Recipe::default() });
    let sha256 = bench.make(Recipe { name: "sha256", issuer: Some("rsaroot"), ..Recipe::default() });
    let weak_root =
        bench.make(Recipe { name: "weakroot", subject: "/CN=Weak Root", key: Some("rsa:1024"), ..Recipe::root() });
    let below_weak = bench.make(Recipe { name: "below", issuer: Some("weakroot"), ..Recipe::default() });

    check(vec![
        Case {
            expected: vec![("cert.weak-signature", FAIL)],
            says: vec!["RSA with SHA-1"],
            ..case("SHA-1", format!("{sha1}{rsa_root}"), bench.read("sha1.key"))
        },
        Case {
            expected: vec![("cert.weak-signature", FAIL)],
            says: vec!["RSA with MD5"],
            ..case("MD5", format!("{md5}{rsa_root}"), bench.read("md5.key"))
        },
        Case {
            expected: vec![],
            ..case("SHA-1 on the root only", format!("{sha256}{rsa_root}"), bench.read("sha256.key"))
        },
        Case {
            expected: vec![("cert.weak-key", FAIL)],
            says: vec!["CN=Weak Root has an RSA key of 1024"],
            ..case("weak root", format!("{below_weak}{weak_root}"), bench.read("below.key"))
        },
    ]);
}

#[test]
fn no_flipped_character_is_accepted() {
    let bench = Bench::new();
    let root = bench.make(Recipe::root());
    let leaf = bench.make(Recipe::default());
    let key = bench.read("leaf.key");
    // The last group of four may hold bits that mean nothing (RFC 4648, 3.5): another text of the same certificate.
    let (start, end) = (leaf.find("MII").unwrap(), leaf.find("\n-----END").unwrap() - 4);
    let mut flipped = 0;
    for position in (start..end).filter(|position| leaf.as_bytes()[*position] != b'\n') {
        let other = if &leaf[position..=position] == "A" { "B" } else { "A" };
        let text = format!("{}{other}{}", &leaf[..position], &leaf[position + 1..]);
        let report = run(&Case { roots: Some(root.clone()), ..case("flipped", text, key.clone()) });
        assert!(report.certificate.is_none(), "character {position}");
        flipped += 1;
    }
    assert!(flipped > 500, "{flipped}");
}

#[test]
fn chains_that_break() {
    let bench = Bench::new();
    let root = bench.make(Recipe::root());
    let middle = bench.make(Recipe::intermediate());
    let leaf = bench.make(Recipe { issuer: Some("middle"), ..Recipe::default() });
    let key = bench.read("leaf.key");
    // A day shorter than its issuer, which may be made in the second before it.
    let leaf_of_leaf = bench.make(Recipe { name: "deep", issuer: Some("leaf"), days: "364", ..Recipe::default() });
    let foreign_root = bench.make(Recipe { name: "foreign", subject: "/CN=Foreign Root", ..Recipe::root() });
    let stranger =
        bench.make(Recipe { name: "stranger", subject: "/CN=Stranger", issuer: Some("foreign"), ..Recipe::default() });
    let namesake = bench.make(Recipe { name: "namesake", ..Recipe::root() });
    let self_signed = bench.make(Recipe { name: "self", issuer: None, ..Recipe::default() });
    let typical = bench.make(Recipe {
        name: "typical",
        issuer: None,
        extensions: &SERVER.replace("CA:FALSE", "CA:TRUE"),
        ..Recipe::default()
    });
    // The same authority, once below the root and once below one that nobody has.
    bench.make(Recipe { name: "lost", subject: "/CN=Lost Root", ..Recipe::root() });
    bench.write("cross.key", bench.read("middle.key"));
    let cross = bench.make(Recipe { name: "cross", key: None, issuer: Some("lost"), ..Recipe::intermediate() });
    let constrained = bench.make(Recipe {
        name: "narrow",
        extensions: &format!("{AUTHORITY}nameConstraints=critical,permitted;DNS:other.org\n"),
        ..Recipe::intermediate()
    });
    let outside = bench.make(Recipe { name: "outside", issuer: Some("narrow"), ..Recipe::default() });

    check(vec![
        Case {
            expected: vec![("cert.root", FAIL)],
            says: vec!["O=Example, CN=Example Issuing CA is not in the file"],
            ..case("leaf alone", leaf.clone(), key.clone())
        },
        Case {
            expected: vec![("cert.root", FAIL)],
            says: vec!["CN=Example Root is not in the file"],
            ..case("no root", format!("{leaf}{middle}"), key.clone())
        },
        Case {
            expected: vec![("cert.chain", FAIL)],
            roots: Some(root.clone()),
            says: vec!["the chain breaks after CN=mgmt.example.org"],
            ..case("no intermediate", leaf.clone(), key.clone())
        },
        Case {
            expected: vec![("cert.root", FAIL)],
            roots: Some(foreign_root.clone()),
            says: vec!["the chain ends at O=Example, CN=Example Root"],
            ..case("another root", format!("{leaf}{middle}{root}"), key.clone())
        },
        Case {
            expected: vec![("cert.chain", FAIL)],
            roots: Some(namesake.clone()),
            says: vec!["was not signed by the key of the given one"],
            ..case("root of the same name", format!("{leaf}{middle}"), key.clone())
        },
        Case {
            roots: Some(format!("{namesake}{root}")),
            ..case("both roots of the same name", format!("{leaf}{middle}"), key.clone())
        },
        Case { roots: Some(middle.clone()), ..case("the intermediate as root", leaf.clone(), key.clone()) },
        Case {
            roots: Some(middle.clone()),
            ..case("the intermediate as root, its root in the file", format!("{leaf}{middle}{root}"), key.clone())
        },
        Case {
            expected: vec![("cert.chain-extra", WARN)],
            says: vec!["CN=Stranger"],
            ..case("one too many", format!("{stranger}{leaf}{middle}{root}"), key.clone())
        },
        Case {
            expected: vec![("cert.chain", FAIL)],
            says: vec!["CN=mgmt.example.org signed in this chain"],
            ..case("signed by a leaf", format!("{leaf_of_leaf}{leaf}{middle}{root}"), bench.read("deep.key"))
        },
        Case {
            expected: vec![("cert.root", WARN)],
            says: vec!["self-signed"],
            ..case("self-signed", self_signed, bench.read("self.key"))
        },
        Case {
            expected: vec![("cert.root", WARN), ("cert.authority", FAIL)],
            ..case("openssl req -x509", typical, bench.read("typical.key"))
        },
        Case {
            expected: vec![("cert.chain-extra", WARN)],
            ..case("cross-signed, the dead end first", format!("{leaf}{cross}{middle}{root}"), key)
        },
        Case {
            expected: vec![("cert.chain", FAIL)],
            says: vec!["NameConstraintViolation"],
            ..case("outside of name constraints", format!("{outside}{constrained}{root}"), bench.read("outside.key"))
        },
    ]);
}

#[test]
fn times() {
    let bench = Bench::new();
    let root = bench.make(Recipe::root());
    let middle = bench.make(Recipe { days: "200", ..Recipe::intermediate() });
    let leaf = bench.make(Recipe { issuer: Some("middle"), ..Recipe::default() });
    let straight = bench.make(Recipe { name: "straight", ..Recipe::default() });
    let (key, straight_key) = (bench.read("leaf.key"), bench.read("straight.key"));
    let direct = format!("{straight}{root}");
    let chain = format!("{leaf}{middle}{root}");
    check(vec![
        Case { ..case("fresh", direct.clone(), straight_key.clone()) },
        Case { now: in_days(270), ..case("95 days left", direct.clone(), straight_key.clone()) },
        Case {
            now: in_days(300),
            expected: vec![("cert.days-left", WARN)],
            says: vec!["ends in 64 days"],
            ..case("64 days left", direct.clone(), straight_key.clone())
        },
        Case {
            now: in_days(400),
            expected: vec![("cert.expired", FAIL)],
            says: vec!["35 days before the clock"],
            ..case("expired", direct.clone(), straight_key.clone())
        },
        Case {
            now: in_days(-10),
            expected: vec![("cert.not-yet-valid", FAIL), ("cert.not-yet-valid", FAIL)],
            says: vec!["days after the clock"],
            ..case("clock behind", direct, straight_key)
        },
        Case {
            expected: vec![("cert.days-left", WARN)],
            says: vec!["CN=Example Issuing CA ends at"],
            ..case("the issuer ends first", chain.clone(), key.clone())
        },
        Case {
            now: in_days(250),
            expected: vec![("cert.expired", FAIL)],
            says: vec!["CN=Example Issuing CA ended"],
            ..case("the issuer ended", chain.clone(), key.clone())
        },
        Case { now: in_days(4000), expected: vec![("cert.expired", FAIL); 3], ..case("all ended", chain, key) },
    ]);
}

#[test]
fn everything_at_once() {
    let bench = Bench::new();
    bench.make(Recipe::root());
    let middle = bench.make(Recipe { days: "200", key: Some("rsa:2048"), ..Recipe::intermediate() });
    let extensions =
        "keyUsage=critical,keyAgreement\nextendedKeyUsage=clientAuth\nsubjectAltName=DNS:www.example.org\n";
    let leaf = bench.make(Recipe {
        issuer: Some("middle"),
        key: Some("rsa:1024"),
        digest: "-sha1",
        extensions,
        ..Recipe::default()
    });
    bench.openssl(&format!("genpkey -algorithm {} -out wrong.key", P256.replacen("ec", "EC", 1)));
    check(vec![Case {
        now: in_days(400),
        expected: vec![
            ("cert.key-match", FAIL),
            ("cert.san", FAIL),
            ("cert.eku", FAIL),
            ("cert.key-usage", FAIL),
            ("cert.root", FAIL),
            ("cert.expired", FAIL),
            ("cert.expired", FAIL),
            ("cert.weak-key", FAIL),
            ("cert.weak-signature", FAIL),
            ("cert.weak-key", WARN),
            ("cert.vip", WARN),
            ("cert.short-name", WARN),
        ],
        ..case("everything", format!("{middle}{leaf}"), bench.read("wrong.key"))
    }]);
}

/// PEM without what OpenSSL writes around it.
fn normal(pem: &str) -> String {
    certs::parse_certificates("test", pem).unwrap().iter().map(certs::Certificate::to_pem).collect()
}

/// All orders of the numbers below `count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    orders(count - 1)
        .into_iter()
        .flat_map(|order| {
            (0..count).map(move |position| {
                let mut longer = order.clone();
                longer.insert(position, count - 1);
                longer
            })
        })
        .collect()
}
