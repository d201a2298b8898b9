//! A certificate that somebody else will issue: the key is made here, the request goes out on a medium, the answer comes
//! back.
//!
//! Invariant: until the data volume is there the key lies in `/run`, which is memory, readable by root alone; it is made
//! once, so that the answer fits however often the installer is started before the machine is. Called by `prepare` and
//! by `ui/`.

use camino::Utf8Path;
use certs::{Fqdn, PrivateKey, ServerNames};

use crate::config::InstallConfig;
use crate::host::{Host, HostExt};
use crate::layout;
use crate::plan;

/// Makes the key if there is none yet, and writes the request (PKCS#10, PEM) to `target`. Gives the request.
pub fn make(host: &dyn Host, config: &InstallConfig, target: &Utf8Path) -> Result<String, String> {
    let request = request(host, config)?;
    host.write(target, request.as_bytes(), 0o644).map_err(|error| error.to_string())?;
    Ok(request)
}

/// The request for the site's names; makes the key if there is none yet.
pub fn request(host: &dyn Host, config: &InstallConfig) -> Result<String, String> {
    let text = |error: certs::CertsError| error.to_string();
    let kept = host.read_text(layout::REQUEST_KEY.into()).map_err(|error| error.to_string())?;
    let key = if let Some(pem) = kept {
        PrivateKey::from_pem(&pem).map_err(text)?
    } else {
        let key = PrivateKey::generate("ecdsa-p256".parse().map_err(text)?).map_err(text)?;
        let directory = Utf8Path::new(layout::REQUEST_KEY).parent().unwrap_or(Utf8Path::new("/run"));
        let failed = |error: crate::host::HostError| error.to_string();
        host.make_directory(directory, 0o700).map_err(failed)?;
        host.write(layout::REQUEST_KEY.into(), key.to_pem().as_bytes(), 0o600).map_err(failed)?;
        key
    };
    let fqdn: Fqdn = config.site.fqdn.parse().map_err(text)?;
    let mut names = ServerNames::new(fqdn);
    for name in plan::server_names(config) {
        names = names.with(name.parse().map_err(text)?);
    }
    key.certificate_request(&names).map_err(text)
}
