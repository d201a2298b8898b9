//! The engine in a thread of its own. Events come over one channel; a question and its answer go over two others, so that
//! a secret is never among the events.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::InstallConfig;
use crate::engine::event::Event;
use crate::engine::question::{Answer, Answers, Question, RecoveryKeyShown};
use crate::engine::{Engine, EngineError, Stop};
use crate::host::Host;
use crate::plan::Plan;
use crate::prepare::Signed;

/// A host that the engine's thread, the support bundle and the dashboard share.
pub type SharedHost = Arc<dyn Host + Send + Sync>;

/// What is run.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) config: InstallConfig,
    pub(super) plan: Plan,
    pub(super) signed: Signed,
}

/// A run in work.
pub(super) struct Worker {
    events: Receiver<(Timestamp, Event)>,
    questions: Receiver<RecoveryKeyShown>,
    answers: Sender<Answer>,
    stop: Stop,
    thread: Option<JoinHandle<Result<(), EngineError>>>,
}

impl Worker {
    /// Begins to run the job.
    pub(super) fn start(host: SharedHost, job: Arc<Job>) -> Self {
        let (event_sender, events) = mpsc::channel();
        let (question_sender, questions) = mpsc::channel();
        let (answers, answer_receiver) = mpsc::channel();
        let stop = Stop::default();
        let wish = stop.clone();
        let thread = std::thread::spawn(move || {
            let screen = Screen { questions: question_sender, answers: Mutex::new(answer_receiver) };
            let engine = Engine {
                host: &*host,
                config: &job.config,
                plan: &job.plan,
                index: &job.signed.index,
                signed_index: (&job.signed.index_bytes, &job.signed.signature),
                answers: &screen,
                stop: &wish,
            };
            engine.run(&mut |event| {
                // Nobody watches any more: the installation goes on all the same.
                let _ = event_sender.send((host.now(), event.clone()));
            })
        });
        Self { events, questions, answers, stop, thread: Some(thread) }
    }

    /// What the engine said since the last look.
    pub(super) fn events(&self) -> impl Iterator<Item = (Timestamp, Event)> + '_ {
        self.events.try_iter()
    }

    /// The question that waits for an answer, once.
    pub(super) fn question(&self) -> Option<RecoveryKeyShown> {
        self.questions.try_recv().ok()
    }

    /// Answers the question.
    pub(super) fn answer(&self, answer: Answer) {
        // The engine is gone only when its thread panicked, which `result` tells.
        let _ = self.answers.send(answer);
    }

    /// Stops before the next step.
    pub(super) fn stop(&self) {
        self.stop.request();
    }

    /// Whether the engine is at work.
    pub(super) fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// How it ended, once; `None` while it is at work. A thread that panicked gives `Err(None)`.
    pub(super) fn result(&mut self) -> Option<Result<(), Option<EngineError>>> {
        if self.is_running() {
            return None;
        }
        let ended = self.thread.take()?.join();
        Some(ended.map_err(|_| None).and_then(|result| result.map_err(Some)))
    }

    /// Nobody is at the screen any more: questions are answered so, and this returns when the engine has ended. `watch`
    /// is called now and then, and may stop the run.
    pub(super) fn finish_alone(&mut self, mut watch: impl FnMut(&Self)) {
        while self.is_running() {
            watch(self);
            match self.questions.recv_timeout(Duration::from_millis(200)) {
                Ok(_) => self.answer(Answer::Nobody),
                Err(RecvTimeoutError::Timeout) => {}
                // The engine has dropped its end: it is about to return.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// Asks whoever is at the screen.
struct Screen {
    questions: Sender<RecoveryKeyShown>,
    answers: Mutex<Receiver<Answer>>,
}

impl Answers for Screen {
    fn ask(&self, question: Question) -> Answer {
        let Question::RecoveryKey(shown) = question;
        if self.questions.send(shown).is_err() {
            return Answer::Nobody;
        }
        // One engine asks one question at a time; a poisoned lock holds the receiver all the same.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).recv().unwrap_or(Answer::Nobody)
    }
}
