//! Requests to another registry: HTTP/1.1 over TLS, as a node with its client certificate.
//!
//! Invariant: the peer's certificate is verified against the site CA for the host of its URL; plain HTTP goes to a
//! loopback address only. A peer that could not be reached is left alone for [`REST`], so that what nobody has is still
//! refused quickly.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::config::PeersConfig;
use crate::error::{Error, Result};
use crate::server::client_tls;

/// What a request of a peer says of itself.
const VIA: HeaderValue = HeaderValue::from_static("1.1 cofferdam-registry");
/// How long a connection and a handshake may take: a peer is in the same rack.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a peer may take to begin its answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a peer that could not be reached is left alone.
const REST: Duration = Duration::from_secs(10);

/// Whether a request was made by a peer: it is answered from this store or not at all.
pub(crate) fn is_from_peer(headers: &HeaderMap) -> bool {
    headers.get_all(header::VIA).iter().any(|value| value == VIA)
}

/// Another registry.
pub(crate) struct Peer {
    url: String,
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// When it last could not be reached.
    failed: Mutex<Option<Instant>>,
}

impl Peer {
    /// `url` is `https://HOST[:PORT]`, without a path; `http://` for a loopback address.
    pub(crate) fn new(url: &str, config: &PeersConfig) -> Result<Self> {
        let refuse = |why: &str| Error::ConfigRule {
            why: format!("the peer {url:?} {why}"),
            hint: "a peer is https://HOST:PORT, without a path",
        };
        let uri: Uri = url.parse().map_err(|_| refuse("is no URL"))?;
        let authority = uri.authority().ok_or_else(|| refuse("names no host"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(refuse("has more than scheme, host and port"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let tls = match uri.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| refuse("has a host that is no name"))?;
                Some((client_tls(config)?, name))
            }
            Some("http") if host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback()) => None,
            _ => return Err(refuse("is not reached by TLS")),
        };
        let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        Ok(Self { url: url.trim_end_matches('/').to_owned(), host, port, tls, failed: Mutex::new(None) })
    }

    /// An error of this peer.
    pub(crate) fn error(&self, why: impl Into<String>) -> Error {
        Error::Peer { server: self.url.clone(), why: why.into() }
    }

    /// Whether it was reached the last time, or that is long enough ago.
    pub(crate) fn is_worth_asking(&self) -> bool {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|when| when.elapsed() > REST)
    }

    /// Writes down that the peer was no help.
    pub(crate) fn complain(&self, error: &Error) {
        tracing::warn!(peer = self.url, %error, "a peer could not be asked");
    }

    /// Asks for a path, from a byte on.
    pub(crate) async fn get(&self, path: &str, from: u64) -> Result<Response<Incoming>> {
        self.ask(Method::GET, path, from).await
    }

    /// Asks whether there is something at a path.
    pub(crate) async fn head(&self, path: &str) -> Result<StatusCode> {
        Ok(self.ask(Method::HEAD, path, 0).await?.status())
    }

    async fn ask(&self, method: Method, path: &str, from: u64) -> Result<Response<Incoming>> {
        let connected = tokio::time::timeout(CONNECT, self.connect()).await;
        let connected = connected.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)));
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = connected.is_err().then(Instant::now);
        let stream = connected.map_err(|error| self.error(format!("cannot connect: {error}")))?;
        let broken = |error: hyper::Error| self.error(format!("the connection failed: {error}"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the answer: there is one request on it.
        tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{}:{}", self.host_in_url(), self.port))
            .header(header::VIA, VIA)
            .header(header::ACCEPT, "*/*")
            .header(header::CONNECTION, "close");
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|_| self.error("the request cannot be written"))?;
        let answer = tokio::time::timeout(ANSWER, sender.send_request(request)).await;
        answer.map_err(|_| self.error("it did not answer in time"))?.map_err(broken)
    }

    fn host_in_url(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((config, name)) => {
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                Ok(Box::new(connector.connect(name.clone(), stream).await?))
            }
        }
    }
}

/// Both kinds of connection.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_a_host_that_is_reached_safely_is_a_peer() {
        let config = PeersConfig::default();
        for (url, part) in [
            ("10.0.0.5:5000", "TLS"),
            ("http://10.0.0.5:5000", "TLS"),
            ("http://localhost:5000", "TLS"),
            ("ftp://127.0.0.1", "TLS"),
            ("https://10.0.0.5/v2/", "more than"),
            ("https://user:secret@10.0.0.5", "more than"),
            ("not a url", "no URL"),
            ("", "no URL"),
        ] {
            let error = Peer::new(url, &config).err().unwrap();
            assert!(error.to_string().contains(part), "{url}: {error}");
            assert!(error.hint().is_some());
        }
        let peer = Peer::new("http://[::1]:5000/", &config).unwrap();
        assert_eq!((peer.url.as_str(), peer.host_in_url().as_str(), peer.port), ("http://[::1]:5000", "[::1]", 5000));
    }

    #[test]
    fn a_request_of_a_peer_is_known_by_its_header() {
        let mut headers = HeaderMap::new();
        assert!(!is_from_peer(&headers));
        headers.append(header::VIA, HeaderValue::from_static("1.1 proxy"));
        assert!(!is_from_peer(&headers));
        headers.append(header::VIA, VIA);
        assert!(is_from_peer(&headers));
    }
}
