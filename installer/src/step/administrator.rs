//! `admin.account`: the account of the machine's administrator. The password goes to chpasswd(8) as a hash, on standard
//! input; the hash stands in the configuration alone. Done when `/etc/shadow` holds that hash and `authorized_keys` the
//! keys.

use camino::{Utf8Path, Utf8PathBuf};

use super::{Context, StepError};
use crate::host::{Command, HostExt};

const SHADOW: &str = "/etc/shadow";
/// Members may become root by sudo(8) on Debian.
const GROUP: &str = "sudo";

pub(super) fn done(context: &Context, name: &str, password: bool, ssh_keys: &[String]) -> Result<bool, StepError> {
    let Some(shadow) = context.host.read_text(SHADOW.into())? else { return Ok(false) };
    let Some(entry) = shadow.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')) else {
        return Ok(false);
    };
    let has_password = !password || entry.split(':').next() == hash(context);
    let has_keys = match authorized_keys(context, name)? {
        _ if ssh_keys.is_empty() => true,
        Some(path) => context.host.holds(&path, &lines(ssh_keys), 0o600)?,
        None => false,
    };
    Ok(has_password && has_keys)
}

pub(super) fn run(context: &Context, name: &str, ssh_keys: &[String]) -> Result<(), StepError> {
    if !context.succeeds("id", [name])? {
        context.must("useradd", ["--create-home", "--shell", "/bin/bash", "--user-group", name])?;
    }
    // A minimal host has no sudo; its administrator then becomes root by other means, or not at all.
    if context.succeeds("getent", ["group", GROUP])? {
        context.must("usermod", ["--append", "--groups", GROUP, name])?;
    }
    if let Some(hash) = hash(context) {
        let line = format!("{name}:{hash}\n");
        context.host.must(&Command::new("chpasswd").arg("--encrypted").stdin(line.into_bytes()))?;
    }
    if ssh_keys.is_empty() {
        return Ok(());
    }
    let path = authorized_keys(context, name)?.ok_or_else(|| StepError::State {
        what: format!("the account {name} has no home directory"),
        hint: "look at its line in /etc/passwd; `usermod --home` sets one".to_owned(),
    })?;
    let directory = path.parent().unwrap_or(Utf8Path::new("/"));
    context.host.make_directory(directory, 0o700)?;
    context.host.ensure(&path, &lines(ssh_keys), 0o600)?;
    context.must("chown", ["--recursive", &format!("{name}:{name}"), directory.as_str()])?;
    Ok(())
}

fn hash<'a>(context: &'a Context) -> Option<&'a str> {
    context.config.administrator.as_ref()?.password_hash.as_deref()
}

fn lines(keys: &[String]) -> Vec<u8> {
    keys.iter().fold(String::new(), |text, key| format!("{text}{}\n", key.trim())).into_bytes()
}

/// `~/.ssh/authorized_keys`, by the home directory in `/etc/passwd` (passwd(5), field 6).
fn authorized_keys(context: &Context, name: &str) -> Result<Option<Utf8PathBuf>, StepError> {
    let passwd = context.host.read_text("/etc/passwd".into())?.unwrap_or_default();
    let entry = passwd.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let home = entry.and_then(|entry| entry.split(':').nth(4)).filter(|home| home.starts_with('/'));
    Ok(home.map(|home| Utf8Path::new(home).join(".ssh/authorized_keys")))
}
