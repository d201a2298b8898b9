//! The control plane and the kubelet by kubeadm, phase by phase, as `kubeadm upgrade node` does it on every node: the
//! configuration in the cluster first, then etcd and the static pods, then the kubelet's configuration, then add-ons.
//! Each phase can be run again; kubeadm passes over static pods that are as they should be.

use std::time::Duration;

use serde_json::Value;

use crate::engine::event::Progress;
use crate::host::{Command, HostExt};
use crate::layout;
use crate::plan::kubernetes_minor;
use crate::step::{Context, Report, StepError, last_line, sync_kubernetes};

const CONFIG: &str = "/etc/kubernetes/cofferdam/kubeadm.yaml";
const PATCHES: &str = "/etc/kubernetes/cofferdam/patches";
const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// What a kubelet needs at most to see that a static pod's file is another one (`fileCheckFrequency`).
const KUBELET_LOOKS: Duration = Duration::from_secs(20);
const COMPONENTS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

fn kubeadm<'w>(
    context: &Context,
    words: impl IntoIterator<Item = &'w str>,
    report: &mut Report,
) -> Result<(), StepError> {
    let command = Command::new("kubeadm").args(words).limit(context.limit());
    context.host.must_watch(&command, &mut |line| report(Progress::Note { text: line.to_owned() }))?;
    Ok(())
}

/// What `kubectl get` gives; `None` when it fails.
fn get(context: &Context, arguments: &[&str]) -> Result<Option<String>, StepError> {
    if context.host.look(layout::ADMIN_KUBECONFIG.into())?.is_none() {
        return Ok(None);
    }
    let output = context.host.run(&context.kubectl(["get"]).args(arguments.iter().copied()), &mut |_| {})?;
    Ok(output.success().then(|| output.text()))
}

/// kubeadm's own map says the version, and what it writes last is there.
pub(super) fn config_uploaded(context: &Context, version: &str) -> Result<bool, StepError> {
    let map = match kubernetes_minor(version) {
        Some(minor) if minor < 24 => format!("kubelet-config-1.{minor}"),
        _ => "kubelet-config".to_owned(),
    };
    let stored = get(context, &["configmap", "kubeadm-config", "-n", "kube-system", "-o", "json"])?;
    let stored: Value = stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let says = stored["data"]["ClusterConfiguration"].as_str().unwrap_or_default();
    let wanted = format!("kubernetesVersion: v{version}");
    if !says.lines().any(|line| line.trim() == wanted) {
        return Ok(false);
    }
    let last = format!("rolebinding/kubeadm:{map}");
    let map = format!("configmap/{map}");
    Ok(get(context, &[&map, &last, "-n", "kube-system", "-o", "name"])?.is_some())
}

pub(super) fn upload_config(context: &Context, report: &mut Report) -> Result<(), StepError> {
    kubeadm(context, ["init", "phase", "upload-config", "all", "--config", CONFIG], report)
}

/// The static pods' files name these images.
pub(super) fn manifests_have(context: &Context, version: &str, etcd_tag: &str) -> Result<bool, StepError> {
    let images = COMPONENTS.iter().map(|name| (*name, format!("/{name}:v{version}")));
    for (name, image) in images.chain([("etcd", format!("/etcd:{etcd_tag}"))]) {
        let text = context.host.read_text(format!("{MANIFESTS}/{name}.yaml").as_str().into())?;
        if !text.is_some_and(|text| text.lines().any(|line| line.trim_end().ends_with(&image))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// kubeadm waits five minutes for each static pod. Where that is too short it puts the old files back and gives up, and the
/// API server starts once more: the next attempt waits for it.
pub(super) fn upgrade_control_plane(
    context: &Context,
    version: &str,
    etcd: bool,
    patient: bool,
    report: &mut Report,
) -> Result<(), StepError> {
    let a_part = context.limit() / 4;
    context.wait_at_most(a_part, "the API server is not ready", report, crate::step::api_answers)?;
    let kubeconfig = format!("--kubeconfig={}", layout::ADMIN_KUBECONFIG);
    let etcd = format!("--etcd-upgrade={etcd}");
    let mut words = vec!["upgrade", "node", "phase", "control-plane", &kubeconfig, &etcd];
    if patient {
        let is_new = kubernetes_minor(version).is_some_and(|minor| minor >= 22);
        words.extend([if is_new { "--patches" } else { "--experimental-patches" }, PATCHES]);
    }
    let result = kubeadm(context, words, report);
    sync_kubernetes(context, MANIFESTS.into())?;
    if result.is_err() {
        // The API server that still answers may be one that ends now.
        context.host.pause(KUBELET_LOOKS);
    }
    result
}

pub(super) fn upgrade_kubelet_config(context: &Context, report: &mut Report) -> Result<(), StepError> {
    let kubeconfig = format!("--kubeconfig={}", layout::ADMIN_KUBECONFIG);
    let before = context.host.digest(KUBELET_CONFIG.into())?;
    kubeadm(context, ["upgrade", "node", "phase", "kubelet-config", &kubeconfig], report)?;
    // CIS 4.1.9: kubeadm leaves it readable for all.
    context.must("chmod", ["0600", KUBELET_CONFIG])?;
    sync_kubernetes(context, KUBELET_CONFIG.into())?;
    if context.host.digest(KUBELET_CONFIG.into())? != before {
        context.must("systemctl", ["restart", "kubelet.service"])?;
    }
    Ok(())
}

pub(super) fn addon_has(context: &Context, object: &str, tag: &str) -> Result<bool, StepError> {
    let Some(text) = get(context, &[object, "-n", "kube-system", "-o", "json"])? else { return Ok(false) };
    let object: Value = serde_json::from_str(&text).unwrap_or_default();
    let containers = object["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten();
    let images: Vec<_> = containers.filter_map(|container| container["image"].as_str()).collect();
    Ok(!images.is_empty() && images.iter().all(|image| image.ends_with(&format!(":{tag}"))))
}

pub(super) fn upgrade_addon(context: &Context, addon: &str, report: &mut Report) -> Result<(), StepError> {
    kubeadm(context, ["init", "phase", "addon", addon, "--config", CONFIG], report)
}

/// The API server that answers is the new one, and each static pod of this node runs its image and is ready.
pub(super) fn await_control_plane(
    context: &Context,
    version: &str,
    etcd_tag: &str,
    report: &mut Report,
) -> Result<(), StepError> {
    context.wait(&format!("the control plane does not run {version}"), report, |context| {
        let output = context.host.run(&context.kubectl(["get", "--raw", "/version"]), &mut |_| {})?;
        if !output.success() {
            return Ok(Err(last_line(&output.stderr)));
        }
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let found = answer["gitVersion"].as_str().unwrap_or("nothing");
        if found.trim_start_matches('v').split('+').next() != Some(version) {
            return Ok(Err(format!("the API server says that it is {found}")));
        }
        let selector = "tier=control-plane";
        let Some(text) = get(context, &["pods", "-n", "kube-system", "-l", selector, "-o", "json"])? else {
            return Ok(Err("the pods of the control plane cannot be listed".to_owned()));
        };
        let pods: Value = serde_json::from_str(&text).unwrap_or_default();
        let node = &context.config.node.name;
        let images = COMPONENTS.iter().map(|name| (*name, format!("/{name}:v{version}")));
        for (name, image) in images.chain([("etcd", format!("/etcd:{etcd_tag}"))]) {
            let wanted = format!("{name}-{node}");
            let mut items = pods["items"].as_array().into_iter().flatten();
            let Some(pod) = items.find(|pod| pod["metadata"]["name"] == wanted.as_str()) else {
                return Ok(Err(format!("there is no pod {wanted}")));
            };
            let has = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
            if !has.ends_with(&image) {
                return Ok(Err(format!("{wanted} still runs {has}")));
            }
            if !crate::step::condition(pod, "Ready").is_some_and(|(ready, _)| ready) {
                return Ok(Err(format!("{wanted} is not ready")));
            }
        }
        Ok(Ok(()))
    })
}

/// By the eviction API, which respects budgets: what may not be moved is waited for until the step's time is over.
pub(super) fn drain(context: &Context, node: &str, report: &mut Report) -> Result<(), StepError> {
    let seconds = format!("--timeout={}s", context.limit().as_secs());
    let command = context
        .kubectl(["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", &seconds])
        .limit(context.limit() + Duration::from_secs(30));
    context.host.must_watch(&command, &mut |line| report(Progress::Note { text: line.to_owned() }))?;
    Ok(())
}

pub(super) fn uncordon(context: &Context, node: &str) -> Result<(), StepError> {
    context.host.must(&context.kubectl(["uncordon", node]))?;
    Ok(())
}
