#![allow(clippy::unwrap_used, clippy::panic)]

use super::example::EXAMPLE;
use super::{ConfigError, Encryption, InstallConfig, parse};

#[test]
fn the_example_is_valid_and_survives_a_round_trip() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(parse(&config.to_yaml().unwrap()).unwrap(), config);
}

const RECIPIENTS: &str =
    "    escrow-recipients:\n      - age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\n";

/// (what is replaced in the example, by what, what the error must say)
const BROKEN: &[(&str, &str, &str)] = &[
    ("schema-version: 1", "schema-version: 2", "schema-version: 2 is not known"),
    ("schema-version: 1", "", "missing field `schema-version`"),
    ("site:\n", "sites: {}\nsite:\n", "unknown field `sites`"),
    ("  name: rack7\n", "  name: Rack 7\n", "site.name: \"Rack 7\" must be lower-case"),
    ("fqdn: mgmt.rack7.example.com", "fqdn: mgmt", "site.fqdn"),
    ("fqdn: mgmt.rack7.example.com", "fqdn: [mgmt]", "invalid type"),
    ("address: 192.0.2.11", "address: 127.0.0.1", "node.address: 127.0.0.1 is no address"),
    ("address: 192.0.2.11", "address: 10.244.0.9", "cluster.pod-cidr: 10.244.0.0/16 holds 10.244.0.9"),
    ("address: 192.0.2.11", "address: rack7", "node.address"),
    ("  # vip: 192.0.2.10", "  vip: 192.0.2.11", "site.vip: is the node's own address"),
    ("name: rack7-a", "name: localhost", "node.name: \"localhost\" is every machine's name"),
    ("erase: \"2345\"", "erase: \"5\"", "storage.disk.erase"),
    ("- serial: S6CTNX0T512345", "- {}", "fits every disk"),
    ("mode: luks2", "mode: luks1", "unknown variant `luks1`"),
    ("tpm2: auto", "tpm2: maybe", "unknown variant `maybe`"),
    ("- age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "- age1nobody", "age1nobody"),
    (RECIPIENTS, "", "storage.encryption.escrow-recipients: is empty"),
    (RECIPIENTS, "    escrow-directory: /media\n    show-recovery-key: true\n", "there is no escrow to copy"),
    ("iterations: 4", "iterations: 1", "storage.encryption.key-derivation"),
    ("# passphrase: { file: /root/passphrase }", "passphrase: { file: passphrase }", "wants the whole path of a file"),
    ("    - /media/cofferdam/trust.pub", "    []", "bundle.trust: names no key"),
    ("algorithm: ecdsa-p256", "algorithm: dsa", "\"dsa\" is not one of"),
    ("service-cidr: 10.96.0.0/12", "service-cidr: 10.240.0.0/12", "overlap"),
    ("service-cidr: 10.96.0.0/12", "service-cidr: 10.97.0.0/12", "bits are set behind the length"),
];

#[test]
fn broken_files_say_what_is_wrong() {
    for (find, replacement, expected) in BROKEN {
        assert!(EXAMPLE.contains(find), "{find:?} is not in the example");
        let text = EXAMPLE.replacen(find, replacement, 1);
        let error = parse(&text).unwrap_err();
        assert!(error.to_string().contains(expected), "{replacement:?}: {error}");
        assert!(!error.hint().is_empty());
    }
}

#[test]
fn all_problems_come_at_once() {
    let text = EXAMPLE.replace("erase: \"2345\"", "erase: \"5\"").replace("name: rack7-a", "name: A");
    let ConfigError::Rules { problems } = parse(&text).unwrap_err() else { panic!("rules were broken") };
    assert_eq!(problems.iter().map(|problem| problem.key).collect::<Vec<_>>(), ["node.name", "storage.disk.erase"]);
}

#[test]
fn no_encryption_wants_its_token() {
    let mut config: InstallConfig = parse(EXAMPLE).unwrap();
    config.storage.disk = None;
    for (token, good) in [("yes", false), (super::PLAINTEXT_TOKEN, true)] {
        config.storage.encryption = Encryption::None { token: token.to_owned() };
        assert_eq!(parse(&config.to_yaml().unwrap()).is_ok(), good, "{token}");
    }
}

#[test]
fn an_administrator_can_log_in() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6wu3xDlzCNWtgvCzd1GkbEFAE2kyAaodjzEyA2JTuB operator@desk";
    let hash = format!("$y$j9T$F5Jx5fExrKuPp53xLKQ..1${}", "a".repeat(43));
    let table = [
        ("operator", Some(hash.as_str()), vec![key], ""),
        ("operator", None, vec![key], ""),
        ("operator", Some(hash.as_str()), vec![], ""),
        ("operator", None, vec![], "nobody could log in"),
        ("root", Some(hash.as_str()), vec![], "is an account of the system"),
        ("Operator", Some(hash.as_str()), vec![], "must be lower-case"),
        ("", Some(hash.as_str()), vec![], "1 to 32"),
        ("operator", Some("correct horse battery staple"), vec![], "no crypt(5) hash"),
        ("operator", Some("$1$old$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), vec![], "no crypt(5) hash"),
        ("operator", Some("$6$a:b$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), vec![], "no crypt(5) hash"),
        ("operator", None, vec!["ssh-dss AAAA"], "no line of an SSH public key"),
        ("operator", None, vec![&key[..40]], "cut off or changed"),
    ];
    for (name, hash, keys, expected) in table {
        let mut config = parse(EXAMPLE).unwrap();
        config.administrator = Some(super::Administrator {
            name: name.to_owned(),
            password_hash: hash.map(str::to_owned),
            ssh_keys: keys.into_iter().map(str::to_owned).collect(),
        });
        match parse(&config.to_yaml().unwrap()) {
            Ok(again) => assert!(expected.is_empty() && again == config, "{name} {hash:?} was taken"),
            Err(error) => {
                assert!(!expected.is_empty() && error.to_string().contains(expected), "{name} {hash:?}: {error}");
                assert!(!error.to_string().contains("horse"), "an error never repeats what may be a password");
            }
        }
    }
}

#[test]
fn the_recovery_key_leaves_by_the_escrow_or_by_the_screen() {
    let shown = "    show-recovery-key: true\n";
    for (by, needs_a_person) in [(RECIPIENTS, false), (&*format!("{RECIPIENTS}{shown}"), false), (shown, true)] {
        let config = parse(&EXAMPLE.replace(RECIPIENTS, by)).unwrap();
        assert_eq!(config.needs_a_person(), needs_a_person, "{by}");
        assert_eq!(parse(&config.to_yaml().unwrap()).unwrap(), config);
    }
}

/// Somebody may write it where its file is to be named; the error, which is shown and logged, does not repeat it.
#[test]
fn a_secret_in_the_place_of_its_file_is_not_repeated() {
    for secret in ["correct horse battery", "271828182845904523", "-2718281828", "2.718281828459", "[correct horse]"] {
        let text = EXAMPLE.replace("# passphrase: { file: /root/passphrase }", &format!("passphrase: {secret}"));
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains("file") && !error.contains("horse") && !error.contains("718281828"), "{error}");
    }
    let text = EXAMPLE.replace("# passphrase: {", "passphrase: { text: x,");
    assert!(parse(&text).unwrap_err().to_string().contains("unknown field `text`"));
    let text = EXAMPLE.replace("# passphrase: {", "passphrase: {");
    assert_eq!(parse(&text).unwrap().passphrase_file(), Some("/root/passphrase".into()));
}

#[test]
fn pages_are_named_as_on_the_screen() {
    let config = parse(&format!("{EXAMPLE}\ninteractive: [disks, review]\n")).unwrap();
    assert_eq!(config.interactive, [super::Page::Disks, super::Page::Review]);
    assert!(parse(&format!("{EXAMPLE}\ninteractive: [disk]\n")).is_err());
}

#[test]
fn a_huge_file_is_refused_before_it_is_parsed() {
    assert!(matches!(parse(&" ".repeat(super::SIZE_LIMIT + 1)), Err(ConfigError::TooLarge { .. })));
}
