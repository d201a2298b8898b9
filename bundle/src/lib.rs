//! The bundle: one signed file that carries a release. This crate owns the format (docs/bundle-format.md): the words of
//! OCI, the signed index, creating, reading, verifying and loading.
//!
//! Invariant: no byte of a bundle is used before it was verified against the signed index, and the index itself not
//! before its signature; names inside the archive are never used as paths.

mod archive;
mod complete;
pub mod create;
pub mod definition;
pub mod delta;
mod error;
mod frame;
pub mod index;
pub mod inspect;
pub mod keys;
pub mod load;
pub mod oci;
pub mod question;
pub mod read;
mod references;
mod source;
pub mod system;
pub mod template;

pub use error::{Distrust, Error, Missing};
pub use inspect::{diff, inspect};
pub use load::{load, verify};
