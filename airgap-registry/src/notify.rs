//! Telling systemd how it goes: datagrams to the socket in `NOTIFY_SOCKET` (`sd_notify(3)`, "Type=notify" in
//! systemd.service(5)). Outside of systemd nothing happens. Called by the server.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The server listens on all its addresses.
pub(crate) fn ready(status: &str) {
    send(&format!("READY=1\nSTATUS={status}\n"));
}

/// The server takes no new connections.
pub(crate) fn stopping() {
    send("STOPPING=1\nSTATUS=finishing the requests that are going on\n");
}

fn send(message: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send_to(&socket, message) {
        tracing::warn!(%error, "cannot tell systemd about the state of the service");
    }
}

/// A name that begins with `@` is in the abstract namespace (unix(7)).
fn send_to(socket: &OsString, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(OsStr::from_bytes(socket.as_bytes()))?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn datagrams_arrive_at_path_and_abstract_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("cofferdam-notify-{}", std::process::id());
        let sockets = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap(),
                OsString::from(format!("@{abstract_name}")),
            ),
        ];
        for (socket, name) in sockets {
            send_to(&name, "READY=1\n").unwrap();
            let mut buffer = [0; 64];
            let count = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"READY=1\n");
        }
        assert!(send_to(&OsString::from("/nowhere/at/all"), "x").is_err());
    }
}
