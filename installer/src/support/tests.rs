//! Secrets are planted wherever a support bundle looks; none comes out of it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use bundle::oci::Digest;
use camino::Utf8Path;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::write;
use crate::config::example::EXAMPLE;
use crate::host::{
    Command, Entry, EntryKind, Host, HostError, HttpsAnswer, HttpsRequest, Output, TimeAnswer, TimeRequest,
};
use crate::layout;

/// Files in memory; every command prints its own name and all planted secrets, on both outputs.
struct Leaky {
    files: RefCell<BTreeMap<String, Vec<u8>>>,
    secrets: String,
}

type Done<T> = Result<T, HostError>;

impl Host for Leaky {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
    fn pause(&self, _: Duration) {}
    fn run(&self, command: &Command, _: &mut dyn FnMut(&str)) -> Done<Output> {
        let text = format!("said by {command}\n{}", self.secrets);
        Ok(Output { status: 1, stdout: Zeroizing::new(text.clone().into_bytes()), stderr: text })
    }
    fn read(&self, path: &Utf8Path) -> Done<Option<Zeroizing<Vec<u8>>>> {
        Ok(self.files.borrow().get(path.as_str()).cloned().map(Zeroizing::new))
    }
    fn look(&self, path: &Utf8Path) -> Done<Option<Entry>> {
        let directory = Entry { kind: EntryKind::Directory, size: 0, mode: 0o755 };
        Ok((path == "/media/stick").then_some(directory))
    }
    fn list(&self, directory: &Utf8Path) -> Done<Vec<String>> {
        let prefix = format!("{directory}/");
        Ok(self.files.borrow().keys().filter_map(|path| path.strip_prefix(&prefix).map(str::to_owned)).collect())
    }
    fn write(&self, path: &Utf8Path, content: &[u8], mode: u32) -> Done<()> {
        assert_eq!(mode, 0o600);
        self.files.borrow_mut().insert(path.to_string(), content.to_vec());
        Ok(())
    }
    fn append(&self, path: &Utf8Path, _: &[u8]) -> Done<()> {
        panic!("{path} is appended to")
    }
    fn make_directory(&self, path: &Utf8Path, _: u32) -> Done<()> {
        panic!("{path} is made")
    }
    fn remove(&self, path: &Utf8Path) -> Done<()> {
        panic!("{path} is removed")
    }
    fn copy(&self, _: &Utf8Path, target: &Utf8Path, _: u32, _: Option<&Digest>) -> Done<()> {
        panic!("{target} is copied to")
    }
    fn digest(&self, _: &Utf8Path) -> Done<Option<Digest>> {
        Ok(None)
    }
    fn measure_sync(&self, _: &Utf8Path, _: u32) -> Done<Duration> {
        Ok(Duration::ZERO)
    }
    fn ask_time(&self, requests: &[TimeRequest]) -> Vec<Done<TimeAnswer>> {
        panic!("{requests:?}")
    }
    fn https_get(&self, request: &HttpsRequest) -> Done<HttpsAnswer> {
        panic!("{request:?}")
    }
}

#[test]
fn planted_secrets_do_not_get_in() {
    let recovery = certs::RecoveryKey::generate().unwrap().expose().to_string();
    let age = certs::EscrowIdentity::generate().expose().to_string();
    let key = certs::PrivateKey::generate(certs::KeyAlgorithm::EcdsaP256).unwrap().to_pem().to_string();
    let key_line = key.lines().nth(1).unwrap().to_owned();
    let (encryption, token) = ("bm90LXJlYWxseS1hLXNlY3JldGJveC1rZXktISEhIQ==", "abcdef.0123456789abcdef");
    let secrets = format!("{recovery}\n{age}\n{key}\nlone line {key_line}\n{encryption} {token}\n");
    let mut files = BTreeMap::new();
    for path in [layout::JOURNAL, layout::EVENTS, layout::PLAN, layout::STATE, "/etc/os-release", "/etc/crypttab"] {
        files.insert(path.to_owned(), format!("content of {path}\n{secrets}").into_bytes());
    }
    files.insert(layout::CONFIG.to_owned(), EXAMPLE.as_bytes().to_vec());
    files.insert(format!("{}/site-ca.key", layout::KEYSTORE), key.clone().into_bytes());
    files.insert(
        "/etc/kubernetes/cofferdam/encryption.yaml".to_owned(),
        format!("keys:\n  - name: key1\n    secret: {encryption}\n").into_bytes(),
    );
    let host = Leaky { files: RefCell::new(files), secrets };

    assert!(write(&host, "/media/nothing".into()).unwrap_err().to_string().contains("/media/nothing is no directory"));
    let path = write(&host, "/media/stick".into()).unwrap();
    assert_eq!(path, "/media/stick/cofferdam-support-rack7-19700101T000000Z.tar.zst");
    let archive = host.files.borrow()[path.as_str()].clone();
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(zstd::Decoder::new(archive.as_slice()).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        found.insert(name, text);
    }
    let part = |name: &str| &found[&format!("cofferdam-support-rack7-19700101T000000Z/{name}")];
    assert!(part("journal.jsonl").contains("content of /var/lib/cofferdam/journal.jsonl"));
    assert!(part("events.jsonl").contains("(recovery key removed)"), "{}", part("events.jsonl"));
    assert!(part("log/kubelet.service.txt").contains("said by journalctl"));
    assert!(part("config.yaml").contains("mgmt.rack7.example.com"));
    assert!(part("report.json").contains("\"findings\""), "{}", part("report.json"));
    assert!(part("versions.txt").contains("cofferdam "));
    for (name, text) in &found {
        for group in recovery.split('-').chain([age.as_str(), key_line.as_str(), encryption, token]) {
            assert!(!text.contains(group), "{name} holds {group}:\n{text}");
        }
        assert!(!text.contains("PRIVATE KEY"), "{name}");
    }
}
