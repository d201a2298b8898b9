//! Asking NTP servers for the time: the client's side of RFC 5905 as far as RFC 4330 (SNTP) needs it. Nothing is set.
//!
//! Invariant: an answer counts only when it repeats the number of one of our own questions, which is random; what else
//! arrives is passed over until the time is up. Used by the probe of facts.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::{HostError, TimeAnswer, TimeRequest};

const PACKET: usize = 48;
/// No warning, version 4, client.
const HEAD: u8 = 0b00_100_011;
const SERVER_MODE: u8 = 4;
/// Both say that the server's own clock is not set.
const ALARM: u8 = 3;
const NO_STRATUM: u8 = 16;
/// Seconds from 1900 to 1970.
const EPOCH: i64 = 2_208_988_800;
/// A question may be lost on its way: it is asked again.
const QUESTIONS: u32 = 2;
/// What threads may take besides the limit.
const GRACE: Duration = Duration::from_secs(2);

/// Asks all of them at once; the answers stand in the order of the requests.
pub(super) fn ask_all(requests: &[TimeRequest]) -> Vec<Result<TimeAnswer, HostError>> {
    let (sender, answers) = mpsc::channel();
    for (place, request) in requests.iter().cloned().enumerate() {
        let sender = sender.clone();
        // A resolver knows no limit of ours: its thread is left alone, and nobody waits for what it says later.
        std::thread::spawn(move || drop(sender.send((place, ask(&request)))));
    }
    drop(sender);
    let limit = requests.iter().map(|request| request.limit).max().unwrap_or_default();
    let end = Instant::now() + limit + GRACE;
    let mut found: Vec<Result<TimeAnswer, String>> =
        requests.iter().map(|request| Err(silence(request.limit))).collect();
    while let Ok((place, answer)) = answers.recv_timeout(end.saturating_duration_since(Instant::now())) {
        if let Some(kept) = found.get_mut(place) {
            *kept = answer;
        }
    }
    let named = |(answer, request): (Result<TimeAnswer, String>, &TimeRequest)| {
        answer.map_err(|reason| HostError::Time { server: request.server.clone(), reason })
    };
    found.into_iter().zip(requests).map(named).collect()
}

fn silence(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs_f32())
}

fn ask(request: &TimeRequest) -> Result<TimeAnswer, String> {
    let end = Instant::now() + request.limit;
    let addresses: Vec<SocketAddr> = (request.server.as_str(), request.port)
        .to_socket_addrs()
        .map_err(|error| format!("the name does not resolve: {error}"))?
        .collect();
    let mut last = Some("the name resolves to no address".to_owned());
    for (place, address) in (0..).zip(&addresses) {
        let others = u32::try_from(addresses.len()).unwrap_or(u32::MAX) - place;
        let part = end.saturating_duration_since(Instant::now()) / others;
        match ask_address(*address, part) {
            Ok(answer) => return Ok(answer),
            Err(reason) => last = reason,
        }
    }
    Err(last.unwrap_or_else(|| silence(request.limit)))
}

/// A question that is on its way.
struct Sent {
    /// Stands where the client's clock would: a server repeats it, and it tells nothing about this machine.
    number: u64,
    at: Timestamp,
    since: Instant,
}

/// The error says why there is no answer, if anything came back at all.
fn ask_address(address: SocketAddr, limit: Duration) -> Result<TimeAnswer, Option<String>> {
    let own: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::ConnectionRefused => Some("nobody listens there".to_owned()),
        _ => Some(error.to_string()),
    };
    let socket = UdpSocket::bind(own).map_err(failed)?;
    // Connected: what others send does not arrive, and a refusal by ICMP does.
    socket.connect(address).map_err(failed)?;
    let mut sent: Vec<Sent> = Vec::new();
    let mut strange = None;
    for _ in 0..QUESTIONS {
        let mut number = [0; 8];
        aws_lc_rs::rand::fill(&mut number).map_err(|_| Some("this machine has no random numbers".to_owned()))?;
        let question = Sent { number: u64::from_be_bytes(number), at: Timestamp::now(), since: Instant::now() };
        let until = question.since + limit / QUESTIONS;
        socket.send(&packet(question.number)).map_err(failed)?;
        sent.push(question);
        let mut buffer = [0; 1024];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left)).map_err(failed)?;
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            // By the clock that nobody sets meanwhile.
            let times = |question: &Sent| (question.at, question.at + question.since.elapsed());
            match read(buffer.get(..length).unwrap_or_default(), &sent, times, address.ip()) {
                Ok(answer) => return Ok(answer),
                Err(Bad::Refused(reason)) => return Err(Some(reason)),
                Err(Bad::Foreign(reason)) => strange = Some(reason),
            }
        }
    }
    Err(strange)
}

fn packet(number: u64) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[0] = HEAD;
    packet[40..].copy_from_slice(&number.to_be_bytes());
    packet
}

/// Why a packet is no time.
#[derive(Debug, PartialEq, Eq)]
enum Bad {
    /// It answers no question of ours; the true answer may still come.
    Foreign(String),
    /// The server's own word.
    Refused(String),
}

/// Understands a packet (RFC 5905, 7.3) and computes offset and delay (8).
fn read(
    packet: &[u8],
    sent: &[Sent],
    times: impl Fn(&Sent) -> (Timestamp, Timestamp),
    address: IpAddr,
) -> Result<TimeAnswer, Bad> {
    let foreign = |what: &str| Err(Bad::Foreign(format!("what came back is no answer: {what}")));
    let Some((head, _)) = packet.split_first_chunk::<PACKET>() else { return foreign("it is too short") };
    let (alarm, version, mode, stratum) = (head[0] >> 6, head[0] >> 3 & 0b111, head[0] & 0b111, head[1]);
    let field = |at: usize| {
        let bytes = head.get(at..at + 8).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        u64::from_be_bytes(bytes.unwrap_or_default())
    };
    if mode != SERVER_MODE || !(3..=4).contains(&version) {
        return foreign(&format!("it has mode {mode} of version {version}"));
    }
    let originate = field(24);
    let Some(question) = sent.iter().find(|question| question.number == originate) else {
        return foreign("it repeats another question than ours");
    };
    if stratum == 0 {
        let code: String =
            head[12..16].iter().filter(|byte| byte.is_ascii_alphanumeric()).map(|byte| char::from(*byte)).collect();
        return Err(Bad::Refused(format!("it refuses to answer (kiss code {code:?})")));
    }
    let (received, transmitted) = (field(32), field(40));
    if alarm == ALARM || stratum >= NO_STRATUM || received == 0 || transmitted == 0 {
        return Err(Bad::Refused("it answers, but its own clock is not set".to_owned()));
    }
    let (asked, arrived) = times(question);
    let [t1, t4] = [asked, arrived].map(Timestamp::as_nanosecond);
    let [t2, t3] = [received, transmitted].map(nanoseconds);
    let short = |nanoseconds: i128| i64::try_from(nanoseconds).unwrap_or(i64::MAX);
    let offset = i128::midpoint(t2 - t1, t3 - t4);
    let delay = ((t4 - t1) - (t3 - t2)).max(0);
    Ok(TimeAnswer {
        address,
        stratum,
        offset: SignedDuration::from_nanos(short(offset)),
        delay: Duration::from_nanos(short(delay).unsigned_abs()),
    })
}

/// Since 1970, of seconds since 1900 in 32 bits and a fraction in 32 bits. Without the first bit it is after 7 February 2036,
/// when the seconds begin anew (RFC 4330, 3).
fn nanoseconds(time: u64) -> i128 {
    let (seconds, fraction) = (i64::try_from(time >> 32).unwrap_or_default(), i128::from(time & 0xffff_ffff));
    let era = if time >> 63 == 0 { 1_i64 << 32 } else { 0 };
    i128::from(seconds + era - EPOCH) * 1_000_000_000 + ((fraction * 1_000_000_000) >> 32)
}

#[cfg(test)]
mod tests;
