//! Recovery keys against systemd-cryptenroll and cryptsetup, on a LUKS2 image in a file: no device-mapper is needed.

use std::{
    fs::File,
    process::{Command, Stdio},
};

use certs::RecoveryKey;

use crate::bench::{Bench, run};

/// Cheap on purpose: what is tested is the text of the key and not the hardness of the slot.
const CHEAP: [&str; 4] = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];

fn cryptsetup(bench: &Bench, arguments: &[&str], input: &[u8]) -> (bool, String) {
    run("cryptsetup", &bench.path("."), arguments, input)
}

fn opens(bench: &Bench, passphrase: &[u8]) -> bool {
    cryptsetup(bench, &["open", "--test-passphrase", "--key-file", "-", "disk"], passphrase).0
}

#[test]
fn a_key_that_systemd_made_is_read_and_both_open_the_volume() {
    let bench = Bench::new();
    File::create(bench.path("disk")).unwrap().set_len(20 << 20).unwrap();
    let format = [&["luksFormat", "-q", "--type", "luks2", "--key-file", "-", "disk"][..], &CHEAP].concat();
    let (well, text) = cryptsetup(&bench, &format, b"first");
    assert!(well, "{text}");

    let enrolled = Command::new("systemd-cryptenroll")
        .arg("--recovery-key")
        .arg(bench.path("disk").canonicalize().unwrap())
        .env("PASSWORD", "first")
        .stdin(Stdio::null())
        .output()
        .expect("systemd-cryptenroll is needed for this test (apt-get install systemd)");
    assert!(enrolled.status.success(), "{}", String::from_utf8_lossy(&enrolled.stderr));
    let theirs = String::from_utf8(enrolled.stdout).unwrap().trim().to_owned();
    let typed = theirs.to_uppercase().replace('-', " ");
    let read = RecoveryKey::parse(&typed).unwrap();
    assert_eq!(*read.expose(), theirs);
    assert!(opens(&bench, read.expose().as_bytes()));

    let ours = RecoveryKey::generate().unwrap();
    assert!(!opens(&bench, ours.expose().as_bytes()));
    bench.write("ours", ours.expose().as_bytes());
    let add = [&["luksAddKey", "--key-file", "-", "disk", "ours"][..], &CHEAP].concat();
    let (well, text) = cryptsetup(&bench, &add, theirs.as_bytes());
    assert!(well, "{text}");
    assert!(opens(&bench, ours.expose().as_bytes()));
}
