//! The fold: a message changes the model and says what has to be done outside of it.
//!
//! Invariants: [`Effect::Start`] comes out of [`begin`] alone, which asks for a finished plan of exactly these answers and
//! for the typed confirmation (or the erase token of a configuration file, see [`begin_by_file`]). An entry changes only by keys that are
//! pressed while the focus is on it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use zeroize::Zeroizing;

use crate::config::Page;

use super::answers;
use super::dialog::{Accept, Begin, BeginFocus, Dialog, Save, SaveFocus};
use super::field::{Field, Mode, Pem};
use super::keymap::{self, Command};
use super::machine::{Answer, Job};
use super::model::{Model, Notice, PASTE_LIMIT};
use super::secret::Secret;
use super::sheet::{Control, Kind};
use super::{Start, screen, terminal};

/// What happened.
#[derive(Debug, Clone)]
pub enum Message {
    /// A key.
    Key(KeyEvent),
    /// Text that was pasted at once.
    Paste(Zeroizing<String>),
    /// The terminal has this size.
    Size(u16, u16),
    /// A tenth of a second passed.
    Tick,
    /// A job said something.
    Answer(u64, Answer),
}

/// What has to be done.
pub enum Effect {
    /// Begin a job.
    Run(u64, Job),
    /// Nobody waits for this job any more.
    Cancel(u64),
    /// A shell.
    Shell,
    /// Draw everything anew.
    Redraw,
    /// Leave.
    Quit,
    /// The host was checked, which was all.
    Finish,
    /// Run the engine.
    Start(Box<Start>),
}

/// Takes a message.
pub fn update(model: &mut Model, message: Message) -> Vec<Effect> {
    let mut effects = Vec::new();
    match message {
        Message::Size(width, height) => model.size = (width, height),
        Message::Tick => tick(model, &mut effects),
        Message::Answer(serial, answer) => heard(model, serial, answer, &mut effects),
        Message::Paste(text) if !is_too_small(model) => paste(model, &text),
        Message::Key(key) if key.kind != KeyEventKind::Release && !is_too_small(model) => {
            model.begins_at = None;
            press(model, key, &mut effects);
        }
        Message::Paste(_) | Message::Key(_) => {}
    }
    model.fill_defaults();
    want(model, &mut effects);
    settle_focus(model);
    effects
}

/// The first work of a fresh model.
pub fn begin_work(model: &mut Model) -> Vec<Effect> {
    update(model, Message::Tick)
}

/// What cannot be seen must not be changed.
fn is_too_small(model: &Model) -> bool {
    model.size.0 < terminal::SMALLEST.0 || model.size.1 < terminal::SMALLEST.1
}

fn tick(model: &mut Model, effects: &mut Vec<Effect>) {
    model.tick += 1;
    let tick = model.tick;
    let tasks = &mut model.tasks;
    let late = [
        tasks.discover.tick(tick),
        tasks.probe.tick(tick),
        tasks.head.tick(tick),
        tasks.verify.tick(tick),
        tasks.judge.tick(tick),
        tasks.request.tick(tick),
        tasks.hash.tick(tick),
        tasks.keep.tick(tick),
        tasks.prepare.tick(tick),
    ];
    for serial in late.into_iter().flatten() {
        say_bad(model, "something took too long and was given up; the page says what");
        effects.push(Effect::Cancel(serial));
    }
    if model.begins_at.is_some_and(|at| at <= tick) {
        begin_by_file(model, effects);
    }
}

fn say(model: &mut Model, text: impl Into<String>) {
    let text = text.into();
    model.log.push(text.clone());
    model.notice = Some(Notice { text, is_bad: false });
}

fn say_bad(model: &mut Model, text: impl Into<String>) {
    let text = text.into();
    model.log.push(text.clone());
    model.notice = Some(Notice { text, is_bad: true });
}

fn next_serial(model: &mut Model) -> u64 {
    model.serial += 1;
    model.serial
}

/// What came back from a job.
fn heard(model: &mut Model, serial: u64, answer: Answer, effects: &mut Vec<Effect>) {
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
            if model.tasks.verify.running().is_some_and(|running| running.serial == serial) {
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
        Answer::Kept(result) => kept(model, serial, result),
        Answer::Prepared(prepared) => {
            if model.tasks.prepare.settle(serial, *prepared) {
                model.log.push("the plan was computed".to_owned());
                may_begin_by_file(model);
            }
        }
    }
}

fn hashed(model: &mut Model, serial: u64, result: Result<String, String>, effects: &mut Vec<Effect>) {
    let outcome = result.clone();
    if !model.tasks.hash.settle(serial, result) {
        return;
    }
    match outcome {
        Ok(hash) => {
            model.answers.password_hash = Some(hash);
            model.password.clear();
            model.password_again.clear();
            if std::mem::take(&mut model.leaves_after_hash) && model.page == Page::Administrator {
                go_on(model, effects);
            }
        }
        Err(error) => say_bad(model, format!("the password cannot be taken: {error}")),
    }
}

fn kept(model: &mut Model, serial: u64, result: Result<(), String>) {
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

fn pem_field(pem: Pem) -> Field {
    match pem {
        Pem::Certificate => Field::Certificate,
        Pem::Key => Field::Key,
        Pem::Roots => Field::Roots,
    }
}

/// Begins what the answers and the page ask for and was not asked yet. While a field is typed into, nothing is asked about it.
fn want(model: &mut Model, effects: &mut Vec<Effect>) {
    let is_typing = |model: &Model, fields: &[Field]| model.focused().is_some_and(|focus| fields.contains(&focus));
    if model.tasks.discover.is_open(&()) {
        let serial = next_serial(model);
        model.tasks.discover.begin((), serial, model.tick);
        effects.push(Effect::Run(serial, Job::Discover));
    }
    let questions = model.questions();
    let is_first = model.facts().is_none() && model.tasks.probe.running().is_none();
    let is_asked_here = [Page::Network, Page::Identity, Page::Bundle, Page::Host].contains(&model.page);
    let names = [Field::Fqdn, Field::Vip, Field::BundlePath];
    if model.tasks.probe.is_open(&questions) && (is_first || (is_asked_here && !is_typing(model, &names))) {
        let serial = next_serial(model);
        let before = model.tasks.probe.begin(questions.clone(), serial, model.tick);
        effects.extend(before.map(Effect::Cancel));
        effects.push(Effect::Run(serial, Job::Probe(questions)));
    }
    let bundle = model.bundle_question();
    let is_named = !bundle.path.as_str().is_empty() && !bundle.trust.is_empty();
    if is_named && model.tasks.head.is_open(&bundle) && !is_typing(model, &[Field::BundlePath, Field::Trust]) {
        let serial = next_serial(model);
        model.tasks.head.begin(bundle.clone(), serial, model.tick);
        effects.push(Effect::Run(serial, Job::Head(bundle)));
    }
    want_judgement(model, effects);
    if model.page == Page::Review
        && let Ok(config) = model.answers.config()
        && model.tasks.prepare.is_open(&config)
        && let Some(signed) = model.signed().cloned()
    {
        let serial = next_serial(model);
        let before = model.tasks.prepare.begin(config.clone(), serial, model.tick);
        effects.extend(before.map(Effect::Cancel));
        effects.push(Effect::Run(serial, Job::Prepare(Box::new((config, signed)))));
    }
}

fn want_judgement(model: &mut Model, effects: &mut Vec<Effect>) {
    let is_typing = matches!(model.focused(), Some(Field::Certificate | Field::Key | Field::Roots | Field::Request));
    if !model.brings_certificate() || model.page != Page::Certificates || is_typing {
        return;
    }
    let (draft, problems) = model.answers.draft();
    let is_incomplete =
        problems.iter().any(|problem| problem.key.starts_with("certificates.") || problem.key == "site.fqdn");
    if is_incomplete || !model.tasks.judge.is_open(&draft) {
        return;
    }
    let serial = next_serial(model);
    model.tasks.judge.begin(draft.clone(), serial, model.tick);
    effects.push(Effect::Run(serial, Job::Judge(Box::new(draft))));
}

/// Keeps the focus on something that is there.
fn settle_focus(model: &mut Model) {
    let controls = screen::controls(model);
    if model.focused().is_some_and(|focus| controls.iter().any(|control| control.field == focus)) {
        return;
    }
    let problems = model.problems(model.page);
    let is_open = |control: &&Control| {
        matches!(control.kind, Kind::Text)
            && super::field::keys_of(control.field).iter().any(|key| problems.iter().any(|problem| problem.key == *key))
    };
    let to_fill = controls.iter().find(is_open);
    let go_on = controls.iter().find(|control| control.field == Field::Continue);
    if let Some(control) = to_fill.or(go_on).or(controls.first()) {
        focus(model, control.field);
    }
}

fn focus(model: &mut Model, field: Field) {
    model.focus.insert(model.page, field);
    model.cursor = model.text(field).map_or(0, |text| text.chars().count());
    model.scroll = 0;
}

/// Moves the focus, over the ends to the other end.
fn step_focus(model: &mut Model, forward: bool) {
    let controls = screen::controls(model);
    let at = controls.iter().position(|control| Some(control.field) == model.focused());
    let count = controls.len();
    let to = match (at, forward) {
        (None, _) => 0,
        (Some(at), true) => (at + 1) % count.max(1),
        (Some(at), false) => (at + count.max(1) - 1) % count.max(1),
    };
    if let Some(control) = controls.get(to) {
        focus(model, control.field);
    }
}

/// To the next control that is not another choice of the same question.
fn leave_group(model: &mut Model, field: Field) {
    let controls = screen::controls(model);
    let group = std::mem::discriminant(&field);
    let after = controls
        .iter()
        .skip_while(|control| control.field != field)
        .find(|control| std::mem::discriminant(&control.field) != group && !is_other_choice(field, control.field));
    if let Some(control) = after {
        focus(model, control.field);
    }
}

fn is_other_choice(field: Field, other: Field) -> bool {
    let is_file = |field| matches!(field, Field::NoConfigFile | Field::ConfigFile(_));
    is_file(field) && is_file(other)
}

fn press(model: &mut Model, key: KeyEvent, effects: &mut Vec<Effect>) {
    let command = keymap::command(&key);
    match command {
        Some(Command::Look) => {
            model.look = model.look.toggled();
            return;
        }
        Some(Command::Redraw) => {
            effects.push(Effect::Redraw);
            return;
        }
        _ => {}
    }
    if model.dialog.is_some() {
        dialog_key(model, command, key, effects);
        return;
    }
    model.notice = None;
    match command {
        Some(Command::Help) => model.dialog = Some(Dialog::Help),
        Some(Command::Log) => model.dialog = Some(Dialog::Log(0)),
        Some(Command::Abort) => model.dialog = Some(Dialog::Abort(false)),
        Some(Command::Save) => open_save(model),
        Some(Command::Shell) if model.has_shell => effects.push(Effect::Shell),
        Some(Command::Again) => again(model),
        Some(Command::Continue) => go_on(model, effects),
        Some(Command::Back) => back(model, effects),
        Some(Command::Next) if key.code == KeyCode::Down && has_only_buttons(model) => scroll(model, 1),
        Some(Command::Previous) if key.code == KeyCode::Up && has_only_buttons(model) => scroll(model, -1),
        Some(Command::Next) => step_focus(model, true),
        Some(Command::Previous) => step_focus(model, false),
        Some(Command::Enter) => enter(model, effects),
        Some(Command::Look | Command::Redraw | Command::Shell) => {}
        None => edit(model, key, effects),
    }
}

/// Whether all that can be in focus is the row of buttons: then the arrows scroll.
fn has_only_buttons(model: &Model) -> bool {
    screen::controls(model)
        .iter()
        .all(|control| matches!(control.field, Field::Continue | Field::SaveAnswers | Field::SaveReport))
}

fn scroll(model: &mut Model, rows: isize) {
    let most = screen::overflow(model);
    model.scroll = model.scroll.saturating_add_signed(rows).min(most);
}

/// Asks everything of this page again.
fn again(model: &mut Model) {
    match model.page {
        Page::Welcome => model.tasks.discover.forget(),
        Page::Host | Page::Disks | Page::Network | Page::Identity | Page::Cluster | Page::Administrator => {
            model.tasks.probe.forget()
        }
        Page::Certificates => model.tasks.judge.forget(),
        Page::Bundle => {
            model.tasks.head.forget();
            model.tasks.probe.forget();
        }
        Page::Review => model.tasks.prepare.forget(),
    }
    if !matches!(
        model.page,
        Page::Host | Page::Network | Page::Identity | Page::Bundle | Page::Welcome | Page::Certificates | Page::Review
    ) {
        // These pages show what the probe found, but do not ask by themselves.
        model.log.push("the host is looked at again".to_owned());
    }
}

/// Stops what runs for this page, else goes one page back.
fn back(model: &mut Model, effects: &mut Vec<Effect>) {
    let tasks = &mut model.tasks;
    let stopped = match model.page {
        Page::Host | Page::Identity => tasks.probe.cancel(),
        Page::Certificates => tasks.judge.cancel().or_else(|| tasks.request.cancel()),
        Page::Bundle => tasks.verify.cancel().or_else(|| tasks.head.cancel()),
        Page::Administrator => tasks.hash.cancel(),
        Page::Review => tasks.prepare.cancel(),
        Page::Welcome | Page::Disks | Page::Network | Page::Cluster => None,
    };
    if let Some(serial) = stopped {
        model.leaves_after_hash = false;
        effects.push(Effect::Cancel(serial));
        say(model, "stopped; Esc again goes back");
        return;
    }
    let before = model.stops.iter().rev().find(|page| **page < model.page).copied();
    match before {
        Some(page) => show(model, page),
        None if model.page == Page::Welcome => model.dialog = Some(Dialog::Abort(false)),
        // Pages that a file spares are there for who goes back.
        None => {
            let place = Page::ALL.iter().position(|page| *page == model.page).unwrap_or_default();
            if let Some(page) = Page::ALL.get(place.saturating_sub(1)) {
                show(model, *page);
            }
        }
    }
}

/// Shows a page. Its focus is where it was; what was asked for the summary is asked anew.
fn show(model: &mut Model, page: Page) {
    model.page = page;
    model.seen.insert(page);
    model.scroll = 0;
    model.begins_at = None;
    if page == Page::Review {
        model.tasks.prepare.forget();
    }
    match model.focused() {
        Some(field) => focus(model, field),
        None => model.cursor = 0,
    }
}

/// To the next page, if nothing is missing on this one.
fn go_on(model: &mut Model, effects: &mut Vec<Effect>) {
    let page = model.page;
    if page == Page::Welcome && model.mode == Mode::Install && is_installed(model) {
        say_bad(model, "a site is installed on this host already");
        return;
    }
    model.tried.insert(page);
    if page == Page::Administrator && model.needs_password() {
        begin_hash(model, effects);
        return;
    }
    if page == Page::Review {
        ask_to_begin(model);
        return;
    }
    let problems = model.problems(page);
    if let Some(first) = problems.first() {
        let field = screen::controls(model)
            .iter()
            .map(|control| control.field)
            .find(|field| super::field::keys_of(*field).contains(&first.key));
        if let Some(field) = field {
            focus(model, field);
        }
        say_bad(model, format!("{}: {}", first.key, first.message));
        return;
    }
    if model.mode == Mode::Check && page == Page::Host {
        effects.push(Effect::Finish);
        return;
    }
    let standing = model.findings(page).iter().filter(|finding| finding.blocks && !finding.accepted).count();
    let next = model.stops.iter().find(|next| **next > page).copied().unwrap_or(Page::Review);
    show(model, next);
    if standing > 0 {
        say_bad(
            model,
            format!(
                "{standing} of the checks on {} still stand against an installation",
                super::field::page_name(page)
            ),
        );
    }
}

/// A site is on this host.
pub(super) fn is_installed(model: &Model) -> bool {
    model.tasks.discover.result().is_some_and(|found| found.installed.is_some())
}

fn begin_hash(model: &mut Model, effects: &mut Vec<Effect>) {
    let rules = super::secret::password_rules(&model.password, &model.password_again, &model.answers.administrator);
    if let Some((_, rule)) = rules.iter().find(|(holds, _)| !holds) {
        say_bad(
            model,
            format!("the password has to be {rule}")
                .replace("to be does", "to be one that does")
                .replace("to be no", "to be without a"),
        );
        focus(model, Field::Password);
        return;
    }
    if model.tasks.hash.running().is_some() {
        return;
    }
    let serial = next_serial(model);
    model.tasks.hash.begin((), serial, model.tick);
    model.leaves_after_hash = true;
    effects.push(Effect::Run(serial, Job::Hash(model.password.clone())));
}

/// Enter: next, or what the focus is on.
fn enter(model: &mut Model, effects: &mut Vec<Effect>) {
    let Some(field) = model.focused() else { return };
    let control = screen::controls(model).into_iter().find(|control| control.field == field);
    match control.map(|control| control.kind) {
        Some(Kind::Text | Kind::Secret | Kind::Cycle) => step_focus(model, true),
        Some(Kind::Radio(_)) => {
            choose(model, field);
            leave_group(model, field);
        }
        Some(Kind::Check(_)) => choose(model, field),
        Some(Kind::Button | Kind::Row) => act(model, field, effects),
        None => {}
    }
}

/// Keys that belong to the field in focus.
fn edit(model: &mut Model, key: KeyEvent, effects: &mut Vec<Effect>) {
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
const TEXT_LIMIT: usize = 8192;

fn edit_text(model: &mut Model, field: Field, key: KeyEvent) {
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
pub(super) fn edit_characters(characters: &mut Vec<char>, cursor: usize, key: KeyEvent) -> usize {
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

fn edit_secret(model: &mut Model, field: Field, key: KeyEvent) {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let secret = match field {
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
    if !fits {
        say_bad(model, format!("a password has at most {} bytes", super::secret::PASSWORD_MOST));
    }
}

/// What else changes with a field.
fn after_edit(model: &mut Model, field: Field) {
    if matches!(field, Field::Certificate | Field::Key | Field::Roots) {
        model.tasks.judge.forget();
    }
}

/// Text that was pasted at once: never more than the field in focus takes.
fn paste(model: &mut Model, text: &str) {
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
fn choose(model: &mut Model, field: Field) {
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
        Field::Address(number) => {
            if let Some((address, _)) = model.addresses().get(number).cloned() {
                model.answers.address = address;
                model.edited.insert(Field::Address(0));
            }
        }
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
        Field::Administrator(on) => model.answers.make_administrator = on,
        _ => {}
    }
}

/// Takes the answers of a file, or those without one; what was there is kept aside, so that nothing is lost.
fn take_file(model: &mut Model, file: Option<usize>) {
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
pub(super) fn stops_of(pages: &[Page]) -> Vec<Page> {
    let mut stops: Vec<Page> = pages.iter().copied().chain([Page::Review]).collect();
    stops.sort_unstable();
    stops.dedup();
    stops
}

/// Fields with a default that a file decides instead.
pub(super) fn filled_by_file() -> std::collections::BTreeSet<Field> {
    [
        Field::NodeName,
        Field::Address(0),
        Field::SiteName,
        Field::Disk(0),
        Field::BundlePath,
        Field::Trust,
        Field::Request,
    ]
    .into()
}

fn toggle_pack(model: &mut Model, number: usize) {
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
pub(super) const ALGORITHMS: [&str; 5] = ["ecdsa-p256", "ecdsa-p384", "ed25519", "rsa3072", "rsa4096"];

/// The next or the previous of a few words.
fn turn(model: &mut Model, field: Field, forward: bool) {
    use crate::config::Tpm2;
    let place = |at: usize, count: usize| if forward { (at + 1) % count } else { (at + count - 1) % count };
    match field {
        Field::Algorithm => {
            let at = ALGORITHMS.iter().position(|name| *name == model.answers.algorithm).unwrap_or_default();
            if let Some(name) = ALGORITHMS.get(place(at, ALGORITHMS.len())) {
                model.answers.algorithm = (*name).to_owned();
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

/// Does what a button says.
fn act(model: &mut Model, field: Field, effects: &mut Vec<Effect>) {
    match field {
        Field::Continue => go_on(model, effects),
        Field::CheckAgain => again(model),
        Field::SaveReport => save_report(model, effects),
        Field::SaveAnswers => open_save(model),
        Field::GoTo(page) => {
            model.tried.insert(page);
            show(model, page);
        }
        Field::Finding(number) => open_accept(model, number),
        Field::Verify => {
            let question = model.bundle_question();
            let serial = next_serial(model);
            model.verified_bytes = (0, 0);
            model.tasks.verify.begin(question.clone(), serial, model.tick);
            effects.push(Effect::Run(serial, Job::Verify(question)));
        }
        Field::CancelVerify => effects.extend(model.tasks.verify.cancel().map(Effect::Cancel)),
        Field::Paste(pem) => model.dialog = Some(Dialog::Paste(pem, Secret::with_limit(PASTE_LIMIT))),
        Field::MakeRequest => make_request(model, effects),
        _ => {}
    }
}

fn make_request(model: &mut Model, effects: &mut Vec<Effect>) {
    let (draft, problems) = model.answers.draft();
    let names = ["site.fqdn", "node.name", "node.address", "site.vip", "certificates.request"];
    let standing =
        problems.iter().chain(&crate::config::problems(&draft)).find(|problem| names.contains(&problem.key)).cloned();
    if let Some(problem) = standing {
        return say_bad(model, format!("{}: {}", problem.key, problem.message));
    }
    let target = model.answers.request.trim().into();
    let serial = next_serial(model);
    model.tasks.request.begin(draft.clone(), serial, model.tick);
    effects.push(Effect::Run(serial, Job::Request(Box::new(draft), target)));
}

fn save_report(model: &mut Model, effects: &mut Vec<Effect>) {
    let Some(report) = model.report() else { return };
    let path = format!("{}/cofferdam-check.json", model.save_directory());
    let text = serde_json::to_vec_pretty(&report).unwrap_or_default();
    keep(model, path, None, Zeroizing::new(text), 0o644, effects);
}

fn keep(
    model: &mut Model,
    path: String,
    pem: Option<Pem>,
    content: Zeroizing<Vec<u8>>,
    mode: u32,
    effects: &mut Vec<Effect>,
) {
    let serial = next_serial(model);
    model.tasks.keep.begin((path.clone(), pem), serial, model.tick);
    effects.push(Effect::Run(serial, Job::Keep(path.into(), content, mode)));
}

fn open_save(model: &mut Model) {
    let path = format!("{}/install.yaml", model.save_directory());
    let cursor = path.chars().count();
    model.dialog = Some(Dialog::Save(Save { path, cursor, with_token: true, focus: SaveFocus::Save }));
}

fn open_accept(model: &mut Model, number: usize) {
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

fn ask_to_begin(model: &mut Model) {
    let Some(prepared) = model.prepared() else {
        return say_bad(model, "there is no plan yet; the page says what is missing");
    };
    let plan = match &prepared.plan {
        Ok(plan) => plan,
        Err(refusal) => {
            let text = refusal.message.lines().next().unwrap_or_default().to_owned();
            return say_bad(model, text);
        }
    };
    let (wanted, whole) = match plan.destroys.first() {
        Some(disk) => {
            let token = model
                .answers
                .disk
                .as_ref()
                .map(|chosen| answers::token_of_serial(&chosen.token, &disk.serial))
                .unwrap_or_default();
            (
                token,
                if model.disk().is_some_and(|found| found.serial.is_none()) {
                    disk.path.clone()
                } else {
                    disk.serial.clone()
                },
            )
        }
        None => (model.answers.node_name.trim().to_owned(), model.answers.node_name.trim().to_owned()),
    };
    model.dialog = Some(Dialog::Begin(Begin { wanted, whole, typed: String::new(), focus: BeginFocus::No }));
}

/// Begins, if the plan of exactly these answers is there and the confirmation was typed.
fn begin(model: &mut Model, confirmation: &Begin, effects: &mut Vec<Effect>) {
    if !confirmation.is_confirmed() {
        return say_bad(model, format!("type {} first", confirmation.wanted));
    }
    let typed = confirmation.typed.trim().to_owned();
    start(model, Some(typed), effects);
}

/// Begins without a question: a file named the pages on which to stop, the plan is not one of them, and the file's own
/// erase token names the disk. The plan is shown before, and any key stops it.
fn begin_by_file(model: &mut Model, effects: &mut Vec<Effect>) {
    model.begins_at = None;
    if file_confirms(model) {
        start(model, None, effects);
    }
}

/// Seconds for which the plan is shown before it begins by itself.
const COUNTDOWN: u64 = 10;

fn may_begin_by_file(model: &mut Model) {
    if file_confirms(model) {
        model.begins_at = Some(model.tick + COUNTDOWN * super::task::TICKS_PER_SECOND);
    }
}

/// Whether the file that was taken asks for no look at the plan, and still decides the disk.
fn file_confirms(model: &Model) -> bool {
    let pages = &model.answers.interactive;
    !pages.is_empty()
        && !pages.contains(&Page::Review)
        && model.page == Page::Review
        && model.dialog.is_none()
        && model.answers.disk.as_ref().is_none_or(|disk| disk.from_file)
        && model.prepared().is_some_and(|prepared| prepared.plan.is_ok())
}

fn start(model: &mut Model, token: Option<String>, effects: &mut Vec<Effect>) {
    let (Ok(mut config), Some(signed)) = (model.answers.config(), model.signed().cloned()) else { return };
    let Some(Ok(plan)) = model.prepared().map(|prepared| prepared.plan.clone()) else { return };
    if let (Some(token), Some(disk), false) = (token, &mut config.storage.disk, plan.destroys.is_empty()) {
        disk.erase = token;
    }
    model.dialog = None;
    effects.push(Effect::Start(Box::new(Start {
        config,
        plan,
        signed,
        resumes: false,
        may_open_shell: model.has_shell,
    })));
}

/// Keys while something is open.
fn dialog_key(model: &mut Model, command: Option<Command>, key: KeyEvent, effects: &mut Vec<Effect>) {
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

fn accept_key(model: &mut Model, mut accept: Accept, command: Option<Command>, key: KeyEvent) {
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

fn save_key(model: &mut Model, mut save: Save, command: Option<Command>, key: KeyEvent, effects: &mut Vec<Effect>) {
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
            save.with_token = !save.with_token
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
fn save_answers(model: &mut Model, save: &Save, effects: &mut Vec<Effect>) {
    let (mut config, _) = model.answers.draft();
    if let Some(disk) = &mut config.storage.disk
        && !save.with_token
    {
        disk.erase = String::new();
    }
    let open: Vec<String> = model.answers.config().err().unwrap_or_default().iter().map(ToString::to_string).collect();
    let mut text = "# Answers of the terminal installer. No secret stands in this file.\n".to_owned();
    if save.with_token && config.storage.disk.is_some() {
        text.push_str("# It allows the disk below to be erased without a question.\n");
    }
    for problem in &open {
        text.push_str(&format!("# Still open: {problem}\n"));
    }
    text.push_str(&config.to_yaml().unwrap_or_default());
    keep(model, save.path.trim().to_owned(), None, Zeroizing::new(text.into_bytes()), 0o600, effects);
}

fn begin_key(
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

fn paste_key(
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
