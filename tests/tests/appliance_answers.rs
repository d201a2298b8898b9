//! Where an unattended appliance takes its answers and its bundle from, when they are not on its medium.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use tests::appliance::{self, ApplianceMedium, Bench, bare_machine, cofferdam};
use tests::sample;
use tests::virtual_machine::{BOOT_LIMIT, Network, VirtualMachine};

const MINUTE: Duration = Duration::from_mins(1);

/// By a URL that the kernel's command line names, with its digest; from a volume labelled `COFFERDAM`, which has the bundle too.
/// The medium has answers of its own, which count only where there are no others; a wrong digest installs nothing.
#[test]
#[ignore = "slow: three starts of a live system"]
fn slow_answers_come_by_url_or_on_a_second_medium() {
    let bench = Bench::new().unwrap();
    let sample = sample::make(bench.path.join("sample").as_std_path()).unwrap();
    let medium = ApplianceMedium::build(&sample, &bench.path, &[]).unwrap();
    let own = std::fs::read_to_string(bench.path.join("install.yaml")).unwrap();
    let answers = |site: &str| {
        let text = own.replace("/run/cofferdam/medium/", "/run/cofferdam/volume/");
        text.replace("name: site-a", &format!("name: {site}"))
    };
    let on_volume = bench.path.join("volume.yaml");
    std::fs::write(&on_volume, answers("site-of-volume")).unwrap();
    let data = bench.path.join("data.iso");
    let what = ["--bundle", sample.bundle.to_str().unwrap(), "--config", on_volume.as_str()];
    let build = ["iso", "build", "--data-only", "--trust", medium.trust.as_str(), "-o", data.as_str()];
    cofferdam(&[build.as_slice(), &what].concat()).unwrap();
    let by_url = answers("site-of-url");
    let named = |name: &str, digest: &str| {
        let image = bench.path.join(format!("{name}.iso"));
        let url = "cofferdam.config=http://10.0.2.100/rack7.yaml";
        let digest = format!("cofferdam.config.sha256={digest}");
        let arguments = ["--kernel-arg", url, "--kernel-arg", &digest];
        let all = [["iso", "customize", medium.image.as_str(), "-o", image.as_str()].as_slice(), &arguments].concat();
        cofferdam(&all).unwrap();
        image
    };
    let served = bench.path.join("served.yaml");
    std::fs::write(&served, &by_url).unwrap();
    let sum = Command::new("sha256sum").arg(&served).output().unwrap();
    let right = String::from_utf8(sum.stdout).unwrap().split(' ').next().unwrap().to_owned();
    let (mut machine, disk) = bare_machine(&medium, &bench.path).unwrap();
    machine.options_mut().network = Network::Served(server(&bench, &served));

    machine.options_mut().media = vec![named("wrong", &"0".repeat(64)), data.clone()];
    machine.power_on().unwrap();
    machine.wait_for_console(&format!("their SHA-256 is {right}"), BOOT_LIMIT).unwrap();
    machine.wait_for_agent(BOOT_LIMIT).unwrap();
    machine
        .run_ok("! systemctl is-active cofferdam-unattended.service; ! test -e /run/cofferdam/install.yaml", MINUTE)
        .unwrap();
    machine.power_cut().unwrap();
    assert_eq!(File::open(disk.path()).unwrap().metadata().unwrap().blocks(), 0, "something was written to the disk");
    bench.note(&mut machine, "answers with another digest install nothing");

    machine.options_mut().media = vec![named("right", &right), data.clone()];
    installs(&mut machine, "site-of-url");
    bench.note(&mut machine, "answers by URL, the bundle from the second medium");

    machine.options_mut().media = vec![medium.image.clone(), data];
    installs(&mut machine, "site-of-volume");
    bench.note(&mut machine, "answers and bundle from the second medium");
}

/// Starts the live system, which installs with the answers of this site until the bundle is verified and the disk is touched.
fn installs(machine: &mut VirtualMachine, site: &str) {
    appliance::start(machine).unwrap();
    let script = format!(
        "said() {{ journalctl -b -o cat -u cofferdam-seek.service -u cofferdam-unattended.service; }}
        until said | grep -q 'Write the system and verify it'; do
            if systemctl is-failed --quiet cofferdam-seek.service cofferdam-unattended.service; then said; exit 1; fi
            sleep 2
        done
        said
        grep -w {site} /run/cofferdam/install.yaml
        findmnt -no OPTIONS /run/cofferdam/volume | grep -w noexec"
    );
    eprintln!("{}", machine.run_ok(&script, 10 * MINUTE).unwrap());
    machine.power_cut().unwrap();
}

/// A program that gives this file to whoever asks by HTTP.
fn server(bench: &Bench, body: &Utf8Path) -> Utf8PathBuf {
    let program = bench.path.join("server");
    let length = body.metadata().unwrap().len();
    let script = format!(
        "#!/bin/sh\nread -r request\nprintf 'HTTP/1.1 200 OK\\r\\nContent-Length: {length}\\r\\nConnection: close\\r\\n\\r\\n'\n\
         cat {body}\n"
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    program
}
