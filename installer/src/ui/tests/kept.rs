//! The host of a fixture: what the pages wrote can be read, and nothing else is there.

use std::time::Duration;

use bundle::oci::Digest;
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::host::{
    Command, Entry, EntryKind, Host, HostError, HttpsAnswer, HttpsRequest, Output, TimeAnswer, TimeRequest,
};

type Done<T> = Result<T, HostError>;

/// Files by their paths; the last one counts.
pub(super) struct KeptFiles(pub(super) Vec<(Utf8PathBuf, Vec<u8>)>);

impl KeptFiles {
    fn find(&self, path: &Utf8Path) -> Option<&Vec<u8>> {
        self.0.iter().rfind(|(kept, _)| kept == path).map(|(_, content)| content)
    }
}

impl Host for KeptFiles {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
    fn pause(&self, _: Duration) {
        panic!("nothing is waited for")
    }
    fn run(&self, command: &Command, _: &mut dyn FnMut(&str)) -> Done<Output> {
        panic!("`{command}` is not expected")
    }
    fn read(&self, path: &Utf8Path) -> Done<Option<Zeroizing<Vec<u8>>>> {
        Ok(self.find(path).cloned().map(Zeroizing::new))
    }
    fn look(&self, path: &Utf8Path) -> Done<Option<Entry>> {
        let entry = |content: &Vec<u8>| Entry { kind: EntryKind::File, size: content.len() as u64, mode: 0o600 };
        Ok(self.find(path).map(entry))
    }
    fn list(&self, _: &Utf8Path) -> Done<Vec<String>> {
        Ok(Vec::new())
    }
    fn write(&self, path: &Utf8Path, _: &[u8], _: u32) -> Done<()> {
        panic!("{path} is written before anything was begun")
    }
    fn append(&self, path: &Utf8Path, _: &[u8]) -> Done<()> {
        panic!("{path} is written before anything was begun")
    }
    fn make_directory(&self, path: &Utf8Path, _: u32) -> Done<()> {
        panic!("{path} is made before anything was begun")
    }
    fn remove(&self, path: &Utf8Path) -> Done<()> {
        panic!("{path} is removed before anything was begun")
    }
    fn copy(&self, path: &Utf8Path, _: &Utf8Path, _: u32, _: Option<&Digest>) -> Done<()> {
        panic!("{path} is copied before anything was begun")
    }
    fn digest(&self, path: &Utf8Path) -> Done<Option<Digest>> {
        Ok(self.find(path).map(|content| Digest::sha256_of(content)))
    }
    fn measure_sync(&self, _: &Utf8Path, _: u32) -> Done<Duration> {
        panic!("the disk is not measured")
    }
    fn ask_time(&self, requests: &[TimeRequest]) -> Vec<Done<TimeAnswer>> {
        assert!(requests.is_empty(), "nobody is asked for the time");
        Vec::new()
    }
    fn https_get(&self, _: &HttpsRequest) -> Done<HttpsAnswer> {
        panic!("nobody is asked")
    }
}
