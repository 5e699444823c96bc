//! What is watched of a worker, each thing by a task that owns it and gives it back when it is called.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::lines::{LineReader, PipeSaved};
use super::{Ended, Ending, Flows, Seen, Share, Worker, ending};
use crate::carry::{FdSaved, Inherited, Manifest};
use crate::channel::{self, Carrier, ChannelSaved};
use crate::primary::answers::Answers;
use crate::primary::engine::Ear;
use crate::primary::recall::Recall;
use crate::sys::Watch;

/// A task that watches something, and what it owned if it was called back.
pub(in crate::primary) type Task = JoinHandle<Option<Part>>;

/// What one task owns.
#[derive(Debug)]
pub(in crate::primary) enum Part {
    /// Its process, and what that writes.
    Process(Box<ProcessPart>),
    /// What its threads wait for an answer to.
    Notifications(Arc<Watch>),
    /// The channel that it was started with.
    Channel(Box<(Carrier, Ended)>),
    /// That of a program which came by itself; others of the worker may go on.
    Visit(Box<Carrier>),
    /// Where it speaks of itself.
    Ear(Ear),
}

/// A process, and what it writes.
#[derive(Debug)]
pub(in crate::primary) struct ProcessPart {
    pub(super) process: Watch,
    pub(super) out: LineReader,
    pub(super) err: LineReader,
    pub(super) ending: Ending,
}

impl ProcessPart {
    pub(in crate::primary) fn new(
        process: Watch,
        stdout: Option<Watch>,
        stderr: Option<Watch>,
        ending: Ending,
    ) -> Box<Self> {
        Box::new(Self { process, out: LineReader::new(stdout), err: LineReader::new(stderr), ending })
    }
}

/// What a task needs besides.
#[derive(Clone, Debug)]
pub(in crate::primary) struct Surroundings {
    pub(in crate::primary) flows: Flows,
    pub(in crate::primary) share: Share,
    pub(in crate::primary) seen: mpsc::Sender<Seen>,
    pub(in crate::primary) answers: Answers,
    pub(in crate::primary) recall: Recall,
}

impl Worker {
    /// Watches a part of it from now on.
    pub(in crate::primary) fn watch(&mut self, part: Part, around: Surroundings) {
        let id = self.about.id;
        let Surroundings { flows, share, seen, answers, recall } = around;
        let task = match part {
            Part::Process(part) => {
                // Not aborted with the worker: it tells of its end.
                self.process =
                    Some(tokio::spawn(super::watch_process(id, part, flows, (share, seen), recall)));
                return;
            }
            Part::Notifications(listener) => {
                self.listener = Some(Arc::clone(&listener));
                tokio::spawn(super::watch_notifications(id, listener, (share, seen), recall))
            }
            Part::Channel(part) => {
                let (carrier, ended) = *part;
                tokio::spawn(async move {
                    let back =
                        super::watch_channel(id, carrier, flows, ended, (share, seen, answers), recall).await;
                    back.map(|back| Part::Channel(Box::new(back)))
                })
            }
            Part::Visit(carrier) => tokio::spawn(async move {
                let (_ending, ended) = ending();
                let back =
                    super::watch_channel(id, *carrier, flows, ended, (share, seen, answers), recall).await;
                back.map(|(carrier, _)| Part::Visit(Box::new(carrier)))
            }),
            Part::Ear(ear) => tokio::spawn(async move { ear.listen(id, seen, recall).await.map(Part::Ear) }),
        };
        self.tasks.push(task);
    }

    /// Takes out a task that has not been waited for.
    pub(in crate::primary) fn take_task(&mut self) -> Option<Task> {
        self.process.take().or_else(|| self.tasks.pop())
    }
}

/// The parts of one worker as data.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::primary) struct PartsSaved {
    #[serde(default)]
    stdout: Option<PipeSaved>,
    #[serde(default)]
    stderr: Option<PipeSaved>,
    #[serde(default)]
    listener: Option<FdSaved>,
    #[serde(default)]
    channel: Option<ChannelSaved>,
    #[serde(default)]
    visit: Option<ChannelSaved>,
    #[serde(default)]
    ear: Option<(String, FdSaved)>,
}

impl PartsSaved {
    /// Takes down the parts of one worker. Its process is known by its pidfd.
    pub(in crate::primary) fn of(parts: &[Part], manifest: &mut Manifest) -> Self {
        let mut saved = Self::default();
        for part in parts {
            match part {
                Part::Process(part) => {
                    saved.stdout = part.out.save(manifest);
                    saved.stderr = part.err.save(manifest);
                }
                Part::Notifications(listener) => saved.listener = Some(manifest.note(listener.as_ref())),
                Part::Channel(part) => saved.channel = Some(part.0.save(manifest)),
                Part::Visit(carrier) => saved.visit = Some(carrier.save(manifest)),
                Part::Ear(ear) => saved.ear = Some((ear.name.clone(), manifest.note(ear))),
            }
        }
        saved
    }

    /// Makes them again, to be watched; and what to send into its channel, if it has one.
    pub(in crate::primary) fn restore(
        self,
        pidfd: impl AsFd,
        inherited: &mut Inherited,
    ) -> io::Result<(Vec<Part>, Option<channel::Sender>)> {
        let (ending, ended) = ending();
        let mut pipe = |saved: Option<PipeSaved>| LineReader::restore(saved, inherited);
        let (out, err) = (pipe(self.stdout)?, pipe(self.stderr)?);
        let process = Watch::readable(pidfd.as_fd().try_clone_to_owned()?)?;
        let mut parts = vec![Part::Process(Box::new(ProcessPart { process, out, err, ending }))];
        let mut sender = None;
        if let Some(listener) = self.listener {
            parts.push(Part::Notifications(Arc::new(Watch::readable(inherited.take(listener)?)?)));
        }
        if let Some(channel) = self.channel {
            let (to_worker, carrier) = Carrier::restore(channel, inherited)?;
            sender = Some(to_worker);
            parts.push(Part::Channel(Box::new((carrier, ended))));
        }
        if let Some(visit) = self.visit {
            let (to_worker, carrier) = Carrier::restore(visit, inherited)?;
            sender = Some(to_worker);
            parts.push(Part::Visit(Box::new(carrier)));
        }
        if let Some((name, socket)) = self.ear {
            parts.push(Part::Ear(Ear::restore(name, inherited.take(socket)?)?));
        }
        Ok((parts, sender))
    }
}
