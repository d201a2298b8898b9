//! The questionnaire (`--plain`) comes to the same plan as the screens.

use super::paths::{to_the_plan, type_passphrase};
use super::{Fixture, answered};
use crate::config::Page;
use crate::ui::theme::Mode;

#[test]
fn line_by_line_it_is_the_same() {
    let by_keys = {
        let mut operator = to_the_plan();
        operator.enter();
        operator.write("2345");
        operator.enter();
        operator.enter();
        operator.started.unwrap()
    };
    let machine = Fixture::new();
    let mut model = crate::ui::model::Model::new(Mode::Basic);
    // An empty line keeps what is shown; the FQDN is the only thing that has to be said, until the plan.
    let mut output = Vec::new();
    let answers = Answerer::default();
    let shared = answers.output.clone();
    let input = std::io::BufReader::with_capacity(1, answers);
    let start = crate::ui::plain::ask(&mut model, &machine, input, Tee { shared, all: &mut output }).unwrap();
    let said = String::from_utf8(output).unwrap();
    let start = start.unwrap_or_else(|| panic!("{said}"));
    assert_eq!(start.plan, by_keys.plan);
    assert_eq!(start.config, by_keys.config);
    assert!(said.is_ascii(), "a line that knows only ASCII reads it");
}

/// The questionnaire asks for the disk's passphrase twice, without showing it.
#[test]
fn line_by_line_a_passphrase_is_asked_for() {
    let by_keys = {
        let mut operator = answered();
        type_passphrase(&mut operator, "correct horse battery");
        operator.control('n');
        operator.open(Page::Review);
        operator.model.prepared().unwrap().plan.clone().unwrap()
    };
    let machine = Fixture::new();
    let mut model = crate::ui::model::Model::new(Mode::Basic);
    let mut output = Vec::new();
    let answers = Answerer { passphrase: "correct horse battery\n", ..Answerer::default() };
    let shared = answers.output.clone();
    let input = std::io::BufReader::with_capacity(1, answers);
    let start = crate::ui::plain::ask(&mut model, &machine, input, Tee { shared, all: &mut output }).unwrap();
    let said = String::from_utf8(output).unwrap();
    let start = start.unwrap_or_else(|| panic!("{said}"));
    assert_eq!(start.plan, by_keys);
    assert!(!said.contains("horse"), "{said}");
    assert_eq!(machine.kept.lock().unwrap().last().unwrap().1, b"correct horse battery");
}

/// Answers the questions that it hears.
#[derive(Default)]
struct Answerer {
    fqdn: bool,
    /// The disk's, with the end of its line; empty for none.
    passphrase: &'static str,
    output: std::rc::Rc<std::cell::RefCell<Vec<u8>>>,
}

impl std::io::Read for Answerer {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        // One byte at a time is asked for; a line is given as a whole by keeping what is left.
        let mut heard = self.output.borrow_mut();
        let question = String::from_utf8_lossy(&heard).lines().last().unwrap_or_default().to_owned();
        let line = if question.contains("FQDN") && !self.fqdn {
            self.fqdn = true;
            "mgmt.rack7.example.com\n"
        } else if question.starts_with("A passphrase opens it") && !self.passphrase.is_empty() {
            "yes\n"
        } else if question.starts_with("Passphrase") && !self.passphrase.is_empty() {
            self.passphrase
        } else if question.contains("Begin the installation") {
            "yes\n"
        } else if question.contains("to begin; anything else") {
            "2345\n"
        } else {
            "\n"
        };
        if let Some(rest) = PENDING.with_borrow_mut(std::collections::VecDeque::pop_front) {
            buffer[0] = rest;
            return Ok(1);
        }
        heard.clear();
        let bytes = line.as_bytes();
        buffer[0] = bytes[0];
        PENDING.with_borrow_mut(|pending| pending.extend(&bytes[1..]));
        Ok(1)
    }
}

thread_local! {
    static PENDING: std::cell::RefCell<std::collections::VecDeque<u8>> = const { std::cell::RefCell::new(std::collections::VecDeque::new()) };
}

struct Tee<'a> {
    shared: std::rc::Rc<std::cell::RefCell<Vec<u8>>>,
    all: &'a mut Vec<u8>,
}

impl std::io::Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.shared.borrow_mut().extend_from_slice(bytes);
        self.all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
