//! The registry against its specification, hostile clients, kill −9 and the real clients that will use it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod attacks;
mod clients;
mod closed;
mod conformance;
mod crash;
mod delta;
mod hardship;
mod harness;
mod http;
mod import;
mod peers;
mod protocol;
mod startup;
mod upkeep;
