//! `site.record`: the state of the finished site, for `status`, for upgrades, and so that a second installation on this
//! host is refused. Done when it is there and names this plan's index.

use bundle::index::Index;
use serde::{Deserialize, Serialize};

use super::certificates::entry;
use super::{Context, StepError};
use crate::config::{Encryption, InstallConfig};
use crate::host::{Host, HostError, HostExt};
use crate::layout;
use crate::plan::{Action, Plan};

/// A LUKS2 header has room for so many (on-disk format, section 2.1), with a zero at the end. A site's name is ASCII.
const LABEL_BYTES: usize = 47;

/// An installed site (`/var/lib/cofferdam/state.json`). It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct State {
    /// Always 1.
    pub schema_version: u32,
    /// Name of the site.
    pub site: String,
    /// Its FQDN.
    pub fqdn: String,
    /// This node.
    pub node: String,
    /// When it was finished, RFC 3339; empty while the installation is not.
    pub installed: String,
    /// When it was last upgraded, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgraded: Option<String>,
    /// The bundle's name.
    pub bundle: String,
    /// The bundle's version.
    pub version: String,
    /// SHA-256 of the bundle's signed index.
    pub index: String,
    /// `luks2`, or `none` because the configuration said so with its token.
    pub encryption: String,
    /// The disk of the data volume; on an appliance its partition.
    pub disk: Option<String>,
    /// SHA-256 fingerprint of the site CA.
    pub ca_fingerprint: String,
    /// Failing checks that the configuration accepted.
    pub accepted: Vec<String>,
    /// Installed packs.
    pub packs: Vec<PackState>,
}

/// An installed pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackState {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl State {
    /// The state of a host; `None` when no site is installed on it.
    pub fn read(host: &dyn Host) -> Result<Option<Self>, HostError> {
        let Some(text) = host.read_text(layout::STATE.into())? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| HostError::File {
            action: "understand",
            path: layout::STATE.into(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
        })
    }

    /// What a plan makes of a host; `site_ca`: PEM, empty as long as there is none.
    pub fn of(config: &InstallConfig, plan: &Plan, index: &Index, site_ca: &str) -> Result<Self, certs::CertsError> {
        let authority = if site_ca.is_empty() { Vec::new() } else { certs::inspect("site CA", site_ca)? };
        Ok(Self {
            schema_version: 1,
            site: config.site.name.clone(),
            fqdn: config.site.fqdn.clone(),
            node: config.node.name.clone(),
            installed: String::new(),
            upgraded: None,
            bundle: index.name.clone(),
            version: index.version.clone(),
            index: plan.index.clone(),
            encryption: match config.storage.encryption {
                Encryption::Luks2 { .. } => "luks2".to_owned(),
                Encryption::None { .. } => "none".to_owned(),
            },
            disk: data_device(plan),
            ca_fingerprint: authority.first().map(|certificate| certificate.sha256.to_string()).unwrap_or_default(),
            accepted: config.accept.clone(),
            packs: packs(index, |name| is_installed(plan, name)),
        })
    }
}

/// What holds the data volume: what is encrypted, or else the disk that is formatted without that.
fn data_device(plan: &Plan) -> Option<String> {
    let encrypted = plan.steps.iter().find_map(|step| match &step.action {
        Action::EncryptDisk { disk, .. } => Some(disk.path.clone()),
        _ => None,
    });
    encrypted.or_else(|| plan.destroys.first().map(|disk| disk.path.clone()))
}

pub(super) fn done(context: &Context) -> Result<bool, StepError> {
    Ok(State::read(context.host)?.is_some_and(|state| state.index == context.plan.index))
}

pub(super) fn run(context: &Context) -> Result<(), StepError> {
    let authority = context.host.read_text(&entry("site-ca.crt"))?.unwrap_or_default();
    let mut state = State::of(context.config, context.plan, context.index, &authority)
        .map_err(|error| StepError::Certificates { what: "site CA", reason: error.to_string() })?;
    state.installed = context.host.now().to_string();
    // What stood in memory or beside the keystore until the keystore had it; before the record, so that a crash in between does it again.
    let typed = [layout::REQUEST_KEY, layout::PASTED_KEY, layout::PASTED_PASSPHRASE];
    for path in typed.into_iter().chain(layout::BROUGHT) {
        context.host.remove(path.into())?;
    }
    if state.encryption == "luks2" {
        label(context, &state.site)?;
    }
    write(context, &state)
}

/// Says in the volume's header that a site was finished on it: a medium that is started again must not erase it.
fn label(context: &Context, site: &str) -> Result<(), StepError> {
    let status = context.must("cryptsetup", ["status", layout::VOLUME])?.text();
    let device = status.lines().find_map(|line| line.trim().strip_prefix("device:")).map(str::trim);
    let device = device.ok_or_else(|| StepError::State {
        what: format!("`cryptsetup status {}` names no device", layout::VOLUME),
        hint: "the data volume must be open".to_owned(),
    })?;
    let mut label = format!("{}{site}", layout::LABEL_SITE);
    label.truncate(LABEL_BYTES);
    context.must("cryptsetup", ["config", "--label", &label, device])?;
    Ok(())
}

/// Records that the site runs the release of the context now.
pub(crate) fn upgraded(context: &Context) -> Result<(), StepError> {
    let mut state = State::read(context.host)?.ok_or_else(|| StepError::State {
        what: "the record of the site is gone".to_owned(),
        hint: "`cofferdam upgrade rollback` puts it back from the snapshot".to_owned(),
    })?;
    state.upgraded = Some(context.host.now().to_string());
    state.bundle.clone_from(&context.index.name);
    state.version.clone_from(&context.index.version);
    state.index.clone_from(&context.plan.index);
    let chosen = crate::plan::chosen_packs(context.config, context.index);
    let chosen: Vec<&str> = chosen.iter().flatten().map(|pack| pack.name.as_str()).collect();
    state.packs = packs(context.index, |name| chosen.contains(&name));
    write(context, &state)
}

fn packs(index: &Index, is_installed: impl Fn(&str) -> bool) -> Vec<PackState> {
    let packs = index.packs.iter().filter(|pack| is_installed(&pack.name));
    packs.map(|pack| PackState { name: pack.name.clone(), version: pack.version.clone() }).collect()
}

fn write(context: &Context, state: &State) -> Result<(), StepError> {
    let text = serde_json::to_string_pretty(state)
        .map_err(|error| StepError::State { what: error.to_string(), hint: "report this as a bug".to_owned() })?;
    Ok(context.host.write(layout::STATE.into(), format!("{text}\n").as_bytes(), 0o644)?)
}

/// A pack is installed when a step of the plan dealt with it; the Kubernetes pack always.
fn is_installed(plan: &Plan, name: &str) -> bool {
    plan.steps
        .iter()
        .any(|step| matches!(&step.action, Action::InstallFiles { pack } | Action::ApplyPack { pack } if pack == name))
}
