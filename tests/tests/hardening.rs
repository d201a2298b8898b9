//! What independent scanners say about the installed appliance.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use camino::Utf8PathBuf;
use tests::appliance::{self, ApplianceMedium, bare_machine};
use tests::hardening::{Exceptions, PROFILES, ScannerDisk, Verdict, lynis, openscap};
use tests::sample;
use tests::virtual_machine::BOOT_LIMIT;

/// Of the first profile, in tenths of a percent.
const LEAST_CIS: usize = 930;
/// Of lynis.
const LEAST_LYNIS: u32 = 80;
const MINUTE: Duration = Duration::from_mins(1);

/// The appliance is installed from its medium and serves its registry; then its installation is held, since a cluster that
/// comes up would leave the scanners no processor. They judge the running kernel and the real files.
#[test]
#[ignore = "slow: an installation, three profiles and lynis in a processor made in software"]
fn slow_scanners_find_nothing_new_in_the_installed_system() {
    let exceptions = Exceptions::read().unwrap();
    let scanners = ScannerDisk::make().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
    let sample = sample::make(path.join("sample").as_std_path()).unwrap();
    let medium = ApplianceMedium::build(&sample, &path, &[]).unwrap();
    let (mut machine, _disk) = bare_machine(&medium, &path).unwrap();
    appliance::install(&mut machine, &mut |text| eprint!("{text}")).unwrap();
    scanners.attach(&mut machine, &path).unwrap();
    machine.power_on().unwrap();
    machine.wait_for_agent(BOOT_LIMIT).unwrap();
    eprintln!("{}", machine.run_ok(&appliance::follow_until(appliance::SERVES), 8 * MINUTE).unwrap());
    let hold = "systemctl stop cofferdam-continue.service; systemctl reset-failed; systemctl is-system-running --wait";
    assert_eq!(machine.run_ok(hold, 5 * MINUTE).unwrap().trim(), "running");
    ScannerDisk::mount(&mut machine).unwrap();
    // First: it asks whether the clock was set within the last half hour, which the start counts as.
    let lynis = lynis(&mut machine).unwrap();

    let mut figures = String::new();
    let mut first = None;
    let mut open: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for profile in PROFILES {
        let outcome = openscap(&mut machine, profile).unwrap();
        let (share, pass, fail) = (outcome.per_mille(), outcome.count("pass"), outcome.count("fail"));
        let line = format!("{}: {}.{} %, {pass} of {} rules\n", profile.name, share / 10, share % 10, pass + fail);
        eprint!("{line}");
        figures.push_str(&line);
        first.get_or_insert(share);
        for rule in outcome.open() {
            open.entry(rule).or_default().insert(profile.name);
        }
    }
    eprintln!("\n{}{figures}lynis: {} of 100\n", scanners.versions, lynis.index);
    for (rule, profiles) in &open {
        let reason = exceptions.openscap.get(rule).map_or("NEW", String::as_str);
        eprintln!("{rule} ({}): {reason}", profiles.iter().copied().collect::<Vec<_>>().join("; "));
    }
    for (test, text) in &lynis.findings {
        let reason = exceptions.lynis.get(test).map_or("NEW", String::as_str);
        eprintln!("{test} ({text}): {reason}");
    }
    let rules = Verdict::of(&open.into_keys().collect(), &exceptions.openscap);
    let tests = Verdict::of(&lynis.findings.into_keys().collect(), &exceptions.lynis);
    assert!(rules.is_good() && tests.is_good(), "OpenSCAP: {rules:#?}\nlynis: {tests:#?}");
    assert!(first >= Some(LEAST_CIS), "{figures}");
    assert!(lynis.index >= LEAST_LYNIS, "lynis: {}", lynis.index);
}
