//! What is typed and must not be seen: a buffer that is wiped, never grows (so leaves no copies behind) and is never
//! drawn.

use std::fmt;

use zeroize::Zeroizing;

use crate::passphrase::{self, Rule};

/// A typed secret.
pub struct Secret {
    text: Zeroizing<String>,
    limit: usize,
}

impl Secret {
    /// Room for that many bytes; what is typed beyond is refused.
    pub fn with_limit(limit: usize) -> Self {
        Self { text: Zeroizing::new(String::with_capacity(limit)), limit }
    }

    /// Appends a character; false if there is no room.
    pub fn push(&mut self, character: char) -> bool {
        let fits = self.text.len() + character.len_utf8() <= self.limit;
        if fits {
            self.text.push(character);
        }
        fits
    }

    /// Takes the last character away.
    pub fn pop(&mut self) {
        self.text.pop();
    }

    /// Wipes it.
    pub fn clear(&mut self) {
        *self = Self::with_limit(self.limit);
    }

    /// What was typed.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Nothing was typed.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Number of characters.
    pub fn count(&self) -> usize {
        self.text.chars().count()
    }
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        let mut copy = Self::with_limit(self.limit);
        copy.text.push_str(&self.text);
        copy
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        *self.text == *other.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Most bytes of a password: bcrypt looks at no more.
pub const PASSWORD_MOST: usize = 72;

/// The rules of a password and whether each holds, for showing while it is typed.
pub fn password_rules(password: &Secret, again: &Secret, account: &str) -> [Rule; 4] {
    let text = password.expose();
    let [long, row] = [passphrase::is_long(text), passphrase::is_no_row(text)];
    [long, passphrase::is_no_name(text, account), row, is_same(password, again)]
}

/// The same of the disk's passphrase.
pub fn passphrase_rules(typed: &Secret, again: &Secret) -> [Rule; 4] {
    let [long, row, plain] = passphrase::rules_of_the_disk(typed.expose());
    [long, row, plain, is_same(typed, again)]
}

fn is_same(typed: &Secret, again: &Secret) -> Rule {
    (!typed.is_empty() && typed == again, "typed twice the same".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Secret, password_rules};

    fn secret(text: &str) -> Secret {
        let mut secret = Secret::with_limit(72);
        text.chars().for_each(|character| {
            secret.push(character);
        });
        secret
    }

    #[test]
    fn password_policy() {
        let table = [
            ("correct horse battery", "operator", [true, true, true, true]),
            ("short", "operator", [false, true, true, true]),
            ("my operator password", "operator", [true, false, true, true]),
            ("My OPERATOR password", "operator", [true, false, true, true]),
            ("aaaaaaaaaaaaaaaaaaaa", "operator", [true, true, false, true]),
            ("abcdefghijklmnopqrst", "operator", [true, true, false, true]),
            ("12345678901234567890", "operator", [true, true, false, true]),
            ("", "operator", [false, false, false, false]),
        ];
        for (password, account, expected) in table {
            let found = password_rules(&secret(password), &secret(password), account).map(|(holds, _)| holds);
            assert_eq!(found, expected, "{password}");
        }
        assert!(!password_rules(&secret("correct horse battery"), &secret("correct horse batterz"), "x")[3].0);
    }

    #[test]
    fn a_secret_never_grows_and_is_never_shown() {
        let mut secret = Secret::with_limit(4);
        assert!(secret.push('é') && secret.push('a') && secret.push('b') && !secret.push('c'));
        assert_eq!((secret.expose(), secret.count()), ("éab", 3));
        assert_eq!(format!("{secret:?}"), "Secret(hidden)");
        secret.clear();
        assert!(secret.is_empty());
    }
}
