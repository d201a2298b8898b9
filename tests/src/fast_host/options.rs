//! What a fast host is to be: name, address, known names, shared folders.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// What the host may do in a shared folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only, as from a mounted medium.
    ReadOnly,
    /// Reading and writing: what the host writes stays when it is gone.
    ReadWrite,
}

/// Name, address and the rest of a fast host. Build it with [`HostOptions::new`] and the methods that follow.
#[derive(Debug, Clone)]
pub struct HostOptions {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    pub(super) names: Vec<(Ipv4Addr, String)>,
    pub(super) shares: Vec<(PathBuf, String, Access)>,
    pub(super) folders_on_disk: Vec<String>,
}

impl HostOptions {
    /// A host with this short name (letters, digits, `-`) at this address of the LAN (10.77.0.2 to .254).
    pub fn new(name: &str, address: Ipv4Addr) -> Self {
        Self {
            name: name.to_owned(),
            address,
            names: Vec::new(),
            shares: Vec::new(),
            folders_on_disk: vec!["/var/lib/cofferdam".to_owned()],
        }
    }

    /// Adds a line to the host's `/etc/hosts`: its own FQDN, or a neighbour's.
    #[must_use]
    pub fn name(mut self, address: Ipv4Addr, name: &str) -> Self {
        self.names.push((address, name.to_owned()));
        self
    }

    /// Shows a folder or file of this machine at `guest` (absolute) in the host.
    #[must_use]
    pub fn share(mut self, machine: impl Into<PathBuf>, guest: &str, access: Access) -> Self {
        self.shares.push((machine.into(), guest.to_owned(), access));
        self
    }

    /// Puts a further folder of the host on a real filesystem. `/var/lib/cofferdam` is there always; all else is an overlay,
    /// on which containerd's snapshotter cannot work.
    #[must_use]
    pub fn on_disk(mut self, guest: &str) -> Self {
        self.folders_on_disk.push(guest.to_owned());
        self
    }
}
