//! Directory records (ECMA-119, 9.1) and the Rock Ridge names in them (SUSP 1.12 and RRIP 1.12).

use super::fields::both_u32;

/// Longest name of a file in Linux, in bytes.
const LONGEST_NAME: usize = 255;
/// A name of that length needs two areas; more than a few are an attack.
const MOST_CONTINUATIONS: usize = 8;
/// Largest area that a continuation may name: it never needs more than one block.
const LONGEST_CONTINUATION: u32 = 2048;

const FLAG_DIRECTORY: u8 = 0x02;
const FLAG_ASSOCIATED: u8 = 0x04;
const FLAG_MORE_EXTENTS: u8 = 0x80;

/// Why a record cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RecordError(pub(super) String);

impl From<&str> for RecordError {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

/// One record: a file, a directory, or one extent of a file over 4 GiB.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Number of the first block.
    pub(super) block: u32,
    /// Bytes.
    pub(super) size: u32,
    pub(super) is_directory: bool,
    /// The next record goes on with the same file.
    pub(super) has_more: bool,
    /// An Apple resource fork or the like: not a file of its own.
    pub(super) is_associated: bool,
    /// As it stands; one byte 0 or 1 for the directory itself and its parent.
    pub(super) identifier: Vec<u8>,
    /// What Rock Ridge may lie in.
    pub(super) system_use: Vec<u8>,
}

impl Record {
    /// `None`: length zero, the rest of the sector is padding.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, RecordError> {
        let Some(&length) = bytes.first().filter(|length| **length != 0) else { return Ok(None) };
        let record = bytes.get(..usize::from(length)).ok_or("it reaches behind its sector")?;
        if record.len() < 34 {
            return Err("it is too short".into());
        }
        if record.get(26..28) != Some(&[0, 0]) {
            return Err("interleaved files are not supported".into());
        }
        if record.get(1) != Some(&0) {
            return Err("extended attributes are not supported".into());
        }
        let flags = record.get(25).copied().unwrap_or_default();
        let name_length = usize::from(record.get(32).copied().unwrap_or_default());
        let name_end = 33 + name_length;
        let identifier =
            record.get(33..name_end).filter(|name| !name.is_empty()).ok_or("its name reaches behind it")?;
        // 9.1.12: a pad byte makes the place even.
        let system_use = record.get(name_end + usize::from(name_length % 2 == 0)..).unwrap_or_default();
        Ok(Some(Self {
            block: both_u32(record, 2).ok_or("the two copies of its place differ")?,
            size: both_u32(record, 10).ok_or("the two copies of its size differ")?,
            is_directory: flags & FLAG_DIRECTORY != 0,
            has_more: flags & FLAG_MORE_EXTENTS != 0,
            is_associated: flags & FLAG_ASSOCIATED != 0,
            identifier: identifier.to_vec(),
            system_use: system_use.to_vec(),
        }))
    }

    /// The directory itself or its parent.
    pub(super) fn is_dot(&self) -> bool {
        matches!(self.identifier.as_slice(), [0 | 1])
    }

    /// The plain name, without version: for images that have no Rock Ridge.
    fn plain_name(&self) -> Vec<u8> {
        let name = self.identifier.split(|byte| *byte == b';').next().unwrap_or_default();
        name.strip_suffix(b".").unwrap_or(name).to_vec()
    }

    /// The file's name, from Rock Ridge where there is one. `continuation` reads an area elsewhere: block, offset, length.
    pub(super) fn details(
        &self,
        skip: usize,
        mut continuation: impl FnMut(u32, u32, u32) -> Result<Vec<u8>, RecordError>,
    ) -> Result<Details, RecordError> {
        let mut name: Option<Vec<u8>> = None;
        let mut details = Details { name: Vec::new(), is_symlink: false, is_link_to_relocated: false };
        let mut area = self.system_use.get(skip..).unwrap_or_default().to_vec();
        for _ in 0..MOST_CONTINUATIONS {
            let mut next = None;
            for entry in SystemUse(&area) {
                let (signature, body) = entry?;
                match &signature {
                    b"NM" => {
                        let (flags, part) = body.split_first().ok_or("an NM entry is empty")?;
                        // 2 and 4 stand for the directory itself and its parent.
                        if flags & 6 == 0 {
                            name.get_or_insert_default().extend_from_slice(part);
                        }
                    }
                    b"SL" => details.is_symlink = true,
                    b"CL" => details.is_link_to_relocated = true,
                    b"CE" => {
                        let field = |at| both_u32(body, at).ok_or("a CE entry is broken");
                        next = Some((field(0)?, field(8)?, field(16)?));
                    }
                    _ => {}
                }
            }
            let Some((block, offset, length)) = next else {
                details.name = checked_name(name.unwrap_or_else(|| self.plain_name()))?;
                return Ok(details);
            };
            if length > LONGEST_CONTINUATION {
                return Err("a continuation area is too long".into());
            }
            area = continuation(block, offset, length)?;
        }
        Err("too many continuation areas".into())
    }

    /// SUSP 5.3: in the root's own record the SP entry says that there is Rock Ridge at all, and how many bytes to skip.
    pub(super) fn rock_ridge_skip(&self) -> Option<usize> {
        match SystemUse(&self.system_use).next()? {
            Ok(([b'S', b'P'], &[0xbe, 0xef, skip, ..])) => Some(usize::from(skip)),
            _ => None,
        }
    }
}

/// What the system use area of a record says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) name: Vec<u8>,
    pub(super) is_symlink: bool,
    /// A directory that was moved because it was too deep; it is listed where it lies.
    pub(super) is_link_to_relocated: bool,
}

fn checked_name(name: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    let is_bad = name.is_empty() || name.len() > LONGEST_NAME || name == b"." || name == b"..";
    if is_bad || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(RecordError(format!("{:?} cannot be a file's name", String::from_utf8_lossy(&name))));
    }
    Ok(name)
}

/// Signature and body of each entry in a system use area.
struct SystemUse<'a>(&'a [u8]);

impl<'a> Iterator for SystemUse<'a> {
    type Item = Result<([u8; 2], &'a [u8]), RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let &[first, second, length, _version, ..] = self.0 else { return None };
        // Padding, or the end mark.
        if first == 0 || (first, second) == (b'S', b'T') {
            self.0 = &[];
            return None;
        }
        let length = usize::from(length);
        let Some((entry, rest)) = (length >= 4).then(|| self.0.split_at_checked(length)).flatten() else {
            self.0 = &[];
            return Some(Err("a system use entry reaches behind its area".into()));
        };
        self.0 = rest;
        Some(Ok(([first, second], entry.get(4..).unwrap_or_default())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(identifier: &[u8], system_use: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 33];
        bytes[32] = u8::try_from(identifier.len()).unwrap();
        bytes.extend(identifier);
        if identifier.len().is_multiple_of(2) {
            bytes.push(0);
        }
        bytes.extend(system_use);
        bytes[0] = u8::try_from(bytes.len()).unwrap();
        bytes
    }

    fn name(identifier: &[u8], system_use: &[u8], continuation: &[u8]) -> Result<String, RecordError> {
        let record = Record::parse(&record(identifier, system_use)).unwrap().unwrap();
        let details = record.details(0, |_, _, _| Ok(continuation.to_vec()))?;
        Ok(String::from_utf8(details.name).unwrap())
    }

    fn ce(block: u32, offset: u32, length: u32) -> Vec<u8> {
        let mut entry = b"CE\x1c\x01".to_vec();
        for number in [block, offset, length] {
            entry.extend(number.to_le_bytes());
            entry.extend(number.to_be_bytes());
        }
        entry
    }

    #[test]
    fn names() {
        assert_eq!(name(b"FILE.TXT;1", b"", b"").unwrap(), "FILE.TXT");
        assert_eq!(name(b"FILE.;1", b"", b"").unwrap(), "FILE");
        assert_eq!(name(b"F;1", b"NM\x08\x01\x00abc", b"").unwrap(), "abc");
        assert_eq!(name(b"F;1", b"NM\x08\x01\x01abcNM\x07\x01\x00de", b"").unwrap(), "abcde");
        let continued = [b"NM\x07\x01\x01ab".as_slice(), &ce(20, 0, 7)].concat();
        assert_eq!(name(b"F;1", &continued, b"NM\x07\x01\x00cd").unwrap(), "abcd");
    }

    #[test]
    fn names_that_lie() {
        let loops = ce(20, 0, 28);
        let cases: [(&[u8], &[u8], &str); 7] = [
            (b"NM\x09\x01\x00a/../", b"", "cannot be"),
            (b"NM\x07\x01\x00..", b"", "cannot be"),
            (b"NM\x05\x01\x00", b"", "cannot be"),
            (b"NM\x09\x01\x00abc", b"", "reaches behind"),
            (b"NM\x00\x01\x00abc", b"", "reaches behind"),
            (&loops, &loops, "too many"),
            (&ce(20, 0, 1 << 20), b"", "too long"),
        ];
        for (system_use, continuation, says) in cases {
            let error = name(b"F;1", system_use, continuation).unwrap_err();
            assert!(error.0.contains(says), "{error:?} for {system_use:?}");
        }
    }

    #[test]
    fn records_that_lie() {
        let good = record(b"F;1", b"");
        assert!(Record::parse(&good).unwrap().is_some());
        assert!(Record::parse(&[0; 40]).unwrap().is_none());
        let change = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Record::parse(&bytes)
        };
        for (at, byte) in [(0, 255), (0, 20), (1, 1), (2, 1), (10, 1), (26, 1), (32, 0), (32, 200)] {
            assert!(change(at, byte).is_err(), "byte {at} = {byte}");
        }
    }
}
