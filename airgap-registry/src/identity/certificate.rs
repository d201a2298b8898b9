//! What a certificate says about its holder. Called with certificates that rustls verified, and with our own.

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The parts of a subject that decide what its holder may do.
pub(super) struct Subject {
    pub(super) common_name: String,
    pub(super) organisations: Vec<String>,
}

/// The subject of a certificate; `None` when it cannot be read.
pub(super) fn subject(certificate: &CertificateDer<'_>) -> Option<Subject> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let common_name = subject.iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or("unnamed");
    let organisations = subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned);
    Some(Subject { common_name: printable(common_name), organisations: organisations.collect() })
}

/// For logs: a name must not be able to forge a line.
fn printable(name: &str) -> String {
    name.chars().take(100).map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// The host names and addresses that a server certificate is for, in lower case.
pub(crate) fn own_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            if let Ok(four) = <[u8; 4]>::try_from(*bytes) {
                Some(std::net::Ipv4Addr::from(four).to_string())
            } else {
                <[u8; 16]>::try_from(*bytes).ok().map(|sixteen| std::net::Ipv6Addr::from(sixteen).to_string())
            }
        }
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}
