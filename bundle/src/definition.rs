//! `bundle.yaml`: what the release engineer writes. Invariant: a [`BundleDefinition`] that [`BundleDefinition::read`]
//! gave has only good names, paths, modes and versions, and no duplicates; all problems are reported at once. Whether
//! the sources exist and fit is found out by `create`.
//!
//! Format: docs/bundle-format.md, "bundle.yaml".

use std::collections::HashSet;
use std::fs;
use std::io::Read;

use camino::{Utf8Path, Utf8PathBuf};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::index::{
    Architecture, Gate, InstallTarget, Layer, Migration, PackDescriptor, PackFile, PackImage, PackManifest, SecretKind,
    SecretRequest,
};
use crate::oci::{Digest, Reference, Tag};
use crate::question::{self, Question};
use crate::source::download;
use crate::system::{self, System};

/// The version of `bundle.yaml` that this crate reads.
pub const SCHEMA_VERSION: u32 = 1;
/// Largest `bundle.yaml`, in bytes.
const DEFINITION_LIMIT: u64 = 4 << 20;

/// A parsed and checked `bundle.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BundleDefinition {
    /// Always 1.
    pub schema_version: u32,
    /// The bundle's name: lower-case letters, digits and dashes.
    pub name: String,
    /// The bundle's version, a semantic version.
    pub version: String,
    /// What the images run on; chosen from multi-architecture sources.
    pub architecture: Architecture,
    /// When the release was made, RFC 3339; goes into the index as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// From which installed versions it may be upgraded to, for example `>=0.9.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_from: Option<String>,
    /// minisign public keys, files: the only ones that sites with this bundle take a later one from. Left out: nothing
    /// changes. For a rotation name the new key in a bundle that the old one signs; name the old one too until the last
    /// site has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub next_trust_keys: Vec<Utf8PathBuf>,
    /// The packs, in the order in which they are applied.
    pub packs: Vec<PackDefinition>,
    /// The directory that relative sources start from. Not part of the file.
    #[serde(skip)]
    pub directory: Utf8PathBuf,
}

/// A pack of `bundle.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PackDefinition {
    /// Unique in the bundle: lower-case letters, digits and dashes.
    pub name: String,
    /// A version that can be a tag.
    pub version: String,
    /// Where it belongs in the stack.
    pub layer: Layer,
    /// One line for people.
    pub description: String,
    /// References that manifests may name though they are not inside.
    #[serde(default)]
    pub optional_images: Vec<Reference>,
    /// Images.
    #[serde(default)]
    pub images: Vec<ImageDefinition>,
    /// Kubernetes manifests, applied in order.
    #[serde(default)]
    pub manifests: Vec<ManifestDefinition>,
    /// Files.
    #[serde(default)]
    pub files: Vec<FileDefinition>,
    /// Secrets that the installer generates.
    #[serde(default)]
    pub secrets: Vec<SecretRequest>,
    /// What must become true after the manifests were applied.
    #[serde(default)]
    pub gates: Vec<Gate>,
    /// What an upgrade to this version does before the manifests are applied.
    #[serde(default)]
    pub migrations: Vec<MigrationDefinition>,
    /// What the pack wants to know of the site; its templates say `${NAME}` for the answer. Never a secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<Question>,
    /// The operating system of an appliance: a folder that `cofferdam iso system` made of a boot medium. Only in a pack of
    /// the layer `os`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub system: Option<Utf8PathBuf>,
}

/// A migration of `bundle.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MigrationDefinition {
    /// Unique in the pack.
    pub name: String,
    /// The installed versions of the pack that need it, a range such as `<1.1.0`.
    pub from: String,
    /// The Kubernetes manifest that does it.
    pub apply: ManifestDefinition,
    /// The Kubernetes manifest that undoes it. Left out: a rollback restores the snapshot of etcd.
    #[serde(default)]
    pub undo: Option<ManifestDefinition>,
    /// How long its Jobs may take, in seconds.
    #[serde(default = "migration_timeout")]
    pub timeout_seconds: u32,
}

fn migration_timeout() -> u32 {
    300
}

impl PackDefinition {
    /// All Kubernetes YAML, in the order of [`PackDescriptor::all_manifests`].
    pub(crate) fn all_manifests(&self) -> impl Iterator<Item = &ManifestDefinition> {
        let migrations = self.migrations.iter();
        self.manifests
            .iter()
            .chain(migrations.flat_map(|migration| std::iter::once(&migration.apply).chain(&migration.undo)))
    }
}

/// An image of `bundle.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImageDefinition {
    /// Full reference under which the cluster asks for it.
    pub name: Reference,
    /// `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:REF]`, `docker://REF` or a bare registry
    /// reference.
    pub source: String,
}

/// A Kubernetes manifest of `bundle.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ManifestDefinition {
    /// Unique among the pack's manifests and files.
    pub name: String,
    /// A path, relative to `bundle.yaml` or absolute.
    #[schemars(with = "String")]
    pub source: Utf8PathBuf,
    /// Whether `${…}` variables are replaced at install.
    #[serde(default)]
    pub template: bool,
}

/// A file of `bundle.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileDefinition {
    /// Unique among the pack's manifests and files.
    pub name: String,
    /// A path, relative to `bundle.yaml` or absolute; or a URL (https, plain HTTP from loopback only).
    #[schemars(with = "String")]
    pub source: Utf8PathBuf,
    /// SHA-256 of the content, 64 hexadecimal digits: goes with a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Where it is put on the host.
    #[serde(default)]
    pub install: Vec<InstallTarget>,
    /// Whether `${…}` variables are replaced at install.
    #[serde(default)]
    pub template: bool,
}

impl BundleDefinition {
    /// Reads and checks `bundle.yaml`.
    pub fn read(path: &Utf8Path) -> Result<Self, Error> {
        let mut text = String::new();
        let file = fs::File::open(path).map_err(|error| problem(path, error.to_string()))?;
        file.take(DEFINITION_LIMIT + 1).read_to_string(&mut text).map_err(|error| problem(path, error.to_string()))?;
        if text.len() as u64 > DEFINITION_LIMIT {
            return Err(problem(path, "it is larger than 4 MiB".to_owned()));
        }
        let directory = path.parent().unwrap_or(Utf8Path::new(""));
        Self::parse(&text, directory).map_err(|problems| Error::Definition { path: path.to_owned(), problems })
    }

    /// Parses and checks the text of a `bundle.yaml`; relative sources start from `directory`. The error lists all
    /// problems.
    pub fn parse(text: &str, directory: &Utf8Path) -> Result<Self, Vec<String>> {
        let mut definition: Self = serde_yaml::from_str(text).map_err(|error| vec![error.to_string()])?;
        directory.clone_into(&mut definition.directory);
        let problems = definition.problems();
        if problems.is_empty() { Ok(definition) } else { Err(problems) }
    }

    /// The JSON Schema of `bundle.yaml`.
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// `NAME-VERSION.tar.zst`
    pub fn file_name(&self) -> String {
        format!("{}-{}.tar.zst", self.name, self.version)
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.schema_version != SCHEMA_VERSION {
            let found = self.schema_version;
            problems.push(format!("schema-version is {found}, this program knows {SCHEMA_VERSION} only"));
        }
        if !is_label(&self.name) {
            problems
                .push(format!("name {:?}: lower-case letters, digits and dashes are allowed, at most 63", self.name));
        }
        // A version is part of a file name and later of a tag: no build metadata, whose + no tag may hold.
        if semver::Version::parse(&self.version).is_err() || self.version.parse::<Tag>().is_err() {
            problems.push(format!("version {:?} is not a semantic version without build metadata", self.version));
        }
        if let Some(created) = &self.created
            && created.parse::<jiff::Timestamp>().is_err()
        {
            problems.push(format!("created {created:?} is not a time such as 2026-11-01T00:00:00Z"));
        }
        if let Some(range) = &self.upgrade_from
            && semver::VersionReq::parse(range).is_err()
        {
            problems.push(format!("upgrade-from {range:?} is not a range such as >=0.9.0"));
        }
        if self.packs.is_empty() {
            problems.push("packs is empty".to_owned());
        }
        let mut names = HashSet::new();
        for pack in &self.packs {
            if !names.insert(&pack.name) {
                problems.push(format!("pack {}: the name is used twice", pack.name));
            }
            problems.extend(problems_of(&pack.draft()));
            if pack.system.is_some() && pack.layer != Layer::Os {
                problems.push(format!("pack {}: an operating system belongs to the layer os", pack.name));
            }
            problems.extend(pack.files.iter().filter_map(|file| {
                let problem = download::problem(&file.source, file.sha256.as_deref())?;
                Some(format!("pack {}: file {}: {problem}", pack.name, file.name))
            }));
        }
        problems
    }
}

fn problem(path: &Utf8Path, why: String) -> Error {
    Error::Definition { path: path.to_owned(), problems: vec![why] }
}

impl PackDefinition {
    /// Its files, the parts of its system among them.
    pub(crate) fn all_files(&self) -> Vec<FileDefinition> {
        let part = |folder: &Utf8PathBuf, name: &str| FileDefinition {
            name: name.to_owned(),
            source: folder.join(name),
            sha256: None,
            install: Vec::new(),
            template: false,
        };
        let parts = self.system.iter().flat_map(|folder| System::PARTS.map(|name| part(folder, name)));
        self.files.iter().cloned().chain(parts).collect()
    }

    /// The pack's descriptor with digests and sizes still zero; `create` fills them in.
    pub(crate) fn draft(&self) -> PackDescriptor {
        let digest = Digest::Sha256([0; 32]);
        let image = |image: &ImageDefinition| PackImage { reference: image.name.clone(), digest };
        let manifest = |part: &ManifestDefinition| PackManifest {
            name: part.name.clone(),
            digest,
            size: 0,
            template: part.template,
        };
        let file = |part: &FileDefinition| PackFile {
            name: part.name.clone(),
            digest,
            size: 0,
            template: part.template,
            install: part.install.clone(),
        };
        PackDescriptor {
            name: self.name.clone(),
            version: self.version.clone(),
            layer: self.layer,
            description: self.description.clone(),
            images: self.images.iter().map(image).collect(),
            manifests: self.manifests.iter().map(manifest).collect(),
            files: self.all_files().iter().map(file).collect(),
            secrets: self.secrets.clone(),
            gates: self.gates.clone(),
            optional_images: self.optional_images.clone(),
            migrations: self
                .migrations
                .iter()
                .map(|migration| Migration {
                    name: migration.name.clone(),
                    from: migration.from.clone(),
                    apply: manifest(&migration.apply),
                    undo: migration.undo.as_ref().map(manifest),
                    timeout_seconds: migration.timeout_seconds,
                })
                .collect(),
            questions: self.questions.clone(),
            system: None,
        }
    }
}

/// What is wrong with the names, paths, modes and keys of a pack, one line each. Asked for what a release engineer
/// wrote and again for what a signed index says.
pub(crate) fn problems_of(pack: &PackDescriptor) -> Vec<String> {
    let mut problems = Vec::new();
    let mut say = |what: String| problems.push(format!("pack {}: {what}", pack.name));
    if !is_label(&pack.name) {
        say("the name may hold lower-case letters, digits and dashes, at most 63".to_owned());
    }
    if pack.version.parse::<Tag>().is_err() {
        say(format!("version {:?} cannot be a tag", pack.version));
    }
    if pack.description.chars().any(char::is_control) {
        say("the description is not one line".to_owned());
    }
    let mut references = HashSet::new();
    for image in &pack.images {
        if !references.insert(&image.reference) {
            say(format!("image {}: the name is used twice", image.reference));
        }
    }
    let mut parts = HashSet::new();
    let manifests = pack.all_manifests().map(|part| &part.name);
    for name in manifests.chain(pack.files.iter().map(|part| &part.name)) {
        if !is_part_name(name) {
            say(format!("manifest or file {name:?}: the name may hold letters, digits, dots, dashes and underscores"));
        }
        if !parts.insert(name) {
            say(format!("manifest or file {name}: the name is used twice"));
        }
    }
    for file in &pack.files {
        for target in &file.install {
            if !is_install_path(&target.path) {
                say(format!("file {}: install path {:?} is not absolute and normal", file.name, target.path));
            }
            if !is_mode(&target.mode) {
                say(format!(
                    "file {}: mode {:?} is not octal permission bits such as \"0755\"",
                    file.name, target.mode
                ));
            }
        }
    }
    system::problems(pack).into_iter().for_each(&mut say);
    question::problems(pack).into_iter().for_each(&mut say);
    let mut secrets = HashSet::new();
    for secret in &pack.secrets {
        let key_is_good = match &secret.key {
            Some(key) => is_data_key(key),
            None => secret.kind == SecretKind::SiteCertificate,
        };
        if !is_subdomain(&secret.name) || !is_label(&secret.namespace) || !key_is_good {
            say(format!("secret {}/{}: name, namespace or key is not valid", secret.namespace, secret.name));
        }
        if !secrets.insert((&secret.namespace, &secret.name, &secret.key)) {
            say(format!("secret {}/{}: it is asked for twice", secret.namespace, secret.name));
        }
    }
    let mut migrations = HashSet::new();
    for migration in &pack.migrations {
        if !is_part_name(&migration.name) || !migrations.insert(&migration.name) {
            say(format!("migration {:?}: the name is not valid or used twice", migration.name));
        }
        if semver::VersionReq::parse(&migration.from).is_err() {
            say(format!("migration {}: from {:?} is not a range such as <1.1.0", migration.name, migration.from));
        }
        if !(1..=86_400).contains(&migration.timeout_seconds) {
            say(format!("migration {}: timeout-seconds must be 1 to 86400", migration.name));
        }
    }
    if !pack.migrations.is_empty() && semver::Version::parse(&pack.version).is_err() {
        say(format!("version {:?} is not a semantic version, which migrations need", pack.version));
    }
    for gate in &pack.gates {
        if !is_subdomain(&gate.name) || !is_label(&gate.namespace) {
            say(format!("gate {}/{}: name or namespace is not valid", gate.namespace, gate.name));
        }
        if !(1..=86_400).contains(&gate.timeout_seconds) {
            say(format!("gate {}/{}: timeout-seconds must be 1 to 86400", gate.namespace, gate.name));
        }
    }
    problems
}

/// A DNS label (RFC 1123).
pub(crate) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The name of most Kubernetes objects: DNS labels, joined by dots.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_part_name(text: &str) -> bool {
    text.parse::<Tag>().is_ok()
}

/// A key of a Secret's data (Kubernetes: `IsConfigMapKey`).
fn is_data_key(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && !text.starts_with("..")
        && text != "."
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_install_path(text: &str) -> bool {
    text.len() <= 4096
        && !text.chars().any(char::is_control)
        && text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|component| !matches!(component, "" | "." | "..")))
}

fn is_mode(text: &str) -> bool {
    let bits = text.strip_prefix('0').unwrap_or(text);
    bits.len() == 3 && bits.bytes().all(|byte| matches!(byte, b'0'..=b'7'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const GOOD: &str = r#"
schema-version: 1
name: cofferdam-sample
version: 1.0.0
architecture: amd64
created: 2026-11-01T00:00:00Z
upgrade-from: ">=0.9.0"
packs:
  - name: kubernetes
    version: 1.20.2
    layer: kubernetes
    description: one line
    optional-images: [k8s.gcr.io/coredns:1.7.0]
    images:
      - name: k8s.gcr.io/kube-apiserver:v1.20.2
        source: "oci:/path/layout:TAG"
    manifests:
      - { name: hello.yaml, source: hello.yaml, template: true }
    files:
      - name: kubemulti
        source: /path/kubemulti
        install:
          - { path: /usr/local/bin/kubelet, mode: "0755" }
        template: false
    secrets:
      - { name: root-key, namespace: hello, kind: random-256, key: root-key }
      - { name: web, namespace: hello, kind: site-certificate }
      - { name: sign, namespace: hello, kind: ecdsa-p256, key: sign.pem }
    gates:
      - { kind: deployment-available, namespace: hello, name: hello, timeout-seconds: 120 }
      - { kind: daemonset-ready, namespace: kube-system, name: kube-proxy, timeout-seconds: 120 }
    migrations:
      - name: move
        from: "<1.20.2"
        apply: { name: apply.yaml, source: apply.yaml }
        undo: { name: undo.yaml, source: undo.yaml }
        timeout-seconds: 60
  - name: hello
    version: 1.0.0
    layer: addon
    description: one line
    questions:
      - { name: greeting, text: What the front page says, kind: text, default: Hello, max-length: 80 }
      - { name: replicas, text: How many, kind: integer, min: 1, max: 9 }
      - { name: size, text: How large, kind: choice, choices: [small, large], default: small }
      - { name: public, text: Whether it is seen, kind: boolean }
"#;

    #[test]
    fn the_documented_example_is_good() {
        let definition = BundleDefinition::parse(GOOD, Utf8Path::new("/x")).unwrap();
        assert_eq!(definition.file_name(), "cofferdam-sample-1.0.0.tar.zst");
        assert_eq!(definition.packs[0].secrets[0].kind, SecretKind::Random256);
        assert_eq!(definition.packs[0].secrets[2].kind, SecretKind::EcdsaP256);
    }

    #[test]
    fn each_mistake_is_named() {
        for (from, to, says) in [
            ("schema-version: 1", "schema-version: 2", "schema-version"),
            ("name: cofferdam-sample", "name: ../x", "name"),
            ("name: cofferdam-sample", "name: cofferdam-sample\nnmae: x", "nmae"),
            ("version: 1.0.0", "version: one", "semantic version"),
            ("version: 1.0.0", "version: 1.0.0+build", "semantic version"),
            ("amd64", "sparc", "sparc"),
            ("2026-11-01T00:00:00Z", "yesterday", "yesterday"),
            (">=0.9.0", "newish", "newish"),
            ("layer: kubernetes", "layer: cake", "cake"),
            ("name: kubernetes", "name: Kubernetes", "lower-case"),
            ("version: 1.20.2", "version: 1/2", "tag"),
            ("name: k8s.gcr.io/kube-apiserver:v1.20.2", "name: K8S//x", "image reference"),
            ("name: hello.yaml", "name: ../hello.yaml", "letters"),
            ("name: kubemulti", "name: hello.yaml", "used twice"),
            ("/usr/local/bin/kubelet", "usr/local/bin/kubelet", "absolute"),
            ("/usr/local/bin/kubelet", "/usr/../bin/kubelet", "absolute"),
            ("/usr/local/bin/kubelet", "/usr//kubelet", "absolute"),
            ("\"0755\"", "\"4755\"", "octal"),
            ("\"0755\"", "\"0888\"", "octal"),
            ("kind: random-256, key: root-key", "kind: random-256", "key"),
            ("kind: random-256", "kind: random-1", "random-1"),
            ("name: web", "name: web/x", "not valid"),
            (
                "name: web, namespace: hello, kind: site-certificate",
                "name: root-key, namespace: hello, kind: password, key: root-key",
                "twice",
            ),
            ("kube-proxy, timeout-seconds: 120", "kube-proxy, timeout-seconds: 0", "timeout"),
            ("kind: daemonset-ready", "kind: daemonset-happy", "daemonset-happy"),
            ("from: \"<1.20.2\"", "from: older", "not a range"),
            ("name: undo.yaml", "name: apply.yaml", "used twice"),
            ("name: move", "name: /move", "not valid"),
            ("timeout-seconds: 60", "timeout-seconds: 0", "timeout"),
            ("name: greeting", "name: Greeting", "question Greeting: the name may hold"),
            ("name: greeting", "name: fqdn", "built-in variable"),
            ("name: greeting", "name: size", "question size: the name is used twice"),
            ("text: How many", "text: \"\"", "the text is not one line"),
            ("text: How many", "text: \"a\\nb\"", "the text is not one line"),
            ("default: Hello", "default: 5", "default: 5 is no text"),
            ("max-length: 80", "max-length: 4", "default: has more than 4 characters"),
            ("max-length: 80", "max-length: 5000", "max-length must be 1 to 4096"),
            ("max-length: 80", "min: 1", "min and max belong to the kind integer"),
            ("min: 1, max: 9", "min: 9, max: 1", "min 9 is above max 1"),
            ("min: 1, max: 9", "max-length: 5", "max-length belongs to the kind text"),
            ("default: small", "default: medium", "default: \"medium\" is not one of small, large"),
            ("[small, large]", "[small, small]", "choice \"small\""),
            ("[small, large]", "[]", "1 to 64 choices"),
            ("kind: boolean", "kind: boolean, choices: [a]", "choices belong"),
            ("kind: boolean", "kind: secret", "secret"),
            ("kind: boolean", "kind: boolean, hidden: true", "hidden"),
            ("layer: addon", "layer: kubernetes", "questions belong to packs of the layers"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let problems = BundleDefinition::parse(&GOOD.replacen(from, to, 1), Utf8Path::new("")).unwrap_err();
            assert!(problems.iter().any(|problem| problem.contains(says)), "{to}: {problems:?}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let text = GOOD
            .replace("version: 1.0.0", "version: x")
            .replace("\"0755\"", "\"x\"")
            .replace("1.20.2\n    l", "a/b\n    l");
        assert_eq!(
            BundleDefinition::parse(&text, Utf8Path::new("")).unwrap_err().len(),
            4,
            "the last one also since migrations compare versions"
        );
    }
}
