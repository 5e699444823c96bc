//! Health checks: who is asked, by which way, and what is told of the answers.
//!
//! When somebody is due, and what an answer means, is decided in [`allcores_core::health`]; what is done about an
//! unhealthy worker, by the pool. Here is what lies between.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use allcores_core::health::{Checks, Finding};
use allcores_core::pool::Input;
use allcores_core::worker::{State, WorkerId};
use rustix::process::{Pid, Signal};
use tokio::sync::oneshot;

use super::{Engine, exits};
use crate::ports::{LaneId, Passage, Reach};
use crate::primary::probe::{self, Failing, Question};
use crate::primary::worker::Seen;
use crate::primary::{Event, HealthCheck, HealthSnapshot, Upkeep};
use crate::sys::Watch;

/// How many are asked at a time; others wait their turn. Each one's way is a part of a program of the kernel's.
const AT_ONCE: usize = 16;

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::primary) enum Subject {
    Worker(WorkerId),
    /// Whoever accepts: all workers have the same listener, so none of them can be named.
    App,
}

/// What is known of everybody's health.
#[derive(Debug)]
pub(super) struct Care {
    pub(super) checks: Checks<Subject>,
    pub(super) under_way: usize,
    /// Nobody is asked for now.
    pub(super) is_paused: bool,
    /// Why the last check of those failed that did.
    pub(super) reasons: BTreeMap<Subject, String>,
    /// Commands that run, by their process.
    exams: BTreeMap<u32, Exam>,
    /// Who waits for a worker's word that it took a connection, by the number of the message.
    pub(super) handed: BTreeMap<(WorkerId, u64), oneshot::Sender<bool>>,
    /// It was said that the app is asked in place of its workers, or that nobody can be.
    pub(super) is_told: bool,
}

#[derive(Debug)]
struct Exam {
    subject: Subject,
    pidfd: OwnedFd,
    /// It has had its time, and was killed; its exit is still to come.
    is_late: bool,
}

impl Care {
    pub(super) fn new(upkeep: &Upkeep) -> Self {
        let settings = upkeep.health.as_ref().map(|health| health.settings).unwrap_or_default();
        Self {
            checks: Checks::new(settings),
            under_way: 0,
            is_paused: false,
            reasons: BTreeMap::new(),
            exams: BTreeMap::new(),
            handed: BTreeMap::new(),
            is_told: false,
        }
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        self.checks.next_due().filter(|_| self.under_way < AT_ONCE && !self.is_paused)
    }

    /// Whether a process is a command of ours, whose exit we wait for.
    pub(super) fn is_exam(&self, pid: u32) -> bool {
        self.exams.contains_key(&pid)
    }

    pub(super) fn picture(&self, subject: Subject) -> Option<HealthSnapshot> {
        let failures = self.checks.failures(subject)?;
        Some(HealthSnapshot { failures, reason: self.reasons.get(&subject).cloned() })
    }

    /// Forgets a worker that is gone.
    pub(super) fn forget(&mut self, id: WorkerId) {
        self.checks.end(Subject::Worker(id));
        self.reasons.remove(&Subject::Worker(id));
        self.handed.extract_if((id, 0)..=(id, u64::MAX), |_, _| true).for_each(drop);
    }
}

impl Engine {
    /// Asks a worker how it is from now on: it listens, or was given sockets that it may accept from.
    pub(super) fn begin_checks(&mut self, id: WorkerId) {
        let Some(health) = &self.settings.upkeep.health else { return };
        let is_command = matches!(health.check, HealthCheck::Exec { .. });
        let now = self.now();
        match self.ports.reach(id) {
            Some(Reach::Own(_) | Reach::Handed(_)) => self.care.checks.begin(Subject::Worker(id), now),
            _ if is_command => self.care.checks.begin(Subject::Worker(id), now),
            Some(Reach::Shared(_)) => {
                self.care.checks.begin(Subject::App, now);
                self.say_once_of_checks(
                    "all workers accept from one listener here, so health checks ask the app and not a worker: what \
                     fails is told, and nobody is replaced for it",
                );
                self.tell(Input::Healthy { id });
            }
            None => {
                self.say_once_of_checks(
                    "there is no listener here that a health check could connect to; `--health-exec` works for any \
                     program",
                );
                self.tell(Input::Healthy { id });
            }
        }
    }

    fn say_once_of_checks(&mut self, text: &str) {
        if !std::mem::replace(&mut self.care.is_told, true) {
            (self.observe)(Event::Notice { text });
        }
    }

    /// Asks those who are due.
    pub(super) fn look_at_health(&mut self) {
        let now = self.now();
        while self.care.next_due().is_some_and(|due| due <= now) {
            let Some(subject) = self.care.checks.take_due(now) else { return };
            self.check(subject);
        }
    }

    fn check(&mut self, subject: Subject) {
        let is_worth_it = match subject {
            Subject::Worker(id) => self.state_of(id).is_some_and(|state| state != State::Draining),
            Subject::App => !self.pool.is_stopping(),
        };
        let Some(health) = self.settings.upkeep.health.clone().filter(|_| is_worth_it) else {
            self.care.checks.end(subject);
            return;
        };
        let begun = match &health.check {
            HealthCheck::Exec { command } => self.examine(subject, command, health.timeout),
            check => self.ask(subject, check, health.timeout),
        };
        match begun {
            Ok(true) => self.care.under_way += 1,
            Ok(false) => self.care.checks.skip(subject, self.started.elapsed()),
            Err(error) => self.judge(subject, &Err(Failing::new(format!("asking it: {error}")))),
        }
    }

    /// Begins to ask over a connection; false if there is no way at present.
    fn ask(&mut self, subject: Subject, check: &HealthCheck, limit: Duration) -> io::Result<bool> {
        let Some(lane) = self.way_to(subject) else { return Ok(false) };
        let Passage { socket, address, from, handed } =
            self.ports.open_passage(lane, *check == HealthCheck::Tcp)?;
        let mut taken = None;
        if let (Some(connection), Subject::Worker(id)) = (handed, subject) {
            taken = self.hand_question(id, lane, connection);
            if taken.is_none() {
                return Ok(false);
            }
        }
        let (seen, check) = (self.seen.clone(), check.clone());
        tokio::spawn(async move {
            let reached = async {
                if let Some(from) = from {
                    let _ = seen.send(Seen::Reached(from)).await;
                }
            };
            let question = Question { socket, host: address, check, limit, taken };
            let (result, rest) = probe::ask(question, reached).await;
            let _ = seen.send(Seen::Answered(subject, from, result)).await;
            if let Some(rest) = rest {
                probe::finish(rest).await;
            }
        });
        Ok(true)
    }

    fn way_to(&self, subject: Subject) -> Option<LaneId> {
        match subject {
            Subject::Worker(id) => match self.ports.reach(id)? {
                Reach::Own(lane) | Reach::Handed(lane) => Some(lane),
                Reach::Shared(_) => None,
            },
            Subject::App => self.workers.keys().find_map(|id| match self.ports.reach(*id)? {
                Reach::Shared(lane) => Some(lane),
                Reach::Own(_) | Reach::Handed(_) => None,
            }),
        }
    }

    /// Hands a worker its end of a connection, and returns where its word about it will come.
    pub(super) fn hand_question(
        &mut self,
        id: WorkerId,
        lane: LaneId,
        connection: OwnedFd,
    ) -> Option<oneshot::Receiver<bool>> {
        let number = self.workers.get_mut(&id)?.hand_over(lane, Arc::new(connection))?;
        let (sender, receiver) = oneshot::channel();
        self.care.handed.insert((id, number), sender);
        Some(receiver)
    }

    /// A worker's word about a connection: false if that was none of these.
    pub(super) fn take_word(&mut self, id: WorkerId, number: u64, is_accepted: bool) -> bool {
        let waiting = self.care.handed.remove(&(id, number));
        waiting.map(|waiting| waiting.send(is_accepted)).is_some()
    }

    /// A connection that was made to ask is there.
    pub(super) fn take_reached(&mut self, from: SocketAddr) {
        self.ports.note_connected(from);
    }

    /// Somebody was asked.
    pub(super) fn take_answer(
        &mut self,
        subject: Subject,
        from: Option<SocketAddr>,
        result: &Result<(), Failing>,
    ) {
        let is_sure = from.is_none_or(|from| self.ports.close_passage(from));
        self.care.under_way = self.care.under_way.saturating_sub(1);
        match subject {
            // Its replacement may have answered in its stead.
            Subject::Worker(_) if !is_sure => self.care.checks.skip(subject, self.started.elapsed()),
            _ => self.judge(subject, result),
        }
    }

    fn judge(&mut self, subject: Subject, result: &Result<(), Failing>) {
        let now = self.now();
        let finding = self.care.checks.tell(subject, Failing::outcome(result), now);
        if self.care.checks.failures(subject).is_none() {
            // It is gone.
            return;
        }
        match (result, subject) {
            (Ok(()), Subject::Worker(id)) => {
                self.care.reasons.remove(&subject);
                self.note_service(id);
            }
            (Ok(()), Subject::App) => drop(self.care.reasons.remove(&subject)),
            (Err(failing), _) => drop(self.care.reasons.insert(subject, failing.reason.clone())),
        }
        match (finding, subject) {
            (None, _) => {}
            (Some(Finding::Healthy), Subject::Worker(id)) => self.told_healthy(id),
            (Some(Finding::Unhealthy { is_silent, .. }), Subject::Worker(id)) => {
                self.tell(Input::Unhealthy { id, is_silent });
            }
            (Some(finding), Subject::App) => self.report_app(finding),
        }
    }

    /// One that was given its sockets need not call `listen`: that it answers shows that it serves.
    fn note_service(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        if worker.announced.is_empty() {
            for lane in worker.lanes.keys().copied().collect::<Vec<_>>() {
                self.listens(id, lane);
            }
        }
    }

    /// Whether its checks say that a worker is unhealthy, or its heart does.
    pub(super) fn is_unwell(&self, id: WorkerId) -> bool {
        self.care.checks.is_unhealthy(Subject::Worker(id)) || self.hearts.is_late(id)
    }

    /// One of what speaks for a worker's health does so again. It has to be all.
    pub(super) fn told_healthy(&mut self, id: WorkerId) {
        if !self.is_unwell(id) {
            self.tell(Input::Healthy { id });
        }
    }

    fn report_app(&mut self, finding: Finding) {
        let text = match finding {
            Finding::Healthy => "the app passes its health checks".to_owned(),
            Finding::Unhealthy { failures, .. } => {
                let reason = self.care.reasons.get(&Subject::App).cloned().unwrap_or_default();
                format!("the app has failed {failures} health checks in a row: {reason}")
            }
        };
        (self.observe)(Event::Notice { text: &text });
    }

    /// Why a worker's last check failed, if it did.
    pub(super) fn reason_of(&self, id: WorkerId) -> Option<&str> {
        self.care.reasons.get(&Subject::Worker(id)).map(String::as_str)
    }

    /// Why a worker is unhealthy, in words.
    pub(super) fn complaint(&self, id: WorkerId) -> String {
        let subject = Subject::Worker(id);
        match (self.care.reasons.get(&subject), self.care.checks.failures(subject)) {
            (Some(reason), Some(failures)) if self.care.checks.is_unhealthy(subject) => {
                format!("{failures} health checks in a row failed, the last: {reason}")
            }
            _ => self.hearts.complaint(id),
        }
    }

    /// Runs a command about a worker; it has its own session, and our signals reach all of it.
    fn examine(&mut self, subject: Subject, command: &std::ffi::OsStr, limit: Duration) -> io::Result<bool> {
        let Subject::Worker(id) = subject else { return Ok(false) };
        let Some(worker) = self.workers.get(&id) else { return Ok(false) };
        let (about, generation) = (worker.about, worker.generation);
        let address = self.ports.lanes_of(id).next().map(|(address, _)| address);
        let Some(launcher) = self.generations.of(generation) else { return Ok(false) };
        let process = launcher.examine(about, address.as_deref(), command)?;
        let pid = process.pid;
        let end = match process.pidfd.try_clone().and_then(Watch::readable) {
            Ok(end) => end,
            Err(error) => {
                exits::bury(process.pidfd);
                return Err(error);
            }
        };
        self.care.exams.insert(pid, Exam { subject, pidfd: process.pidfd, is_late: false });
        let seen = self.seen.clone();
        tokio::spawn(async move {
            if tokio::time::timeout(limit, end.wait_readable()).await.is_err() {
                let _ = seen.send(Seen::Examined(pid, false)).await;
                let _ = end.wait_readable().await;
            }
            let _ = seen.send(Seen::Examined(pid, true)).await;
        });
        Ok(true)
    }

    /// Ends all commands, and takes their exits: nobody else would in a program of which we are a part.
    pub(super) async fn end_exams(&mut self) {
        let exams = std::mem::take(&mut self.care.exams);
        exams.keys().copied().for_each(kill_group);
        let all_gone = async {
            for exam in exams.into_values() {
                if let Ok(end) = Watch::readable(exam.pidfd) {
                    let _ = end.wait_readable().await;
                    exits::take_status(&end);
                }
            }
        };
        let _ = tokio::time::timeout(exits::BURIAL, all_gone).await;
    }

    /// A command has ended, or had its time.
    pub(super) fn take_exam(&mut self, pid: u32, is_over: bool) {
        let Some(exam) = self.care.exams.get_mut(&pid) else { return };
        let subject = exam.subject;
        kill_group(pid);
        let result = if is_over {
            let status = exits::take_status(&exam.pidfd);
            let was_late = exam.is_late;
            self.care.exams.remove(&pid);
            if was_late {
                // It was judged when its time was over.
                self.reap_orphans();
                return;
            }
            match status {
                status if status.is_success() => Ok(()),
                status => Err(Failing::new(format!("the command ended by {status}"))),
            }
        } else {
            exam.is_late = true;
            let limit = self.settings.upkeep.health.as_ref().map(|health| health.timeout).unwrap_or_default();
            Err(Failing::new(format!("the command took longer than {limit:?}")))
        };
        self.take_answer(subject, None, &result);
        self.reap_orphans();
    }
}

/// Kills a command with all that it has started. Its exit has not been taken, so the number can't be another's by now.
pub(super) fn kill_group(pid: u32) {
    if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}
