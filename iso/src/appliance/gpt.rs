//! The partition table of a boot medium (UEFI 2.10, 5.3): read within bounds, and given names of our own, which xorriso
//! cannot do.
//!
//! Called by [`super::compose`] and by what looks into a finished medium.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use camino::Utf8Path;

use crate::Error;

/// Bytes of a logical block.
pub(crate) const BLOCK: u64 = 512;
const SIGNATURE: &[u8] = b"EFI PART";
/// Entries are read up to this number; xorriso writes 248.
const MOST_ENTRIES: u32 = 1024;
const NAME_AT: usize = 56;
const NAME_BYTES: usize = 72;

/// One used entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    /// From 1.
    pub(crate) number: u32,
    pub(crate) name: String,
    /// First byte.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) length: u64,
}

struct Table {
    header: Vec<u8>,
    entries: Vec<u8>,
    entry_bytes: usize,
    entries_block: u64,
    other: u64,
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn number64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// CRC-32 of ISO-HDLC, as the table wants it.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |mut value, byte| {
        value ^= u32::from(*byte);
        for _ in 0..8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0xedb8_8320 } else { value >> 1 };
        }
        value
    })
}

impl Table {
    fn read(path: &Utf8Path, file: &File, block: u64) -> Result<Self, Error> {
        let bad = |why: &str| Error::Damaged {
            path: path.to_owned(),
            what: "partition table".to_owned(),
            why: why.to_owned(),
        };
        let bytes = |at: u64, length: usize| {
            let mut bytes = vec![0; length];
            let start = at.checked_mul(BLOCK).ok_or_else(|| bad("a block's number is too large"))?;
            file.read_exact_at(&mut bytes, start).map_err(Error::io(format!("read the partition table of {path}")))?;
            Ok::<_, Error>(bytes)
        };
        let header = bytes(block, 512)?;
        if !header.starts_with(SIGNATURE) {
            return Err(Error::NotAMedium {
                path: path.to_owned(),
                why: "it has no GPT, so nothing that boots".to_owned(),
            });
        }
        let mut zeroed = header.get(..92).unwrap_or_default().to_vec();
        put(&mut zeroed, 16, &[0; 4]);
        if number32(&header, 16) != Some(checksum(&zeroed)) {
            return Err(bad("its checksum is wrong"));
        }
        let (Some(entries_block), Some(count), Some(size), Some(sum), Some(other)) = (
            number64(&header, 72),
            number32(&header, 80),
            number32(&header, 84),
            number32(&header, 88),
            number64(&header, 32),
        ) else {
            return Err(bad("it is cut off"));
        };
        if count > MOST_ENTRIES || size != 128 {
            return Err(bad("its entries are of another kind"));
        }
        let entries = bytes(entries_block, (count * size) as usize)?;
        if checksum(&entries) != sum {
            return Err(bad("the checksum of its entries is wrong"));
        }
        Ok(Self { header, entries, entry_bytes: size as usize, entries_block, other })
    }

    fn write(&mut self, file: &File, block: u64) -> std::io::Result<()> {
        put(&mut self.header, 88, &checksum(&self.entries).to_le_bytes());
        put(&mut self.header, 16, &[0; 4]);
        let sum = checksum(self.header.get(..92).unwrap_or_default());
        put(&mut self.header, 16, &sum.to_le_bytes());
        file.write_all_at(&self.entries, self.entries_block * BLOCK)?;
        file.write_all_at(&self.header, block * BLOCK)
    }
}

/// The partitions of an image; each lies inside it.
pub(crate) fn partitions(path: &Utf8Path, file: &File) -> Result<Vec<Partition>, Error> {
    let table = Table::read(path, file, 1)?;
    let end = file.metadata().map_err(Error::io(format!("look at {path}")))?.len();
    let mut all = Vec::new();
    for (number, entry) in (1..).zip(table.entries.chunks(table.entry_bytes)) {
        if entry.iter().take(16).all(|byte| *byte == 0) {
            continue;
        }
        let range = number64(entry, 32).zip(number64(entry, 40)).and_then(|(first, last)| {
            let length = last.checked_sub(first)?.checked_add(1)?.checked_mul(BLOCK)?;
            let start = first.checked_mul(BLOCK)?;
            (start.checked_add(length)? <= end).then_some((start, length))
        });
        let (start, length) = range.ok_or_else(|| Error::Damaged {
            path: path.to_owned(),
            what: format!("partition {number}"),
            why: "it reaches behind the end of the image".to_owned(),
        })?;
        let units: Vec<u16> = entry
            .get(NAME_AT..)
            .unwrap_or_default()
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        let name = String::from_utf16_lossy(&units);
        all.push(Partition { number, name: name.trim_end_matches('\0').to_owned(), start, length });
    }
    Ok(all)
}

/// Gives partitions their names, in both copies of the table.
pub(crate) fn rename(path: &Utf8Path, file: &File, names: &[(u32, &str)]) -> Result<(), Error> {
    let other = Table::read(path, file, 1)?.other;
    for block in [1, other] {
        let mut table = Table::read(path, file, block)?;
        for (number, name) in names {
            let at = (*number as usize - 1) * table.entry_bytes + NAME_AT;
            let mut field: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
            field.resize(NAME_BYTES, 0);
            put(&mut table.entries, at, &field);
        }
        table.write(file, block).map_err(Error::io(format!("write the partition table of {path}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::checksum;

    /// The check value of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms.
    #[test]
    fn the_checksum_is_the_one_of_the_catalogue() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }
}
