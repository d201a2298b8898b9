//! Listening, handshakes, connections, signals, and the orderly end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::asker::Peer;
use super::call::Call;
use super::exchange::{self, End};
use super::head::{MAXIMUM_BYTES, MAXIMUM_HEADERS};
use super::patience::Patient;
use super::transport::{Rewound, Transport};
use super::upkeep::Upkeep;
use super::{Service, metrics};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::notify;

/// hyper's buffer per connection.
const BUFFER: usize = 128 << 10;
/// How long requests may go on after the end was asked for.
const FINISH: Duration = Duration::from_secs(20);

/// A server that has its addresses.
pub struct Server {
    service: Arc<Service>,
    listeners: Vec<TcpListener>,
}

impl Server {
    /// Opens the store, reads certificates and passwords, and listens; nothing is answered yet.
    pub async fn bind(config: Config) -> Result<Self> {
        let addresses = config.listen.clone();
        let service = tokio::task::spawn_blocking(move || Service::open(config))
            .await
            .map_err(|_| Error::Unexpected("opening the store failed"))??;
        let mut listeners = Vec::new();
        for address in addresses {
            listeners.push(TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?);
        }
        Ok(Self { service: Arc::new(service), listeners })
    }

    /// The addresses it listens on, with the ports that were chosen for port 0.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Answers until `shutdown` is ready; then finishes what is going on, for 20 seconds at most.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let hangup = signal(SignalKind::hangup()).map_err(|_| Error::Unexpected("cannot listen to signals"))?;
        let reloading = tokio::spawn(reload(Arc::clone(&self.service), hangup));
        let (ending, end) = watch::channel(false);
        let room = Arc::new(Semaphore::new(self.service.config.limits.connections));
        let addressed = Arc::new(Addresses::default());
        let upkeep = Upkeep::start(&self.service);
        let addresses: Vec<_> = self.local_addresses().iter().map(ToString::to_string).collect();
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(accept(
                listener,
                Arc::clone(&self.service),
                Arc::clone(&room),
                Arc::clone(&addressed),
                end.clone(),
            ));
        }
        drop(end);
        let addresses = addresses.join(", ");
        tracing::info!(addresses, store = %self.service.store.root(), "the registry serves");
        notify::ready(&format!("serving on {addresses}"));
        shutdown.await;
        notify::stopping();
        tracing::info!("the registry finishes what is going on and ends");
        // The accept loops end, and each connection after the request that it is answering.
        let _ = ending.send(true);
        let finish = async { while accepting.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH, finish).await.is_err() {
            tracing::warn!("some requests did not end in time and were cut off");
        }
        reloading.abort();
        let _ = tokio::task::spawn_blocking(move || drop(upkeep)).await;
        Ok(())
    }
}

/// Ready when SIGTERM or SIGINT arrives. Must be called inside a runtime.
pub(super) fn terminated() -> Result<impl Future<Output = ()>> {
    let failed = |_| Error::Unexpected("cannot listen to signals");
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn reload(service: Arc<Service>, mut hangup: tokio::signal::unix::Signal) {
    while hangup.recv().await.is_some() {
        let service = Arc::clone(&service);
        let _ = tokio::task::spawn_blocking(move || service.reload()).await;
    }
}

/// How many connections each address has.
#[derive(Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// One of the connections of an address, until it is dropped.
struct Place(Arc<Addresses>, IpAddr);

impl Addresses {
    /// `None` when the address has as many as it may have.
    fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place(Arc::clone(self), address))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

async fn accept(
    listener: TcpListener,
    service: Arc<Service>,
    room: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    mut end: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = end.changed() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let most = service.config.limits.connections_per_address;
                match addresses.enter(address.ip().to_canonical(), most) {
                    Some(place) => {
                        let held = (permit, place);
                        connections.spawn(connect(stream, address, Arc::clone(&service), held, end.clone()));
                    }
                    None => metrics::add(&service.metrics.turned_away, 1),
                }
            }
            Err(error) => {
                // Out of file descriptors, mostly: some connection will end.
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connect(
    stream: TcpStream,
    address: SocketAddr,
    service: Arc<Service>,
    held: (OwnedSemaphorePermit, Place),
    mut end: watch::Receiver<bool>,
) {
    let _held = held;
    let _open = Open::new(&service);
    let _ = stream.set_nodelay(true);
    let Some((mut transport, identity)) = shake_hands(stream, address, &service).await else { return };
    let peer = Arc::new(Peer { address, identity });
    let result = exchange::run(&mut transport, &peer, &service, &mut end).await;
    let result = match result {
        Ok(End::Closed) => Ok(()),
        Ok(End::HandOver(bytes)) => {
            converse(Rewound::new(bytes, transport), peer, service, end).await.map_err(io::Error::other)
        }
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::debug!(peer = %address, %error, "a connection ended");
    }
}

/// Counts a connection as open until it is dropped.
struct Open(Arc<metrics::Metrics>);

impl Open {
    fn new(service: &Service) -> Self {
        metrics::add(&service.metrics.connections, 1);
        Self(Arc::clone(&service.metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connection once it is ready for requests, and who its certificate says it is.
async fn shake_hands(stream: TcpStream, address: SocketAddr, service: &Service) -> Option<(Transport, Identity)> {
    let Some(tls) = service.tls() else { return Some((Transport::Plain(stream), Identity::Anonymous)) };
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&tls.config));
    let patience = Duration::from_secs(service.config.limits.head_seconds);
    match tokio::time::timeout(patience, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let identity = certificate.map_or(Identity::Anonymous, Identity::of_certificate);
            Some((Transport::Tls(Box::new(stream)), identity))
        }
        Ok(Err(error)) => {
            refuse_handshake(address, &error);
            None
        }
        Err(_) => {
            tracing::debug!(peer = %address, "the TLS handshake took too long");
            None
        }
    }
}

/// A certificate that was presented and refused is worth a line in the audit log.
fn refuse_handshake(address: SocketAddr, error: &io::Error) {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(why)) = cause {
        tracing::info!(
            target: "cofferdam::audit",
            who = "unproven certificate",
            peer = %address,
            action = "handshake",
            why = ?why,
            "audit"
        );
    } else {
        tracing::debug!(peer = %address, %error, "the TLS handshake failed");
    }
}

/// hyper has the connection from here on.
async fn converse(
    stream: Rewound<Transport>,
    peer: Arc<Peer>,
    service: Arc<Service>,
    mut end: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let (idle, head) = (service.config.limits.idle_seconds, service.config.limits.head_seconds);
    let handler = service_fn(move |request| {
        let (service, peer) = (Arc::clone(&service), Arc::clone(&peer));
        async move { Ok::<_, Infallible>(service.answer(peer, Call::of_hyper(request)).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(head.max(idle)))
        .max_headers(MAXIMUM_HEADERS)
        .max_header_size(MAXIMUM_BYTES)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Patient::new(stream, Duration::from_secs(idle))), handler);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => result,
        _ = end.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
