//! The medium that carries a bundle into a place without a network: an ISO 9660 image, written with xorriso, read and
//! checked by a reader of our own.
//!
//! Invariant: reading trusts nothing in an image. Every place and size is checked against the image's end, every walk has
//! a limit, and an image needs no mount (and so no privileges) to be looked into.
//!
//! What the manifest's digests prove is that the medium was copied whole. Whom the release comes from is proven by the
//! bundle's signature, against a key that the operator got by another way than this medium.
//!
//! Called by `cofferdam iso build` and `inspect`, and by the whole-product tests.

pub mod appliance;
mod error;
pub mod manifest;
pub mod medium;
pub mod read;
pub mod system;
mod tool;
mod xorriso;

pub use error::Error;
pub use manifest::Manifest;
pub use medium::{MediumOptions, MediumReport, VolumeLabel, build, inspect};
