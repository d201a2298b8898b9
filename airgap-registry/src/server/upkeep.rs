//! What the server does by itself: hashing all blobs again, collecting garbage, and following another registry.
//!
//! Invariant: all go on beside requests, at a bounded rate, and end soon after the server is asked to. What they do is
//! in the audit log. Started by the server once it listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bundle::keys::TrustedKeys;

use super::{Service, metrics};
use crate::error::{Error, Result};
use crate::peer::{self, Peer, SyncOptions, SyncReport};
use crate::store::{GcOptions, RepairSource, ScrubStep};

/// How long after the start the first pass and the first collection wait: a start has better things to do.
const QUIET: Duration = Duration::from_mins(10);
/// How often a waiting thread looks whether it is to end.
const NAP: Duration = Duration::from_millis(200);

/// The threads; dropping it asks them to end and waits for that.
pub(crate) struct Upkeep {
    end: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Upkeep {
    pub(crate) fn start(service: &Arc<Service>) -> Self {
        let mut upkeep = Self { end: Arc::default(), threads: Vec::new() };
        if service.config.scrub.mib_per_second > 0 {
            upkeep.spawn("scrub", service, scrub);
        }
        if service.config.garbage.every_hours > 0 {
            upkeep.spawn("gc", service, collect);
        }
        if service.config.peers.as_ref().is_some_and(|peers| peers.follow.is_some()) {
            upkeep.spawn("follow", service, follow);
        }
        upkeep
    }

    fn spawn(&mut self, name: &str, service: &Arc<Service>, work: fn(&Service, &AtomicBool)) {
        let (service, end) = (Arc::clone(service), Arc::clone(&self.end));
        match std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&service, &end)) {
            Ok(thread) => self.threads.push(thread),
            Err(error) => tracing::error!(%error, name, "cannot start a thread"),
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the upkeep failed");
            }
        }
    }
}

/// Sleeps; `false` when it is time to end.
fn wait(duration: Duration, end: &AtomicBool) -> bool {
    let start = Instant::now();
    while start.elapsed() < duration {
        if end.load(Ordering::Acquire) {
            return false;
        }
        std::thread::sleep(NAP.min(duration));
    }
    !end.load(Ordering::Acquire)
}

fn scrub(service: &Service, end: &AtomicBool) {
    let config = &service.config.scrub;
    let pause = Duration::from_secs(config.pause_hours * 3600);
    let mut next = if config.pause_hours == 0 { Duration::ZERO } else { QUIET };
    while wait(next, end) {
        next = pause.max(NAP);
        if let Err(error) = pass(service, end) {
            tracing::error!(%error, hint = error.hint().unwrap_or_default(), "checking the blobs failed");
        }
    }
}

/// One pass over all blobs.
fn pass(service: &Service, end: &AtomicBool) -> Result<()> {
    let keep_going = || !end.load(Ordering::Acquire);
    let mut scrubber = service.store.scrub(service.config.scrub.mib_per_second << 20)?;
    let mut damaged = Vec::new();
    while keep_going() {
        match scrubber.step(&keep_going)? {
            ScrubStep::Good { bytes } => metrics::add(&service.metrics.scrubbed, bytes),
            ScrubStep::Damaged { digest, bytes } => {
                metrics::add(&service.metrics.scrubbed, bytes);
                metrics::add(&service.metrics.damaged, 1);
                tracing::error!(
                    target: "cofferdam::audit",
                    who = "scrub", action = "quarantine", %digest,
                    hint = "load the bundle again, or run `cofferdam registry fsck --repair-from`",
                    "a blob was damaged and was taken away"
                );
                damaged.push(digest);
            }
            ScrubStep::PassDone => {
                metrics::add(&service.metrics.scrub_passes, 1);
                break;
            }
        }
    }
    if damaged.is_empty() {
        return Ok(());
    }
    let report = service.store.repair(&damaged, &repair_sources(service)?)?;
    metrics::add(&service.metrics.repaired, report.repaired.len() as u64);
    for digest in report.repaired {
        tracing::info!(target: "cofferdam::audit", who = "scrub", action = "repair", %digest, "a blob was put back");
    }
    Ok(())
}

/// The bundles of the configuration that are there at the moment: a medium may be away.
fn repair_sources(service: &Service) -> Result<Vec<RepairSource>> {
    let config = &service.config.scrub;
    let there = config.repair_from.iter().filter(|bundle| bundle.is_file());
    there
        .map(|bundle| {
            let trust = TrustedKeys::load(&config.trust.iter().collect::<Vec<_>>())
                .map_err(|error| Error::Repair { bundle: bundle.clone(), why: error.to_string() })?;
            Ok(RepairSource { bundle: bundle.clone(), trust })
        })
        .collect()
}

fn collect(service: &Service, end: &AtomicBool) {
    let config = &service.config.garbage;
    let options = GcOptions {
        dry_run: false,
        grace: Duration::from_secs(config.grace_hours * 3600),
        keep_bundles: config.keep_bundles,
    };
    let mut next = QUIET;
    while wait(next, end) {
        next = Duration::from_secs(config.every_hours * 3600);
        match service.store.gc(&options) {
            Ok(report) => {
                metrics::add(&service.metrics.collected, report.removed_blobs.len() as u64);
                tracing::info!(
                    target: "cofferdam::audit",
                    who = "gc",
                    action = "collect",
                    blobs = report.removed_blobs.len(),
                    bytes = report.freed_bytes,
                    bundles = ?report.dropped_bundles,
                    "garbage was collected"
                );
            }
            // A bundle is being loaded: another time.
            Err(error @ Error::Busy { .. }) => {
                tracing::info!(%error, "garbage is collected later");
                next = QUIET;
            }
            Err(error) => {
                tracing::error!(%error, hint = error.hint().unwrap_or_default(), "collecting garbage failed");
            }
        }
    }
}

/// Takes over what the leader has, again and again. A leader that is away is no reason to stop.
fn follow(service: &Service, end: &AtomicBool) {
    let Some((peers, leader)) = service.config.peers.as_ref().and_then(|peers| Some((peers, peers.follow.clone()?)))
    else {
        return;
    };
    let options = SyncOptions {
        store: service.config.store.clone(),
        leader: leader.clone(),
        peers: peers.clone(),
        limits: service.config.limits.clone(),
        prune: false,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "cannot follow {leader}"),
    };
    let every = Duration::from_secs(peers.every_minutes * 60);
    let mut next = NAP;
    while wait(next, end) {
        next = every;
        // Made anew each time: its certificate may have been replaced.
        let run = async {
            let leader = Peer::new(&options.leader, &options.peers)?;
            peer::follow(&service.store, &leader, &options, &|_| ()).await
        };
        let ended = async {
            while !end.load(Ordering::Acquire) {
                tokio::time::sleep(NAP).await;
            }
        };
        let result = runtime.block_on(async {
            tokio::select! {
                result = run => Some(result),
                () = ended => None,
            }
        });
        match result {
            Some(Ok(report)) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                service.metrics.followed.store(now, Ordering::Relaxed);
                let SyncReport { blobs, bytes, manifests, tags, bundles, beyond, .. } = report;
                if blobs + manifests + tags + bundles > 0 {
                    tracing::info!(
                        target: "cofferdam::audit",
                        who = "follow", action = "take-over", leader, blobs, bytes, manifests, tags, bundles, beyond,
                        "what the leader has is here"
                    );
                }
            }
            Some(Err(error)) => {
                tracing::warn!(%error, hint = error.hint().unwrap_or_default(), "the leader was not followed");
            }
            None => return,
        }
    }
}
