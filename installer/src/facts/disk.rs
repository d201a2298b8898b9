//! Disks and swap, out of one call of lsblk(8) and /proc/swaps.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Probed, answer, needed};
use crate::host::{EntryKind, Host};
use crate::layout::LABEL_SITE;

/// Labels of a medium: of a volume that carries answers or a bundle, and of the one that boots. FAT may hold them in lower case.
const MEDIUM_LABELS: [&str; 2] = ["COFFERDAM", "COFFERDAM_OS"];

const COLUMNS: &str = "NAME,PATH,TYPE,SIZE,MODEL,SERIAL,WWN,TRAN,RO,RM,FSTYPE,PTTYPE,MOUNTPOINTS,PKNAME,LABEL,UUID";

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Disk {
    /// Kernel name, for example `sda`.
    pub name: String,
    /// For example `/dev/sda`.
    pub path: String,
    /// Serial number; many virtual disks have none.
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// `nvme`, `sata`, `sas`, `usb`, `virtio`; unknown to some kernels.
    pub bus: Option<String>,
    /// In bytes.
    pub size_bytes: u64,
    /// It refuses writes.
    pub read_only: bool,
    /// What is on it now, in words; empty when nothing was found.
    pub contents: Vec<String>,
    /// Why it must not be erased: mounted, swap, or a part of something larger.
    pub in_use: Option<String>,
    /// It is an installation medium (an ISO image, or a volume labelled `COFFERDAM`).
    pub is_medium: bool,
    /// The finished site that its encrypted volume holds; the name may be cut to 32 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
}

impl Disk {
    /// What the erase token is compared with: the serial number, or the name of a disk that has none.
    pub fn identity(&self) -> &str {
        self.serial.as_deref().unwrap_or(&self.name)
    }

    /// Nothing speaks against erasing it, if its owner says so.
    pub fn is_free(&self) -> bool {
        self.in_use.is_none() && !self.is_medium && !self.read_only
    }

    /// Why it is not free.
    pub fn obstacle(&self) -> Option<String> {
        let other = || {
            let medium = self.is_medium.then_some("it is an installation medium");
            medium.or_else(|| self.read_only.then_some("it is read-only")).map(str::to_owned)
        };
        self.in_use.clone().or_else(other)
    }
}

/// A swap area in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Swap {
    /// Device or file.
    pub path: String,
    /// Whether what is swapped out is unreadable after power-off.
    pub encrypted: Probed<bool>,
}

/// One line of lsblk's tree.
#[derive(Debug, Deserialize)]
struct Node {
    name: String,
    path: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    size: Option<u64>,
    model: Option<String>,
    serial: Option<String>,
    wwn: Option<String>,
    tran: Option<String>,
    #[serde(default)]
    ro: bool,
    fstype: Option<String>,
    pttype: Option<String>,
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
    label: Option<String>,
    #[serde(default)]
    children: Vec<Node>,
}

#[derive(Deserialize)]
struct Tree {
    blockdevices: Vec<Node>,
}

pub(super) fn probe(host: &dyn Host) -> (Probed<Vec<Disk>>, Probed<Vec<Swap>>) {
    let tree = answer(host, "lsblk", ["--json", "--bytes", "--output", COLUMNS]).and_then(|text| parse_tree(&text));
    let areas = needed(host, "/proc/swaps").map(|text| swap_areas(&text));
    let disks = tree.as_ref().map(|tree| {
        let mut disks = disks(tree);
        for disk in &mut disks {
            require_device(host, disk);
        }
        disks
    });
    let swap = areas.map(|areas| areas.into_iter().map(|(path, kind)| swap(path, &kind, tree.as_ref().ok())).collect());
    (disks.into(), swap.into())
}

/// In a container lsblk lists the disks of the machine around it, whose mounts it does not see.
fn require_device(host: &dyn Host, disk: &mut Disk) {
    let is_device =
        matches!(host.look(disk.path.as_str().into()), Ok(Some(entry)) if entry.kind == EntryKind::BlockDevice);
    if !is_device && disk.in_use.is_none() {
        disk.in_use = Some(format!("there is no device {}: the disk belongs to another system", disk.path));
    }
}

fn parse_tree(text: &str) -> Result<Vec<Node>, String> {
    // lsblk prints nothing at all where there is no block device.
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let tree: Tree = serde_json::from_str(text).map_err(|error| format!("lsblk's JSON is not understood: {error}"))?;
    Ok(tree.blockdevices)
}

fn disks(tree: &[Node]) -> Vec<Disk> {
    let is_disk = |node: &&Node| {
        node.kind == "disk"
            && node.size.unwrap_or(0) > 0
            && !["zram", "ram", "fd"].iter().any(|name| node.name.starts_with(name))
    };
    tree.iter().filter(is_disk).map(disk).collect()
}

fn disk(node: &Node) -> Disk {
    let mut contents = Vec::new();
    if let Some(table) = &node.pttype {
        contents.push(format!("{} partition table", if table == "dos" { "MBR" } else { "GPT" }));
    }
    describe(node, &mut contents);
    Disk {
        name: node.name.clone(),
        path: node.path.clone().unwrap_or_else(|| format!("/dev/{}", node.name)),
        serial: trimmed(node.serial.as_ref()),
        wwn: trimmed(node.wwn.as_ref()),
        model: trimmed(node.model.as_ref()),
        bus: trimmed(node.tran.as_ref()),
        size_bytes: node.size.unwrap_or(0),
        read_only: node.ro,
        contents,
        in_use: in_use(node),
        is_medium: is_medium(node),
        site: site(node),
    }
}

fn trimmed(text: Option<&String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What people should read before they agree to erase it.
fn describe(node: &Node, contents: &mut Vec<String>) {
    let what = match node.fstype.as_deref() {
        None => None,
        Some("crypto_LUKS") => Some("LUKS encrypted volume".to_owned()),
        Some("LVM2_member") => Some("part of an LVM volume group".to_owned()),
        Some("linux_raid_member") => Some("part of a Linux RAID".to_owned()),
        Some("swap") => Some("swap".to_owned()),
        Some(name) => Some(format!("{name} filesystem")),
    };
    let label = node.label.as_ref().map(|label| format!(" \"{label}\"")).unwrap_or_default();
    let mounts: Vec<_> = node.mountpoints.iter().flatten().map(String::as_str).collect();
    let mounted = if mounts.is_empty() { String::new() } else { format!(", in use at {}", mounts.join(" ")) };
    if node.kind != "disk" {
        let what = what.unwrap_or_else(|| "no known content".to_owned());
        contents.push(format!("{} {}: {what}{label}{mounted}, {}", node.kind, node.name, size(node.size.unwrap_or(0))));
    } else if let Some(what) = what {
        contents.push(format!("{what}{label}{mounted}"));
    } else if !mounted.is_empty() {
        contents.push(format!("unknown content{mounted}"));
    }
    node.children.iter().for_each(|child| describe(child, contents));
}

fn in_use(node: &Node) -> Option<String> {
    if let Some(mount) = node.mountpoints.iter().flatten().next() {
        return Some(if mount == "[SWAP]" {
            format!("{} is used as swap", node.name)
        } else {
            format!("{} is mounted at {mount}", node.name)
        });
    }
    let member = match node.fstype.as_deref() {
        Some("LVM2_member") => Some("an LVM volume group"),
        Some("mpath_member") => Some("a multipath device"),
        Some("zfs_member") => Some("a ZFS pool"),
        Some("bcache") => Some("a bcache set"),
        Some(name) if name.ends_with("_raid_member") => Some("a RAID"),
        _ => None,
    };
    if let Some(whole) = member {
        return Some(format!("{} is part of {whole}", node.name));
    }
    node.children.iter().find_map(|child| {
        in_use(child).or_else(|| {
            (child.kind != "part").then(|| format!("{} is held by {} {}", node.name, child.kind, child.name))
        })
    })
}

fn site(node: &Node) -> Option<String> {
    let own = node.label.as_deref().filter(|_| node.fstype.as_deref() == Some("crypto_LUKS"));
    let own = own.and_then(|label| label.strip_prefix(LABEL_SITE)).map(str::to_owned);
    own.or_else(|| node.children.iter().find_map(site))
}

/// The data volume of an installation that was interrupted is none, whatever its label and that of its filesystem.
fn is_medium(node: &Node) -> bool {
    if node.fstype.as_deref() == Some("crypto_LUKS") {
        return false;
    }
    let has_label = |label: &String| MEDIUM_LABELS.iter().any(|known| label.eq_ignore_ascii_case(known));
    node.fstype.as_deref() == Some("iso9660")
        || node.label.as_ref().is_some_and(has_label)
        || node.children.iter().any(is_medium)
}

/// /proc/swaps: path and kind of each area. Blanks in paths are written as `\040`.
fn swap_areas(text: &str) -> Vec<(String, String)> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.replace("\\040", " "), fields.next()?.to_owned()))
        })
        .collect()
}

fn swap(path: String, kind: &str, tree: Option<&Vec<Node>>) -> Swap {
    let encrypted = if path.contains("/zram") {
        // It lies in memory.
        Probed::Known(true)
    } else if kind != "partition" {
        Probed::unknown("it is a file")
    } else {
        let mut encrypted = BTreeSet::new();
        let mut all = BTreeSet::new();
        for node in tree.into_iter().flatten() {
            walk(node, false, &mut all, &mut encrypted);
        }
        // /proc/swaps says /dev/dm-0 where lsblk says /dev/mapper/NAME; lsblk marks it by its mount point.
        let is_known = all.contains(&path) || path.starts_with("/dev/dm-");
        if is_known {
            Probed::Known(encrypted.contains(&path) || (path.starts_with("/dev/dm-") && encrypted.contains("[SWAP]")))
        } else {
            Probed::unknown("lsblk does not list it")
        }
    };
    Swap { path, encrypted }
}

fn walk(node: &Node, under_crypt: bool, all: &mut BTreeSet<String>, encrypted: &mut BTreeSet<String>) {
    let is_crypt = under_crypt || node.kind == "crypt";
    if let Some(path) = &node.path {
        all.insert(path.clone());
        if is_crypt {
            encrypted.insert(path.clone());
            if node.mountpoints.iter().flatten().any(|mount| mount == "[SWAP]") {
                encrypted.insert("[SWAP]".to_owned());
            }
        }
    }
    node.children.iter().for_each(|child| walk(child, is_crypt, all, encrypted));
}

/// A size for people, for example `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut shown = bytes;
    let mut rest = 0;
    let mut unit = 0;
    while shown >= 1024 && unit + 1 < units.len() {
        rest = shown % 1024 * 10 / 1024;
        shown /= 1024;
        unit += 1;
    }
    if rest == 0 { format!("{shown} {}", units[unit]) } else { format!("{shown}.{rest} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Disk, Probed, disks, parse_tree, size, swap, swap_areas};

    fn server() -> Vec<Disk> {
        disks(&parse_tree(include_str!("fixtures/lsblk-server.json")).unwrap())
    }

    #[test]
    fn server_disks() {
        let table: [(&str, Option<&str>, bool, &[&str]); 6] = [
            (
                "sda",
                Some("sda1 is mounted at /boot/efi"),
                false,
                &[
                    "GPT partition table",
                    "part sda1: vfat filesystem, in use at /boot/efi, 512 MiB",
                    "part sda2: LUKS encrypted volume, 222.6 GiB",
                    "crypt root: ext4 filesystem \"root\", in use at /, 222.5 GiB",
                ],
            ),
            ("sdb", None, false, &[]),
            ("sdc", Some("sdc is part of a RAID"), false, &["part of a Linux RAID"]),
            (
                "sdd",
                Some("sdd1 is part of an LVM volume group"),
                false,
                &["MBR partition table", "part sdd1: part of an LVM volume group, 1.8 TiB"],
            ),
            ("sde", None, true, &["MBR partition table", "iso9660 filesystem \"COFFERDAM\""]),
            (
                "nvme0n1",
                None,
                false,
                &["GPT partition table", "part nvme0n1p1: ext4 filesystem \"old data\", 476.9 GiB"],
            ),
        ];
        let disks = server();
        assert_eq!(disks.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>(), table.map(|row| row.0));
        for (disk, (name, in_use, is_medium, contents)) in disks.iter().zip(table) {
            assert_eq!((disk.in_use.as_deref(), disk.is_medium), (in_use, is_medium), "{name}");
            assert_eq!(disk.contents, contents, "{name}");
        }
        assert_eq!(disks[1].serial.as_deref(), Some("S6CTNX0T512345"), "blanks around serials are cut");
        assert_eq!(disks[1].bus.as_deref(), Some("sata"));
    }

    #[test]
    fn what_an_interrupted_installation_left_is_no_medium() {
        let tree = |label: &str, kind: &str, child: &str| {
            format!(
                r#"{{"blockdevices": [{{"name": "vda", "path": "/dev/vda", "type": "disk", "size": 1, "pttype": "gpt", "children": [
                    {{"name": "vda1", "type": "part", "fstype": "{kind}", "label": "{label}", "children": [
                        {{"name": "inner", "type": "crypt", "fstype": "ext4", "label": "{child}"}}]}}]}}]}}"#
            )
        };
        let is_medium = |text: &str| disks(&parse_tree(text).unwrap())[0].is_medium;
        assert!(!is_medium(&tree("cofferdam-data", "crypto_LUKS", "cofferdam")));
        let site = |label: &str, kind: &str| disks(&parse_tree(&tree(label, kind, "")).unwrap())[0].site.clone();
        assert_eq!(site("cofferdam-data", "crypto_LUKS"), None, "it was not finished");
        assert_eq!(site("cofferdam-site-rack7", "crypto_LUKS").as_deref(), Some("rack7"));
        assert_eq!(site("cofferdam-site-rack7", "vfat"), None);
        for label in ["COFFERDAM", "COFFERDAM_OS", "cofferdam"] {
            assert!(is_medium(&tree(label, "vfat", "")), "{label}");
        }
        assert!(is_medium(&tree("ANY", "iso9660", "")));
        assert!(!is_medium(&tree("COFFERDAM_OLD", "ext4", "")));
    }

    #[test]
    fn inside_a_container() {
        let disks = disks(&parse_tree(include_str!("fixtures/lsblk-container.json")).unwrap());
        assert_eq!(disks.len(), 1, "zram is no disk: {disks:?}");
        assert_eq!(disks[0].in_use.as_deref(), Some("vda is mounted at /"));
        assert_eq!(disks[0].identity(), "vda", "no serial number");
        assert_eq!(parse_tree("").unwrap().len(), 0);
        assert!(parse_tree("lsblk: failed").is_err());
    }

    #[test]
    fn swap_on_what() {
        let tree = parse_tree(include_str!("fixtures/lsblk-swap.json")).unwrap();
        let areas = swap_areas(include_str!("fixtures/swaps.txt"));
        let found: Vec<_> = areas.into_iter().map(|(path, kind)| swap(path, &kind, Some(&tree)).encrypted).collect();
        assert_eq!(
            found,
            [
                Probed::Known(false),
                Probed::Known(true),
                Probed::unknown("it is a file"),
                Probed::Known(true),
                Probed::unknown("lsblk does not list it"),
            ]
        );
        assert!(swap_areas(include_str!("fixtures/swaps-none.txt")).is_empty());
    }

    #[test]
    fn sizes() {
        let table = [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2 << 30, "2 GiB"), (3 << 50, "3072 TiB")];
        for (bytes, expected) in table {
            assert_eq!(size(bytes), expected);
        }
    }
}
