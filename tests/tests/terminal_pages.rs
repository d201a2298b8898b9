//! The real program in a pseudo terminal, on this machine: sizes, looks and lines that drop. Nothing is installed.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::process::Command;
use std::time::{Duration, Instant};

use tests::sample;
use tests::terminal::{Terminal, key};

const SOON: Duration = Duration::from_mins(1);

fn monitor(term: &str) -> Terminal {
    let mut command = Command::new(sample::cofferdam().unwrap());
    command.arg("monitor").env("PATH", "/usr/bin:/bin");
    Terminal::start(&command, term).unwrap()
}

/// A key that comes in the same breath as a new size is heard.
#[test]
fn no_size_hides_a_key_and_the_terminal_is_given_back() {
    for (term, is_basic) in [("xterm-256color", false), ("vt100", true), ("linux", true), ("dumb", true)] {
        let mut screen = monitor(term);
        let first = screen.wait_for("Monitor, read only", SOON).unwrap();
        assert!(screen.is_on_second_screen() && !screen.has_cursor(), "{term}");
        assert_eq!(first.is_ascii(), is_basic, "{term}: {first}");
        for (rows, cols) in [(10, 40), (50, 132), (24, 80), (23, 80)] {
            screen.resize(rows, cols).unwrap();
        }
        screen.wait_for("terminal too small: 80", SOON).unwrap();
        for press in 1..=25 {
            screen.resize(24, 80).unwrap();
            screen.resize(25, 80).unwrap();
            screen.send(&key::control('y')).unwrap();
            let expected = is_basic == (press % 2 == 0);
            screen
                .wait_until("the other look", SOON, |text| text.contains("Monitor") && text.is_ascii() == expected)
                .unwrap_or_else(|error| panic!("{term}, press {press}: {error}"));
        }
        screen.send("q").unwrap();
        let ended = screen.wait_for_end(SOON).unwrap();
        assert!(ended.success(), "{term}: {ended:?}\n{}", screen.screen());
        assert!(!screen.is_on_second_screen() && screen.has_cursor(), "{term}");
    }
}

/// A line that drops ends a page that only shows; nothing spins on for ever.
#[test]
fn a_page_ends_with_its_line() {
    let mut screen = monitor("vt100");
    screen.wait_for("Monitor, read only", SOON).unwrap();
    let process = screen.process_id().unwrap();
    let is_there = || std::path::Path::new(&format!("/proc/{process}/exe")).exists();
    assert!(is_there());
    drop(screen);
    let began = Instant::now();
    while is_there() {
        assert!(began.elapsed() < SOON, "it is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
}
