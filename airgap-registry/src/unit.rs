//! The systemd unit of the registry: its own user, nothing writable but the store, no privilege at all.
//!
//! Invariant: `systemd-analyze security` rates the rendered unit at 2.0 or better (tested; it is 1.1 with systemd 252).
//! Called by the installer.

use camino::Utf8PathBuf;

/// What differs from host to host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitParameters {
    /// The `cofferdam` binary.
    pub binary: Utf8PathBuf,
    /// The configuration file, readable for the service's group.
    pub config: Utf8PathBuf,
    /// The folder of the store; the only one that the service may write.
    pub store: Utf8PathBuf,
    /// User and group of the service, which own the store.
    pub user: String,
    /// The private key: a file that only root reads. The service gets it as the credential [`KEY_CREDENTIAL`].
    pub key: Utf8PathBuf,
}

/// The name of the private key among the service's credentials: the configuration says
/// `key: $CREDENTIALS_DIRECTORY/tls.key`.
pub const KEY_CREDENTIAL: &str = "tls.key";

/// The user that the service runs as unless told otherwise.
pub const USER: &str = "cofferdam-registry";

/// The text of `cofferdam-registry.service`.
///
/// systemd reads credentials when it starts a service, not when it reloads it: after the private key was replaced the
/// service must be restarted; for a new certificate of the same key `systemctl reload` is enough.
pub fn render(parameters: &UnitParameters) -> String {
    let UnitParameters { binary, config, store, user, key } = parameters;
    format!(
        "\
[Unit]
Description=Cofferdam site registry
Wants=network-online.target
After=network-online.target
Before=kubelet.service
RequiresMountsFor={store}

[Service]
Type=notify
ExecStart={binary} registry serve --config {config}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
TimeoutStopSec=30
User={user}
Group={user}
LoadCredential={KEY_CREDENTIAL}:{key}
LimitNOFILE=65536
# The kernel takes from others first: every container of the cluster comes from here.
OOMScoreAdjust=-900

UMask=0077
ReadWritePaths={store}
ProtectSystem=strict
ProtectHome=true
ProtectProc=invisible
ProcSubset=pid
PrivateTmp=true
PrivateDevices=true
PrivateUsers=true
PrivateMounts=true
ProtectClock=true
ProtectHostname=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
ProtectControlGroups=true
NoNewPrivileges=true
CapabilityBoundingSet=
AmbientCapabilities=
LockPersonality=true
MemoryDenyWriteExecute=true
RemoveIPC=true
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
DevicePolicy=closed
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    #[test]
    fn systemd_finds_the_unit_valid_and_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| Utf8PathBuf::try_from(folder.path().join(name)).unwrap();
        fs::write(path("cofferdam"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(path("cofferdam"), fs::Permissions::from_mode(0o755)).unwrap();
        let parameters = UnitParameters {
            binary: path("cofferdam"),
            config: "/etc/cofferdam/registry.yaml".into(),
            store: "/var/lib/cofferdam/data/registry".into(),
            user: USER.to_owned(),
            key: "/etc/cofferdam/tls/server.key".into(),
        };
        let unit = path("cofferdam-registry.service");
        fs::write(&unit, render(&parameters)).unwrap();

        let run = |arguments: &[&str]| {
            let output = Command::new("systemd-analyze").args(arguments).arg(&unit).output();
            let output = output.expect("systemd-analyze is missing: install the Debian package systemd");
            (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
        };
        // `--threshold` takes tenths: 20 is an exposure of 2.0.
        let (good, text) = run(&["security", "--offline=true", "--threshold=20", "--no-pager"]);
        let verdict = text.lines().last().unwrap_or_default();
        assert!(good && verdict.contains("Overall exposure level"), "{text}");
        // The same text without its hardening must fail, or the check above says nothing.
        let (service, _) = render(&parameters).split_once("UMask=").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        fs::write(&unit, service).unwrap();
        assert!(!run(&["security", "--offline=true", "--threshold=20", "--no-pager"]).0);
    }
}
