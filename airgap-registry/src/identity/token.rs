//! Bearer tokens: what `GET /token` gives to somebody who proved who he is, signed with Ed25519 (RFC 7519, RFC 8037;
//! scopes as in the "Token Scope Documentation" of the distribution project).
//!
//! Invariant: the key is made when the server starts and leaves this process never; a token says who it was given to
//! and what for, and allows at most that: what its holder may do is asked again with each request. Called by the server.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bundle::oci::RepositoryName;
use serde::{Deserialize, Serialize};

use super::{Identity, Permission};
use crate::error::{Error, Result};

/// The `service` and the issuer of our tokens.
pub(crate) const SERVICE: &str = "cofferdam-registry";
/// The only header that a token of ours has: no other algorithm can be talked into it.
const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;
/// The most characters a token may have.
const MAXIMUM_LENGTH: usize = 8 << 10;
/// The most scopes that one token is asked for.
const MAXIMUM_SCOPES: usize = 32;
/// The most verified tokens that are remembered; when it is full, it is forgotten.
const MAXIMUM_REMEMBERED: usize = 1024;

/// Gives and verifies tokens.
pub(crate) struct Tokens {
    key: Ed25519KeyPair,
    header: String,
    lifetime: Duration,
    /// By the SHA-256 of the whole token.
    verified: RwLock<HashMap<[u8; 32], Arc<Grant>>>,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    iss: String,
    aud: String,
    /// For people who look into it.
    sub: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
    /// What it is for.
    access: Vec<Scope>,
    /// Who it was given to.
    identity: Identity,
}

/// One `repository:NAME:ACTIONS` or `registry:catalog:*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) actions: Vec<String>,
}

impl Scope {
    /// Reads `TYPE:NAME:ACTION[,ACTION…]`. The name may hold colons. `None`: not of this form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let actions: Vec<_> = actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned).collect();
        let is_known = match kind {
            "repository" => name.parse::<RepositoryName>().is_ok(),
            "registry" => name == "catalog",
            _ => false,
        };
        (is_known && actions.len() <= 8).then(|| Self { kind: kind.to_owned(), name: name.to_owned(), actions })
    }

    /// The scope that an operation needs; `None` when any token will do.
    pub(crate) fn needed(permission: Permission, repository: Option<&RepositoryName>) -> Option<Self> {
        let actions = match permission {
            Permission::Nothing | Permission::Enter => return None,
            Permission::Observe | Permission::Administer => {
                return Some(Self { kind: "registry".into(), name: "catalog".into(), actions: vec!["*".into()] });
            }
            Permission::Pull => vec!["pull".to_owned()],
            // Who pushes looks first what is there.
            Permission::Push => vec!["pull".to_owned(), "push".to_owned()],
            Permission::Delete => vec!["delete".to_owned()],
        };
        Some(Self { kind: "repository".to_owned(), name: repository?.to_string(), actions })
    }

    /// The permissions that its actions stand for; an action that nobody knows stands for none.
    pub(crate) fn permissions(&self) -> impl Iterator<Item = (&str, Permission)> {
        let of_repository = self.kind == "repository";
        self.actions.iter().flat_map(move |action| match (of_repository, action.as_str()) {
            (true, "pull") => vec![("pull", Permission::Pull)],
            (true, "push") => vec![("push", Permission::Push)],
            (true, "delete") => vec![("delete", Permission::Delete)],
            (true, "*") => {
                vec![("pull", Permission::Pull), ("push", Permission::Push), ("delete", Permission::Delete)]
            }
            (false, "*") => vec![("*", Permission::Administer)],
            _ => Vec::new(),
        })
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.kind, self.name, self.actions.join(","))
    }
}

impl Grant {
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it was given for that.
    pub(crate) fn covers(&self, permission: Permission, repository: Option<&RepositoryName>) -> bool {
        let Some(needed) = Scope::needed(permission, repository) else { return true };
        let wanted = match permission {
            Permission::Push => "push",
            _ => needed.actions.first().map_or("", String::as_str),
        };
        self.access.iter().any(|scope| {
            scope.kind == needed.kind
                && scope.name == needed.name
                && scope.actions.iter().any(|action| action == wanted)
        })
    }
}

impl Tokens {
    /// With a key of its own.
    pub(crate) fn new(lifetime: Duration) -> Result<Self> {
        let key = Ed25519KeyPair::generate().map_err(|_| Error::Unexpected("the random number generator failed"))?;
        Ok(Self { key, header: URL_SAFE_NO_PAD.encode(HEADER), lifetime, verified: RwLock::default() })
    }

    /// How long a token is good.
    pub(crate) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A token for somebody, good for what `access` says: what he may do was asked before.
    pub(crate) fn issue(&self, identity: Identity, access: Vec<Scope>) -> Result<String> {
        let now = now();
        let grant = Grant {
            iss: SERVICE.to_owned(),
            aud: SERVICE.to_owned(),
            sub: identity.to_string(),
            iat: now,
            // Clients compare with a clock of their own.
            nbf: now.saturating_sub(60),
            exp: now + self.lifetime.as_secs(),
            jti: crate::random::hex()?,
            access,
            identity,
        };
        let claims = serde_json::to_vec(&grant).map_err(|_| Error::Unexpected("cannot write JSON"))?;
        let signed = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(signed.as_bytes());
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What a token says, when it is one of ours and still good.
    pub(crate) fn verify(&self, token: &str) -> Option<Arc<Grant>> {
        self.verify_at(token, now())
    }

    fn verify_at(&self, token: &str, now: u64) -> Option<Arc<Grant>> {
        if token.len() > MAXIMUM_LENGTH {
            return None;
        }
        let mut fingerprint = [0; 32];
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        fingerprint.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        let is_current = |grant: &Grant| grant.nbf <= now && now < grant.exp;
        if let Some(grant) = self.verified.read().unwrap_or_else(PoisonError::into_inner).get(&fingerprint) {
            return is_current(grant).then(|| Arc::clone(grant));
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let claims = signed.strip_prefix(&self.header)?.strip_prefix('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let public = UnparsedPublicKey::new(&ED25519, self.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).ok()?;
        let grant: Grant = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        if grant.iss != SERVICE || grant.aud != SERVICE || !is_current(&grant) {
            return None;
        }
        let grant = Arc::new(grant);
        let mut verified = self.verified.write().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= MAXIMUM_REMEMBERED {
            verified.clear();
        }
        verified.insert(fingerprint, Arc::clone(&grant));
        Some(grant)
    }
}

/// The scopes that a request for a token asks for; those that cannot be read are left out, as the protocol says.
pub(crate) fn scopes(texts: &[String]) -> Vec<Scope> {
    texts.iter().take(MAXIMUM_SCOPES).filter_map(|text| Scope::parse(text)).collect()
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn a_token_is_good_for_what_it_was_given_for_and_no_longer() {
        let tokens = Tokens::new(Duration::from_mins(5)).unwrap();
        let access = vec![Scope::parse("repository:team/app:pull,push").unwrap()];
        let token = tokens.issue(Identity::User("ann".to_owned()), access).unwrap();
        // Once by its signature, once from memory.
        for _ in 0..2 {
            let grant = tokens.verify(&token).unwrap();
            assert_eq!(grant.identity(), &Identity::User("ann".to_owned()));
            assert!(grant.covers(Permission::Pull, Some(&name("team/app"))));
            assert!(grant.covers(Permission::Push, Some(&name("team/app"))));
            assert!(!grant.covers(Permission::Delete, Some(&name("team/app"))));
            assert!(!grant.covers(Permission::Pull, Some(&name("team/app2"))));
            assert!(!grant.covers(Permission::Administer, None) && grant.covers(Permission::Enter, None));
        }
        assert!(tokens.verify_at(&token, now() + 299).is_some());
        assert!(tokens.verify_at(&token, now() + 301).is_none());
        assert!(tokens.verify_at(&token, now() - 120).is_none(), "not yet");
        assert!(Tokens::new(Duration::from_mins(5)).unwrap().verify(&token).is_none(), "another server's key");
    }

    #[test]
    fn forged_tokens_are_refused() {
        let tokens = Tokens::new(Duration::from_mins(5)).unwrap();
        let token = tokens.issue(Identity::User("ann".to_owned()), Vec::new()).unwrap();
        let parts: Vec<_> = token.split('.').collect();
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        for forged in [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{}.{}.{}", encode(r#"{"alg":"none"}"#), parts[1], ""),
            format!("{}.{}.{}", encode(r#"{"alg":"none"}"#), parts[1], parts[2]),
            format!("{}.{}.{}", encode(r#"{"alg":"HS256","typ":"JWT"}"#), parts[1], parts[2]),
            format!("{}.{}.{}", parts[0], encode(&claims.replace("ann", "bob")), parts[2]),
            format!("{token}a"),
            format!("{token}="),
            format!("a{token}"),
            token.to_uppercase(),
            "x".repeat(MAXIMUM_LENGTH + 1),
        ] {
            assert!(tokens.verify(&forged).is_none(), "{forged}");
        }
        assert!(tokens.verify(&token).is_some());
    }

    #[test]
    fn scopes_are_read_and_unknown_ones_are_not() {
        for (text, printed) in [
            ("repository:a/b:pull", Some("repository:a/b:pull")),
            ("repository:a:pull,push,delete", Some("repository:a:pull,push,delete")),
            ("repository:a:", Some("repository:a:")),
            ("registry:catalog:*", Some("registry:catalog:*")),
            ("registry:other:*", None),
            ("repository:A:pull", None),
            ("repository:../x:pull", None),
            ("repository:a", None),
            ("", None),
            (":::", None),
        ] {
            assert_eq!(Scope::parse(text).map(|scope| scope.to_string()).as_deref(), printed, "{text}");
        }
        assert_eq!(Scope::parse("repository:a:*").unwrap().permissions().count(), 3);
        assert_eq!(Scope::parse("repository:a:fly").unwrap().permissions().count(), 0);
    }
}
