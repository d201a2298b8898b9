//! The test beds and peers of the whole-product tests: real hosts, real virtual machines, real Kubernetes.
//!
//! Called by the tests in `tests/tests`, the demo and the benches; no part of the product uses it.

pub mod appliance;
pub mod appliance_upgrade;
pub mod cache;
pub mod encrypted_site;
pub mod fast_host;
pub mod fast_site;
pub mod finished_site;
pub mod hardening;
pub mod outage;
pub mod sample;
pub mod terminal;
pub mod virtual_machine;
