//! Who asks, and what he may do.
//!
//! Invariant: an [`Identity`] other than `Anonymous` was proven, by a verified client certificate or by a password;
//! what is not allowed here is refused, whatever else the request holds. Called by the server for each request.

mod certificate;
mod htpasswd;

use std::fmt;

use rustls_pki_types::CertificateDer;

pub(crate) use certificate::own_names;
pub(crate) use htpasswd::{Passwords, Verdict};

/// Organisation of client certificates that may pull.
pub const NODES: &str = "cofferdam:nodes";
/// Organisation of client certificates that may also push and delete.
pub const ADMINS: &str = "cofferdam:admins";

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Permission {
    /// Nothing that needs an identity.
    Nothing,
    /// Read what is in a repository.
    Pull,
    /// Add to a repository.
    Push,
    /// Take out of a repository.
    Delete,
    /// See all repositories.
    Administer,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Nobody said.
    Anonymous,
    /// The holder of a verified client certificate of neither organisation: known, and allowed nothing.
    Stranger(String),
    /// A node of the site: pulls.
    Node(String),
    /// An administrator, by certificate or password: everything.
    Administrator(String),
}

impl Identity {
    /// Who the holder of a verified client certificate is.
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Self {
        match certificate::subject(certificate) {
            Some(subject) if subject.organisations.iter().any(|name| name == ADMINS) => {
                Self::Administrator(subject.common_name)
            }
            Some(subject) if subject.organisations.iter().any(|name| name == NODES) => Self::Node(subject.common_name),
            Some(subject) => Self::Stranger(subject.common_name),
            None => Self::Stranger("unreadable subject".to_owned()),
        }
    }

    /// Whether it may do that.
    pub(crate) fn may(&self, permission: Permission, anonymous_pull: bool) -> bool {
        match self {
            Self::Administrator(_) => true,
            Self::Node(_) => permission <= Permission::Pull,
            Self::Anonymous | Self::Stranger(_) => {
                permission == Permission::Nothing || (permission == Permission::Pull && anonymous_pull)
            }
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Stranger(name) => write!(f, "stranger:{name}"),
            Self::Node(name) => write!(f, "node:{name}"),
            Self::Administrator(name) => write!(f, "admin:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use Permission::{Administer, Delete, Nothing, Pull, Push};

    #[test]
    fn the_table_of_who_may_do_what() {
        let all = [Nothing, Pull, Push, Delete, Administer];
        let allowed = |identity: &Identity, anonymous| all.map(|permission| identity.may(permission, anonymous));
        let name = || "x".to_owned();
        for (identity, closed, open) in [
            (Identity::Anonymous, [true, false, false, false, false], [true, true, false, false, false]),
            (Identity::Stranger(name()), [true, false, false, false, false], [true, true, false, false, false]),
            (Identity::Node(name()), [true, true, false, false, false], [true, true, false, false, false]),
            (Identity::Administrator(name()), [true; 5], [true; 5]),
        ] {
            assert_eq!(allowed(&identity, false), closed, "{identity}");
            assert_eq!(allowed(&identity, true), open, "{identity}");
        }
    }
}
