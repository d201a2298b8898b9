//! Images that lie: each is refused with a word about why, fast and without much memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Read as _;

use camino::{Utf8Path, Utf8PathBuf};
use iso::Error;
use iso::read::Image;
use proptest::prelude::*;

const SECTOR: usize = 2048;
const ROOT: u32 = 18;
const CHILD: u32 = 19;

fn both(number: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn record(block: u32, size: u32, flags: u8, name: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 33];
    bytes[2..10].copy_from_slice(&both(block));
    bytes[10..18].copy_from_slice(&both(size));
    bytes[25] = flags;
    bytes[32] = u8::try_from(name.len()).unwrap();
    bytes.extend(name);
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    bytes[0] = u8::try_from(bytes.len()).unwrap();
    bytes
}

/// The smallest image: two descriptors, a root directory, one more directory, and 10 sectors of data from 20 on, each filled with
/// its own number.
fn image(root: &[Vec<u8>], child: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 30 * SECTOR];
    let primary = &mut bytes[16 * SECTOR..17 * SECTOR];
    primary[..7].copy_from_slice(b"\x01CD001\x01");
    primary[40..72].fill(b' ');
    primary[40..47].copy_from_slice(b"HOSTILE");
    primary[80..88].copy_from_slice(&both(30));
    primary[128..132].copy_from_slice(&[0, 8, 8, 0]);
    primary[156..190].copy_from_slice(&record(ROOT, 2048, 2, b"\0"));
    bytes[17 * SECTOR..17 * SECTOR + 7].copy_from_slice(b"\xffCD001\x01");
    for (at, records) in [(ROOT, root), (CHILD, child)] {
        let content = records.concat();
        let start = at as usize * SECTOR;
        bytes[start..start + content.len()].copy_from_slice(&content);
    }
    for sector in 20..30 {
        bytes[sector * SECTOR..(sector + 1) * SECTOR].fill(u8::try_from(sector).unwrap());
    }
    bytes
}

fn dots() -> Vec<Vec<u8>> {
    vec![record(ROOT, 2048, 2, b"\0"), record(ROOT, 2048, 2, b"\x01")]
}

fn with(records: &[Vec<u8>]) -> Vec<u8> {
    image(&[dots(), records.to_vec()].concat(), &[])
}

fn open(bytes: &[u8]) -> Result<Image, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(directory.path().join("image")).unwrap();
    fs::write(&path, bytes).unwrap();
    // The open file outlives its name.
    Image::open(Utf8Path::new(&path))
}

#[test]
fn an_honest_image_is_read() {
    let image = open(&with(&[
        record(20, 3000, 0, b"A;1"),
        record(22, 2048, 0x80, b"B;1"),
        record(25, 4096, 0x80, b"B;1"),
        record(24, 5, 0, b"B;1"),
        record(CHILD, 2048, 2, b"C"),
        record(20, 3000, 0, b"HARDLINK;1"),
        record(29, 0, 0, b"Z;1"),
    ]))
    .unwrap();
    assert_eq!(image.label(), "HOSTILE");
    assert_eq!(image.created(), None);
    let list: Vec<(&str, u64)> = image.entries().map(|entry| (entry.path.as_str(), entry.size)).collect();
    assert_eq!(list, [("A", 3000), ("B", 6149), ("C", 0), ("HARDLINK", 3000), ("Z", 0)]);
    // Extents are read in the order of the records, not of their places.
    let mut bytes = Vec::new();
    image.open_file("B").unwrap().read_to_end(&mut bytes).unwrap();
    let expected = [vec![22; 2048], vec![25; 2048], vec![26; 2048], vec![24; 5]].concat();
    assert!(bytes == expected);
    assert!(matches!(image.open_file("C"), Err(Error::NoSuchFile { .. })), "a directory is no file");
    assert_eq!(open(&with(&[])).unwrap().entries().count(), 0);
}

#[test]
fn lies_are_refused() {
    let in_descriptor = |at: usize, with_bytes: &[u8]| {
        let mut bytes = with(&[]);
        bytes[16 * SECTOR + at..16 * SECTOR + at + with_bytes.len()].copy_from_slice(with_bytes);
        bytes
    };
    let two =
        |child: Vec<u8>| image(&[dots(), vec![record(CHILD, 2048, 2, b"D")]].concat(), &[dots(), vec![child]].concat());
    let many: Vec<Vec<u8>> = (0..40).map(|_| record(ROOT, 2048, 2, b"D")).collect();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty file", vec![], "ends before"),
        ("zeros", vec![0; 40 * SECTOR], "no volume descriptor"),
        ("no primary", in_descriptor(0, &[2]), "no primary"),
        ("block size", in_descriptor(128, &[0, 2, 2, 0]), "blocks of 512"),
        ("block size twice", in_descriptor(128, &[0, 8, 2, 0]), "block size differ"),
        ("volume larger than the file", in_descriptor(80, &both(31)), "the file only"),
        ("volume of the largest size", in_descriptor(80, &both(u32::MAX)), "the file only"),
        ("root is a file", in_descriptor(156, &record(ROOT, 2048, 0, b"\0")), "no directory"),
        ("root behind the end", in_descriptor(156, &record(30, 2048, 2, b"\0")), "behind the end"),
        ("root at the last place", in_descriptor(156, &record(u32::MAX, u32::MAX, 2, b"\0")), "behind the end"),
        ("file behind the end", with(&[record(29, 2049, 0, b"A;1")]), "behind the end"),
        ("file of the largest size", with(&[record(20, u32::MAX, 0, b"A;1")]), "behind the end"),
        ("directory in itself", with(&[record(ROOT, 2048, 2, b"D")]), "in itself"),
        ("directory in its child", two(record(ROOT, 2048, 2, b"UP")), "in itself"),
        ("directory twice", with(&[record(CHILD, 2048, 2, b"D"), record(CHILD, 2048, 2, b"E")]), "two places"),
        ("many loops", with(&many), "there twice"),
        ("two of a name", with(&[record(20, 5, 0, b"A;1"), record(21, 5, 0, b"A;1")]), "there twice"),
        ("file over file", with(&[record(20, 3000, 0, b"A;1"), record(21, 5, 0, b"B;1")]), "shares bytes"),
        ("file longer than its twin", with(&[record(20, 6, 0, b"A;1"), record(20, 5, 0, b"B;1")]), "shares bytes"),
        ("file over directory", with(&[record(ROOT, 2048, 0, b"A;1")]), "shares bytes"),
        ("part missing", with(&[record(20, 2048, 0x80, b"A;1")]), "last part is missing"),
        ("part of another", with(&[record(20, 2048, 0x80, b"A;1"), record(21, 5, 0, b"B;1")]), "last part is missing"),
        ("part that is short", with(&[record(20, 5, 0x80, b"A;1"), record(21, 5, 0, b"A;1")]), "full block"),
        ("a name with a slash", with(&[record(20, 5, 0, b"../A;1")]), "cannot be a file's name"),
        ("a name of dots", with(&[record(20, 5, 0, b"..;1")]), "cannot be a file's name"),
    ];
    for (case, bytes, says) in cases {
        let error = open(&bytes).map(drop).unwrap_err();
        assert!(error.to_string().contains(says), "{case}: {error}");
        assert_eq!(error.exit_code(), 4, "{case}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is changed in the descriptors and directories: an answer, no panic, and never a byte from outside the image.
    #[test]
    fn any_change_is_survived(changes in prop::collection::vec((16 * SECTOR..20 * SECTOR, any::<u8>()), 1..40)) {
        let mut bytes = with(&[
            record(20, 2048, 0x80, b"A;1"),
            record(21, 5, 0, b"A;1"),
            record(CHILD, 2048, 2, b"D"),
        ]);
        for (at, byte) in changes {
            // Near what matters.
            let at = if at >= 18 * SECTOR { at - at % SECTOR + at % 256 } else { at };
            bytes[at] = byte;
        }
        if let Ok(image) = open(&bytes) {
            let names: Vec<String> = image.entries().map(|entry| entry.path.clone()).collect();
            for name in names {
                if let Ok(file) = image.open_file(&name) {
                    let mut content = Vec::new();
                    file.take(1 << 20).read_to_end(&mut content).unwrap();
                    prop_assert!(content.len() <= bytes.len());
                }
            }
        }
    }
}
