//! Where the test beds keep what is too dear to be made for each run: `${XDG_CACHE_HOME:-~/.cache}/cofferdam`.
//! Called by `fast_host` and `finished_site`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The folder of this name in the cache; it is there afterwards.
pub fn folder(name: &str) -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache")
        }
    };
    let folder = cache.join("cofferdam").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}
