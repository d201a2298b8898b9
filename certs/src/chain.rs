//! Finds the way from a server certificate up to a root among certificates in any order, and says where it ends when
//! it does not get there. Import uses it to repair the order and to explain; trust is decided by `verify`.

use crate::{
    Certificate,
    signature::{Link, link},
};

/// Longer chains do not occur; RFC 5280 sets no limit, rustls-webpki takes six intermediates.
const LENGTH_MAX: usize = 8;
/// Signature checks for one search, so that a strange file costs a moment and not an hour.
const BUDGET: usize = 200;

/// The way up from a leaf.
#[derive(Clone, Debug)]
pub(crate) struct Chain<'a> {
    /// The leaf first, then each one's issuer.
    pub(crate) certificates: Vec<&'a Certificate>,
    pub(crate) end: End<'a>,
}

/// How the way up ends, seen from its last certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End<'a> {
    /// The last certificate is one to trust: among the given roots, or self-signed where no roots were given.
    Root,
    /// It is self-signed, and not among the given roots.
    ForeignRoot,
    /// Nobody bears the name of its issuer.
    NoIssuer,
    /// This one bears the issuer's name, but its key did not sign.
    OtherKey(&'a Certificate),
    /// The chain is longer than any real one.
    TooLong,
}

/// Looks for issuers first among `roots`, then among `pool`.
pub(crate) fn build<'a>(leaf: &'a Certificate, pool: &'a [Certificate], roots: Option<&'a [Certificate]>) -> Chain<'a> {
    let mut search = Search { pool, roots, budget: BUDGET };
    search.climb(vec![leaf])
}

struct Search<'a> {
    pool: &'a [Certificate],
    roots: Option<&'a [Certificate]>,
    budget: usize,
}

impl<'a> Search<'a> {
    fn climb(&mut self, path: Vec<&'a Certificate>) -> Chain<'a> {
        let Some(current) = path.last().copied() else {
            return Chain { certificates: path, end: End::NoIssuer };
        };
        let self_signed = current.is_self_issued() && self.link(current, current) != Link::NotSigned;
        let is_root = self.roots.map_or(self_signed, |roots| roots.contains(current));
        if is_root {
            return Chain { certificates: path, end: End::Root };
        }
        if path.len() >= LENGTH_MAX {
            return Chain { certificates: path, end: End::TooLong };
        }

        let mut other_key = None;
        let mut dead_end: Option<Chain<'a>> = None;
        for candidate in self.roots.unwrap_or_default().iter().chain(self.pool) {
            if !current.names_as_issuer(candidate) || path.contains(&candidate) {
                continue;
            }
            if self.link(current, candidate) == Link::NotSigned {
                other_key = Some(candidate);
                continue;
            }
            // With cross-signed authorities there are several ways up, and the first may end nowhere.
            let mut longer = path.clone();
            longer.push(candidate);
            let chain = self.climb(longer);
            if chain.end == End::Root {
                return chain;
            }
            dead_end.get_or_insert(chain);
        }
        dead_end.unwrap_or_else(|| {
            let end = match other_key {
                _ if self_signed => End::ForeignRoot,
                Some(candidate) => End::OtherKey(candidate),
                None => End::NoIssuer,
            };
            Chain { certificates: path, end }
        })
    }

    fn link(&mut self, certificate: &Certificate, issuer: &Certificate) -> Link {
        if self.budget == 0 {
            return Link::NotSigned;
        }
        self.budget -= 1;
        link(certificate, issuer)
    }
}
