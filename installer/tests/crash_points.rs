//! An installation that is cut off at any of its effects ends, run again, in the state of one that was not.
//!
//! The host is simulated; the plan, the engine, the steps, the keys, certificates and escrows are the real ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(unreachable_pub, reason = "a test is a crate of its own")]
#![allow(clippy::case_sensitive_file_extension_comparisons, reason = "our own names, all in lower case")]

mod simulated;

use base64::Engine as _;
use installer::config::{self, Encryption};
use installer::engine::event::{Event, Heard};
use installer::engine::question::Unattended;
use installer::engine::{EngineError, Stop};
use installer::layout;
use installer::plan::{self, Plan};
use simulated::appliance::Firmware;
use simulated::installation::{
    PASSPHRASE, PASSPHRASE_FILES, Person, Site, Storage, check_structure, difference, final_state, machine,
};
use simulated::small_bundle::small_bundle;
use simulated::{Crash, SimulatedHost, State, VOLUME};

fn every_crash_point(storage: Storage) {
    every_crash_point_until(storage, usize::MAX);
}

fn every_crash_point_until(storage: Storage, last: usize) {
    let site = Site::new(storage);
    let host = site.host();
    site.run_all(&host, &mut String::new()).unwrap();
    check_structure(&site, &host);
    let (expected, effects) = (final_state(&host.state.borrow()), host.state.borrow().effects.min(last));

    let mut problems = Vec::new();
    for crash in [Crash::PowerBefore, Crash::PowerAfter, Crash::KilledAfter] {
        for effect in 1..=effects {
            let host = site.host();
            host.crash_at(effect, crash);
            let mut events = String::new();
            site.run_all(&host, &mut events).expect_err("the host lost power");
            let last = host.state.borrow().commands.last().cloned().unwrap_or_default();
            let step = events.lines().rev().find(|line| line.contains("step-started")).unwrap_or_default().to_owned();
            let place = format!("{crash:?} at effect {effect} of {effects}, {step}, last command `{last}`");
            host.come_back();
            if let Err(error) = site.run_all(&host, &mut events) {
                problems.push(format!("{place}: {error}"));
                continue;
            }
            let found = final_state(&host.state.borrow());
            if found == expected {
                check_structure(&site, &host);
            } else {
                problems.push(format!("{place}:\n{}", difference(&expected, &found)));
            }
        }
    }
    eprintln!("{} crash points tried ({effects} effects, three ways to crash)", effects * 3);
    assert!(effects > 30, "only {effects} effects");
    assert!(problems.is_empty(), "{} crash points end elsewhere:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn every_crash_point_of_an_encrypted_install_ends_in_the_same_state() {
    every_crash_point(Storage::Escrowed);
}

#[test]
fn every_crash_point_of_a_plain_install_ends_in_the_same_state() {
    every_crash_point(Storage::Plain);
}

#[test]
fn every_crash_point_of_an_appliance_ends_in_the_same_state() {
    every_crash_point(Storage::Appliance);
}

#[test]
fn the_same_answers_give_the_same_plan() {
    for storage in [Storage::Escrowed, Storage::Plain, Storage::Shown, Storage::Appliance] {
        let site = Site::new(storage);
        let again = config::parse(&site.config.to_yaml().unwrap()).unwrap();
        let (index, _) = small_bundle();
        let plan = plan::plan(&again, &machine(storage), &index, &site.plan.index, 1 << 20).unwrap();
        assert_eq!(serde_json::to_vec(&plan).unwrap(), serde_json::to_vec(&site.plan).unwrap());
        let stored: Plan = serde_json::from_slice(&serde_json::to_vec(&plan).unwrap()).unwrap();
        assert_eq!(stored, site.plan);
    }
}

#[test]
fn every_crash_point_of_an_install_that_shows_its_key_ends_in_the_same_state() {
    // Behind the data volume this is the installation with an escrow, whose every crash point is tried above.
    let site = Site::new(Storage::Shown);
    let host = site.host();
    let mut last = 0;
    site.engine(&host, &Person::at(&host), &Stop::default())
        .run(&mut |event| {
            if matches!(event, Event::StepFinished { id, .. } if id == "data.mount") {
                last = host.state.borrow().effects;
            }
        })
        .unwrap();
    every_crash_point_until(Storage::Shown, last);
}

/// A key that was on the screen when the machine crashed opens nothing any more; the next attempt shows a new one.
#[test]
fn a_crash_in_the_middle_of_the_ceremony_means_a_new_key_and_a_new_ceremony() {
    let site = Site::new(Storage::Shown);
    let uninterrupted = site.host();
    site.run(&uninterrupted, &mut String::new()).unwrap();
    for crash in [Crash::PowerBefore, Crash::PowerAfter, Crash::KilledAfter] {
        let host = site.host();
        let person = Person::at(&host);
        person.crash.set(Some(crash));
        let mut events = String::new();
        site.run_with(&host, &person, &Stop::default(), &mut events).expect_err("it crashed");
        host.come_back();
        site.run_with(&host, &person, &Stop::default(), &mut events).unwrap();
        let written = person.written.borrow();
        assert_eq!(written.len(), 2, "{crash:?}: the key was shown {} times", written.len());
        assert_ne!(written[0], written[1], "{crash:?}");
        let state = host.state.borrow();
        assert_eq!(state.luks.as_ref().unwrap().key, written[1].as_bytes(), "{crash:?}");
        assert_eq!(final_state(&state), final_state(&uninterrupted.state.borrow()), "{crash:?}");
        // Once it is done, nobody is asked again.
        drop(state);
        site.run_with(&host, &person, &Stop::default(), &mut events).unwrap();
        assert_eq!(person.written.borrow().len(), 2);
        for key in written.iter() {
            assert!(key.split('-').all(|group| !events.contains(group)), "the events hold a part of the key");
        }
    }
}

#[test]
fn a_key_that_nobody_wrote_down_guards_nothing() {
    let site = Site::new(Storage::Shown);
    let host = site.host();
    let mut events = String::new();
    let error = site.run_with(&host, &Unattended, &Stop::default(), &mut events).unwrap_err();
    assert!(error.to_string().contains("nobody wrote down the recovery key"), "{error}");
    assert!(error.hint().contains("cofferdam resume"), "{}", error.hint());
    assert!(events.contains(r#""code":"unanswered""#), "{events}");
    assert!(!host.state.borrow().filesystem, "the volume was made use of");

    // A person who stops at the question is no failure; the next run asks again.
    let leaves = Person { wants_to_stop: true, ..Person::at(&host) };
    let error = site.run_with(&host, &leaves, &Stop::default(), &mut events).unwrap_err();
    assert!(matches!(&error, EngineError::Stopped { next } if next == "disk.encrypt"), "{error}");
    assert!(!host.state.borrow().filesystem);
    site.run(&host, &mut events).unwrap();
}

/// What was typed on the pages stands in memory: it goes when the disk has it, and a power cut before that is told.
#[test]
fn a_typed_passphrase_is_kept_until_the_disk_has_it() {
    let mut site = Site::new(Storage::Escrowed);
    let Encryption::Luks2 { passphrase: Some(source), .. } = &mut site.config.storage.encryption else {
        panic!("LUKS")
    };
    source.file = layout::PASTED_PASSPHRASE.into();
    site.plan = plan::plan(&site.config, &machine(site.storage), &site.index, &site.plan.index, 1 << 20).unwrap();
    let typed =
        |host: &SimulatedHost| host.state.borrow_mut().put(layout::PASTED_PASSPHRASE, PASSPHRASE.as_bytes(), 0o600);
    let host = site.host();
    typed(&host);
    site.run(&host, &mut String::new()).unwrap();
    check_structure(&site, &host);
    let expected = final_state(&host.state.borrow());
    let effects = host.state.borrow().effects;
    let (mut told, mut kept) = (0, 0);
    for crash in [Crash::PowerBefore, Crash::PowerAfter, Crash::KilledAfter] {
        for effect in 1..=effects {
            let host = site.host();
            typed(&host);
            host.crash_at(effect, crash);
            site.run(&host, &mut String::new()).expect_err("the host lost power");
            host.come_back();
            kept += usize::from(host.state.borrow().has(layout::PASTED_PASSPHRASE));
            let mut ended = site.run(&host, &mut String::new());
            if let Err(error) = &ended {
                assert!(error.to_string().contains("there is no file /run/cofferdam/pasted/passphrase"), "{error}");
                assert!(error.hint().contains("cofferdam resume"), "{}", error.hint());
                told += 1;
                typed(&host);
                ended = site.run(&host, &mut String::new());
            }
            ended.unwrap_or_else(|error| panic!("{crash:?} at effect {effect}: {error}"));
            check_structure(&site, &host);
            assert!(
                !host.state.borrow().has(layout::PASTED_PASSPHRASE),
                "{crash:?} at effect {effect}: it is still there"
            );
            let found = final_state(&host.state.borrow());
            assert!(found == expected, "{crash:?} at effect {effect}:\n{}", difference(&expected, &found));
        }
    }
    assert!(told > 10 && kept > 10, "{told} were told, {kept} still had it");
}

/// The volume of an interrupted installation is kept for the same answers alone.
#[test]
fn an_appliance_is_made_anew_for_another_passphrase() {
    let site = Site::new(Storage::Appliance);
    let host = site.host();
    let other = "another horse battery";
    for (passphrase, volumes) in [(PASSPHRASE, 1), (PASSPHRASE, 1), (other, 2)] {
        let is_it = |(path, _): &&mut (String, Vec<u8>)| path == PASSPHRASE_FILES[1];
        let mut state = host.state.borrow_mut();
        state.appliance.as_mut().unwrap().answers.iter_mut().find(is_it).unwrap().1 = passphrase.as_bytes().to_vec();
        drop(state);
        // The live system starts anew with these answers, and is stopped once the volume is in use.
        host.crash_now(Crash::PowerBefore);
        host.come_back();
        let stop = Stop::default();
        let engine = site.engine(&host, &Unattended, &stop);
        let listen = &mut |event: &Event| {
            if matches!(event, Event::StepStarted { id, .. } | Event::StepSkipped { id, .. } if id == "bundle.load") {
                stop.request();
            }
        };
        assert!(matches!(engine.run(listen), Err(EngineError::Stopped { .. })));
        let state = host.state.borrow();
        let luks = state.luks.as_ref().unwrap();
        assert!(luks.uuid.ends_with(&volumes.to_string()), "{} for {passphrase}", luks.uuid);
        assert_eq!(luks.passphrase.as_ref().unwrap().1, passphrase.as_bytes());
    }
}

/// A TPM that does not open what was just bound to it holds up the installation; the next start goes on.
#[test]
fn a_start_that_was_measured_otherwise_is_told() {
    for storage in [Storage::Escrowed, Storage::Appliance] {
        let site = Site::new(storage);
        let host = site.host();
        host.state.borrow_mut().is_measured_otherwise = true;
        let error = site.run(&host, &mut String::new()).unwrap_err();
        assert!(error.to_string().contains("the TPM does not open the volume that was just bound to it"), "{error}");
        assert!(error.hint().contains("start the machine again"), "{}", error.hint());
        assert!(!host.state.borrow().filesystem, "the volume was made use of");
        host.state.borrow_mut().is_measured_otherwise = false;
        host.crash_now(Crash::PowerBefore);
        host.come_back();
        site.run_all(&host, &mut String::new()).unwrap();
        check_structure(&site, &host);
    }
}

/// Whatever the firmware thinks of boot entries, the appliance is installed; what the operator has to do is told.
#[test]
fn a_firmware_that_takes_no_boot_entry_is_told() {
    let site = Site::new(Storage::Appliance);
    for (firmware, told) in [
        (Firmware::Keeps, None),
        (
            Firmware::Full,
            Some("the firmware takes no boot entry (Could not prepare Boot variable: No space left on device)"),
        ),
        (Firmware::KeepsNone, Some("the firmware keeps no boot entries")),
    ] {
        let host = site.host();
        host.state.borrow_mut().appliance.as_mut().unwrap().firmware = firmware;
        let mut events = String::new();
        site.run_all(&host, &mut events).unwrap();
        check_structure(&site, &host);
        match told {
            None => assert!(!events.contains("take the medium out"), "{events}"),
            Some(told) => {
                assert!(events.contains(&format!("{told}: take the medium out before the restart")), "{events}");
            }
        }
        let is_preferred = host.state.borrow().appliance.as_ref().unwrap().is_preferred;
        assert_eq!(is_preferred, firmware == Firmware::Keeps);
    }
}

/// A wish to stop is heard between any two steps; a run that was stopped goes on where it was.
#[test]
fn a_run_stops_between_steps_and_goes_on() {
    let site = Site::new(Storage::Escrowed);
    let uninterrupted = site.host();
    site.run(&uninterrupted, &mut String::new()).unwrap();
    for (position, step) in site.plan.steps.iter().enumerate() {
        let host = site.host();
        let stop = Stop::default();
        let engine = site.engine(&host, &Unattended, &stop);
        // In the middle of the step before this one.
        let before = position.checked_sub(1).map(|before| site.plan.steps[before].id.clone());
        let mut heard = Vec::new();
        let error = engine
            .run(&mut |event| {
                heard.push(event.clone());
                let is_there = match event {
                    Event::Started { .. } => before.is_none(),
                    Event::StepStarted { id, .. } | Event::StepSkipped { id, .. } => before.as_ref() == Some(id),
                    _ => false,
                };
                if is_there {
                    stop.request();
                }
            })
            .unwrap_err();
        assert!(matches!(&error, EngineError::Stopped { next } if *next == step.id), "{}: {error}", step.id);
        assert_eq!(heard.last(), Some(&Event::Stopped { next: step.id.clone() }));
        site.run(&host, &mut String::new()).unwrap();
        let (found, expected) = (final_state(&host.state.borrow()), final_state(&uninterrupted.state.borrow()));
        assert!(found == expected, "{}:\n{}", step.id, difference(&expected, &found));
    }
}

#[test]
fn a_plan_and_a_journal_hold_no_secret() {
    for storage in [Storage::Escrowed, Storage::Shown] {
        nothing_holds_a_secret(&Site::new(storage));
    }
}

fn nothing_holds_a_secret(site: &Site) {
    let host = site.host();
    let mut events = String::new();
    site.run(&host, &mut events).unwrap();
    let journal = host.seen_text(layout::JOURNAL);
    let recorded = host.seen_text(layout::EVENTS);
    assert!(recorded.lines().filter_map(Heard::parse).count() > 40, "{recorded}");
    let state = host.state.borrow();
    let secrets = secrets(&state);
    assert!(secrets.len() > 20, "{} secrets", secrets.len());
    let plan = serde_json::to_string(&site.plan).unwrap();
    let commands = state.commands.join("\n");
    let record = state.text(layout::STATE).unwrap();
    for (name, text) in [
        ("plan", plan.as_str()),
        ("plan as text", &site.plan.to_text()),
        ("journal", &journal),
        ("events", &events),
        ("events file", &recorded),
        ("commands", &commands),
        ("state", &record),
    ] {
        assert!(text.len() > 100, "{name}");
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "the {name} holds a secret");
        }
    }
    // What lies on the unencrypted root filesystem.
    let is_theirs = |path: &str| PASSPHRASE_FILES.contains(&path);
    for (path, node) in state.nodes.iter().filter(|(path, _)| !path.starts_with(VOLUME) && !is_theirs(path)) {
        let text = String::from_utf8_lossy(node.content.as_deref().unwrap_or_default());
        assert!(secrets.iter().all(|secret| !text.contains(secret.as_str())), "{path} holds a secret");
    }
}

/// The recovery key, the lines of private keys, the encryption key and the values of generated Secrets.
fn secrets(state: &State) -> Vec<String> {
    let mut secrets = vec![String::from_utf8(state.luks.as_ref().unwrap().key.clone()).unwrap(), PASSPHRASE.to_owned()];
    for (path, node) in &state.nodes {
        let text = String::from_utf8_lossy(node.content.as_deref().unwrap_or_default()).into_owned();
        if path.ends_with(".key") {
            // The first line of an EC key's DER is the same for all keys; the second is the key.
            secrets.extend(
                text.lines()
                    .filter(|line| !line.starts_with('-'))
                    .skip(usize::from(text.contains("BEGIN")))
                    .map(str::to_owned),
            );
        }
        if path.ends_with("encryption.yaml") {
            let line = text.lines().find_map(|line| line.trim().strip_prefix("secret: ")).unwrap();
            secrets.push(line.to_owned());
        }
    }
    for (name, (_, object)) in state.objects.iter().filter(|(name, _)| name.starts_with("secret/")) {
        for (key, value) in object["data"].as_object().unwrap() {
            if key.ends_with(".crt") || key.ends_with(".pub") || name.ends_with("site-certificate") {
                continue;
            }
            let value = value.as_str().unwrap();
            let decoded = base64::engine::general_purpose::STANDARD.decode(value).unwrap();
            secrets.push(value.to_owned());
            secrets.extend(String::from_utf8(decoded));
        }
    }
    secrets
}
