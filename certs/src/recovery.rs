//! The recovery key: 256 random bits that a person can write down, read out and type back.
//!
//! The form is that of `systemd-cryptenroll --recovery-key`: 64 characters of modhex in 8 groups of 8, joined by hyphens.
//! Modhex letters lie at the same place on nearly all keyboards, so that the layout of a console does not matter.
//! The text with its hyphens is the passphrase of the LUKS key slot.

use std::fmt;

use zeroize::Zeroizing;

use crate::{CertsError, random_bytes};

const MODHEX: [u8; 16] = *b"cbdefghijklnrtuv";
const BYTES: usize = 32;
const GROUP: usize = 8;
const LETTERS: usize = 2 * BYTES;
/// 64 letters and 7 hyphens.
const TEXT_LENGTH: usize = LETTERS + LETTERS / GROUP - 1;

/// A recovery key.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryKey(Zeroizing<[u8; BYTES]>);

impl RecoveryKey {
    /// A new one.
    pub fn generate() -> Result<Self, CertsError> {
        Ok(Self(random_bytes()?))
    }

    /// Reads what a person typed: case, blanks and hyphens do not matter.
    pub fn parse(text: &str) -> Result<Self, CertsError> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        let mut letters = 0;
        for character in text.chars().filter(|character| !character.is_whitespace() && *character != '-') {
            let digit = modhex_digit(character).ok_or_else(|| CertsError::RecoveryKey {
                reason: format!("a character in group {} is not one of its letters", letters / GROUP + 1),
            })?;
            // Counting goes on behind the last byte, to be able to say how many there were.
            if let Some(byte) = bytes.get_mut(letters / 2) {
                *byte = *byte << 4 | digit;
            }
            letters += 1;
        }
        if letters != LETTERS {
            return Err(CertsError::RecoveryKey { reason: format!("it has {letters} letters instead of {LETTERS}") });
        }
        Ok(Self(bytes))
    }

    /// The key as it is shown and as it opens the volume: `cbdefghi-jklnrtuv-…`, 71 characters.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TEXT_LENGTH));
        for (position, byte) in self.0.iter().enumerate() {
            if position > 0 && position % (GROUP / 2) == 0 {
                text.push('-');
            }
            for digit in [byte >> 4, byte & 0x0f] {
                text.push(char::from(MODHEX[usize::from(digit)]));
            }
        }
        text
    }

    /// How many groups it has.
    pub const GROUPS: usize = LETTERS / GROUP;

    /// A group, from 0; nothing behind the last one.
    pub fn group(&self, number: usize) -> Zeroizing<String> {
        Zeroizing::new(self.expose().split('-').nth(number).unwrap_or_default().to_owned())
    }

    /// Whether what was typed is this group, from 0; case, blanks and hyphens do not matter. A person types groups back
    /// to show that the key was written down.
    pub fn confirms(&self, number: usize, typed: &str) -> bool {
        let mut folded: Zeroizing<String> = Zeroizing::new(String::with_capacity(typed.len()));
        folded.extend(typed.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_lowercase()));
        let group = self.group(number);
        !group.is_empty() && *folded == *group
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RecoveryKey(…)")
    }
}

fn modhex_digit(character: char) -> Option<u8> {
    let letter = u8::try_from(character.to_ascii_lowercase()).ok()?;
    MODHEX.iter().position(|candidate| *candidate == letter).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Bytes 00 01 … 1f. That systemd's own keys have this form is tested against systemd-cryptenroll in `tests/`.
    const KNOWN: &str = "cccbcdce-cfcgchci-cjckclcn-crctcucv-bcbbbdbe-bfbgbhbi-bjbkblbn-brbtbubv";

    #[test]
    fn the_form_is_the_one_of_systemd() {
        let mut bytes = [0; BYTES];
        for (position, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(position).unwrap();
        }
        let key = RecoveryKey(Zeroizing::new(bytes));
        assert_eq!(*key.expose(), KNOWN);
        assert_eq!((key.group(0).as_str(), key.group(7).as_str(), key.group(8).as_str()), ("cccbcdce", "brbtbubv", ""));
        assert!(key.confirms(7, " BRBT bubv\n") && key.confirms(7, "-brbtbubv") && key.confirms(0, "cccbcdce"));
        assert!(!key.confirms(7, "brbtbubb") && !key.confirms(7, "") && !key.confirms(7, KNOWN));
        assert!(!key.confirms(6, "brbtbubv") && !key.confirms(8, ""));
        assert_eq!(format!("{key:?}"), "RecoveryKey(…)");
    }

    #[test]
    fn typing_is_tolerated_and_mistakes_are_placed() {
        let whole = RecoveryKey::parse(KNOWN).unwrap();
        for same in [KNOWN.to_uppercase(), KNOWN.replace('-', ""), KNOWN.replace('-', " "), format!("  {KNOWN}\r\n")] {
            assert_eq!(RecoveryKey::parse(&same).unwrap(), whole);
        }
        let table = [
            (String::new(), "0 letters"),
            (KNOWN[..70].to_owned(), "63 letters"),
            (format!("{KNOWN}c"), "65 letters"),
            (format!("a{}", &KNOWN[1..]), "group 1 "),
            (KNOWN.replace("bjbk", "bjbä"), "group 7 "),
        ];
        for (typed, why) in table {
            let error = RecoveryKey::parse(&typed).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("cccb"), "{error}");
        }
    }

    #[test]
    fn generated_keys_come_back_and_differ() {
        let (one, other) = (RecoveryKey::generate().unwrap(), RecoveryKey::generate().unwrap());
        assert!(one != other);
        assert_eq!(one.expose().len(), 71);
        assert!(RecoveryKey::parse(&one.expose()).unwrap() == one);
    }
}
