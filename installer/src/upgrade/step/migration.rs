//! Migrations and what is pruned. A migration is Kubernetes YAML of the pack: it is applied, and the Jobs in it must
//! complete. That it began and that it ended is noted beside the snapshot, so that the way back undoes what ran, also
//! what ran only in part, and nothing else.

use bundle::index::PackManifest;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize as _;
use serde_json::Value;

use crate::config::PackAnswers;
use crate::engine::event::Progress;
use crate::host::{Host, HostExt};
use crate::step::{Context, Report, StepError, condition, last_line};
use crate::upgrade::SNAPSHOTS;

/// Kinds that are never removed: what hangs on them is lost with them.
const KEPT_KINDS: [&str; 4] = ["Namespace", "CustomResourceDefinition", "PersistentVolume", "PersistentVolumeClaim"];

fn marker(number: u64, pack: &str, name: &str) -> Utf8PathBuf {
    Utf8Path::new(SNAPSHOTS).join(format!("{number}/migrations/{pack}.{name}"))
}

/// Whether a migration began, `PACK.NAME`.
pub(super) fn began(host: &dyn Host, number: u64, migration: &str) -> Result<bool, StepError> {
    Ok(host.look(&Utf8Path::new(SNAPSHOTS).join(format!("{number}/migrations/{migration}")))?.is_some())
}

/// Notes beside the snapshot that something began.
pub(super) fn note(host: &dyn Host, number: u64, pack: &str, name: &str) -> Result<(), StepError> {
    Ok(host.write(&marker(number, pack, name), b"begun\n", 0o600)?)
}

pub(super) fn done(context: &Context, number: u64, pack: &str, name: &str) -> Result<bool, StepError> {
    let text = context.host.read_text(&marker(number, pack, name))?;
    Ok(text.is_some_and(|text| text.trim() == "done"))
}

pub(super) fn undone(context: &Context, number: u64, pack: &str, name: &str) -> Result<bool, StepError> {
    Ok(context.host.look(&marker(number, pack, name))?.is_none())
}

pub(super) fn run(
    context: &Context,
    number: u64,
    pack: &str,
    name: &str,
    manifest: &PackManifest,
    report: &mut Report,
) -> Result<(), StepError> {
    note(context.host, number, pack, name)?;
    apply(context, manifest, context.answers_of(pack), report)?;
    Ok(context.host.write(&marker(number, pack, name), b"done\n", 0o600)?)
}

pub(super) fn undo(
    context: &Context,
    number: u64,
    (pack, name): (&str, &str),
    (manifest, answers): (&PackManifest, &PackAnswers),
    report: &mut Report,
) -> Result<(), StepError> {
    apply(context, manifest, answers, report)?;
    context.host.remove(&marker(number, pack, name))?;
    Ok(())
}

fn apply(
    context: &Context,
    manifest: &PackManifest,
    answers: &PackAnswers,
    report: &mut Report,
) -> Result<(), StepError> {
    let text = context.rendered(manifest, answers)?;
    let objects = objects(&text)?;
    let jobs: Vec<&Object> = objects.iter().filter(|object| object.kind == "Job").collect();
    for job in &jobs {
        // A Job that is there, from an earlier attempt, would not run again.
        let delete = ["delete", "job", &job.name, "-n", job.namespace(), "--ignore-not-found", "--wait=true"];
        context.host.must(&context.kubectl(delete))?;
    }
    context.host.must(&context.kubectl(["apply", "-f", "-"]).stdin(text.as_bytes()))?;
    for job in jobs {
        let what = format!("migration job {}/{}", job.namespace(), job.name);
        report(Progress::Note { text: what.clone() });
        let mut failed = None;
        context.wait(&format!("{what} did not complete"), report, |context| {
            let ask = context.kubectl(["get", "job", &job.name, "-n", job.namespace(), "-o", "json"]);
            let output = context.host.run(&ask, &mut |_| {})?;
            if !output.success() {
                return Ok(Err(last_line(&output.stderr)));
            }
            let object: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if let Some((true, message)) = condition(&object, "Failed") {
                failed = Some(message);
                return Ok(Ok(()));
            }
            Ok(match condition(&object, "Complete") {
                Some((true, _)) => Ok(()),
                _ => Err("it is running".to_owned()),
            })
        })?;
        if let Some(message) = failed {
            return Err(StepError::State {
                what: format!("{what} failed: {message}"),
                hint: format!("`kubectl logs -n {} job/{}` has its output", job.namespace(), job.name),
            });
        }
    }
    Ok(())
}

/// Removes what only the other release's manifests have, with the answers that it had.
pub(super) fn prune(
    context: &Context,
    pack: &str,
    (gone, answers): (&[PackManifest], &PackAnswers),
    kept: &[PackManifest],
    report: &mut Report,
) -> Result<(), StepError> {
    let read = |manifests: &[PackManifest], answers: &PackAnswers| -> Result<Vec<Object>, StepError> {
        let mut all = Vec::new();
        for manifest in manifests {
            all.extend(objects(&context.rendered(manifest, answers)?)?);
        }
        Ok(all)
    };
    let kept = read(kept, context.answers_of(pack))?;
    // A release whose bundle was never loaded has applied nothing.
    let mut loaded = Vec::new();
    for manifest in gone {
        if context.host.look(&crate::step::blob_path(&manifest.digest))?.is_some() {
            loaded.push(manifest.clone());
        }
    }
    for object in read(&loaded, answers)? {
        if kept.iter().any(|other| other.is(&object)) {
            continue;
        }
        let title = format!("{} {}/{}", object.kind, object.namespace(), object.name);
        if KEPT_KINDS.contains(&object.kind.as_str()) {
            report(Progress::Note { text: format!("{title} is left: its contents would be lost") });
            continue;
        }
        report(Progress::Note { text: format!("removing {title}") });
        let delete = ["delete", &object.resource(), &object.name, "-n", object.namespace(), "--ignore-not-found"];
        context.host.must(&context.kubectl(delete))?;
    }
    Ok(())
}

/// What YAML says which object it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Object {
    api_version: String,
    kind: String,
    namespace: Option<String>,
    name: String,
}

impl Object {
    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The same object, whatever the version of its group.
    fn is(&self, other: &Self) -> bool {
        (self.group(), &self.kind, self.namespace(), &self.name)
            == (other.group(), &other.kind, other.namespace(), &other.name)
    }

    /// `KIND.VERSION.GROUP`, as kubectl takes it; without a group the kind alone.
    fn resource(&self) -> String {
        match self.api_version.split_once('/') {
            Some((group, version)) => format!("{}.{version}.{group}", self.kind),
            None => self.kind.clone(),
        }
    }
}

/// The objects of a YAML stream; lists are taken apart.
fn objects(yaml: &str) -> Result<Vec<Object>, StepError> {
    fn take(value: &Value, found: &mut Vec<Object>) {
        if let Some(items) =
            value["items"].as_array().filter(|_| value["kind"].as_str().is_some_and(|kind| kind.ends_with("List")))
        {
            for item in items {
                take(item, found);
            }
            return;
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if let (Some(api_version), Some(kind), Some(name)) =
            (text(&value["apiVersion"]), text(&value["kind"]), text(&value["metadata"]["name"]))
        {
            found.push(Object { api_version, kind, namespace: text(&value["metadata"]["namespace"]), name });
        }
    }
    let mut found = Vec::new();
    for document in serde_yaml::Deserializer::from_str(yaml) {
        let value = Value::deserialize(document).map_err(|error| StepError::State {
            what: format!("a manifest cannot be understood: {error}"),
            hint: "the bundle needs mending".to_owned(),
        })?;
        take(&value, &mut found);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::objects;

    #[test]
    fn objects_of_a_stream() {
        let yaml = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: apps/v1\nkind: Deployment\n\
                    metadata: {name: b, namespace: a}\n---\n---\napiVersion: v1\nkind: List\nitems:\n  - {apiVersion: batch/v1, \
                    kind: Job, metadata: {name: c, namespace: a}}\n";
        let found = objects(yaml).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|object| format!("{} {} {}", object.resource(), object.namespace(), object.name))
            .collect();
        assert_eq!(names, ["Namespace default a", "Deployment.v1.apps a b", "Job.v1.batch a c"]);
        let other = objects(&yaml.replace("apps/v1", "apps/v1beta1")).unwrap();
        assert!(found[1].is(&other[1]) && !found[1].is(&other[2]));
        assert!(objects("a: [").is_err());
    }
}
