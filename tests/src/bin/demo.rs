//! `make demo`: the main job on the fast host, with what it prints made for people.
#![allow(clippy::print_stdout, reason = "a program whose work is to show")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::fast_site::{FQDN, FastSite, sample_in};

fn main() -> Result<()> {
    let started = Instant::now();
    let folder = std::env::current_exe()?.ancestors().nth(2).map(|target| target.join("demo")).unwrap_or_default();
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    headline("A release engineer makes a key pair and a signed bundle");
    let sample = sample_in(&folder)?;
    println!("bundle: {} ({} MB)", sample.bundle.display(), std::fs::metadata(&sample.bundle)?.len() / 1_000_000);

    headline(
        "An operator installs it onto a Debian 12 host with systemd; this kernel has no device-mapper: encryption none",
    );
    let site = FastSite::bare(&sample)?;
    let installed = Instant::now();
    let status = site
        .host
        .command("/root/cofferdam")?
        .args(["install", "--config", "/root/install.yaml", "--events", "/root/events.jsonl"])
        .stdin(Stdio::null())
        .status()?;
    ensure!(status.success(), "the installation ended with {status}");
    println!("installed in {} s", installed.elapsed().as_secs());

    headline("The site");
    print!("{}", site.must(&["status"])?);
    let kubectl = "kubectl --kubeconfig=/etc/kubernetes/admin.conf";
    print!("{}", site.host.shell(&format!("{kubectl} get nodes -o wide; {kubectl} get pods -A"))?);

    headline(&format!("The workload's answer, fetched over TLS from https://{FQDN}/ with the site CA"));
    println!("{}", answer(&site)?);

    std::fs::write(folder.join("events.jsonl"), site.host.read_file("/root/events.jsonl")?)?;
    std::fs::write(folder.join("journal.jsonl"), site.host.read_file("/var/lib/cofferdam/journal.jsonl")?)?;
    std::fs::write(folder.join("plan.json"), site.host.read_file("/var/lib/cofferdam/plan.json")?)?;
    headline(&format!("Done in {} s. Where to look next", started.elapsed().as_secs()));
    println!("{0}/sample.tar.zst  {0}/plan.json  {0}/events.jsonl  {0}/journal.jsonl", folder.display());
    println!("docs/architecture.md  docs/bundle-format.md  cofferdam config example");
    Ok(())
}

fn answer(site: &FastSite) -> Result<String> {
    let began = Instant::now();
    loop {
        match site.ask_workload() {
            Err(_) if began.elapsed() < Duration::from_mins(2) => std::thread::sleep(Duration::from_secs(1)),
            result => return result,
        }
    }
}

fn headline(text: &str) {
    println!("\n-- {text}");
}
