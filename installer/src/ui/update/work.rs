//! What is asked of the machine: begun when answers and page ask for it and it was not asked yet.

use super::focus::focus;
use super::{Effect, next_serial, say_bad};
use crate::config::{Network, Page};
use crate::passphrase::Rule;
use crate::ui::field::{Field, Pem};
use crate::ui::machine::Job;
use crate::ui::model::Model;
use crate::ui::secret::{passphrase_rules, password_rules};
use zeroize::Zeroizing;

/// Begins what the answers and the page ask for and was not asked yet. While a field is typed into, nothing is asked about it.
pub(super) fn want(model: &mut Model, effects: &mut Vec<Effect>) {
    let is_typing = |model: &Model, fields: &[Field]| model.focused().is_some_and(|focus| fields.contains(&focus));
    if model.tasks.discover.is_open(&()) {
        let serial = next_serial(model);
        model.tasks.discover.begin((), serial, model.tick);
        effects.push(Effect::Run(serial, Job::Discover));
    }
    let questions = model.questions();
    let is_first = model.facts().is_none() && model.tasks.probe.running().is_none();
    let is_asked_here = [Page::Network, Page::Identity, Page::Bundle, Page::Host].contains(&model.page);
    let names = [Field::Fqdn, Field::Vip, Field::BundlePath, Field::TimeServers];
    if model.tasks.probe.is_open(&questions)
        && (is_first || model.tasks.probe.is_stale() || (is_asked_here && !is_typing(model, &names)))
    {
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
    // A file that spares the network's page is set up all the same, before the plan is computed.
    if model.page == Page::Review && model.tasks.network.running().is_none() {
        let wanted = model.network_to_set_up().filter(|network| model.tasks.network.is_open(network));
        if let Some(network) = wanted {
            begin_network(model, network, effects);
        }
    }
    if model.page == Page::Review
        && model.tasks.network.running().is_none()
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

pub(super) fn want_judgement(model: &mut Model, effects: &mut Vec<Effect>) {
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

/// Asks everything of this page again.
pub(super) fn again(model: &mut Model) {
    match model.page {
        Page::Welcome => model.tasks.discover.forget(),
        Page::Host | Page::Disks | Page::Network | Page::Identity | Page::Cluster | Page::Administrator => {
            model.tasks.probe.forget();
        }
        Page::Certificates => model.tasks.judge.forget(),
        Page::Bundle => {
            model.tasks.head.forget();
            model.tasks.probe.forget();
        }
        Page::Review => model.tasks.prepare.forget(),
    }
}

pub(super) fn begin_hash(model: &mut Model, effects: &mut Vec<Effect>) {
    let rules = password_rules(&model.password, &model.password_again, &model.answers.administrator);
    if let Some(broken) = broken("password", &rules) {
        say_bad(model, broken);
        focus(model, Field::Password);
        return;
    }
    if model.tasks.hash.running().is_some() {
        return;
    }
    let serial = next_serial(model);
    model.tasks.hash.begin((), serial, model.tick);
    model.leaves_when_done = true;
    effects.push(Effect::Run(serial, Job::Hash(model.password.clone())));
}

/// Keeps the typed passphrase of the disk in memory, where `disk.encrypt` reads it.
pub(super) fn keep_passphrase(model: &mut Model, effects: &mut Vec<Effect>) {
    let rules = passphrase_rules(&model.passphrase, &model.passphrase_again);
    if let Some(broken) = broken("passphrase", &rules) {
        say_bad(model, broken);
        focus(model, Field::Passphrase);
        return;
    }
    if model.tasks.passphrase.running().is_some() {
        return;
    }
    let content = Zeroizing::new(model.passphrase.expose().as_bytes().to_vec());
    let serial = next_serial(model);
    model.tasks.passphrase.begin((), serial, model.tick);
    model.leaves_when_done = true;
    effects.push(Effect::Run(serial, Job::Keep(crate::layout::PASTED_PASSPHRASE.into(), content, 0o600)));
}

/// The first rule that does not hold, as a sentence.
fn broken(what: &str, rules: &[Rule]) -> Option<String> {
    let (_, rule) = rules.iter().find(|(holds, _)| !holds)?;
    let text = format!("the {what} has to be {rule}");
    Some(text.replace("to be does", "to be one that does").replace("to be no", "to be without a"))
}

/// Has the live system take the network settings.
pub(super) fn begin_network(model: &mut Model, network: Option<Network>, effects: &mut Vec<Effect>) {
    let serial = next_serial(model);
    let before = model.tasks.network.begin(network.clone(), serial, model.tick);
    effects.extend(before.map(Effect::Cancel));
    effects.push(Effect::Run(serial, Job::SetUpNetwork(network)));
}

pub(super) fn make_request(model: &mut Model, effects: &mut Vec<Effect>) {
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

pub(super) fn save_report(model: &mut Model, effects: &mut Vec<Effect>) {
    let Some(report) = model.report() else { return };
    let path = format!("{}/cofferdam-check.json", model.save_directory());
    let text = serde_json::to_vec_pretty(&report).unwrap_or_default();
    keep(model, path, None, Zeroizing::new(text), 0o644, effects);
}

pub(super) fn keep(
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
