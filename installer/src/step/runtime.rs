//! `runtime.configure` and `images.pull`: containerd with one mirror for every upstream name and no way past it.

use super::certificates::entry;
use super::{Context, Report, StepError};
use crate::engine::event::Progress;
use crate::host::{Command, HostExt};

const CONFIG: &str = "/etc/containerd/config.toml";
const HOSTS: &str = "/etc/containerd/certs.d/_default/hosts.toml";
const UNIT: &str = "/etc/systemd/system/containerd.service";
const CERTS_D: &str = "/etc/containerd/certs.d";

pub(super) fn done(context: &Context, sandbox_image: &str, mirror: &str) -> Result<bool, StepError> {
    for (path, content) in files(context, sandbox_image, mirror) {
        if !context.host.holds(path.into(), content.as_bytes(), 0o644)? {
            return Ok(false);
        }
    }
    Ok(context.succeeds("systemctl", ["is-active", "--quiet", "containerd.service"])?
        && context.succeeds("systemctl", ["is-enabled", "--quiet", "containerd.service"])?)
}

pub(super) fn run(context: &Context, sandbox_image: &str, mirror: &str) -> Result<(), StepError> {
    for (path, content) in files(context, sandbox_image, mirror) {
        context.host.ensure(path.into(), content.as_bytes(), 0o644)?;
    }
    context.must("systemctl", ["daemon-reload"])?;
    context.must("systemctl", ["enable", "--quiet", "containerd.service"])?;
    context.must("systemctl", ["restart", "containerd.service"])?;
    Ok(())
}

pub(super) fn pulled(context: &Context, images: &[String]) -> Result<bool, StepError> {
    if context.host.look("/run/containerd/containerd.sock".into())?.is_none() {
        return Ok(false);
    }
    let present = present(context)?;
    Ok(images.iter().all(|image| present.iter().any(|name| name == image)))
}

pub(super) fn pull(context: &Context, images: &[String], report: &mut Report) -> Result<(), StepError> {
    let present = present(context)?;
    for (done, image) in images.iter().enumerate() {
        report(Progress::Items { done, total: images.len(), item: image.clone() });
        if present.iter().any(|name| name == image) {
            continue;
        }
        context.must("ctr", ["-n", "k8s.io", "images", "pull", "--hosts-dir", CERTS_D, image.as_str()])?;
        // containerd 1.x does not sync what it unpacks; the pin says that the image is whole also after a power cut.
        context.must("sync", ["--file-system", "/var/lib/containerd"])?;
        // The kubelet's garbage collection passes over pinned images (CRI, Image.pinned).
        let labels = ["-n", "k8s.io", "images", "label", image.as_str(), "io.cri-containerd.pinned=pinned"];
        context.must("ctr", labels)?;
    }
    Ok(())
}

/// The images that are pulled and pinned: one without its pin was cut off between the two.
fn present(context: &Context) -> Result<Vec<String>, StepError> {
    let pinned = "labels.\"io.cri-containerd.pinned\"==pinned";
    let output = context.must("ctr", ["-n", "k8s.io", "images", "list", "--quiet", pinned])?;
    Ok(output.text().lines().map(str::to_owned).collect())
}

fn files(context: &Context, sandbox_image: &str, mirror: &str) -> Vec<(&'static str, String)> {
    let version = Command::new("containerd").arg("--version");
    let version = context.host.run(&version, &mut |_| {}).map(|output| output.text()).unwrap_or_default();
    let major =
        version.split_whitespace().nth(2).and_then(|word| word.trim_start_matches('v').split('.').next()?.parse().ok());
    vec![
        (CONFIG, render_config(major.unwrap_or(1), sandbox_image)),
        (HOSTS, render_hosts(mirror)),
        (UNIT, render_unit()),
    ]
}

/// containerd's configuration: `version = 2` for 1.x, `version = 3` with the split CRI plugins for 2.x.
fn render_config(major: u32, sandbox_image: &str) -> String {
    let head = "# Written by cofferdam.\n";
    if major >= 2 {
        format!(
            "{head}version = 3\n\n[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"{sandbox_image}\"\n\n\
             [plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"{CERTS_D}\"\n\n\
             [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\n\
             [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc.options]\nSystemdCgroup = true\n"
        )
    } else {
        format!(
            "{head}version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{sandbox_image}\"\n\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"{CERTS_D}\"\n\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true\n"
        )
    }
}

/// One mirror for every name. `server` is the mirror too: what it lacks is asked for nowhere else.
fn render_hosts(mirror: &str) -> String {
    let (ca, certificate, key) = (entry("site-ca.crt"), entry("node.crt"), entry("node.key"));
    format!(
        "# Written by cofferdam: every image comes from the site's registry, and from nowhere else.\n\
         server = \"{mirror}\"\nca = \"{ca}\"\nclient = [[\"{certificate}\", \"{key}\"]]\n\n\
         [host.\"{mirror}\"]\ncapabilities = [\"pull\", \"resolve\"]\nca = \"{ca}\"\n\
         client = [[\"{certificate}\", \"{key}\"]]\n"
    )
}

fn render_unit() -> String {
    format!(
        "# Written by cofferdam.\n[Unit]\nDescription=containerd container runtime\nAfter=network.target cofferdam-registry.service\n\
         RequiresMountsFor=/var/lib/containerd {}\n\n[Service]\nType=notify\n\
         # Networks of pods are not synced: what a power cut left empty would keep their sandboxes from being removed.\n\
         ExecStartPre=-/usr/bin/find /var/lib/cni -type f -empty ! -name lock -delete\nExecStart=/usr/local/bin/containerd\n\
         Delegate=yes\nKillMode=process\nRestart=always\nRestartSec=5\nLimitNOFILE=1048576\nTasksMax=infinity\n\
         OOMScoreAdjust=-999\n\n[Install]\nWantedBy=multi-user.target\n",
        crate::layout::DATA
    )
}

#[cfg(test)]
mod tests {
    use super::{render_config, render_hosts, render_unit};

    #[test]
    fn renderings() {
        insta::assert_snapshot!("containerd-1", render_config(1, "k8s.gcr.io/pause:3.2"));
        insta::assert_snapshot!("containerd-2", render_config(2, "registry.k8s.io/pause:3.10"));
        insta::assert_snapshot!("hosts", render_hosts("https://192.0.2.11:5000"));
        insta::assert_snapshot!("unit", render_unit());
    }
}
