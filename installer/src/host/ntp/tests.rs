//! Vectors, and servers on loopback that answer as real ones do, and as they should not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Barrier};

use super::{
    Bad, Duration, EPOCH, HostError, Instant, Sent, TimeRequest, Timestamp, UdpSocket, ask_all, nanoseconds, packet,
    read,
};

const NUMBER: u64 = 0x0123_4567_89ab_cdef;

/// As NTP counts.
fn ntp(time: Timestamp) -> u64 {
    let seconds = u64::try_from(time.as_second() + EPOCH).unwrap() & 0xffff_ffff;
    let fraction = u64::try_from(time.subsec_nanosecond()).unwrap();
    (seconds << 32) | ((fraction << 32) / 1_000_000_000)
}

/// A server's answer: version 4, stratum 2, its clock ahead by so much.
fn answer(number: u64, ahead: Duration) -> Vec<u8> {
    let now = ntp(Timestamp::now() + ahead);
    let mut packet = vec![0b00_100_100, 2, 6, 0xec];
    packet.resize(24, 0);
    for part in [number, now, now] {
        packet.extend(part.to_be_bytes());
    }
    packet
}

#[test]
fn a_question_has_48_bytes_and_tells_nothing_of_this_machine() {
    let question = packet(NUMBER);
    assert_eq!((question.len(), question[0]), (48, 0x23));
    assert!(question[1..40].iter().all(|byte| *byte == 0));
    assert_eq!(question[40..], NUMBER.to_be_bytes());
}

#[test]
fn times_of_both_eras() {
    let table = [
        // RFC 5905, figure 4: the first day of Unix, and the last second of the first era.
        (2_208_988_800_u64 << 32, "1970-01-01T00:00:00Z"),
        ((0xffff_ffff_u64 << 32) | 0x8000_0000, "2036-02-07T06:28:15.5Z"),
        (0, "2036-02-07T06:28:16Z"),
        (0x0000_0001_4000_0000, "2036-02-07T06:28:17.25Z"),
        (ntp("2026-11-28T10:00:00Z".parse().unwrap()), "2026-11-28T10:00:00Z"),
    ];
    for (time, expected) in table {
        assert_eq!(nanoseconds(time), expected.parse::<Timestamp>().unwrap().as_nanosecond(), "{expected}");
    }
}

/// Offset and delay of RFC 5905, 8: asked at 10.000 s, received at 12.010 s and sent at 12.030 s by the server's clock, back at
/// 10.060 s: the way takes 20 ms each, and the server is 1.99 s ahead.
#[test]
fn offset_and_delay() {
    let base: Timestamp = "2026-11-28T10:00:00Z".parse().unwrap();
    let at = |milliseconds: u64| base + Duration::from_millis(milliseconds);
    let sent = [Sent { number: NUMBER, at: at(10_000), since: Instant::now() }];
    let mut packet = answer(NUMBER, Duration::ZERO);
    packet[32..40].copy_from_slice(&ntp(at(12_010)).to_be_bytes());
    packet[40..48].copy_from_slice(&ntp(at(12_030)).to_be_bytes());
    let found = read(&packet, &sent, |_| (at(10_000), at(10_060)), [192, 0, 2, 123].into()).unwrap();
    assert_eq!(found.stratum, 2);
    assert!((found.offset.as_millis() - 1990).abs() <= 1, "{:?}", found.offset);
    assert!(found.delay.abs_diff(Duration::from_millis(40)) <= Duration::from_millis(1), "{:?}", found.delay);
    // Behind is negative.
    let found = read(&packet, &sent, |_| (at(20_000), at(20_060)), [192, 0, 2, 123].into()).unwrap();
    assert!((found.offset.as_millis() + 8010).abs() <= 1, "{:?}", found.offset);
}

type Change = fn(&mut Vec<u8>);

#[test]
fn what_is_no_answer() {
    let sent = [Sent { number: NUMBER, at: Timestamp::now(), since: Instant::now() }];
    let judge = |packet: &[u8]| read(packet, &sent, |sent| (sent.at, sent.at), [192, 0, 2, 123].into());
    judge(&answer(NUMBER, Duration::ZERO)).unwrap();
    let foreign: [(&str, Change); 6] = [
        ("too short", |packet| packet.truncate(47)),
        ("mode 3", |packet| packet[0] = 0b00_100_011),
        ("mode 5", |packet| packet[0] = 0b00_100_101),
        ("version 7", |packet| packet[0] = 0b00_111_100),
        ("another question", |packet| packet[24] ^= 1),
        // What would be a refusal, if it were an answer to us.
        ("another question", |packet| (packet[1], packet[31]) = (0, 0)),
    ];
    for (expected, change) in foreign {
        let mut packet = answer(NUMBER, Duration::ZERO);
        change(&mut packet);
        match judge(&packet) {
            Err(Bad::Foreign(reason)) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let refused: [(&str, Change); 5] = [
        ("kiss code \"RATE\"", |packet| {
            packet[1] = 0;
            packet[12..16].copy_from_slice(b"RATE");
        }),
        ("kiss code \"DENY\"", |packet| {
            packet[1] = 0;
            packet[12..16].copy_from_slice(b"DENY");
        }),
        ("not set", |packet| packet[0] |= 0b11_000_000),
        ("not set", |packet| packet[1] = 16),
        ("not set", |packet| packet[40..48].fill(0)),
    ];
    for (expected, change) in refused {
        let mut packet = answer(NUMBER, Duration::ZERO);
        change(&mut packet);
        match judge(&packet) {
            Err(Bad::Refused(reason)) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
    // A longer packet has extension fields.
    let mut long = answer(NUMBER, Duration::ZERO);
    long.resize(68, 7);
    judge(&long).unwrap();
}

/// A server on loopback for a few questions; it ends by itself.
fn server(says: impl Fn(u32, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> TimeRequest {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        for number in 0..4 {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
            for packet in says(number, &buffer[..length]) {
                let _ = socket.send_to(&packet, from);
            }
        }
    });
    TimeRequest { server: "127.0.0.1".to_owned(), port, limit: Duration::from_secs(8) }
}

fn number_of(question: &[u8]) -> u64 {
    assert_eq!((question.len(), question[0]), (48, 0x23));
    u64::from_be_bytes(question[40..48].try_into().unwrap())
}

#[test]
fn servers_that_answer() {
    // Each of the two answers once both are asked: so they are asked at once.
    let both = Arc::new(Barrier::new(2));
    let in_company = |ahead: u64| {
        let both = Arc::clone(&both);
        server(move |number, question| {
            if number == 0 {
                both.wait();
            }
            vec![answer(number_of(question), Duration::from_secs(ahead))]
        })
    };
    let (right, ahead) = (in_company(0), in_company(90));
    // The first question, or its answer, is lost.
    let lossy = server(|number, question| {
        let packet = answer(number_of(question), Duration::ZERO);
        if number == 0 { Vec::new() } else { vec![packet] }
    });
    // Somebody guesses, before the server answers.
    let raced = server(|_, question| {
        vec![answer(1, Duration::from_hours(1)), vec![0; 4], answer(number_of(question), Duration::ZERO)]
    });
    let found = ask_all(&[right, ahead, lossy, raced]);
    let offsets: Vec<i128> = found.iter().map(|found| found.as_ref().unwrap().offset.as_millis()).collect();
    // This machine may be busy: half of what a packet waits counts as an offset.
    let is_near = |milliseconds: i128, expected: i128| (milliseconds - expected).abs() < 4_000;
    assert!(is_near(offsets[0], 0) && is_near(offsets[1], 90_000), "{offsets:?}");
    assert!(is_near(offsets[2], 0) && is_near(offsets[3], 0), "{offsets:?}");
    let first = found[0].as_ref().unwrap();
    assert_eq!((first.stratum, first.address.to_string().as_str()), (2, "127.0.0.1"));
}

#[test]
fn servers_that_do_not() {
    let silent = server(|_, _| Vec::new());
    let wrong = server(|_, question| vec![answer(number_of(question) ^ 1, Duration::ZERO)]);
    let kiss = server(|_, question| {
        let mut packet = answer(number_of(question), Duration::ZERO);
        packet[1] = 0;
        packet[12..16].copy_from_slice(b"RATE");
        vec![packet]
    });
    let echo = server(|_, question| vec![question.to_vec()]);
    let nobody = {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        TimeRequest { port: socket.local_addr().unwrap().port(), ..silent.clone() }
    };
    let nameless = TimeRequest { server: "no.such.name.invalid".to_owned(), ..silent.clone() };
    let found = ask_all(&[silent, wrong, kiss, echo, nobody, nameless]);
    let expected = ["no answer within 8 s", "another question", "RATE", "mode 3", "nobody listens", ""];
    for (found, expected) in found.into_iter().zip(expected) {
        let error = found.unwrap_err();
        assert!(matches!(&error, HostError::Time { reason, .. } if reason.contains(expected)), "{expected}: {error}");
        assert!(error.to_string().starts_with("the NTP server "), "{error}");
    }
    assert!(ask_all(&[]).is_empty());
}
