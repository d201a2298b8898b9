//! Where a machine's network adapters lead: nowhere, or over a wire to another machine.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use camino::Utf8PathBuf;

/// The adapters of a machine, and what is behind them.
#[derive(Debug, Clone, Default)]
pub enum Network {
    /// One adapter in QEMU's user network, which gives an address and leads nowhere.
    #[default]
    Nowhere,
    /// The same, with one server: each connection to 10.0.2.100, port 80, is the standard input and output of this program.
    Served(Utf8PathBuf),
    /// An adapter for each of these MAC addresses, all on one segment at this end of a wire.
    Wired {
        /// The wire.
        wire: Wire,
        /// Which end of it, 0 or 1.
        end: usize,
        /// MAC addresses.
        adapters: Vec<String>,
    },
}

impl Network {
    pub(super) fn arguments(&self) -> Vec<String> {
        match self {
            Self::Nowhere => vec![
                "-netdev user,id=network,restrict=on".to_owned(),
                "-device virtio-net-pci,netdev=network,romfile=".to_owned(),
            ],
            Self::Served(program) => vec![
                format!("-netdev user,id=network,restrict=on,guestfwd=tcp:10.0.2.100:80-cmd:{program}"),
                "-device virtio-net-pci,netdev=network,romfile=".to_owned(),
            ],
            Self::Wired { wire, end, adapters } => {
                let mut arguments = vec![
                    format!(
                        "-netdev dgram,id=wire,local.type=unix,local.path={},remote.type=unix,remote.path={}",
                        wire.end(*end),
                        wire.end(end ^ 1)
                    ),
                    "-netdev hubport,id=wall,hubid=0,netdev=wire".to_owned(),
                ];
                for (number, mac) in adapters.iter().enumerate() {
                    arguments.push(format!("-netdev hubport,id=port{number},hubid=0"));
                    arguments.push(format!(
                        "-device virtio-net-pci,id=adapter{number},netdev=port{number},mac={mac},romfile="
                    ));
                }
                arguments
            }
        }
    }
}

/// A wire between two machines; what is sent while the other one is off is lost.
#[derive(Debug, Clone)]
pub struct Wire {
    path: Utf8PathBuf,
    _directory: Arc<tempfile::TempDir>,
}

impl Wire {
    /// A wire that leads from no machine to none. Its ends are sockets, which have short names.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("wire-").tempdir().context("cannot create a wire")?;
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned());
        let path = path.map_err(|path| anyhow::anyhow!("{} is no UTF-8", path.display()))?;
        Ok(Self { path, _directory: Arc::new(directory) })
    }

    fn end(&self, number: usize) -> Utf8PathBuf {
        self.path.join(number.to_string())
    }
}
