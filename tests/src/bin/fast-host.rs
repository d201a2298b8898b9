//! `cargo run -p tests --bin fast-host [-- DIRECTORY:/GUEST ...]`: a throw-away host to look around in. Starts one with these folders
//! shared read-only, opens a shell in it, and takes it away when the shell ends. Needs root.
#![allow(clippy::print_stderr, reason = "a program that talks to a person")]

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use tests::fast_host::{Access, FastHost, HostOptions, Lan};

fn main() -> Result<()> {
    let lan = Lan::create()?;
    let mut options = HostOptions::new("throw-away", Ipv4Addr::new(10, 77, 0, 11));
    for share in std::env::args().skip(1) {
        let (machine, guest) = share.split_once(":/").with_context(|| format!("{share:?} is not DIRECTORY:/GUEST"))?;
        options = options.share(machine, &format!("/{guest}"), Access::ReadOnly);
    }
    let host = FastHost::start(&lan, options)?;
    eprintln!("{} is up at {}; its files lie in {}", host.name(), host.address(), host.folder().display());
    // `script` gives the shell a terminal of the host's own, and with it job control.
    let terminal = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    let shell = ["--quiet", "--return", "--command", "exec bash --login", "/dev/null"];
    host.command("script")?.args(shell).env("TERM", terminal).status().context("cannot open a shell in the host")?;
    Ok(())
}
