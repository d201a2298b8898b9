//! Keys and certificates of a site: making them, taking in what somebody else made, keeping them, and giving them into
//! safe hands.
//!
//! Invariants: the clock is always passed in; a secret is in memory that is wiped, and in no error and no `Debug`
//! text; all cryptography but age's own comes from aws-lc. Apart from [`Keystore`] nothing here touches a file, so that
//! the installer can write through its own `Host`.

mod authority;
mod certificate;
mod chain;
mod error;
mod escrow;
mod finding;
mod import;
mod key;
mod keystore;
mod name;
mod pack_secret;
mod pem;
mod profile;
mod random;
mod recovery;
mod signature;
mod verify;

pub use authority::{IssuedCertificate, SiteAuthority};
pub use certificate::{Certificate, CertificateSummary, Fingerprint, inspect};
pub use error::CertsError;
pub use escrow::{EscrowBundle, EscrowIdentity, EscrowItem, EscrowKind, EscrowRecipient};
pub use finding::{Finding, Severity};
pub use import::{ImportReport, ImportRequest, ImportedCertificate, import};
pub use key::{KeyAlgorithm, KeyKind, PrivateKey};
pub use keystore::{EntryName, Keystore};
pub use name::{Fqdn, NodeName, SubjectAltName};
pub use pack_secret::{PackSecretKind, PackSecretPart};
pub use pem::parse_certificates;
pub use profile::{AdminName, CertificateProfile, ServerNames, Validity};
pub use random::random_bytes;
pub use recovery::RecoveryKey;
pub use verify::{VerifiedChain, verify_server_chain};
