//! The keys of the data volume are changed by the real cryptsetup on a real LUKS2 header, and the power fails at each effect.
//!
//! Only the TPM is a model: its token is a real one in the header, and it opens its slot while the machine has that TPM.
//! Needs root, since a copy of a header is readable for root alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(unreachable_pub, dead_code, reason = "a test is a crate of its own")]

mod bench;

use bench::{Bench, DEVICE, Escrow, PASSPHRASE, PASSPHRASE_FILE, Person};
use certs::RecoveryKey;
use installer::disk::{self, Key, Volume};
use installer::engine::question::Unattended;
use installer::host::HostExt as _;
use installer::step::StepError;
use installer::upgrade::audit;
use serde_json::json;

/// Crashes before and after each effect of `act` on a new machine, judges what is there then, runs it again and judges that.
fn at_each_effect(
    escrow: Escrow,
    prepare: &dyn Fn(&Bench),
    act: &dyn Fn(&Bench) -> Result<(), StepError>,
    cut: &dyn Fn(&Bench),
    whole: &dyn Fn(&Bench),
) -> usize {
    let site = Bench::new(escrow);
    let bench = site.copy();
    prepare(&bench);
    act(&bench).unwrap();
    whole(&bench);
    let effects = bench.effects.get();
    for effect in 1..=effects {
        for is_before in [true, false] {
            let bench = site.copy();
            prepare(&bench);
            bench.crash.set(Some((effect, is_before)));
            act(&bench).unwrap_err();
            bench.come_back();
            cut(&bench);
            act(&bench).unwrap_or_else(|error| panic!("effect {effect}, before: {is_before}: {error}"));
            whole(&bench);
        }
    }
    effects
}

#[test]
fn a_rotation_that_is_cut_off_anywhere_leaves_an_escrow_that_opens() {
    let an_escrow_opens = |bench: &Bench| {
        let opens = |place: &String| bench.opens(DEVICE, &bench.escrowed(place).0);
        assert!(bench.escrows().iter().any(opens), "{}", bench.header());
        assert!(bench.opens_by_tpm());
    };
    // The TPM vouches where a late crash left the old key without its slot; nothing is asked then.
    let act = |bench: &Bench| bench.rotate(!bench.opens(DEVICE, &bench.old()), &Unattended);
    let effects = at_each_effect(Escrow::Sealed, &|_| {}, &act, &an_escrow_opens, &Bench::has_rotated);
    assert!(effects > 15, "{effects}");
}

#[test]
fn a_key_that_is_shown_replaces_the_old_one_when_it_was_written_down() {
    let person = Person::default();
    let act = |bench: &Bench| bench.rotate(true, &person);
    let on_paper = |bench: &Bench| {
        let opens = |key: &Vec<u8>| bench.opens(DEVICE, key);
        assert!(opens(&bench.old()) || person.0.borrow().last().is_some_and(opens));
    };
    let whole = |bench: &Bench| {
        bench.is_tidy(true);
        assert!(!bench.opens(DEVICE, &bench.old()));
        on_paper(bench);
    };
    at_each_effect(Escrow::Shown, &|_| {}, &act, &on_paper, &whole);

    let bench = Bench::new(Escrow::Shown);
    let before = bench.header()["keyslots"].clone();
    bench.rotate(true, &Unattended).unwrap_err();
    assert_eq!(bench.header()["keyslots"], before, "nobody wrote it down, and nothing is left of it");
    bench.is_tidy(false);
}

#[test]
fn a_rebinding_that_is_cut_off_anywhere_ends_with_one_tpm() {
    let key = |bench: &Bench| bench.old_key.expose().to_string();
    let act = |bench: &Bench| bench.rebind(&key(bench));
    let recovery_opens = |bench: &Bench| assert!(bench.opens(DEVICE, &bench.old()));
    let whole = |bench: &Bench| {
        bench.is_tidy(false);
        recovery_opens(bench);
        assert!(!bench.opens(DEVICE, b"tpm 1 seals 1"), "the old binding still opens");
    };
    let effects = at_each_effect(Escrow::Sealed, &|bench| bench.tpm.set(2), &act, &recovery_opens, &whole);
    assert!(effects >= 8, "{effects}");

    // A second crash, after a first one when the old slot was gone already.
    let late = |bench: &Bench| {
        bench.tpm.set(2);
        bench.crash.set(Some((effects - 2, false)));
        act(bench).unwrap_err();
        bench.come_back();
        assert!(!bench.opens(DEVICE, b"tpm 1 seals 1"), "the first crash comes too early to be of use");
        bench.effects.set(0);
    };
    at_each_effect(Escrow::Sealed, &late, &act, &recovery_opens, &whole);

    // After a rotation the key in the escrow does it, and the recovery key's slot is the one that stays.
    let bench = Bench::new(Escrow::Sealed);
    bench.rotate(true, &Unattended).unwrap();
    bench.tpm.set(2);
    bench.rebind(&key(&bench)).unwrap_err();
    let escrowed = String::from_utf8(bench.escrowed(&bench.escrows()[0]).0).unwrap();
    bench.rebind(&escrowed).unwrap();
    bench.has_rotated();
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    let bench = Bench::new(Escrow::Sealed);
    let right = bench.old_key.expose().to_string();
    let wrong = RecoveryKey::generate().unwrap().expose().to_string();
    let before = bench.header();
    assert!(bench.rebind(&wrong).unwrap_err().to_string().contains("does not open"));
    bench.is_locked_out.set(true);
    assert!(bench.rebind(&right).unwrap_err().to_string().contains("lockout"));
    bench.is_locked_out.set(false);
    assert_eq!(bench.header(), before);

    bench.tpm.set(2);
    assert!(bench.rotate(true, &Unattended).unwrap_err().to_string().contains("the TPM does not open"));
    assert_eq!(bench.header(), before);

    bench.tpm.set(1);
    bench.tpm_is_broken.set(true);
    assert!(bench.rebind(&right).unwrap_err().to_string().contains("systemd-cryptenroll"));
    assert_eq!(bench.header()["keyslots"], before["keyslots"]);
    assert_eq!(bench.header()["tokens"], before["tokens"], "the old binding is as it was");
    assert!(bench.opens_by_tpm());

    let records = audit::records(&bench).unwrap();
    assert!(records.iter().any(|record| record.action == "disk.rebind" && record.result == "failed"));
}

/// The volume that `disk.encrypt` makes, cut off anywhere: the next attempt ends with the slots of the plan.
#[test]
fn an_encryption_that_is_cut_off_anywhere_ends_with_the_planned_slots() {
    let whole = Bench::empty(Escrow::Sealed);
    whole.install(&Unattended).unwrap();
    let effects = whole.effects.get();
    // After one effect is before the next.
    for effect in (1..=effects).step_by(2) {
        for is_before in [true, false] {
            let bench = Bench::empty(Escrow::Sealed);
            bench.crash.set(Some((effect, is_before)));
            bench.install(&Unattended).unwrap_err();
            bench.come_back();
            bench.install(&Unattended).unwrap_or_else(|error| panic!("effect {effect}, before: {is_before}: {error}"));
            for (path, content) in [("keyslots", 3), ("tokens", 3)] {
                assert_eq!(bench.header()[path].as_object().unwrap().len(), content, "{}", bench.header());
            }
            assert!(bench.opens(DEVICE, PASSPHRASE.as_bytes()) && bench.opens_by_tpm());
            let (key, header) = bench.escrowed(&bench.escrows()[0]);
            assert!(bench.opens(DEVICE, &key));
            let header = header.unwrap();
            std::fs::create_dir_all(bench.place("/other")).unwrap();
            std::fs::write(bench.place("/other/header"), header).unwrap();
            assert!(bench.opens("/other/header", PASSPHRASE.as_bytes()), "the escrowed header lacks the passphrase");
        }
    }
    assert!(effects > 10, "{effects}");
}

#[test]
fn without_its_passphrase_no_disk_is_erased() {
    let table = [("", "at least 15 characters"), ("hunter2\n", "at least 15 characters")];
    for (content, expected) in table {
        let bench = Bench::empty(Escrow::Sealed);
        std::fs::write(bench.place(PASSPHRASE_FILE), content).unwrap();
        let error = bench.install(&Unattended).unwrap_err();
        assert!(error.to_string().contains(expected) && !error.to_string().contains("hunter2"), "{error}");
        std::fs::remove_file(bench.place(PASSPHRASE_FILE)).unwrap();
        let error = bench.install(&Unattended).unwrap_err();
        assert!(error.to_string().contains("there is no file"), "{error}");
        assert!(std::fs::read(bench.place(DEVICE)).unwrap().iter().all(|byte| *byte == 0), "something was written");
    }
}

/// The passphrase opens the volume for a rotation, is not taken for the recovery key, and survives it.
#[test]
fn the_passphrase_unlocks_a_rotation_and_survives_it() {
    let bench = Bench::new(Escrow::Sealed);
    let text = bench.read_text(PASSPHRASE_FILE.into()).unwrap().unwrap();
    let volume = Volume::of(&bench).unwrap();
    let mut ask = || Ok(Key::read(&text));
    let rotate = || disk::rotate(&volume, &mut ask, &Unattended, &mut |_| {});
    disk::audited(&volume, "root", "disk.rotate-recovery", rotate).unwrap();
    bench.has_rotated();
    bench.tpm.set(2);
    bench.rebind(PASSPHRASE).unwrap();
    bench.has_rotated();
    assert_eq!(
        bench.header()["tokens"]
            .as_object()
            .unwrap()
            .values()
            .filter(|token| token["keyslots"] == json!(["2"]))
            .count(),
        1
    );
}
