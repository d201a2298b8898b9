//! `cofferdam upgrade plan | apply | rollback | history` and `cofferdam audit show | verify`.

use std::fs::{File, OpenOptions};
use std::io::IsTerminal as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use bundle::oci::Digest;
use bundle::question::Value;
use bundle::read::Head;
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use serde_json::json;

use super::bundle::failure as bundle_failure;
use super::{Failure, Outcome, code, print, print_json, say};
use crate::check::{Finding, Outcome as Checked};
use crate::config::{self, Answers};
use crate::engine::{EngineError, Stop};
use crate::headless::{Console, megabytes};
use crate::host::real::RealHost;
use crate::host::{Host, HostExt};
use crate::ui::run::signals::Signals;
use crate::upgrade::UpgradePlan;
use crate::upgrade::answers::{self, AnswerChange};
use crate::upgrade::plan::Incoming;
use crate::upgrade::run::{self, Ended, RunError};
use crate::upgrade::site::{self, Site, SiteError};
use crate::upgrade::transaction::Transaction;
use crate::upgrade::{AUDIT, CURRENT, PREVIOUS, audit, findings};

#[derive(Debug, Subcommand)]
pub(super) enum Upgrade {
    /// Show what an upgrade would do and whether it may be done; changes nothing
    #[command(after_help = "Example: cofferdam upgrade plan /media/cofferdam-1.1.0.tar.zst --json")]
    Plan {
        /// The bundle
        bundle: Utf8PathBuf,
        /// Answers to the questions of its packs: YAML, PACK, NAME, value
        #[arg(long, value_name = "FILE")]
        answers: Option<Utf8PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Upgrade the site; goes back by itself when a gate fails
    #[command(after_help = "Example: cofferdam upgrade apply /media/cofferdam-1.1.0.tar.zst\n\n\
        Exit codes: 0 upgraded, 3 the site is not fit, 4 the bundle was refused, 5 not ended (cofferdam resume), \
        7 a step failed and the site is as it was before")]
    Apply {
        /// The bundle
        bundle: Utf8PathBuf,
        /// Answers to the questions of its packs: YAML, PACK, NAME, value; they go before the stored ones
        #[arg(long, value_name = "FILE")]
        answers: Option<Utf8PathBuf>,
        /// Events as JSON lines into a file
        #[arg(long)]
        events: Option<Utf8PathBuf>,
    },
    /// Undo the last upgrade
    Rollback {
        /// Events as JSON lines into a file
        #[arg(long)]
        events: Option<Utf8PathBuf>,
    },
    /// What was upgraded, by whom, from what, and how it ended
    History {
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Print the audit log
    Show(Show),
    /// Check that no record was changed, added or taken out
    Verify {
        /// The head of an earlier verification, noted elsewhere: also records cut off at the end are found
        #[arg(long)]
        head: Option<String>,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[arg(long)]
    json: bool,
}

impl Upgrade {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Plan { bundle, answers, json } => plan(&bundle, answers.as_deref(), json),
            Self::Apply { bundle, answers, events } => apply(&bundle, answers.as_deref(), events.as_deref()),
            Self::Rollback { events } => rollback(events.as_deref()),
            Self::History { json } => history(json),
        }
    }
}

impl Audit {
    pub(super) fn run(self) -> Outcome {
        let host = RealHost;
        match self {
            Self::Show(Show { json }) => {
                let records = audit::records(&host).map_err(Failure::unexpected)?;
                if json { print_json(&records) } else { print(&records.iter().map(line).collect::<String>()) }
            }
            Self::Verify { head, json } => {
                let text = host.read_text(AUDIT.into()).map_err(Failure::unexpected)?;
                let verdict = audit::verify(text.as_ref().map_or("", |text| text.as_str()), head.as_deref());
                if json {
                    print_json(&verdict)?;
                } else {
                    print(&format!(
                        "{} records, {} torn lines, head {}\n",
                        verdict.records, verdict.torn, verdict.head
                    ))?;
                }
                if verdict.problems.is_empty() {
                    return Ok(());
                }
                let problems =
                    verdict.problems.iter().fold(String::new(), |text, problem| format!("{text}\n  {problem}"));
                let hint = "somebody changed the log; compare it with a copy".to_owned();
                Err(Failure::new(
                    code::UNEXPECTED,
                    format!("the audit log {AUDIT} is not whole:{problems}"),
                    Some(hint),
                ))
            }
        }
    }
}

fn line(record: &audit::Record) -> String {
    let audit::Record { time, who, action, subject, result, detail, .. } = record;
    let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
    format!("{time:.0}  {who:<10} {action:<17} {result:<7} {subject}{detail}\n")
}

/// A bundle whose head was verified with the keys that the site trusts.
struct Opened {
    reader: bundle::read::Reader<File>,
    digest: String,
    signer: String,
    bytes: u64,
    path: Utf8PathBuf,
    /// Given for this upgrade.
    answers: Answers,
}

impl Opened {
    fn new(host: &dyn Host, path: &Utf8Path, answers: Option<&Utf8Path>) -> Result<Self, Failure> {
        let answers = answers.map(read_answers).transpose()?.unwrap_or_default();
        let keys = Site::trust(host).map_err(|error| site_failure(&error))?;
        let trust = site::trusted_keys(&keys).map_err(Failure::unexpected)?;
        let missing = |error| {
            let hint = "is the medium there?".to_owned();
            Failure::new(code::CONFIG, format!("cannot open {path}: {error}"), Some(hint))
        };
        let file = File::open(path).map_err(missing)?;
        let bytes = file.metadata().map_err(Failure::unexpected)?.size();
        let reader = Head::read(file).and_then(|head| head.verify(&trust)).map_err(|error| bundle_failure(&error))?;
        // A transaction outlives the working directory.
        let path = path.canonicalize_utf8().map_err(Failure::unexpected)?;
        Ok(Self {
            digest: Digest::sha256_of(reader.index_bytes()).to_string(),
            signer: reader.key_id().to_string(),
            reader,
            bytes,
            path,
            answers,
        })
    }

    fn incoming(&self) -> Incoming<'_> {
        Incoming {
            index: self.reader.index(),
            digest: &self.digest,
            path: &self.path,
            bytes: self.bytes,
            signer: &self.signer,
            answers: &self.answers,
        }
    }

    /// Asks on the terminal what nobody has answered.
    fn ask(&mut self, plan: &UpgradePlan) -> Outcome {
        let open = answers::open(&plan.answers, self.reader.index());
        let (mut input, mut output) = (std::io::stdin().lock(), std::io::stderr());
        let typed = answers::ask(&open, &mut input, &mut output).map_err(Failure::unexpected)?;
        let typed = typed.ok_or_else(|| {
            let hint = "nothing was changed; `--answers FILE` answers without a question".to_owned();
            Failure::new(code::CANCELLED, "the upgrade was not begun", Some(hint))
        })?;
        self.answers = answers::joined(&self.answers, typed);
        Ok(())
    }

    fn plan(&self, host: &dyn Host) -> Result<(Site, UpgradePlan), Failure> {
        let slowness = crate::facts::slowness(host);
        let site = Site::survey(host, self.reader.index(), slowness).map_err(|error| site_failure(&error))?;
        let plan = crate::upgrade::plan::plan(&site, &self.incoming())
            .map_err(|error| Failure::new(code::BUNDLE, &error, Some(error.hint().to_owned())))?;
        Ok((site, plan))
    }
}

/// A file of answers; by which questions they are judged, the plan knows.
fn read_answers(path: &Utf8Path) -> Result<Answers, Failure> {
    let failed = |why: String, hint: &str| {
        Failure::new(code::CONFIG, format!("the answers {path} cannot be read: {why}"), Some(hint.to_owned()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        failed(error.to_string(), "`cofferdam upgrade plan` shows what is asked, and the file's form")
    })?;
    config::answers::parse(&text).map_err(|why| failed(why, "it is YAML: PACK, below it NAME: value"))
}

fn site_failure(error: &SiteError) -> Failure {
    let hint = match error {
        SiteError::None => "`cofferdam install --config install.yaml` installs one",
        SiteError::Damaged { .. } => "`cofferdam status` and the audit log tell what was done to this site",
    };
    Failure::new(code::PREFLIGHT, error, Some(hint.to_owned()))
}

fn plan(bundle: &Utf8Path, answers: Option<&Utf8Path>, as_json: bool) -> Outcome {
    let host = RealHost;
    let (_, plan) = Opened::new(&host, bundle, answers)?.plan(&host)?;
    if as_json {
        print_json(&plan)?;
    } else {
        print(&text(&plan))?;
    }
    refuse(&plan)
}

/// Fails with 4 when the bundle is wrong for this site, with 3 when the site is not fit for it.
fn refuse(plan: &UpgradePlan) -> Outcome {
    let blocking = plan.blocking();
    if blocking.is_empty() {
        return Ok(());
    }
    let is_bundle = blocking.iter().any(|finding| findings::OF_THE_BUNDLE.contains(&finding.id.as_str()));
    let list = blocking.iter().fold(String::new(), |text, finding| {
        let hint = finding.hint.as_deref().map(|hint| format!("\n    hint: {hint}")).unwrap_or_default();
        format!("{text}\n  {}: {}{hint}", finding.id, finding.measured)
    });
    let (code, what) = if is_bundle {
        (code::BUNDLE, "this bundle cannot be installed on this site")
    } else {
        (code::PREFLIGHT, "this site is not fit for the upgrade")
    };
    Err(Failure::new(code, format!("{what}:{list}"), Some("nothing was changed".to_owned())))
}

fn text(plan: &UpgradePlan) -> String {
    let mut text = format!(
        "Upgrade of site {}: {} {} -> {} (signed by {})\n",
        plan.plan.site, plan.from.bundle, plan.from.version, plan.to.version, plan.signer
    );
    let way = std::iter::once(plan.from.kubernetes.as_str()).chain(plan.hops.iter().map(String::as_str));
    text.push_str(&format!("Kubernetes: {}\n\nChecks\n", way.collect::<Vec<_>>().join(" -> ")));
    for finding in &plan.findings {
        text.push_str(&finding_line(finding));
    }
    text.push_str("\nSpace at the peak\n");
    for need in &plan.space {
        text.push_str(&format!(
            "  {}: {} of {} free\n",
            need.filesystem,
            megabytes(need.needed),
            megabytes(need.available)
        ));
    }
    text.push_str("\nPacks\n");
    for pack in &plan.packs {
        let (from, to) = (pack.from.as_deref().unwrap_or("(new)"), pack.to.as_deref().unwrap_or("(goes)"));
        text.push_str(&format!("  {} {from} -> {to}\n", pack.name));
        for migration in &pack.migrations {
            let undo =
                if pack.irreversible.contains(migration) { "undone by etcd's snapshot only" } else { "can be undone" };
            text.push_str(&format!("    migration {migration} ({undo})\n"));
        }
    }
    text.push_str("\nConfiguration that changes\n");
    plan.answers.iter().for_each(|change| text.push_str(&answer_line(change)));
    for file in &plan.differences {
        text.push_str(&format!("  {} ({})\n", file.path, file.change));
        file.lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
    }
    text.push_str("\nSteps\n");
    for (number, step) in plan.plan.steps.iter().enumerate() {
        text.push_str(&format!("  {:>2}. {:<32} {}\n", number + 1, step.id, step.title));
        for cost in plan.downtime.iter().filter(|cost| cost.step == step.id) {
            text.push_str(&format!(
                "      expected: API {} s, workloads {} s; {}\n",
                cost.api_seconds, cost.workload_seconds, cost.what
            ));
        }
    }
    text
}

/// `  answers.hello.replicas (changed): 1 -> 3`, and what it asks below it.
fn answer_line(change: &AnswerChange) -> String {
    let AnswerChange { pack, name, text, change: word, before, after, by_default } = change;
    let shown = |value: &Option<Value>, none: &str| value.as_ref().map_or_else(|| none.to_owned(), Value::to_string);
    let values = match word.as_str() {
        "added" => shown(after, "(not answered)"),
        "removed" => format!("{}, not asked any more", shown(before, "(not answered)")),
        _ => format!("{} -> {}", shown(before, "(not answered)"), shown(after, "(not answered)")),
    };
    let default = if *by_default { " (default)" } else { "" };
    format!("  answers.{pack}.{name} ({word}): {values}{default}\n    {text}\n")
}

fn finding_line(finding: &Finding) -> String {
    let mark = match finding.outcome {
        Checked::Pass => "ok  ",
        Checked::Warn => "warn",
        Checked::Fail => "FAIL",
        Checked::Unknown => "?   ",
    };
    let hint = finding.hint.as_deref().map(|hint| format!("        hint: {hint}\n")).unwrap_or_default();
    format!("  {mark} {:<24} {}\n{hint}", finding.id, finding.measured)
}

fn require_root() -> Outcome {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let hint = "run it with sudo; `cofferdam upgrade plan` only looks".to_owned();
    Err(Failure::new(code::PREFLIGHT, "an upgrade needs to be root", Some(hint)))
}

/// One run at a time: held until it is dropped.
fn lock() -> Result<File, Failure> {
    let path = "/run/cofferdam-upgrade.lock";
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Failure::unexpected(format!("cannot open {path}: {error}")))?;
    file.try_lock().map_err(|_| {
        let hint = "wait for it; `cofferdam upgrade history` shows how it ended".to_owned();
        Failure::new(code::PREFLIGHT, "another run of an upgrade is going on", Some(hint))
    })?;
    Ok(file)
}

fn apply(bundle: &Utf8Path, answers: Option<&Utf8Path>, events: Option<&Utf8Path>) -> Outcome {
    require_root()?;
    let _lock = lock()?;
    let host = RealHost;
    let mut opened = Opened::new(&host, bundle, answers)?;
    let (mut site, mut plan) = opened.plan(&host)?;
    if std::io::stdin().is_terminal() && plan.lacks_answers_only() {
        opened.ask(&plan)?;
        (site, plan) = opened.plan(&host)?;
    }
    say(&text(&plan));
    refuse(&plan)?;
    let signed = (opened.reader.index_bytes(), opened.reader.signature());
    let transaction = run::begin(&host, &plan, &opened.incoming(), signed, site.sequence, &audit::who())
        .map_err(Failure::unexpected)?;
    go_on(&host, transaction, events)
}

fn rollback(events: Option<&Utf8Path>) -> Outcome {
    require_root()?;
    let _lock = lock()?;
    let host = RealHost;
    if let Some(current) = Transaction::read(&host, CURRENT).map_err(Failure::unexpected)? {
        let hint = "`cofferdam resume` ends it".to_owned();
        return Err(Failure::new(code::PREFLIGHT, format!("an upgrade is going on: {}", current.title()), Some(hint)));
    }
    let transaction = run::begin_undo(&host, &audit::who()).map_err(Failure::unexpected)?.ok_or_else(|| {
        let hint =
            "only the last committed upgrade can be undone, once; `cofferdam upgrade history` shows it".to_owned();
        Failure::new(code::PREFLIGHT, "there is no upgrade that could be undone", Some(hint))
    })?;
    go_on(&host, transaction, events)
}

/// Whether `resume` ended an upgrade; `None` when none was going on.
pub(super) fn resume(events: Option<&Utf8Path>) -> Option<Outcome> {
    let host = RealHost;
    match Transaction::read(&host, CURRENT) {
        Ok(None) => None,
        Ok(Some(transaction)) => Some(lock().and_then(|_lock| {
            say(&format!("going on with the upgrade {}", transaction.title()));
            go_on(&host, transaction, events)
        })),
        Err(error) => Some(Err(Failure::unexpected(error))),
    }
}

fn go_on(host: &dyn Host, transaction: Transaction, events: Option<&Utf8Path>) -> Outcome {
    let events = events.map(|path| {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| Failure::new(code::CONFIG, format!("cannot write events to {path}: {error}"), None))
    });
    let mut console = Console::new(events.transpose()?).saying("Changing the release of", "is done");
    let (from, to) = (transaction.from.clone(), transaction.to.clone());
    let stop = Stop::default();
    Signals::stop_a_run(&stop).map_err(Failure::unexpected)?;
    let ended = run::go_on(host, transaction, &audit::who(), &stop, &mut |event| console.hear(event));
    match ended {
        Ok(Ended::Committed) => print(&format!(
            "\nThe site runs {to} now. `cofferdam upgrade rollback` goes back to {from} until the next upgrade.\n"
        )),
        Ok(Ended::Undone) => print(&format!("\nThe site runs {from} again.\n")),
        Ok(Ended::WentBack { reason, refused }) => {
            let code = if refused { code::BUNDLE } else { code::WENT_BACK };
            let hint =
                format!("the site runs {from} as before; `cofferdam upgrade history` and the journal have the details");
            Err(Failure::new(code, format!("the upgrade to {to} failed and was undone: {reason}"), Some(hint)))
        }
        Err(error) => {
            let code = match error {
                RunError::State(_) => code::UNEXPECTED,
                RunError::Stopped(EngineError::Stopped { .. } | EngineError::Restarting { .. }) => code::CANCELLED,
                _ => code::STEP,
            };
            Err(Failure::new(code, &error, Some(error.hint())))
        }
    }
}

fn history(as_json: bool) -> Outcome {
    let host = RealHost;
    let mut records = audit::records(&host).map_err(Failure::unexpected)?;
    records.retain(|record| record.action.starts_with("upgrade."));
    let can_go_back = Transaction::read(&host, PREVIOUS).map_err(Failure::unexpected)?.map(|last| last.from);
    let current = Transaction::read(&host, CURRENT).map_err(Failure::unexpected)?.map(|current| current.title());
    if as_json {
        return print_json(&json!({
            "schema-version": 1, "records": records, "going-on": current, "rollback-to": can_go_back,
        }));
    }
    let mut text: String = records.iter().map(line).collect();
    if records.is_empty() {
        text.push_str("this site was never upgraded\n");
    }
    if let Some(title) = current {
        text.push_str(&format!("going on: {title} (`cofferdam resume` ends it)\n"));
    }
    if let Some(release) = can_go_back {
        text.push_str(&format!("`cofferdam upgrade rollback` goes back to {release}\n"));
    }
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::{AnswerChange, Value, answer_line};

    #[test]
    fn what_changes_is_told_in_words() {
        let line = |change: &str, before: Option<i64>, after: Option<i64>, by_default| {
            let text = answer_line(&AnswerChange {
                pack: "hello".to_owned(),
                name: "replicas".to_owned(),
                text: "How many".to_owned(),
                change: change.to_owned(),
                before: before.map(Value::Integer),
                after: after.map(Value::Integer),
                by_default,
            });
            text.lines().next().unwrap_or_default().trim().to_owned()
        };
        for (found, expected) in [
            (line("added", None, Some(2), true), "answers.hello.replicas (added): 2 (default)"),
            (line("added", None, None, false), "answers.hello.replicas (added): (not answered)"),
            (line("changed", Some(1), Some(3), false), "answers.hello.replicas (changed): 1 -> 3"),
            (line("removed", Some(1), None, false), "answers.hello.replicas (removed): 1, not asked any more"),
        ] {
            assert_eq!(found, expected);
        }
    }
}
