//! The crate against programs that others wrote: OpenSSL, age, systemd and cryptsetup. A program that is missing fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod escrow;
mod handshake;
mod import;
mod issue;
mod keys;
mod keystore;
mod recovery;
