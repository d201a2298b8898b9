//! What opens over a page, and its keys.

use super::begin::begin;
use super::entry::edit_characters;
use super::work::keep;
use super::{Effect, say, say_bad};
use crate::ui::dialog::{Accept, Begin, BeginFocus, Dialog, Save, SaveFocus};
use crate::ui::field::Pem;
use crate::ui::keymap::Command;
use crate::ui::model::Model;
use crate::ui::secret::Secret;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use zeroize::Zeroizing;

pub(super) fn open_save(model: &mut Model) {
    let path = format!("{}/install.yaml", model.save_directory());
    let cursor = path.chars().count();
    model.dialog = Some(Dialog::Save(Save { path, cursor, with_token: true, focus: SaveFocus::Save }));
}

pub(super) fn open_accept(model: &mut Model, number: usize) {
    let Some(finding) = model.findings(model.page).get(number).cloned() else { return };
    if finding.accepted {
        model.answers.accept.remove(&finding.id);
        return say(model, format!("{} stands against an installation again", finding.id));
    }
    if finding.hard {
        let hint = finding.hint.unwrap_or_default();
        return say_bad(model, format!("{} cannot be let pass: {hint}", finding.id));
    }
    model.dialog = Some(Dialog::Accept(Accept {
        id: finding.id,
        measured: finding.measured,
        hint: finding.hint.unwrap_or_default(),
        is_second: false,
        yes: false,
    }));
}

/// Keys while something is open.
pub(super) fn dialog_key(model: &mut Model, command: Option<Command>, key: KeyEvent, effects: &mut Vec<Effect>) {
    let Some(dialog) = model.dialog.take() else { return };
    let closes = matches!(command, Some(Command::Back | Command::Abort));
    match dialog {
        Dialog::Help if closes || matches!(command, Some(Command::Help | Command::Enter)) => {}
        Dialog::Log(_) if closes || matches!(command, Some(Command::Log | Command::Enter)) => {}
        Dialog::Log(back) => {
            let back = match key.code {
                KeyCode::Up => back + 1,
                KeyCode::PageUp => back + 10,
                KeyCode::Down => back.saturating_sub(1),
                KeyCode::PageDown => back.saturating_sub(10),
                _ => back,
            };
            model.dialog = Some(Dialog::Log(back.min(model.log.len())));
        }
        Dialog::Request(_, _) if closes || command == Some(Command::Enter) => {}
        Dialog::Request(text, scrolled) => {
            let scrolled = match key.code {
                KeyCode::Up => scrolled.saturating_sub(1),
                KeyCode::Down => (scrolled + 1).min(text.lines().count()),
                _ => scrolled,
            };
            model.dialog = Some(Dialog::Request(text, scrolled));
        }
        Dialog::Abort(_) if command == Some(Command::Back) => {}
        Dialog::Abort(yes) => match (command, key.code) {
            (Some(Command::Enter), _) if yes => effects.push(Effect::Quit),
            (Some(Command::Enter), _) => {}
            (Some(Command::Next | Command::Previous), _) | (_, KeyCode::Left | KeyCode::Right) => {
                model.dialog = Some(Dialog::Abort(!yes));
            }
            (None, KeyCode::Char('y' | 'Y')) => model.dialog = Some(Dialog::Abort(true)),
            _ => model.dialog = Some(Dialog::Abort(yes)),
        },
        Dialog::Accept(_) | Dialog::Save(_) | Dialog::Begin(_) if closes => {}
        Dialog::Accept(accept) => accept_key(model, accept, command, key),
        Dialog::Save(save) => save_key(model, save, command, key, effects),
        Dialog::Begin(question) => begin_key(model, question, command, key, effects),
        Dialog::Paste(pem, text) => paste_key(model, pem, text, command, key, effects),
        Dialog::Help => model.dialog = Some(Dialog::Help),
    }
}

pub(super) fn accept_key(model: &mut Model, mut accept: Accept, command: Option<Command>, key: KeyEvent) {
    match (command, key.code) {
        (Some(Command::Enter), _) if accept.yes && accept.is_second => {
            model.answers.accept.insert(accept.id.clone());
            return say(model, format!("{} is let pass, which the site's record will say", accept.id));
        }
        (Some(Command::Enter), _) if accept.yes => {
            accept.is_second = true;
            accept.yes = false;
        }
        (Some(Command::Enter), _) => return,
        (Some(Command::Next | Command::Previous), _) | (_, KeyCode::Left | KeyCode::Right) => accept.yes = !accept.yes,
        _ => {}
    }
    model.dialog = Some(Dialog::Accept(accept));
}

pub(super) fn save_key(
    model: &mut Model,
    mut save: Save,
    command: Option<Command>,
    key: KeyEvent,
    effects: &mut Vec<Effect>,
) {
    let has_disk = model.answers.disk.is_some() && model.answers.encrypt;
    let order: &[SaveFocus] = if has_disk {
        &[SaveFocus::Path, SaveFocus::Token, SaveFocus::Cancel, SaveFocus::Save]
    } else {
        &[SaveFocus::Path, SaveFocus::Cancel, SaveFocus::Save]
    };
    let at = order.iter().position(|part| *part == save.focus).unwrap_or_default();
    let next = |step: usize| order.get((at + step) % order.len()).copied().unwrap_or(SaveFocus::Path);
    match (command, key.code, save.focus) {
        (Some(Command::Enter), _, SaveFocus::Cancel) => return,
        (Some(Command::Enter), _, SaveFocus::Save) | (Some(Command::Continue | Command::Save), _, _) => {
            return save_answers(model, &save, effects);
        }
        (Some(Command::Enter), _, SaveFocus::Token) | (None, KeyCode::Char(' '), SaveFocus::Token) => {
            save.with_token = !save.with_token;
        }
        (Some(Command::Next | Command::Enter), _, _) => save.focus = next(1),
        (Some(Command::Previous), _, _) => save.focus = next(order.len() - 1),
        (None, KeyCode::Right, SaveFocus::Cancel) | (None, KeyCode::Left, SaveFocus::Save) => {
            save.focus = if save.focus == SaveFocus::Cancel { SaveFocus::Save } else { SaveFocus::Cancel };
        }
        (None, _, SaveFocus::Path) => {
            let mut characters: Vec<char> = save.path.chars().collect();
            save.cursor = edit_characters(&mut characters, save.cursor, key);
            save.path = characters.into_iter().collect();
        }
        _ => {}
    }
    model.dialog = Some(Dialog::Save(save));
}

/// Writes a file that an unattended installation accepts, as far as the answers are complete.
pub(super) fn save_answers(model: &mut Model, save: &Save, effects: &mut Vec<Effect>) {
    let (mut config, _) = model.answers.draft();
    if let Some(disk) = &mut config.storage.disk
        && !save.with_token
    {
        disk.erase = String::new();
    }
    let open: Vec<String> = model.answers.config().err().unwrap_or_default().iter().map(ToString::to_string).collect();
    let mut text = "# Answers of the terminal installer. No secret stands in this file.\n".to_owned();
    if save.with_token && model.answers.encrypt && config.storage.disk.is_some() {
        text.push_str("# It allows the disk below to be erased without a question.\n");
    }
    if config.passphrase_file() == Some(crate::layout::PASTED_PASSPHRASE.into()) {
        text.push_str(
            "# The passphrase of the disk was typed: have it in the file that storage.encryption.passphrase names.\n",
        );
    }
    for problem in &open {
        text.push_str(&format!("# Still open: {problem}\n"));
    }
    text.push_str(&config.to_yaml().unwrap_or_default());
    keep(model, save.path.trim().to_owned(), None, Zeroizing::new(text.into_bytes()), 0o600, effects);
}

pub(super) fn begin_key(
    model: &mut Model,
    mut question: Begin,
    command: Option<Command>,
    key: KeyEvent,
    effects: &mut Vec<Effect>,
) {
    let order = [BeginFocus::Text, BeginFocus::No, BeginFocus::Yes];
    let at = order.iter().position(|part| *part == question.focus).unwrap_or(1);
    let next = |step: usize| order.get((at + step) % order.len()).copied().unwrap_or(BeginFocus::No);
    match (command, key.code) {
        (Some(Command::Enter), _) => match question.focus {
            BeginFocus::No => return,
            BeginFocus::Yes if question.is_confirmed() => return begin(model, &question, effects),
            BeginFocus::Yes => question.focus = BeginFocus::Text,
            BeginFocus::Text => question.focus = if question.is_confirmed() { BeginFocus::Yes } else { BeginFocus::No },
        },
        (Some(Command::Next), _) | (None, KeyCode::Right) => question.focus = next(1),
        (Some(Command::Previous), _) | (None, KeyCode::Left) => question.focus = next(2),
        (None, KeyCode::Backspace) => {
            question.typed.pop();
            question.focus = BeginFocus::Text;
        }
        (None, KeyCode::Char(character))
            if !key.modifiers.contains(KeyModifiers::CONTROL) && question.typed.len() < 128 =>
        {
            question.typed.push(character);
            question.focus = BeginFocus::Text;
        }
        _ => {}
    }
    model.dialog = Some(Dialog::Begin(question));
}

pub(super) fn paste_key(
    model: &mut Model,
    pem: Pem,
    mut text: Secret,
    command: Option<Command>,
    key: KeyEvent,
    effects: &mut Vec<Effect>,
) {
    match (command, key.code) {
        (Some(Command::Back | Command::Abort), _) => return,
        (Some(Command::Continue), _) => {
            let name = match pem {
                Pem::Certificate => "certificate.pem",
                Pem::Key => "key.pem",
                Pem::Roots => "roots.pem",
            };
            let content = Zeroizing::new(text.expose().as_bytes().to_vec());
            let path = format!("{}/{name}", crate::layout::PASTED);
            return keep(model, path, Some(pem), content, 0o600, effects);
        }
        (Some(Command::Enter), _) => {
            text.push('\n');
        }
        (None, KeyCode::Backspace) => text.pop(),
        (None, KeyCode::Char('u')) if key.modifiers.contains(KeyModifiers::CONTROL) => text.clear(),
        (None, KeyCode::Char(character)) if !key.modifiers.contains(KeyModifiers::CONTROL) => {
            text.push(character);
        }
        _ => {}
    }
    model.dialog = Some(Dialog::Paste(pem, text));
}
