//! Page 8: the cluster's networks and packs.

use crate::config::Page;
use crate::ui::field::Field;
use crate::ui::sheet::Sheet;
use bundle::question::QuestionKind;

pub(super) const HELP: &str = "\
This version makes a cluster of one node; it joins no further ones.

Pods and services get addresses out of two ranges that nothing else in your network may use: an overlap with a network that \
this machine reaches is a failure.

The packs of the lower layers are always installed. Those of the layers storage and addon can be left out.

A pack may ask something. What has a default is filled in; your answers are part of the plan, and are kept for upgrades.";

pub(super) fn fill(sheet: &mut Sheet) {
    let model = sheet.model;
    sheet.lead("How shall the cluster look?");
    sheet.text_field(Field::PodCidr, "Pod addresses", "");
    sheet.text_field(Field::ServiceCidr, "Service addresses", "");
    sheet.gap();
    let detail = "a cluster of one node has nowhere else to run them";
    sheet.check(Field::Schedule, model.answers.schedule, "This node runs workloads, too", detail);
    sheet.gap();
    sheet.heading("Packs");
    match model.signed() {
        None => sheet.note("the bundle tells which packs there are; see the page Bundle"),
        Some(signed) => {
            let lower: Vec<String> = signed
                .index
                .packs
                .iter()
                .filter(|pack| !super::upper_packs(&signed.index).any(|upper| upper.name == pack.name))
                .map(|pack| format!("{} {}", pack.name, pack.version))
                .collect();
            if !lower.is_empty() {
                sheet.note(&format!("always: {}", lower.join(", ")));
            }
            for (number, pack) in super::upper_packs(&signed.index).enumerate() {
                let on = model.answers.packs.as_ref().is_none_or(|packs| packs.contains(&pack.name));
                sheet.check(Field::Pack(number), on, &format!("{} {}", pack.name, pack.version), &pack.description);
            }
        }
    }
    questions(sheet);
    super::other_problems(sheet, Page::Cluster);
    super::findings(sheet, Page::Cluster, "Checks");
}

/// What the packs that are installed ask.
fn questions(sheet: &mut Sheet) {
    let answers = &sheet.model.answers;
    let mut pack = "";
    for (number, asked) in answers.questions.shown(answers.packs.as_ref()) {
        if asked.pack != pack {
            pack = &asked.pack;
            sheet.gap();
            sheet.heading(&format!("Questions of {pack}"));
        }
        let (field, name, text) = (Field::Question(number), &asked.question.name, &asked.question.text);
        let wanted = asked.question.wanted();
        if asked.options().is_empty() {
            sheet.text_field(field, name, "");
        } else {
            sheet.cycle(field, name, if asked.text.is_empty() { "choose" } else { &asked.text }, "");
        }
        let is_number = matches!(asked.question.kind, QuestionKind::Integer);
        sheet.help(field, &if is_number { format!("{text}: {wanted}") } else { text.clone() });
        sheet.said(&format!("{pack}, {name}: {text} ({wanted})"));
    }
    let left_out = answers.questions.left_out();
    if !left_out.is_empty() {
        sheet.gap();
        sheet.note(&format!(
            "the file answers what this bundle does not ask: {}; that is left out",
            left_out.join(", ")
        ));
    }
}
