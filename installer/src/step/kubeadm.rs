//! `kubernetes.configure` and the phases of `kubeadm init`. Each phase is a step of its own that can be repeated; it is
//! done when the object that it makes is there, or the file and our mark. kubeadm does not sync what it writes: a power cut
//! leaves empty files for half a minute. The mark follows the sync, so what has none is made anew.

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
/// A file for each phase whose files are on the disk.
const MARKS: &str = "/etc/kubernetes/cofferdam/phases";
const UNIT: &str = "/etc/systemd/system/kubelet.service";
const KUBELET: &str = "kubelet.service";
const START_KUBELET: &str = "kubelet-start";
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

pub(super) fn phase_done(context: &Context, phase: &str, proof: &Proof) -> Result<bool, StepError> {
    match proof {
        Proof::File(path) => Ok(context.host.look(&mark(phase))?.is_some()
            && context.host.look(path)?.is_some()
            && (phase != START_KUBELET || context.succeeds("systemctl", ["is-active", "--quiet", KUBELET])?)),
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

pub(super) fn phase(context: &Context, phase: &str, proof: &Proof, report: &mut Report) -> Result<(), StepError> {
    match phase {
        "certs all" => discard(context, &[PKI, "/etc/kubernetes/pki/etcd"], |_| true)?,
        "kubeconfig all" => discard(context, &["/etc/kubernetes"], |path| path.extension() == Some("conf"))?,
        _ => {}
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
    if phase == START_KUBELET {
        // CIS 4.1.9: kubeadm leaves it readable for all.
        context.must("chmod", ["0600", KUBELET_CONFIG])?;
    }
    match proof {
        Proof::File(path) => {
            sync(context, path)?;
            context.host.write(&mark(phase), b"", 0o600)?;
        }
        Proof::Text { path, .. } => sync(context, path)?,
        Proof::Object(_) => {}
    }
    Ok(())
}

/// What kubeadm wrote on the filesystem of this file is on the disk when this returns.
pub(crate) fn sync(context: &Context, path: &Utf8Path) -> Result<(), StepError> {
    context.must("sync", ["--file-system", path.as_str()]).map(drop)
}

fn mark(phase: &str) -> Utf8PathBuf {
    Utf8Path::new(MARKS).join(phase.replace(' ', "-"))
}

/// kubeadm keeps what it finds: it fails on a key without its certificate, never writes `sa.pub` next to an `sa.key` that is
/// there, and fails on an empty kubeconfig. Until the phase is done nothing uses its files, so they are made anew.
fn discard(context: &Context, folders: &[&str], is_its: fn(&Utf8Path) -> bool) -> Result<(), StepError> {
    for folder in folders {
        for name in context.host.list(Utf8Path::new(folder))? {
            let path = Utf8Path::new(folder).join(name);
            if is_its(&path) && context.host.look(&path)?.is_some_and(|entry| entry.kind == EntryKind::File) {
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
