//! The escrow: what a site needs to come back from the dead (recovery key, LUKS header, authority, pack secrets),
//! encrypted with age to people named in the configuration. Only they can read it, not the site itself.
//!
//! The file is armored age (<https://age-encryption.org/v1>) around JSON, so that `age -d -i KEY FILE | jq` is all that
//! is needed to read it in an emergency, without this program.

use std::{
    borrow::Cow,
    fmt,
    io::{Read as _, Write as _},
    str::FromStr,
};

use age::{
    Decryptor, Encryptor,
    armor::{ArmoredReader, ArmoredWriter, Format},
    secrecy::ExposeSecret as _,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zeroize::Zeroizing;

use crate::{CertsError, Fqdn};

/// Version of the JSON inside. A reader refuses a higher one.
const SCHEMA_VERSION: u32 = 1;

/// An age X25519 public key (`age1…`) to which an escrow is encrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct EscrowRecipient(age::x25519::Recipient);

impl FromStr for EscrowRecipient {
    type Err = CertsError;

    fn from_str(text: &str) -> Result<Self, CertsError> {
        let text = text.trim();
        // Only what is public by its form is repeated in an error; a secret key pasted by mistake is not.
        let shown = if text.starts_with("age1") { text.to_owned() } else { "the text that was given".to_owned() };
        let bad = |reason: &str| CertsError::Recipient { recipient: shown.clone(), reason: reason.to_owned() };
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            return Err(bad("it is a secret key; give the public one that belongs to it"));
        }
        if !text.starts_with("age1") {
            return Err(bad("it does not begin with age1"));
        }
        text.parse().map(Self).map_err(|reason| match reason {
            "incorrect HRP" => bad("only X25519 keys are supported, no plugins"),
            other => bad(other),
        })
    }
}

impl fmt::Display for EscrowRecipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for EscrowRecipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for EscrowRecipient {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EscrowRecipient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The secret half: what opens an escrow. Never on the site itself.
pub struct EscrowIdentity(age::x25519::Identity);

impl EscrowIdentity {
    /// A new one, as `age-keygen` makes it.
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// The first secret key in the text of an identity file; comments are passed over.
    pub fn parse(text: &str) -> Result<Self, CertsError> {
        let line = text
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with('#'))
            .ok_or(CertsError::Identity { reason: "there is none in the text" })?;
        line.parse().map(Self).map_err(|_| CertsError::Identity { reason: "it is not an X25519 secret key" })
    }

    /// `AGE-SECRET-KEY-1…`, to be written with mode 0600.
    pub fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.to_string().expose_secret().to_owned())
    }

    /// The public half.
    pub fn recipient(&self) -> EscrowRecipient {
        EscrowRecipient(self.0.to_public())
    }
}

impl fmt::Debug for EscrowIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EscrowIdentity(for {})", self.recipient())
    }
}

/// What an item of the escrow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EscrowKind {
    /// The recovery key of a LUKS volume.
    RecoveryKey,
    /// A backup of a LUKS header (`cryptsetup luksHeaderBackup`).
    LuksHeader,
    /// A private key, PEM.
    PrivateKey,
    /// A certificate, PEM.
    Certificate,
    /// Kubernetes' configuration for the encryption of Secrets at rest.
    EncryptionConfig,
    /// A secret that was generated for a pack.
    PackSecret,
}

/// One thing in the escrow.
#[derive(PartialEq, Eq)]
pub struct EscrowItem {
    /// Unique name, for example `data-volume` or `site-ca.key`.
    pub name: String,
    /// What it is.
    pub kind: EscrowKind,
    /// Its bytes. Text stands in the JSON as it is, everything else as base64.
    pub data: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for EscrowItem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EscrowItem({:?}, {:?}, {} bytes)", self.name, self.kind, self.data.len())
    }
}

/// All of a site's escrow.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EscrowBundle {
    schema_version: u32,
    /// Name of the site.
    pub site: String,
    /// Its FQDN.
    pub fqdn: Fqdn,
    /// When the escrow was made.
    pub created: Timestamp,
    /// What is in it.
    pub items: Vec<EscrowItem>,
}

impl EscrowBundle {
    /// An escrow without items.
    pub fn new(site: &str, fqdn: Fqdn, created: Timestamp) -> Self {
        Self { schema_version: SCHEMA_VERSION, site: site.to_owned(), fqdn, created, items: Vec::new() }
    }

    /// Adds an item.
    pub fn add(&mut self, name: &str, kind: EscrowKind, data: &[u8]) {
        self.items.push(EscrowItem { name: name.to_owned(), kind, data: Zeroizing::new(data.to_vec()) });
    }

    /// Encrypts it to all recipients, as armored text that may lie on an unencrypted disk.
    pub fn seal(&self, recipients: &[EscrowRecipient]) -> Result<String, CertsError> {
        seal(&self.to_json()?, recipients)
    }

    /// Opens what [`seal`](Self::seal) made.
    pub fn open(sealed: &[u8], identity: &EscrowIdentity) -> Result<Self, CertsError> {
        Self::from_json(&open(sealed, identity)?)
    }

    fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, CertsError> {
        let failed = |reason: String| CertsError::Escrow { action: "seal", reason };
        // JSON can make six characters of one byte of text, base64 four of three; with so much room the buffer never moves.
        let data_size =
            |data: &[u8]| if str::from_utf8(data).is_ok() { data.len() * 6 } else { data.len() / 3 * 4 + 4 };
        let sizes = self.items.iter().map(|item| data_size(&item.data) + item.name.len() * 6 + 200).sum::<usize>();
        let mut json = Zeroizing::new(Vec::with_capacity(sizes + self.site.len() * 6 + 1000));
        serde_json::to_writer(&mut *json, self).map_err(|error| failed(error.to_string()))?;
        Ok(json)
    }

    fn from_json(json: &[u8]) -> Result<Self, CertsError> {
        // The parser's messages may quote values, so only the place is passed on.
        let failed = |reason: String| CertsError::Escrow { action: "read", reason };
        let unreadable =
            |error: serde_json::Error| failed(format!("its contents do not parse (column {})", error.column()));
        let version: Version = serde_json::from_slice(json).map_err(unreadable)?;
        if version.schema_version != SCHEMA_VERSION {
            let found = version.schema_version;
            return Err(failed(format!("it has the schema version {found}, and this program reads {SCHEMA_VERSION}")));
        }
        serde_json::from_slice(json).map_err(unreadable)
    }
}

/// The one member that each version has.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Version {
    schema_version: u32,
}

/// Encrypts bytes to all recipients, as armored text.
fn seal(plaintext: &[u8], recipients: &[EscrowRecipient]) -> Result<String, CertsError> {
    let failed = |reason: String| CertsError::Escrow { action: "seal", reason };
    let io_failed = |error: std::io::Error| failed(error.to_string());
    let encryptor = Encryptor::with_recipients(recipients.iter().map(|recipient| &recipient.0 as &dyn age::Recipient))
        .map_err(|error| failed(error.to_string()))?;
    let mut sealed = Vec::with_capacity(plaintext.len() / 64 * 90 + 1024);
    let armor = ArmoredWriter::wrap_output(&mut sealed, Format::AsciiArmor).map_err(io_failed)?;
    let mut writer = encryptor.wrap_output(armor).map_err(io_failed)?;
    writer.write_all(plaintext).map_err(io_failed)?;
    writer.finish().and_then(ArmoredWriter::finish).map_err(io_failed)?;
    String::from_utf8(sealed).map_err(|error| failed(error.to_string()))
}

/// Decrypts armored or binary age.
fn open(sealed: &[u8], identity: &EscrowIdentity) -> Result<Zeroizing<Vec<u8>>, CertsError> {
    let failed = |reason: String| CertsError::Escrow { action: "open", reason };
    let decryptor = Decryptor::new_buffered(ArmoredReader::new(sealed)).map_err(|error| failed(error.to_string()))?;
    let mut reader = decryptor
        .decrypt(std::iter::once(&identity.0 as &dyn age::Identity))
        .map_err(|error| failed(error.to_string()))?;
    // The plaintext is shorter than what it was sealed in, so the buffer never moves.
    let mut plaintext = Zeroizing::new(Vec::with_capacity(sealed.len() + 64));
    reader.read_to_end(&mut plaintext).map_err(|error| failed(error.to_string()))?;
    Ok(plaintext)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Encoding {
    Text,
    Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ItemForm<'a> {
    name: Cow<'a, str>,
    kind: EscrowKind,
    encoding: Encoding,
    #[serde(borrow)]
    data: SecretText<'a>,
}

/// Text that is wiped if it is owned. Without escapes serde lends it from the buffer that is wiped anyway.
enum SecretText<'a> {
    Lent(&'a str),
    Owned(Zeroizing<String>),
}

impl SecretText<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::Lent(text) => text,
            Self::Owned(text) => text,
        }
    }
}

impl Serialize for SecretText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for SecretText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = SecretText<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(SecretText::Lent(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(SecretText::Owned(Zeroizing::new(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl Serialize for EscrowItem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (encoding, data) = match str::from_utf8(&self.data) {
            Ok(text) => (Encoding::Text, SecretText::Lent(text)),
            Err(_) => (Encoding::Base64, SecretText::Owned(Zeroizing::new(STANDARD.encode(&*self.data)))),
        };
        ItemForm { name: Cow::Borrowed(&self.name), kind: self.kind, encoding, data }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EscrowItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = ItemForm::deserialize(deserializer)?;
        let data = match form.encoding {
            Encoding::Text => form.data.as_str().as_bytes().to_vec(),
            Encoding::Base64 => STANDARD.decode(form.data.as_str()).map_err(|_| D::Error::custom("bad base64"))?,
        };
        Ok(Self { name: form.name.into_owned(), kind: form.kind, data: Zeroizing::new(data) })
    }
}
