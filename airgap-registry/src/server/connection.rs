//! Listening, handshakes, connections, signals, and the orderly end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::patience::Patient;
use super::{IDLE, Peer, Service};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::notify;

/// Connections at once; more wait in the kernel's queue.
const MAXIMUM_CONNECTIONS: usize = 1024;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the headers of a request may take, and how long a connection may wait for the next request.
const HEADERS: Duration = Duration::from_mins(1);
/// The most bytes and number of the headers of a request.
const MAXIMUM_HEADER_BYTES: usize = 32 << 10;
const MAXIMUM_HEADERS: usize = 64;
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
        let room = Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS));
        let addresses: Vec<_> = self.local_addresses().iter().map(ToString::to_string).collect();
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(accept(listener, Arc::clone(&self.service), Arc::clone(&room), end.clone()));
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

async fn accept(listener: TcpListener, service: Arc<Service>, room: Arc<Semaphore>, mut end: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = end.changed() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                connections.spawn(connect(stream, address, Arc::clone(&service), permit, end.clone()));
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
    permit: OwnedSemaphorePermit,
    end: watch::Receiver<bool>,
) {
    let _permit = permit;
    let _ = stream.set_nodelay(true);
    let Some(tls) = service.tls() else {
        let peer = Peer { address, identity: Identity::Anonymous };
        return converse(stream, peer, service, end).await;
    };
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&tls.config));
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let identity = certificate.map_or(Identity::Anonymous, Identity::of_certificate);
            converse(stream, Peer { address, identity }, service, end).await;
        }
        Ok(Err(error)) => refuse_handshake(address, &error),
        Err(_) => tracing::debug!(peer = %address, "the TLS handshake took too long"),
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

async fn converse<T>(stream: T, peer: Peer, service: Arc<Service>, mut end: watch::Receiver<bool>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address = peer.address;
    let peer = Arc::new(peer);
    let handler = service_fn(move |request| {
        let (service, peer) = (Arc::clone(&service), Arc::clone(&peer));
        async move { Ok::<_, Infallible>(service.answer(peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_headers(MAXIMUM_HEADERS)
        .max_header_size(MAXIMUM_HEADER_BYTES)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Patient::new(stream, IDLE)), handler);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = end.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %address, %error, "a connection ended");
    }
}
