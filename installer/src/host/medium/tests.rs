//! A medium that is none: what it does stands in a list, and its clock runs ten seconds with each look.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bundle::oci::Digest;

use super::*;
use crate::host::real::{copy, run};
use crate::host::{Command, Heard};

/// What a medium does next, in this attempt and the ones after it.
#[derive(Debug, Clone)]
enum Act {
    Give(&'static [u8]),
    Fail(Errno),
    /// No answer until the test's clock shows these seconds.
    Silent(u64),
    Hang,
}

struct Fake {
    acts: Arc<Mutex<VecDeque<Act>>>,
    clock: Arc<AtomicU64>,
}

impl Read for Fake {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The guard must not be held while it hangs.
        let act = self.acts.lock().unwrap().pop_front();
        match act {
            None => Ok(0),
            Some(Act::Give(bytes)) => {
                buffer[..bytes.len()].copy_from_slice(bytes);
                Ok(bytes.len())
            }
            Some(Act::Fail(errno)) => Err(errno.into()),
            Some(Act::Silent(until)) => {
                while self.clock.load(Ordering::SeqCst) < until {
                    std::thread::sleep(Duration::from_millis(1));
                }
                self.read(buffer)
            }
            Some(Act::Hang) => loop {
                std::thread::park();
            },
        }
    }
}

struct Bed {
    reader: Reader,
    opened: Arc<Mutex<Vec<u64>>>,
    said: Vec<String>,
    got: Vec<u8>,
}

impl Bed {
    fn new(acts: &[Act], bytes: Option<u64>, stop: &Stop) -> Self {
        let acts = Arc::new(Mutex::new(acts.iter().cloned().collect::<VecDeque<_>>()));
        let (clock, opened) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        let medium = Medium { path: "/dev/sr0".into(), bytes, stop: stop.clone() };
        let (looked, places) = (Arc::clone(&clock), Arc::clone(&opened));
        let open = move |offset| -> io::Result<(Box<dyn Read + Send>, u64)> {
            places.lock().unwrap().push(offset);
            Ok((Box::new(Fake { acts: Arc::clone(&acts), clock: Arc::clone(&clock) }), 2_000_000))
        };
        let now = move || Duration::from_secs(looked.fetch_add(10, Ordering::SeqCst));
        let reader = Reader::new(medium, Arc::new(open), Pace { tick: Duration::from_millis(20), now: Box::new(now) });
        Self { reader, opened, said: Vec::new(), got: Vec::new() }
    }

    fn read(&mut self) -> Result<(), HostError> {
        while let Some(chunk) = self.reader.next(&mut |text| self.said.push(text.to_owned()))? {
            self.got.extend_from_slice(&chunk);
        }
        Ok(())
    }
}

#[test]
fn a_silence_is_told_with_growing_pauses_and_then_over() {
    let mut bed = Bed::new(&[Act::Give(b"ab"), Act::Silent(300), Act::Give(b"cd")], None, &Stop::default());
    bed.read().unwrap();
    assert_eq!(bed.got, b"abcd");
    let seconds: Vec<u64> = bed
        .said
        .iter()
        .filter_map(|text| text.strip_prefix("the medium has not answered for ")?.split(' ').next()?.parse().ok())
        .collect();
    assert!((3..=6).contains(&seconds.len()), "{:?}", bed.said);
    assert!(seconds[0] >= 15 && seconds.windows(2).all(|pair| pair[1] >= 2 * pair[0]), "{seconds:?}");
    assert!(bed.said[0].ends_with("(at 0.0 MB of 2.0 MB): is the BMC's virtual CD connected?"), "{:?}", bed.said);
    assert!(bed.said.last().unwrap().starts_with("the medium answers again after "), "{:?}", bed.said);
    assert_eq!(*bed.opened.lock().unwrap(), [0], "one that is silent is not opened again");
}

#[test]
fn after_an_error_it_goes_on_from_the_same_byte() {
    let acts = [
        Act::Give(b"ab"),
        Act::Fail(Errno::IO),
        Act::Fail(Errno::NOMEDIUM),
        Act::Fail(Errno::NODEV),
        Act::Give(b"c"),
        Act::Fail(Errno::IO),
        Act::Give(b"d"),
    ];
    let mut bed = Bed::new(&acts, None, &Stop::default());
    bed.read().unwrap();
    assert_eq!(bed.got, b"abcd");
    assert_eq!(*bed.opened.lock().unwrap(), [0, 2, 2, 2, 3]);
    assert!(
        bed.said[0].starts_with("the medium gives an error, it is tried again: Input/output error"),
        "{:?}",
        bed.said
    );
}

#[test]
fn one_that_does_not_come_back_is_given_up() {
    let mut bed = Bed::new(&[Act::Give(b"ab"), Act::Hang], None, &Stop::default());
    let silent = bed.read().unwrap_err();
    assert_eq!(silent.to_string(), "/dev/sr0 cannot be read at 0.0 MB of 2.0 MB: no byte for 600 s");
    assert_eq!(silent.code(), "medium");

    let broken = vec![Act::Fail(Errno::IO); 100];
    let mut bed = Bed::new(&broken, None, &Stop::default());
    let error = bed.read().unwrap_err();
    assert!(error.to_string().contains("Input/output error"), "{error}");
    let attempts = bed.opened.lock().unwrap().len();
    assert!((10..=70).contains(&attempts), "{attempts} attempts within ten minutes");
}

#[test]
fn what_no_waiting_mends_fails_at_once() {
    let mut bed = Bed::new(&[Act::Fail(Errno::ACCESS)], None, &Stop::default());
    assert!(matches!(bed.read(), Err(HostError::File { .. })));
    // That a file is not there means something else than that it is gone.
    let mut bed = Bed::new(&[Act::Fail(Errno::NOENT)], None, &Stop::default());
    assert!(matches!(bed.read(), Err(HostError::File { .. })));
    let mut bed = Bed::new(&[Act::Give(b"a"), Act::Fail(Errno::NOENT), Act::Give(b"b")], None, &Stop::default());
    bed.read().unwrap();
    assert_eq!(bed.got, b"ab");
}

#[test]
fn a_stop_ends_the_wait() {
    for acts in [vec![Act::Give(b"ab"), Act::Hang], vec![Act::Give(b"ab"), Act::Fail(Errno::IO), Act::Hang]] {
        let stop = Stop::default();
        let mut bed = Bed::new(&acts, None, &stop);
        let asked = stop.clone();
        let mut got = Vec::new();
        let result = loop {
            match bed.reader.next(&mut |_| asked.request()) {
                Ok(Some(chunk)) => got.extend(chunk),
                other => break other,
            }
        };
        assert!(matches!(result, Err(HostError::Stopped { .. })), "{result:?}");
        assert_eq!(got, b"ab");
    }
}

#[test]
fn as_many_bytes_as_are_asked_for() {
    let mut bed = Bed::new(&[Act::Give(b"abc"), Act::Give(b"def"), Act::Hang], Some(5), &Stop::default());
    bed.read().unwrap();
    assert_eq!(bed.got, b"abcde");
    let mut short = Bed::new(&[Act::Give(b"abc")], Some(5), &Stop::default());
    assert!(short.read().unwrap_err().to_string().ends_with("it ends 2 bytes early"));
}

#[test]
fn a_real_file_is_read_whole_and_to_a_parser() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8> = (0..=255_u8).cycle().take(3 * CHUNK + 17).collect();
    std::fs::write(file.path(), &content).unwrap();
    let path = Utf8Path::from_path(file.path()).unwrap();
    let mut silent = |_: &str| ();
    let mut read = Vec::new();
    Medium::new(path, &Stop::default()).plain(&mut silent).read_to_end(&mut read).unwrap();
    assert!(read == content);
    let gone = Medium::new("/nowhere/at/all", &Stop::default()).open().next(&mut silent).unwrap_err();
    assert!(matches!(gone, HostError::File { .. }), "{gone}");
}

#[test]
fn a_command_gets_the_medium_whole_and_the_words_are_heard() {
    let acts = [Act::Give(b"ab"), Act::Fail(Errno::IO), Act::Silent(200), Act::Give(b"cd")];
    let bed = Bed::new(&acts, Some(4), &Stop::default());
    let (mut words, mut counted) = (Vec::new(), 0);
    let command = Command::new("cat");
    let output = run(&command, Some(bed.reader), &mut |heard| match heard {
        Heard::Medium(text) => words.push(text.to_owned()),
        Heard::Bytes(bytes) => counted = bytes,
        Heard::Line(_) => {}
    });
    assert_eq!(output.unwrap().text(), "abcd");
    assert!(words.len() >= 3 && words.last().unwrap().contains("answers again"), "{words:?}");
    assert_eq!(counted, 4);
}

#[test]
fn a_stop_ends_the_command_that_waits_with_us() {
    let stop = Stop::default();
    let bed = Bed::new(&[Act::Give(b"ab"), Act::Hang], None, &stop);
    let ended = run(&Command::new("cat"), Some(bed.reader), &mut |heard| {
        if let Heard::Medium(_) = heard {
            stop.request();
        }
    });
    assert!(matches!(ended, Err(HostError::Stopped { .. })), "{ended:?}");
    // A step that fails so is no failure of the installation.
    assert!(matches!(crate::step::StepError::from(ended.unwrap_err()), crate::step::StepError::Stopped));
}

#[test]
fn one_that_does_not_come_back_ends_the_command() {
    let bed = Bed::new(&[Act::Give(b"ab"), Act::Hang], None, &Stop::default());
    let error = crate::step::StepError::from(run(&Command::new("cat"), Some(bed.reader), &mut |_| {}).unwrap_err());
    assert_eq!(error.code(), "medium");
    assert!(error.hint().unwrap().contains("virtual CD") && !error.can_be_retried());
}

#[test]
fn a_command_that_reads_no_further_ends_by_itself() {
    let bed = Bed::new(&[Act::Give(b"ab"), Act::Hang], None, &Stop::default());
    assert_eq!(run(&Command::new("false"), Some(bed.reader), &mut |_| {}).unwrap().status, 1);
}

#[test]
fn another_medium_that_was_put_in_meanwhile_is_found_by_the_digest() {
    let folder = tempfile::tempdir().unwrap();
    let target = Utf8Path::from_path(folder.path()).unwrap().join("file");
    let expected = Digest::sha256_of(b"abcd");
    for (last, is_right) in [(b"cd", true), (b"xy", false)] {
        let mut bed =
            Bed::new(&[Act::Give(b"ab"), Act::Fail(Errno::NOMEDIUM), Act::Give(last)], None, &Stop::default());
        let reader = &mut bed.reader;
        let copied = copy("/dev/sr0".into(), &target, 0o600, Some(&expected), &mut || reader.next(&mut |_| ()));
        assert_eq!(copied.is_ok(), is_right);
        assert!(is_right || matches!(copied, Err(HostError::Digest { .. })), "{copied:?}");
        assert_eq!(std::fs::read(&target).unwrap(), b"abcd", "what is wrong is not put in place");
    }
}
