//! Who asks, and what he may do.
//!
//! Invariant: an [`Identity`] other than `Anonymous` was proven, by a verified client certificate, by a password or by
//! a token that this server gave to somebody who proved it so; what [`Rights`] does not allow is refused, whatever else
//! the request holds. Called by the server for each request.

mod certificate;
mod htpasswd;
mod policy;
mod token;

use std::fmt;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

pub(crate) use certificate::own_names;
pub(crate) use htpasswd::{Passwords, Verdict};
pub(crate) use policy::{Policy, Rights};
pub(crate) use token::{Grant, SERVICE, Scope, Tokens, scopes};

/// Organisation of client certificates that may pull.
pub const NODES: &str = "cofferdam:nodes";
/// Organisation of client certificates that may also push and delete.
pub const ADMINS: &str = "cofferdam:admins";

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Permission {
    /// Nothing that needs an identity.
    Nothing,
    /// Learn that this is a registry, and that one is known to it.
    Enter,
    /// Read what is in a repository.
    Pull,
    /// Add to a repository.
    Push,
    /// Take out of a repository.
    Delete,
    /// Read the numbers of the server.
    Observe,
    /// See all repositories.
    Administer,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Identity {
    /// Nobody said.
    Anonymous,
    /// The holder of a verified client certificate.
    Certificate {
        /// The common name of its subject.
        common_name: String,
        /// The organisations of its subject.
        organisations: Vec<String>,
    },
    /// A name of the password file.
    User(String),
}

impl Identity {
    /// Who the holder of a verified client certificate is.
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Self {
        match certificate::subject(certificate) {
            Some(subject) => {
                Self::Certificate { common_name: subject.common_name, organisations: subject.organisations }
            }
            None => Self::Certificate { common_name: "unreadable subject".to_owned(), organisations: Vec::new() },
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Certificate { common_name, organisations } => {
                let has = |organisation: &str| organisations.iter().any(|name| name == organisation);
                let kind = match () {
                    () if has(ADMINS) => "admin",
                    () if has(NODES) => "node",
                    () => "certificate",
                };
                write!(f, "{kind}:{common_name}")
            }
        }
    }
}
