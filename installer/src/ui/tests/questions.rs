//! What packs ask, on the page of the cluster and line by line.

use ratatui::crossterm::event::KeyCode;
use serde_json::json;

use super::{Fixture, Operator, example, text};
use crate::config::{self, Page};
use crate::plan::Plan;
use crate::prepare::{self, code};
use crate::ui::field::Field;
use crate::ui::machine::Machine as _;
use crate::ui::theme::Mode;
use crate::ui::update::Message;

/// The portal asks four things; two have no default.
fn asking() -> Fixture {
    let mut machine = Fixture::new();
    let portal = machine.index.packs.iter_mut().find(|pack| pack.name == "portal").unwrap();
    portal.descriptor.questions = serde_json::from_value(json!([
        {"name": "greeting", "text": "What the first page says", "kind": "text", "default": "Welcome"},
        {"name": "contact", "text": "Whom people ask for help", "kind": "text", "max-length": 40},
        {"name": "replicas", "text": "How many of it run", "kind": "integer", "min": 1, "max": 9, "default": 2},
        {"name": "size", "text": "How much memory it takes", "kind": "choice", "choices": ["small", "large"]},
        {"name": "public", "text": "Whether it is shown without a login", "kind": "boolean", "default": false},
    ]))
    .unwrap();
    machine
}

fn at_the_questions(machine: Fixture) -> Operator {
    let mut operator = Operator::at(machine, Mode::Colour);
    operator.model.answers.fqdn = "mgmt.rack7.example.com".to_owned();
    operator.open(Page::Cluster);
    operator
}

fn plan(operator: &mut Operator) -> Plan {
    operator.open(Page::Review);
    operator.model.prepared().unwrap().plan.clone().unwrap()
}

#[test]
fn pages() {
    let mut operator = at_the_questions(asking());
    operator.go_to(Field::Question(0));
    insta::assert_snapshot!("questions-80x24", text(&operator.picture(80, 24)));
    insta::assert_snapshot!("questions-120x40", text(&operator.picture(120, 40)));
    operator.go_to(Field::Question(2));
    operator.press(KeyCode::Backspace);
    operator.write("12");
    // It is not left while something is missing, and the first field that misses it has the focus.
    operator.control('n');
    assert_eq!((operator.model.page, operator.model.focused()), (Page::Cluster, Some(Field::Question(1))));
    insta::assert_snapshot!("questions-open-120x50", text(&operator.picture(120, 50)));
    operator.model.look = Mode::Basic;
    let seen = text(&operator.picture(80, 24));
    assert!(seen.is_ascii(), "{seen}");
    insta::assert_snapshot!("questions-open-basic", seen);
}

/// The same answers by the pages, by the file that they save, and by one that leaves out what has a default.
#[test]
fn pages_and_files_come_to_the_same_plan() {
    let mut operator = at_the_questions(asking());
    operator.go_to(Field::Question(1));
    operator.write("the desk: \"7\" # 3");
    operator.go_to(Field::Question(3));
    operator.press(KeyCode::Right);
    operator.press(KeyCode::Right);
    operator.go_to(Field::Question(4));
    operator.press(KeyCode::Char(' '));
    operator.control('n');
    assert_eq!(operator.model.page, Page::Administrator, "{:?}", operator.model.notice);
    // Entries are kept on the way back.
    operator.press(KeyCode::Esc);
    assert_eq!(operator.model.text(Field::Question(1)).unwrap(), "the desk: \"7\" # 3");
    let by_keys = plan(&mut operator);
    let answers = json!({"portal": {
        "greeting": "Welcome", "contact": "the desk: \"7\" # 3", "replicas": 2, "size": "large", "public": true,
    }});
    assert_eq!(serde_json::to_value(&by_keys.answers).unwrap(), answers);
    assert!(by_keys.to_text().contains("answer: portal.size = large"), "{}", by_keys.to_text());
    let seen = text(&operator.picture(100, 60));
    assert!(seen.contains("portal.contact = the desk: \"7\" # 3"), "{seen}");

    let machine = asking();
    let saved = operator.model.answers.config().unwrap();
    let mut short = saved.clone();
    let all = short.answers.get_mut("portal").unwrap();
    all.retain(|name, _| name != "greeting" && name != "replicas");
    for file in [saved, short] {
        let file = config::parse(&file.to_yaml().unwrap()).unwrap();
        let by_file = machine.prepare(&file, &machine.signed()).plan.unwrap();
        assert_eq!(serde_json::to_string(&by_file).unwrap(), serde_json::to_string(&by_keys).unwrap());
        // The file as defaults of the pages.
        let mut operator = Operator::at(asking().with_file(&file), Mode::Colour);
        operator.go_to(Field::ConfigFile(0));
        operator.press(KeyCode::Char(' '));
        assert_eq!(operator.model.text(Field::Question(3)).unwrap(), "large");
        assert_eq!(plan(&mut operator), by_keys);
    }
}

#[test]
fn a_pack_that_is_left_out_asks_nothing() {
    let mut operator = at_the_questions(asking());
    let portal =
        crate::ui::screen::upper_packs(&operator.machine.index).position(|pack| pack.name == "portal").unwrap();
    operator.go_to(Field::Question(1));
    operator.write("the desk");
    operator.go_to(Field::Pack(portal));
    operator.press(KeyCode::Char(' '));
    assert!(!text(&operator.picture(120, 60)).contains("Questions of portal"));
    assert!(plan(&mut operator).answers.is_empty());
    operator.open(Page::Cluster);
    operator.go_to(Field::Pack(portal));
    operator.press(KeyCode::Char(' '));
    assert_eq!(operator.model.text(Field::Question(1)).unwrap(), "the desk", "what was typed is there again");
    // The bundle asks for it no more: what a file says is left out, and told.
    let mut file = example();
    file.answers = config::answers::parse("portal: {contact: me, size: small, colour: red}").unwrap();
    let mut operator = Operator::at(asking().with_file(&file), Mode::Colour);
    operator.go_to(Field::ConfigFile(0));
    operator.press(KeyCode::Char(' '));
    operator.open(Page::Cluster);
    let seen = text(&operator.picture(120, 60));
    assert!(seen.contains("the file answers what this bundle does not ask: portal.colour"), "{seen}");
    assert!(!plan(&mut operator).answers["portal"].contains_key("colour"));
}

/// Without somebody to ask, it is refused before anything is written, and each question is named.
#[test]
fn an_unattended_installation_names_what_nobody_answered() {
    let machine = asking();
    for (answers, says) in [
        ("", vec!["answers.portal.contact: is not answered: Whom people ask for help", "answers.portal.size: is not"]),
        (
            "{portal: {contact: 5, size: medium, colour: red}, door: {}}",
            vec![
                "answers.portal.contact: 5 is no text; put it in quotes",
                "answers.portal.size: \"medium\" is not one of small, large",
                "answers.portal.colour: the pack does not ask that",
                "answers.door: the bundle cofferdam 1.4.0 has no pack door",
            ],
        ),
    ] {
        let mut file = example();
        file.answers = config::answers::parse(answers).unwrap();
        let refusal = machine.prepare(&file, &machine.signed()).plan.unwrap_err();
        assert_eq!(
            (refusal.code, prepare::refuse_answers(&file, &machine.index)),
            (code::CONFIG, Err(refusal.clone()))
        );
        assert!(says.iter().all(|words| refusal.message.contains(words)), "{refusal}");
        assert!(refusal.hint.unwrap().contains("`answers:`"));
    }
}

#[test]
fn line_by_line_each_question_is_read_out() {
    let mut model = crate::ui::model::Model::new(Mode::Basic);
    model.answers.fqdn = "mgmt.rack7.example.com".to_owned();
    let machine = asking();
    let mut operator = Operator { machine, model, started: None, left: false, presses: 0 };
    operator.tell(Message::Tick);
    operator.open(Page::Cluster);
    // Ranges, schedule and packs stay; then the five questions, and on.
    let packs = crate::ui::screen::upper_packs(&operator.machine.index).count();
    let typed = format!("{}\nthe desk\n\nother\nother\n\nother\n\n\nquit\n", "\n".repeat(3 + packs));
    let mut output = Vec::new();
    let start = crate::ui::plain::ask(&mut operator.model, &operator.machine, typed.as_bytes(), &mut output).unwrap();
    let said = String::from_utf8(output).unwrap();
    assert!(start.is_none() && said.is_ascii(), "{said}");
    for words in [
        "portal, contact: Whom people ask for help (one line of at most 40 characters) []:",
        "portal, replicas: How many of it run (a whole number from 1 to 9) [2]:",
        "portal, size: How much memory it takes (one of small, large)",
        "== Admin ==",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }
    let (config, _) = operator.model.answers.draft();
    let expected =
        json!({"greeting": "Welcome", "contact": "the desk", "replicas": 2, "size": "large", "public": true});
    assert_eq!(serde_json::to_value(&config.answers["portal"]).unwrap(), expected, "{said}");
}
