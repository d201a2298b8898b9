//! Certificates, keys and client verification for the server's TLS, and for its connections to peers.
//!
//! Invariant: TLS 1.2 or newer by rustls with the aws-lc provider, and only suites with forward secrecy and authenticated
//! encryption (RFC 9325, 4.2); the key belongs to the certificate; a client
//! certificate that is presented is verified, or the handshake fails. Called at start and on SIGHUP.

use std::fs;
use std::sync::Arc;

use camino::Utf8Path;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{PeersConfig, TlsConfig, resolve};
use crate::error::{Error, Result};
use crate::identity::own_names;

/// The largest file that is taken for a certificate chain or key.
const MAXIMUM_SIZE: usize = 1 << 20;

/// What the server needs for handshakes, and the names it is known by.
pub(crate) struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    /// Host names and addresses of its certificate, in lower case.
    pub(crate) names: Vec<String>,
}

/// Reads all files and puts them together.
pub(crate) fn load(config: &TlsConfig) -> Result<Tls> {
    let certificate_path = resolve(&config.certificate)?;
    let key_path = resolve(&config.key)?;
    let chain = certificates(&certificate_path)?;
    let key = private_key(&key_path)?;
    let provider = Arc::new(provider());
    // By itself first, so that a key that is no use is not blamed on the certificate.
    provider.key_provider.load_private_key(key.clone_key()).map_err(|_| unusable_key(&key_path))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|_| Error::Unexpected("the TLS library knows no protocol version"))?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let path = resolve(path)?;
            let unusable = |why: String| Error::Tls { path: path.clone(), why, hint: "it must hold the site CA, PEM" };
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(&path)?), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| unusable(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let names = chain.first().map(own_names).unwrap_or_default();
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Error::Tls {
            path: key_path.clone(),
            why: format!("it is not the key of the certificate {certificate_path}"),
            hint: "give certificate and key of one pair; after both were replaced restart the service",
        },
        other => Error::Tls {
            path: certificate_path.clone(),
            why: other.to_string(),
            hint: "the certificate must be X.509 version 3, leaf first, with a key that TLS can use",
        },
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls { config: Arc::new(config), names })
}

/// What a connection to another registry of the site needs: its CA, and the certificate of this node.
pub(crate) fn client(config: &PeersConfig) -> Result<Arc<ClientConfig>> {
    let incomplete = |why: &str| Error::ConfigRule {
        why: why.to_owned(),
        hint: "a peer by TLS needs peers.ca, peers.certificate and peers.key",
    };
    let ca = config.ca.as_ref().ok_or_else(|| incomplete("peers.ca is missing"))?;
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| Error::Unexpected("the TLS library knows no protocol version"))?
        .with_root_certificates(authorities(&resolve(ca)?)?);
    let mut client = match (&config.certificate, &config.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (resolve(certificate)?, resolve(key)?);
            let unusable = |error: rustls::Error| Error::Tls {
                path: certificate.clone(),
                why: error.to_string(),
                hint: "peers.certificate and peers.key must be of one pair",
            };
            builder.with_client_auth_cert(certificates(&certificate)?, private_key(&key)?).map_err(unusable)?
        }
        _ => return Err(incomplete("one of peers.certificate and peers.key is missing")),
    };
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(client))
}

/// The certificates of a file as authorities.
fn authorities(path: &Utf8Path) -> Result<RootCertStore> {
    let unusable = |why: String| Error::Tls { path: path.to_owned(), why, hint: "it must hold the site CA, PEM" };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    Ok(roots)
}

/// What a handshake may agree on; written out, so that an update of the library adds nothing.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..aws_lc_rs::default_provider()
    }
}

fn certificates(path: &Utf8Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path, "the file must be readable for the user of the service")?;
    let unusable = |why: String| Error::Tls {
        path: path.to_owned(),
        why,
        hint: "it must hold certificates in PEM (-----BEGIN CERTIFICATE-----)",
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| unusable(error.to_string()))?;
    if chain.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    Ok(chain)
}

fn private_key(path: &Utf8Path) -> Result<PrivateKeyDer<'static>> {
    let hint = "the key must be readable for the service: owned by its user, or handed over by LoadCredential=";
    let bytes = zeroize::Zeroizing::new(read(path, hint)?);
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| unusable_key(path))
}

/// Without the parser's words: they could quote the file.
fn unusable_key(path: &Utf8Path) -> Error {
    Error::Tls {
        path: path.to_owned(),
        why: "there is no private key in it that can be used".to_owned(),
        hint: "it must be PEM (PKCS#8, SEC 1 or PKCS#1) and not encrypted",
    }
}

fn read(path: &Utf8Path, hint: &'static str) -> Result<Vec<u8>> {
    let unusable = |why: String| Error::Tls { path: path.to_owned(), why, hint };
    let bytes = fs::read(path).map_err(|error| unusable(error.to_string()))?;
    if bytes.len() > MAXIMUM_SIZE {
        return Err(unusable(format!("it has {} bytes, more than {MAXIMUM_SIZE}", bytes.len())));
    }
    Ok(bytes)
}
