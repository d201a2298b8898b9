//! The fast host: a throw-away Debian 12 host with a real systemd, in namespaces of this machine, up in half a second.
//!
//! It is the everyday bed for whole installs: units, journal, cgroups, network, containerd and kubeadm are real. What it
//! cannot have, because the machine's kernel is shared: device-mapper, modules, a clock and a boot loader of its own (for
//! those see the virtual machine bed). Needs root.
//!
//! Invariant: nothing is left behind. Namespaces and mounts have no name outside of the host's processes and vanish with
//! them; the scripts in `tests/hosts` hold a pipe from the test process and kill the host and remove its cgroups when it
//! ends, also when the test process was killed; folders left by a killed test process are swept by the next one.
//!
//! Called by the whole-product tests, the demo and the `fast-host` command.

mod guest;
mod host;
mod lan;
mod options;
mod scripts;

pub use host::FastHost;
pub use lan::Lan;
pub use options::{Access, HostOptions};
