//! Numbers and texts as ECMA-119 writes them. Invariant: nothing is read behind the end of the bytes given.

/// 7.2.3: a number twice, little-endian and big-endian. `None` when they differ or the bytes end before.
pub(super) fn both_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let (little, rest) = bytes.get(at..)?.split_first_chunk()?;
    let little = u16::from_le_bytes(*little);
    (little == u16::from_be_bytes(*rest.first_chunk()?)).then_some(little)
}

/// 7.3.3: likewise with 32 bits.
pub(super) fn both_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let (little, rest) = bytes.get(at..)?.split_first_chunk()?;
    let little = u32::from_le_bytes(*little);
    (little == u32::from_be_bytes(*rest.first_chunk()?)).then_some(little)
}

/// A text field, padded with blanks. What is not printable ASCII becomes a question mark.
pub(super) fn ascii(bytes: &[u8]) -> String {
    let letters = bytes.iter().map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' });
    letters.collect::<String>().trim_end().to_owned()
}
