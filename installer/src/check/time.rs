//! Checks of the clock: against the date of the bundle, and against NTP servers that were asked.

use bundle::index::Index;
use jiff::{SignedDuration, Timestamp};

use super::{Finding, Outcome, pass_or};
use crate::config::InstallConfig;
use crate::facts::time::{SKEW, ServerTime, TimeServer};
use crate::facts::{Facts, Probed};

pub(super) fn findings(config: &InstallConfig, facts: &Facts, index: Option<&Index>) -> Vec<Finding> {
    vec![sane(facts, index), skew(config, facts)]
}

fn sane(facts: &Facts, index: Option<&Index>) -> Finding {
    let created = index.and_then(|index| index.created.as_ref());
    let hint = "set the clock (`timedatectl set-time`) and the time zone of the hardware clock";
    let dates = (created.map(|text| text.parse::<Timestamp>()), facts.probed_at.parse::<Timestamp>());
    if let (Some(Ok(created)), Ok(now)) = dates {
        return Finding::new(
            "time.sane",
            pass_or(now >= created, Outcome::Fail),
            format!("the clock says {now:.0}"),
            format!("not before the bundle was made, {created:.0}"),
            hint,
        );
    }
    let why = if index.is_none() { "the bundle was not read" } else { "the bundle does not tell when it was made" };
    Finding::new("time.sane", Outcome::Unknown, why, "not before the bundle was made", hint)
}

/// Certificates, leases and etcd want one time for all. Who has no time server is warned; a server that says another time
/// stands against the installation.
fn skew(config: &InstallConfig, facts: &Facts) -> Finding {
    let wanted: &[String] = config.network.as_ref().map_or(&[], |network| &network.time_servers);
    let is_meant = |server: &&TimeServer| wanted.is_empty() || wanted.contains(&server.name);
    let servers: Vec<&TimeServer> = facts.network.time_servers.iter().filter(is_meant).collect();
    if servers.is_empty() {
        return if wanted.is_empty() { kept(facts) } else { unasked(wanted) };
    }
    let threshold = format!("at most {} s from each NTP server", SKEW.as_secs());
    let measured = servers.iter().map(|server| words(server)).collect::<Vec<_>>().join("; ");
    let times: Vec<&ServerTime> = servers.iter().filter_map(|server| server.time.known()).collect();
    if times.is_empty() {
        let hint = "is their address right, and is UDP port 123 open on the way? Without a time server the clocks of nodes and \
                    clients drift apart";
        return Finding::new("time.skew", Outcome::Warn, measured, threshold, hint);
    }
    let offsets = || times.iter().map(|time| time.offset());
    let spread = match (offsets().max(), offsets().min()) {
        (Some(most), Some(least)) => most.saturating_sub(least),
        _ => SignedDuration::ZERO,
    };
    if times.iter().any(|time| time.is_far()) {
        let hint = "wait until the time service has set the clock, or set it (`timedatectl set-time`), and look again; if the \
                    server is wrong, name another";
        return Finding::new("time.skew", Outcome::Fail, measured, threshold, hint);
    }
    if spread > SKEW {
        let hint = "one of the servers is wrong: find out which, and leave it out";
        return Finding::new("time.skew", Outcome::Fail, format!("they disagree: {measured}"), threshold, hint);
    }
    // A source of the host's own that is silent is the business of its time service.
    let is_whole = times.len() == servers.len() || wanted.is_empty();
    let hint = "one server is enough, but who does not answer now will not answer later";
    Finding::new("time.skew", pass_or(is_whole, Outcome::Warn), measured, threshold, hint)
}

/// `192.0.2.123 +0.8 ms, stratum 2`, or why not.
fn words(server: &TimeServer) -> String {
    match &server.time {
        Probed::Known(time) => format!("{} {}", server.name, time.words()),
        Probed::Unknown { reason } => format!("{}: {reason}", server.name),
    }
}

/// No server is known: whether anything keeps the clock.
fn kept(facts: &Facts) -> Finding {
    let hint = "name an NTP server of this network in /etc/systemd/timesyncd.conf, or run chrony";
    Finding::of("time.skew", &facts.machine.clock_synchronised, "kept by a time service", hint, |found| {
        let measured = if *found { "synchronised" } else { "no time service keeps the clock" };
        (pass_or(*found, Outcome::Warn), measured.to_owned())
    })
}

fn unasked(wanted: &[String]) -> Finding {
    let measured =
        format!("{} not asked", if wanted.len() == 1 { "the NTP server was" } else { "the NTP servers were" });
    Finding::new("time.skew", Outcome::Unknown, measured, "an answer of each NTP server", "")
}
