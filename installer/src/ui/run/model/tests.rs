//! Any events in any order: nothing panics, the share never shrinks, the time left never grows within a run.
#![allow(clippy::unwrap_used, clippy::panic)]

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::ui::run::tests::sample_plan;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_millis(milliseconds)
}

fn started() -> Event {
    Event::Started { site: "rack7".to_owned(), steps: 0, weight: 0 }
}

fn step_started(id: &str) -> Event {
    Event::StepStarted { id: id.to_owned(), title: id.to_owned(), number: 1, of: 1 }
}

fn finished(id: &str, milliseconds: u64) -> Event {
    Event::StepFinished { id: id.to_owned(), title: id.to_owned(), number: 1, milliseconds }
}

fn progress(id: &str, progress: Progress) -> Event {
    Event::StepProgress { id: id.to_owned(), progress }
}

fn failed(id: &str, again: bool) -> Event {
    Event::StepFailed {
        id: id.to_owned(),
        title: id.to_owned(),
        code: "command-failed".to_owned(),
        error: "no".to_owned(),
        hint: None,
        attempt: 1,
        again,
    }
}

#[test]
fn bytes_have_a_rate_and_things_are_counted() {
    let plan = sample_plan();
    let mut run = Run::new(&plan, at(0));
    run.hear(at(0), &started());
    run.hear(at(0), &step_started("bundle.load"));
    for second in 1..=20_u32 {
        let done = u64::from(second) * 5_000_000;
        let blobs = Some(Count { done: second as usize, total: 40 });
        run.hear(
            at(i64::from(second) * 1000),
            &progress("bundle.load", Progress::Bytes { done, total: 200_000_000, blobs }),
        );
    }
    let current = run.current.as_ref().unwrap();
    let Some(Work::Bytes { rate, blobs, .. }) = &current.work else { panic!("{current:?}") };
    assert_eq!((*rate, blobs.unwrap().done), (5_000_000, 20));
    assert!(run.estimate.left().unwrap() > 20_000, "{:?}", run.estimate);
    // A load that was killed begins anew: no rate out of thin air.
    run.hear(at(21_000), &progress("bundle.load", Progress::Bytes { done: 1000, total: 200_000_000, blobs: None }));
    let Some(Work::Bytes { rate, .. }) = &run.current.as_ref().unwrap().work else { panic!("no bytes") };
    assert_eq!(*rate, 47, "1000 bytes since the step began");
}

#[test]
fn silence_is_told_after_a_minute_and_ends_with_the_next_word() {
    let mut run = Run::new(&sample_plan(), at(0));
    run.tick(at(600_000));
    assert_eq!(run.silence(), None, "nothing began");
    run.hear(at(600_000), &started());
    run.hear(at(601_000), &step_started("disk.encrypt"));
    run.tick(at(660_999));
    assert_eq!(run.silence(), None);
    run.tick(at(661_000));
    assert_eq!(run.silence(), Some(60_000));
    run.hear(at(662_000), &progress("disk.encrypt", Progress::Note { text: "formatting".to_owned() }));
    assert_eq!((run.silence(), run.log.back().unwrap().text.as_str()), (None, "disk.encrypt: formatting"));
}

#[test]
fn a_retry_keeps_what_was_done_and_measures_anew() {
    let mut run = Run::new(&sample_plan(), at(0));
    run.hear(at(0), &started());
    for (second, id) in [(1, "host.prepare"), (2, "disk.encrypt")] {
        run.hear(at(second * 1000), &step_started(id));
        run.hear(at(second * 1000 + 900), &finished(id, 900));
    }
    run.hear(at(3000), &step_started("data.mount"));
    run.hear(at(4000), &failed("data.mount", false));
    assert!(matches!(&run.outcome, Outcome::Failed(failure) if failure.step == "data.mount"));
    assert_eq!(run.steps[2].state, StepState::Failed);
    let (share, elapsed) = (run.estimate.permille(), run.elapsed());
    run.tick(at(900_000));
    assert_eq!(run.elapsed(), elapsed, "time stands still while nothing runs");
    run.hear(at(900_000), &started());
    run.hear(at(900_000), &Event::StepSkipped { id: "host.prepare".to_owned(), title: String::new(), number: 1 });
    assert_eq!(run.steps[0].state, StepState::Finished(900), "the time it took is kept");
    assert_eq!((run.estimate.permille(), run.estimate.left()), (share, None));
}

#[test]
fn what_a_command_printed_stays_on_its_line() {
    let mut run = Run::new(&sample_plan(), at(0));
    run.hear(at(0), &progress("x", Progress::Note { text: "a\u{1b}[2J\nb".to_owned() }));
    assert_eq!(run.log.back().unwrap().text, "x: a [2J b");
    for _ in 0..3000 {
        run.hear(at(0), &started());
    }
    assert_eq!(run.log.len(), LOG_LIMIT);
}

fn any_event() -> impl Strategy<Value = Event> {
    let ids: Vec<String> =
        sample_plan().steps.iter().map(|step| step.id.clone()).chain(["no.such.step".to_owned()]).collect();
    let id = prop::sample::select(ids);
    let number = prop_oneof![Just(0_u64), 1..1000_u64, Just(u64::MAX), any::<u64>()];
    prop_oneof![
        1 => Just(started()),
        8 => id.clone().prop_map(|id| step_started(&id)),
        8 => (id.clone(), number.clone()).prop_map(|(id, took)| finished(&id, took)),
        3 => id.clone().prop_map(|id| Event::StepSkipped { id, title: String::new(), number: 0 }),
        2 => (id.clone(), any::<bool>()).prop_map(|(id, again)| failed(&id, again)),
        8 => (id.clone(), number.clone(), number.clone()).prop_map(|(id, done, total)| {
            progress(&id, Progress::Bytes { done, total, blobs: Some(Count { done: 1, total: 0 }) })
        }),
        4 => (id.clone(), any::<usize>(), any::<usize>()).prop_map(|(id, done, total)| {
            progress(&id, Progress::Items { done, total, item: "x".repeat(300) })
        }),
        4 => id.clone().prop_map(|id| progress(&id, Progress::Note { text: String::new() })),
        1 => (number.clone(), number).prop_map(|(weight, total)| Event::Overall { weight, total }),
        1 => id.prop_map(|next| Event::Stopped { next }),
        1 => Just(Event::Finished { site: String::new() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn neither_figure_goes_back_and_nothing_panics(
        events in prop::collection::vec((any_event(), -2000..60_000_i64), 1..120),
    ) {
        let mut run = Run::new(&sample_plan(), at(0));
        let (mut share, mut left, mut clock) = (0, None, 0);
        for (event, later) in events {
            // Clocks are set back at times.
            clock += later;
            if matches!(event, Event::Started { .. }) {
                left = None;
            }
            run.hear(at(clock), &event);
            run.tick(at(clock + 10));
            prop_assert!(run.estimate.permille() >= share, "{} after {share}", run.estimate.permille());
            prop_assert!(run.estimate.permille() < 1000 || run.outcome == Outcome::Finished || share == 1000);
            if let (Some(before), Some(now)) = (left, run.estimate.left()) {
                prop_assert!(now <= before, "{now} after {before}");
            }
            share = run.estimate.permille();
            left = run.estimate.left().or(left);
            prop_assert!(run.steps.iter().filter(|step| step.state == StepState::Running).count() <= 1);
        }
    }
}
