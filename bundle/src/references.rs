//! The image references of Kubernetes manifests: half of the closed-world proof (the other half is [`crate::complete`]).
//! Invariant: what a kubelet would be asked to pull because of a manifest is found, whatever the kind of object: every
//! `image` of a list element in `containers`, `initContainers` or `ephemeralContainers`, of any other list element that
//! also has a `name`, and every image volume. Pure: takes text, gives texts.

use serde::Deserialize;
use serde_yaml::Value;

/// Lists whose elements are containers (Kubernetes API, core/v1 `PodSpec`).
const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// What a YAML value is to the value that holds it.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    Container,
    Element,
    Field,
}

/// All image texts of a YAML stream, in order of appearance, each once. The error is one line, without the file's name.
pub(crate) fn images(yaml: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for document in serde_yaml::Deserializer::from_str(yaml) {
        let value = Value::deserialize(document).map_err(|error| error.to_string())?;
        walk(&value, Role::Field, &mut found);
    }
    Ok(found)
}

fn walk(value: &Value, role: Role, found: &mut Vec<String>) {
    match value {
        Value::Mapping(mapping) => {
            if role == Role::Container || (role == Role::Element && mapping.contains_key("name")) {
                let image = mapping.get("image");
                // `volumes: [{name: …, image: {reference: …}}]` is an image volume.
                let volume = image.and_then(|image| image.get("reference"));
                let text = image.and_then(Value::as_str).or(volume.and_then(Value::as_str));
                if let Some(text) = text.filter(|text| !found.iter().any(|known| known == text)) {
                    found.push(text.to_owned());
                }
            }
            for (key, value) in mapping {
                let is_container_list = key.as_str().is_some_and(|key| CONTAINER_LISTS.contains(&key));
                walk(value, if is_container_list { Role::Container } else { Role::Field }, found);
            }
        }
        Value::Sequence(elements) => {
            let role = if role == Role::Container { role } else { Role::Element };
            for element in elements {
                walk(element, role, found);
            }
        }
        Value::Tagged(tagged) => walk(&tagged.value, role, found),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn finds_every_image_that_a_kubelet_would_pull() {
        for (why, yaml, expected) in [
            ("a pod", "kind: Pod\nspec: {containers: [{name: a, image: x}]}", vec!["x"]),
            ("no name", "kind: Pod\nspec: {containers: [{image: x}]}", vec!["x"]),
            (
                "all three lists",
                "spec: {containers: [{image: a}], initContainers: [{image: b}], ephemeralContainers: [{image: c}]}",
                vec!["a", "b", "c"],
            ),
            (
                "a cron job",
                "spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a, image: x}]}}}}}",
                vec!["x"],
            ),
            ("a list object", "kind: List\nitems: [{spec: {containers: [{image: x}]}}]", vec!["x"]),
            (
                "several documents, each image once",
                "---\na: [{name: x, image: i}]\n---\nb: [{name: x, image: i}]\n---\n",
                vec!["i"],
            ),
            ("a custom resource", "spec: {sidecars: [{name: proxy, image: p}]}", vec!["p"]),
            (
                "an image volume",
                "spec: {volumes: [{name: v, image: {reference: vol, pullPolicy: Always}}]}",
                vec!["vol"],
            ),
            ("an anchor", "a: &c {name: a, image: x}\nspec: {containers: [*c]}", vec!["x"]),
            ("no list element", "metadata: {name: a, image: x}\ndata: {image: y}", vec![]),
            ("a schema", "properties: {image: {type: string}, name: {type: string}}", vec![]),
            ("nothing", "", vec![]),
        ] {
            assert_eq!(images(yaml).expect(why), expected, "{why}");
        }
        for bad in ["a: [", "a: b: c", "a: 1\na: 2", "\tx"] {
            assert!(images(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            use std::fmt::Write as _;
            let list = vec![format!("*a{}", level - 1); 9].join(", ");
            writeln!(yaml, "a{level}: &a{level} [{list}]").unwrap();
        }
        assert!(images(&yaml).is_err());
    }
}
