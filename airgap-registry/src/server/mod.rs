//! The server: connections, and what a request goes through before its handler.
//!
//! Invariant: a handler runs only after the request was parsed and the asker was found to be allowed; a slow or
//! hostile client costs one connection of a limited number and a bounded amount of memory. Called by `registry serve`.

mod answer;
mod asker;
mod body;
mod cache;
mod call;
mod connection;
mod exchange;
mod head;
mod metrics;
mod miss;
mod patience;
mod problem;
mod pull;
mod push;
mod query;
mod range;
mod receive;
mod route;
mod tls;
mod transport;
mod upkeep;
mod uploads;

use std::fs::File;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{HeaderMap, Method, Response, StatusCode, header};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::identity::{Passwords, Permission, Policy, Rights, Tokens};
use crate::naming;
use crate::peer::{self, FetchBounds, Peers};
use crate::store::Store;
use asker::{Asker, Peer};
use body::Body;
use call::Call;
use metrics::Metrics;
use problem::Problem;
use query::Query;
use route::Endpoint;

pub use connection::Server;
// For [`crate::peer`].
pub(crate) use patience::Progress;
pub(crate) use receive::{Outcome, gather};
pub(crate) use tls::client as client_tls;

/// The parsers, for [`crate::fuzz`].
pub(crate) mod fuzzed {
    pub(crate) use super::asker::basic_credentials;
    pub(crate) use super::head::{Parsed, parse as parse_head};
    pub(crate) use super::query::Query;
    pub(crate) use super::range::{Requested, chunk, requested};
    pub(crate) use super::route::Endpoint;
}

/// Serves until `shutdown` is ready, then finishes what is going on. Tells systemd when it listens.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    Server::bind(config).await?.run(shutdown).await
}

/// Serves until SIGTERM or SIGINT, on a runtime of its own. SIGHUP reads certificates, passwords and policy again.
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
    manifests: Arc<cache::Manifests>,
    metrics: Arc<Metrics>,
    passwords: Option<Passwords>,
    tokens: Option<Tokens>,
    rights: RwLock<Arc<Rights>>,
    tls: Option<RwLock<Arc<tls::Tls>>>,
    peers: Option<RwLock<Arc<Peers>>>,
    /// Held as long as the server lives.
    _serving: File,
}

impl Service {
    fn open(config: Config) -> Result<Self> {
        config.validate()?;
        let tls = config.tls.as_ref().map(tls::load).transpose()?;
        let passwords = config.htpasswd.as_deref().map(Passwords::open).transpose()?;
        let lifetime = config.tokens.as_ref().map(|tokens| Duration::from_secs(tokens.lifetime_seconds));
        let tokens = lifetime.map(Tokens::new).transpose()?;
        let rights = read_rights(&config)?;
        let peers = read_peers(&config)?.map(|peers| RwLock::new(Arc::new(peers)));
        let store = Store::create(&config.store)?;
        let serving = store.lock_serving()?;
        Ok(Self {
            store: Arc::new(store),
            uploads: Arc::default(),
            manifests: Arc::default(),
            metrics: Arc::default(),
            passwords,
            tokens,
            rights: RwLock::new(Arc::new(rights)),
            tls: tls.map(|tls| RwLock::new(Arc::new(tls))),
            peers,
            config,
            _serving: serving,
        })
    }

    /// Reads certificates, passwords and policy again. What cannot be used is reported, and the old stays.
    fn reload(&self) {
        let report = |what: &str, error: &Error| {
            tracing::error!(%error, hint = error.hint().unwrap_or_default(), "the {what} was not replaced");
        };
        if let (Some(current), Some(config)) = (&self.tls, &self.config.tls) {
            match tls::load(config) {
                Ok(tls) => {
                    *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tls);
                    tracing::info!("the certificate was read again");
                }
                Err(error) => report("certificate", &error),
            }
        }
        if let Some(current) = &self.peers {
            match read_peers(&self.config) {
                Ok(Some(peers)) => *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(peers),
                Ok(None) => {}
                Err(error) => report("certificate for peers", &error),
            }
        }
        match read_rights(&self.config) {
            Ok(rights) => *self.rights.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rights),
            Err(error) => report("policy", &error),
        }
        if let Some(passwords) = &self.passwords {
            passwords.refresh();
        }
    }

    fn tls(&self) -> Option<Arc<tls::Tls>> {
        self.tls.as_ref().map(|tls| Arc::clone(&tls.read().unwrap_or_else(PoisonError::into_inner)))
    }

    fn rights(&self) -> Arc<Rights> {
        Arc::clone(&self.rights.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes of the store's filesystem that stay free.
    fn watermark(&self) -> u64 {
        self.config.limits.free_space_mib << 20
    }

    /// Answers a request; whatever happens, there is an answer.
    async fn answer(self: Arc<Self>, peer: Arc<Peer>, call: Call) -> Response<Body> {
        let method = call.method.clone();
        let parsed = Endpoint::parse(&method, &call.path)
            .and_then(|endpoint| Query::parse(call.query.as_deref()).map(|query| (endpoint, query)))
            .and_then(|(endpoint, query)| Ok((self.in_namespace(endpoint, &query, &call.headers)?, query)));
        let (endpoint, query) = match parsed {
            Ok(parsed) => parsed,
            Err(problem) => {
                tracing::debug!(peer = %peer.address, %method, path = call.path, problem = problem.message, "refused");
                self.metrics.count("refused", problem.status.as_u16());
                return problem.into_response();
            }
        };
        let (action, permission) = (endpoint.action(), endpoint.permission());
        let is_written_down = self.config.access_log || permission >= Permission::Push;
        let path = call.path.clone();
        let (who, response) = match self.identify(&peer, &call.headers).await {
            Err((name, problem)) => {
                let response = self.challenged(problem, &call.headers, &endpoint, None).into_response();
                (format!("unproven:{name}"), response)
            }
            Ok(asker) => {
                let refusal = self.refusal(&asker, &endpoint, &call.headers);
                let who = if is_written_down || refusal.is_some() { asker.to_string() } else { String::new() };
                let response = match refusal {
                    Some(problem) => problem.into_response(),
                    None => self.dispatch(endpoint, query, call, &asker).await.unwrap_or_else(Problem::into_response),
                };
                (who, response)
            }
        };
        self.metrics.count(action, response.status().as_u16());
        let is_refusal = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if is_refusal || matches!(permission, Permission::Push | Permission::Delete) {
            let (digest, status) = (digest_of(&response), response.status().as_u16());
            tracing::info!(target: "cofferdam::audit", who, peer = %peer.address, action, path, digest, status, "audit");
        } else if self.config.access_log {
            let (digest, status) = (digest_of(&response), response.status().as_u16());
            tracing::info!(target: "cofferdam::access", who, peer = %peer.address, action, path, digest, status, "access");
        }
        response
    }

    /// `ns=HOST` names the upstream registry that a mirror request is for (containerd, docs/hosts.md): the repository
    /// is then the one under that host's name. Our own names are no upstream.
    fn in_namespace(
        &self,
        endpoint: Endpoint,
        query: &Query,
        headers: &HeaderMap,
    ) -> std::result::Result<Endpoint, Problem> {
        let (Some(host), Some(name)) = (query.namespace.as_deref(), endpoint.repository()) else { return Ok(endpoint) };
        let asked_as = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        let without_port = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
        let is_our_name =
            self.tls().is_some_and(|tls| tls.names.iter().any(|name| name.eq_ignore_ascii_case(without_port)));
        if is_our_name || asked_as.is_some_and(|asked| asked.eq_ignore_ascii_case(host)) {
            return Ok(endpoint);
        }
        let moved = naming::upstream_repository(host, name).map_err(|error| Problem::bad_name(&error))?;
        Ok(endpoint.moved_to(moved))
    }

    async fn dispatch(
        &self,
        endpoint: Endpoint,
        query: Query,
        call: Call,
        asker: &Asker,
    ) -> std::result::Result<Response<Body>, Problem> {
        let is_head = call.method == Method::HEAD;
        let is_push = endpoint.permission() == Permission::Push;
        let mut response = match endpoint {
            Endpoint::Health => Ok(answer::text("ok\n")),
            Endpoint::Ready => self.ready().await,
            Endpoint::Base => Ok(self.base(asker, &call.headers)),
            Endpoint::Token => self.token(asker, &query, &call.headers),
            Endpoint::Metrics => self.numbers().await,
            Endpoint::Catalog => self.catalog(&query).await,
            Endpoint::Content => self.content().await,
            Endpoint::ReadBlob(name, digest) => self.read_blob(name, digest, &call.headers, is_head).await,
            Endpoint::ReadManifest(name, reference) => {
                self.read_manifest(name, reference, &call.headers, is_head).await
            }
            Endpoint::ListTags(name) => self.list_tags(name, &query).await,
            Endpoint::ListReferrers(name, digest) => self.list_referrers(name, digest, &query).await,
            Endpoint::StartUpload(name) => self.start_upload(name, &query, call, asker).await,
            Endpoint::ContinueUpload(name, id) => self.continue_upload(name, id, call).await,
            Endpoint::FinishUpload(name, id) => self.finish_upload(name, id, &query, call).await,
            Endpoint::UploadStatus(name, id) => self.upload_status(name, id).await,
            Endpoint::CancelUpload(name, id) => self.cancel_upload(name, id).await,
            Endpoint::WriteManifest(name, reference) => self.write_manifest(name, reference, &query, call, asker).await,
            Endpoint::DeleteManifest(name, reference) => self.delete_manifest(name, reference).await,
            Endpoint::DeleteBlob(name, digest) => self.delete_blob(name, digest).await,
        }?;
        if is_push {
            let free = self.store.free_bytes()?;
            if free / 2 < self.watermark() {
                answer::warn(&mut response, &format!("the registry's disk is nearly full: {} MiB left", free >> 20))?;
            }
        }
        Ok(response)
    }

    async fn ready(&self) -> std::result::Result<Response<Body>, Problem> {
        let store = Arc::clone(&self.store);
        blocking(move || crate::store::disk::names_in(store.root())).await?;
        Ok(answer::text("ready\n"))
    }

    async fn numbers(&self) -> std::result::Result<Response<Body>, Problem> {
        let (store, metrics, watermark_bytes) = (Arc::clone(&self.store), Arc::clone(&self.metrics), self.watermark());
        let passwords_compared = self.passwords.as_ref().map_or(0, Passwords::compared);
        let text = blocking(move || {
            let (free_bytes, uploads) = (store.free_bytes()?, store.uploads()? as u64);
            Ok(metrics.render(&metrics::Gauges { free_bytes, watermark_bytes, uploads, passwords_compared }))
        });
        Ok(answer::numbers(text.await?))
    }
}

fn digest_of(response: &Response<Body>) -> &str {
    response.headers().get(answer::CONTENT_DIGEST).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// The peers that are asked for what is missing here; `None` when there are none. The one that is followed is reached
/// later, and must be one that can be.
fn read_peers(config: &Config) -> Result<Option<Peers>> {
    let Some(peers) = &config.peers else { return Ok(None) };
    if let Some(leader) = &peers.follow {
        peer::Peer::new(leader, peers)?;
    }
    if peers.servers.is_empty() {
        return Ok(None);
    }
    Peers::new(peers, FetchBounds::from(&config.limits)).map(Some)
}

fn read_rights(config: &Config) -> Result<Rights> {
    let policy = config.policy.as_deref().map(Policy::read).transpose()?;
    Ok(Rights { policy, anonymous_pull: config.anonymous_pull })
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
