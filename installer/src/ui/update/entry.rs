//! Answers that change: typing, pasting, choosing, taking a file. An entry changes only while the focus is on it, or by a
//! file that is chosen.

use super::focus::{scroll, step_focus};
use super::{Effect, act, say, say_bad, show};
use crate::config::{Bond, Page};
use crate::ui::dialog::{Dialog, SaveFocus};
use crate::ui::field::Field;
use crate::ui::model::{Model, PASTE_LIMIT};
use crate::ui::sheet::Kind;
use crate::ui::{answers, screen};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Keys that belong to the field in focus.
pub(super) fn edit(model: &mut Model, key: KeyEvent, effects: &mut Vec<Effect>) {
    match key.code {
        KeyCode::PageDown => return scroll(model, 10),
        KeyCode::PageUp => return scroll(model, -10),
        _ => {}
    }
    let Some(field) = model.focused() else { return };
    let Some(kind) =
        screen::controls(model).into_iter().find(|control| control.field == field).map(|control| control.kind)
    else {
        return;
    };
    let space = key.code == KeyCode::Char(' ');
    match kind {
        Kind::Text => edit_text(model, field, key),
        Kind::Secret => edit_secret(model, field, key),
        Kind::Radio(_) | Kind::Check(_) if space => choose(model, field),
        Kind::Cycle if space || key.code == KeyCode::Right => turn(model, field, true),
        Kind::Cycle if key.code == KeyCode::Left => turn(model, field, false),
        Kind::Button | Kind::Row if space => act(model, field, effects),
        Kind::Button | Kind::Row if key.code == KeyCode::Right => step_focus(model, true),
        Kind::Button | Kind::Row if key.code == KeyCode::Left => step_focus(model, false),
        _ => {}
    }
}

/// More than any answer is long.
pub(super) const TEXT_LIMIT: usize = 8192;

pub(super) fn edit_text(model: &mut Model, field: Field, key: KeyEvent) {
    let cursor = model.cursor;
    let Some(text) = model.text_mut(field) else { return };
    let mut characters: Vec<char> = text.chars().collect();
    let new_cursor = edit_characters(&mut characters, cursor, key);
    let edited: String = characters.into_iter().collect();
    if *text != edited {
        *text = edited;
        model.edited.insert(field);
        after_edit(model, field);
    }
    model.cursor = new_cursor;
}

/// Applies a key to a line; gives the cursor's new place.
pub(in crate::ui) fn edit_characters(characters: &mut Vec<char>, cursor: usize, key: KeyEvent) -> usize {
    let cursor = cursor.min(characters.len());
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('u') if is_control => {
            characters.drain(..cursor);
            0
        }
        KeyCode::Char('w') if is_control => {
            let blanks = characters[..cursor].iter().rev().take_while(|character| character.is_whitespace()).count();
            let word =
                characters[..cursor - blanks].iter().rev().take_while(|character| !character.is_whitespace()).count();
            let start = cursor - blanks - word;
            characters.drain(start..cursor);
            start
        }
        KeyCode::Char(character) if !is_control && !character.is_control() && characters.len() < TEXT_LIMIT => {
            characters.insert(cursor, character);
            cursor + 1
        }
        KeyCode::Backspace if cursor > 0 => {
            characters.remove(cursor - 1);
            cursor - 1
        }
        KeyCode::Delete if cursor < characters.len() => {
            characters.remove(cursor);
            cursor
        }
        KeyCode::Left => cursor.saturating_sub(1),
        KeyCode::Right => (cursor + 1).min(characters.len()),
        KeyCode::Home => 0,
        KeyCode::End => characters.len(),
        _ => cursor,
    }
}

pub(super) fn edit_secret(model: &mut Model, field: Field, key: KeyEvent) {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let secret = match field {
        Field::Passphrase => &mut model.passphrase,
        Field::PassphraseAgain => &mut model.passphrase_again,
        Field::Password => &mut model.password,
        Field::PasswordAgain => &mut model.password_again,
        _ => return,
    };
    let fits = match key.code {
        KeyCode::Char('u') if is_control => {
            secret.clear();
            true
        }
        KeyCode::Char(character) if !is_control && !character.is_control() => secret.push(character),
        KeyCode::Backspace => {
            secret.pop();
            true
        }
        _ => true,
    };
    // A new password takes the place of the one that was set.
    if !model.password.is_empty() {
        model.answers.password_hash = None;
    }
    if !model.passphrase.is_empty() {
        model.answers.passphrase.clear();
    }
    if !fits {
        say_bad(
            model,
            match field {
                Field::Passphrase | Field::PassphraseAgain => {
                    format!("a passphrase has at most {} bytes", crate::passphrase::MOST)
                }
                _ => format!("a password has at most {} bytes", crate::ui::secret::PASSWORD_MOST),
            },
        );
    }
}

/// What else changes with a field.
pub(super) fn after_edit(model: &mut Model, field: Field) {
    if matches!(field, Field::Certificate | Field::Key | Field::Roots) {
        model.tasks.judge.forget();
    }
    if field == Field::Addresses
        && let Some(address) = model.answers.network.first_address()
    {
        model.answers.address = address.to_string();
        model.edited.insert(Field::Address(0));
    }
}

/// Text that was pasted at once: never more than the field in focus takes.
pub(super) fn paste(model: &mut Model, text: &str) {
    if let Some(Dialog::Paste(_, kept)) = &mut model.dialog {
        let all_fits = text.replace("\r\n", "\n").replace('\r', "\n").chars().all(|character| kept.push(character));
        if !all_fits {
            say_bad(model, format!("more than {PASTE_LIMIT} bytes are no certificate"));
        }
        return;
    }
    if model.dialog.is_some() {
        if let Some(Dialog::Save(save)) = &mut model.dialog
            && save.focus == SaveFocus::Path
        {
            save.path.push_str(text.trim());
            save.cursor = save.path.chars().count();
        }
        return;
    }
    let Some(field) = model.focused() else { return };
    if model.secret(field).is_some() {
        for character in text.trim_end_matches(['\n', '\r']).chars().filter(|character| !character.is_control()) {
            edit_secret(model, field, KeyEvent::new(KeyCode::Char(character), KeyModifiers::NONE));
        }
        return;
    }
    let cursor = model.cursor;
    let Some(target) = model.text_mut(field) else { return };
    let clean: Vec<char> = if field == Field::SshKeys {
        text.trim()
            .replace('\r', "\n")
            .chars()
            .filter(|character| *character == '\n' || !character.is_control())
            .collect()
    } else {
        text.trim().chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
    };
    let mut characters: Vec<char> = target.chars().collect();
    let cursor = cursor.min(characters.len());
    if characters.len() + clean.len() > TEXT_LIMIT {
        say_bad(model, "that is more text than this field takes");
        return;
    }
    let length = clean.len();
    characters.splice(cursor..cursor, clean);
    *target = characters.into_iter().collect();
    model.cursor = cursor + length;
    model.edited.insert(field);
    after_edit(model, field);
}

/// Chooses one of several, or switches one on or off.
pub(super) fn choose(model: &mut Model, field: Field) {
    match field {
        Field::Mode(mode) => model.mode = mode,
        Field::NoConfigFile => take_file(model, None),
        Field::ConfigFile(number) => take_file(model, Some(number)),
        Field::Disk(number) => {
            if let Some(disk) = model.disks().get(number).filter(|disk| disk.is_free()).cloned() {
                model.answers.choose_disk(&disk);
                model.edited.insert(Field::Disk(0));
            }
        }
        Field::Encrypt(on) => model.answers.encrypt = on,
        Field::ShowRecoveryKey => model.answers.show_recovery_key = !model.answers.show_recovery_key,
        Field::UsePassphrase => {
            model.answers.use_passphrase = !model.answers.use_passphrase;
            model.passphrase.clear();
            model.passphrase_again.clear();
        }
        Field::Address(number) => {
            if let Some((address, _)) = model.addresses().get(number).cloned() {
                model.answers.address = address;
                model.edited.insert(Field::Address(0));
            }
        }
        Field::OwnNetwork(on) => model.answers.network.is_own = on,
        Field::Adapter(number) => toggle_adapter(model, number),
        Field::Certificates(mode) => {
            model.answers.certificate_mode = mode;
            model.tasks.judge.forget();
        }
        Field::Bundle(number) => {
            let found =
                model.tasks.discover.result().and_then(|found| found.bundles.get(number)).map(ToString::to_string);
            if let Some(path) = found {
                model.answers.bundle = path;
                model.edited.insert(Field::BundlePath);
            }
        }
        Field::Pack(number) => toggle_pack(model, number),
        Field::Schedule => model.answers.schedule = !model.answers.schedule,
        Field::Administrator(on) => {
            model.answers.make_administrator = on;
            model.edited.insert(Field::Administrator(true));
        }
        _ => {}
    }
}

/// Takes an adapter into the network, or out of it.
fn toggle_adapter(model: &mut Model, number: usize) {
    let Some((name, mac)) = model.adapters().get(number).map(|adapter| (adapter.name.clone(), adapter.mac.clone()))
    else {
        return;
    };
    let chosen = &mut model.answers.network.adapters;
    let is_it = |answer: &String| *answer == name || mac.as_ref().is_some_and(|mac| mac.eq_ignore_ascii_case(answer));
    match chosen.iter().position(is_it) {
        Some(place) => drop(chosen.remove(place)),
        None => chosen.push(name),
    }
    model.edited.insert(Field::Adapter(0));
}

/// Takes the answers of a file, or those without one; what was there is kept aside, so that nothing is lost.
pub(super) fn take_file(model: &mut Model, file: Option<usize>) {
    if model.taken == file {
        return;
    }
    let config = file.and_then(|number| model.tasks.discover.result()?.configs.get(number)?.config.clone().ok());
    if file.is_some() && config.is_none() {
        say_bad(model, "this file cannot be used; the page says why");
        return;
    }
    let default = (answers::Answers::default(), std::collections::BTreeSet::new(), Page::ALL.to_vec());
    let fresh = config.map_or(default, |config| {
        let stops = if config.interactive.is_empty() { Page::ALL.to_vec() } else { stops_of(&config.interactive) };
        (answers::Answers::from_config(&config), filled_by_file(), stops)
    });
    let next = model.aside.remove(&file).unwrap_or(fresh);
    let before = (
        std::mem::replace(&mut model.answers, next.0),
        std::mem::replace(&mut model.edited, next.1),
        std::mem::replace(&mut model.stops, next.2),
    );
    model.aside.insert(model.taken, before);
    model.taken = file;
    if let Some(facts) = model.facts().cloned() {
        model.answers.find_disk(&facts);
    }
    say(
        model,
        if file.is_some() {
            "the answers of the file are taken; each page can still change them"
        } else {
            "the answers without a file are back"
        },
    );
}

/// Begins with a file that was named on the command line; `name` says which, with its hash.
pub fn take_config(model: &mut Model, config: &crate::config::InstallConfig, name: Option<String>) {
    model.answers = answers::Answers::from_config(config);
    model.edited = filled_by_file();
    if !config.interactive.is_empty() {
        model.stops = stops_of(&config.interactive);
        if let Some(first) = model.stops.first() {
            show(model, *first);
        }
    }
    model.named_file = name;
}

/// The pages of `interactive:`, and the plan, which is always shown.
pub(in crate::ui) fn stops_of(pages: &[Page]) -> Vec<Page> {
    let mut stops: Vec<Page> = pages.iter().copied().chain([Page::Review]).collect();
    stops.sort_unstable();
    stops.dedup();
    stops
}

/// Fields with a default that a file decides instead.
pub(in crate::ui) fn filled_by_file() -> std::collections::BTreeSet<Field> {
    [
        Field::NodeName,
        Field::Address(0),
        Field::Adapter(0),
        Field::Administrator(true),
        Field::SiteName,
        Field::Disk(0),
        Field::BundlePath,
        Field::Trust,
        Field::Request,
    ]
    .into()
}

pub(super) fn toggle_pack(model: &mut Model, number: usize) {
    let Some(signed) = model.signed() else { return };
    let all: std::collections::BTreeSet<String> =
        screen::upper_packs(&signed.index).map(|pack| pack.name.clone()).collect();
    let Some(name) = screen::upper_packs(&signed.index).nth(number).map(|pack| pack.name.clone()) else { return };
    let mut chosen = model.answers.packs.clone().unwrap_or_else(|| all.clone());
    if !chosen.remove(&name) {
        chosen.insert(name);
    }
    model.answers.packs = (chosen != all).then_some(chosen);
}

/// Key algorithms in the order in which they are offered.
pub(in crate::ui) const ALGORITHMS: [&str; 5] = ["ecdsa-p256", "ecdsa-p384", "ed25519", "rsa3072", "rsa4096"];

/// The next or the previous of a few words.
pub(super) fn turn(model: &mut Model, field: Field, forward: bool) {
    use crate::config::Tpm2;
    let place = |at: usize, count: usize| if forward { (at + 1) % count } else { (at + count - 1) % count };
    match field {
        Field::Algorithm => {
            let at = ALGORITHMS.iter().position(|name| *name == model.answers.algorithm).unwrap_or_default();
            if let Some(name) = ALGORITHMS.get(place(at, ALGORITHMS.len())) {
                (*name).clone_into(&mut model.answers.algorithm);
            }
        }
        Field::Bond => {
            let bond = &mut model.answers.network.bond;
            *bond = if *bond == Bond::Lacp { Bond::ActiveBackup } else { Bond::Lacp };
        }
        Field::Question(number) => {
            if let Some(asked) = model.answers.questions.get_mut(number) {
                asked.turn(forward);
            }
        }
        Field::Tpm => {
            let all = [Tpm2::Auto, Tpm2::Require, Tpm2::Off];
            let at = all.iter().position(|choice| *choice == model.answers.tpm2).unwrap_or_default();
            if let Some(choice) = all.get(place(at, all.len())) {
                model.answers.tpm2 = *choice;
            }
        }
        _ => {}
    }
}
