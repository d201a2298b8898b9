//! Space and durability: filesystems by path, and how long a small durable write takes.

use camino::Utf8Path;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Probed, answer};
use crate::host::{EntryKind, Host};

/// How many small durable writes are measured.
const WRITES: u32 = 200;

/// The filesystem under a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Filesystem {
    /// The path that was asked for; it need not exist yet.
    pub path: String,
    /// What is under it.
    pub space: Probed<Space>,
}

/// Size and place of a filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Space {
    /// Where it is mounted.
    pub mount: String,
    /// For example `ext4`.
    pub kind: String,
    /// In bytes.
    pub size_bytes: u64,
    /// What an unprivileged user could still write, in bytes.
    pub available_bytes: u64,
}

pub(super) fn filesystem(host: &dyn Host, path: &Utf8Path) -> Filesystem {
    let space = nearest(host, path)
        .and_then(|path| answer(host, "df", ["--output=fstype,size,avail,target", "-B1", path.as_str()]))
        .and_then(|text| parse_df(&text));
    Filesystem { path: path.to_string(), space: space.into() }
}

pub(super) fn sync(host: &dyn Host, directory: Option<&Utf8Path>) -> Probed<u64> {
    let Some(directory) = directory else {
        return Probed::unknown("the disk holds no filesystem yet to write to");
    };
    nearest(host, directory)
        .and_then(|path| host.measure_sync(path, WRITES).map_err(|error| error.to_string()))
        .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
        .into()
}

/// The longest part of the path that is there; for a file, the directory it lies in.
fn nearest<'a>(host: &dyn Host, path: &'a Utf8Path) -> Result<&'a Utf8Path, String> {
    for part in path.ancestors() {
        if host.look(part).map_err(|error| error.to_string())?.is_some_and(|entry| entry.kind == EntryKind::Directory) {
            return Ok(part);
        }
    }
    Err(format!("{path} is no absolute path"))
}

/// `df --output=fstype,size,avail,target -B1 PATH`.
fn parse_df(text: &str) -> Result<Space, String> {
    let line = text.lines().nth(1).ok_or("df printed no filesystem")?;
    let mut fields = line.split_whitespace();
    let (kind, size, available) = (fields.next(), fields.next(), fields.next());
    let number = |field: Option<&str>| field.and_then(|field| field.parse().ok());
    match (kind, number(size), number(available)) {
        (Some(kind), Some(size_bytes), Some(available_bytes)) => Ok(Space {
            mount: fields.collect::<Vec<_>>().join(" "),
            kind: kind.to_owned(),
            size_bytes,
            available_bytes,
        }),
        _ => Err(format!("df printed a line that is not understood: {line:?}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Space, parse_df};

    #[test]
    fn df() {
        let space = parse_df(include_str!("fixtures/df-root.txt")).unwrap();
        assert_eq!(
            space,
            Space {
                mount: "/".to_owned(),
                kind: "ext4".to_owned(),
                size_bytes: 270_553_174_016,
                available_bytes: 80_045_621_248,
            }
        );
        let head = "Type 1B-blocks Avail Mounted on\n";
        assert_eq!(parse_df(&format!("{head}vfat 10 5 /media/my disk\n")).unwrap().mount, "/media/my disk");
        for bad in ["", head, &format!("{head}ext4 - - /\n"), &format!("{head}ext4\n")] {
            assert!(parse_df(bad).is_err(), "{bad:?}");
        }
    }
}
