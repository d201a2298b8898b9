//! `make demo`: the main job on both test beds, with what it prints made for people. First a host in namespaces, which
//! shares this machine's kernel and so has no disk encryption, up to the workload's answer; then a virtual machine with
//! an empty disk and a TPM, up to the encrypted volume that serves. `--whole` waits for the cluster in the machine also
//! without KVM.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program whose work is to show")]

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use tests::encrypted_site::{self, EncryptedSite};
use tests::fast_site::{FQDN, FastSite, sample_in};
use tests::sample::Sample;
use tests::virtual_machine::{Accelerator, MachineImage};

const MINUTE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    match run(std::env::args().any(|argument| argument == "--whole")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(is_whole: bool) -> Result<()> {
    let started = Instant::now();
    let folder = std::env::current_exe()?.ancestors().nth(2).map(|target| target.join("demo")).unwrap_or_default();
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    headline("A release engineer makes a key pair and a signed bundle");
    let sample = sample_in(&folder)?;
    println!("bundle: {} ({} MB)", sample.bundle.display(), std::fs::metadata(&sample.bundle)?.len() / 1_000_000);

    cluster(&sample, &folder)?;
    let machine = folder.join("machine");
    std::fs::create_dir_all(&machine)?;
    encrypted(&sample, Utf8Path::from_path(&machine).context("the folder's name is no text")?, is_whole)?;

    headline(&format!("Done in {} s. Where to look next", started.elapsed().as_secs()));
    println!("{0}/sample.tar.zst  {0}/plan.json  {0}/events.jsonl  {0}/journal.jsonl", folder.display());
    println!("{0}/machine/machine/console.log", folder.display());
    println!("docs/architecture.md  docs/bundle-format.md  cofferdam config example");
    Ok(())
}

/// The first bed: from the bundle to the workload's answer.
fn cluster(sample: &Sample, folder: &Path) -> Result<()> {
    headline("1. An operator installs it onto a Debian 12 host (its kernel has no device-mapper: encryption none)");
    let site = FastSite::bare(sample)?;
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
    Ok(())
}

/// The second bed: the same bundle onto an encrypted disk, a power cut, and the TPM that opens it.
fn encrypted(sample: &Sample, folder: &Utf8Path, is_whole: bool) -> Result<()> {
    let accelerator = Accelerator::detect(&MachineImage::find_or_build()?)?;
    let is_whole = is_whole || accelerator == Accelerator::Kvm;
    headline(&format!(
        "2. The same bundle onto a virtual machine ({}) with an empty disk and a TPM: LUKS2; about {}",
        if accelerator == Accelerator::Kvm { "KVM" } else { "no KVM here: a processor made in software" },
        match (accelerator, is_whole) {
            (Accelerator::Kvm, _) => "3 minutes",
            (Accelerator::Tcg, false) => "5 minutes",
            (Accelerator::Tcg, true) => "15 minutes",
        }
    ));
    let began = Instant::now();
    let mut site = EncryptedSite::bare(sample, folder)?;
    println!("booted after {} s; what the installer says:\n", began.elapsed().as_secs());
    site.start("install --config /root/install.yaml")?;
    let last = if is_whole { "finished" } else { "images.pull" };
    site.watch_until_step(last, 45 * MINUTE, &mut |text| print!("{text}"))?;
    println!("\n{} s so far", began.elapsed().as_secs());
    if !is_whole {
        println!(
            "The control plane takes some ten minutes more in such a processor: `tests/demo.sh --whole` waits for it."
        );
    }

    headline("The power is cut, and the TPM opens the volume at the next boot");
    site.power_cut()?;
    print!("{}", site.machine.run_ok("lsblk -o NAME,SIZE,TYPE,FSTYPE,MOUNTPOINT /dev/vdb", MINUTE)?);

    headline("The site in the machine: encryption and its key slots");
    print!("{}", site.machine.run_ok("/usr/local/bin/cofferdam status", 2 * MINUTE)?);
    let key = site.recovery_key()?;
    let characters = key.chars().count();
    println!(
        "Escrow: opened with the age identity of the person who holds it; a recovery key of {characters} characters"
    );
    println!("Registry by TLS: {}", site.machine.run_ok(encrypted_site::ASK_REGISTRY, 2 * MINUTE)?.trim());
    site.machine.power_off()
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
