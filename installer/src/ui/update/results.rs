//! What came back from the background: kept where a page looks for it, and said.

use super::begin::may_begin_by_file;
use super::{Effect, go_on, say, say_bad};
use crate::config::Page;
use crate::ui::dialog::Dialog;
use crate::ui::field::{Field, Pem};
use crate::ui::machine::Answer;
use crate::ui::model::Model;

/// What came back from a job.
pub(super) fn heard(model: &mut Model, serial: u64, answer: Answer, effects: &mut Vec<Effect>) {
    match answer {
        Answer::Discovered(found) => {
            let text = format!("found {} bundles, {} configuration files", found.bundles.len(), found.configs.len());
            if model.tasks.discover.settle(serial, found) {
                model.log.push(text);
            }
        }
        Answer::Facts(facts) => {
            if model.tasks.probe.settle(serial, *facts) {
                model.log.push("the host was looked at".to_owned());
                if let Some(facts) = model.tasks.probe.result().cloned() {
                    model.answers.find_disk(&facts);
                }
            }
        }
        Answer::Head(head) => {
            let text = match head.as_ref() {
                Ok(signed) => format!("bundle {} {}: signature verified", signed.index.name, signed.index.version),
                Err(refusal) => format!("bundle: {refusal}"),
            };
            if model.tasks.head.settle(serial, *head) {
                model.log.push(text);
            }
        }
        Answer::Verifying(done, total) => {
            if model.tasks.verify.is_running(serial) {
                model.verified_bytes = (done, total);
            }
        }
        Answer::Verified(result) => {
            let text = match &result {
                Ok(()) => "every byte of the bundle was verified".to_owned(),
                Err(refusal) => format!("the bundle cannot be used: {refusal}"),
            };
            let is_good = result.is_ok();
            if model.tasks.verify.settle(serial, result) {
                if is_good { say(model, text) } else { say_bad(model, text) }
            }
        }
        Answer::Judged(judged) => {
            model.tasks.judge.settle(serial, judged);
        }
        Answer::Request(result) => {
            let shown = result.clone();
            if model.tasks.request.settle(serial, result) {
                match shown {
                    Ok(text) => {
                        say(model, format!("the request was written to {}", model.answers.request.trim()));
                        model.dialog = Some(Dialog::Request(text, 0));
                    }
                    Err(error) => say_bad(model, error),
                }
            }
        }
        Answer::Hash(result) => hashed(model, serial, result, effects),
        Answer::NetworkSetUp(result) => network_set_up(model, serial, result, effects),
        Answer::Kept(result) if model.tasks.passphrase.is_running(serial) => {
            passphrase_kept(model, serial, result, effects);
        }
        Answer::Kept(result) => kept(model, serial, result),
        Answer::Prepared(prepared) => {
            if model.tasks.prepare.settle(serial, *prepared) {
                model.log.push("the plan was computed".to_owned());
                may_begin_by_file(model);
            }
        }
    }
}

pub(super) fn hashed(model: &mut Model, serial: u64, result: Result<String, String>, effects: &mut Vec<Effect>) {
    let outcome = result.clone();
    if !model.tasks.hash.settle(serial, result) {
        return;
    }
    match outcome {
        Ok(hash) => {
            model.answers.password_hash = Some(hash);
            model.password.clear();
            model.password_again.clear();
            if std::mem::take(&mut model.leaves_when_done) && model.page == Page::Administrator {
                go_on(model, effects);
            }
        }
        Err(error) => say_bad(model, format!("the password cannot be taken: {error}")),
    }
}

fn passphrase_kept(model: &mut Model, serial: u64, result: Result<(), String>, effects: &mut Vec<Effect>) {
    let outcome = result.clone();
    model.tasks.passphrase.settle(serial, result);
    let leaves = std::mem::take(&mut model.leaves_when_done);
    match outcome {
        Ok(()) => {
            crate::layout::PASTED_PASSPHRASE.clone_into(&mut model.answers.passphrase);
            model.passphrase.clear();
            model.passphrase_again.clear();
            if leaves && model.page == Page::Disks {
                go_on(model, effects);
            }
        }
        Err(error) => say_bad(model, format!("the passphrase cannot be kept in memory: {error}")),
    }
}

fn network_set_up(model: &mut Model, serial: u64, result: Result<(), String>, effects: &mut Vec<Effect>) {
    let outcome = result.clone();
    if !model.tasks.network.settle(serial, result) {
        return;
    }
    // Whatever came of it, the machine's addresses are other ones now.
    model.tasks.probe.forget();
    let leaves = std::mem::take(&mut model.leaves_when_done);
    match outcome {
        Ok(()) => {
            say(model, "the network is set up");
            if leaves && model.page == Page::Network {
                go_on(model, effects);
            }
        }
        Err(error) => say_bad(model, format!("the network is not as it should be: {error}")),
    }
}

pub(super) fn kept(model: &mut Model, serial: u64, result: Result<(), String>) {
    let Some((name, pem)) =
        model.tasks.keep.running().filter(|running| running.serial == serial).map(|running| running.question.clone())
    else {
        return;
    };
    let outcome = result.clone();
    model.tasks.keep.settle(serial, result);
    match (outcome, pem) {
        (Ok(()), Some(pem)) => {
            if let Some(text) = model.text_mut(pem_field(pem)) {
                text.clone_from(&name);
            }
            model.tasks.judge.forget();
            say(model, format!("kept in memory as {name}"));
        }
        (Ok(()), None) => say(model, format!("saved: {name}")),
        (Err(error), _) => say_bad(model, format!("not saved: {error}")),
    }
}

pub(super) fn pem_field(pem: Pem) -> Field {
    match pem {
        Pem::Certificate => Field::Certificate,
        Pem::Key => Field::Key,
        Pem::Roots => Field::Roots,
    }
}
