//! The primary volume descriptor (ECMA-119, 8.4): where the root directory lies and what the volume is called.

use super::fields::{ascii, both_u16, both_u32};
use super::record::{Record, RecordError};

/// Bytes of a logical sector, and of the only block size that is in use.
pub(super) const SECTOR: u64 = 2048;

/// One of the descriptors that begin at sector 16.
#[derive(Debug)]
pub(super) enum Descriptor {
    Primary(Volume),
    Terminator,
    /// Boot records, Joliet, partitions: not needed.
    Other,
}

#[derive(Debug)]
pub(super) struct Volume {
    pub(super) label: String,
    /// Bytes of the volume; a file may hold more behind it.
    pub(super) size: u64,
    /// `YYYY-MM-DDTHH:MM:SS`, without time zone, when the volume says when it was made.
    pub(super) created: Option<String>,
    pub(super) root: Record,
}

/// `None`: this sector is no descriptor at all.
pub(super) fn parse(sector: &[u8]) -> Option<Result<Descriptor, String>> {
    let (kind, rest) = sector.split_first()?;
    if !rest.starts_with(b"CD001") {
        return None;
    }
    Some(match kind {
        1 => parse_primary(sector).map(Descriptor::Primary),
        255 => Ok(Descriptor::Terminator),
        _ => Ok(Descriptor::Other),
    })
}

fn parse_primary(sector: &[u8]) -> Result<Volume, String> {
    let block_size = both_u16(sector, 128).ok_or("the two copies of the block size differ")?;
    if u64::from(block_size) != SECTOR {
        return Err(format!("blocks of {block_size} bytes are not supported"));
    }
    let blocks = both_u32(sector, 80).ok_or("the two copies of the volume's size differ")?;
    let root = sector.get(156..190).ok_or("it is too short")?;
    let root = match Record::parse(root) {
        Ok(Some(root)) if root.is_directory => root,
        Ok(_) => return Err("the root is no directory".to_owned()),
        Err(RecordError(why)) => return Err(format!("the root directory's record: {why}")),
    };
    Ok(Volume {
        label: ascii(sector.get(40..72).unwrap_or_default()),
        size: u64::from(blocks) * SECTOR,
        created: date(sector.get(813..829).unwrap_or_default()),
        root,
    })
}

/// 8.4.26.1: sixteen digits; all zero when there is no date.
fn date(digits: &[u8]) -> Option<String> {
    if digits.len() != 16 || !digits.iter().all(u8::is_ascii_digit) || digits.iter().all(|digit| *digit == b'0') {
        return None;
    }
    let part = |range: std::ops::Range<usize>| digits.get(range).map(ascii);
    Some(format!(
        "{}-{}-{}T{}:{}:{}",
        part(0..4)?,
        part(4..6)?,
        part(6..8)?,
        part(8..10)?,
        part(10..12)?,
        part(12..14)?
    ))
}
