//! Gates: after each stage the site must be healthy before the next one begins. What is asked is asked anew until it is
//! so or the step's time is over.

use serde_json::Value;

use crate::step::{Context, Report, StepError, api_answers, condition, registry_answers};
use crate::upgrade::GateKind;
use crate::upgrade::site::{MEMBERS, Member, etcdctl, etcdctl_error, parse_members};

/// Members whose logs are this far apart are not in sync.
const LAG: u64 = 100;

pub(super) fn run(
    context: &Context,
    gates: &[GateKind],
    namespaces: &[String],
    report: &mut Report,
) -> Result<(), StepError> {
    for gate in gates {
        context.wait(&format!("gate {}: it is not open", gate.as_str()), report, |context| match gate {
            GateKind::Api => api_answers(context),
            GateKind::Etcd => etcd(context),
            GateKind::Nodes => nodes(context),
            GateKind::Pods => pods(context, namespaces),
            GateKind::Registry => Ok(registry_answers(context)),
        })?;
    }
    Ok(())
}

/// What a cluster says, or why it says nothing.
type Asked = Result<Result<(), String>, StepError>;

fn ask(context: &Context, arguments: &[&str]) -> Result<Result<Value, String>, StepError> {
    let output = context.host.run(&context.kubectl(arguments.iter().copied()), &mut |_| {})?;
    if !output.success() {
        return Ok(Err(crate::step::last_line(&output.stderr)));
    }
    Ok(serde_json::from_slice(&output.stdout).map_err(|error| error.to_string()))
}

fn etcd(context: &Context) -> Asked {
    let arguments = etcdctl(&context.config.node.name, &MEMBERS);
    let command = context.kubectl(arguments.iter().map(AsRef::as_ref));
    let output = context.host.run(&command, &mut |_| {})?;
    if !output.success() {
        return Ok(Err(etcdctl_error(&output.stderr)));
    }
    Ok(parse_members(&output.text()).and_then(|members| judge_members(&members, LAG)))
}

/// Whether etcd has all of its members, a leader, and logs at most `lag` entries apart.
pub(in crate::upgrade) fn judge_members(members: &[Member], lag: u64) -> Result<(), String> {
    let Some(ahead) = members.iter().map(|member| member.raft_index).max() else {
        return Err("etcd has no members".to_owned());
    };
    for member in members {
        if let Some(error) = member.errors.first() {
            return Err(format!("{}: {error}", member.endpoint));
        }
        if !member.has_leader {
            return Err(format!("{} knows no leader", member.endpoint));
        }
        if ahead - member.raft_index > lag {
            return Err(format!("{} is {} entries behind", member.endpoint, ahead - member.raft_index));
        }
    }
    Ok(())
}

fn nodes(context: &Context) -> Asked {
    let list = match ask(context, &["get", "nodes", "-o", "json"])? {
        Ok(list) => list,
        Err(why) => return Ok(Err(why)),
    };
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let bad = items.iter().find_map(|node| match condition(node, "Ready") {
        Some((true, _)) => None,
        other => Some(format!(
            "node {}: {}",
            node["metadata"]["name"].as_str().unwrap_or("?"),
            other.map_or_else(|| "it reports no condition".to_owned(), |(_, message)| message)
        )),
    });
    Ok(match bad {
        _ if items.is_empty() => Err("there are no nodes".to_owned()),
        Some(why) => Err(why),
        None => Ok(()),
    })
}

fn pods(context: &Context, namespaces: &[String]) -> Asked {
    for namespace in namespaces {
        let list = match ask(context, &["get", "pods", "-n", namespace, "-o", "json"])? {
            Ok(list) => list,
            Err(why) => return Ok(Err(why)),
        };
        if let Some(why) = list["items"].as_array().into_iter().flatten().find_map(judge_pod) {
            return Ok(Err(format!("pod {namespace}/{why}")));
        }
        let kinds = "deployments,daemonsets,statefulsets";
        let list = match ask(context, &["get", kinds, "-n", namespace, "-o", "json"])? {
            Ok(list) => list,
            Err(why) => return Ok(Err(why)),
        };
        if let Some(why) = list["items"].as_array().into_iter().flatten().find_map(judge_rollout) {
            return Ok(Err(format!("{namespace}: {why}")));
        }
    }
    Ok(Ok(()))
}

/// Why a workload does not run its newest form everywhere: its old pods may well be ready.
fn judge_rollout(object: &Value) -> Option<String> {
    let (metadata, status) = (&object["metadata"], &object["status"]);
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let kind = object["kind"].as_str().unwrap_or("?");
    let title = format!("{kind} {}", metadata["name"].as_str().unwrap_or("?"));
    if number(&status["observedGeneration"]) < number(&metadata["generation"]) {
        return Some(format!("{title}: its controller has not seen it yet"));
    }
    let (wanted, updated, ready) = match kind {
        "DaemonSet" => ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady"),
        "Deployment" => ("replicas", "updatedReplicas", "availableReplicas"),
        _ => ("replicas", "updatedReplicas", "readyReplicas"),
    };
    let wanted = number(&status[wanted]).max(number(&object["spec"]["replicas"]));
    // A StatefulSet or DaemonSet that is updated by hand counts what is ready only.
    let by_hand = object["spec"]["updateStrategy"]["type"] == "OnDelete";
    let (updated, ready) = (number(&status[updated]), number(&status[ready]));
    let fits = (by_hand || updated >= wanted) && ready >= wanted;
    (!fits).then(|| format!("{title}: {updated} of {wanted} pods are new, {ready} ready"))
}

/// Why a pod is not as it should be. One that ended well, or that is about to go, is.
fn judge_pod(pod: &Value) -> Option<String> {
    let name = pod["metadata"]["name"].as_str().unwrap_or("?");
    let phase = pod["status"]["phase"].as_str().unwrap_or("Unknown");
    // A Job's failed attempt is the Job's business.
    let of_a_job =
        pod["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|owner| owner["kind"] == "Job");
    if phase == "Succeeded" || of_a_job || !pod["metadata"]["deletionTimestamp"].is_null() {
        return None;
    }
    match condition(pod, "Ready") {
        Some((true, _)) => None,
        Some((false, message)) if !message.is_empty() => Some(format!("{name}: {message}")),
        _ => Some(format!("{name}: {phase}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Member, judge_members, judge_pod, judge_rollout};

    #[test]
    fn rollouts() {
        let daemonset = |updated, ready| {
            json!({"kind": "DaemonSet", "metadata": {"name": "a", "generation": 2}, "spec": {},
                "status": {"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": updated, "numberReady": ready}})
        };
        assert_eq!(judge_rollout(&daemonset(2, 2)), None);
        assert_eq!(judge_rollout(&daemonset(1, 2)).as_deref(), Some("DaemonSet a: 1 of 2 pods are new, 2 ready"));
        assert!(judge_rollout(&daemonset(2, 1)).is_some());
        let mut by_hand = daemonset(0, 2);
        by_hand["spec"]["updateStrategy"]["type"] = json!("OnDelete");
        assert_eq!(judge_rollout(&by_hand), None);
        by_hand["metadata"]["generation"] = json!(3);
        assert!(judge_rollout(&by_hand).is_some_and(|why| why.contains("not seen")));
        // A new Deployment whose status says nothing yet.
        let deployment =
            json!({"kind": "Deployment", "metadata": {"name": "b"}, "spec": {"replicas": 1}, "status": {}});
        assert!(judge_rollout(&deployment).is_some());
        let none = json!({"kind": "Deployment", "metadata": {"name": "b"}, "spec": {"replicas": 0}, "status": {}});
        assert_eq!(judge_rollout(&none), None);
    }

    #[test]
    fn members() {
        let member = |raft_index, has_leader, errors: &[&str]| Member {
            endpoint: "https://a:2379".to_owned(),
            errors: errors.iter().map(|error| (*error).to_owned()).collect(),
            raft_index,
            has_leader,
        };
        let table = [
            (vec![member(900, true, &[])], None),
            (vec![member(900, true, &[]), member(850, true, &[])], None),
            (vec![], Some("no members")),
            (vec![member(900, true, &[]), member(700, true, &[])], Some("200 entries behind")),
            (vec![member(900, false, &[])], Some("no leader")),
            (vec![member(900, true, &["NOSPACE"])], Some("NOSPACE")),
        ];
        for (members, expected) in table {
            let found = judge_members(&members, 100).err();
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
    }

    #[test]
    fn pods() {
        let pod = |phase: &str, ready: &str| json!({"metadata": {"name": "a"}, "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "message": ""}]}});
        assert_eq!(judge_pod(&pod("Running", "True")), None);
        assert_eq!(judge_pod(&pod("Succeeded", "False")), None);
        assert_eq!(judge_pod(&pod("Running", "False")), Some("a: Running".to_owned()));
        assert_eq!(judge_pod(&json!({"metadata": {"name": "a"}})), Some("a: Unknown".to_owned()));
        let mut of_a_job = pod("Failed", "False");
        of_a_job["metadata"]["ownerReferences"] = json!([{"kind": "Job"}]);
        assert_eq!(judge_pod(&of_a_job), None);
        let mut going = pod("Running", "False");
        going["metadata"]["deletionTimestamp"] = json!("2026-11-01T00:00:00Z");
        assert_eq!(judge_pod(&going), None);
    }
}
