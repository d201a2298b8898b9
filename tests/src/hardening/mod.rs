//! Independent scanners in an installed appliance: `OpenSCAP` with the benchmarks of Debian 13, and lynis. They come on a disk
//! of their own and are run as they are; what they find is compared with a list of exceptions, each with its reason.
//!
//! Invariant: a finding that is not on the list and an exception that nothing needs are both errors, so the list is true.
//!
//! Called by `tests/tests/hardening.rs`.

mod exceptions;
mod scanners;

pub use exceptions::{Exceptions, Verdict};
pub use scanners::{Lynis, Outcome, PROFILES, Profile, ScannerDisk, lynis, openscap};
