//! Whether TLS clients will accept a server's chain. The judge is rustls-webpki, the same code that rustls runs in a
//! handshake; on top of it the root's own dates are looked at, because OpenSSL and Go look at them too.
//!
//! Import asks it last; the rehearsal at the end of an install asks it about the chain that the server really sent.

use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use serde::Serialize;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::{Certificate, CertsError, Fingerprint, SubjectAltName, parse_certificates};

/// A chain that verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct VerifiedChain {
    /// Subject of the server's certificate.
    pub subject: String,
    /// Fingerprint of the server's certificate.
    pub sha256: Fingerprint,
    /// Subject of the root to which the chain leads.
    pub root: String,
    /// Fingerprint of that root.
    pub root_sha256: Fingerprint,
    /// When the first certificate of the chain runs out, the root's included.
    pub not_after: Timestamp,
}

/// Verifies a server's chain (its own certificate first) for a name, at a moment, against roots.
///
/// Checks signatures, dates, extended key usage serverAuth, name constraints, and that the name or address is among
/// the subject alternative names. RSA below 2048 bits and SHA-1 do not verify.
pub fn verify_server_chain(
    chain_pem: &str,
    roots_pem: &str,
    name: &SubjectAltName,
    now: Timestamp,
) -> Result<VerifiedChain, CertsError> {
    let chain = parse_certificates("server chain", chain_pem)?;
    let roots = parse_certificates("roots", roots_pem)?;
    let chain: Vec<&Certificate> = chain.iter().collect();
    let roots: Vec<&Certificate> = roots.iter().collect();
    verify(&chain, &roots, name, now)
}

pub(crate) fn verify(
    chain: &[&Certificate],
    roots: &[&Certificate],
    name: &SubjectAltName,
    now: Timestamp,
) -> Result<VerifiedChain, CertsError> {
    let refused = |reason: String| CertsError::Verify { name: name.to_string(), reason };
    let judged = |error: webpki::Error| refused(explain(&error));

    let (leaf, others) = chain.split_first().ok_or_else(|| refused("the chain is empty".to_owned()))?;
    let intermediates: Vec<CertificateDer<'_>> = others.iter().map(|other| other.der().clone()).collect();
    let mut anchors: Vec<TrustAnchor<'_>> = Vec::new();
    for root in roots {
        anchors.push(anchor_from_trusted_cert(root.der()).map_err(judged)?.to_owned());
    }
    let seconds = u64::try_from(now.as_second()).map_err(|_| refused(format!("the clock says {now}")))?;

    let end_entity = EndEntityCert::try_from(leaf.der()).map_err(judged)?;
    let path = end_entity
        .verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &anchors,
            &intermediates,
            UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
            KeyUsage::server_auth(),
            None,
            None,
        )
        .map_err(judged)?;
    let name_text = name.to_string();
    let server_name = ServerName::try_from(name_text.as_str()).map_err(|error| refused(error.to_string()))?;
    end_entity.verify_is_valid_for_subject_name(&server_name).map_err(judged)?;

    let used = anchors.iter().position(|anchor| anchor == path.anchor()).and_then(|index| roots.get(index));
    let root = used.ok_or_else(|| refused("the root that was used cannot be found again".to_owned()))?;
    let life = root.summary();
    if now > life.not_after || now < life.not_before {
        let reason = format!("the root {} is valid from {} to {}", root.subject(), life.not_before, life.not_after);
        return Err(refused(reason));
    }
    let mut not_after = leaf.not_after().min(root.not_after());
    for intermediate in path.intermediate_certificates() {
        let der = intermediate.der();
        not_after =
            others.iter().filter(|other| *other.der() == der).map(|other| other.not_after()).fold(not_after, Ord::min);
    }
    Ok(VerifiedChain {
        subject: leaf.subject().to_owned(),
        sha256: leaf.fingerprint(),
        root: root.subject().to_owned(),
        root_sha256: root.fingerprint(),
        not_after,
    })
}

/// rustls-webpki names its errors like variables; these are the ones that people meet.
fn explain(error: &webpki::Error) -> String {
    match error {
        webpki::Error::UnknownIssuer => "no root that is trusted signed it".to_owned(),
        webpki::Error::CertExpired { time, not_after } => {
            format!("a certificate ended at {} and the clock says {}", moment(*not_after), moment(*time))
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            format!("a certificate begins at {} and the clock says {}", moment(*not_before), moment(*time))
        }
        webpki::Error::CertNotValidForName(context) => {
            format!("the certificate is for {}", context.presented.join(", "))
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            "its extended key usage does not include TLS servers".to_owned()
        }
        webpki::Error::CaUsedAsEndEntity => "the server's certificate is one of an authority (CA:TRUE)".to_owned(),
        webpki::Error::EndEntityUsedAsCa => "an issuer in the chain is not an authority (CA:FALSE)".to_owned(),
        webpki::Error::InvalidSignatureForPublicKey => "a signature in the chain is wrong".to_owned(),
        other => format!("{other:?}"),
    }
}

fn moment(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(|| "a far time".to_owned(), |time| time.to_string())
}
