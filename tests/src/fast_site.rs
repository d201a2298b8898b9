//! A site that is installed without a question onto a fast host: the everyday whole-product scenario of the tests and
//! of the demo. All but the activation of LUKS is real; the configuration says so with its token.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};

use crate::fast_host::{Access, FastHost, HostOptions, Lan};
use crate::sample::{self, Sample};

/// The FQDN of the site.
pub const FQDN: &str = "mgmt.site.test";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const NODE: &str = "node-a";

/// A host with the medium in it.
#[derive(Debug)]
pub struct FastSite {
    /// The LAN.
    pub lan: Lan,
    /// The host.
    pub host: FastHost,
}

impl FastSite {
    /// A bare host with the sample bundle on a read-only medium at `/media` and the answers in `/root/install.yaml`.
    pub fn bare(sample: &Sample) -> Result<Self> {
        let lan = Lan::with_names(&[(ADDRESS, FQDN)])?;
        let options = HostOptions::new(NODE, ADDRESS)
            .name(ADDRESS, FQDN)
            .share(&sample.bundle, "/media/bundle.tar.zst", Access::ReadOnly)
            .share(&sample.trust, "/media/trust.pub", Access::ReadOnly);
        let host = FastHost::start(&lan, options)?;
        host.copy_in(&sample::cofferdam()?, "/root/cofferdam", 0o755)?;
        host.write_file("/root/install.yaml", answers(), 0o600)?;
        Ok(Self { lan, host })
    }

    /// Runs `cofferdam` with these arguments in the host.
    pub fn cofferdam(&self, arguments: &[&str]) -> Result<Output> {
        let mut argv = vec!["/root/cofferdam"];
        argv.extend(arguments);
        self.host.run(&argv)
    }

    /// Runs `cofferdam`, which must succeed, and gives its stdout.
    pub fn must(&self, arguments: &[&str]) -> Result<String> {
        let output = self.cofferdam(arguments)?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "cofferdam {arguments:?}: {}\n{stdout}\n{stderr}", output.status);
        Ok(stdout.into_owned())
    }

    /// Asks the sample workload over TLS by FQDN, as a machine in the LAN that trusts the site CA.
    pub fn ask_workload(&self) -> Result<String> {
        let roots = self.lan.folder().join("site-ca.crt");
        std::fs::write(&roots, self.host.read_file("/etc/cofferdam/tls/server-roots.crt")?)?;
        let roots = roots.to_str().context("the LAN's folder is no text")?;
        let resolve = format!("{FQDN}:443:{ADDRESS}");
        let url = format!("https://{FQDN}/");
        let output = self.lan.run(&["curl", "-sS", "--fail", "--cacert", roots, "--resolve", &resolve, &url])?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "curl {url}: {stderr}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The answers for the fast host.
pub fn answers() -> String {
    format!(
        "schema-version: 1\nsite: {{name: site-a, fqdn: {FQDN}}}\nnode: {{name: {NODE}, address: {ADDRESS}}}\n\
         storage:\n  encryption: {{mode: none, token: store-secrets-unencrypted}}\n\
         bundle: {{path: /media/bundle.tar.zst, trust: [/media/trust.pub]}}\n\
         # The host's disk is the development machine's, and shared with everything that runs on it.\n\
         accept: [disk.fsync]\n"
    )
}

/// Makes the sample in `folder` unless it is there.
pub fn sample_in(folder: &Path) -> Result<Sample> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    sample::make(folder)
}
