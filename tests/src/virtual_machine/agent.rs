//! Commands inside a machine, through the agent that runs there (`tests/machines/tree/usr/local/lib/test-machine/agent`).
//!
//! The agent's head comment describes the frames. Invariant: one command at a time, its output exact and its exit code its own.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// No frame of the agent is longer; a longer one means that the line is out of step.
const LONGEST_FRAME: usize = 1 << 20;

/// How long a killed command may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// Which of a command's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// How a command in a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// Exit code; 128 and the signal's number when a signal ended it, as in a shell.
    pub code: u32,
    /// Standard output, with replacement characters where it is no UTF-8.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

#[derive(Debug)]
pub(super) struct Agent {
    line: UnixStream,
    there: bool,
}

impl Agent {
    pub(super) fn new(line: UnixStream) -> Self {
        Self { line, there: false }
    }

    pub(super) fn is_there(&self) -> bool {
        self.there
    }

    pub(super) fn wait_until_there(&mut self, end: Instant) -> Result<()> {
        while !self.there {
            let (kind, _) = self.receive(end)?;
            self.there = kind == b'H';
        }
        Ok(())
    }

    pub(super) fn run(
        &mut self,
        script: &str,
        input: &[u8],
        end: Instant,
        on_output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<CommandOutput> {
        let length = u32::try_from(script.len()).context("the script is too long")?;
        let mut payload = length.to_be_bytes().to_vec();
        payload.extend_from_slice(script.as_bytes());
        payload.extend_from_slice(input);
        self.send(b'R', &payload)?;
        let mut stdout = Vec::new();
        let mut stderr = Vec::new();
        loop {
            let (kind, payload) = match self.receive(end) {
                Ok(frame) => frame,
                Err(error) => {
                    self.give_up();
                    return Err(error.context(format!(
                        "until then it wrote\n{}{}",
                        String::from_utf8_lossy(&stdout),
                        String::from_utf8_lossy(&stderr)
                    )));
                }
            };
            match kind {
                b'O' => {
                    on_output(Stream::Output, &payload);
                    stdout.extend(payload);
                }
                b'E' => {
                    on_output(Stream::Error, &payload);
                    stderr.extend(payload);
                }
                b'X' => {
                    let code = <[u8; 4]>::try_from(payload.as_slice())
                        .map(u32::from_be_bytes)
                        .context("the agent gave no exit code")?;
                    return Ok(CommandOutput {
                        code,
                        stdout: String::from_utf8_lossy(&stdout).into_owned(),
                        stderr: String::from_utf8_lossy(&stderr).into_owned(),
                    });
                }
                b'H' => bail!("the agent, or the machine, started again while a command ran"),
                other => bail!("the agent sent a frame of kind {other}: the line is out of step"),
            }
        }
    }

    /// Kills the command and reads what it still says, so that the next one's answer is not mistaken for it.
    fn give_up(&mut self) {
        let end = Instant::now() + KILL_LIMIT;
        let mut in_step = self.send(b'K', b"").is_ok();
        while in_step {
            match self.receive(end) {
                Ok((b'X', _)) => return,
                Ok(_) => {}
                Err(_) => in_step = false,
            }
        }
        // Only an agent that starts again, with the machine, is trusted now.
        self.there = false;
    }

    fn send(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        let length = u32::try_from(payload.len()).context("too much for one frame")?;
        let mut head = vec![kind];
        head.extend(length.to_be_bytes());
        self.line.write_all(&head).and_then(|()| self.line.write_all(payload)).context("cannot write to the agent")
    }

    fn receive(&mut self, end: Instant) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.fill(&mut head, end)?;
        let [kind, a, b, c, d] = head;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).context("a frame's length")?;
        if length > LONGEST_FRAME {
            bail!("the agent announced {length} bytes: the line is out of step");
        }
        let mut payload = vec![0; length];
        self.fill(&mut payload, end)?;
        Ok((kind, payload))
    }

    fn fill(&mut self, buffer: &mut [u8], end: Instant) -> Result<()> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the time limit is over");
            }
            self.line.set_read_timeout(Some(left.min(Duration::from_hours(1)))).context("cannot set a time limit")?;
            match self.line.read(rest) {
                Ok(0) => bail!("the machine went away"),
                Ok(count) => filled += count,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                }
                Err(error) => return Err(error).context("cannot read from the agent"),
            }
        }
        Ok(())
    }
}
