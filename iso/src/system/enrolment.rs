//! The variables that make a firmware trust a certificate and nothing else, as systemd-boot writes them into a firmware in
//! setup mode (systemd-boot(7), "secure-boot-enroll").
//!
//! The layout is that of UEFI 2.10, 8.2.2 ("Using the `EFI_VARIABLE_AUTHENTICATION_2` descriptor") and 32.4.1 (signature
//! database). The tools of the field differ in what they sign, and a firmware only says "security violation".

use crate::Error;

/// Attributes that the loader writes the variables with: non-volatile, boot and runtime services, time based authenticated
/// write access.
const ATTRIBUTES: u32 = 0x27;
/// 2020-01-01 00:00:00 UTC as `EFI_TIME`, the time of everything on a medium.
const TIME: [u8; 16] = [0xe4, 0x07, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// `EFI_GLOBAL_VARIABLE`, as its bytes lie in memory.
const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
/// `EFI_IMAGE_SECURITY_DATABASE_GUID`
const DATABASE: [u8; 16] =
    [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];
/// `EFI_CERT_TYPE_PKCS7_GUID`
const PKCS7: [u8; 16] =
    [0x9d, 0xd2, 0xaf, 0x4a, 0xdf, 0x68, 0xee, 0x49, 0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7];
/// `EFI_CERT_X509_GUID`
const X509: [u8; 16] = [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
/// Whoever owns the signature lists that we make: of no meaning to a firmware.
const OWNER: [u8; 16] =
    [0xda, 0xe4, 0xff, 0xc0, 0x1d, 0x3a, 0x3c, 0x4b, 0x9f, 0x0e, 0x8d, 0x1f, 0x5b, 0x1c, 0x7a, 0x10];
/// DER of the object identifier signedData (RFC 5652, 5.1).
const SIGNED_DATA: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

/// Name and namespace of each variable. The platform key comes last: it ends the setup mode.
const VARIABLES: [(&str, [u8; 16]); 3] = [("db", DATABASE), ("KEK", GLOBAL), ("PK", GLOBAL)];

/// The command that signs `content` into `signature`, both in this folder, with the key pair there.
pub(crate) fn signing(folder: &str) -> Vec<String> {
    let file = |name: &str| format!("{folder}/{name}");
    let mut words = ["openssl", "cms", "-sign", "-binary", "-noattr", "-md", "sha256", "-outform", "DER"]
        .map(str::to_owned)
        .to_vec();
    let files =
        [("-signer", "secure-boot.crt"), ("-inkey", "secure-boot.key"), ("-in", "content"), ("-out", "signature")];
    words.extend(files.iter().flat_map(|(option, name)| [(*option).to_owned(), file(name)]));
    words
}

/// The files for `loader/keys/auto`: name and content. `sign` gives a detached CMS signature of SHA-256 without attributes,
/// DER, over its input.
pub(crate) fn files(
    certificate: &[u8],
    mut sign: impl FnMut(&[u8]) -> Result<Vec<u8>, Error>,
) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let list = signature_list(certificate)?;
    let made = VARIABLES.map(|(name, namespace)| {
        let signature = sign(&signed_content(name, &namespace, &list))?;
        Ok((format!("{name}.auth"), descriptor(signed_data(&signature)?, &list)?))
    });
    made.into_iter().collect()
}

fn too_long(what: &str) -> Error {
    Error::Options { why: format!("the {what} of the Secure Boot key is too long") }
}

/// `EFI_SIGNATURE_LIST` with one certificate, DER.
fn signature_list(certificate: &[u8]) -> Result<Vec<u8>, Error> {
    let length = |more: usize| u32::try_from(certificate.len() + more).map_err(|_| too_long("certificate"));
    let entry = length(OWNER.len())?;
    let head = [length(OWNER.len() + 28)?, 0, entry];
    let mut list = X509.to_vec();
    for number in head {
        list.extend_from_slice(&number.to_le_bytes());
    }
    list.extend_from_slice(&OWNER);
    list.extend_from_slice(certificate);
    Ok(list)
}

/// What the signature is over: name without its end, namespace, attributes, time, content.
fn signed_content(name: &str, namespace: &[u8; 16], list: &[u8]) -> Vec<u8> {
    let mut content: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    content.extend_from_slice(namespace);
    content.extend_from_slice(&ATTRIBUTES.to_le_bytes());
    content.extend_from_slice(&TIME);
    content.extend_from_slice(list);
    content
}

/// The `SignedData` inside a `ContentInfo`: older firmware takes it bare only.
fn signed_data(signature: &[u8]) -> Result<&[u8], Error> {
    // Both lengths have two bytes for any signature with a certificate in it.
    let inner = match signature {
        [0x30, 0x82, _, _, rest @ ..] => rest.strip_prefix(&SIGNED_DATA),
        _ => None,
    };
    match inner {
        Some([0xa0, 0x82, _, _, data @ ..]) => Ok(data),
        _ => Err(Error::Tool {
            program: "openssl".to_owned(),
            why: "its CMS signature is not of the form that a firmware takes".to_owned(),
            is_missing: false,
        }),
    }
}

/// `EFI_VARIABLE_AUTHENTICATION_2` and the content.
fn descriptor(signed_data: &[u8], list: &[u8]) -> Result<Vec<u8>, Error> {
    let length = u32::try_from(signed_data.len() + 24).map_err(|_| too_long("signature"))?;
    let mut bytes = TIME.to_vec();
    bytes.extend_from_slice(&length.to_le_bytes());
    // WIN_CERT_TYPE_EFI_GUID of revision 2.0.
    bytes.extend_from_slice(&[0x00, 0x02, 0xf1, 0x0e]);
    bytes.extend_from_slice(&PKCS7);
    bytes.extend_from_slice(signed_data);
    bytes.extend_from_slice(list);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    fn openssl(arguments: &[&str], folder: &std::path::Path) {
        let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// As a firmware does it, with OpenSSL as the judge.
    #[test]
    fn a_variable_is_signed_over_what_it_is_written_with() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let make = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=Example", "-keyout", "key", "-out"];
        openssl(&[&make[..], &["crt"]].concat(), folder.path());
        openssl(&["x509", "-in", "crt", "-outform", "DER", "-out", "der"], folder.path());
        let sign = |content: &[u8]| {
            std::fs::write(at("content"), content).unwrap();
            let words = signing(folder.path().to_str().unwrap());
            openssl(&words.iter().skip(1).map(String::as_str).collect::<Vec<_>>(), folder.path());
            Ok(std::fs::read(at("signature")).unwrap())
        };
        std::fs::rename(at("key"), at("secure-boot.key")).unwrap();
        std::fs::copy(at("crt"), at("secure-boot.crt")).unwrap();
        let certificate = std::fs::read(at("der")).unwrap();
        let files = files(&certificate, sign).unwrap();
        assert_eq!(files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["db.auth", "KEK.auth", "PK.auth"]);
        for ((name, bytes), (variable, namespace)) in files.iter().zip(VARIABLES) {
            let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
            let (data, list) = (&bytes[40..16 + length], &bytes[16 + length..]);
            assert!(list.ends_with(&certificate), "{name}");
            let wrap = |tag: u8, inside: &[u8]| {
                let length = u16::try_from(inside.len()).unwrap().to_be_bytes();
                [&[tag, 0x82, length[0], length[1]], inside].concat()
            };
            let whole = wrap(0x30, &[&SIGNED_DATA[..], &wrap(0xa0, data)].concat());
            std::fs::write(at("whole"), whole).unwrap();
            std::fs::write(at("content"), signed_content(variable, &namespace, list)).unwrap();
            let verify = ["cms", "-verify", "-binary", "-inform", "DER", "-in", "whole", "-content", "content"];
            openssl(
                &[&verify[..], &["-CAfile", "crt", "-purpose", "any", "-out", "/dev/null"]].concat(),
                folder.path(),
            );
        }
    }

    #[test]
    fn a_list_has_the_lengths_of_the_specification() {
        let list = signature_list(&[7; 100]).unwrap();
        let number = |from: usize| u32::from_le_bytes(list[from..from + 4].try_into().unwrap());
        assert_eq!((list.len(), number(16), number(20), number(24)), (144, 144, 0, 116));
    }
}
