//! What the commands of the steps do to the simulated host: disk, systemd, users, settings, the bundle's load.

use bundle::oci::Digest;
use installer::host::{Command, HostError};
use installer::layout;
use serde_json::{Value, json};

use super::{Done, Luks, Node, SimulatedHost, State, VOLUME};

/// Status, stdout, stderr.
pub type Ended = (i32, Vec<u8>, String);

pub fn good() -> Ended {
    (0, Vec::new(), String::new())
}

pub fn said(text: impl Into<Vec<u8>>) -> Ended {
    (0, text.into(), String::new())
}

pub fn bad(text: &str) -> Ended {
    (1, Vec::new(), text.to_owned())
}

pub fn truth(value: bool) -> Ended {
    if value { good() } else { bad("no") }
}

pub const DISK: &str = "/dev/sdb";
const UNITS: &str = "/etc/systemd/system";

impl SimulatedHost {
    #[allow(clippy::too_many_lines, reason = "one arm for each program")]
    pub(super) fn command(&self, command: &Command, watch: &mut dyn FnMut(&str)) -> Done<Ended> {
        let arguments: Vec<&str> = command.arguments().iter().map(String::as_str).collect();
        let input = command.input().unwrap_or_default();
        let program = command.program();
        if ["containerd", "ctr", "kubeadm", "kubectl"].contains(&program)
            && !self.alive()?.has(&format!("/usr/local/bin/{program}"))
        {
            return Err(HostError::Start {
                program: program.to_owned(),
                source: std::io::Error::from(std::io::ErrorKind::NotFound),
            });
        }
        if let Some(done) = self.appliance_command(command, &arguments, input) {
            return done;
        }
        match program {
            "wipefs" => {
                assert_eq!(arguments.last(), Some(&DISK), "{command}");
                assert!(!self.alive()?.open, "the disk is in use");
                self.effect(|state| state.luks = None)?;
                Ok(good())
            }
            "cryptsetup" => self.cryptsetup(&arguments, input),
            "systemd-cryptenroll" => self.enrol(&arguments, input),
            "/lib/systemd/systemd-cryptsetup" => {
                assert_eq!(arguments[..3], ["attach", layout::VOLUME, self.volume_device()]);
                let opens = self.alive()?.luks.as_ref().is_some_and(Luks::opens_by_tpm);
                if self.alive()?.is_measured_otherwise {
                    return Ok(bad("Failed to unseal secret using TPM2: No such device or address"));
                }
                if !opens || self.alive()?.open {
                    return Ok(bad("cannot attach"));
                }
                self.effect(|state| state.open = true)?;
                Ok(good())
            }
            "mkfs.ext4" => {
                assert!(self.alive()?.open, "there is no volume");
                self.effect(|state| {
                    state.nodes.retain(|path, _| !path.starts_with(VOLUME));
                    state
                        .nodes
                        .insert(VOLUME.to_owned(), Node { content: None, mode: 0o755, owner: "root".to_owned() });
                    state.filesystem = true;
                })?;
                Ok(good())
            }
            "mount" => {
                assert_eq!(arguments, ["-t", "ext4", "/dev/mapper/cofferdam", layout::DATA]);
                let can = {
                    let state = self.alive()?;
                    state.open && state.filesystem && state.has(layout::DATA)
                };
                if !can {
                    return Ok(bad("cannot mount"));
                }
                self.effect(State::mount_volume)?;
                Ok(good())
            }
            "findmnt" => Ok(truth(self.alive()?.mounts.contains_key(arguments[2]))),
            "systemctl" => self.systemctl(&arguments),
            "sync" => {
                assert_eq!(arguments[0], "--file-system");
                self.effect(|state| arguments[1..].iter().for_each(|path| state.sync(path)))?;
                Ok(good())
            }
            "journalctl" => {
                assert_eq!(arguments, ["--flush"]);
                self.effect(State::journald)?;
                Ok(good())
            }
            "modprobe" => {
                self.effect(|_| {})?;
                Ok(good())
            }
            "sysctl" => {
                assert_eq!(arguments[..2], ["-q", "-p"]);
                self.effect(|state| state.apply_sysctls(arguments[2]))?;
                Ok(good())
            }
            "systemd-sysusers" => {
                let text = self.alive()?.text(arguments[0]).expect("a file for sysusers");
                let user = text.split_whitespace().nth(1).unwrap().to_owned();
                self.effect(|state| {
                    state.users.insert(user);
                })?;
                Ok(good())
            }
            "id" => Ok(truth(self.alive()?.users.contains(arguments[0]))),
            "useradd" => {
                let name = arguments[arguments.len() - 1].to_owned();
                self.effect(|state| {
                    state.put("/etc/passwd", format!("{name}:x:1000:1000::/home/{name}:/bin/bash\n").as_bytes(), 0o644);
                })?;
                self.effect(|state| {
                    state.put("/etc/shadow", format!("{name}:!:20000:0:99999:7:::\n").as_bytes(), 0o640);
                })?;
                self.effect(|state| {
                    state.directory(&format!("/home/{name}"), 0o700);
                    state.users.insert(name.clone());
                })?;
                Ok(good())
            }
            // A minimal host without sudo.
            "getent" => Ok((2, Vec::new(), String::new())),
            "chpasswd" => {
                assert_eq!(arguments, ["--encrypted"]);
                let line = String::from_utf8(input.to_vec()).unwrap();
                self.effect(|state| {
                    state.put("/etc/shadow", format!("{}:20000:0:99999:7:::\n", line.trim()).as_bytes(), 0o640);
                })?;
                Ok(good())
            }
            "chown" => {
                let (owner, path) = (arguments[arguments.len() - 2], arguments[arguments.len() - 1]);
                let user = owner.split(':').next().unwrap();
                assert!(self.alive()?.users.contains(user) && self.alive()?.has(path), "{command}");
                self.effect(|state| {
                    let place = state.place(path);
                    state.nodes.get_mut(&place).unwrap().owner = String::from(owner);
                })?;
                Ok(good())
            }
            "chmod" => {
                let mode = u32::from_str_radix(arguments[0], 8).unwrap();
                if !self.alive()?.has(arguments[1]) {
                    return Ok(bad("no such file"));
                }
                self.effect(|state| {
                    let place = state.place(arguments[1]);
                    state.nodes.get_mut(&place).unwrap().mode = mode;
                })?;
                Ok(good())
            }
            "setpriv" if arguments.contains(&"activate") => self.activate(&arguments),
            "setpriv" if arguments.contains(&"verify") => self.verify(&arguments),
            "setpriv" => self.load(&arguments, watch),
            "rm" | "mv" | "df" => self.files(program, &arguments),
            "containerd" => Ok(said("containerd github.com/containerd/containerd v1.7.27 05044ec")),
            "ctr" => self.ctr(&arguments),
            "kubeadm" => self.kubeadm(&arguments),
            "kubectl" => self.kubectl(&arguments, input),
            _ => panic!("the simulated host does not know `{command}`"),
        }
    }

    fn volume_device(&self) -> &'static str {
        if self.state.borrow().appliance.is_some() { super::appliance::DATA_PARTITION } else { DISK }
    }

    fn cryptsetup(&self, arguments: &[&str], input: &[u8]) -> Done<Ended> {
        let luks = self.alive()?.luks.clone();
        match arguments[0] {
            "isLuks" => Ok(truth(luks.is_some())),
            "luksFormat" => {
                assert!(arguments.contains(&"--key-file") && arguments.last() == Some(&self.volume_device()));
                assert!(!input.is_empty() && !self.alive()?.open);
                self.effect(|state| {
                    state.serial += 1;
                    let uuid = format!("00000000-0000-4000-8000-{:012}", state.serial);
                    state.filesystem = false;
                    let luks = Luks {
                        uuid,
                        key: input.to_vec(),
                        tpm_slot: false,
                        passphrase: None,
                        tokens: Vec::new(),
                        is_labelled: false,
                    };
                    state.luks = Some(luks);
                })?;
                Ok(good())
            }
            "luksDump" => Ok(luks.map_or_else(|| bad("no LUKS"), |luks| said(luks.metadata().to_string()))),
            "status" => {
                let text = format!("/dev/mapper/cofferdam is active.\n  device:  {}\n", self.volume_device());
                Ok(if self.alive()?.open { said(text) } else { bad("inactive") })
            }
            "config" => {
                assert_eq!(arguments[1..], ["--label", "cofferdam-site-rack7", self.volume_device()]);
                self.effect(|state| state.luks.as_mut().unwrap().is_labelled = true)?;
                Ok(good())
            }
            "luksUUID" => Ok(luks.map_or_else(|| bad("no LUKS"), |luks| said(luks.uuid))),
            "luksHeaderBackup" => {
                let path = arguments[arguments.iter().position(|word| *word == "--header-backup-file").unwrap() + 1];
                if self.alive()?.has(path) {
                    return Ok(bad("the file exists"));
                }
                let header = luks.expect("LUKS").metadata().to_string();
                self.effect(|state| state.put(path, header.as_bytes(), 0o400))?;
                Ok(good())
            }
            "luksAddKey" => {
                let luks = luks.expect("LUKS");
                let after = |word| arguments[arguments.iter().position(|argument| *argument == word).unwrap() + 1];
                let (slot, length) = (after("--new-key-slot").to_owned(), after("--keyfile-size").parse().unwrap());
                assert_eq!((after("--pbkdf"), after("--key-file")), ("argon2id", "-"));
                assert_eq!(arguments[arguments.len() - 2..], [self.volume_device(), "-"]);
                assert!(luks.metadata()["keyslots"][&slot].is_null(), "the slot is taken");
                let (present, new): (&[u8], &[u8]) = input.split_at(length);
                if luks.key != present {
                    return Ok(bad("no key available with this passphrase"));
                }
                self.effect(|state| state.luks.as_mut().unwrap().passphrase = Some((slot, new.to_vec())))?;
                Ok(good())
            }
            "open" if arguments.contains(&"--test-passphrase") => {
                let slot = arguments[arguments.iter().position(|word| *word == "--key-slot").unwrap() + 1];
                let opens = luks.and_then(|luks| luks.passphrase).is_some_and(|(own, key)| own == slot && key == input);
                Ok(truth(opens))
            }
            "open" => {
                if self.alive()?.open || luks.is_none_or(|luks| luks.key != input) {
                    return Ok(bad("no key available with this passphrase"));
                }
                self.effect(|state| state.open = true)?;
                Ok(good())
            }
            "close" => {
                if !self.alive()?.open || !self.alive()?.mounts.is_empty() {
                    return Ok(bad("the device is in use or not active"));
                }
                self.effect(|state| state.open = false)?;
                Ok(good())
            }
            "token" => {
                let token = serde_json::from_slice(input).unwrap();
                let tokens = luks.map_or(0, |luks| luks.tokens.len()).to_string();
                assert!(arguments[2] != "--token-id" || arguments[3] == tokens, "{arguments:?}");
                self.effect(|state| state.luks.as_mut().unwrap().tokens.push(token))?;
                Ok(good())
            }
            other => panic!("cryptsetup {other}"),
        }
    }

    /// The slot first, then the token, as systemd does it.
    fn enrol(&self, arguments: &[&str], input: &[u8]) -> Done<Ended> {
        if self.state.borrow().appliance.is_some() {
            let empty = format!("--tpm2-pcrs=15:sha256={}", "0".repeat(64));
            let key = "--tpm2-public-key=/run/systemd/tpm2-pcr-public-key.pem";
            let wanted = [empty.as_str(), "--tpm2-public-key-pcrs=11", key];
            assert!(wanted.iter().all(|word| arguments.contains(word)), "{arguments:?}");
        } else {
            assert!(arguments.contains(&"--tpm2-pcrs=7"), "{arguments:?}");
        }
        if self.alive()?.luks.as_ref().is_none_or(|luks| luks.key != input) {
            return Ok(bad("wrong key"));
        }
        self.effect(|state| state.luks.as_mut().unwrap().tpm_slot = true)?;
        let token = json!({"type": "systemd-tpm2", "keyslots": ["1"]});
        self.effect(|state| state.luks.as_mut().unwrap().tokens.push(token))?;
        Ok(good())
    }

    fn systemctl(&self, arguments: &[&str]) -> Done<Ended> {
        let units: Vec<&str> = arguments[1..].iter().copied().filter(|word| !word.starts_with("--")).collect();
        let now = arguments.contains(&"--now");
        match arguments[0] {
            "daemon-reload" => {
                self.effect(State::reload)?;
                Ok(good())
            }
            "enable" => {
                for unit in &units {
                    if !self.alive()?.loaded.contains_key(*unit) {
                        return Ok(bad(&format!("Unit {unit} could not be found.")));
                    }
                    self.effect(|state| {
                        state.enabled.insert((*unit).to_owned());
                    })?;
                }
                if now { self.start_all(&units) } else { Ok(good()) }
            }
            "disable" => {
                for unit in &units {
                    self.effect(|state| {
                        state.enabled.remove(*unit);
                    })?;
                }
                Ok(good())
            }
            "start" | "restart" => self.start_all(&units),
            "show" => {
                assert_eq!(arguments[1..3], ["--property=MainPID", "--value"]);
                let is_active = self.state.borrow().active.contains(units[0]);
                Ok(said(if is_active { super::upgrade::process_of(units[0]).to_owned() } else { "0".to_owned() }))
            }
            "is-active" => Ok(truth(units.iter().any(|unit| self.state.borrow().active.contains(*unit)))),
            "is-enabled" => Ok(truth(units.iter().any(|unit| self.state.borrow().enabled.contains(*unit)))),
            other => panic!("systemctl {other}"),
        }
    }

    pub(super) fn start_all(&self, units: &[&str]) -> Done<Ended> {
        for unit in units {
            let mut result = Ok(());
            self.effect(|state| result = state.start(unit))?;
            if let Err(reason) = result {
                return Ok(bad(&format!("{unit}: {reason}")));
            }
        }
        Ok(good())
    }

    /// Reads all and keeps nothing.
    fn verify(&self, arguments: &[&str]) -> Done<Ended> {
        assert_eq!(arguments[0], "--reuid=nobody");
        assert!(arguments.contains(&"--trust"), "{arguments:?}");
        let can_run = self.alive()?.has(layout::PROGRAM);
        Ok(if can_run { self.counts() } else { bad("setpriv: failed to execute") })
    }

    /// What the program ends with.
    fn counts(&self) -> Ended {
        said(json!({"index": Digest::sha256_of(&self.medium.index).to_string()}).to_string())
    }

    /// Blob by blob; the index is published last.
    fn load(&self, arguments: &[&str], watch: &mut dyn FnMut(&str)) -> Done<Ended> {
        assert_eq!(arguments[0], format!("--reuid={}", layout::REGISTRY_USER));
        assert!(arguments.contains(&"load") && arguments.contains(&"--trust"), "{arguments:?}");
        let may_write = {
            let state = self.alive()?;
            state.has(layout::PROGRAM)
                && state.get(layout::STORE).is_some_and(|node| node.owner.starts_with(layout::REGISTRY_USER))
        };
        if !may_write {
            return Ok(bad(&format!("cannot write to {}: permission denied", layout::STORE)));
        }
        let own = |state: &mut State, path: &str, content: &[u8]| {
            state.put(path, content, 0o640);
            let place = state.place(path);
            state.nodes.get_mut(&place).unwrap().owner = String::from(layout::REGISTRY_USER);
        };
        for (number, blob) in self.medium.blobs.iter().enumerate() {
            let hex = Digest::sha256_of(blob).hex();
            let path = format!("{}/blobs/sha256/{}/{hex}", layout::STORE, &hex[..2]);
            if !self.alive()?.has(&path) {
                self.effect(|state| own(state, &path, blob))?;
            }
            watch(&format!("{{\"done\":{},\"total\":{}}}", number + 1, self.medium.blobs.len()));
        }
        // Tags before the record, as the store publishes them.
        let active = format!("{}/active", layout::STORE);
        self.effect(|state| own(state, &active, self.medium.name.as_bytes()))?;
        let path = format!("{}/bundles/{}.json", layout::STORE, self.medium.name);
        self.effect(|state| own(state, &path, &self.medium.index))?;
        Ok(self.counts())
    }
}

impl Luks {
    pub fn opens_by_tpm(&self) -> bool {
        self.tpm_slot && self.tokens.iter().any(|token| token["type"] == "systemd-tpm2")
    }

    pub fn metadata(&self) -> Value {
        let slot = |kdf: &str| json!({"type": "luks2", "key_size": 64, "kdf": {"type": kdf}});
        let mut slots = json!({"0": slot("argon2id")});
        if self.tpm_slot {
            slots["1"] = slot("pbkdf2");
        }
        if let Some((number, _)) = &self.passphrase {
            slots[number] = slot("argon2id");
        }
        let tokens = self.tokens.iter().enumerate().map(|(number, token)| (number.to_string(), token.clone()));
        json!({
            "keyslots": slots,
            "tokens": tokens.collect::<serde_json::Map<_, _>>(),
            "segments": {"0": {"type": "crypt", "encryption": "aes-xts-plain64"}},
        })
    }
}

impl State {
    pub(super) fn reload(&mut self) {
        let folder = format!("{}/", self.place(UNITS));
        let units = self.nodes.iter().filter_map(|(path, node)| {
            let name = path.strip_prefix(&folder)?;
            Some((name.to_owned(), String::from_utf8(node.content.clone()?).unwrap()))
        });
        self.loaded = units.collect();
        self.loaded.insert("systemd-journald.service".to_owned(), String::new());
        if self.text("/etc/crypttab").is_some_and(|table| table.contains("cofferdam UUID=")) {
            self.loaded.insert("systemd-cryptsetup@cofferdam.service".to_owned(), String::new());
        }
    }

    pub(super) fn crypttab_opens(&self) -> bool {
        let Some(luks) = &self.luks else { return false };
        let line = format!("cofferdam UUID={} ", luks.uuid);
        let table = self.text("/etc/crypttab").unwrap_or_default();
        let present = table.lines().find(|present| present.starts_with(&line));
        luks.opens_by_tpm() && present.is_some_and(|present| present.contains("tpm2-device=auto"))
    }

    /// systemd makes it when it is missing and leaves the mode of one that is there.
    fn mount_point(&mut self, place: &str) {
        if !self.has(place) {
            self.directory(place, 0o755);
        }
    }

    fn mount_volume(&mut self) {
        self.mounts.insert(layout::DATA.to_owned(), VOLUME.to_owned());
    }

    pub(super) fn journald(&mut self) {
        let persistent = self.text("/etc/systemd/journald.conf.d/90-cofferdam.conf").is_some();
        self.journal_is_persistent = persistent && self.mounts.contains_key("/var/log/journal");
    }

    pub(super) fn apply_sysctls(&mut self, path: &str) {
        for line in self.text(path).unwrap_or_default().lines() {
            let (key, value) = line.split_once(" = ").unwrap();
            self.put(&format!("/proc/sys/{}", key.replace('.', "/")), format!("{value}\n").as_bytes(), 0o644);
        }
    }

    /// Starts a unit if what it needs is there.
    pub(super) fn start(&mut self, unit: &str) -> Result<(), String> {
        let text = self.loaded.get(unit).cloned().ok_or("not found")?;
        let needs = |state: &Self, paths: &[&str]| -> Result<(), String> {
            paths.iter().find(|path| !state.has(path)).map_or(Ok(()), |path| Err(format!("there is no {path}")))
        };
        if unit.ends_with(".mount") {
            let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
            let (source, place) = (value("What="), value("Where="));
            if self.mounts.contains_key(&place) {
                return Ok(());
            }
            if source == "/dev/mapper/cofferdam" {
                if !self.open || !self.filesystem {
                    return Err("there is no volume".to_owned());
                }
                self.mount_point(&place);
                self.mount_volume();
                return Ok(());
            }
            needs(self, &[&source])?;
            let under = self.place(&source);
            self.mount_point(&place);
            self.mounts.insert(place, under);
            return Ok(());
        }
        match unit {
            "systemd-journald.service" => {
                self.journald();
                return Ok(());
            }
            "systemd-cryptsetup@cofferdam.service" => {
                if self.open || !self.crypttab_opens() {
                    return Err("cannot open the volume".to_owned());
                }
                self.open = true;
                return Ok(());
            }
            "cofferdam-registry.service" => {
                needs(self, &[layout::PROGRAM, layout::REGISTRY_CONFIG, layout::STORE])?;
                let read = |path: &str| self.text(path).ok_or(format!("there is no {path}"));
                let key = certs::PrivateKey::from_pem(&read(&format!("{}/registry.key", layout::KEYSTORE))?);
                let chain = certs::parse_certificates("registry", &read("/etc/cofferdam/tls/registry.crt")?);
                if !key.unwrap().matches(&chain.unwrap()[0]) {
                    return Err("the registry's certificate is not that of its key".to_owned());
                }
            }
            "containerd.service" => {
                needs(self, &["/usr/local/bin/containerd", "/etc/containerd/config.toml"])?;
                self.put("/run/containerd/containerd.sock", b"", 0o660);
            }
            "kubelet.service" => {
                needs(self, &["/usr/local/bin/kubelet"])?;
                let files = ["/var/lib/kubelet/config.yaml", "/etc/kubernetes/kubelet.conf"];
                if let Some(path) = files.iter().find(|path| !self.has_content(path)) {
                    return Err(format!("cannot read {path}"));
                }
                let clock = self.clock;
                self.api_since.get_or_insert(clock);
            }
            other => return Err(format!("the simulated host does not know {other}")),
        }
        self.active.insert(unit.to_owned());
        self.run_program(unit);
        Ok(())
    }
}
