//! NTP servers, really asked: those of the configuration, else those that this host's own time service has.

use std::net::IpAddr;
use std::time::Duration;

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Probed, Questions, answer, machine};
use crate::host::{Host, TimeRequest};

const PORT: u16 = 123;
const LIMIT: Duration = Duration::from_secs(3);
/// More are not asked.
const MOST: usize = 8;
/// The time service of a live system sets the clock as soon as it has heard of its servers: it is waited for.
const WAITS: u32 = 5;
const WAIT: Duration = Duration::from_secs(3);

/// How far this clock may be from a server's.
pub const SKEW: SignedDuration = SignedDuration::from_secs(1);

/// An NTP server, and what it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TimeServer {
    /// Name or address, as it is configured.
    pub name: String,
    /// Its time; unknown when it did not answer.
    pub time: Probed<ServerTime>,
}

/// The time of a server, against that of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ServerTime {
    /// The address that answered.
    pub address: IpAddr,
    /// How many servers away from a clock, 1 to 15.
    pub stratum: u8,
    /// How far the server is ahead of this machine, in microseconds.
    pub offset_microseconds: i64,
    /// How long question and answer were on their way, in microseconds.
    pub delay_microseconds: u64,
}

impl ServerTime {
    /// How far the server is ahead of this machine.
    pub fn offset(&self) -> SignedDuration {
        SignedDuration::from_micros(self.offset_microseconds)
    }

    /// Whether the clocks differ by more than [`SKEW`].
    pub fn is_far(&self) -> bool {
        self.offset().unsigned_abs() > SKEW.unsigned_abs()
    }

    /// For people: `+0.8 ms, stratum 2`.
    pub fn words(&self) -> String {
        format!("{}, stratum {}", signed(self.offset()), self.stratum)
    }
}

/// For people, with a sign: milliseconds, seconds or hours.
fn signed(offset: SignedDuration) -> String {
    let sign = if offset.is_negative() { '-' } else { '+' };
    let time = offset.unsigned_abs();
    let tenths = |count: u128, unit: &str| format!("{sign}{}.{} {unit}", count / 10, count % 10);
    match time.as_secs() {
        0 => tenths(time.as_micros() / 100, "ms"),
        1..3600 => tenths(time.as_millis() / 100, "s"),
        seconds => tenths(u128::from(seconds) / 360, "h"),
    }
}

pub(super) fn probe(host: &dyn Host, questions: &Questions, machine: &machine::Machine) -> Vec<TimeServer> {
    let own =
        if questions.time_servers.is_empty() { servers_of_the_host(host) } else { questions.time_servers.clone() };
    let is_appliance = machine.system.known().is_some_and(|system| system.is_appliance);
    let may_be_set = is_appliance && machine.clock_synchronised.known() != Some(&true);
    ask_until_near(if may_be_set { WAITS } else { 0 }, || ask(host, &own), || host.pause(WAIT))
}

fn ask_until_near(waits: u32, mut ask: impl FnMut() -> Vec<TimeServer>, mut wait: impl FnMut()) -> Vec<TimeServer> {
    let is_far = |server: &TimeServer| server.time.known().is_some_and(ServerTime::is_far);
    let mut found = ask();
    for _ in 0..waits {
        if !found.iter().any(is_far) {
            break;
        }
        wait();
        found = ask();
    }
    found
}

fn ask(host: &dyn Host, servers: &[String]) -> Vec<TimeServer> {
    let request = |server: &String| TimeRequest { server: server.clone(), port: PORT, limit: LIMIT };
    let requests: Vec<_> = servers.iter().take(MOST).map(request).collect();
    if requests.is_empty() {
        return Vec::new();
    }
    let answers = host.ask_time(&requests).into_iter().map(|answer| {
        answer.map(|answer| ServerTime {
            address: answer.address,
            stratum: answer.stratum,
            offset_microseconds: i64::try_from(answer.offset.as_micros()).unwrap_or(i64::MAX),
            delay_microseconds: u64::try_from(answer.delay.as_micros()).unwrap_or(u64::MAX),
        })
    });
    let named = |(answer, name): (Result<ServerTime, crate::host::HostError>, &String)| {
        // The name stands beside it.
        let time = answer.map_err(|error| match error {
            crate::host::HostError::Time { reason, .. } => reason,
            error => error.to_string(),
        });
        TimeServer { name: name.clone(), time: time.into() }
    };
    answers.zip(servers).map(named).collect()
}

/// What chrony or systemd-timesyncd asks; empty where neither runs. The fallback of a distribution is no server of this
/// network.
fn servers_of_the_host(host: &dyn Host) -> Vec<String> {
    if let Ok(text) = answer(host, "chronyc", ["-n", "-c", "sources"]) {
        return parse_sources(&text);
    }
    let properties = ["show-timesync", "--property=LinkNTPServers", "--property=SystemNTPServers", "--value"];
    let text = answer(host, "timedatectl", properties).unwrap_or_default();
    let mut servers: Vec<String> = Vec::new();
    for server in text.split_whitespace().filter(|word| !word.starts_with('[')) {
        if !servers.iter().any(|known| known == server) {
            servers.push(server.to_owned());
        }
    }
    servers
}

/// chronyc(1), `-c sources`: kind (`^` a server, `=` a peer, `#` a clock of this machine), state, name or address, …
fn parse_sources(text: &str) -> Vec<String> {
    let server = |line: &str| {
        let mut fields = line.split(',');
        let kind = fields.next()?;
        let name = fields.nth(1).filter(|name| !name.is_empty())?;
        ["^", "="].contains(&kind).then(|| name.to_owned())
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::{Probed, ServerTime, SignedDuration, TimeServer, ask_until_near, parse_sources, signed};

    #[test]
    fn a_clock_that_is_about_to_be_set_is_waited_for() {
        let server = |offset_microseconds| {
            let address = std::net::Ipv4Addr::new(192, 0, 2, 123).into();
            let time = ServerTime { address, stratum: 2, offset_microseconds, delay_microseconds: 0 };
            vec![TimeServer { name: "ntp".to_owned(), time: Probed::Known(time) }]
        };
        let after = |offsets: &[i64], waits: u32| {
            let (mut asked, mut waited) = (offsets.iter(), 0);
            let found = ask_until_near(waits, || server(*asked.next().unwrap_or(&i64::MIN)), || waited += 1);
            (found == server(offsets[offsets.len() - 1]), waited)
        };
        assert_eq!(after(&[900], 5), (true, 0));
        assert_eq!(after(&[7_000_000, -7_000_000, 3], 5), (true, 2));
        assert_eq!(after(&[7_000_000, 7_000_000, 7_000_000], 2), (true, 2), "the last word counts");
        assert_eq!(after(&[7_000_000], 0), (true, 0));
    }

    #[test]
    fn sources_of_chrony() {
        let text = "^,*,192.0.2.123,2,6,377,38,-0.000012,-0.000014,0.000210\n#,+,PHC0,0,4,377,11,0.0,0.0,0.0\n\
                    ^,?,2001:db8::123,0,8,0,4294967295,0.0,0.0,0.0\n=,-,192.0.2.124,3,6,1,2,0,0,0\n\n";
        assert_eq!(parse_sources(text), ["192.0.2.123", "2001:db8::123", "192.0.2.124"]);
    }

    #[test]
    fn offsets_for_people() {
        let table = [
            (0, "+0.0 ms"),
            (830, "+0.8 ms"),
            (-12_300, "-12.3 ms"),
            (1_250_000, "+1.2 s"),
            (-90_000_000, "-90.0 s"),
            (7_200_000_000, "+2.0 h"),
        ];
        for (microseconds, expected) in table {
            assert_eq!(signed(SignedDuration::from_micros(microseconds)), expected);
        }
    }
}
