//! A client that can also say what no client should: HTTP/1.1 by hand over a socket.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine;

/// Speaks to one address, as nobody or with name and password.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) user: Option<(&'static str, &'static str)>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The code of the first error.
    pub(crate) fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    pub(crate) fn anonymous(&self) -> Self {
        Self { user: None, ..*self }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn head(&self, path: &str) -> Reply {
        self.send("HEAD", path, &[], b"")
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = self.open(method, path, headers, body.len());
        // A server that refuses early may close before all was sent; what counts is its answer.
        let _ = stream.write_all(body);
        read_reply(stream, method == "HEAD")
    }

    /// Sends the head of a request and promises a body of that length.
    pub(crate) fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> TcpStream {
        let mut stream = self.connect();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        if length > 0 || matches!(method, "POST" | "PUT" | "PATCH") {
            write!(head, "Content-Length: {length}\r\n").unwrap();
        }
        if let Some((name, password)) = self.user {
            let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
            write!(head, "Authorization: Basic {encoded}\r\n").unwrap();
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        stream.write_all((head + "\r\n").as_bytes()).unwrap();
        stream
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Sends bytes as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        read_reply(stream, false)
    }

    /// Pushes a blob by POST and PUT.
    pub(crate) fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = bundle::oci::Digest::sha256_of(bytes).to_string();
        let started = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        assert_eq!(started.status, 202, "{started:?}");
        let path = format!("{}?digest={}", started.header("location"), digest.replace(':', "%3A"));
        let done = self.send("PUT", &path, &[("Content-Type", "application/octet-stream")], bytes);
        assert_eq!(done.status, 201, "{done:?}");
        digest
    }

    /// Pushes an image of one layer; gives the digest of its manifest and the manifest.
    pub(crate) fn push_image(&self, repository: &str, tag: &str, layer: &[u8]) -> (String, Vec<u8>) {
        let config = br#"{"architecture":"amd64","os":"linux"}"#;
        let config_digest = self.push_blob(repository, config);
        let layer_digest = self.push_blob(repository, layer);
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer.len()}],
        }))
        .unwrap();
        let done = self.put_manifest(repository, tag, &manifest);
        assert_eq!(done.status, 201, "{done:?}");
        (done.header("docker-content-digest").to_owned(), manifest)
    }

    pub(crate) fn put_manifest(&self, repository: &str, reference: &str, manifest: &[u8]) -> Reply {
        let kind = [("Content-Type", "application/vnd.oci.image.manifest.v1+json")];
        self.send("PUT", &format!("/v2/{repository}/manifests/{reference}"), &kind, manifest)
    }
}

/// Reads an answer to its end. Status 0: the server closed without one, or said something that is not HTTP.
pub(crate) fn read_reply(stream: TcpStream, is_head: bool) -> Reply {
    let mut reader = BufReader::new(stream);
    let mut reply = Reply { status: 0, headers: HashMap::new(), body: Vec::new() };
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() || !line.starts_with("HTTP/1.") {
        return reply;
    }
    reply.status = line.split(' ').nth(1).unwrap().parse().unwrap();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        // A header that stands there several times is a list (RFC 9110, 5.3).
        let values = reply.headers.entry(name.to_ascii_lowercase()).or_default();
        if !values.is_empty() {
            values.push_str(", ");
        }
        values.push_str(value.trim());
    }
    if reply.status == 100 {
        return read_reply(reader.into_inner(), is_head);
    }
    if !is_head {
        match reply.headers.get("content-length") {
            Some(length) => {
                let length = length.parse().unwrap();
                reader.take(length).read_to_end(&mut reply.body).unwrap();
                assert_eq!(reply.body.len() as u64, length, "the body is shorter than promised");
            }
            None => {
                let _ = reader.read_to_end(&mut reply.body);
            }
        }
    }
    reply
}
