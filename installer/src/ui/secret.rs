//! What is typed and must not be seen: a buffer that is wiped, never grows (so leaves no copies behind) and is never
//! drawn.

use std::fmt;

use zeroize::Zeroizing;

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

/// Fewest characters of a password.
pub const PASSWORD_LEAST: usize = 15;
/// Most bytes of a password: bcrypt looks at no more.
pub const PASSWORD_MOST: usize = 72;

/// The rules of a password and whether each holds, for showing while it is typed (NIST SP 800-63B: length before
/// composition).
pub fn password_rules(password: &Secret, again: &Secret, account: &str) -> [(bool, String); 4] {
    let text = password.expose();
    let lower = text.to_lowercase();
    let account = account.trim().to_lowercase();
    let mut distinct: Vec<char> = text.chars().collect();
    distinct.sort_unstable();
    distinct.dedup();
    let has_name = account.chars().count() >= 3 && lower.contains(&account);
    [
        (
            password.count() >= PASSWORD_LEAST,
            format!("at least {PASSWORD_LEAST} characters ({} so far)", password.count()),
        ),
        (!text.is_empty() && !has_name, "does not hold the account's name".to_owned()),
        (distinct.len() >= 5 && !is_run(text), "no simple row such as aaaa, abcd or 1234".to_owned()),
        (!text.is_empty() && password == again, "typed twice the same".to_owned()),
    ]
}

/// Nearly all of it goes on from the character before: `aaaa…`, `abcd…`, `9876…`.
fn is_run(text: &str) -> bool {
    let characters: Vec<u32> = text.chars().map(u32::from).collect();
    let steps = characters.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 1).count();
    characters.len() > 1 && steps * 4 >= (characters.len() - 1) * 3
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
