//! `registry.start`: the registry as a hardened service of its own user. Done when its files are as they should be and
//! it answers `/readyz` over TLS.

use std::net::IpAddr;
use std::time::Duration;

use super::certificates::entry;
use super::{Context, StepError};
use crate::host::{HostExt, HttpsRequest};
use crate::layout;

const UNIT: &str = "/etc/systemd/system/cofferdam-registry.service";
const SERVICE: &str = "cofferdam-registry.service";

pub(super) fn done(context: &Context) -> Result<bool, StepError> {
    Ok(context.host.holds(UNIT.into(), unit().as_bytes(), 0o644)?
        && context.succeeds("systemctl", ["is-enabled", "--quiet", SERVICE])?
        && ready(context).is_ok())
}

pub(super) fn run(context: &Context, address: IpAddr) -> Result<(), StepError> {
    context.host.ensure(layout::REGISTRY_CONFIG.into(), configuration(address).as_bytes(), 0o644)?;
    context.host.ensure(UNIT.into(), unit().as_bytes(), 0o644)?;
    context.must("systemctl", ["daemon-reload"])?;
    context.must("systemctl", ["enable", "--quiet", SERVICE])?;
    context.must("systemctl", ["restart", SERVICE])?;
    context.wait("the registry is not ready", &mut |_| {}, |context| Ok(ready(context)))
}

/// Whether the registry answers by the site's name and with a certificate of the site CA.
pub(crate) fn ready(context: &Context) -> Result<(), String> {
    let roots = context.host.read_text(&entry("site-ca.crt")).map_err(|error| error.to_string())?;
    let answer = context
        .host
        .https_get(&HttpsRequest {
            server: "localhost".to_owned(),
            port: layout::REGISTRY_PORT,
            path: "/readyz".to_owned(),
            roots_pem: roots.map(|text| text.to_string()).unwrap_or_default(),
            client: None,
            limit: Duration::from_secs(10),
        })
        .map_err(|error| error.to_string())?;
    if answer.status == 200 { Ok(()) } else { Err(format!("/readyz answered {}", answer.status)) }
}

fn configuration(address: IpAddr) -> String {
    let port = layout::REGISTRY_PORT;
    let address = std::net::SocketAddr::new(address, port);
    format!(
        "# Written by cofferdam. The private key comes in as a systemd credential.\n\
         store: {}\nlisten:\n  - 127.0.0.1:{port}\n  - \"{address}\"\n\
         tls:\n  certificate: {tls}/registry.crt\n  key: $CREDENTIALS_DIRECTORY/tls.key\n  client-ca: {tls}/site-ca.crt\n",
        layout::STORE,
        tls = layout::TLS,
    )
}

fn unit() -> String {
    airgap_registry::unit::render(&airgap_registry::unit::UnitParameters {
        binary: layout::PROGRAM.into(),
        config: layout::REGISTRY_CONFIG.into(),
        store: layout::STORE.into(),
        user: layout::REGISTRY_USER.to_owned(),
        key: entry("registry.key"),
    })
}
