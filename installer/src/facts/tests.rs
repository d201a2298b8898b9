//! The real probe on the machine that runs the tests, checked against what its own programs say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use super::{Facts, Installed, Probed, Questions, parse_installed};
use crate::host::Host;
use crate::host::real::RealHost;

fn says(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn this_machine() {
    let questions = Questions {
        fqdn: Some("localhost".to_owned()),
        address: Some("127.0.0.1".parse().unwrap()),
        vip: None,
        time_servers: Vec::new(),
        paths: vec!["/no/such/bundle.tar.zst".into()],
        sync_directory: Some(std::env::temp_dir().join("not-there-yet").to_str().unwrap().into()),
    };
    let facts = Facts::probe(&RealHost, &questions);
    let machine = &facts.machine;
    assert_eq!(machine.processor.known().unwrap().count.to_string(), says("nproc", &["--all"]));
    assert_eq!(machine.host_name, Probed::Known(says("uname", &["-n"])));
    assert_eq!(facts.kernel.release, Probed::Known(says("uname", &["-r"])));
    assert!(*machine.memory_bytes.known().unwrap() > 256 << 20);
    assert_eq!(machine.architecture.known().copied(), bundle::index::Architecture::of_this_machine());

    let root = facts.filesystem("/").unwrap().space.known().unwrap();
    assert_eq!(root.mount, "/");
    assert_eq!(root.size_bytes.to_string(), says("df", &["-B1", "--output=size", "/"]).lines().last().unwrap().trim());
    let bundle = facts.filesystem("/no/such/bundle.tar.zst").unwrap();
    assert_eq!(bundle.space.known().unwrap().mount, "/", "a path that is not there yet");

    let adapters = facts.network.adapters.known().expect("ip(8) of the package iproute2");
    let loopback = adapters.iter().find(|adapter| adapter.is_loopback).unwrap();
    assert!(loopback.addresses.iter().any(|own| own.address.to_string() == "127.0.0.1"));
    let name = facts.network.fqdn.as_ref().unwrap();
    assert!(name.addresses.known().unwrap().iter().all(std::net::IpAddr::is_loopback));

    // On a machine without block devices both are empty; a mounted root must be seen where it is listed.
    for disk in facts.disks.known().expect("lsblk of util-linux") {
        assert!(disk.size_bytes > 0 && disk.path.starts_with("/dev/"), "{disk:?}");
    }
    assert!((1.0..=20.0).contains(&facts.slowness), "{}", facts.slowness);
    assert!(*facts.sync_microseconds.known().unwrap() > 0);
    assert!(facts.tools.iter().any(|tool| tool.name == "mount" && tool.path.is_some()));

    let json = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), facts, "facts survive JSON");
    assert!(json.contains("\"memory-bytes\""));
}

#[test]
fn a_listener_is_seen() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let facts = super::network::probe(&RealHost, &Questions::default());
    assert!(facts.listeners.known().unwrap().iter().any(|listener| listener.port == port));
}

#[test]
fn measuring_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path: &camino::Utf8Path = directory.path().try_into().unwrap();
    let time = RealHost.measure_sync(path, 20).unwrap();
    assert!(time.as_nanos() > 0);
    assert!(RealHost.list(path).unwrap().is_empty());
    assert!(RealHost.measure_sync(&path.join("missing"), 1).is_err());
}

#[test]
fn a_site_that_is_there() {
    let state = r#"{"schema-version":1,"site":"rack7","version":"1.2.0","packs":[]}"#;
    assert_eq!(parse_installed(state), Installed { site: "rack7".to_owned(), version: "1.2.0".to_owned() });
    assert_eq!(parse_installed("torn {").site, "", "a record that cannot be read still is a site");
}
