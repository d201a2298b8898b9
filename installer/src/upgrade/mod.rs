//! Upgrades: a planned, resumable transaction over a running site, with gates and a way back.
//!
//! Invariant: [`plan::plan`] is pure and changes nothing. [`run`] writes the transaction (forward plan and the plan of
//! the way back, both complete) before the first effect; from then on a crash at any point leaves a host on which
//! `cofferdam resume` runs one of the two plans to its end, since every step of both asks the host what is so. The same
//! engine, journal and events as an installation. Called by the command line.

pub mod action;
pub mod answers;
pub mod audit;
mod difference;
pub mod findings;
mod path;
pub mod plan;
pub mod run;
pub mod shown;
pub mod site;
pub mod slots;
mod space;
mod stages;
mod step;
pub mod transaction;

use crate::live::root as live_root;
pub use action::{Action, GateKind};
pub(crate) use path::newest_kubernetes;
pub use shown::UpgradePlan;
pub use site::Site;
pub(crate) use step::{done, run as run_step};

/// On the root filesystem, without secrets: the transaction that is going on, and the last one that was committed.
pub const FOLDER: &str = "/var/lib/cofferdam/upgrade";
/// The transaction that is going on; there is none when the file is missing.
pub const CURRENT: &str = "/var/lib/cofferdam/upgrade/current.json";
/// The last committed one: what `upgrade rollback` undoes.
pub const PREVIOUS: &str = "/var/lib/cofferdam/upgrade/previous.json";
/// Snapshots, on the data volume since they hold keys.
pub const SNAPSHOTS: &str = "/var/lib/cofferdam/data/upgrade";
/// Who did what: hash-chained, only appended to.
pub const AUDIT: &str = "/var/lib/cofferdam/audit.jsonl";
