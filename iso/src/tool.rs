//! The one place that runs the tools that an image is built with. Called by [`crate::system`] and [`crate::appliance`].
//!
//! Invariant: a tool sees no environment but PATH, the C locale and [`EPOCH`], so that two builds see the same.

use std::io;
use std::process::{Command, Stdio};

use camino::Utf8Path;

use crate::Error;

/// All times in what we build are this one, 1 January 2020, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
pub(crate) const EPOCH: &str = "1577836800";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a program to its end and gives what it wrote to standard output.
pub(crate) fn run<I: IntoIterator<Item = S>, S: AsRef<str>>(program: &str, arguments: I) -> Result<Vec<u8>, Error> {
    let mut command = Command::new(program);
    command.args(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8").env("TZ", "UTC").env("HOME", "/root");
    command.env("SOURCE_DATE_EPOCH", EPOCH).env("DEBIAN_FRONTEND", "noninteractive");
    // The kernel's package would make an initrd of its own, which nobody uses.
    command.env("INITRD", "No");
    // A proxy is how some machines reach their mirror; apt reads these.
    for name in ["http_proxy", "https_proxy", "no_proxy", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let output = command.stdin(Stdio::null()).output().map_err(|error| Error::Tool {
        program: program.to_owned(),
        is_missing: error.kind() == io::ErrorKind::NotFound,
        why: error.to_string(),
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).rev().take(8).collect();
    let why = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
    Err(Error::Tool {
        program: program.to_owned(),
        why: format!("ended with {}: {why}", output.status),
        is_missing: false,
    })
}

/// Runs a program inside a tree, with /proc, /sys and /dev, and with folders of the outside bound to places in it. The
/// mounts live in a mount namespace of their own and go with it.
pub(crate) fn run_inside<S: AsRef<str>>(
    tree: &Utf8Path,
    binds: &[(&Utf8Path, &str)],
    arguments: &[S],
) -> Result<Vec<u8>, Error> {
    let script = "set -e; tree=$1; shift
        mount -t proc proc \"$tree/proc\"; mount -t sysfs sysfs \"$tree/sys\"; mount --rbind /dev \"$tree/dev\"
        while [ \"$1\" != -- ]; do mount --bind \"$1\" \"$tree$2\"; shift 2; done; shift
        exec chroot \"$tree\" \"$@\"";
    let mut all = vec!["--mount", "--propagation", "private", "--", "sh", "-c", script, "sh", tree.as_str()];
    for (outside, inside) in binds {
        all.extend([outside.as_str(), inside]);
    }
    all.push("--");
    all.extend(arguments.iter().map(AsRef::as_ref));
    run("unshare", all)
}
