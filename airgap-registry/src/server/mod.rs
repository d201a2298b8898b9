//! The server: connections, and what a request goes through before its handler.
//!
//! Invariant: a handler runs only after the request was parsed and the asker was found to be allowed; a slow or
//! hostile client costs one connection of a limited number and a bounded amount of memory. Called by `registry serve`.

mod answer;
mod body;
mod connection;
mod patience;
mod problem;
mod pull;
mod push;
mod range;
mod route;
mod tls;
mod uploads;

use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::identity::{Identity, Passwords, Permission, Verdict};
use crate::naming;
use crate::store::Store;
use body::Body;
use problem::Problem;
use route::{Endpoint, Query};

pub use connection::Server;

/// What a client is asked for that is nobody yet (RFC 7617).
const CHALLENGE: &str = "Basic realm=\"cofferdam registry\", charset=\"UTF-8\"";

/// How long nothing may arrive of a body, or be taken of an answer.
const IDLE: Duration = Duration::from_mins(1);

/// Serves until `shutdown` is ready, then finishes what is going on. Tells systemd when it listens.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    Server::bind(config).await?.run(shutdown).await
}

/// Serves until SIGTERM or SIGINT, on a runtime of its own. SIGHUP reads certificates and passwords again.
pub fn run(config: Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Reads that miss the page cache and writes wait on these; more would only make the disk's queue longer.
        .max_blocking_threads(32)
        .enable_all()
        .build()
        .map_err(|_| Error::Unexpected("cannot start the threads of the server"))?;
    runtime.block_on(async { serve(config, connection::terminated()?).await })
}

/// All that the requests share.
pub(crate) struct Service {
    config: Config,
    store: Arc<Store>,
    uploads: Arc<uploads::Uploads>,
    passwords: Option<Passwords>,
    tls: Option<RwLock<Arc<tls::Tls>>>,
    /// Held as long as the server lives.
    _serving: File,
}

/// Who is at the other end of a connection.
pub(crate) struct Peer {
    address: SocketAddr,
    /// By its client certificate.
    identity: Identity,
}

impl Service {
    fn open(config: Config) -> Result<Self> {
        config.validate()?;
        let tls = config.tls.as_ref().map(tls::load).transpose()?;
        let passwords = config.htpasswd.as_deref().map(Passwords::open).transpose()?;
        let store = Store::create(&config.store)?;
        let serving = store.lock_serving()?;
        Ok(Self {
            store: Arc::new(store),
            uploads: Arc::default(),
            passwords,
            tls: tls.map(|tls| RwLock::new(Arc::new(tls))),
            config,
            _serving: serving,
        })
    }

    /// Reads certificates and passwords again. What cannot be used is reported, and the old stays.
    fn reload(&self) {
        if let (Some(current), Some(config)) = (&self.tls, &self.config.tls) {
            match tls::load(config) {
                Ok(tls) => {
                    *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tls);
                    tracing::info!("the certificate was read again");
                }
                Err(error) => {
                    let hint = error.hint().unwrap_or_default();
                    tracing::error!(%error, hint, "the certificate was not replaced");
                }
            }
        }
        if let Some(passwords) = &self.passwords {
            passwords.refresh();
        }
    }

    fn tls(&self) -> Option<Arc<tls::Tls>> {
        self.tls.as_ref().map(|tls| Arc::clone(&tls.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Answers a request; whatever happens, there is an answer.
    async fn answer(self: Arc<Self>, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let parsed = Endpoint::parse(&method, &path)
            .and_then(|endpoint| Query::parse(request.uri().query()).map(|query| (endpoint, query)));
        let (mut endpoint, query) = match parsed {
            Ok(parsed) => parsed,
            Err(problem) => {
                tracing::debug!(peer = %peer.address, %method, path, problem = problem.message, "refused");
                return problem.into_response();
            }
        };
        let identity = match self.identify(&peer, request.headers()).await {
            Ok(identity) => identity,
            Err(name) => {
                let response = Problem::unauthorized().into_response();
                audit(&peer, &format!("unproven:{name}"), &endpoint, &path, &response);
                return response;
            }
        };
        let permission = endpoint.permission();
        let response = if !identity.may(permission, self.config.anonymous_pull) {
            let problem = if identity == Identity::Anonymous { Problem::unauthorized() } else { Problem::denied() };
            problem.into_response()
        } else if let Err(problem) = self.apply_namespace(&mut endpoint, &query, request.headers()) {
            problem.into_response()
        } else {
            let is_anonymous = identity == Identity::Anonymous;
            self.dispatch(endpoint.clone(), query, request, is_anonymous).await.unwrap_or_else(Problem::into_response)
        };
        let is_write = matches!(permission, Permission::Push | Permission::Delete);
        if is_write || matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            audit(&peer, &identity.to_string(), &endpoint, &path, &response);
        } else {
            tracing::debug!(who = %identity, peer = %peer.address, %method, path, status = response.status().as_u16(), "served");
        }
        response
    }

    /// Who asks: by password when one is given, else by client certificate. The error is the name that was claimed.
    async fn identify(&self, peer: &Peer, headers: &HeaderMap) -> std::result::Result<Identity, String> {
        let Some(authorization) = headers.get(header::AUTHORIZATION) else { return Ok(peer.identity.clone()) };
        let Some((user, password)) = basic_credentials(authorization) else { return Err("unreadable".to_owned()) };
        if user.is_empty() && password.is_empty() {
            // skopeo and podman send this when they were challenged and have no credentials.
            return Ok(peer.identity.clone());
        }
        match &self.passwords {
            Some(passwords) if passwords.verify(&user, &password).await == Verdict::Right => {
                Ok(Identity::Administrator(user))
            }
            _ => Err(user.chars().filter(|letter| !letter.is_control()).take(64).collect()),
        }
    }

    /// `ns=HOST` names the upstream registry that a mirror request is for (containerd, docs/hosts.md): the repository
    /// is then the one under that host's name. Our own names are no upstream.
    fn apply_namespace(
        &self,
        endpoint: &mut Endpoint,
        query: &Query,
        headers: &HeaderMap,
    ) -> std::result::Result<(), Problem> {
        let (Some(host), Some(name)) = (query.namespace.as_deref(), endpoint.repository_mut()) else { return Ok(()) };
        let asked_as = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        let without_port = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
        let is_our_name =
            self.tls().is_some_and(|tls| tls.names.iter().any(|name| name.eq_ignore_ascii_case(without_port)));
        if is_our_name || asked_as.is_some_and(|asked| asked.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        *name = naming::upstream_repository(host, name).map_err(|error| Problem::bad_name(&error))?;
        Ok(())
    }

    async fn dispatch(
        &self,
        endpoint: Endpoint,
        query: Query,
        request: Request<Incoming>,
        is_anonymous: bool,
    ) -> std::result::Result<Response<Body>, Problem> {
        let is_head = request.method() == Method::HEAD;
        match endpoint {
            Endpoint::Health => Ok(answer::text("ok\n")),
            Endpoint::Ready => self.ready().await,
            Endpoint::Base => {
                let mut response = answer::json(&serde_json::json!({}));
                if is_anonymous && self.passwords.is_some() {
                    // Clients that may read without a name look here for how to give one when they want to write.
                    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
                }
                Ok(response)
            }
            Endpoint::Catalog => self.catalog(&query).await,
            Endpoint::ReadBlob(name, digest) => self.read_blob(name, digest, request.headers(), is_head).await,
            Endpoint::ReadManifest(name, reference) => {
                self.read_manifest(name, reference, request.headers(), is_head).await
            }
            Endpoint::ListTags(name) => self.list_tags(name, &query).await,
            Endpoint::ListReferrers(name, digest) => self.list_referrers(name, digest, &query).await,
            Endpoint::StartUpload(name) => self.start_upload(name, &query, request).await,
            Endpoint::ContinueUpload(name, id) => self.continue_upload(name, id, request).await,
            Endpoint::FinishUpload(name, id) => self.finish_upload(name, id, &query, request).await,
            Endpoint::UploadStatus(name, id) => self.upload_status(name, id).await,
            Endpoint::CancelUpload(name, id) => self.cancel_upload(name, id).await,
            Endpoint::WriteManifest(name, reference) => self.write_manifest(name, reference, &query, request).await,
            Endpoint::DeleteManifest(name, reference) => self.delete_manifest(name, reference).await,
            Endpoint::DeleteBlob(name, digest) => self.delete_blob(name, digest).await,
        }
    }

    async fn ready(&self) -> std::result::Result<Response<Body>, Problem> {
        let store = Arc::clone(&self.store);
        blocking(move || crate::store::disk::names_in(store.root())).await?;
        Ok(answer::text("ready\n"))
    }
}

/// Runs what waits for the disk on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> std::result::Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Problem::from),
        Err(error) => {
            tracing::error!(%error, "a worker failed");
            Err(Problem::internal())
        }
    }
}

/// Name and password of an `Authorization: Basic` header (RFC 7617).
fn basic_credentials(header: &HeaderValue) -> Option<(String, zeroize::Zeroizing<String>)> {
    use base64::Engine;
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = zeroize::Zeroizing::new(base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?);
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), zeroize::Zeroizing::new(password.to_owned())))
}

/// One line for each write and each refusal: who, from where, what, and what came of it.
fn audit(peer: &Peer, who: &str, endpoint: &Endpoint, path: &str, response: &Response<Body>) {
    let digest = response.headers().get(answer::CONTENT_DIGEST).and_then(|value| value.to_str().ok()).unwrap_or("");
    let status = response.status().as_u16();
    tracing::info!(
        target: "cofferdam::audit",
        who,
        peer = %peer.address,
        action = endpoint.action(),
        path,
        digest,
        status,
        "audit"
    );
}
