//! Which answers an unattended installation takes, where several are.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use bundle::oci::Digest;
use camino::Utf8Path;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::answers::{self, FOUND, INTERACTIVE};
use crate::config::example::EXAMPLE;
use crate::host::{
    Command, Entry, EntryKind, Host, HostError, HttpsAnswer, HttpsRequest, Output, TimeAnswer, TimeRequest,
};

type Done<T> = Result<T, HostError>;

const MEDIUM: &str = "/run/cofferdam/medium/cofferdam/install.yaml";
const VOLUME: &str = "/run/cofferdam/volume/install.yaml";
const DATA_MEDIUM: &str = "/run/cofferdam/volume/cofferdam/install.yaml";
const LABEL: &str = "/dev/disk/by-label/COFFERDAM";
const URL: &str = "http://deploy.example.com/rack7.yaml";

/// A live system: its files, and what the network gives for [`URL`].
#[derive(Default)]
struct Live {
    files: RefCell<BTreeMap<String, Vec<u8>>>,
    served: Option<Vec<u8>>,
    commands: RefCell<Vec<String>>,
}

impl Live {
    fn with(command_line: &str, files: &[(&str, &str)]) -> Self {
        let live = Self::default();
        let line = format!("roothash=00 cofferdam.live {command_line}");
        for (path, content) in files.iter().copied().chain([("/proc/cmdline", line.as_str())]) {
            live.files.borrow_mut().insert(path.to_owned(), content.as_bytes().to_vec());
        }
        live
    }

    fn seek(&self) -> Result<Option<String>, super::LiveError> {
        Ok(answers::seek(self)?.map(|answers| answers.place))
    }

    fn text(&self, path: &str) -> Option<String> {
        self.files.borrow().get(path).map(|content| String::from_utf8(content.clone()).unwrap())
    }
}

impl Host for Live {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
    fn pause(&self, _: Duration) {
        panic!("nothing is waited for")
    }
    fn run(&self, command: &Command, _: &mut dyn FnMut(&str)) -> Done<Output> {
        self.commands.borrow_mut().push(command.to_string());
        let ended = |status, stdout: &[u8], stderr: &str| {
            Ok(Output { status, stdout: Zeroizing::new(stdout.to_vec()), stderr: stderr.to_owned() })
        };
        match (command.program(), &self.served) {
            ("findmnt", _) => ended(1, b"", ""),
            ("mount", _) => ended(0, b"", ""),
            ("curl", Some(content)) => ended(0, content, ""),
            ("curl", None) => ended(22, b"", "curl: (22) The requested URL returned error: 404\n"),
            _ => panic!("`{command}` is not expected"),
        }
    }
    fn read(&self, path: &Utf8Path) -> Done<Option<Zeroizing<Vec<u8>>>> {
        Ok(self.files.borrow().get(path.as_str()).cloned().map(Zeroizing::new))
    }
    fn look(&self, path: &Utf8Path) -> Done<Option<Entry>> {
        let entry = |content: &Vec<u8>| Entry { kind: EntryKind::File, size: content.len() as u64, mode: 0o600 };
        Ok(self.files.borrow().get(path.as_str()).map(entry))
    }
    fn list(&self, _: &Utf8Path) -> Done<Vec<String>> {
        Ok(Vec::new())
    }
    fn write(&self, path: &Utf8Path, content: &[u8], mode: u32) -> Done<()> {
        assert_eq!(mode, 0o600, "{path}");
        self.files.borrow_mut().insert(path.to_string(), content.to_vec());
        Ok(())
    }
    fn append(&self, path: &Utf8Path, _: &[u8]) -> Done<()> {
        panic!("{path} is not written")
    }
    fn make_directory(&self, _: &Utf8Path, _: u32) -> Done<()> {
        Ok(())
    }
    fn remove(&self, path: &Utf8Path) -> Done<()> {
        panic!("{path} is not removed")
    }
    fn copy(&self, path: &Utf8Path, _: &Utf8Path, _: u32, _: Option<&Digest>) -> Done<()> {
        panic!("{path} is not copied")
    }
    fn digest(&self, _: &Utf8Path) -> Done<Option<Digest>> {
        Ok(None)
    }
    fn measure_sync(&self, _: &Utf8Path, _: u32) -> Done<Duration> {
        panic!("no disk is measured")
    }
    fn ask_time(&self, _: &[TimeRequest]) -> Vec<Done<TimeAnswer>> {
        Vec::new()
    }
    fn https_get(&self, _: &HttpsRequest) -> Done<HttpsAnswer> {
        panic!("nobody is asked")
    }
}

/// The example without what wants a person or sets up a network.
fn answers_of(site: &str) -> String {
    let mut answers: serde_json::Value = serde_yaml::from_str(EXAMPLE).unwrap();
    let map = answers.as_object_mut().unwrap();
    map.remove("network");
    map.remove("interactive");
    map.get_mut("site").unwrap()["name"] = site.into();
    serde_yaml::to_string(&answers).unwrap()
}

#[test]
fn the_command_line_comes_before_the_volume_and_the_volume_before_the_medium() {
    let [url, path, volume, medium] = ["url", "path", "volume", "medium"].map(answers_of);
    let all = [(LABEL, ""), (MEDIUM, medium.as_str()), (DATA_MEDIUM, volume.as_str()), ("/run/other.yaml", &path)];
    let digest = Digest::sha256_of(url.as_bytes()).hex();

    let line = format!("cofferdam.config={URL} cofferdam.config.sha256={}", digest.to_uppercase());
    let live = Live { served: Some(url.clone().into_bytes()), ..Live::with(&line, &all) };
    assert_eq!(live.seek().unwrap().as_deref(), Some(URL));
    assert_eq!(live.text(FOUND), Some(url));

    let live = Live::with("cofferdam.config=/run/other.yaml", &all);
    assert_eq!(live.seek().unwrap().as_deref(), Some("/run/other.yaml"));
    assert_eq!(live.text(FOUND).as_ref(), Some(&path));

    let live = Live::with("", &all);
    assert_eq!(live.seek().unwrap().as_deref(), Some(DATA_MEDIUM));
    assert_eq!(live.text(FOUND).as_ref(), Some(&volume));
    let mounted = live.commands.borrow().iter().any(|command| command.contains("ro,nodev,nosuid,noexec"));
    assert!(mounted, "{:?}", live.commands.borrow());
    let both = [all.as_slice(), &[(VOLUME, medium.as_str())]].concat();
    assert_eq!(Live::with("", &both).seek().unwrap().as_deref(), Some(VOLUME), "a stick with the file alone");

    let live = Live::with("", &[(MEDIUM, medium.as_str())]);
    assert_eq!(live.seek().unwrap().as_deref(), Some(MEDIUM));
    assert_eq!(live.text(FOUND), Some(medium));
    assert_eq!(Live::with("", &[]).seek().unwrap(), None);
}

#[test]
fn what_the_command_line_names_is_taken_or_nothing() {
    let (right, medium) = (answers_of("right"), answers_of("medium"));
    let files = [(MEDIUM, medium.as_str())];
    let digest = Digest::sha256_of(right.as_bytes()).hex();
    let other = "0".repeat(64);
    for (line, served, why) in [
        (format!("cofferdam.config={URL}"), Some(&right), "need cofferdam.config.sha256=".to_owned()),
        (format!("cofferdam.config={URL} cofferdam.config.sha256={other}"), Some(&right), digest.clone()),
        (format!("cofferdam.config={URL} cofferdam.config.sha256={digest}"), None, "404".to_owned()),
        ("cofferdam.config=/there/is/none.yaml".to_owned(), None, "there is no such file".to_owned()),
        (format!("cofferdam.config={MEDIUM} cofferdam.config.sha256={other}"), None, "SHA-256".to_owned()),
    ] {
        let served = served.map(|text| text.clone().into_bytes());
        let live = Live { served, ..Live::with(&line, &files) };
        let error = live.seek().unwrap_err();
        assert!(error.to_string().contains(&why), "{line}: {error}");
        assert!(error.hint().contains("command line"), "{}", error.hint());
        assert_eq!((live.text(FOUND), live.text(INTERACTIVE)), (None, None), "{line}");
    }
}

/// Answers that want somebody are those of a console, and what cannot be read is the installation's to refuse.
#[test]
fn answers_that_want_a_person_go_to_a_console() {
    let mut answers: serde_json::Value = serde_yaml::from_str(&answers_of("site")).unwrap();
    answers["interactive"] = serde_json::json!(["disks"]);
    let text = serde_yaml::to_string(&answers).unwrap();
    let live = Live::with("", &[(MEDIUM, &text)]);
    live.seek().unwrap();
    assert_eq!((live.text(INTERACTIVE), live.text(FOUND)), (Some(text), None));
    let live = Live::with("", &[(MEDIUM, "{")]);
    live.seek().unwrap();
    assert_eq!((live.text(INTERACTIVE), live.text(FOUND)), (None, Some("{".to_owned())));
}
