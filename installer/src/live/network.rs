//! The live system's network, as the answers describe that of the appliance: what is checked and fetched before the
//! installation goes the way that the installed system will go.

use std::time::Duration;

use super::LiveError;
use crate::config::Network;
use crate::host::Host;
use crate::network::units;

/// A switch may take half a minute until it forwards.
const ATTEMPTS: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// Sets the network up in the live system and waits until the fixed addresses are there, for a minute at most.
pub fn set_up(host: &dyn Host, network: &Network) -> Result<(), LiveError> {
    units::set_up(host, units::LIVE, &units::of(network))?;
    let addresses: Vec<_> = network.addresses.iter().map(|address| address.address).collect();
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match units::missing(host, &addresses) {
            Ok(missing) if missing.is_empty() => return Ok(()),
            Ok(missing) => {
                let list = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                last = format!("{list} did not come up on {}", network.adapters.join(", "));
            }
            Err(reason) => last = reason,
        }
        host.pause(PAUSE);
    }
    Err(LiveError::Network { why: last })
}

/// Every wired adapter asks by DHCP again.
pub fn reset(host: &dyn Host) -> Result<(), LiveError> {
    Ok(units::set_up(host, units::LIVE, &[])?)
}
