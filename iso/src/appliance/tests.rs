#![allow(clippy::unwrap_used)]
//! Media with a small system of files that stand for the real ones: written, customised, taken back, tampered with.

use std::os::unix::fs::FileExt as _;

use bundle::keys::keygen;

use super::*;

const ROOT_HASH: &str = "0123456789abcdef";

struct Bench {
    _directory: tempfile::TempDir,
    path: Utf8PathBuf,
    trust: TrustedKeys,
    medium: Utf8PathBuf,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let keys = keygen(&path.join("keys"), None).unwrap();
        let key = SigningKey::load(&keys.secret, None).unwrap();
        let trust = TrustedKeys::load(&[&keys.public]).unwrap();
        let medium = path.join("medium.iso");
        let bench = Self { _directory: directory, path, trust, medium };
        let work = Work::beside(&bench.medium).unwrap();
        let image = assemble(&bench.system(), &key, &Contents::default(), &work).unwrap();
        work.finish(&image, &bench.medium).unwrap();
        bench
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> Utf8PathBuf {
        let path = self.path.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn system(&self) -> System {
        let area = [b"MZ".as_slice(), empty_area().as_bytes(), b"end"].concat();
        System {
            version: "1.0.0".to_owned(),
            kernel: "6.12".to_owned(),
            pcr_key: bundle::oci::Digest::sha256_of(b"key"),
            root: self.write("root", vec![7; 3 << 20]),
            verity: self.write("verity", vec![9; 8192]),
            root_hash: ROOT_HASH.repeat(4),
            image: self.write("image", format!("the image, roothash={}", ROOT_HASH.repeat(4))),
            loader: self.write("loader", "the loader"),
            live_addon: self.write("live", "the live addon"),
            argument_addon: self.write("arguments", area),
            enrolment: Vec::new(),
            materials: self.write("materials", "{}"),
        }
    }

    fn customise(&self, from: &Utf8Path, to: &str, changes: &Changes) -> Result<ApplianceReport, Error> {
        customise(from, &self.path.join(to), changes, &mut |_| ())
    }
}

#[test]
fn a_medium_is_found_whole_and_signed() {
    let bench = Bench::new();
    let report = inspect(&bench.medium, Some(&bench.trust)).unwrap();
    assert!(report.is_trusted && report.signed_by.is_some() && report.arguments.is_empty());
    assert_eq!(report.system.boot.len(), 5);
    let [boot, root, verity] = partitions(&bench.medium).unwrap();
    assert!(boot.length > 4 << 20 && root.length == 3 << 20 && verity.length == 8192, "{root:?} {verity:?}");
    let other = keygen(&bench.path.join("other"), None).unwrap();
    let other = TrustedKeys::load(&[&other.public]).unwrap();
    assert_eq!(inspect(&bench.medium, Some(&other)).unwrap_err().exit_code(), 4);
}

#[test]
fn a_customisation_changes_what_it_names_and_can_be_taken_back() {
    let bench = Bench::new();
    let config = bench.write("install.yaml", "schema-version: 1\n");
    let arguments = Some("quiet cofferdam.config=/x".to_owned());
    let changes = Changes { config: Some(config), arguments, ..Changes::default() };
    let report = bench.customise(&bench.medium, "one.iso", &changes).unwrap();
    assert_eq!(report.arguments, "quiet cofferdam.config=/x");
    assert!(report.files.files.contains_key(CONFIG));
    // What is not named stays.
    let changes = Changes { arguments: Some("single".to_owned()), ..Changes::default() };
    let report = bench.customise(&bench.path.join("one.iso"), "two.iso", &changes).unwrap();
    assert!(report.arguments == "single" && report.files.files.contains_key(CONFIG));
    let reset = Changes { reset: true, ..Changes::default() };
    bench.customise(&bench.path.join("two.iso"), "back.iso", &reset).unwrap();
    let (first, back) = (fs::read(&bench.medium).unwrap(), fs::read(bench.path.join("back.iso")).unwrap());
    assert!(first == back, "taken back, the medium is another one");
}

#[test]
fn a_changed_byte_is_found_wherever_it_is() {
    let bench = Bench::new();
    let [boot, root, verity] = partitions(&bench.medium).unwrap();
    let whole = fs::read(&bench.medium).unwrap();
    let find = |text: &[u8]| whole.windows(text.len()).position(|window| window == text).unwrap() as u64;
    for (place, says) in [
        (root.start + 5000, "the root"),
        (verity.start, "the verity tree"),
        (find(b"the loader"), "BOOTX64.EFI"),
        (find(b"\"root-hash\""), "system.json"),
    ] {
        let path = bench.write("tampered.iso", &whole);
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[whole[usize::try_from(place).unwrap()] ^ 1], place).unwrap();
        let error = inspect(&path, Some(&bench.trust)).unwrap_err();
        assert!(error.exit_code() == 4 && error.to_string().contains(says), "{says}: {error}");
    }
    assert!(boot.start > 0);
}

#[test]
fn a_system_is_taken_out_of_a_trusted_medium_for_a_bundle() {
    let bench = Bench::new();
    let folder = bench.path.join("out");
    let system = extract_system(&bench.medium, &bench.trust, &folder, &mut |_| ()).unwrap();
    let description = bundle::system::System::read(&folder).unwrap();
    assert_eq!((&description.version, &description.root_hash), (&system.version, &system.root_hash));
    for name in bundle::system::System::PARTS {
        assert!(folder.join(name).is_file(), "{name}");
    }
    assert_eq!(fs::read(folder.join("root.squashfs")).unwrap(), vec![7; 3 << 20]);
    assert_eq!(fs::read_to_string(folder.join("loader.efi")).unwrap(), "the loader");
    // What is there is never overwritten, and a medium that is not trusted leaves nothing.
    assert_eq!(extract_system(&bench.medium, &bench.trust, &folder, &mut |_| ()).unwrap_err().exit_code(), 2);
    let other = keygen(&bench.path.join("other"), None).unwrap();
    let other = TrustedKeys::load(&[&other.public]).unwrap();
    let folder = bench.path.join("not-out");
    assert_eq!(extract_system(&bench.medium, &other, &folder, &mut |_| ()).unwrap_err().exit_code(), 4);
    assert!(!folder.exists());
}
