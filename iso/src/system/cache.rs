//! What is made once and used by each build: a folder per key below the cache.
//!
//! Invariant: a folder under its final name is whole. Two builds that want the same one make it once.

use std::fs::{self, File};

use camino::{Utf8Path, Utf8PathBuf};

use crate::Error;

/// How many folders of a kind are kept.
const KEPT: usize = 3;

/// The folder `KIND-KEY`; `make` fills it when it is not there.
pub(crate) fn folder(
    cache: &Utf8Path,
    kind: &str,
    key: &str,
    make: impl FnOnce(&Utf8Path) -> Result<(), Error>,
) -> Result<Utf8PathBuf, Error> {
    let result = cache.join(format!("{kind}-{key}"));
    fs::create_dir_all(cache).map_err(Error::io(format!("create {cache}")))?;
    let lock = cache.join(format!("{kind}.lock"));
    let file = File::create(&lock).map_err(Error::io(format!("create {lock}")))?;
    file.lock().map_err(Error::io(format!("lock {lock}")))?;
    if !result.is_dir() {
        let part = cache.join(format!("{kind}-{key}.part"));
        remove(&part)?;
        fs::create_dir_all(&part).map_err(Error::io(format!("create {part}")))?;
        make(&part)?;
        fs::rename(&part, &result).map_err(Error::io(format!("rename {part} to {result}")))?;
    }
    // The newest by its time of use.
    File::open(&result)
        .and_then(|file| file.set_modified(std::time::SystemTime::now()))
        .map_err(Error::io(format!("mark {result} as used")))?;
    prune(cache, kind)?;
    Ok(result)
}

/// The newest folder of a kind whose key begins with `prefix`.
pub(crate) fn newest(cache: &Utf8Path, kind: &str, prefix: &str) -> Option<Utf8PathBuf> {
    let start = format!("{kind}-{prefix}");
    all(cache, kind).into_iter().find(|path| path.file_name().is_some_and(|name| name.starts_with(&start)))
}

fn all(cache: &Utf8Path, kind: &str) -> Vec<Utf8PathBuf> {
    let mut found: Vec<_> = cache
        .read_dir_utf8()
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().starts_with(&format!("{kind}-")) && entry.path().extension() != Some("part"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path().to_owned())))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

fn prune(cache: &Utf8Path, kind: &str) -> Result<(), Error> {
    all(cache, kind).iter().skip(KEPT).try_for_each(|old| remove(old))
}

fn remove(path: &Utf8Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!("remove {path}"))(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_is_made_once_and_never_half() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Utf8Path::from_path(directory.path()).unwrap();
        let failed = folder(cache, "tree", "aa", |part| {
            fs::write(part.join("half"), "x").unwrap();
            Err(Error::Options { why: "no".to_owned() })
        });
        assert!(failed.is_err() && newest(cache, "tree", "").is_none());
        let made = folder(cache, "tree", "aa", |part| {
            assert!(!part.join("half").exists());
            fs::write(part.join("whole"), "x").map_err(Error::io("write"))
        });
        let again = folder(cache, "tree", "aa", |_| Err(Error::Options { why: "made twice".to_owned() }));
        assert_eq!(made.unwrap(), again.unwrap());
        for key in ["bb", "cc", "dd"] {
            folder(cache, "tree", key, |_| Ok(())).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(!cache.join("tree-aa").exists(), "the oldest is gone");
        assert_eq!(newest(cache, "tree", "").unwrap(), cache.join("tree-dd"));
        assert_eq!(newest(cache, "tree", "b").unwrap(), cache.join("tree-bb"));
    }
}
