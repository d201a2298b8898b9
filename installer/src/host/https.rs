//! One GET over TLS, verified by name against given roots only. Used by the rehearsal and by `status`.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{HostError, HttpsAnswer, HttpsRequest};

const ANSWER_LIMIT: u64 = 1 << 20;

pub(super) fn get(request: &HttpsRequest) -> Result<HttpsAnswer, HostError> {
    exchange(request).map_err(|reason| HostError::Https {
        server: request.server.clone(),
        port: request.port,
        path: request.path.clone(),
        reason,
    })
}

fn exchange(request: &HttpsRequest) -> Result<HttpsAnswer, String> {
    let deadline = Instant::now() + request.limit;
    let addresses = (request.server.as_str(), request.port)
        .to_socket_addrs()
        .map_err(|error| format!("the name does not resolve: {error}"))?;
    // A name may have addresses on which nothing listens, as `localhost` has ::1.
    let mut connected = Err("the name resolves to no address".to_owned());
    for address in addresses {
        connected = TcpStream::connect_timeout(&address, request.limit).map_err(|error| format!("connect: {error}"));
        if connected.is_ok() {
            break;
        }
    }
    let stream = connected?;
    let left = deadline.saturating_duration_since(Instant::now()).max(std::time::Duration::from_millis(1));
    stream
        .set_read_timeout(Some(left))
        .and_then(|()| stream.set_write_timeout(Some(left)))
        .map_err(|error| error.to_string())?;

    let name = ServerName::try_from(request.server.clone()).map_err(|error| error.to_string())?;
    let connection =
        ClientConnection::new(Arc::new(configuration(request)?), name).map_err(|error| error.to_string())?;
    let mut tls = StreamOwned::new(connection, stream);
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: cofferdam\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        request.path, request.server
    );
    tls.write_all(head.as_bytes()).map_err(|error| format!("TLS: {error}"))?;
    let mut answer = Vec::new();
    match (&mut tls).take(ANSWER_LIMIT).read_to_end(&mut answer) {
        Ok(_) => {}
        // A server that closes without close_notify: what counts is whether the head came.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof && !answer.is_empty() => {}
        Err(error) => return Err(format!("TLS: {error}")),
    }
    let protocol = tls.conn.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default();
    let (status, body) = parse(&answer).ok_or("the answer is not HTTP/1.1")?;
    Ok(HttpsAnswer { status, body, protocol })
}

fn configuration(request: &HttpsRequest) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(request.roots_pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("the roots: {error}"))?;
        roots.add(certificate).map_err(|error| format!("the roots: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    match &request.client {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| format!("the client certificate: {error}"))?;
            let key =
                PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| format!("the client key: {error}"))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| format!("the client certificate: {error}"))
        }
    }
}

/// Status and body of an HTTP/1.1 answer that ended with the connection; chunked bodies are put together.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let chunked = lines.any(|line| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked")
        })
    });
    let body = &answer[end + 4..];
    Some((status, if chunked { dechunk(body)? } else { body.to_vec() }))
}

fn dechunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&body[..end]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        body = &body[end + 2..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(..size)?);
        body = body.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn answers() {
        let table: &[(&str, Option<(u16, &str)>)] = &[
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello", Some((200, "hello"))),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Some((404, ""))),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
                Some((200, "abcde")),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc\r\n", None),
            ("SSH-2.0-OpenSSH\r\n\r\n", None),
            ("", None),
        ];
        for (answer, expected) in table {
            let expected = expected.map(|(status, body)| (status, body.as_bytes().to_vec()));
            assert_eq!(parse(answer.as_bytes()), expected, "{answer:?}");
        }
    }
}
