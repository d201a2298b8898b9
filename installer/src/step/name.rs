//! `system.name`: the machine's name, and addresses for the site's names that need no name server. Done when the files are
//! written and the kernel has the name.

use std::net::IpAddr;

use super::{Context, StepError};
use crate::host::HostExt;

const NAME: &str = "/etc/hostname";
const HOSTS: &str = "/etc/hosts";
const KERNEL: &str = "/proc/sys/kernel/hostname";

pub(super) fn done(context: &Context, name: &str, address: IpAddr, names: &[String]) -> Result<bool, StepError> {
    let host = context.host;
    Ok(host.holds(NAME.into(), format!("{name}\n").as_bytes(), 0o644)?
        && host.holds(HOSTS.into(), hosts(address, names).as_bytes(), 0o644)?
        && host.read_text(KERNEL.into())?.is_some_and(|found| found.trim() == name))
}

pub(super) fn run(context: &Context, name: &str, address: IpAddr, names: &[String]) -> Result<(), StepError> {
    context.host.ensure(HOSTS.into(), hosts(address, names).as_bytes(), 0o644)?;
    context.host.ensure(NAME.into(), format!("{name}\n").as_bytes(), 0o644)?;
    context.must("sysctl", ["-q", "-w", &format!("kernel.hostname={name}")])?;
    Ok(())
}

fn hosts(address: IpAddr, names: &[String]) -> String {
    format!("# Written by cofferdam.\n127.0.0.1 localhost\n::1 localhost\n{address} {}\n", names.join(" "))
}
