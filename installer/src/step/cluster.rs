//! Waiting for the API server and for the node: `kubernetes.api`, `kubernetes.node`.

use serde_json::Value;

use super::{Context, Report, StepError};
use crate::layout;

pub(super) fn api_ready(context: &Context) -> Result<bool, StepError> {
    if context.host.look(layout::ADMIN_KUBECONFIG.into())?.is_none() {
        return Ok(false);
    }
    Ok(ask_api(context)?.is_ok())
}

pub(super) fn wait_for_api(context: &Context, report: &mut Report) -> Result<(), StepError> {
    context.wait("the API server is not ready", report, ask_api)
}

pub(crate) fn ask_api(context: &Context) -> Result<Result<(), String>, StepError> {
    let output = context.host.run(&context.kubectl(["get", "--raw", "/readyz"]), &mut |_| {})?;
    Ok(if output.success() { Ok(()) } else { Err(last_line(&output.stderr)) })
}

pub(super) fn node_ready(context: &Context) -> Result<bool, StepError> {
    if context.host.look(layout::ADMIN_KUBECONFIG.into())?.is_none() {
        return Ok(false);
    }
    Ok(ask_node(context)?.is_ok())
}

pub(super) fn wait_for_node(context: &Context, report: &mut Report) -> Result<(), StepError> {
    context.wait("the node is not Ready", report, ask_node)
}

fn ask_node(context: &Context) -> Result<Result<(), String>, StepError> {
    let ask = context.kubectl(["get", "node", context.config.node.name.as_str(), "-o", "json"]);
    let output = context.host.run(&ask, &mut |_| {})?;
    if !output.success() {
        return Ok(Err(last_line(&output.stderr)));
    }
    let node: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(match condition(&node, "Ready") {
        Some((true, _)) => Ok(()),
        Some((false, message)) => Err(message),
        None => Err("it reports no condition yet".to_owned()),
    })
}

/// Status and message of a condition of a Kubernetes object.
pub(crate) fn condition(object: &Value, kind: &str) -> Option<(bool, String)> {
    let condition = object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)?;
    Some((condition["status"] == "True", condition["message"].as_str().unwrap_or_default().to_owned()))
}

pub(crate) fn last_line(text: &str) -> String {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no answer").trim().to_owned()
}
