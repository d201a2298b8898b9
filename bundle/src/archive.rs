//! The tar side of a bundle: what stands around a member's content. Invariant: header, padding and end are a function
//! of name and size alone, so that a reader computes what must come next and compares bytes; it parses nothing and no
//! name from an archive is ever used. Called by `create` and `read`.
//!
//! Format: POSIX.1-1988 ustar; sizes from 8 GiB on in GNU's base-256; names over 100 bytes by a GNU `L` member.

use crate::oci::Digest;

/// Tar's block.
pub(crate) const BLOCK: u64 = 512;
const HEADER: usize = 512;
/// Two zero blocks end an archive; they stand in the last member's frame.
pub(crate) const END: u64 = 2 * BLOCK;

/// Names of the members before the blobs, in order.
pub(crate) const INDEX_NAME: &str = "cofferdam/index.json";
pub(crate) const SIGNATURE_NAME: &str = "cofferdam/index.json.minisig";
pub(crate) const LAYOUT_NAME: &str = "oci-layout";
pub(crate) const OCI_INDEX_NAME: &str = "index.json";

/// The member name of a blob: `blobs/ALGORITHM/HEX`.
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Zero bytes after content of that size.
pub(crate) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// Bytes of a whole member (header, content, padding), and of the archive's end if it is the last one.
pub(crate) fn member_size(name: &str, size: u64, is_last: bool) -> u64 {
    let header = if name.len() > NAME { 3 * BLOCK } else { BLOCK };
    header + size + padding(size) + if is_last { END } else { 0 }
}

/// Length of the name field.
const NAME: usize = 100;

/// The header of a member: one block, or three when the name is longer than 100 bytes.
pub(crate) fn header(name: &str, size: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER);
    if name.len() > NAME {
        bytes.extend_from_slice(&block("././@LongLink", name.len() as u64 + 1, b'L'));
        bytes.extend_from_slice(name.as_bytes());
        bytes.resize(2 * HEADER, 0);
    }
    bytes.extend_from_slice(&block(name.get(..NAME).unwrap_or(name), size, b'0'));
    bytes
}

fn block(name: &str, size: u64, kind: u8) -> [u8; HEADER] {
    let mut block = [0; HEADER];
    let mut put = |at: usize, bytes: &[u8]| {
        block.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
    };
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < 1 << 33 {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block.iter_mut().skip(148).zip(format!("{sum:07o}\0").as_bytes()).for_each(|(to, from)| *to = *from);
    block
}

/// The size that an (untrusted) ustar header states in octal, for the two members that no index describes.
pub(crate) fn stated_size(header: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(header.get(124..135)?).ok()?;
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_tar_crate_reads_our_headers() {
        let long = blob_name(&format!("sha512:{}", "ab".repeat(64)).parse().unwrap());
        for (name, size) in [("oci-layout", 0), ("index.json", 700), (long.as_str(), 513), ("a", 1 << 20)] {
            let mut bytes = header(name, size);
            bytes.resize(bytes.len() + usize::try_from(size + padding(size) + END).unwrap(), 0);
            assert_eq!(bytes.len() as u64, member_size(name, size, true));
            let mut archive = tar::Archive::new(bytes.as_slice());
            let entry = archive.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(entry.path_bytes().as_ref(), name.as_bytes());
            assert_eq!(entry.size(), size);
            assert_eq!(entry.header().mode().unwrap(), 0o644);
            assert_eq!(entry.header().mtime().unwrap(), 0);
        }
    }

    #[test]
    fn gnu_tar_reads_names_over_a_hundred_bytes() {
        let name = blob_name(&format!("sha512:{}", "ab".repeat(64)).parse().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        let mut bytes = header(&name, 0);
        bytes.resize(bytes.len() + 1024, 0);
        std::fs::write(&path, bytes).unwrap();
        let listed = std::process::Command::new("tar").arg("-tf").arg(&path).output().expect("tar must be installed");
        assert_eq!(String::from_utf8(listed.stdout).unwrap().trim(), name);
    }

    #[test]
    fn headers_are_those_of_the_tar_crate() {
        for size in [0, 511, (1 << 33) - 1, 1 << 33, 300 << 30, u64::from(u32::MAX) << 20] {
            let mut expected = tar::Header::new_ustar();
            expected.set_path("oci-layout").unwrap();
            expected.set_mode(0o644);
            expected.set_uid(0);
            expected.set_gid(0);
            expected.set_size(size);
            expected.set_entry_type(tar::EntryType::Regular);
            expected.set_cksum();
            assert_eq!(header("oci-layout", size), expected.as_bytes(), "{size}");
        }
    }

    #[test]
    fn sizes_beyond_eight_gibibytes_are_base_256() {
        for size in [(1 << 33) - 1, 1 << 33, 300 << 30, u64::from(u32::MAX) << 20] {
            let bytes = header("a", size);
            let parsed = tar::Header::from_byte_slice(&bytes);
            assert_eq!(parsed.entry_size().unwrap(), size);
            assert_eq!(parsed.cksum().unwrap(), {
                let mut again = parsed.clone();
                again.set_cksum();
                again.cksum().unwrap()
            });
        }
    }
}
