//! Seeing that the file of a Unix socket is removed, and putting it back at once.
//!
//! Workers that were started while the address was known are kept from removing it ([`Ports::withholds`]). This is for all
//! others: those of an app's first start, and whoever is none of its workers.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use allcores_core::worker::WorkerId;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::table::Key;
use super::{LaneId, Ports};
use crate::address::Address;
use crate::sys::Watch;

/// How long after a worker has removed a path it is looked whether it has closed its listener, too: the next line of most.
const CLOSED_BY: Duration = Duration::from_millis(500);

/// Has the kernel tell of changes to files.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// There is none before there is a file, and none where it can't be had.
    watch: Option<Watch>,
    files: HashMap<i32, Key>,
}

/// Something was done to the file of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Touched {
    number: i32,
    /// It is not there any more, nor is it watched.
    is_over: bool,
}

impl Removals {
    /// Watches a group's file, by any of its names. Where that can't be had, [`Ports::maintain`] finds out what has become of it.
    fn follow(&mut self, key: Key, name: &Path) {
        if self.watch.is_none() {
            self.watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
                .ok()
                .and_then(|watch| Watch::readable(watch).ok());
        }
        let Some(watch) = &self.watch else { return };
        // The file itself and not its folder, in which there may be much else. A name less is a change of it.
        let what = WatchFlags::ATTRIB | WatchFlags::MOVE_SELF | WatchFlags::DONT_FOLLOW;
        if let Ok(number) = inotify::add_watch(watch, name, what) {
            self.files.insert(number, key);
        }
    }

    async fn next(&self) -> Vec<Touched> {
        let Some(watch) = &self.watch else { return std::future::pending().await };
        match watch.read(read).await {
            Ok(touched) => touched,
            Err(_) => std::future::pending().await,
        }
    }

    /// Whose file it is.
    fn key_of(&mut self, touched: Touched) -> Option<Key> {
        if touched.is_over {
            self.files.remove(&touched.number)
        } else {
            self.files.get(&touched.number).copied()
        }
    }

    fn forget(&mut self, touched: Touched) {
        self.files.remove(&touched.number);
        if let Some(watch) = &self.watch {
            let _ = inotify::remove_watch(watch, touched.number);
        }
    }
}

fn read(watch: BorrowedFd<'_>) -> io::Result<Vec<Touched>> {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    let mut touched = Vec::new();
    loop {
        let event = reader.next()?;
        touched.push(Touched { number: event.wd(), is_over: event.events().contains(ReadFlags::IGNORED) });
        if reader.is_buffer_empty() {
            return Ok(touched);
        }
    }
}

impl Ports {
    /// Whether there are Unix sockets with a path.
    pub(crate) fn has_files(&self) -> bool {
        self.groups.has_files()
    }

    /// Whether a file of this name may be a Unix socket's of ours.
    pub(crate) fn has_file_named(&self, name: &OsStr) -> bool {
        self.groups.files_named(name).next().is_some()
    }

    /// The address whose file this is, by device and inode, whatever path leads to it. One of its names is given.
    pub(crate) fn address_of_file(&self, name: &OsStr, file: (u64, u64)) -> Option<&Address> {
        let mut groups = self.groups.files_named(name).filter_map(|key| self.groups.get(key));
        groups.find(|group| group.file.is(file)).map(|group| &group.address)
    }

    /// A worker wants to remove this file. Says whether it is not to, as it is the file of a socket which is everybody's:
    /// that goes with its address. While the app stops everybody may remove it, so that who comes late knows at once; not that
    /// of a socket which stays, where he waits for who is next.
    pub(crate) fn withholds(&mut self, worker: WorkerId, name: &OsStr, file: (u64, u64)) -> bool {
        let keys: Vec<Key> = self.groups.files_named(name).collect();
        keys.into_iter().any(|key| {
            let known = &mut self.groups[key].file;
            known.is(file) && known.is_kept(self.is_closing) && known.withhold_from(worker)
        })
    }

    /// Watches a group's file from now on, if it has one.
    pub(super) fn follow(&mut self, key: Key) {
        let Some(group) = self.groups.get_mut(key) else { return };
        if let Some((_, spare)) = group.file.names() {
            self.removals.follow(key, spare);
            // It may have been removed before anybody was told.
            group.file.maintain();
        }
    }

    /// Waits until something was done to a file.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn next_touched(&self) -> Vec<Touched> {
        self.removals.next().await
    }

    /// Puts files back that are not there any more. Gives an address to whose file that happens too often to go on.
    pub(crate) fn put_back(&mut self, touched: &[Touched]) -> Option<String> {
        let mut tiring = None;
        for file in touched {
            let Some(key) = self.removals.key_of(*file) else { continue };
            let group = self.groups.get_mut(key);
            let is_tiring = match group {
                // Whoever removes it then is welcome.
                Some(group) if !group.file.is_kept(self.is_closing) => false,
                Some(group) => {
                    let is_tiring = !group.file.put_back();
                    tiring = is_tiring.then(|| group.address.to_string()).or(tiring);
                    is_tiring
                }
                None => true,
            };
            if is_tiring {
                self.removals.forget(*file);
            }
        }
        tiring
    }

    /// Those who use an address whose path was removed a while ago and not bound again, each once: one of them may have
    /// closed its listener with it, which nobody else could tell.
    pub(crate) fn removed(&mut self) -> Vec<(WorkerId, LaneId)> {
        let now = Instant::now();
        let mut users = Vec::new();
        for key in self.groups.with_files() {
            let group = &mut self.groups[key];
            if group.file.take_removed(now.checked_sub(CLOSED_BY)) {
                let lanes = group.lanes.iter().filter(|lane| lane.is_listening);
                users.extend(lanes.flat_map(|lane| lane.users.iter().map(|user| (*user, lane.id))));
            }
        }
        users
    }
}
