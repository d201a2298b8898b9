//! Questions of packs: what `create` and every reader of a bundle hold them to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::fs;

use bench::Bench;
use bundle::index::Index;
use bundle::question::QuestionKind;

const QUESTIONS: &str = "
    questions:
      - { name: greeting, text: What the page says, kind: text, default: Hello }
      - { name: size, text: How large, kind: choice, choices: [small, large] }
      - { name: replicas, text: How many, kind: integer, min: 1 }
      - { name: public, text: Whether it is seen, kind: boolean, default: false }
";

const SETTINGS: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: hello}
data:
  greeting: \"${greeting}, ${fqdn}\"
  size: \"${size}\"
spec: {replicas: ${replicas}, public: ${public}}
";

/// The sample with a pack that asks, a manifest and a file of it.
fn asking(bench: &Bench, manifest: &str, file: &str) -> String {
    let yaml = bench.sample_yaml();
    bench.write("settings.yaml", manifest);
    bench.write("settings.conf", file);
    let manifests = "    manifests:\n      - { name: settings.yaml, source: settings.yaml, template: true }\n";
    let files = "    files:\n      - { name: settings.conf, source: settings.conf, template: true }\n";
    let yaml = yaml.replacen("    manifests:\n", manifests, 1).replacen("    files:\n", files, 1);
    format!("{yaml}{}", QUESTIONS.trim_start_matches('\n'))
}

#[test]
fn questions_are_part_of_the_signed_index() {
    let bench = Bench::new();
    let yaml = asking(&bench, SETTINGS, "size ${size}\nreplicas ${replicas}\npublic ${public}\n");
    let created = bench.create(&yaml, "a.tar.zst").unwrap();
    let questions = &created.index.pack("hello").unwrap().questions;
    assert_eq!(questions.len(), 4);
    assert_eq!((questions[1].kind, questions[2].min), (QuestionKind::Choice, Some(1)));
    let bytes = fs::read(created.path).unwrap();
    assert!(bench.load(&bytes).0.is_ok());
    // A bundle that asks nothing says nothing of questions.
    let created = bench.create(&bench.sample_yaml(), "b.tar.zst").unwrap();
    assert!(!serde_json::to_string(&created.index).unwrap().contains("questions"));
}

#[test]
fn create_refuses_a_template_that_does_not_confine_an_answer() {
    let bench = Bench::new();
    for (manifest, file, says) in [
        ("a: ${greeting}\n", "", "question greeting can leave its place: write \"${greeting}\", in double quotes"),
        ("a: '${size}'\n", "", "question size can leave its place"),
        ("a: |\n  b = \"${greeting}\"\n", "", "question greeting can leave its place"),
        ("\"${replicas}\": a\n", "", "part of a key"),
        ("a: \"${colour}\"\n", "", "${colour} is not a known variable"),
        (
            "a: b\n",
            "name = \"${greeting}\"\n",
            "question greeting is answered with any text, which may stand in Kubernetes",
        ),
        ("a: b\n", "${colour}\n", "${colour} is not a known variable"),
    ] {
        let error = bench.create(&asking(&bench, manifest, file), "a.tar.zst").unwrap_err();
        assert_eq!(error.exit_code(), 2, "{manifest}: {error}");
        assert!(error.to_string().contains(says), "{manifest}: {error}");
        assert!(!bench.path("a.tar.zst").exists());
    }
    // An image whose name an answer decides cannot be proven to be inside.
    let image = "spec: {containers: [{name: a, image: \"registry.example/app:${replicas}\"}]}\n";
    let error = bench.create(&asking(&bench, image, ""), "a.tar.zst").unwrap_err();
    assert!(error.to_string().contains("registry.example/app:TEMPLATE-replicas is not in the bundle"), "{error}");
}

/// Whoever signed it: a reader proves the same.
#[test]
fn a_forged_index_does_not_loosen_an_answer() {
    let bench = Bench::new();
    let created = bench.create(&asking(&bench, SETTINGS, ""), "a.tar.zst").unwrap();
    let good = fs::read(created.path).unwrap();
    let forged = |change: &dyn Fn(&mut Index)| {
        let mut index = created.index.clone();
        change(&mut index);
        bench.load(&bench.forge_head(&good, &index)).0
    };
    forged(&|_| ()).unwrap();
    let question = |index: &mut Index, at: usize, kind| index.packs[1].descriptor.questions[at].kind = kind;
    for (name, change, says) in [
        (
            "a number becomes a text",
            Box::new(|index: &mut Index| {
                question(index, 2, QuestionKind::Text);
                index.packs[1].descriptor.questions[2].min = None;
            }) as Box<dyn Fn(&mut Index)>,
            "question replicas can leave its place",
        ),
        ("a bound of another kind", Box::new(|index| question(index, 2, QuestionKind::Boolean)), "is not allowed"),
        (
            "a question is gone",
            Box::new(|index| drop(index.packs[1].descriptor.questions.remove(0))),
            "not a known variable",
        ),
        (
            "a question twice",
            Box::new(|index| {
                let questions = &mut index.packs[1].descriptor.questions;
                questions.push(questions[0].clone());
            }),
            "is not allowed",
        ),
        (
            "a name of a built-in variable",
            Box::new(|index| index.packs[1].descriptor.questions[0].name = "fqdn".to_owned()),
            "is not allowed",
        ),
    ] {
        let error = forged(&*change).expect_err(name);
        assert_eq!(error.exit_code(), 4, "{name}: {error}");
        assert!(error.to_string().contains(says), "{name}: {error}");
    }
}
