//! `rehearsal`: what users and nodes will do tomorrow is done once today. A TLS handshake by FQDN with the registry and,
//! where a pack serves the site's certificate, at port 443; a real pull through containerd, asked for by an upstream
//! name that only the mirror can answer.

use std::time::Duration;

use super::certificates::entry;
use super::{Context, StepError};
use crate::host::{HostExt, HttpsRequest};
use crate::layout;

pub(super) fn run(context: &Context, image: &str, workload: bool) -> Result<(), StepError> {
    get(context, layout::REGISTRY_PORT, "/readyz", &entry("site-ca.crt"), true)?;
    let api_roots = "/etc/kubernetes/pki/ca.crt".into();
    get(context, layout::API_PORT, "/readyz", api_roots, true)?;
    if workload {
        get(context, 443, "/", &entry("server-roots.crt"), false)?;
    }
    // Fetched anew in a namespace of its own, so that nothing that is there already answers for the registry.
    let namespace = "cofferdam-rehearsal";
    let hosts = "/etc/containerd/certs.d";
    context.must("ctr", ["-n", namespace, "images", "pull", "--hosts-dir", hosts, image])?;
    context.must("ctr", ["-n", namespace, "images", "remove", image])?;
    Ok(())
}

fn get(context: &Context, port: u16, path: &str, roots: &camino::Utf8Path, must_be_200: bool) -> Result<(), StepError> {
    let roots_pem = context.host.read_text(roots)?.map(|text| text.to_string()).unwrap_or_default();
    let answer = context.host.https_get(&HttpsRequest {
        server: context.config.site.fqdn.clone(),
        port,
        path: path.to_owned(),
        roots_pem,
        client: None,
        limit: Duration::from_secs(30),
    })?;
    if answer.status == 200 || (!must_be_200 && answer.status < 500) {
        return Ok(());
    }
    Err(StepError::State {
        what: format!("https://{}:{port}{path} answered {}", context.config.site.fqdn, answer.status),
        hint: "the name and the certificate are right; look at what serves this port".to_owned(),
    })
}
