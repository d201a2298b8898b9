//! A site's own certificate authority: made once at install, kept in the keystore, asked again at renewals.
//!
//! Invariants: it issues by [`CertificateProfile`] only; no certificate outlives the authority; what it issues was
//! verified against it before it is handed out. The clock is passed in.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose, SerialNumber,
};
use zeroize::Zeroizing;

use crate::{
    Certificate, CertificateProfile, CertsError, KeyAlgorithm, PrivateKey, Validity, parse_certificates,
    profile::COMMON_NAME_MAX,
    random_bytes,
    signature::{Link, link},
};

/// Certificates begin this long before they are made. The machines of a site without internet often have no common
/// time source on the first day, and a client whose clock is a little behind would refuse a certificate "of the future".
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);

/// A certificate authority with its key.
#[derive(Debug)]
pub struct SiteAuthority {
    certificate: Certificate,
    key: PrivateKey,
}

/// A certificate that was just issued.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    certificate: Certificate,
}

impl IssuedCertificate {
    /// The parsed certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// One PEM block. The authority is a root, so that this is the whole chain that a server sends.
    pub fn to_pem(&self) -> String {
        self.certificate.to_pem()
    }
}

impl SiteAuthority {
    /// A new self-signed authority: `O=Cofferdam, CN=NAME`, no authorities below it (path length 0).
    ///
    /// `name`: 1 to 64 characters for people, for example `mgmt.example.org site CA`.
    pub fn generate(
        name: &str,
        algorithm: KeyAlgorithm,
        validity: Validity,
        now: Timestamp,
    ) -> Result<Self, CertsError> {
        let length = name.chars().count();
        if name.trim().is_empty() || length > COMMON_NAME_MAX || name.chars().any(char::is_control) {
            let reason = format!("{name:?} is empty, holds control characters or is longer than {COMMON_NAME_MAX}");
            return Err(CertsError::Invalid { what: "name of the authority", reason });
        }
        let what = || format!("the certificate authority {name:?}");
        let key = PrivateKey::generate(algorithm)?;
        let mut params = params(backdated(now)?, end_of_life(now, validity)?)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Cofferdam");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let made = params.self_signed(&*key.signer()?).map_err(|source| CertsError::Issue { what: what(), source })?;
        let certificate = Certificate::from_der(&what(), made.der().clone())?;
        Ok(Self { certificate, key })
    }

    /// An authority that exists: the first certificate in the PEM text and its key.
    ///
    /// It may be one below a root of the company; then the chain above it has to be handed to clients separately.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, CertsError> {
        let certificate = parse_certificates("authority certificate", certificate_pem)?.swap_remove(0);
        let key = PrivateKey::from_pem(key_pem)?;
        if !key.matches(&certificate) {
            return Err(CertsError::KeyMismatch { subject: certificate.subject().to_owned() });
        }
        if !certificate.may_sign_certificates() {
            return Err(CertsError::Authority {
                subject: certificate.subject().to_owned(),
                reason: "its basic constraints or key usage do not allow it".to_owned(),
            });
        }
        Ok(Self { certificate, key })
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The authority's certificate as PEM, for clients to trust.
    pub fn certificate_pem(&self) -> String {
        self.certificate.to_pem()
    }

    /// The authority's key as PEM, for the keystore and the escrow.
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.key.to_pem()
    }

    /// Issues a certificate for the public half of `key`; a renewal may pass the same key again.
    ///
    /// Valid from an hour before `now`, for `validity` or to the end of the authority, whichever comes first.
    pub fn issue(
        &self,
        profile: &CertificateProfile,
        key: &PrivateKey,
        validity: Validity,
        now: Timestamp,
    ) -> Result<IssuedCertificate, CertsError> {
        let what = || profile.describe();
        let failed = |source| CertsError::Issue { what: what(), source };
        let cannot = |reason: String| CertsError::Authority { subject: self.certificate.subject().to_owned(), reason };
        let life = self.certificate.summary();
        if now > life.not_after || now < life.not_before {
            let reason =
                format!("it is valid from {} to {}, and the clock says {now}", life.not_before, life.not_after);
            return Err(cannot(reason));
        }

        let not_before = backdated(now)?.max(life.not_before);
        let mut params = params(not_before, end_of_life(now, validity)?.min(life.not_after))?;
        params.distinguished_name = profile.distinguished_name();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = profile.key_usages(key.kind());
        params.extended_key_usages = profile.extended_key_usages();
        params.use_authority_key_identifier_extension = true;
        if let Some(names) = profile.server_names() {
            params.subject_alt_names = names.to_rcgen().map_err(failed)?;
        }
        let signer = self.key.signer()?;
        let issuer = Issuer::from_ca_cert_der(self.certificate.der(), &*signer).map_err(failed)?;
        let made = params.signed_by(&*key.signer()?, &issuer).map_err(failed)?;

        let certificate = Certificate::from_der(&what(), made.der().clone())?;
        // rcgen writes the issuer's name anew; should it come out in another encoding, clients would find no issuer.
        if !certificate.names_as_issuer(&self.certificate) || link(&certificate, &self.certificate) != Link::Signed {
            return Err(cannot(format!("{} does not verify against it", what())));
        }
        Ok(IssuedCertificate { certificate })
    }
}

fn end_of_life(now: Timestamp, validity: Validity) -> Result<Timestamp, CertsError> {
    now.checked_add(validity.duration())
        .map_err(|_| CertsError::Invalid { what: "clock", reason: format!("{now} is too far in the future") })
}

fn backdated(now: Timestamp) -> Result<Timestamp, CertsError> {
    now.checked_sub(BACKDATE)
        .map_err(|_| CertsError::Invalid { what: "clock", reason: format!("{now} is too far in the past") })
}

fn params(not_before: Timestamp, not_after: Timestamp) -> Result<CertificateParams, CertsError> {
    // rcgen takes its times from another crate; the epoch plus seconds gets there without naming it.
    let since_epoch = |time: Timestamp| {
        u64::try_from(time.as_second())
            .map(std::time::Duration::from_secs)
            .map_err(|_| CertsError::Invalid { what: "clock", reason: format!("{time} is before 1970") })
    };
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + since_epoch(not_before)?;
    params.not_after = epoch + since_epoch(not_after)?;
    params.serial_number = Some(random_serial()?);
    Ok(params)
}

/// 126 random bits, positive and never zero (RFC 5280, section 4.1.2.2: unique, at most 20 octets).
fn random_serial() -> Result<SerialNumber, CertsError> {
    let mut bytes = random_bytes::<16>()?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(bytes.as_slice()))
}
