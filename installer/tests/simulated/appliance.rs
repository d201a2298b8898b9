//! The appliance's side of the simulated host: a live system that forgets everything but the disk, the disk's partitions,
//! and the installed system whose /var and /etc lie on the encrypted volume.

use installer::host::{Command, HostError};
use installer::layout;
use serde_json::json;

use super::commands::{Ended, bad, good, said, truth};
use super::{Done, Medium, Node, SimulatedHost, State, VOLUME};

/// Where files of the boot partition are kept in the map.
pub const BOOT: &str = "/@boot";
/// Where files of the medium's boot partition are kept.
const MEDIUM_BOOT: &str = "/@medium-boot";
/// The partition of the volume.
pub const DATA_PARTITION: &str = "/dev/sdb6";
const LOADER: &str = "EFI/BOOT/BOOTX64.EFI";

/// What a disk of an appliance holds besides the volume and the boot partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// The table as it was given to sfdisk.
    pub table: Option<String>,
    pub root: bool,
    pub verity: bool,
}

/// An appliance, or none.
#[derive(Debug, Clone, Default)]
pub struct Appliance {
    pub is_live: bool,
    pub slots: Slots,
    /// It was asked to restart.
    pub is_off: bool,
    /// What the command line of the product writes before the engine runs.
    pub answers: Vec<(String, Vec<u8>)>,
    pub boot_files: Vec<(String, Vec<u8>)>,
    /// What its adapters have.
    pub addresses: Vec<String>,
}

impl SimulatedHost {
    /// A bare machine that has booted the medium.
    pub fn live(medium: Medium, answers: Vec<(String, Vec<u8>)>, boot_files: Vec<(String, Vec<u8>)>) -> Self {
        let host = Self::new(medium);
        {
            let mut state = host.state.borrow_mut();
            state.appliance = Some(Appliance { answers, boot_files, ..Appliance::default() });
            state.boot_appliance();
        }
        host
    }

    /// Whether the run ended because the live system restarts; then the disk's own system is up.
    pub fn has_restarted(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let was_off = state.appliance.as_mut().is_some_and(|appliance| std::mem::take(&mut appliance.is_off));
        if was_off {
            state.reboot();
        }
        was_off
    }

    pub(super) fn appliance_command(&self, command: &Command, arguments: &[&str], input: &[u8]) -> Option<Done<Ended>> {
        self.state.borrow().appliance.as_ref()?;
        Some(match (command.program(), arguments) {
            ("sfdisk", ["--json", _]) => self.alive().map(|state| {
                let table = state.appliance.as_ref().and_then(|appliance| appliance.slots.table.clone());
                table.map_or_else(|| bad("no table"), |table| said(table_json(&table)))
            }),
            ("sfdisk", _) => {
                let script = String::from_utf8(input.to_vec()).unwrap();
                self.effect(|state| {
                    state.luks = None;
                    state.nodes.retain(|path, _| !path.starts_with(BOOT));
                    state.slots().table = Some(script);
                })
                .map(|()| good())
            }
            ("wipefs", _) => {
                let device = arguments.last().unwrap();
                assert!(!self.state.borrow().open, "the disk is in use");
                let whole = *device == "/dev/sdb";
                self.effect(|state| {
                    state.luks = None;
                    if whole {
                        state.nodes.retain(|path, _| !path.starts_with(BOOT));
                        *state.slots() = Slots::default();
                    }
                })
                .map(|()| good())
            }
            ("udevadm" | "blockdev", _) | ("sync", []) => Ok(good()),
            ("dd", _) => {
                let is_root = arguments.contains(&"of=/dev/sdb2");
                assert!(is_root || arguments.contains(&"of=/dev/sdb3"), "{command}");
                self.effect(|state| *(if is_root { &mut state.slots().root } else { &mut state.slots().verity }) = true)
                    .map(|()| good())
            }
            ("veritysetup", ["verify", "/dev/sdb2", "/dev/sdb3", _]) => self.alive().map(|state| {
                let slots = state.appliance.as_ref().map(|appliance| appliance.slots.clone()).unwrap_or_default();
                truth(slots.table.is_some() && slots.root && slots.verity)
            }),
            ("mkfs.vfat", _) => {
                assert_eq!(arguments.last(), Some(&"/dev/sdb1"));
                self.effect(|state| {
                    state.nodes.retain(|path, _| !path.starts_with(BOOT));
                    state.nodes.insert(BOOT.to_owned(), Node { content: None, mode: 0o700, owner: "root".to_owned() });
                })
                .map(|()| good())
            }
            ("mount", ["-t", "vfat", "-o", _, source, place]) => {
                let source = if *source == "/dev/sdb1" { BOOT } else { MEDIUM_BOOT };
                self.mount(source, place)
            }
            ("mount", ["-t", "ext4", "-o", _, "/dev/mapper/cofferdam", place]) => {
                let can = self.alive().map(|state| state.open && state.filesystem);
                match can {
                    Ok(true) => self.mount(VOLUME, place),
                    Ok(false) => Ok(bad("cannot mount")),
                    Err(error) => Err(error),
                }
            }
            ("mount", ["--bind", source, place]) => {
                let source = self.state.borrow().place(source);
                self.mount(&source, place)
            }
            ("umount", [place]) => self.effect(|state| drop(state.mounts.remove(*place))).map(|()| good()),
            ("systemctl", ["--no-block", "reboot"]) => {
                self.effect(|state| state.appliance.as_mut().unwrap().is_off = true).map(|()| good())
            }
            ("networkctl", ["reload"]) => self.effect(State::take_network).map(|()| good()),
            ("ip", ["--json", "address"]) => self.alive().map(|state| {
                let list = |address: &String| json!({"local": address, "prefixlen": 24});
                let addresses: Vec<_> = state.appliance.iter().flat_map(|own| &own.addresses).map(list).collect();
                said(json!([{"ifname": "vlan120", "mtu": 1500, "addr_info": addresses}]).to_string())
            }),
            ("sysctl", ["-q", "-w", word]) => {
                let (key, value) = word.split_once('=').unwrap();
                let path = format!("/proc/sys/{}", key.replace('.', "/"));
                self.effect(|state| state.put(&path, value.as_bytes(), 0o644)).map(|()| good())
            }
            _ => return None,
        })
    }

    fn mount(&self, source: &str, place: &str) -> Result<Ended, HostError> {
        assert!(!self.state.borrow().mounts.contains_key(place), "{place} is mounted already");
        self.effect(|state| drop(state.mounts.insert(place.to_owned(), source.to_owned()))).map(|()| good())
    }
}

impl State {
    fn slots(&mut self) -> &mut Slots {
        &mut self.appliance.as_mut().expect("an appliance").slots
    }

    /// The addresses of the files that systemd-networkd finds.
    fn take_network(&mut self) {
        let directory = self.place("/etc/systemd/network");
        let files = self.nodes.iter().filter(|(path, _)| path.starts_with(&directory));
        let texts = files.filter_map(|(_, node)| String::from_utf8(node.content.clone()?).ok());
        let lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let addresses = lines.iter().filter_map(|line| line.strip_prefix("Address=")?.split('/').next());
        self.appliance.as_mut().expect("an appliance").addresses = addresses.map(str::to_owned).collect();
    }

    /// The firmware takes the disk when there is a loader on it, and the medium otherwise.
    pub(super) fn boot_appliance(&mut self) {
        let boots_disk = self.nodes.contains_key(&format!("{BOOT}/{LOADER}"));
        let kept = |path: &String| path.starts_with(VOLUME) || path.starts_with(BOOT);
        self.nodes.retain(|path, _| kept(path));
        self.mounts.clear();
        self.active.clear();
        self.enabled.clear();
        self.images.clear();
        self.open = false;
        self.users = std::iter::once(layout::REGISTRY_USER.to_owned()).collect();
        let appliance = self.appliance.as_mut().expect("an appliance");
        appliance.is_live = !boots_disk;
        let (answers, boot_files) = (appliance.answers.clone(), appliance.boot_files.clone());
        self.put("/proc/self/exe", b"the program", 0o755);
        self.put(layout::PROGRAM, b"the program", 0o755);
        if boots_disk {
            let slots = self.slots().clone();
            assert!(slots.root && slots.verity && slots.table.is_some(), "a disk without a whole system boots");
            assert!(self.filesystem && self.luks.as_ref().is_some_and(super::Luks::opens_by_tpm), "there is no volume");
            self.put("/proc/cmdline", b"roothash=00", 0o444);
            self.open = true;
            self.mounts.insert("/var".to_owned(), VOLUME.to_owned());
            self.mounts.insert("/etc".to_owned(), format!("{VOLUME}/lib/overlay/etc"));
            self.take_network();
        } else {
            self.put("/proc/cmdline", b"roothash=00 cofferdam.live", 0o444);
            for (place, content) in boot_files {
                self.put(&format!("{MEDIUM_BOOT}/{place}"), &content, 0o644);
            }
            for (path, content) in answers {
                self.put(&path, &content, 0o600);
            }
        }
    }
}

/// As `sfdisk --json` says it.
fn table_json(script: &str) -> String {
    let partitions: Vec<_> = script
        .lines()
        .filter(|line| line.starts_with("size="))
        .map(|line| {
            let field = |name: &str| {
                line.split(", ")
                    .find_map(|field| field.strip_prefix(name))
                    .map(|value| value.trim_matches('"').to_owned())
            };
            let mebibytes = field("size=").unwrap().trim_end_matches("MiB").parse::<u64>().unwrap_or(99);
            json!({"name": field("name="), "size": mebibytes * 2048, "uuid": field("uuid=")})
        })
        .collect();
    json!({"partitiontable": {"partitions": partitions}}).to_string()
}
