//! Running a transaction: forward to the commit, or back to where it began. Whatever ends a run, the host holds either no
//! transaction (old or new release, whole) or one that [`go_on`] ends.

use bundle::index::Index;
use bundle::oci::Digest;
use camino::Utf8Path;

use super::plan::Incoming;
use super::shown::UpgradePlan;
use super::transaction::{Direction, Transaction};
use super::{CURRENT, FOLDER, PREVIOUS, SNAPSHOTS, audit};
use crate::config::{self, InstallConfig};
use crate::engine::event::Event;
use crate::engine::question::Unattended;
use crate::engine::{Engine, EngineError, Stop};
use crate::host::{Command, Host, HostError, HostExt};
use crate::layout;
use crate::plan::Plan;
use crate::step::StepError;

/// How a run ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The site runs the next release.
    Committed,
    /// The site runs the release that it ran before; this is why.
    WentBack {
        /// What failed.
        reason: String,
        /// The bundle was refused.
        refused: bool,
    },
    /// An upgrade that was committed was undone.
    Undone,
}

/// Why a run failed; the transaction is still there.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something on the host could not be read or written.
    #[error(transparent)]
    Host(#[from] HostError),
    /// What the transaction needs is not there.
    #[error("{0}")]
    State(String),
    /// The power was lost, the journal cannot be kept, or somebody stopped it: nothing more is done.
    #[error("{0}")]
    Stopped(EngineError),
    /// The way back failed, too.
    #[error("the way back failed: {back}\n  it went back because: {reason}")]
    Back {
        /// Why it went back.
        reason: String,
        /// Why that failed.
        back: EngineError,
    },
}

impl RunError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Stopped(error @ EngineError::Restarting { .. }) => error.hint(),
            Self::Host(_) | Self::Stopped(_) => "mend the cause, then `cofferdam resume` ends the upgrade".to_owned(),
            Self::State(_) => "`cofferdam upgrade history` tells what was done".to_owned(),
            Self::Back { back, .. } => back.hint(),
        }
    }
}

/// Ends an upgrade at boot that a power cut interrupted.
const UNIT: &str = "cofferdam-upgrade.service";
const UNIT_FILE: &str = "/etc/systemd/system/cofferdam-upgrade.service";

/// From here on the site ends the upgrade by itself whenever it boots.
fn arm(host: &dyn Host) -> Result<(), HostError> {
    // Not a oneshot: the boot is not held up by it.
    let unit = format!(
        "# Written by cofferdam; there only while an upgrade is going on.\n[Unit]\n\
         Description=Cofferdam: end an interrupted upgrade\n\
         After=network-online.target cofferdam-registry.service containerd.service kubelet.service\n\
         RequiresMountsFor={}\nConditionPathExists={CURRENT}\n\n[Service]\nType=exec\nExecStart={} resume\nKillMode=mixed\n\n\
         [Install]\nWantedBy=multi-user.target\n",
        layout::DATA,
        layout::PROGRAM,
    );
    host.ensure(UNIT_FILE.into(), unit.as_bytes(), 0o644)?;
    host.must(&Command::new("systemctl").arg("daemon-reload"))?;
    host.must(&Command::new("systemctl").args(["enable", "--quiet", UNIT]))?;
    Ok(())
}

/// The transaction is over.
fn disarm(host: &dyn Host) -> Result<(), HostError> {
    if host.look(UNIT_FILE.into())?.is_some() {
        host.must(&Command::new("systemctl").args(["disable", "--quiet", UNIT]))?;
        host.remove(UNIT_FILE.into())?;
        host.must(&Command::new("systemctl").arg("daemon-reload"))?;
    }
    host.remove(CURRENT.into())
}

/// Where events go.
type Listener<'a> = dyn FnMut(&Event) + 'a;

/// Writes the transaction down: from here on `resume` knows of it.
pub fn begin(
    host: &dyn Host,
    plan: &UpgradePlan,
    incoming: &Incoming,
    signed: (&[u8], &[u8]),
    number: u64,
    who: &str,
) -> Result<Transaction, HostError> {
    host.make_directory(FOLDER.into(), 0o755)?;
    let write = |name: &str, content: &[u8]| host.write(&Utf8Path::new(FOLDER).join(name), content, 0o644);
    let old = |path: &str| Ok::<_, HostError>(host.read(path.into())?.map(|bytes| bytes.to_vec()).unwrap_or_default());
    write(&format!("{number}.from.json"), &old(layout::INDEX)?)?;
    write(&format!("{number}.from.json.minisig"), &old(layout::INDEX_SIGNATURE)?)?;
    write(&format!("{number}.to.json"), signed.0)?;
    write(&format!("{number}.to.json.minisig"), signed.1)?;
    let transaction = Transaction {
        schema_version: 1,
        snapshot: number,
        from: format!("{} {}", plan.from.bundle, plan.from.version),
        to: format!("{} {}", plan.to.bundle, plan.to.version),
        who: who.to_owned(),
        begun: host.now(),
        signer: incoming.signer.to_owned(),
        direction: Direction::Forward,
        reason: String::new(),
        forward: plan.plan.clone(),
        back: plan.back.clone(),
    };
    let detail = format!("signed by {}", incoming.signer);
    audit::append(host, who, "upgrade.apply", &transaction.title(), "begun", &detail)?;
    arm(host)?;
    transaction.write(host, CURRENT)?;
    Ok(transaction)
}

/// Turns the last committed upgrade into a transaction that undoes it; `None` when there is none.
pub fn begin_undo(host: &dyn Host, who: &str) -> Result<Option<Transaction>, HostError> {
    let Some(mut transaction) = Transaction::read(host, PREVIOUS)? else { return Ok(None) };
    transaction.direction = Direction::Undo;
    "somebody asked for it".clone_into(&mut transaction.reason);
    audit::append(host, who, "upgrade.rollback", &transaction.title(), "begun", "")?;
    arm(host)?;
    transaction.write(host, CURRENT)?;
    Ok(Some(transaction))
}

/// Runs the transaction that is going on to one of its ends.
pub fn go_on(
    host: &dyn Host,
    mut transaction: Transaction,
    who: &str,
    stop: &Stop,
    listen: &mut Listener,
) -> Result<Ended, RunError> {
    let mut refused = false;
    if transaction.direction == Direction::Forward {
        match run(host, &transaction, &transaction.forward, "to", stop, listen) {
            Ok(()) => return commit(host, &transaction, who),
            Err(Failed::Stopped(error)) => return Err(error),
            Err(Failed::Step(error)) => {
                refused = matches!(&error, EngineError::Step { source: StepError::Bundle { .. }, .. });
                transaction.reason = error.to_string();
                transaction.direction = Direction::Back;
                audit::append(host, who, "upgrade.apply", &transaction.title(), "failed", &transaction.reason)?;
                transaction.write(host, CURRENT)?;
            }
        }
    }
    let snapshot = Utf8Path::new(SNAPSHOTS).join(format!("{}/snapshot.json", transaction.snapshot));
    // Before its snapshot is whole, an upgrade has changed nothing.
    if host.look(&snapshot)?.is_some() {
        match run(host, &transaction, &transaction.back, "from", stop, listen) {
            Ok(()) => {}
            Err(Failed::Stopped(error)) => return Err(error),
            Err(Failed::Step(back)) => {
                audit::append(host, who, "upgrade.rollback", &transaction.title(), "failed", &back.to_string())?;
                return Err(RunError::Back { reason: transaction.reason, back });
            }
        }
    } else if transaction.direction == Direction::Undo {
        return Err(RunError::State(format!("the snapshot {snapshot} is not there")));
    }
    audit::append(host, who, "upgrade.rollback", &transaction.title(), "done", &transaction.reason)?;
    if transaction.direction == Direction::Undo {
        host.remove(PREVIOUS.into())?;
        disarm(host)?;
        return Ok(Ended::Undone);
    }
    disarm(host)?;
    Ok(Ended::WentBack { reason: transaction.reason, refused })
}

/// The record says the new release already; what is left is to remember how to undo it.
fn commit(host: &dyn Host, transaction: &Transaction, who: &str) -> Result<Ended, RunError> {
    transaction.write(host, PREVIOUS)?;
    let detail = format!("signed by {}", transaction.signer);
    audit::append(host, who, "upgrade.commit", &transaction.title(), "done", &detail)?;
    disarm(host)?;
    Ok(Ended::Committed)
}

enum Failed {
    /// A step failed: the other plan leads out.
    Step(EngineError),
    /// Nothing more can be done now.
    Stopped(RunError),
}

fn run(
    host: &dyn Host,
    transaction: &Transaction,
    plan: &Plan,
    which: &str,
    stop: &Stop,
    listen: &mut Listener,
) -> Result<(), Failed> {
    let stopped = |error: HostError| Failed::Stopped(RunError::Host(error));
    let (config, index, bytes, signature) =
        release(host, transaction.snapshot, which, plan).map_err(Failed::Stopped)?;
    let engine = Engine {
        host,
        config: &config,
        plan,
        index: &index,
        signed_index: (&bytes, &signature),
        answers: &Unattended,
        stop,
    };
    engine.run(listen).map_err(|error| match error {
        EngineError::Step { source: StepError::Host(HostError::PowerLost), .. } => stopped(HostError::PowerLost),
        EngineError::Journal(_) | EngineError::Stopped { .. } | EngineError::Restarting { .. } => {
            Failed::Stopped(RunError::Stopped(error))
        }
        EngineError::Step { .. } => Failed::Step(error),
    })
}

type Release = (InstallConfig, Index, Vec<u8>, Vec<u8>);

/// Answers and index of one end of the transaction; the index must be the one that the plan names.
fn release(host: &dyn Host, number: u64, which: &str, plan: &Plan) -> Result<Release, RunError> {
    let read = |path: &Utf8Path| -> Result<Vec<u8>, RunError> {
        let bytes = host.read(path)?;
        bytes.map(|bytes| bytes.to_vec()).ok_or_else(|| RunError::State(format!("there is no file {path}")))
    };
    let path = Utf8Path::new(FOLDER).join(format!("{number}.{which}.json"));
    let bytes = read(&path)?;
    if Digest::sha256_of(&bytes).to_string() != plan.index {
        return Err(RunError::State(format!("{path} is not the index that the plan was made for")));
    }
    let signature = read(Utf8Path::new(&format!("{path}.minisig")))?;
    let index = serde_json::from_slice(&bytes).map_err(|error| RunError::State(format!("{path}: {error}")))?;
    let answers = host.read_text(layout::CONFIG.into())?.unwrap_or_default();
    let config = config::parse(&answers).map_err(|error| RunError::State(format!("{}: {error}", layout::CONFIG)))?;
    Ok((config, index, bytes, signature))
}
