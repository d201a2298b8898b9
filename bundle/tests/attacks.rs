//! Each attack by name: a bundle that was changed in any way, that is cut off, or that lies, ends with a clear error,
//! exit code 4, and nothing published.
//!
//! Bundles that only an attacker with a trusted key could make are forged here by hand, so that also what a signature
//! covers is not believed blindly.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::fs;

use bench::Bench;
use bundle::index::{Blob, Content, Index, Packed};
use bundle::keys::{SigningKey, TrustedKeys, keygen};
use bundle::load::{LoadOptions, load};
use bundle::oci::Digest;
use bundle::{Error, verify};

/// Loads and asserts that it fails with code 4, says something of what is expected, and published nothing.
#[track_caller]
fn refused(bench: &Bench, name: &str, bytes: &[u8], says: &str) {
    let (result, sink) = bench.load(bytes);
    let Err(error) = result else { panic!("{name}: it was loaded") };
    assert_eq!(error.exit_code(), 4, "{name}: {error}");
    assert!(error.to_string().contains(says), "{name}: {error}");
    assert!(error.hint().is_some(), "{name}");
    assert!(sink.state.lock().unwrap().published.is_empty(), "{name}: it was published");
}

fn sample(bench: &Bench) -> (Vec<u8>, Index) {
    let created = bench.create(&bench.sample_yaml(), "a.tar.zst").unwrap();
    (fs::read(created.path).unwrap(), created.index)
}

#[test]
fn every_flipped_byte_is_found() {
    let bench = Bench::new();
    let (good, _) = sample(&bench);
    assert!(bench.load(&good).0.is_ok());
    let trust = bench.trust();
    let mut bytes = good.clone();
    for at in 0..good.len() {
        // Each byte is changed in one bit, another one each time; all bits of each byte take too long.
        bytes[at] ^= 1 << (at % 8);
        let result = verify(bytes.as_slice(), &trust, &LoadOptions::default(), &mut |_| ());
        let Err(error) = result else { panic!("byte {at} of {} was flipped and nobody noticed", good.len()) };
        assert_eq!(error.exit_code(), 4, "byte {at}: {error}");
        bytes[at] = good[at];
    }
}

#[test]
fn truncations_are_found() {
    let bench = Bench::new();
    let (good, _) = sample(&bench);
    let trust = bench.trust();
    // Every place near the ends, and a prime step between, so that all kinds of places come up.
    for length in (0..good.len()).filter(|at| *at < 700 || at % 7 == 0 || good.len() - at < 2000) {
        let result = verify(&good[..length], &trust, &LoadOptions::default(), &mut |_| ());
        let error = result.expect_err("a truncated bundle was taken");
        assert_eq!(error.exit_code(), 4, "{length} bytes: {error}");
        assert!(error.to_string().contains("ends after"), "{length} bytes: {error}");
    }
}

#[test]
fn trailing_bytes_are_found() {
    let bench = Bench::new();
    let (good, _) = sample(&bench);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
    for (name, more) in [("a zero", &[0][..]), ("an empty skippable frame", &skippable), ("the bundle again", &good)] {
        refused(&bench, name, &[&good, more].concat(), "after the last member");
    }
    refused(&bench, "a skippable frame in front", &[&skippable, &good[..]].concat(), "not a bundle");
    refused(&bench, "no bundle at all", b"hello", "ends after");
    refused(&bench, "an empty file", b"", "ends after 0 bytes");
}

#[test]
fn a_foreign_key_is_named() {
    let bench = Bench::new();
    let (good, _) = sample(&bench);
    let other = keygen(&bench.path("other"), None).unwrap();
    let trust = TrustedKeys::load(&[&other.public]).unwrap();
    let mut sink = bench::MemorySink::default();
    let error = load(good.as_slice(), &trust, &mut sink, &LoadOptions::default(), &mut |_| ()).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    let text = error.to_string();
    assert!(text.contains(&bench.keys.id.to_string()) && text.contains(&other.id.to_string()), "{text}");
    assert!(sink.state.lock().unwrap().blobs.is_empty(), "no blob was written before the signature was verified");
    // A foreign key that claims the id of a trusted one.
    let mut key = fs::read_to_string(&other.public).unwrap();
    let ours = fs::read_to_string(&bench.keys.public).unwrap();
    let line = |text: &str| pem_line(text);
    let forged = [&line(&ours)[..10], &line(&key)[10..]].concat();
    key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, forged);
    let mut trust = TrustedKeys::default();
    trust.add(&key).unwrap();
    let error = verify(good.as_slice(), &trust, &LoadOptions::default(), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
}

fn pem_line(text: &str) -> Vec<u8> {
    let line = text.lines().nth(1).unwrap();
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, line).unwrap()
}

/// A bundle taken apart into frames, to be put together in another way.
struct Forge<'b> {
    bench: &'b Bench,
    index: Index,
    /// `oci-layout`, `index.json` and the blobs, each as (member name, content, frame).
    members: Vec<Member>,
}

#[derive(Clone)]
struct Member {
    name: String,
    content: Vec<u8>,
    is_packed: bool,
}

const LAYOUT: &str = "oci-layout";

impl<'b> Forge<'b> {
    fn new(bench: &'b Bench) -> Self {
        let (bytes, index) = sample(bench);
        let tar = bench::pipe("zstd", &["-dc"], &bytes);
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut members = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut content = Vec::new();
            std::io::copy(&mut entry, &mut content).unwrap();
            let is_packed = index.blobs.iter().any(|blob| name.ends_with(&blob.digest.hex()) && blob.packed.is_some());
            members.push(Member { name, content, is_packed });
        }
        let members = members.split_off(2);
        assert_eq!(members[0].name, LAYOUT);
        Self { bench, index, members }
    }

    /// The archive bytes of a member.
    fn member(name: &str, content: &[u8], is_last: bool) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        let mut bytes = [header.as_bytes(), content].concat();
        bytes.resize(bytes.len().next_multiple_of(512) + if is_last { 1024 } else { 0 }, 0);
        bytes
    }

    fn stored(content: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0x38];
        frame.extend((content.len() as u64).to_le_bytes());
        let blocks: Vec<_> = content.chunks(128 * 1024).collect();
        for (at, block) in blocks.iter().enumerate() {
            let header = u32::try_from(block.len()).unwrap() << 3 | u32::from(at + 1 == blocks.len());
            frame.extend(&header.to_le_bytes()[..3]);
            frame.extend(*block);
        }
        frame
    }

    fn packed(content: &[u8]) -> Vec<u8> {
        bench::pipe("zstd", &["-c", "-q"], content)
    }

    /// Signs and puts together; `frames` gives the frames after the signature, the index may be changed before.
    fn seal(&self, index: &Index, frames: &[Vec<u8>]) -> Vec<u8> {
        let key = SigningKey::load(&self.bench.keys.secret, None).unwrap();
        let index = serde_json::to_vec(index).unwrap();
        let signature = key.sign(&index, "forged");
        let mut bundle = Self::stored(&Self::member("cofferdam/index.json", &index, false));
        bundle.extend(Self::stored(&Self::member("cofferdam/index.json.minisig", signature.as_bytes(), false)));
        bundle.extend(frames.concat());
        bundle
    }

    /// Frames of all members, and the index with the packed sizes and digests of these frames.
    fn frames(&self) -> (Index, Vec<Vec<u8>>) {
        let mut index = self.index.clone();
        let mut frames = Vec::new();
        for (at, member) in self.members.iter().enumerate() {
            let bytes = Self::member(&member.name, &member.content, at + 1 == self.members.len());
            let frame = if member.is_packed { Self::packed(&bytes) } else { Self::stored(&bytes) };
            if member.is_packed {
                let packed = Packed { size: frame.len() as u64, digest: Digest::sha256_of(&frame) };
                index.blobs[at - 2].packed = Some(packed);
            }
            frames.push(frame);
        }
        (index, frames)
    }

    /// Position among the members of the last blob, which is a file.
    fn last(&self) -> usize {
        self.members.len() - 1
    }
}

#[test]
fn an_honest_forgery_is_accepted() {
    // Otherwise the other forgeries would be refused for the wrong reason.
    let bench = Bench::new();
    let forge = Forge::new(&bench);
    let (index, frames) = forge.frames();
    bench.load(&forge.seal(&index, &frames)).0.unwrap();
}

#[test]
fn members_that_are_not_what_the_index_says() {
    let bench = Bench::new();
    let forge = Forge::new(&bench);
    let (index, frames) = forge.frames();
    let stored: Vec<usize> = (2..forge.members.len()).filter(|at| !forge.members[*at].is_packed).collect();
    let evil = |at: usize, name: &str| {
        let mut frames = frames.clone();
        frames[at] = Forge::stored(&Forge::member(name, &forge.members[at].content, at == forge.last()));
        forge.seal(&index, &frames)
    };
    let changed = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut frames = frames.clone();
        change(&mut frames);
        forge.seal(&index, &frames)
    };
    let content = |at: usize, content: &[u8]| {
        changed(&|frames| {
            frames[at] = Forge::stored(&Forge::member(&forge.members[at].name, content, at == forge.last()));
        })
    };
    let at = stored[0];
    let mut other = forge.members[at].content.clone();
    other[20] ^= 1;
    let attacks: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a path that climbs", evil(at, "../../etc/passwd"), "damaged"),
        ("an absolute path", evil(at, "/etc/passwd"), "damaged"),
        ("another blob's name", evil(at, &forge.members[at + 1].name), "tar header"),
        ("an empty name", evil(at, ""), "tar header"),
        ("the layout's name", evil(0, "oci-layouT"), "tar header"),
        ("swapped stored members", changed(&|frames| frames.swap(stored[0], stored[1])), "damaged"),
        ("swapped packed members", changed(&|frames| frames.swap(2, 3)), "damaged"),
        ("a member twice", changed(&|frames| frames.insert(at, frames[at].clone())), "damaged"),
        ("a member left out", changed(&|frames| drop(frames.remove(at))), "damaged"),
        ("the last member left out", changed(&|frames| drop(frames.pop())), "ends after"),
        ("layout and index swapped", changed(&|frames| frames.swap(0, 1)), "damaged"),
        ("other content of the same size", content(at, &other), "digest"),
        ("longer content", content(at, &[&other[..], b"x"].concat()), "header"),
        ("shorter content", content(at, &other[1..]), "header"),
        ("other bytes in oci-layout", content(0, &[b' '; 30]), "digest"),
    ];
    for (name, bytes, says) in attacks {
        refused(&bench, name, &bytes, says);
    }
}

#[test]
fn bombs_and_lies_about_frames() {
    let bench = Bench::new();
    let forge = Forge::new(&bench);
    let (index, frames) = forge.frames();
    let last = forge.last();
    let name = forge.members[last].name.clone();
    assert!(forge.members[last].is_packed);
    // Replaces the last frame, with an index that names the new frame's length and digest.
    let with_frame = |frame: Vec<u8>| {
        let mut index = index.clone();
        index.blobs.last_mut().unwrap().packed =
            Some(Packed { size: frame.len() as u64, digest: Digest::sha256_of(&frame) });
        let mut frames = frames.clone();
        frames[last] = frame;
        forge.seal(&index, &frames)
    };
    let good = Forge::member(&name, &forge.members[last].content, true);
    let bomb = Forge::packed(&[&good[..], &vec![0; 200 << 20]].concat());
    assert!(bomb.len() < 100_000, "a small frame that becomes 200 MiB");
    refused(&bench, "a zip bomb", &with_frame(bomb), "more than the index says");
    let window = bench::pipe("zstd", &["-c", "-q", "--ultra", "-20", "--long=30"], &good);
    // Zstandard announces what it was told only if the size is not known: the frame asks for a window of 1 GiB.
    refused(&bench, "a window bomb", &with_frame(window), "decompress");
    refused(&bench, "a short frame", &with_frame(Forge::packed(&good[..good.len() - 1])), "less than the index says");
    let two = [Forge::packed(&good[..700]), Forge::packed(&good[700..])].concat();
    refused(&bench, "two frames for one member", &with_frame(two), "damaged");
    let tail = [Forge::packed(&good), b"tail".to_vec()].concat();
    refused(&bench, "bytes after the frame", &with_frame(tail), "shorter than the index says");
    refused(&bench, "no frame", &with_frame(b"not zstd at all".to_vec()), "decompress");
    refused(&bench, "an empty frame", &with_frame(Vec::new()), "damaged");
    let mut dirty = good.clone();
    *dirty.last_mut().unwrap() = 1;
    refused(&bench, "bytes in the end blocks", &with_frame(Forge::packed(&dirty)), "not zero");
    let mut unpadded = good.clone();
    let padding = 512 + forge.members[last].content.len();
    unpadded[padding] = 1;
    refused(&bench, "bytes in the padding", &with_frame(Forge::packed(&unpadded)), "not zero");
    // The same content by another frame than the one that was signed.
    let mut frames = frames.clone();
    frames[last] = bench::pipe("zstd", &["-c", "-q", "-1", "--no-check"], &good);
    assert_eq!(bench::pipe("zstd", &["-dc"], &frames[last]), good);
    let mut lying = index.clone();
    let packed = lying.blobs.last_mut().unwrap().packed.as_mut().unwrap();
    packed.size = frames[last].len() as u64;
    refused(&bench, "another frame", &forge.seal(&lying, &frames), "frame's digest");
}

/// A header that announces much, alone, must not cost memory or be believed.
#[test]
fn heads_that_announce_too_much() {
    let bench = Bench::new();
    let head = |size: u64, name: &str| {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0x38];
        frame.extend((512 + size.next_multiple_of(512)).to_le_bytes());
        frame.extend(&((128_u32 * 1024) << 3).to_le_bytes()[..3]);
        let mut header = Forge::member(name, b"", false);
        let mut parsed = tar::Header::from_byte_slice(&header).clone();
        parsed.set_size(size);
        parsed.set_cksum();
        header.copy_from_slice(parsed.as_bytes());
        [frame, header].concat()
    };
    refused(&bench, "an index of 1 EiB", &head(1 << 60, "cofferdam/index.json"), "larger than");
    refused(&bench, "an index of 17 MiB", &head(17 << 20, "cofferdam/index.json"), "larger than");
    refused(&bench, "an index of 16 MiB that does not come", &head(16 << 20, "cofferdam/index.json"), "ends after");
    refused(&bench, "another first member", &head(1 << 20, "cofferdam/index.jsom"), "tar header");
}

type Change = Box<dyn Fn(&mut Index)>;

#[test]
#[allow(clippy::too_many_lines, reason = "a table of attacks")]
fn indexes_that_lie_under_a_good_signature() {
    let bench = Bench::new();
    let forge = Forge::new(&bench);
    let (index, frames) = forge.frames();
    let foreign = Digest::sha256_of(b"foreign");
    let attacks: Vec<(&str, Change, &str)> = vec![
        ("an unknown version", Box::new(|index| index.schema_version = 2), "schema version"),
        ("another media type", Box::new(|index| index.media_type = "text/plain".to_owned()), "media type"),
        ("a blob twice", Box::new(|index| index.blobs.push(index.blobs[0].clone())), "twice"),
        ("an image twice", Box::new(|index| index.images.push(index.images[0].clone())), "twice"),
        ("a pack twice", Box::new(|index| index.packs.push(index.packs[0].clone())), "twice"),
        (
            "sizes that overflow",
            Box::new(|index| {
                let blob =
                    Blob { digest: Digest::sha256_of(b"x"), size: u64::MAX, media_type: String::new(), packed: None };
                index.blobs.push(blob);
            }),
            "beyond any medium",
        ),
        (
            "a system without its parts",
            Box::new(|index| {
                index.packs[1].descriptor.system = Some(bundle::system::System {
                    version: "1.0.0".to_owned(),
                    kernel: "6.12".to_owned(),
                    root_hash: "ab".repeat(32),
                    pcr_key: Digest::sha256_of(b"key"),
                });
            }),
            "of a pack",
        ),
        (
            "a path that climbs",
            Box::new(|index| {
                index.packs[1].descriptor.files[0].install[0].path = "/usr/../etc/shadow".to_owned();
            }),
            "not allowed",
        ),
        (
            "a set-id mode",
            Box::new(|index| {
                index.packs[1].descriptor.files[0].install[0].mode = "4755".to_owned();
            }),
            "not allowed",
        ),
        (
            "another layout index",
            Box::new(move |index| {
                index.oci_index = Content { digest: foreign, size: index.oci_index.size };
            }),
            "digest",
        ),
        ("a huge layout index", Box::new(|index| index.oci_index.size = 1 << 40), "header"),
        (
            "an image whose manifest is not inside",
            Box::new(move |index| index.images[0].digest = foreign),
            "not complete",
        ),
        ("an image whose manifest has another size", Box::new(|index| index.images[0].size += 1), "not complete"),
        ("a manifest beyond the limit", Box::new(|index| index.images[0].size = 5 << 20), "4 MiB"),
        (
            "a pack's file that is not inside",
            Box::new(move |index| {
                index.packs[1].descriptor.files[0].digest = foreign;
            }),
            "not complete",
        ),
        (
            "a pack's image that is not inside",
            Box::new(move |index| {
                index.packs[0].descriptor.images[0].digest = foreign;
            }),
            "not complete",
        ),
        (
            "an image that a manifest names is not listed",
            Box::new(|index| {
                index.images.retain(|image| !image.reference.to_string().contains("app"));
                index.packs[1].descriptor.images.clear();
            }),
            "registry.example/app:1",
        ),
        (
            "an optional image that is not declared",
            Box::new(|index| {
                index.packs[1].descriptor.optional_images.clear();
            }),
            "docker.io/coredns/coredns:latest",
        ),
    ];
    for (name, change, says) in attacks {
        let mut index = index.clone();
        change(&mut index);
        refused(&bench, name, &forge.seal(&index, &frames), says);
    }
    // Blobs that the index does not list, though images name them.
    for at in 0..index.blobs.len() {
        let mut index = index.clone();
        let mut frames = frames.clone();
        let blob = index.blobs.remove(at);
        frames.remove(at + 2);
        if at == index.blobs.len() {
            continue; // The end would be missing: another attack.
        }
        let (result, sink) = bench.load(&forge.seal(&index, &frames));
        let error = result.expect_err("a blob is missing");
        assert!(matches!(&error, Error::Incomplete { .. }), "{}: {error}", blob.media_type);
        assert!(error.to_string().contains(&blob.digest.to_string()), "{error}");
        assert!(sink.state.lock().unwrap().published.is_empty());
    }
}

#[test]
fn a_signature_that_is_dressed_up_is_refused() {
    let bench = Bench::new();
    let (good, index) = sample(&bench);
    let tar = bench::pipe("zstd", &["-dc"], &good);
    let mut archive = tar::Archive::new(tar.as_slice());
    let mut entries = archive.entries().unwrap();
    let mut next = || {
        let mut content = String::new();
        std::io::Read::read_to_string(&mut entries.next().unwrap().unwrap(), &mut content).unwrap();
        content
    };
    let (index_text, signature) = (next(), next());
    let rebuilt = |index: &str, signature: &str| {
        let mut bundle = Forge::stored(&Forge::member("cofferdam/index.json", index.as_bytes(), false));
        bundle.extend(Forge::stored(&Forge::member("cofferdam/index.json.minisig", signature.as_bytes(), false)));
        let head = bundle.len();
        bundle.extend(&good[head.min(good.len())..]);
        bundle
    };
    assert!(rebuilt(&index_text, &signature) == good);
    for (name, index, signature, says) in [
        (
            "another untrusted comment",
            index_text.clone(),
            signature.replace("cofferdam bundle signature", "cofferdam bundle signaturE"),
            "comment",
        ),
        (
            "another trusted comment",
            index_text.clone(),
            signature.replace("sample 1.2.3", "sample 1.2.4"),
            "does not fit",
        ),
        ("another index", index_text.replace("1.2.3", "1.2.4"), signature.clone(), "does not fit"),
        ("an index with a space more", format!("{index_text} "), signature.clone(), "does not fit"),
        ("a signature with lines more", index_text.clone(), format!("{signature}more\n"), "malformed"),
        ("a signature of 5 KiB", index_text.clone(), "x".repeat(5 << 10), "larger"),
        ("an empty signature", index_text.clone(), String::new(), "malformed"),
    ] {
        refused(&bench, name, &rebuilt(&index, &signature), says);
    }
    assert_eq!(index.name, "sample");
}

#[test]
fn create_lists_every_missing_image_by_manifest() {
    let bench = Bench::new();
    let yaml = bench.sample_yaml();
    bench.write(
        "second.yaml",
        "kind: Pod\nspec: {containers: [{name: a, image: nginx}, {name: b, image: \"${fqdn}/x:1\"}]}\n",
    );
    let yaml = yaml
        .replace("optional-images: [coredns/coredns]", "")
        .replace("    files:", "      - { name: second.yaml, source: second.yaml, template: true }\n    files:");
    let error = bench.create(&yaml, "a.tar.zst").unwrap_err();
    assert_eq!(error.exit_code(), 4);
    let Error::Incomplete { missing } = &error else { panic!("{error}") };
    assert_eq!(missing.len(), 3, "{error}");
    let text = error.to_string();
    for line in [
        "pack hello, manifest hello.yaml: image docker.io/coredns/coredns:latest is not in the bundle",
        "pack hello, manifest second.yaml: image docker.io/library/nginx:latest is not in the bundle",
        "pack hello, manifest second.yaml: image \"TEMPLATE-fqdn/x:1\" is not an image reference",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!bench.path("a.tar.zst").exists());
    // Nothing but what was there before is left behind.
    let hidden = fs::read_dir(bench.directory.path())
        .unwrap()
        .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with('.'));
    assert!(!hidden);
}

#[test]
fn create_refuses_what_cannot_be_used() {
    let bench = Bench::new();
    let yaml = bench.sample_yaml();
    bench.write("bad.yaml", "a: [");
    bench.write("variable.yaml", "a: ${nope}\n");
    bench.write("big.yaml", vec![b'#'; (4 << 20) + 1]);
    for (from, to, says) in [
        ("source: hello.yaml", "source: nothing.yaml", "No such file"),
        ("source: hello.yaml", "source: bad.yaml", "bad.yaml"),
        ("source: hello.yaml", "source: variable.yaml", "nope"),
        ("source: hello.yaml", "source: big.yaml", "4 MiB"),
        ("source: tool", "source: nothing", "No such file"),
        ("source: tool", "source: images", "not a file"),
        ("oci:images:pause", "oci:images:nothing", "no image named"),
        ("oci:images:pause", "oci:nothing:pause", "does not exist"),
        ("architecture: amd64", "architecture: arm64", "linux/amd64"),
        ("- { name: \"pause:3\"", "- { name: \"registry.example/app:1\"", "another image of this name"),
        (
            "name: \"pause:3\"",
            "name: \"pause@sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"",
            "its manifest for amd64 is",
        ),
    ] {
        assert!(yaml.contains(from), "{from}");
        let error = bench.create(&yaml.replacen(from, to, 1), "a.tar.zst").unwrap_err();
        assert_eq!(error.exit_code(), 2, "{to}: {error}");
        assert!(error.to_string().contains(says), "{to}: {error}");
        assert!(!bench.path("a.tar.zst").exists());
    }
    // A bundle that is there already stays as it was when its successor fails.
    let before = bench.write("old.tar.zst", "old");
    bench.create(&yaml.replace("source: tool", "source: nothing"), "old.tar.zst").unwrap_err();
    assert_eq!(fs::read(before).unwrap(), b"old");
}
