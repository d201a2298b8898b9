//! The escrow against the age command line: each opens what the other sealed.

use certs::{CertsError, EscrowBundle, EscrowIdentity, EscrowKind, EscrowRecipient, RecoveryKey};

use crate::bench::{Bench, FQDN, now, output, run};

fn bundle() -> EscrowBundle {
    let mut bundle = EscrowBundle::new("site-1", FQDN.parse().unwrap(), now());
    let key = RecoveryKey::generate().unwrap();
    bundle.add("data-volume", EscrowKind::RecoveryKey, key.expose().as_bytes());
    // All bytes, so that it is no text; the size of a LUKS2 header backup.
    let header: Vec<u8> = (0..=255).cycle().take(16 * 1024 * 1024).collect();
    bundle.add("data-volume", EscrowKind::LuksHeader, &header);
    bundle.add("odd", EscrowKind::PackSecret, "quote \" slash \\ line\n nul \0 ümlaut".as_bytes());
    bundle
}

#[test]
fn age_opens_what_we_sealed_and_each_recipient_can() {
    let bench = Bench::new();
    let bundle = bundle();
    let mut recipients = Vec::new();
    for person in ["anna", "bert"] {
        let (well, text) = run("age-keygen", &bench.path("."), &["-o", &format!("{person}.key")], b"");
        assert!(well, "{text}");
        let recipient = text.trim().rsplit(' ').next().unwrap().to_owned();
        assert_eq!(
            EscrowIdentity::parse(&bench.read(&format!("{person}.key"))).unwrap().recipient().to_string(),
            recipient
        );
        recipients.push(recipient.parse::<EscrowRecipient>().unwrap());
    }
    let sealed = bundle.seal(&recipients).unwrap();
    assert!(sealed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"));
    assert!(!sealed.contains("site-1"));
    bench.write("site.age", &sealed);
    for person in ["anna", "bert"] {
        let key = format!("{person}.key");
        let opened = output("age", &bench.path("."), &["-d", "-i", &key, "site.age"], b"");
        assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
        let json: serde_json::Value = serde_json::from_slice(&opened.stdout).unwrap();
        assert_eq!(json["schema-version"], 1);
        assert_eq!(json["fqdn"], FQDN);
        assert_eq!(json["items"][0]["kind"], "recovery-key");
        assert_eq!(json["items"][0]["encoding"], "text");
        assert!(RecoveryKey::parse(json["items"][0]["data"].as_str().unwrap()).is_ok());
        assert_eq!(json["items"][1]["encoding"], "base64");
        let identity = EscrowIdentity::parse(&bench.read(&key)).unwrap();
        assert_eq!(EscrowBundle::open(sealed.as_bytes(), &identity).unwrap(), bundle);
    }

    let stranger = EscrowIdentity::generate();
    let error = EscrowBundle::open(sealed.as_bytes(), &stranger).unwrap_err();
    assert!(error.to_string().contains("could not open the escrow"), "{error}");
    let middle = sealed.len() / 2;
    let other = if &sealed[middle..=middle] == "A" { "B" } else { "A" };
    let flipped = format!("{}{other}{}", &sealed[..middle], &sealed[middle + 1..]);
    let anna = EscrowIdentity::parse(&bench.read("anna.key")).unwrap();
    assert!(EscrowBundle::open(flipped.as_bytes(), &anna).is_err());
    assert!(EscrowBundle::open(&sealed.as_bytes()[..middle], &anna).is_err());
}

#[test]
fn we_open_what_age_sealed() {
    let bench = Bench::new();
    let identity = EscrowIdentity::generate();
    let recipient = identity.recipient().to_string();
    let good = r#"{"schema-version":1,"site":"s","fqdn":"mgmt.example.org","created":"2026-11-23T10:00:00Z",
        "items":[{"name":"n","kind":"certificate","encoding":"text","data":"a\nb"}]}"#;
    let table = [
        (good.to_owned(), None),
        (good.replace(":1,", ":2,"), Some("schema version 2")),
        (good.replace("\"site\"", "\"sight\""), Some("do not parse")),
        (good.replace("\"text\"", "\"base64\""), Some("do not parse")),
        ("geheim".to_owned(), Some("do not parse")),
    ];
    for (json, reason) in table {
        for armor in [&["-a"][..], &[]] {
            let arguments = [armor, &["-r", &recipient]].concat();
            let sealed = output("age", &bench.path("."), &arguments, json.as_bytes()).stdout;
            match (EscrowBundle::open(&sealed, &identity), reason) {
                (Ok(bundle), None) => assert_eq!(*bundle.items[0].data, b"a\nb"),
                (Err(error), Some(reason)) => {
                    assert!(error.to_string().contains(reason), "{error}");
                    assert!(!format!("{error} {error:?}").contains("geheim"));
                }
                (other, _) => panic!("{json}: {other:?}"),
            }
        }
    }
    bench.write("ours.key", identity.expose().as_bytes());
    let (_, shown) = run("age-keygen", &bench.path("."), &["-y", "ours.key"], b"");
    assert_eq!(shown.trim(), recipient);
}

#[test]
fn recipients_that_are_none() {
    let identity = EscrowIdentity::generate();
    let good = identity.recipient().to_string();
    assert_eq!(format!(" {good}\n").parse::<EscrowRecipient>().unwrap().to_string(), good);
    let typo = format!("{}{}", &good[..20], good[20..].replacen(|c: char| c.is_ascii_digit(), "l", 1));
    let table = [
        (typo.as_str(), typo.as_str()),
        ("age1", "age1"),
        ("age1yubikey1qdef", "age1yubikey1qdef"),
        ("ssh-ed25519 AAAA", "does not begin with age1"),
        ("", "does not begin with age1"),
        (&identity.expose(), "it is a secret key"),
    ];
    for (text, says) in table {
        let error = text.parse::<EscrowRecipient>().unwrap_err();
        assert!(error.to_string().contains(says), "{text}: {error}");
        assert!(error.hint().is_some());
        assert!(!format!("{error} {error:?}").contains(&identity.expose()[16..]), "a secret in an error");
    }
    for text in ["", "# only a remark", "age1abc", "AGE-SECRET-KEY-1QQQQ"] {
        assert!(matches!(EscrowIdentity::parse(text), Err(CertsError::Identity { .. })), "{text}");
    }
    assert!(!format!("{identity:?}").contains("SECRET"));
    let nobody = bundle().seal(&[]).unwrap_err().to_string();
    assert!(nobody.contains("could not seal"), "{nobody}");
}
