//! Who may do what in which repository: the rules of the policy file on top of what always holds.
//!
//! Invariant: what no rule and no fixed right allows is refused. Fixed: holders of an administrator's certificate may do
//! everything and nodes may pull everything, so that no policy file locks the site out of its own registry; users with
//! a password may do everything while there is no policy file, and what it says when there is one. Called for each
//! request and for each token.

use std::fs;
use std::str::FromStr;

use bundle::oci::RepositoryName;
use camino::Utf8Path;
use serde::Deserialize;

use super::{ADMINS, Identity, NODES, Permission};
use crate::error::{Error, Result};

/// The most bytes a policy file may have.
const MAXIMUM_SIZE: u64 = 256 << 10;

/// A policy file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Rule {
    repositories: Vec<Pattern>,
    who: Vec<Who>,
    allow: Vec<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    Pull,
    Push,
    Delete,
}

/// `NAME`, `NAME/**` for all below it, or `**` for all.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
enum Pattern {
    All,
    Exactly(RepositoryName),
    Below(RepositoryName),
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
enum Who {
    /// Also those who did not say who they are.
    Anyone,
    /// Whoever proved who it is.
    Known,
    /// A name of the password file.
    User(String),
    /// The common name of a client certificate.
    Certificate(String),
    /// An organisation of a client certificate.
    Organisation(String),
}

impl Policy {
    /// Reads a policy file.
    pub(crate) fn read(path: &Utf8Path) -> Result<Self> {
        let unusable = |why: String| Error::Policy { path: path.to_owned(), why };
        let size = fs::metadata(path).map_err(Error::io("read", path))?.len();
        if size > MAXIMUM_SIZE {
            return Err(unusable(format!("it has {size} bytes, more than {MAXIMUM_SIZE}")));
        }
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::parse(&text).map_err(unusable)
    }

    /// Takes YAML apart; the error is the parser's.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    fn allows(&self, identity: &Identity, action: Action, repository: &RepositoryName) -> bool {
        self.rules.iter().any(|rule| {
            rule.allow.contains(&action)
                && rule.repositories.iter().any(|pattern| pattern.covers(repository))
                && rule.who.iter().any(|who| who.is(identity))
        })
    }

    /// Whether there is anything at all for that identity.
    fn knows(&self, identity: &Identity) -> bool {
        self.rules.iter().any(|rule| rule.who.iter().any(|who| who.is(identity)))
    }
}

/// What decides.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    pub(crate) policy: Option<Policy>,
    pub(crate) anonymous_pull: bool,
}

impl Rights {
    /// Whether somebody may do that; with a repository where it is about one.
    pub(crate) fn allow(
        &self,
        identity: &Identity,
        permission: Permission,
        repository: Option<&RepositoryName>,
    ) -> bool {
        let is_administrator = match identity {
            Identity::Certificate { organisations, .. } => organisations.iter().any(|name| name == ADMINS),
            Identity::User(_) => self.policy.is_none(),
            Identity::Anonymous => false,
        };
        let is_node = matches!(identity, Identity::Certificate { organisations, .. } if organisations.iter().any(|name| name == NODES));
        if permission == Permission::Nothing || is_administrator {
            return true;
        }
        if is_node && matches!(permission, Permission::Enter | Permission::Pull | Permission::Observe) {
            return true;
        }
        if self.anonymous_pull && matches!(permission, Permission::Enter | Permission::Pull) {
            return true;
        }
        let Some(policy) = &self.policy else { return false };
        let action = match permission {
            Permission::Enter => return policy.knows(identity),
            Permission::Pull => Action::Pull,
            Permission::Push => Action::Push,
            Permission::Delete => Action::Delete,
            Permission::Nothing | Permission::Observe | Permission::Administer => return false,
        };
        repository.is_some_and(|repository| policy.allows(identity, action, repository))
    }
}

impl Pattern {
    fn covers(&self, name: &RepositoryName) -> bool {
        match self {
            Self::All => true,
            Self::Exactly(exactly) => exactly == name,
            Self::Below(above) => name.as_str().strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('/')),
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        if text == "**" {
            return Ok(Self::All);
        }
        let (name, make): (_, fn(RepositoryName) -> Self) = match text.strip_suffix("/**") {
            Some(name) => (name, Self::Below),
            None => (text.as_str(), Self::Exactly),
        };
        RepositoryName::from_str(name).map(make).map_err(|error| format!("{error}; a pattern is NAME, NAME/** or **"))
    }
}

impl Who {
    fn is(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Anyone, _) => true,
            (Self::Known, identity) => *identity != Identity::Anonymous,
            (Self::User(name), Identity::User(user)) => name == user,
            (Self::Certificate(name), Identity::Certificate { common_name, .. }) => name == common_name,
            (Self::Organisation(name), Identity::Certificate { organisations, .. }) => organisations.contains(name),
            _ => false,
        }
    }
}

impl TryFrom<String> for Who {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            None if text == "anyone" => Ok(Self::Anyone),
            None if text == "known" => Ok(Self::Known),
            Some(("user", name)) if !name.is_empty() => Ok(Self::User(name.to_owned())),
            Some(("certificate", name)) if !name.is_empty() => Ok(Self::Certificate(name.to_owned())),
            Some(("organisation", name)) if !name.is_empty() => Ok(Self::Organisation(name.to_owned())),
            _ => Err(format!("{text:?} is not anyone, known, user:NAME, certificate:NAME or organisation:NAME")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use Permission::{Administer, Delete, Enter, Nothing, Observe, Pull, Push};

    fn certificate(name: &str, organisation: &str) -> Identity {
        Identity::Certificate { common_name: name.to_owned(), organisations: vec![organisation.to_owned()] }
    }

    #[test]
    fn what_holds_without_a_policy_file() {
        let all = [Nothing, Enter, Pull, Push, Delete, Observe, Administer];
        let name: RepositoryName = "a".parse().unwrap();
        let [f, t] = [false, true];
        for (identity, closed, open) in [
            (Identity::Anonymous, [t, f, f, f, f, f, f], [t, t, t, f, f, f, f]),
            (certificate("eve", "somebody"), [t, f, f, f, f, f, f], [t, t, t, f, f, f, f]),
            (certificate("n", NODES), [t, t, t, f, f, t, f], [t, t, t, f, f, t, f]),
            (certificate("root", ADMINS), [t; 7], [t; 7]),
            (Identity::User("ann".to_owned()), [t; 7], [t; 7]),
        ] {
            for (anonymous_pull, expected) in [(false, closed), (true, open)] {
                let rights = Rights { policy: None, anonymous_pull };
                assert_eq!(
                    all.map(|permission| rights.allow(&identity, permission, Some(&name))),
                    expected,
                    "{identity}"
                );
            }
        }
    }

    #[test]
    fn what_a_policy_file_says() {
        let policy = Policy::parse(
            "
rules:
  - { repositories: ['team/**', exact], who: ['user:ann', 'organisation:team'], allow: [pull, push] }
  - { repositories: [public], who: [anyone], allow: [pull] }
  - { repositories: ['**'], who: ['certificate:auditor'], allow: [pull] }
  - { repositories: [members], who: [known], allow: [pull, delete] }
",
        )
        .unwrap();
        let rights = Rights { policy: Some(policy), anonymous_pull: false };
        let user = |name: &str| Identity::User(name.to_owned());
        for (identity, repository, expected) in [
            // pull, push, delete
            (user("ann"), "team/app", "pull push"),
            (user("ann"), "team/a/b", "pull push"),
            (user("ann"), "team", ""),
            (user("ann"), "teammate/app", ""),
            (user("ann"), "exact", "pull push"),
            (user("ann"), "exact/more", ""),
            (user("bob"), "team/app", ""),
            (certificate("ann", "team"), "team/app", "pull push"),
            (certificate("ann", "other"), "team/app", ""),
            (Identity::Anonymous, "public", "pull"),
            (Identity::Anonymous, "members", ""),
            (user("bob"), "members", "pull delete"),
            (certificate("auditor", "x"), "team/app", "pull"),
            (certificate("n", NODES), "team/app", "pull"),
            (certificate("root", ADMINS), "team/app", "pull push delete"),
        ] {
            let name: RepositoryName = repository.parse().unwrap();
            let allowed: Vec<_> = [(Pull, "pull"), (Push, "push"), (Delete, "delete")]
                .iter()
                .filter(|(permission, _)| rights.allow(&identity, *permission, Some(&name)))
                .map(|(_, word)| *word)
                .collect();
            assert_eq!(allowed.join(" "), expected, "{identity} in {repository}");
            assert!(!rights.allow(&user("ann"), Administer, None) && !rights.allow(&user("ann"), Observe, None));
        }
        assert!(rights.allow(&Identity::Anonymous, Enter, None), "there is something for anyone");
    }

    #[test]
    fn what_is_no_policy_is_refused_by_name() {
        for (text, part) in [
            ("", ""),
            ("rules: [{repositories: [a], who: [anyone]}]", "allow"),
            ("rules: [{repositories: [a], who: [nobody], allow: [pull]}]", "nobody"),
            ("rules: [{repositories: [a], who: ['user:'], allow: [pull]}]", "user:"),
            ("rules: [{repositories: ['A/**'], who: [anyone], allow: [pull]}]", "A"),
            ("rules: [{repositories: ['*'], who: [anyone], allow: [pull]}]", "pattern"),
            ("rules: [{repositories: ['../**'], who: [anyone], allow: [pull]}]", "pattern"),
            ("rules: [{repositories: [a], who: [anyone], allow: [admin]}]", "admin"),
            ("rules: []\nmore: 1", "more"),
        ] {
            let error = Policy::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!(Policy::parse("rules: []").unwrap(), Policy::default());
    }
}
