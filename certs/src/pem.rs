//! PEM text (RFC 7468) in and out. Reading takes a whole file with blocks of any kind; writing of secrets goes into
//! memory that is wiped and never grows, so that no copy is left behind.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{
    PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
    pem::{SectionKind, SliceIter},
};
use zeroize::Zeroizing;

use crate::{Certificate, CertsError};

/// Larger input is not a certificate file; the largest public trust stores are a quarter of this.
const INPUT_MAX: usize = 1024 * 1024;

/// All certificates in PEM text, in the order of the file; other blocks are left aside.
///
/// `what` names the text in errors, for example `certificate file`.
pub fn parse_certificates(what: &str, text: &str) -> Result<Vec<Certificate>, CertsError> {
    check_size(what, text)?;
    let mut certificates = Vec::new();
    for section in SliceIter::<(SectionKind, Vec<u8>)>::new(text.as_bytes()) {
        let (kind, der) = section.map_err(|error| bad_pem(what, error.to_string()))?;
        if kind == SectionKind::Certificate {
            let name = format!("{what}, certificate {}", certificates.len() + 1);
            certificates.push(Certificate::from_der(&name, der.into())?);
        }
    }
    if certificates.is_empty() {
        return Err(bad_pem(what, "no certificate in it"));
    }
    Ok(certificates)
}

/// The first private key in PEM text: `PRIVATE KEY`, `EC PRIVATE KEY` or `RSA PRIVATE KEY`.
pub(crate) fn parse_private_key(text: &str) -> Result<PrivateKeyDer<'static>, CertsError> {
    const WHAT: &str = "key file";
    check_size(WHAT, text)?;
    // RFC 7468 labels the one form so; the other is what OpenSSL wrote before PKCS#8, and its headers do not parse.
    let encrypted = text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED");
    for section in SliceIter::<(SectionKind, Vec<u8>)>::new(text.as_bytes()) {
        // The parser's own words could quote the text, which is a secret here.
        let Ok((kind, der)) = section else {
            return Err(if encrypted {
                CertsError::EncryptedKey
            } else {
                bad_pem(WHAT, "a block is damaged or cut off")
            });
        };
        match kind {
            SectionKind::PrivateKey => return Ok(PrivatePkcs8KeyDer::from(der).into()),
            SectionKind::EcPrivateKey => return Ok(PrivateSec1KeyDer::from(der).into()),
            SectionKind::RsaPrivateKey => return Ok(PrivatePkcs1KeyDer::from(der).into()),
            _ => drop(Zeroizing::new(der)),
        }
    }
    Err(if encrypted { CertsError::EncryptedKey } else { bad_pem(WHAT, "no private key in it") })
}

/// One PEM block with lines of 64 characters.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64_length = der.len().div_ceil(3) * 4;
    let mut base64 = Zeroizing::new(vec![0; base64_length]);
    // The buffer has exactly the length that RFC 4648 gives, so this cannot fail; an empty block would be seen in tests.
    let written = STANDARD.encode_slice(der, base64.as_mut_slice()).unwrap_or(0);

    let mut text = Zeroizing::new(String::with_capacity(base64_length + base64_length / 64 + 2 * label.len() + 40));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in base64.get(..written).unwrap_or_default().chunks(64) {
        text.push_str(str::from_utf8(line).unwrap_or_default());
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

fn check_size(what: &str, text: &str) -> Result<(), CertsError> {
    if text.len() > INPUT_MAX {
        return Err(bad_pem(what, format!("{} bytes; {INPUT_MAX} are the limit", text.len())));
    }
    Ok(())
}

fn bad_pem(what: &str, reason: impl Into<String>) -> CertsError {
    CertsError::Pem { what: what.to_owned(), reason: reason.into() }
}
