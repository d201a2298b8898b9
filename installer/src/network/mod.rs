//! Addresses, and how an appliance gets them. Used by the rules of the configuration, the checks, the steps and the live
//! system; nothing here asks the machine except [`units::set_up`].

mod address;
mod range;
pub mod units;

pub use address::{HostAddress, HostAddressError};
pub use range::{Cidr, CidrError};
