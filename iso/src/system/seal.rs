//! From the tree to what is booted: a squashfs with our own files in it, its verity tree, and the unified kernel image
//! whose command line holds the root hash.
//!
//! Invariant: the root hash decides over every byte of the root, the UKI over the root hash; the same input gives the
//! same bytes (but for the Secure Boot signatures of images, which carry a time).
//!
//! Called by [`super::build`].

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use bundle::oci::Digest;
use camino::{Utf8Path, Utf8PathBuf};

use super::root::{INITRD, KERNEL, KERNEL_VERSION, ROOT, SBOM};
use super::{System, SystemOptions, enrolment};
use crate::{Error, tool};

/// Names of the medium's partitions, by which the live system finds its root although an installed disk may hold the same.
pub(crate) const MEDIUM_ROOT: &str = "cofferdam-medium-root";
/// The same for the verity tree.
pub(crate) const MEDIUM_VERITY: &str = "cofferdam-medium-verity";

/// What every boot gets. An initrd that fails or waits for five minutes starts again, which boot counting needs; panics do
/// too, and a block of the root that is not what its hash says is one: a mere read error would leave the system running.
/// Credentials from the boot partition, the firmware or a hypervisor are left alone (systemd.system-credentials(7)): they could
/// add units and keys, and no PCR of the volume's policy tells.
const ARGUMENTS: &str = "root=/dev/mapper/root rootfstype=squashfs ro systemd.verity_root_options=panic-on-corruption \
    rd.retry=30 rd.timeout=300 rd.shell=0 rd.emergency=reboot panic=5 \
    console=tty0 console=ttyS0,115200 loglevel=4 systemd.show_status=1 systemd.import_credentials=no \
    audit=1 audit_backlog_limit=8192 apparmor=1 security=apparmor \
    slab_nomerge init_on_alloc=1 page_alloc.shuffle=1 randomize_kstack_offset=on vsyscall=none debugfs=off";

/// Bytes of the addon that a finished medium's further kernel arguments are written into.
pub(crate) const ARGUMENT_AREA: usize = 512;

const STUB: &str = "/usr/lib/systemd/boot/efi/addonx64.efi.stub";
/// Where the folder of the tree and the folder of the work are, inside the folder of tools.
const TREE: &str = "/mnt";
const WORK: &str = "/srv";

/// The folder of tools with the two folders bound into it.
struct Tools<'a> {
    toolbox: &'a Utf8Path,
    tree: &'a Utf8Path,
    work: &'a Utf8Path,
}

impl Tools<'_> {
    fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Vec<u8>, Error> {
        tool::run_inside(self.toolbox, &[(self.tree, TREE), (self.work, WORK)], arguments)
    }
}

/// Seals the tree into `work`, which exists and is empty.
pub(crate) fn seal(
    options: &SystemOptions,
    toolbox: &Utf8Path,
    tree: &Utf8Path,
    work: &Utf8Path,
    say: &mut dyn FnMut(&str),
) -> Result<System, Error> {
    let tools = Tools { toolbox: &toolbox.join(ROOT), tree, work };
    say("compressing the root");
    make_squashfs(options, &tools)?;
    say("hashing the root");
    let root_hash = make_verity(&tools)?;
    say("making the unified kernel image");
    copy_keys(options, &tools)?;
    make_images(options, &tools, &root_hash)?;
    let enrolment = if options.secure_boot.is_some() { make_enrolment(&tools)? } else { Vec::new() };
    for name in ["pcr.key", "secure-boot.key"] {
        let path = work.join(name);
        if path.exists() {
            fs::remove_file(&path).map_err(Error::io(format!("remove {path}")))?;
        }
    }
    fs::copy(tree.join(SBOM), work.join(SBOM)).map_err(Error::io("copy the bill of materials"))?;
    let kernel = fs::read_to_string(tree.join(KERNEL_VERSION)).map_err(Error::io("read the kernel's version"))?;
    let pcr_key = fs::read(work.join("pcr.pub")).map_err(Error::io("read the public key of the PCR signatures"))?;
    let file = |name: &str| work.join(name);
    Ok(System {
        version: options.version.clone(),
        kernel,
        pcr_key: Digest::sha256_of(&pcr_key),
        root: file("root.squashfs"),
        verity: file("root.verity"),
        root_hash,
        image: file("system.efi"),
        loader: file("loader.efi"),
        live_addon: file("live.addon.efi"),
        argument_addon: file("arguments.addon.efi"),
        enrolment,
        materials: file(SBOM),
    })
}

fn make_squashfs(options: &SystemOptions, tools: &Tools) -> Result<(), Error> {
    let mut added = Added { tools, lines: String::new(), number: 0 };
    added.file("usr/bin/cofferdam", 0o755, &options.program)?;
    let base = tools.tree.join(ROOT).join("usr/lib/os-release.debian");
    let base = fs::read_to_string(&base).map_err(Error::io(format!("read {base}")))?;
    let release = format!("{base}IMAGE_ID=cofferdam\nIMAGE_VERSION={}\n", options.version);
    fs::write(tools.work.join("os-release"), &release).map_err(Error::io("write os-release"))?;
    added.file("usr/lib/os-release", 0o644, &tools.work.join("os-release"))?;
    added.folder("usr/share/cofferdam")?;
    added.folder("usr/share/cofferdam/trust")?;
    for (number, key) in options.trust.iter().enumerate() {
        added.file(&format!("usr/share/cofferdam/trust/{number}.pub"), 0o644, key)?;
    }
    if let Some(extra) = &options.extra_tree {
        added.tree(extra, Utf8Path::new(""))?;
    }
    let lines = std::mem::take(&mut added.lines);
    fs::write(tools.work.join("added"), lines).map_err(Error::io("write the list of added files"))?;
    let (tree, output, list) = (format!("{TREE}/{ROOT}"), format!("{WORK}/root.squashfs"), format!("{WORK}/added"));
    let level = options.compression.to_string();
    // It refuses the variable beside the options, which set the times of all files and not only of the newer ones.
    tools.run(&[
        "env",
        "-u",
        "SOURCE_DATE_EPOCH",
        "mksquashfs",
        &tree,
        &output,
        "-noappend",
        "-quiet",
        "-no-progress",
        "-comp",
        "zstd",
        "-Xcompression-level",
        &level,
        "-b",
        "256K",
        "-no-exports",
        "-xattrs",
        "-all-time",
        tool::EPOCH,
        "-mkfs-time",
        tool::EPOCH,
        "-pf",
        &list,
        "-wildcards",
        "-e",
        "boot/*",
        "proc/*",
        "sys/*",
        "dev/*",
        "run/*",
        "tmp/*",
        "srv/*",
        "mnt/*",
    ])?;
    Ok(())
}

/// Pseudo files (mksquashfs(1), `-pf`): what is added without a copy of the tree.
struct Added<'a> {
    tools: &'a Tools<'a>,
    lines: String,
    number: usize,
}

impl Added<'_> {
    fn folder(&mut self, path: &str) -> Result<(), Error> {
        check_plain(path)?;
        if !self.tools.tree.join(ROOT).join(path).is_dir() {
            self.lines.push_str(&format!("{path} d 0755 0 0\n"));
        }
        Ok(())
    }

    fn file(&mut self, path: &str, mode: u32, source: &Utf8Path) -> Result<(), Error> {
        check_plain(path)?;
        let copy = format!("added-{}", self.number);
        self.number += 1;
        fs::copy(source, self.tools.work.join(&copy)).map_err(Error::io(format!("copy {source}")))?;
        self.lines.push_str(&format!("{path} f {mode:o} 0 0 cat {WORK}/{copy}\n"));
        Ok(())
    }

    /// A folder of the user's; links are kept, owners become root.
    fn tree(&mut self, source: &Utf8Path, place: &Utf8Path) -> Result<(), Error> {
        let listed = source.read_dir_utf8().map_err(Error::io(format!("list {source}")))?;
        let mut entries = listed.collect::<Result<Vec<_>, _>>().map_err(Error::io(format!("list {source}")))?;
        entries.sort_by(|one, other| one.file_name().cmp(other.file_name()));
        for entry in entries {
            let path = place.join(entry.file_name());
            let kind = entry.file_type().map_err(Error::io(format!("look at {}", entry.path())))?;
            if kind.is_dir() {
                self.folder(path.as_str())?;
                self.tree(entry.path(), &path)?;
            } else if kind.is_symlink() {
                let to = entry.path().read_link_utf8().map_err(Error::io(format!("read the link {}", entry.path())))?;
                check_plain(path.as_str()).and_then(|()| check_plain(to.as_str()))?;
                self.lines.push_str(&format!("{path} s 0777 0 0 {to}\n"));
            } else {
                let metadata = entry.metadata().map_err(Error::io(format!("look at {}", entry.path())))?;
                let mode = metadata.permissions().mode() & 0o755;
                self.file(path.as_str(), mode, entry.path())?;
            }
        }
        Ok(())
    }
}

/// A list of pseudo files is parsed by words.
fn check_plain(path: &str) -> Result<(), Error> {
    if path.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-@:+".contains(letter)) {
        return Ok(());
    }
    Err(Error::Options { why: format!("{path:?}: a name in the system is of letters, digits and / . _ - @ : +") })
}

/// The salt comes from the root itself: random enough for its purpose, and the same for the same root.
fn make_verity(tools: &Tools) -> Result<String, Error> {
    let root = tools.work.join("root.squashfs");
    let file = fs::File::open(&root).map_err(Error::io(format!("open {root}")))?;
    let digest = crate::medium::digest(file, bundle::oci::Algorithm::Sha256, &mut |_| ())
        .map_err(Error::io(format!("read {root}")))?;
    let salt = digest.digest.hex();
    let uuid = uuid(&Digest::sha256_of(salt.as_bytes()).hex());
    let output = tools.run(&[
        "veritysetup".to_owned(),
        "format".to_owned(),
        format!("--salt={salt}"),
        format!("--uuid={uuid}"),
        "--hash=sha256".to_owned(),
        format!("{WORK}/root.squashfs"),
        format!("{WORK}/root.verity"),
    ])?;
    let text = String::from_utf8_lossy(&output);
    let hash = text.lines().find_map(|line| line.strip_prefix("Root hash:")).map(str::trim).unwrap_or_default();
    if hash.len() != 64 {
        return Err(Error::Tool {
            program: "veritysetup".to_owned(),
            why: format!("said {text:?}"),
            is_missing: false,
        });
    }
    Ok(hash.to_owned())
}

/// 32 hexadecimal digits as a UUID is written.
pub(crate) fn uuid(hex: &str) -> String {
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

fn secret(source: &Utf8Path, to: &Utf8Path) -> Result<(), Error> {
    fs::copy(source, to).map_err(Error::io(format!("read {source}")))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o600)).map_err(Error::io(format!("protect {to}")))
}

fn copy_keys(options: &SystemOptions, tools: &Tools) -> Result<(), Error> {
    let private = tools.work.join("pcr.key");
    if options.pcr_key.exists() {
        secret(&options.pcr_key, &private)?;
    } else {
        let key = format!("{WORK}/pcr.key");
        tools.run(&[
            "openssl",
            "genpkey",
            "-quiet",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
            "-out",
            &key,
        ])?;
        secret(&private, &options.pcr_key)?;
    }
    let (key, public) = (format!("{WORK}/pcr.key"), format!("{WORK}/pcr.pub"));
    tools.run(&["openssl", "pkey", "-in", &key, "-pubout", "-out", &public])?;
    if let Some(pair) = &options.secure_boot {
        secret(&pair.key, &tools.work.join("secure-boot.key"))?;
        secret(&pair.certificate, &tools.work.join("secure-boot.crt"))?;
    }
    Ok(())
}

fn make_images(options: &SystemOptions, tools: &Tools, root_hash: &str) -> Result<(), Error> {
    let signing: Vec<String> = match options.secure_boot {
        Some(_) => vec![
            "--signtool=sbsign".to_owned(),
            format!("--secureboot-private-key={WORK}/secure-boot.key"),
            format!("--secureboot-certificate={WORK}/secure-boot.crt"),
        ],
        None => Vec::new(),
    };
    let ukify = |more: Vec<String>| {
        let mut arguments = vec!["ukify".to_owned(), "build".to_owned()];
        arguments.extend(more);
        arguments.extend(signing.iter().cloned());
        tools.run(&arguments).map(drop)
    };
    let kernel = fs::read_to_string(tools.tree.join(KERNEL_VERSION)).map_err(Error::io("read the kernel's version"))?;
    let arguments = [ARGUMENTS, &options.kernel_arguments.join(" "), &format!("roothash={root_hash}")].join(" ");
    ukify(vec![
        format!("--linux={TREE}/{KERNEL}"),
        format!("--initrd={TREE}/{INITRD}"),
        format!("--cmdline={arguments}"),
        format!("--os-release=@{WORK}/os-release"),
        format!("--uname={kernel}"),
        "--pcr-banks=sha256".to_owned(),
        format!("--pcr-private-key={WORK}/pcr.key"),
        format!("--pcr-public-key={WORK}/pcr.pub"),
        format!("--output={WORK}/system.efi"),
    ])?;
    let live = format!(
        "cofferdam.live systemd.verity_root_data=/dev/disk/by-partlabel/{MEDIUM_ROOT} \
         systemd.verity_root_hash=/dev/disk/by-partlabel/{MEDIUM_VERITY}"
    );
    for (name, text) in [("live", live), ("arguments", crate::appliance::empty_area())] {
        ukify(vec![
            format!("--stub={STUB}"),
            format!("--cmdline={text}"),
            format!("--output={WORK}/{name}.addon.efi"),
        ])?;
    }
    let loader = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
    let output = format!("{WORK}/loader.efi");
    if options.secure_boot.is_some() {
        let (key, certificate) = (format!("{WORK}/secure-boot.key"), format!("{WORK}/secure-boot.crt"));
        tools.run(&["sbsign", "--key", &key, "--cert", &certificate, "--output", &output, loader])?;
    } else {
        tools.run(&["cp", loader, &output])?;
    }
    Ok(())
}

/// What makes a firmware in setup mode trust the certificate.
fn make_enrolment(tools: &Tools) -> Result<Vec<(String, Utf8PathBuf)>, Error> {
    let (certificate, der) = (format!("{WORK}/secure-boot.crt"), format!("{WORK}/secure-boot.der"));
    tools.run(&["openssl", "x509", "-in", &certificate, "-outform", "DER", "-out", &der])?;
    let read = |name: &str| fs::read(tools.work.join(name)).map_err(Error::io(format!("read {name}")));
    let write =
        |name: &str, bytes: &[u8]| fs::write(tools.work.join(name), bytes).map_err(Error::io(format!("write {name}")));
    let sign = |content: &[u8]| {
        write("content", content)?;
        tools.run(&enrolment::signing(WORK))?;
        read("signature")
    };
    let files = enrolment::files(&read("secure-boot.der")?, sign)?;
    let kept =
        files.into_iter().map(|(name, bytes)| write(&name, &bytes).map(|()| (name.clone(), tools.work.join(&name))));
    kept.collect()
}
