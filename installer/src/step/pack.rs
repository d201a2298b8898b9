//! `pack.apply:NAME`: a pack's secrets are generated and stored in the cluster, its manifests applied in order, its
//! gates waited for. A secret that is there is never made anew; applying is the same the second time.

use base64::Engine as _;
use bundle::index::{Gate, GateKind, SecretKind, SecretRequest};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::certificates::entry;
use super::cluster::{condition, last_line};
use super::{Context, Report, StepError};
use crate::engine::event::Progress;
use crate::host::HostExt;

pub(super) fn run(context: &Context, name: &str, report: &mut Report) -> Result<(), StepError> {
    let pack = context.pack(name)?;
    for secret in &pack.secrets {
        report(Progress::Note { text: format!("secret {}/{}", secret.namespace, secret.name) });
        store_secret(context, secret)?;
    }
    for manifest in &pack.manifests {
        report(Progress::Note { text: format!("applying {}", manifest.name) });
        let text = context.rendered(manifest, context.answers_of(name))?;
        // A manifest that carries secrets must not come back in an error.
        context.host.must(&context.kubectl(["apply", "-f", "-"]).stdin(text.as_bytes()))?;
    }
    for gate in &pack.gates {
        let what = format!("gate {} {}/{} of pack {name}", gate_word(gate.kind), gate.namespace, gate.name);
        context.wait(&format!("{what} is not open"), report, |context| ask_gate(context, gate))?;
    }
    Ok(())
}

fn store_secret(context: &Context, request: &SecretRequest) -> Result<(), StepError> {
    let exists = ["get", "secret", &request.name, "-n", &request.namespace, "-o", "name"];
    if context.host.run(&context.kubectl(exists), &mut |_| {})?.success() {
        return Ok(());
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": request.namespace}});
    let get = ["get", "namespace", &request.namespace, "-o", "name"];
    if !context.host.run(&context.kubectl(get), &mut |_| {})?.success() {
        context.host.must(&context.kubectl(["create", "-f", "-"]).stdin(namespace.to_string()))?;
    }
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": request.name,
            "namespace": request.namespace,
            "labels": {"app.kubernetes.io/managed-by": "cofferdam"},
        },
        "type": if request.kind == SecretKind::SiteCertificate { "kubernetes.io/tls" } else { "Opaque" },
        "data": generate(context, request)?,
    });
    let text = Zeroizing::new(object.to_string());
    context.host.must(&context.kubectl(["create", "-f", "-"]).stdin(text.as_bytes()).secret_output())?;
    Ok(())
}

/// The `data` of a Secret: base64 by key.
fn generate(context: &Context, request: &SecretRequest) -> Result<Map<String, Value>, StepError> {
    let encode = |bytes: &[u8]| Value::from(base64::engine::general_purpose::STANDARD.encode(bytes));
    let mut data = Map::new();
    if request.kind == SecretKind::SiteCertificate {
        for (key, file) in [("tls.crt", "server.crt"), ("tls.key", "server.key"), ("ca.crt", "server-roots.crt")] {
            let content = context.host.read(&entry(file))?.unwrap_or_default();
            data.insert(key.to_owned(), encode(&content));
        }
        return Ok(data);
    }
    let kind = match request.kind {
        SecretKind::Random256 | SecretKind::SiteCertificate => certs::PackSecretKind::Random256,
        SecretKind::Password => certs::PackSecretKind::Password,
        SecretKind::Ed25519 => certs::PackSecretKind::Ed25519,
        SecretKind::EcdsaP256 => certs::PackSecretKind::EcdsaP256,
    };
    let parts =
        kind.generate().map_err(|error| StepError::Certificates { what: "pack secret", reason: error.to_string() })?;
    let key = request.key.as_deref().unwrap_or(&request.name);
    for part in parts {
        data.insert(format!("{key}{}", part.suffix), encode(&part.data));
    }
    Ok(data)
}

fn gate_word(kind: GateKind) -> &'static str {
    match kind {
        GateKind::DeploymentAvailable => "deployment-available",
        GateKind::DaemonsetReady => "daemonset-ready",
    }
}

fn ask_gate(context: &Context, gate: &Gate) -> Result<Result<(), String>, StepError> {
    let kind = match gate.kind {
        GateKind::DeploymentAvailable => "deployment",
        GateKind::DaemonsetReady => "daemonset",
    };
    let ask = context.kubectl(["get", kind, gate.name.as_str(), "-n", gate.namespace.as_str(), "-o", "json"]);
    let output = context.host.run(&ask, &mut |_| {})?;
    if !output.success() {
        return Ok(Err(last_line(&output.stderr)));
    }
    let object: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let Err(seen) = judge(gate.kind, &object) else { return Ok(Ok(())) };
    let ask = context.kubectl([
        "get",
        "events",
        "-n",
        gate.namespace.as_str(),
        "--field-selector=type=Warning",
        "-o",
        "json",
    ]);
    let events = context.host.run(&ask, &mut |_| {})?;
    let events: Value = serde_json::from_slice(&events.stdout).unwrap_or_default();
    Ok(Err(match last_warning(&events, &gate.name) {
        Some(warning) => format!("{seen}; {warning}"),
        None => seen,
    }))
}

/// The newest warning about an object whose name begins with `name`, as its pods' names do.
fn last_warning(events: &Value, name: &str) -> Option<String> {
    let about =
        |event: &&Value| event["involvedObject"]["name"].as_str().is_some_and(|object| object.starts_with(name));
    let event = events["items"].as_array()?.iter().filter(about).max_by_key(|event| event["lastTimestamp"].as_str())?;
    Some(format!("{}: {}", event["reason"].as_str()?, event["message"].as_str()?.lines().next()?))
}

/// Whether the object fulfils its gate; else what is seen.
fn judge(kind: GateKind, object: &Value) -> Result<(), String> {
    let number = |field: &str| object["status"][field].as_i64().unwrap_or(0);
    if number("observedGeneration") < object["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Err("its controller has not seen it yet".to_owned());
    }
    match kind {
        GateKind::DeploymentAvailable => match condition(object, "Available") {
            Some((true, _)) => Ok(()),
            Some((false, message)) => Err(message),
            None => Err("it reports no condition yet".to_owned()),
        },
        GateKind::DaemonsetReady => match (number("numberReady"), number("desiredNumberScheduled")) {
            (ready, wanted) if wanted > 0 && ready >= wanted => Ok(()),
            (ready, wanted) => Err(format!("{ready} of {wanted} pods are ready")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{GateKind, judge, last_warning};
    use serde_json::json;

    #[test]
    fn the_newest_warning_about_a_pod_is_told() {
        let event = |name: &str, at: &str, text: &str| json!({"involvedObject": {"name": name}, "lastTimestamp": at, "reason": "Unhealthy", "message": text});
        let events = json!({"items": [
            event("hello-a", "2026-11-27T17:00:02Z", "the second\nand more"),
            event("other", "2026-11-27T17:00:03Z", "of somebody else"),
            event("hello-a", "2026-11-27T17:00:01Z", "the first"),
        ]});
        assert_eq!(last_warning(&events, "hello").as_deref(), Some("Unhealthy: the second"));
        assert_eq!(last_warning(&events, "nobody"), None);
    }

    #[test]
    fn gates() {
        use GateKind::{DaemonsetReady, DeploymentAvailable};
        let deployment = |generation, observed, status: &str| {
            json!({"metadata": {"generation": generation}, "status": {"observedGeneration": observed,
                   "conditions": [{"type": "Available", "status": status, "message": "minimum availability"}]}})
        };
        let daemonset = |ready, wanted| json!({"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "numberReady": ready, "desiredNumberScheduled": wanted}});
        let table = [
            (DeploymentAvailable, deployment(1, 1, "True"), true),
            (DeploymentAvailable, deployment(2, 1, "True"), false),
            (DeploymentAvailable, deployment(1, 1, "False"), false),
            (DeploymentAvailable, json!({}), false),
            (DaemonsetReady, daemonset(1, 1), true),
            (DaemonsetReady, daemonset(0, 1), false),
            (DaemonsetReady, daemonset(0, 0), false),
        ];
        for (kind, object, open) in table {
            assert_eq!(judge(kind, &object).is_ok(), open, "{object}");
        }
    }
}
