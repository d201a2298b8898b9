//! What the kernel can do: control groups, filesystems, netfilter, device-mapper. /proc and /sys are asked first, then
//! the files of the modules; `modprobe` only where those say nothing, since it may be missing or a stand-in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Probed, answer, ask, needed, text};
use crate::host::Host;

/// What the kernel can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Kernel {
    /// Release, as in `uname -r`.
    pub release: Probed<String>,
    /// Control groups.
    pub cgroup: Probed<Cgroup>,
    /// `overlay`, `br_netfilter`, `nf_conntrack`, `dm_crypt`.
    pub features: Vec<Feature>,
}

impl Kernel {
    /// Whether a feature is there or can be loaded.
    pub fn feature(&self, name: &str) -> Probed<bool> {
        match self.features.iter().find(|feature| feature.name == name) {
            Some(Feature { presence: Probed::Known(presence), .. }) => Probed::Known(*presence != Presence::Missing),
            Some(Feature { presence: Probed::Unknown { reason }, .. }) => Probed::unknown(reason),
            None => Probed::unknown("it was not looked for"),
        }
    }
}

/// Control groups of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Cgroup {
    /// 1 (also when a version 2 tree without controllers stands beside it) or 2.
    pub version: u8,
    /// The controllers, for example `cpu` and `memory`.
    pub controllers: Vec<String>,
}

/// A feature that may be built in, loaded, or a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Feature {
    /// Name of the module.
    pub name: String,
    /// Whether it is there.
    pub presence: Probed<Presence>,
}

/// Whether a feature is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// In use or built in.
    Active,
    /// A module that can be loaded.
    Loadable,
    /// Neither.
    Missing,
}

pub(super) fn probe(host: &dyn Host) -> Kernel {
    let release = answer(host, "uname", ["-r"]);
    let modules = release.clone().and_then(|release| modules(host, &release));
    let features = vec![
        Feature { name: "overlay".to_owned(), presence: overlay(host, &modules).into() },
        Feature {
            name: "br_netfilter".to_owned(),
            presence: by_file(host, "br_netfilter", "/proc/sys/net/bridge/bridge-nf-call-iptables", &modules).into(),
        },
        Feature {
            name: "nf_conntrack".to_owned(),
            presence: by_file(host, "nf_conntrack", "/proc/sys/net/netfilter/nf_conntrack_max", &modules).into(),
        },
        Feature { name: "dm_crypt".to_owned(), presence: dm_crypt(host, &modules).into() },
    ];
    Kernel { release: release.into(), cgroup: cgroup(host).into(), features }
}

/// The lists of module files of this kernel; `None` when it has no folder of modules.
fn modules(host: &dyn Host, release: &str) -> Result<Option<String>, String> {
    let read = |name: &str| text(host, &format!("/lib/modules/{release}/{name}")).map_err(|error| error.to_string());
    let (files, built_in) = (read("modules.dep")?, read("modules.builtin")?);
    Ok(if files.is_none() && built_in.is_none() {
        None
    } else {
        Some(format!("{}\n{}", files.unwrap_or_default(), built_in.unwrap_or_default()))
    })
}

/// Whether `modules.dep` or `modules.builtin` names the module; `-` and `_` are the same in module names.
fn lists_module(list: &str, name: &str) -> bool {
    list.lines().any(|line| {
        let path = line.split(':').next().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name)
    })
}

type Modules = Result<Option<String>, String>;

fn overlay(host: &dyn Host, modules: &Modules) -> Result<Presence, String> {
    let filesystems = needed(host, "/proc/filesystems")?;
    if lists_filesystem(&filesystems, "overlay") {
        return Ok(Presence::Active);
    }
    by_module(host, "overlay", modules)
}

fn lists_filesystem(text: &str, name: &str) -> bool {
    text.lines().any(|line| line.split_whitespace().last() == Some(name))
}

fn by_file(host: &dyn Host, name: &str, path: &str, modules: &Modules) -> Result<Presence, String> {
    for path in [path, &format!("/sys/module/{name}")] {
        if host.look(path.into()).map_err(|error| error.to_string())?.is_some() {
            return Ok(Presence::Active);
        }
    }
    by_module(host, name, modules)
}

fn by_module(host: &dyn Host, name: &str, modules: &Modules) -> Result<Presence, String> {
    match modules {
        Ok(Some(list)) if lists_module(list, name) => return Ok(Presence::Loadable),
        Ok(Some(_)) => return Ok(Presence::Missing),
        Ok(None) | Err(_) => {}
    }
    match ask(host, "modprobe", ["--dry-run", "--quiet", name]) {
        Ok(output) if output.success() => Ok(Presence::Loadable),
        // No folder of modules and no modprobe that knows better: nothing can be loaded.
        _ => modules.as_ref().map(|_| Presence::Missing).map_err(Clone::clone),
    }
}

fn dm_crypt(host: &dyn Host, modules: &Modules) -> Result<Presence, String> {
    if host.look("/sys/module/dm_crypt".into()).map_err(|error| error.to_string())?.is_some() {
        return Ok(Presence::Active);
    }
    let listed = [needed(host, "/proc/misc"), needed(host, "/proc/devices")];
    let unread = listed.iter().find_map(|text| text.as_ref().err());
    let mapper = listed.iter().flatten().any(|text| lists_device_mapper(text));
    judge_dm_crypt(mapper, unread.map(String::as_str), modules)
}

/// `misc` and `devices` list the device-mapper or not; without it only a module of this very kernel helps. A module
/// list without dm-crypt is believed even if the device-mapper is there: then it was built without encryption.
fn judge_dm_crypt(mapper: bool, unread: Option<&str>, modules: &Modules) -> Result<Presence, String> {
    match (modules, mapper, unread) {
        (Ok(Some(list)), _, _) if lists_module(list, "dm_crypt") => Ok(Presence::Loadable),
        (Ok(Some(_)), _, _) | (Ok(None), false, None) => Ok(Presence::Missing),
        (_, true, _) => Ok(Presence::Active),
        (Ok(None), false, Some(reason)) => Err(reason.to_owned()),
        (Err(reason), false, _) => Err(reason.clone()),
    }
}

fn lists_device_mapper(text: &str) -> bool {
    text.lines().any(|line| line.split_whitespace().nth(1) == Some("device-mapper"))
}

fn cgroup(host: &dyn Host) -> Result<Cgroup, String> {
    match text(host, "/sys/fs/cgroup/cgroup.controllers") {
        Ok(Some(text)) => Ok(Cgroup { version: 2, controllers: text.split_whitespace().map(str::to_owned).collect() }),
        Ok(None) => needed(host, "/proc/cgroups").map(|text| parse_cgroups(&text)),
        Err(error) => Err(error.to_string()),
    }
}

/// `/proc/cgroups`: name, hierarchy, number of groups, enabled.
fn parse_cgroups(text: &str) -> Cgroup {
    let controllers = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            match fields[..] {
                // A controller in hierarchy 0 is not mounted.
                [name, hierarchy, _, "1"] if hierarchy != "0" => Some(name.to_owned()),
                _ => None,
            }
        })
        .collect();
    Cgroup { version: 1, controllers }
}

#[cfg(test)]
mod tests {
    use super::{
        Modules, Presence, judge_dm_crypt, lists_device_mapper, lists_filesystem, lists_module, parse_cgroups,
    };

    const DEP: &str = "kernel/drivers/md/dm-mod.ko.xz:\nkernel/drivers/md/dm-crypt.ko.xz: kernel/drivers/md/dm-mod.ko.xz\n\
                       kernel/fs/overlayfs/overlay.ko:\nkernel/net/bridge/br_netfilter.ko.zst: kernel/net/bridge/bridge.ko\n";

    #[test]
    fn module_lists() {
        let table =
            [("dm_crypt", true), ("overlay", true), ("br_netfilter", true), ("bridge", false), ("crypt", false)];
        for (name, expected) in table {
            assert_eq!(lists_module(DEP, name), expected, "{name}");
        }
    }

    #[test]
    fn dm_crypt() {
        let with: Modules = Ok(Some(DEP.to_owned()));
        let without: Modules = Ok(Some("kernel/drivers/md/dm-mod.ko:\n".to_owned()));
        let (none, unread): (Modules, Modules) = (Ok(None), Err("no release".to_owned()));
        let table = [
            (false, None, &with, Ok(Presence::Loadable)),
            (true, None, &without, Ok(Presence::Missing)),
            (true, None, &none, Ok(Presence::Active)),
            (false, None, &none, Ok(Presence::Missing)),
            (false, Some("denied"), &none, Err("denied".to_owned())),
            (false, None, &unread, Err("no release".to_owned())),
            (true, None, &unread, Ok(Presence::Active)),
        ];
        for (mapper, failed, modules, expected) in table {
            assert_eq!(judge_dm_crypt(mapper, failed, modules), expected, "{mapper} {failed:?} {modules:?}");
        }
    }

    #[test]
    fn device_mapper() {
        assert!(lists_device_mapper("236 device-mapper\n231 fuse\n"));
        assert!(lists_device_mapper("Block devices:\n254 device-mapper\n"));
        assert!(!lists_device_mapper(include_str!("fixtures/misc-without-mapper.txt")));
    }

    #[test]
    fn filesystems() {
        let text = "nodev\tsysfs\n\text4\nnodev\toverlay\n";
        assert!(lists_filesystem(text, "overlay") && lists_filesystem(text, "ext4"));
        assert!(!lists_filesystem(text, "over"));
    }

    #[test]
    fn cgroups() {
        let cgroup = parse_cgroups(include_str!("fixtures/cgroups-v1.txt"));
        assert_eq!(cgroup.version, 1);
        assert!(cgroup.controllers.iter().any(|name| name == "memory"), "{cgroup:?}");
        assert!(!cgroup.controllers.iter().any(|name| name == "disabled" || name == "unmounted"), "{cgroup:?}");
    }
}
