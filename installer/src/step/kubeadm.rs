//! `kubernetes.configure` and the phases of `kubeadm init`. Each phase is a step of its own that can be repeated; it is
//! done when the file or object that it makes is there.

mod config;

use camino::{Utf8Path, Utf8PathBuf};

use super::{Context, Report, StepError};
use crate::engine::event::Progress;
use crate::host::{Command, EntryKind, HostExt};
use crate::layout;
use crate::plan::{Action, Proof, kubernetes_minor};

pub(crate) use config::KubeadmParameters;
pub use config::render_kubeadm_config;

const FOLDER: &str = "/etc/kubernetes/cofferdam";
const CONFIG: &str = "/etc/kubernetes/cofferdam/kubeadm.yaml";
const ENCRYPTION: &str = "/etc/kubernetes/cofferdam/encryption.yaml";
const PATCHES: &str = "/etc/kubernetes/cofferdam/patches";
const UNIT: &str = "/etc/systemd/system/kubelet.service";
const KUBELET: &str = "kubelet.service";
const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
const PKI: &str = "/etc/kubernetes/pki";
const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf";

pub(super) fn configured(context: &Context) -> Result<bool, StepError> {
    for (path, content, mode) in files(context)? {
        if !context.host.holds(&path, content.as_bytes(), mode)? {
            return Ok(false);
        }
    }
    Ok(context.host.look(ENCRYPTION.into())?.is_some()
        && context.succeeds("systemctl", ["is-enabled", "--quiet", KUBELET])?)
}

pub(super) fn configure(context: &Context) -> Result<(), StepError> {
    context.host.make_directory(FOLDER.into(), 0o700)?;
    context.host.make_directory("/etc/kubernetes/manifests".into(), 0o700)?;
    // Made once: another key would make every stored Secret unreadable.
    if context.host.look(ENCRYPTION.into())?.is_none() {
        let key = certs::random_bytes::<32>()
            .map_err(|error| StepError::Certificates { what: "encryption key", reason: error.to_string() })?;
        context.host.write(ENCRYPTION.into(), config::encryption(&key).as_bytes(), 0o600)?;
    }
    for (path, content, mode) in files(context)? {
        context.host.ensure(&path, content.as_bytes(), mode)?;
    }
    context.must("systemctl", ["daemon-reload"])?;
    context.must("systemctl", ["enable", "--quiet", KUBELET])?;
    Ok(())
}

pub(super) fn phase_done(context: &Context, proof: &Proof) -> Result<bool, StepError> {
    match proof {
        // kubeadm starts the kubelet after it wrote this file; the mode is set last, by us.
        Proof::File(path) if path == KUBELET_CONFIG => {
            Ok(context.host.look(path)?.is_some_and(|entry| entry.mode == 0o600)
                && context.succeeds("systemctl", ["is-active", "--quiet", KUBELET])?)
        }
        Proof::File(path) => Ok(context.host.look(path)?.is_some()),
        Proof::Text { path, text } => {
            Ok(context.host.read_text(path)?.is_some_and(|content| content.contains(text.as_str())))
        }
        Proof::Object(_) if context.host.look(layout::ADMIN_KUBECONFIG.into())?.is_none() => Ok(false),
        Proof::Object(object) if object == "node-role" => {
            let selector = "-l=node-role.kubernetes.io/master";
            let selector = match kubernetes_minor(version(context)) {
                Some(minor) if minor >= 20 => "-l=node-role.kubernetes.io/control-plane",
                _ => selector,
            };
            let ask = context.kubectl(["get", "nodes", selector, "-o", "name"]);
            let output = context.host.run(&ask, &mut |_| {})?;
            Ok(output.success() && !output.text().is_empty())
        }
        Proof::Object(object) => {
            let ask = context.kubectl(["get"]).args(object.split(' ')).args(["-o", "name"]);
            Ok(context.host.run(&ask, &mut |_| {})?.success())
        }
    }
}

pub(super) fn phase(context: &Context, phase: &str, report: &mut Report) -> Result<(), StepError> {
    if phase == "certs all" {
        discard_certificates(context)?;
    }
    let mut command = Command::new("kubeadm").args(["init", "phase"]).args(phase.split(' ')).args(["--config", CONFIG]);
    let has_patches = matches!(phase, "etcd local" | "control-plane all") && is_patient(context);
    if has_patches {
        let flag = if kubernetes_minor(version(context)).is_some_and(|minor| minor >= 22) {
            "--patches"
        } else {
            "--experimental-patches"
        };
        command = command.args([flag, PATCHES]);
    }
    context.host.must_watch(&command.limit(context.limit()), &mut |line| {
        report(Progress::Note { text: line.to_owned() });
    })?;
    if phase == "kubelet-start" {
        // CIS 4.1.9: kubeadm leaves it readable for all.
        context.must("chmod", ["0600", KUBELET_CONFIG])?;
    }
    Ok(())
}

/// kubeadm keeps the keys that it finds: it fails on a key without its certificate and never writes `sa.pub` next to an
/// `sa.key` that is there. Until the phase is done nothing uses them, so what was cut off is made anew.
fn discard_certificates(context: &Context) -> Result<(), StepError> {
    for folder in [PKI.to_owned(), format!("{PKI}/etcd")] {
        for name in context.host.list(Utf8Path::new(&folder))? {
            let path = Utf8Path::new(&folder).join(name);
            if context.host.look(&path)?.is_some_and(|entry| entry.kind == EntryKind::File) {
                context.host.remove(&path)?;
            }
        }
    }
    Ok(())
}

fn parameters<'c>(context: &'c Context) -> Option<(&'c str, KubeadmParameters)> {
    // An upgrade over several minor versions configures each of them in its turn.
    std::iter::once(context.step).chain(&context.plan.steps).find_map(|step| match &step.action {
        Action::ConfigureKubernetes { version, api, image_repository, etcd_tag, patient } => Some((
            version.as_str(),
            KubeadmParameters {
                version: version.clone(),
                api: api.clone(),
                image_repository: image_repository.clone(),
                etcd_tag: etcd_tag.clone(),
                patient: *patient,
                cluster: context.config.site.name.clone(),
                fqdn: context.config.site.fqdn.clone(),
                vip: context.config.site.vip,
                node: context.config.node.name.clone(),
                address: context.config.node.address,
                pod_cidr: context.config.cluster.pod_cidr.clone(),
                service_cidr: context.config.cluster.service_cidr.clone(),
                schedule: context.config.cluster.schedule_on_control_plane,
            },
        )),
        _ => None,
    })
}

fn version<'c>(context: &'c Context) -> &'c str {
    parameters(context).map_or("", |(version, _)| version)
}

fn is_patient(context: &Context) -> bool {
    parameters(context).is_some_and(|(_, parameters)| parameters.patient)
}

fn files(context: &Context) -> Result<Vec<(Utf8PathBuf, String, u32)>, StepError> {
    let (_, parameters) = parameters(context).ok_or_else(|| StepError::State {
        what: "the plan runs kubeadm without configuring it".to_owned(),
        hint: "start the installation again".to_owned(),
    })?;
    let mut files: Vec<(Utf8PathBuf, String, u32)> = vec![
        (CONFIG.into(), render_kubeadm_config(&parameters), 0o600),
        (format!("{FOLDER}/audit-policy.yaml").into(), config::AUDIT_POLICY.to_owned(), 0o600),
        (format!("{FOLDER}/admission.yaml").into(), config::ADMISSION.to_owned(), 0o600),
        (format!("{FOLDER}/event-rate-limit.yaml").into(), config::EVENT_RATE_LIMIT.to_owned(), 0o600),
        (UNIT.into(), config::KUBELET_UNIT.to_owned(), 0o644),
        (DROP_IN.into(), config::KUBELET_DROP_IN.to_owned(), 0o600),
    ];
    if parameters.patient {
        for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"] {
            let path = Utf8Path::new(PATCHES).join(format!("{component}+strategic.yaml"));
            files.push((path, config::patient_patch(component), 0o600));
        }
    }
    Ok(files)
}
