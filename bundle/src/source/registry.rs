//! Images from registries, pulled into the work directory of `create`. TLS always; plain HTTP is tried on loopback
//! only, and only after TLS was refused there. Invariant: a pulled blob has its final name (its digest) only after its
//! digest was right, so that a blob is pulled once whatever the number of images that share it.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use camino::{Utf8Path, Utf8PathBuf};
use oci_distribution::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_distribution::secrets::RegistryAuth;
use oci_distribution::{Client, Reference as ClientReference};
use serde::Deserialize;
use tokio::io::AsyncWrite;

use super::{BlobSource, Place};
use crate::error::Error;
use crate::oci::{Algorithm, Descriptor, Digest, Hasher, Reference, media_type};
use crate::read::MANIFEST_LIMIT;

/// How often a pull is tried before it fails.
pub(super) const ATTEMPTS: u32 = 3;
/// How often progress is reported while a pull runs.
const TICK: Duration = Duration::from_millis(100);
/// A registry that says nothing for so long is given up.
pub(super) const READ_TIMEOUT: Duration = Duration::from_mins(1);
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

const ACCEPTED: [&str; 4] =
    [media_type::OCI_MANIFEST, media_type::OCI_INDEX, media_type::DOCKER_MANIFEST, media_type::DOCKER_MANIFEST_LIST];

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// PEM certificates of authorities to trust in addition to the system's.
    pub ca_file: Option<Utf8PathBuf>,
    /// Credentials in the format of Docker's `config.json` (`auths`, base64 `user:password`).
    pub auth_file: Option<Utf8PathBuf>,
}

/// The registries of one `create`.
pub(crate) struct Registry {
    options: RegistryOptions,
    /// Where blobs are pulled to.
    pub(super) directory: Utf8PathBuf,
    /// Made when the first image of a registry is pulled.
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
}

pub(super) fn fail(what: impl fmt::Display, why: impl fmt::Display) -> Error {
    Error::Registry { what: what.to_string(), why: why.to_string() }
}

/// An error with its causes: reqwest's own text stops before the part that helps.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl Registry {
    pub(crate) fn new(options: RegistryOptions, directory: Utf8PathBuf) -> Self {
        Self { options, directory, runtime: None }
    }

    /// Before the first client is built, which asks for it. Fails only if the process has a provider already, which is
    /// then the same one.
    pub(super) fn choose_provider() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }

    /// The further authorities, each as PEM.
    pub(super) fn authorities(&self) -> Result<Vec<Vec<u8>>, Error> {
        let Some(path) = &self.options.ca_file else { return Ok(Vec::new()) };
        let text = fs::read_to_string(path).map_err(|error| Error::io(format!("read {path}"), error))?;
        let found: Vec<_> = text.split(BEGIN).skip(1).map(|rest| format!("{BEGIN}{rest}").into_bytes()).collect();
        if found.is_empty() {
            return Err(fail("the CA file", format!("{path} holds no PEM certificate")));
        }
        Ok(found)
    }

    fn client(&self, protocol: ClientProtocol) -> Result<Client, Error> {
        let mut config = ClientConfig {
            protocol,
            read_timeout: Some(READ_TIMEOUT),
            connect_timeout: Some(CONNECT_TIMEOUT),
            platform_resolver: None,
            user_agent: concat!("cofferdam/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        config.extra_root_certificates = self
            .authorities()?
            .into_iter()
            .map(|data| Certificate { encoding: CertificateEncoding::Pem, data })
            .collect();
        Client::try_from(config).map_err(|error| fail("anything", causes(&error)))
    }

    fn credentials(&self, registry: &str) -> Result<RegistryAuth, Error> {
        let Some(path) = &self.options.auth_file else { return Ok(RegistryAuth::Anonymous) };
        let bad = |why: &str| fail(registry, format!("{path}: {why}"));
        let text = fs::read_to_string(path).map_err(|error| Error::io(format!("read {path}"), error))?;
        // Not the parser's own message: it may quote the file.
        let config: DockerConfig = serde_json::from_str(&text).map_err(|_| bad("it is not a Docker config.json"))?;
        let names = [registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v1/")];
        let docker_hub = (registry == "docker.io").then(|| "https://index.docker.io/v1/".to_owned());
        let Some(entry) = names.iter().chain(&docker_hub).find_map(|name| config.auths.get(name)) else {
            return Ok(RegistryAuth::Anonymous);
        };
        let decoded = STANDARD.decode(&entry.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (user, password) = decoded
            .as_deref()
            .and_then(|pair| pair.split_once(':'))
            .ok_or_else(|| bad("the registry's auth is not base64 of user:password"))?;
        Ok(RegistryAuth::Basic(user.to_owned(), password.to_owned()))
    }

    /// Runs a future on a thread of its own, so that it works whether or not the caller is inside a runtime, and calls
    /// `tick` meanwhile.
    pub(super) fn run<T: Send>(
        &mut self,
        future: impl Future<Output = T> + Send,
        tick: &mut dyn FnMut(),
    ) -> Result<T, Error> {
        let runtime = if let Some(runtime) = &self.runtime {
            runtime
        } else {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Error::io("start the network runtime", error))?;
            &*self.runtime.insert(runtime)
        };
        thread::scope(|scope| {
            let caller = thread::current();
            let worker = scope.spawn(move || {
                let outcome = runtime.block_on(future);
                caller.unpark();
                outcome
            });
            while !worker.is_finished() {
                thread::park_timeout(TICK);
                tick();
            }
            worker.join().map_err(|_| fail("anything", "the network thread failed"))
        })
    }

    /// Asks for an image's manifest; gives its descriptor and what pulls the rest.
    pub(super) fn open<'r>(
        &'r mut self,
        reference: &Reference,
        tick: &'r mut dyn FnMut(&str, u64, u64),
    ) -> Result<(Descriptor, Puller<'r>), Error> {
        Self::choose_provider();
        let name = reference.to_string();
        let image: ClientReference = name.parse().map_err(|error| fail(&name, error))?;
        let auth = self.credentials(reference.registry())?;
        let mut protocols = vec![ClientProtocol::Https];
        if is_loopback(reference.registry()) {
            protocols.push(ClientProtocol::Http);
        }
        let mut failures = Vec::new();
        for protocol in protocols {
            let client = self.client(protocol)?;
            match self.pull_manifest(&client, &image, &auth, &mut || tick(&name, 0, 0)) {
                Ok(bytes) => {
                    let algorithm = reference.digest().map_or(Algorithm::Sha256, |digest| digest.algorithm());
                    let descriptor = describe(algorithm, &bytes).map_err(|why| fail(&name, why))?;
                    if reference.digest().is_some_and(|digest| digest != descriptor.digest) {
                        return Err(fail(&name, "the registry gave a manifest with another digest"));
                    }
                    let manifests = HashMap::from([(descriptor.digest, bytes)]);
                    return Ok((descriptor, Puller { registry: self, client, image, auth, name, manifests, tick }));
                }
                Err(why) => failures.push(why),
            }
        }
        Err(fail(&name, failures.join("; over plain HTTP: ")))
    }

    fn pull_manifest(
        &mut self,
        client: &Client,
        image: &ClientReference,
        auth: &RegistryAuth,
        tick: &mut dyn FnMut(),
    ) -> Result<Arc<[u8]>, String> {
        let pulled =
            self.run(client.pull_manifest_raw(image, auth, &ACCEPTED), tick).map_err(|error| error.to_string())?;
        let (bytes, _) = pulled.map_err(|error| causes(&error))?;
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err("its manifest is larger than 4 MiB".to_owned());
        }
        Ok(Arc::from(bytes.as_ref()))
    }
}

/// Pulls the blobs of one image.
pub(super) struct Puller<'r> {
    registry: &'r mut Registry,
    client: Client,
    image: ClientReference,
    auth: RegistryAuth,
    name: String,
    manifests: HashMap<Digest, Arc<[u8]>>,
    tick: &'r mut dyn FnMut(&str, u64, u64),
}

impl BlobSource for Puller<'_> {
    fn place(&mut self, descriptor: &Descriptor, is_manifest: bool) -> Result<Place, Error> {
        if !is_manifest {
            return self.pull_blob(descriptor);
        }
        if let Some(bytes) = self.manifests.get(&descriptor.digest) {
            return Ok(Place::Bytes(Arc::clone(bytes)));
        }
        let image = self.image.clone_with_digest(descriptor.digest.to_string());
        let name = self.name.clone();
        let tick = &mut *self.tick;
        self.registry
            .pull_manifest(&self.client, &image, &self.auth, &mut || tick(&name, 0, 0))
            .map(Place::Bytes)
            .map_err(|why| fail(&image, why))
    }
}

impl Puller<'_> {
    fn pull_blob(&mut self, descriptor: &Descriptor) -> Result<Place, Error> {
        let path = self.registry.directory.join(descriptor.digest.hex());
        if path.exists() {
            return Ok(Place::File { path, offset: 0 });
        }
        let digest = descriptor.digest.to_string();
        let what = format!("blob {digest} of {}", self.name);
        let partial = path.with_extension("partial");
        let mut attempt = 1;
        loop {
            let done = Arc::new(AtomicU64::new(0));
            let target = Target::create(&partial, descriptor.size, &done)?;
            let tick = &mut *self.tick;
            let mut report = || tick(&what, done.load(Ordering::Relaxed), descriptor.size);
            let pull = self.client.pull_blob(&self.image, digest.as_str(), target);
            match self.registry.run(pull, &mut report)? {
                Ok(()) => break,
                Err(error) if attempt == ATTEMPTS => return Err(fail(&what, causes(&error))),
                Err(_) => attempt += 1,
            }
        }
        fs::rename(&partial, &path).map_err(|error| Error::io(format!("rename {partial}"), error))?;
        Ok(Place::File { path, offset: 0 })
    }
}

/// Digest, size and media type of a manifest. A registry says the type in a header too, but the text is what is
/// signed.
fn describe(algorithm: Algorithm, bytes: &[u8]) -> Result<Descriptor, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = serde_json::from_slice(bytes).map_err(|error| format!("its manifest: {error}"))?;
    let inferred = if shape.manifests.is_some() { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    Ok(Descriptor::new(shape.media_type.as_deref().unwrap_or(inferred), hasher.finish(), bytes.len() as u64))
}

pub(super) fn is_loopback(registry: &str) -> bool {
    if let Some(rest) = registry.strip_prefix('[') {
        return rest
            .split_once(']')
            .and_then(|(host, _)| host.parse::<IpAddr>().ok())
            .is_some_and(|it| it.is_loopback());
    }
    let host = registry.split_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A file that takes at most as many bytes as the blob has. Writes block, which is fine on a thread of its own.
struct Target {
    file: BufWriter<File>,
    remaining: u64,
    done: Arc<AtomicU64>,
}

impl Target {
    fn create(path: &Utf8Path, size: u64, done: &Arc<AtomicU64>) -> Result<Self, Error> {
        let file = File::create(path).map_err(|error| Error::io(format!("write {path}"), error))?;
        Ok(Self { file: BufWriter::with_capacity(crate::frame::CHUNK, file), remaining: size, done: Arc::clone(done) })
    }
}

impl AsyncWrite for Target {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let length = bytes.len() as u64;
        let Some(remaining) = self.remaining.checked_sub(length) else {
            return Poll::Ready(Err(io::Error::other("the registry sends more than the manifest says")));
        };
        self.remaining = remaining;
        self.done.fetch_add(length, Ordering::Relaxed);
        Poll::Ready(self.file.write_all(bytes).map(|()| bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.file.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_only() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:5000"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["docker.io", "10.0.0.1:5000", "localhost.example", "127.0.0.1.example:5000", "[fe80::1]:5000"] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[test]
    fn credentials_are_found_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().join("config.json")).unwrap();
        let secret = STANDARD.encode("user:pass:word");
        fs::write(
            &path,
            format!(r#"{{"auths":{{"a.example":{{"auth":"{secret}"}},"b.example":{{"auth":"hunter2"}}}}}}"#),
        )
        .unwrap();
        let options = RegistryOptions { ca_file: None, auth_file: Some(path.clone()) };
        let registry = Registry::new(options, Utf8PathBuf::new());
        let found = registry.credentials("a.example").unwrap();
        assert!(matches!(found, RegistryAuth::Basic(user, password) if user == "user" && password == "pass:word"));
        assert!(matches!(registry.credentials("c.example").unwrap(), RegistryAuth::Anonymous));
        assert!(!registry.credentials("b.example").unwrap_err().to_string().contains("hunter2"));
        fs::write(&path, r#"{"auths": "hunter2"}"#).unwrap();
        assert!(!registry.credentials("a.example").unwrap_err().to_string().contains("hunter2"));
    }
}
