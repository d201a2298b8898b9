//! What a test does inside a fast host that is on: commands, files, waiting for something.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::host::FastHost;
use super::scripts::script;

/// What PID 1 of a host has given up, in the words of setpriv(1); the same list stands in `boot.sh`.
const FORBIDDEN_CAPABILITIES: &str = "--bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog";

impl FastHost {
    /// A command in all of the host's namespaces and cgroups, as root in `/` with an environment of its own. Variables set on it
    /// reach the host. Killing the returned command's process does not kill the one inside: use `pkill` inside for that.
    pub fn command(&self, program: &str) -> Result<Command> {
        let leader = self.leader()?;
        let mut command = Command::new(script("enter.sh"));
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LC_ALL", "C.UTF-8")
            .arg(self.folder())
            .args(["nsenter", "--target", &leader.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--"])
            // nsenter keeps all of our own capabilities: without this, `date -s` in a host would set this machine's clock.
            .args(["setpriv", FORBIDDEN_CAPABILITIES, "--"])
            .arg(program);
        Ok(command)
    }

    /// Runs a command in the host and waits for it, 15 to 30 ms for the smallest. Any exit code is an `Ok`.
    pub fn run(&self, argv: &[&str]) -> Result<Output> {
        self.command_of(argv)?.output().with_context(|| format!("cannot run {argv:?} on {}", self.name()))
    }

    /// Runs a command that has to succeed and gives its standard output; the error has both of its outputs.
    pub fn check(&self, argv: &[&str]) -> Result<String> {
        let output = self.run(argv)?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{argv:?} on {} ended with {}\n{stdout}{stderr}", self.name(), output.status);
        }
        Ok(stdout.into_owned())
    }

    /// Runs a line of shell (`sh -euc`) that has to succeed and gives its standard output.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.check(&["sh", "-euc", line])
    }

    /// Starts a command in the host with both outputs piped and does not wait for it.
    pub fn spawn(&self, argv: &[&str]) -> Result<Child> {
        self.command_of(argv)?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {argv:?} on {}", self.name()))
    }

    /// Runs a command each 100 ms until it succeeds; the error carries what it said last.
    pub fn wait_for(&self, argv: &[&str], limit: Duration) -> Result<String> {
        let began = Instant::now();
        loop {
            match self.check(argv) {
                Ok(stdout) => return Ok(stdout),
                Err(error) if began.elapsed() > limit => {
                    return Err(error.context(format!("no success within {} s", limit.as_secs())));
                }
                Err(_) => sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Writes a file in the host, with the folders that lead to it. `mode` is for example `0o600`.
    pub fn write_file(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let mut child = self.writer(path, mode)?.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("no pipe to the host")?;
        let written = stdin.write_all(content.as_ref());
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("cannot write {path} on {}: {}", self.name(), String::from_utf8_lossy(&output.stderr));
        }
        written.with_context(|| format!("cannot write {path} on {}", self.name()))
    }

    /// Copies a file of this machine into the host, with the folders that lead to it.
    pub fn copy_in(&self, machine: &Path, path: &str, mode: u32) -> Result<()> {
        let file = File::open(machine).with_context(|| format!("cannot open {}", machine.display()))?;
        let output = self.writer(path, mode)?.stdin(file).output()?;
        if !output.status.success() {
            bail!("cannot write {path} on {}: {}", self.name(), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Reads a file of the host. (Not through /proc/PID/root: an absolute link in it would lead to this machine's files.)
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let output = self.run(&["cat", "--", path])?;
        if !output.status.success() {
            bail!("cannot read {path} on {}: {}", self.name(), String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    }

    /// The names of the units that failed.
    pub fn failed_units(&self) -> Result<Vec<String>> {
        let list = self.check(&["systemctl", "list-units", "--failed", "--plain", "--no-legend"])?;
        Ok(list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    fn command_of(&self, argv: &[&str]) -> Result<Command> {
        let (program, arguments) = argv.split_first().context("no command given")?;
        let mut command = self.command(program)?;
        command.args(arguments);
        Ok(command)
    }

    fn writer(&self, path: &str, mode: u32) -> Result<Command> {
        let script = r#"umask 022; mkdir -p "$(dirname "$1")"; umask 077; cat >"$1"; chmod "$2" "$1""#;
        self.command_of(&["sh", "-euc", script, "sh", path, &format!("{mode:o}")])
    }
}
