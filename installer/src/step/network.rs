//! `system.network`: the appliance's network as the configuration says. Done when the files are in place and the addresses
//! are on an adapter. The first start from the disk waits for no network before it.

use std::net::IpAddr;

use super::{Context, Report, StepError};
use crate::network::units::{self, INSTALLED, Unit};

pub(super) fn done(context: &Context, units: &[Unit], addresses: &[IpAddr]) -> Result<bool, StepError> {
    Ok(units::is_set_up(context.host, INSTALLED, units)?
        && units::missing(context.host, addresses).is_ok_and(|missing| missing.is_empty()))
}

pub(super) fn run(
    context: &Context,
    units: &[Unit],
    addresses: &[IpAddr],
    report: &mut Report,
) -> Result<(), StepError> {
    units::set_up(context.host, INSTALLED, units)?;
    context.wait("the addresses are not there", report, |context| {
        Ok(units::missing(context.host, addresses).and_then(|missing| match missing.first() {
            None => Ok(()),
            Some(address) => Err(format!("no adapter has {address} yet: is its cable in?")),
        }))
    })
}
