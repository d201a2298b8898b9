//! The appliance's side of the simulated host: a live system that forgets everything but the disk, the disk's partitions,
//! and the installed system whose /var and /etc lie on the encrypted volume.

use std::collections::BTreeMap;

use installer::host::{Command, HostError};
use installer::layout;
use serde_json::{Value, json};

use super::commands::{Ended, bad, good, said, truth};
use super::{Done, Medium, Node, SimulatedHost, State, VOLUME};

/// Where files of the boot partition are kept in the map.
pub const BOOT: &str = "/@boot";
/// Where files of the medium's boot partition are kept.
const MEDIUM_BOOT: &str = "/@medium-boot";
/// The partition of the volume.
pub const DATA_PARTITION: &str = "/dev/sdb6";
const LOADER: &str = "EFI/BOOT/BOOTX64.EFI";
/// Root hash of the medium's system.
pub const MEDIUM_ROOT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// Root hash of the system that a bundle brings.
pub const NEXT_ROOT: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
/// Root hash of the one after that.
pub const THIRD_ROOT: &str = "aaaabbbbccccddddaaaabbbbccccddddaaaabbbbccccddddaaaabbbbccccdddd";
/// The public key of all systems' signatures on PCR 11.
pub const PCR_KEY: &str = "the public key";

/// What a disk of an appliance holds besides the volume and the boot partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// The table as it was given to sfdisk.
    pub table: Option<String>,
    /// Root hash of what was written to a partition.
    pub contents: BTreeMap<String, String>,
    /// GUIDs that were set later, by number.
    pub ids: BTreeMap<usize, String>,
}

impl Slots {
    fn partitions(&self) -> Vec<Value> {
        let mut all = self.table.as_deref().map(partitions).unwrap_or_default();
        for (number, id) in &self.ids {
            all[number - 1]["uuid"] = json!(id);
        }
        all
    }

    /// The device with this GUID.
    fn device(&self, id: &str) -> Option<String> {
        let found = self.partitions().iter().position(|partition| partition["uuid"] == id)?;
        Some(format!("/dev/sdb{}", found + 1))
    }

    /// Whether root and verity tree of this hash are found by their GUIDs and hold what it says.
    fn starts(&self, hash: &str) -> bool {
        let id =
            |half: &str| format!("{}-{}-{}-{}-{}", &half[..8], &half[8..12], &half[12..16], &half[16..20], &half[20..]);
        [&hash[..32], &hash[32..]].iter().all(|half| {
            self.device(&id(half)).and_then(|device| self.contents.get(&device)).is_some_and(|found| found == hash)
        })
    }
}

/// What a machine's firmware does with boot entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Firmware {
    #[default]
    Keeps,
    /// It has no room for one more.
    Full,
    KeepsNone,
}

/// An appliance, or none.
#[derive(Debug, Clone, Default)]
pub struct Appliance {
    pub is_live: bool,
    pub slots: Slots,
    pub firmware: Firmware,
    /// It takes the disk first.
    pub is_preferred: bool,
    /// It was asked to restart.
    pub is_off: bool,
    /// What the command line of the product writes before the engine runs.
    pub answers: Vec<(String, Vec<u8>)>,
    pub boot_files: Vec<(String, Vec<u8>)>,
    /// What its adapters have.
    pub addresses: Vec<String>,
    /// Root hash of what runs.
    pub running: String,
    /// The version that somebody, or something, chooses in the boot menu at each start.
    pub chosen: Option<&'static str>,
    /// How often each system was tried, also those that did not come up.
    pub boots: BTreeMap<String, usize>,
}

impl Appliance {
    fn runs_from(&self, device: &str) -> bool {
        self.slots.contents.get(device).is_some_and(|hash| *hash == self.running && self.slots.starts(hash))
    }
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

    #[allow(clippy::too_many_lines, reason = "one arm for each program")]
    pub(super) fn appliance_command(&self, command: &Command, arguments: &[&str], input: &[u8]) -> Option<Done<Ended>> {
        self.state.borrow().appliance.as_ref()?;
        Some(match (command.program(), arguments) {
            ("sfdisk", ["--json", _]) => self.alive().map(|state| {
                let slots = state.appliance.as_ref().map(|appliance| appliance.slots.clone()).unwrap_or_default();
                let table = json!({"partitiontable": {"partitions": slots.partitions()}});
                if slots.table.is_some() { said(table.to_string()) } else { bad("no table") }
            }),
            ("sfdisk", ["--quiet", "--no-reread", "--no-tell-kernel", "--part-uuid", "/dev/sdb", number, id]) => {
                let number = number.parse().unwrap();
                self.effect(|state| drop(state.slots().ids.insert(number, (*id).to_owned()))).map(|()| good())
            }
            ("readlink", ["-f", link]) => self.alive().map(|state| {
                let id = link.strip_prefix("/dev/disk/by-partuuid/").expect("a partition's GUID");
                let slots = state.appliance.as_ref().map(|appliance| appliance.slots.clone()).unwrap_or_default();
                said(slots.device(id).unwrap_or_else(|| (*link).to_owned()))
            }),
            ("lsblk", ["--nodeps", "--noheadings", "--output", "PKNAME", _]) => Ok(said("sdb\n")),
            ("sfdisk", _) => {
                let script = String::from_utf8(input.to_vec()).unwrap();
                self.effect(|state| {
                    state.luks = None;
                    state.nodes.retain(|path, _| !path.starts_with(BOOT));
                    *state.slots() = Slots { table: Some(script), ..Slots::default() };
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
                let word = |start: &str| arguments.iter().find_map(|word| word.strip_prefix(start));
                let to = word("of=").unwrap();
                let hash = if let Some(from) = word("if=") {
                    // The blob of a root or verity tree ends with its hash.
                    let blob = self.state.borrow().text(from).expect("a blob");
                    blob.rsplit(' ').next().unwrap().to_owned()
                } else {
                    // What comes from the medium comes by stdin.
                    MEDIUM_ROOT.to_owned()
                };
                let is_running = {
                    let state = self.state.borrow();
                    state.appliance.as_ref().is_some_and(|own| !own.is_live && own.runs_from(to))
                };
                assert!(!is_running, "the running slot is written: {command}");
                self.effect(|state| drop(state.slots().contents.insert(to.to_owned(), hash.clone()))).map(|()| good())
            }
            ("veritysetup", ["verify", root, verity, hash]) => self.alive().map(|state| {
                let slots = state.appliance.as_ref().map(|appliance| appliance.slots.clone()).unwrap_or_default();
                let holds = |device: &str| slots.contents.get(device).is_some_and(|found| found == hash);
                truth(slots.table.is_some() && holds(root) && holds(verity))
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
            ("efibootmgr", []) => self.alive().map(|state| {
                if state.appliance.as_ref().is_some_and(|own| own.firmware == Firmware::KeepsNone) {
                    return bad("EFI variables are not supported on this system.");
                }
                let own = state.appliance.as_ref().is_some_and(|own| own.is_preferred);
                said(if own { "BootOrder: 0000\nBoot0000* Cofferdam\tHD(1,GPT)\n" } else { "BootOrder: \n" })
            }),
            ("efibootmgr", ["--quiet", "--bootnum", "0000", "--delete-bootnum"]) => {
                self.effect(|state| state.appliance.as_mut().unwrap().is_preferred = false).map(|()| good())
            }
            ("efibootmgr", ["--quiet", "--create", "--disk", "/dev/sdb", "--part", "1", ..]) => {
                if self.state.borrow().appliance.as_ref().is_some_and(|own| own.firmware == Firmware::Full) {
                    return Some(Ok(bad("Could not prepare Boot variable: No space left on device")));
                }
                self.effect(|state| state.appliance.as_mut().unwrap().is_preferred = true).map(|()| good())
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
        let mut addresses: Vec<_> = addresses.map(str::to_owned).collect();
        if addresses.is_empty() {
            // Of the DHCP server.
            addresses.push("192.0.2.11".to_owned());
        }
        self.appliance.as_mut().expect("an appliance").addresses = addresses;
    }

    /// What systemd-boot does: of the images that have attempts left it takes the one with the highest version, counts, and
    /// an image that comes up loses its count. Gives version and root hash.
    fn load(&mut self) -> (String, String) {
        let folder = format!("{BOOT}/EFI/Linux/");
        let chosen = self.appliance.as_ref().and_then(|appliance| appliance.chosen);
        for _ in 0..10 {
            let mut images: Vec<(bool, bool, String, String)> = Vec::new();
            for path in self.nodes.keys().filter(|path| path.starts_with(&folder)) {
                let stem = path[folder.len()..].strip_prefix("cofferdam_").unwrap().strip_suffix(".efi").unwrap();
                let (version, counter) = stem.split_once('+').unwrap_or((stem, "-"));
                images.push((Some(version) == chosen, !counter.starts_with('0'), version.to_owned(), path.clone()));
            }
            let (_, _, version, path) = images.into_iter().max().expect("an image to start");
            let node = self.nodes.remove(&path).unwrap();
            let text = String::from_utf8(node.content.clone().unwrap()).unwrap();
            let hash = text.split("roothash=").nth(1).unwrap_or(MEDIUM_ROOT).to_owned();
            *self.appliance.as_mut().unwrap().boots.entry(hash.clone()).or_default() += 1;
            // The fault of a system is named by its root hash.
            let comes_up = self.fault != Some(hash.as_str());
            if comes_up {
                assert!(self.slots().starts(&hash), "{path} starts a root that is not whole");
                self.nodes.insert(format!("{folder}cofferdam_{version}.efi"), node);
                return (version, hash);
            }
            let stem = path.strip_suffix(".efi").unwrap();
            let (stem, counter) = stem.split_once('+').expect("a new image has attempts");
            let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
            let (left, done) = (left.parse::<usize>().unwrap() - 1, done.parse::<usize>().unwrap() + 1);
            self.nodes.insert(format!("{stem}+{left}-{done}.efi"), node);
        }
        panic!("nothing comes up");
    }

    /// The firmware takes the disk when there is a loader on it, and the medium otherwise.
    pub(super) fn boot_appliance(&mut self) {
        let boots_disk = self.nodes.contains_key(&format!("{BOOT}/{LOADER}"));
        let kept = |path: &String| path.starts_with(VOLUME) || path.starts_with(BOOT);
        self.nodes.retain(|path, _| kept(path));
        self.mounts.clear();
        self.active.clear();
        self.enabled.clear();
        self.open = false;
        self.users = std::iter::once(layout::REGISTRY_USER.to_owned()).collect();
        let appliance = self.appliance.as_mut().expect("an appliance");
        appliance.is_live = !boots_disk;
        let (answers, boot_files) = (appliance.answers.clone(), appliance.boot_files.clone());
        self.put("/run/systemd/tpm2-pcr-public-key.pem", PCR_KEY.as_bytes(), 0o444);
        let mut running = MEDIUM_ROOT.to_owned();
        let mut program = "the program".to_owned();
        if boots_disk {
            assert!(self.filesystem && self.luks.as_ref().is_some_and(super::Luks::opens_by_tpm), "there is no volume");
            let (version, hash) = self.load();
            self.put("/proc/cmdline", format!("roothash={hash}").as_bytes(), 0o444);
            let release = format!("NAME=Debian\nIMAGE_ID=cofferdam\nIMAGE_VERSION={version}\n");
            self.put("/usr/lib/os-release", release.as_bytes(), 0o444);
            if hash != MEDIUM_ROOT {
                program = format!("the program of system {version}");
            }
            running = hash;
            self.open = true;
            self.mounts.insert("/var".to_owned(), VOLUME.to_owned());
            self.mounts.insert("/etc".to_owned(), format!("{VOLUME}/lib/overlay/etc"));
            self.mounts.insert("/usr/local".to_owned(), format!("{VOLUME}/usrlocal"));
            self.take_network();
            if let Some(name) = self.text("/etc/hostname") {
                self.put("/proc/sys/kernel/hostname", name.trim().as_bytes(), 0o644);
            }
        } else {
            self.images.clear();
            let line = format!("roothash={MEDIUM_ROOT} cofferdam.live");
            self.put("/proc/cmdline", line.as_bytes(), 0o444);
            for (place, content) in boot_files {
                self.put(&format!("{MEDIUM_BOOT}/{place}"), &content, 0o644);
            }
            for (path, content) in answers {
                self.put(&path, &content, 0o600);
            }
        }
        // The place of the installed program is a link to the system's own.
        for path in ["/usr/bin/cofferdam", layout::PROGRAM, "/proc/self/exe"] {
            self.put(path, program.as_bytes(), 0o755);
        }
        self.appliance.as_mut().unwrap().running = running;
    }
}

/// As `sfdisk --json` says them.
fn partitions(script: &str) -> Vec<Value> {
    script
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
        .collect()
}
