//! Media from end to end, with xorriso as the other reader and the other writer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Read as _;
use std::process::Command;
use std::time::Duration;

use bundle::create::{CreateOptions, RegistryOptions, create};
use bundle::definition::BundleDefinition;
use bundle::keys::{KeyFiles, SigningKey, keygen};
use camino::{Utf8Path, Utf8PathBuf};
use iso::manifest::{BUNDLE, CONFIG, FOLDER, MANIFEST, TRUST_KEY};
use iso::read::{Image, Kind};
use iso::{Error, MediumOptions, VolumeLabel, build, inspect};

struct Bench {
    _directory: tempfile::TempDir,
    path: Utf8PathBuf,
    keys: KeyFiles,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let keys = keygen(&path.join("keys"), None).unwrap();
        Self { _directory: directory, path, keys }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Utf8PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A small bundle with one file in it.
    fn bundle(&self) -> Utf8PathBuf {
        let content: Vec<u8> =
            (0..300_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let payload = self.write("payload", content);
        let yaml = format!(
            "schema-version: 1\nname: sample\nversion: 1.0.0\narchitecture: amd64\npacks:\n  - name: sample\n    version: 1.0.0\n    layer: addon\n    description: a file\n    files:\n      - {{ name: payload, source: {payload} }}\n"
        );
        let definition = BundleDefinition::read(&self.write("bundle.yaml", yaml)).unwrap();
        let output = self.path.join("sample.tar.zst");
        let signing_key = SigningKey::load(&self.keys.secret, None).unwrap();
        create(
            &definition,
            &CreateOptions {
                output: output.clone(),
                signing_key,
                registries: RegistryOptions::default(),
                base: bundle::delta::Base::default(),
            },
            &mut |_| (),
        )
        .unwrap();
        output
    }

    fn options(&self, bundle: Vec<Utf8PathBuf>) -> MediumOptions {
        MediumOptions {
            bundle,
            trust_key: self.keys.public.clone(),
            config: Some(self.write("install.yaml", "schema-version: 1\n")),
            label: VolumeLabel::default(),
            output: self.path.join("medium.iso"),
        }
    }

    /// An image that xorriso made of a folder, with more options for `xorriso -as mkisofs`.
    fn foreign(&self, options: &[&str], folder: &str) -> Utf8PathBuf {
        let output = self.path.join("foreign.iso");
        let mut arguments = vec!["-no_rc", "-as", "mkisofs", "-quiet"];
        arguments.extend(options);
        let folder = self.path.join(folder);
        arguments.extend(["-o", output.as_str(), folder.as_str()]);
        xorriso(&arguments);
        output
    }

    /// The folder of a good medium, unpacked, so that a case can break one thing in it.
    fn unpacked(&self) -> Utf8PathBuf {
        let options = self.options(vec![self.bundle()]);
        build(&options, &mut |_| ()).unwrap();
        let folder = self.path.join("unpacked");
        xorriso(&["-no_rc", "-osirrox", "on", "-indev", options.output.as_str(), "-extract", "/", folder.as_str()]);
        run("chmod", &["-R", "u+w", folder.as_str()]);
        folder
    }
}

fn xorriso(arguments: &[&str]) -> String {
    run("xorriso", arguments)
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; is its Debian package installed?"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn read(image: &Image, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.open_file(name).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_medium_is_what_it_was_made_from() {
    let bench = Bench::new();
    let options = bench.options(vec![bench.bundle()]);
    let mut last = 0;
    let report = build(&options, &mut |done| {
        assert!(done >= last);
        last = done;
    })
    .unwrap();
    assert_eq!(inspect(&options.output).unwrap(), report);
    assert_eq!((report.label.as_str(), report.bundle_signed_by), ("COFFERDAM", Some(bench.keys.id)));
    assert_eq!(report.manifest.bundle, [BUNDLE]);
    assert_eq!(report.manifest.files.keys().collect::<Vec<_>>(), [BUNDLE, CONFIG, TRUST_KEY]);
    assert_eq!(report.size, fs::metadata(&options.output).unwrap().len());
    let size = fs::metadata(&options.bundle[0]).unwrap().len();
    assert!(last >= 3 * size, "{last} bytes of progress for {size}");
    // What the other reader sees.
    let out = bench.path.join("out");
    xorriso(&["-no_rc", "-osirrox", "on", "-indev", options.output.as_str(), "-extract", "/", out.as_str()]);
    for (name, source) in
        [(BUNDLE, &options.bundle[0]), (TRUST_KEY, &options.trust_key), (CONFIG, options.config.as_ref().unwrap())]
    {
        assert!(fs::read(out.join(FOLDER).join(name)).unwrap() == fs::read(source).unwrap(), "{name}");
    }
    assert_eq!(report.manifest.to_json(), fs::read(out.join(FOLDER).join(MANIFEST)).unwrap());
    // Nothing of the work is left.
    let left: Vec<_> = fs::read_dir(&bench.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let bench = Bench::new();
    let mut options = bench.options(vec![bench.bundle()]);
    build(&options, &mut |_| ()).unwrap();
    let first = fs::read(&options.output).unwrap();
    // Another second, other times, modes and names of the sources, another folder.
    std::thread::sleep(Duration::from_millis(1100));
    let copy = bench.path.join("copy");
    fs::create_dir(&copy).unwrap();
    for source in [&mut options.bundle[0], &mut options.trust_key, options.config.as_mut().unwrap()] {
        let to = copy.join(format!("other=name of {}", source.file_name().unwrap()));
        fs::copy(&*source, &to).unwrap();
        run("chmod", &["0700", to.as_str()]);
        *source = to;
    }
    options.output = copy.join("another.iso");
    build(&options, &mut |_| ()).unwrap();
    assert!(first == fs::read(&options.output).unwrap(), "the images differ");
}

#[test]
fn a_bundle_in_parts_stays_in_parts() {
    let bench = Bench::new();
    let whole = fs::read(bench.bundle()).unwrap();
    let parts: Vec<_> = whole
        .chunks(whole.len() / 3 + 1)
        .enumerate()
        .map(|(number, part)| bench.write(&format!("p{number}"), part))
        .collect();
    let mut options = bench.options(parts);
    options.config = None;
    options.label = "SITE_7".parse().unwrap();
    let report = build(&options, &mut |_| ()).unwrap();
    assert_eq!(report.label, "SITE_7");
    assert_eq!(report.manifest.bundle, ["bundle.tar.zst.part001", "bundle.tar.zst.part002", "bundle.tar.zst.part003"]);
    assert_eq!(report.bundle_signed_by, Some(bench.keys.id));
    let image = Image::open(&options.output).unwrap();
    let joined = report.manifest.bundle.iter().flat_map(|name| read(&image, &format!("{FOLDER}/{name}")));
    assert!(joined.eq(whole), "the parts do not make the bundle");
    // In the wrong order they are no bundle.
    options.bundle.reverse();
    assert_eq!(build(&options, &mut |_| ()).unwrap_err().exit_code(), 4);
}

#[test]
fn what_does_not_become_a_medium() {
    let bench = Bench::new();
    let good = bench.options(vec![bench.bundle()]);
    let foreign = keygen(&bench.path.join("foreign"), None).unwrap();
    let cut = bench.write("cut.tar.zst", &fs::read(&good.bundle[0]).unwrap()[..500_000]);
    let absent = bench.path.join("absent");
    let cases: [(&str, MediumOptions, u8, &str); 6] = [
        ("another key", MediumOptions { trust_key: foreign.public, ..good.clone() }, 4, "not among the trusted keys"),
        ("cut off", MediumOptions { bundle: vec![cut], ..good.clone() }, 4, "damaged"),
        ("no bundle", MediumOptions { bundle: vec![], ..good.clone() }, 2, "no bundle"),
        ("bundle missing", MediumOptions { bundle: vec![absent.clone()], ..good.clone() }, 1, "absent"),
        ("config missing", MediumOptions { config: Some(absent.clone()), ..good.clone() }, 1, "absent"),
        ("no such folder", MediumOptions { output: absent.join("x.iso"), ..good.clone() }, 1, "absent"),
    ];
    for (case, options, code, says) in cases {
        let error = build(&options, &mut |_| ()).unwrap_err();
        assert_eq!(error.exit_code(), code, "{case}: {error}");
        assert!(error.to_string().contains(says), "{case}: {error}");
        assert!(!options.output.exists(), "{case}: an image was left");
    }
    for label in ["", "lower", "A B", &"A".repeat(33)] {
        assert_eq!(label.parse::<VolumeLabel>().unwrap_err().exit_code(), 2, "{label:?}");
    }
}

#[test]
fn media_that_are_not_what_their_manifest_says() {
    type Change = fn(&Utf8Path);
    let cases: [(&str, Change, &str); 7] = [
        ("a file changed", |folder| flip(&folder.join("trust.pub")), "has the digest"),
        ("a file cut", |folder| fs::write(folder.join("install.yaml"), "x").unwrap(), "has 1 bytes"),
        ("a file gone", |folder| fs::remove_file(folder.join("install.yaml")).unwrap(), "install.yaml: is missing"),
        ("a file more", |folder| fs::write(folder.join("more"), "x").unwrap(), "more: is not listed"),
        ("a directory more", |folder| fs::create_dir(folder.join("more")).unwrap(), "more: is not listed"),
        (
            "a link",
            |folder| {
                fs::remove_file(folder.join("install.yaml")).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", folder.join("install.yaml")).unwrap();
            },
            "is no file",
        ),
        (
            "no manifest",
            |folder| fs::remove_file(folder.join("manifest.json")).unwrap(),
            "has no cofferdam/manifest.json",
        ),
    ];
    let bench = Bench::new();
    let folder = bench.unpacked();
    for (case, change, says) in cases {
        let broken = bench.path.join("broken");
        let _ = fs::remove_dir_all(&broken);
        run("cp", &["-a", folder.as_str(), broken.as_str()]);
        change(&broken.join(FOLDER));
        let error = inspect(&bench.foreign(&["-R", "-iso-level", "3", "-V", "COFFERDAM"], "broken")).unwrap_err();
        assert!(error.to_string().contains(says), "{case}: {error}");
        assert_eq!(error.exit_code(), 4, "{case}");
        assert!(error.hint().is_some(), "{case}");
    }
    // The unchanged folder is good, so each case failed because of its change; what lies elsewhere is only named.
    fs::write(folder.join("README"), "x").unwrap();
    assert_eq!(inspect(&bench.foreign(&["-R", "-V", "COFFERDAM"], "unpacked")).unwrap().others, ["README"]);
}

fn flip(path: &Utf8Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// A cut at any block ends in an error, never in a shorter list.
#[test]
fn a_medium_that_is_cut_off_is_found() {
    let bench = Bench::new();
    let options = bench.options(vec![bench.bundle()]);
    build(&options, &mut |_| ()).unwrap();
    let whole = fs::read(&options.output).unwrap();
    for keep in (0..whole.len()).step_by(37 * 2048).chain([100, whole.len() - 1]) {
        let error = inspect(&bench.write("cut.iso", &whole[..keep])).unwrap_err();
        assert!(matches!(error, Error::NotAnImage { .. } | Error::Damaged { .. }), "{keep}: {error}");
    }
}

/// Images of another writer, in its dialects, are listed as that writer lists them.
#[test]
fn images_of_another_writer_are_read() {
    let bench = Bench::new();
    let long = "a-name-that-goes-on-".repeat(12) + "end";
    bench.write("tree/empty", "");
    bench.write(&format!("tree/{long}"), "long");
    bench.write("tree/Ünïcode-name.txt", "unicode");
    let mut depth = "tree".to_owned();
    for level in 0..12 {
        depth = format!("{depth}/level-{level}");
        bench.write(&format!("{depth}/file"), format!("{level}"));
    }
    for number in 0..300 {
        bench.write(&format!("tree/many/file-number-{number:04}.text"), format!("{number}"));
    }
    fs::hard_link(bench.path.join("tree/many/file-number-0001.text"), bench.path.join("tree/hard")).unwrap();
    std::os::unix::fs::symlink("empty", bench.path.join("tree/link")).unwrap();
    for options in [
        &["-R", "-V", "DIALECT"][..],
        &["-r", "-J", "-joliet-long", "-iso-level", "3", "-V", "DIALECT"],
        &["-R", "-D", "-iso-level", "4", "-V", "DIALECT"],
        &["-R", "-hfsplus", "-V", "DIALECT"],
    ] {
        let path = bench.foreign(options, "tree");
        let image = Image::open(&path).unwrap();
        assert_eq!(image.label(), "DIALECT");
        assert!(image.created().unwrap().starts_with("20"));
        let ours: Vec<String> = image
            .entries()
            .filter(|entry| entry.path != "rr_moved" && !entry.path.starts_with("rr_moved/"))
            .map(|entry| entry.path.clone())
            .collect();
        let on_disk = run("find", &[bench.path.join("tree").as_str(), "-mindepth", "1", "-printf", "%P\n"]);
        let mut theirs: Vec<String> = on_disk.lines().map(str::to_owned).collect();
        theirs.sort();
        // Directories that the writer moved because they were too deep are listed where they lie.
        let relocated = |path: &String| path.matches('/').count() >= 6;
        if image.entries().any(|entry| entry.path.starts_with("rr_moved/")) {
            theirs.retain(|path| !relocated(path));
            assert!(ours.iter().all(|path| !relocated(path)));
        }
        assert_eq!(ours, theirs, "{options:?}");
        for entry in image.entries().filter(|entry| entry.kind == Kind::File && !entry.path.starts_with("rr_moved")) {
            let content = fs::read(bench.path.join("tree").join(&entry.path)).unwrap();
            assert_eq!(read(&image, &entry.path), content, "{}", entry.path);
        }
        assert!(image.entries().any(|entry| entry.path == "link" && entry.kind == Kind::SymbolicLink));
    }
    // Without Rock Ridge the plain names stand.
    fs::remove_file(bench.path.join("tree/link")).unwrap();
    let plain = bench.foreign(&["--norock", "-iso-level", "1", "-V", "PLAIN"], "tree/many");
    assert!(Image::open(&plain).unwrap().entries().all(|entry| entry.path.to_ascii_uppercase() == entry.path));
}

/// 4.5 GiB in one file: more than one extent can hold. Needs 9 GiB of disk and most of a minute; the reader's handling of
/// extents is also tested in small in `hostile.rs`.
#[test]
#[ignore = "writes 4.5 GiB"]
fn slow_a_file_of_more_than_four_gibibytes() {
    let bench = Bench::new();
    let big = bench.write("tree/big", "");
    let file = fs::File::options().write(true).open(&big).unwrap();
    file.set_len(4_500 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"the end", (4_500 << 20) - 7).unwrap();
    let image = Image::open(&bench.foreign(&["-R", "-iso-level", "3", "-V", "BIG"], "tree")).unwrap();
    let entry = image.entries().next().unwrap();
    assert_eq!((entry.path.as_str(), entry.size), ("big", 4_500 << 20));
    let mut reader = image.open_file("big").unwrap();
    let mut rest = Vec::new();
    std::io::copy(&mut (&mut reader).take((4_500 << 20) - 10), &mut std::io::sink()).unwrap();
    reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"\0\0\0the end");
}
