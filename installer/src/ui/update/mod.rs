//! The fold: a message changes the model and says what has to be done outside of it.
//!
//! Invariants: what starts the engine comes out of `begin` alone; an entry changes only by keys that are pressed while the
//! focus is on it, or by a file that is chosen.

mod begin;
mod dialogs;
mod entry;
mod focus;
mod results;
mod work;

use crate::config::Page;
use crate::ui::dialog::Dialog;
use crate::ui::field::{Field, Mode};
use crate::ui::keymap::Command;
use crate::ui::machine::{Answer, Job};
use crate::ui::model::{Model, Notice, PASTE_LIMIT};
use crate::ui::secret::Secret;
use crate::ui::sheet::Kind;
use crate::ui::{Start, keymap, screen, terminal};
use begin::{ask_to_begin, begin_by_file};
use dialogs::{dialog_key, open_accept, open_save};
pub use entry::take_config;
use entry::{choose, edit, paste};
use focus::{focus, has_only_buttons, leave_group, scroll, settle_focus, step_focus};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind};
use results::heard;
use work::{again, begin_hash, keep_passphrase, make_request, save_report, want};
use zeroize::Zeroizing;

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
        tasks.passphrase.tick(tick),
        tasks.hash.tick(tick),
        tasks.network.tick(tick),
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

/// Stops what runs for this page, else goes one page back.
fn back(model: &mut Model, effects: &mut Vec<Effect>) {
    let tasks = &mut model.tasks;
    let stopped = match model.page {
        Page::Host | Page::Identity => tasks.probe.cancel(),
        Page::Certificates => tasks.judge.cancel().or_else(|| tasks.request.cancel()),
        Page::Bundle => tasks.verify.cancel().or_else(|| tasks.head.cancel()),
        Page::Administrator => tasks.hash.cancel(),
        Page::Review => tasks.prepare.cancel(),
        Page::Network => tasks.network.cancel(),
        Page::Disks => tasks.passphrase.cancel(),
        Page::Welcome | Page::Cluster => None,
    };
    if let Some(serial) = stopped {
        model.leaves_when_done = false;
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
    if page == Page::Disks && model.needs_passphrase() {
        keep_passphrase(model, effects);
        return;
    }
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
            .find(|field| model.problem_of(*field, std::slice::from_ref(first)).is_some());
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
    if page == Page::Network
        && let Some(network) = model.network_to_set_up()
    {
        if model.tasks.network.running().is_none_or(|running| running.question != network) {
            work::begin_network(model, network, effects);
        }
        model.leaves_when_done = true;
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
                crate::ui::field::page_name(page)
            ),
        );
    }
}

/// A site is on this host.
pub(super) fn is_installed(model: &Model) -> bool {
    model.tasks.discover.result().is_some_and(|found| found.installed.is_some())
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
        Field::SetUpNetwork => {
            if let Some(network) = model.network_to_set_up() {
                work::begin_network(model, network, effects);
            }
        }
        _ => {}
    }
}
