//! Becoming another program: waiting for a calm moment, asking the new program, and executing it.
//!
//! Nothing is torn down for it: what owns descriptors is called back, and goes on with the same ones where nothing comes
//! of it. See docs/adr/0011-an-upgrade-is-an-exec-in-place.md.

mod check;
mod freeze;
mod resume;
mod saved;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use allcores_core::worker::State;
use tokio::sync::mpsc;

use super::health::kill_group;
use super::{Engine, Sources, exits};
use crate::carry::{Manifest, seal};
use crate::primary::upgrade::{Answer, Document, VARIABLE};
use crate::primary::{Event, Program, Upgrade, UpgradeNews};
use crate::sys::exec;
use crate::sys::spawn::c_string;

use check::Check;
pub(in crate::primary) use check::Checked;
use freeze::Frozen;
pub(in crate::primary) use saved::EngineSaved;

/// What an engine needs to become another program.
pub(in crate::primary) struct Upgrades {
    /// The program around; `None` where there can be no upgrade.
    program: Option<Box<dyn Program + Send>>,
    /// The file that the primary was started from.
    executable: PathBuf,
    /// How many there were.
    pub(super) count: u32,
    /// The version of the program before, until it was told of.
    pub(super) before: Option<String>,
    stage: Stage,
}

/// ```text
///        ┌── calm ──→ Checking ──it can──→ Checked ──calm──→ the next program
/// Waiting             │ it can't           │ stop, or it can't be executed
///        └── stop ──→ None ←───────────────┘
/// ```
#[derive(Debug)]
enum Stage {
    None,
    /// For a calm moment, to ask the new program about.
    Waiting(Wish),
    Checking(Wish, Box<Asked>),
    /// It can go on. For a calm moment to execute it.
    Checked(Wish, Identity),
    /// Whoever goes on with it has it in hand.
    InHand,
}

/// An upgrade that was asked for.
#[derive(Debug)]
struct Wish {
    executable: PathBuf,
    patience: Duration,
    news: mpsc::UnboundedSender<UpgradeNews>,
    /// What it was last said to be waiting for.
    reason: Option<String>,
    /// The new program is being asked, or has been.
    is_asked: bool,
}

/// A program that is being asked, and about what.
#[derive(Debug)]
struct Asked {
    check: Check,
    document: Document,
    identity: Identity,
}

/// What tells a file from one that takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl std::fmt::Debug for Upgrades {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { executable, count, stage, .. } = self;
        f.debug_struct("Upgrades")
            .field("executable", executable)
            .field("count", count)
            .field("stage", stage)
            .finish_non_exhaustive()
    }
}

impl Default for Upgrades {
    fn default() -> Self {
        Self { program: None, executable: PathBuf::new(), count: 0, before: None, stage: Stage::None }
    }
}

impl Upgrades {
    /// Those of a primary that was upgraded.
    pub(in crate::primary) fn after(document: &Document) -> Self {
        let executable = PathBuf::from(std::ffi::OsString::from(document.executable.clone()));
        let before = Some(document.version.clone());
        Self { executable, count: document.upgrades, before, ..Self::default() }
    }

    /// Allows them. One that was upgraded keeps the file that it was upgraded to.
    pub(in crate::primary) fn allow(&mut self, executable: PathBuf, program: Box<dyn Program + Send>) {
        if self.count == 0 {
            self.executable = executable;
        }
        self.program = Some(program);
    }

    /// Whether a process is a program that is being asked, whose exit we wait for.
    pub(super) fn is_check(&self, pid: u32) -> bool {
        matches!(&self.stage, Stage::Checking(_, asked) if asked.check.pid == pid)
    }

    fn wish(&mut self) -> Option<&mut Wish> {
        match &mut self.stage {
            Stage::None | Stage::InHand => None,
            Stage::Waiting(wish) | Stage::Checking(wish, _) | Stage::Checked(wish, _) => Some(wish),
        }
    }
}

impl Wish {
    fn tell(&self, news: UpgradeNews) {
        // Who has gone away has asked for it all the same.
        let _ = self.news.send(news);
    }
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Engine {
    /// Takes a wish to become another program.
    pub(super) fn upgrade(&mut self, wish: Upgrade, news: mpsc::UnboundedSender<UpgradeNews>) {
        let refusal = if self.upgrades.program.is_none() {
            Some("this primary is a part of another program")
        } else if self.pool.is_stopping() {
            Some("the app is stopping")
        } else if !matches!(self.upgrades.stage, Stage::None) {
            Some("another upgrade is under way")
        } else {
            None
        };
        let executable = wish.executable.unwrap_or_else(|| self.upgrades.executable.clone());
        let wish = Wish { executable, patience: wish.check_patience, news, reason: None, is_asked: false };
        match refusal {
            Some(reason) => self.refuse_upgrade(&wish, reason),
            None => self.upgrades.stage = Stage::Waiting(wish),
        }
    }

    /// Nothing comes of the one that was under way.
    fn fail_upgrade(&mut self, wish: &Wish, reason: &str) {
        self.upgrades.stage = Stage::None;
        self.hold_still(false);
        self.refuse_upgrade(wish, reason);
    }

    fn refuse_upgrade(&mut self, wish: &Wish, reason: &str) {
        let (executable, was_asked) = (&wish.executable, wish.is_asked);
        (self.observe)(Event::UpgradeRefused { executable, was_asked, reason });
        wish.tell(UpgradeNews::Refused { reason: reason.to_owned() });
    }

    /// Goes on with an upgrade as far as it can go by now. Returns at the latest when nothing is to be done but to wait;
    /// or not at all, as another program goes on.
    pub(super) async fn go_on_with_upgrade(&mut self, sources: &mut Sources) {
        if self.upgrades.wish().is_none() {
            return;
        }
        if self.pool.is_stopping() {
            return self.give_up_upgrade("the app was told to stop");
        }
        if let Stage::Checking(..) = self.upgrades.stage {
            return;
        }
        if self.is_too_busy() {
            return;
        }
        match std::mem::replace(&mut self.upgrades.stage, Stage::InHand) {
            Stage::Waiting(wish) => self.ask_successor(wish, sources).await,
            Stage::Checked(wish, identity) => self.become_it(wish, identity, sources).await,
            other => self.upgrades.stage = other,
        }
    }

    /// Ends an upgrade that is under way.
    pub(super) fn give_up_upgrade(&mut self, reason: &str) {
        match std::mem::replace(&mut self.upgrades.stage, Stage::None) {
            Stage::None | Stage::InHand => {}
            Stage::Checking(wish, asked) => {
                // Its exit is taken as any child's.
                kill_group(asked.check.pid);
                self.condemned.insert(asked.check.pid);
                self.fail_upgrade(&wish, reason);
            }
            Stage::Waiting(wish) | Stage::Checked(wish, _) => self.fail_upgrade(&wish, reason),
        }
    }

    /// Whether something has to be over before; says what. Health checks and further commands are held up as soon as all
    /// else is calm.
    fn is_too_busy(&mut self) -> bool {
        let reason = self.commotion();
        self.hold_still(reason.is_none());
        let reason = reason.or_else(|| self.remainder());
        if let Some(wish) = self.upgrades.wish()
            && wish.reason != reason
        {
            wish.reason.clone_from(&reason);
            if let Some(reason) = &reason {
                wish.tell(UpgradeNews::Waiting { reason: reason.clone() });
            }
        }
        reason.is_some()
    }

    /// Has nothing new begin that an upgrade would have to wait for, as far as that is up to us; or goes on as ever.
    fn hold_still(&mut self, is_still: bool) {
        self.care.is_paused = is_still;
        if let Some(program) = &self.upgrades.program {
            program.hold_off(is_still);
        }
    }

    /// What has begun before we held still.
    fn remainder(&self) -> Option<String> {
        if self.care.under_way > 0 {
            return Some("a health check is under way".into());
        }
        let is_busy = self.upgrades.program.as_ref().is_some_and(|program| program.is_busy());
        is_busy.then(|| "a command is being carried out".into())
    }

    /// What is under way that would have to be carried for the sake of one moment.
    fn commotion(&self) -> Option<String> {
        if self.pool.reloading().is_some() {
            return Some("a reload is under way".into());
        }
        if let Some(scaling) = &self.scaling {
            return Some(format!("the app is being scaled to {}", scaling.target));
        }
        let mut workers = self.pool.workers();
        if let Some(leaving) = workers.find(|view| view.state == State::Draining) {
            return Some(format!("worker {} is on its way out", leaving.id));
        }
        if !self.pool.is_calm() {
            return Some("a worker gets a successor".into());
        }
        if !self.together.is_empty() {
            return Some("workers are about to bind an address".into());
        }
        if !self.lingering.is_empty() {
            return Some("a worker has just ended".into());
        }
        if self.searches.are_under_way() {
            return Some("it is being found out who has an address that a worker wants".into());
        }
        (self.outlaws.count() > 0).then(|| "a worker that misbehaved is being ended".into())
    }

    /// Whether something has happened until everything stood still, that has to be over before.
    fn is_disturbed(&self, frozen: &Frozen) -> bool {
        let is_ending = self.outcome.is_some() || self.pool.is_stopping();
        is_ending || !frozen.is_quiet || self.remainder().is_some() || self.commotion().is_some()
    }

    /// Asks the new program about what there is at this moment.
    async fn ask_successor(&mut self, mut wish: Wish, sources: &mut Sources) {
        let frozen = self.freeze(sources).await;
        let is_disturbed = self.is_disturbed(&frozen);
        let written = self.write_down(&wish, &frozen);
        self.thaw(frozen);
        if is_disturbed {
            self.upgrades.stage = Stage::Waiting(wish);
            return;
        }
        let executable = wish.executable.clone();
        let begun = written.and_then(|(document, state, _)| {
            let failed = |error: io::Error| format!("{}: {error}", executable.display());
            let identity = Identity::of(&executable).map_err(failed)?;
            let check = Check::begin(&executable, &state, wish.patience, self.seen.clone());
            let check = check.map_err(|error| format!("running {}: {error}", executable.display()))?;
            Ok(Box::new(Asked { check, document, identity }))
        });
        self.hold_still(false);
        match begun {
            Ok(asked) => {
                (self.observe)(Event::Upgrading { executable: &executable });
                wish.tell(UpgradeNews::Checking { executable });
                wish.is_asked = true;
                self.upgrades.stage = Stage::Checking(wish, asked);
            }
            Err(reason) => self.fail_upgrade(&wish, &reason),
        }
    }

    /// The program that was asked has ended, or had its time.
    pub(super) fn take_checked(&mut self, checked: &Checked) {
        if !self.upgrades.is_check(checked.pid) {
            // It was given up meanwhile.
            return;
        }
        let stage = std::mem::replace(&mut self.upgrades.stage, Stage::None);
        let Stage::Checking(wish, asked) = stage else { return };
        let Asked { check, document, identity } = *asked;
        kill_group(check.pid);
        let status = exits::take_status(&check.pidfd);
        let answer = match checked.failure(status, wish.patience) {
            Some(failure) => Err(failure),
            None => Answer::read(&checked.stdout, &document),
        };
        self.reap_orphans();
        match answer {
            Ok(answer) => {
                wish.tell(UpgradeNews::Checked { version: answer.allcores });
                self.upgrades.stage = Stage::Checked(wish, identity);
            }
            Err(reason) => {
                let reason = format!("{} can't go on from here: {reason}", wish.executable.display());
                self.fail_upgrade(&wish, &reason);
            }
        }
    }

    /// Executes the new program. Returns only if that can't be, and goes on as if nothing had happened.
    async fn become_it(&mut self, wish: Wish, identity: Identity, sources: &mut Sources) {
        // From here on signals wait for the next program. Those that came before are told of meanwhile.
        let mask = exec::block_signals();
        let frozen = self.freeze(sources).await;
        let is_disturbed = self.is_disturbed(&frozen);
        let failure = (!is_disturbed).then(|| self.execute(&wish, identity, &frozen));
        mask.restore();
        self.thaw(frozen);
        match failure {
            None => self.upgrades.stage = Stage::Checked(wish, identity),
            Some(reason) => self.fail_upgrade(&wish, &reason),
        }
    }

    /// Returns why the new program could not be executed.
    fn execute(&mut self, wish: &Wish, identity: Identity, frozen: &Frozen) -> String {
        let path = wish.executable.display();
        if rustix::thread::gettid() != rustix::process::getpid() {
            return "workers hang from a thread that is not the main one, and would be ended".into();
        }
        match Identity::of(&wish.executable) {
            Ok(now) if now == identity => {}
            Ok(_) => return format!("{path} was changed after it had been asked; ask again"),
            Err(error) => return format!("{path}: {error}"),
        }
        if self.upgrades.program.as_ref().is_none_or(|program| !program.flush()) {
            return "what the app has written is not read by anybody, and would be lost; see to its stdout and stderr"
                .into();
        }
        let (state, manifest) = match self.write_down(wish, frozen) {
            Ok((_, state, manifest)) => (state, manifest),
            Err(reason) => return reason,
        };
        let failed = |error: io::Error| format!("executing {path}: {error}");
        // How it is scheduled, the next program would take for what somebody else wants.
        self.pace.be_prompt();
        let executed = execute(&wish.executable, &state, &manifest);
        let _ = manifest.set_carried(false);
        failed(executed)
    }

    /// Writes everything down, where the next program will find it.
    fn write_down(&mut self, wish: &Wish, frozen: &Frozen) -> Result<(Document, OwnedFd, Manifest), String> {
        let mut manifest = Manifest::default();
        let engine = self.save(frozen, &mut manifest);
        let Some(program) = &self.upgrades.program else { return Err("there is no program around".into()) };
        program.descriptors(&mut |descriptor| {
            manifest.note(descriptor);
        });
        let executable = wish.executable.as_os_str().into();
        let document =
            Document::new(self.upgrades.count + 1, executable, program.save(), manifest.all(), engine);
        let text = document.write()?;
        // Whatever it is that can't be read again had better be known now.
        Document::read(&text).map_err(|why| format!("what was written down does not hold: {why}"))?;
        let state = seal(&text).map_err(|error| format!("keeping what was written down: {error}"))?;
        Ok((document, state, manifest))
    }

    /// Tells that this is the next program, and does what the one before could not.
    pub(super) fn announce_upgrade(&mut self, before: &str) {
        (self.observe)(Event::Upgraded { before, count: self.upgrades.count });
        // Of children that ended in between there was no signal.
        self.reap_orphans();
        // Lanes that were looked at on each tick wake nobody, nor do connections that wait here.
        self.tick_on();
        self.hand_off();
    }
}

/// Executes a program in the place of this one, with what it needs. Returns only if that can't be.
fn execute(executable: &Path, state: &OwnedFd, manifest: &Manifest) -> io::Error {
    let attempt = || -> io::Result<io::Error> {
        let program = c_string(executable.as_os_str().as_bytes().to_vec())?;
        let args: Vec<CString> =
            std::env::args_os().map(|arg| c_string(arg.as_bytes().to_vec())).collect::<io::Result<_>>()?;
        let mut env = check::environment()?;
        let number = state.as_raw_fd();
        env.push(c_string(format!("{VARIABLE}={}:{number}", std::process::id()).into_bytes())?);
        manifest.set_carried(true)?;
        exec::set_carried(number, true)?;
        Ok(exec::execute(&program, &args, &env))
    };
    attempt().unwrap_or_else(|error| error)
}
