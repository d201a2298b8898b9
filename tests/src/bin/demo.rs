//! `make demo`: the main job on both test beds, with what it prints made for people. First a host in namespaces, which
//! shares this machine's kernel and so has no disk encryption, up to the workload's answer; then a bare virtual machine
//! with an empty disk and a TPM, from the boot medium up to the encrypted volume that serves. `--whole` waits for the
//! cluster in the machine also without KVM.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program whose work is to show")]

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use tests::appliance::{self, ApplianceMedium};
use tests::encrypted_site;
use tests::fast_site::{FQDN, FastSite, sample_in};
use tests::sample::Sample;
use tests::virtual_machine::{Accelerator, BOOT_LIMIT, MachineImage};

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
    appliance(&sample, Utf8Path::from_path(&machine).context("the folder's name is no text")?, is_whole)?;

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

/// The second bed: the same bundle on a boot medium with its own system, a bare machine, and the TPM that opens its disk.
fn appliance(sample: &Sample, folder: &Utf8Path, is_whole: bool) -> Result<()> {
    let accelerator = Accelerator::detect(&MachineImage::find_or_build()?)?;
    let is_whole = is_whole || accelerator == Accelerator::Kvm;
    headline(
        "2. The release engineer makes a boot medium with its own operating system, the bundle and the answers on it",
    );
    let began = Instant::now();
    let medium = ApplianceMedium::build(sample, folder, &[])?;
    let bytes = std::fs::metadata(&medium.image)?.len();
    println!("{} ({} MB) after {} s", medium.image, bytes / 1_000_000, began.elapsed().as_secs());

    headline(&format!(
        "3. A bare virtual machine ({}) with an empty disk and a TPM is started from it; about {}",
        if accelerator == Accelerator::Kvm { "KVM" } else { "no KVM here: a processor made in software" },
        match (accelerator, is_whole) {
            (Accelerator::Kvm, _) => "4 minutes",
            (Accelerator::Tcg, false) => "6 minutes",
            (Accelerator::Tcg, true) => "20 minutes",
        }
    ));
    let (mut machine, disk) = appliance::bare_machine(&medium, folder)?;
    appliance::install(&mut machine, &mut |text| print!("{text}"))?;
    println!("\nthe system is on the disk after {} s; the medium is taken out", began.elapsed().as_secs());

    headline("It starts from its disk: the TPM opens the volume, the installation goes on from its journal");
    machine.power_on()?;
    machine.wait_for_agent(BOOT_LIMIT)?;
    let condition = if is_whole { "test -e /var/lib/cofferdam/state.json" } else { appliance::SERVES };
    let mut watch = |_, bytes: &[u8]| print!("{}", String::from_utf8_lossy(bytes));
    let reached = machine.run_streaming(&appliance::follow_until(condition), b"", 45 * MINUTE, &mut watch)?;
    ensure!(reached.code == 0, "the installation did not go on");
    if !is_whole {
        println!(
            "The control plane takes some ten minutes more in such a processor: `tests/demo.sh --whole` waits for it."
        );
    }

    headline("The machine: a verified read-only root, one encrypted volume, its key slots");
    let look = "lsblk -o NAME,SIZE,TYPE,FSTYPE,MOUNTPOINTS /dev/vda; echo; cofferdam status";
    print!("{}", machine.run_ok(look, 2 * MINUTE)?);
    print!("Registry by TLS: {}", machine.run_ok(encrypted_site::ASK_REGISTRY, 2 * MINUTE)?);
    println!();
    machine.power_off()?;
    let characters = appliance::recovery_key(&medium, &disk)?.chars().count();
    println!(
        "Escrow: opened with the age identity of the person who holds it; a recovery key of {characters} characters"
    );
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
