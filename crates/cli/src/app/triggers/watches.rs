//! Has the kernel tell of changes in folders (inotify(7)).
//!
//! It knows a folder by what it is, and not by its name: another one of the same name is another. So all are named again after each
//! look, and who is known already stays as he is.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::tree::Tree;

/// That a name comes or goes in a folder, or the folder itself.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    // What one place is watched for is not taken from another that is the same folder.
    .union(WatchFlags::MASK_ADD);

/// That files in it are written, too.
const ALL: WatchFlags = NAMES.union(WatchFlags::MODIFY).union(WatchFlags::ATTRIB);

/// What is watched.
pub(super) struct Watches {
    inotify: OwnedFd,
    /// By the kernel's numbers: the names that count there, or `None` where all do.
    places: BTreeMap<i32, Option<BTreeSet<OsString>>>,
}

impl Watches {
    pub(super) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { inotify, places: BTreeMap::new() })
    }

    /// Watches what a tree is made of by now, and nothing else. Says whether there is something new: what was in it before it
    /// was watched, nobody tells. What can't be watched is told to `refuse`, and done without.
    pub(super) fn follow(&mut self, tree: &Tree, mut refuse: impl FnMut(anyhow::Error)) -> bool {
        let (mut places, mut unseen_above) = (BTreeMap::new(), Vec::new());
        // From above: of what is not there yet, or any more, the folder above tells, which is watched by then.
        for (folder, name) in tree.above() {
            match inotify::add_watch(&self.inotify, &folder, NAMES) {
                Ok(number) => {
                    if let Some(names) = places.entry(number).or_insert_with(|| Some(BTreeSet::new())) {
                        names.insert(name);
                    }
                }
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => unseen_above.push((folder, name, error)),
            }
        }
        for path in tree.places() {
            match inotify::add_watch(&self.inotify, path, ALL) {
                Ok(number) => drop(places.insert(number, None)),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => refuse(why_not(&format!("changes in {} are not seen", path.display()), error)),
            }
        }
        // Last: what is in a root changes more often than what leads to it.
        for (folder, name, error) in unseen_above {
            let (path, folder) = (folder.join(name), folder.display());
            let what = format!("it is not seen when {} is replaced: watch {folder}", path.display());
            refuse(why_not(&what, error));
        }
        let before = std::mem::replace(&mut self.places, places);
        for gone in before.keys().filter(|number| !self.places.contains_key(number)) {
            // The kernel has done so itself where the folder is gone.
            let _ = inotify::remove_watch(&self.inotify, *gone);
        }
        self.places.iter().any(|(number, names)| before.get(number) != Some(names))
    }

    /// Waits for a change; false if there is none for so long.
    pub(super) fn wait(&self, limit: Option<Duration>) -> io::Result<bool> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let rest = rest.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], rest.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) if self.read()? => return Ok(true),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes what has been told; says whether any of it counts.
    fn read(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut counts = false;
        loop {
            match reader.next() {
                Ok(event) => counts |= self.counts(&event),
                Err(Errno::WOULDBLOCK) => return Ok(counts),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn counts(&self, event: &Event<'_>) -> bool {
        // That was told before, or was our own doing.
        if event.events().contains(ReadFlags::IGNORED) {
            return false;
        }
        match (self.places.get(&event.wd()), event.file_name()) {
            (Some(Some(names)), Some(name)) => names.contains(std::ffi::OsStr::from_bytes(name.to_bytes())),
            (Some(_), _) => true,
            // There was more than could be told.
            (None, _) => event.events().contains(ReadFlags::QUEUE_OVERFLOW),
        }
    }
}

fn why_not(what: &str, error: Errno) -> anyhow::Error {
    let hint =
        if error == Errno::NOSPC { " (more folders than fs.inotify.max_user_watches allows)" } else { "" };
    anyhow!(error).context(format!("{what}{hint}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::{Path, PathBuf};

    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;

    /// Long enough for what has happened already to be told.
    const SOON: Option<Duration> = Some(Duration::from_secs(10));

    /// Folders below one, and what is watched when a root of them is.
    struct Watched {
        folder: tempfile::TempDir,
        tree: Tree,
        watches: Watches,
    }

    impl Watched {
        fn new(root: &str, make: impl FnOnce(&Path)) -> Self {
            let folder = tempfile::tempdir().unwrap();
            make(folder.path());
            let tree = Tree::new(vec![folder.path().join(root)], Vec::new());
            let mut watched = Self { folder, tree, watches: Watches::new().unwrap() };
            watched.look();
            watched
        }

        fn at(&self, path: &str) -> PathBuf {
            self.folder.path().join(path)
        }

        fn look(&mut self) -> Option<PathBuf> {
            let mut file = self.tree.refresh();
            while self.watches.follow(&self.tree, |error| panic!("{error:#}")) {
                file = file.or(self.tree.refresh());
            }
            file
        }

        /// Whether a change is told, and what has changed then.
        #[track_caller]
        fn told(&mut self) -> Option<PathBuf> {
            assert!(self.watches.wait(SOON).unwrap(), "nothing was told");
            self.look()
        }
    }

    fn make(folder: &Path) {
        for name in ["src", "next"] {
            fs::create_dir_all(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("a.js"), name).unwrap();
        }
    }

    #[test]
    fn a_folder_that_another_takes_the_place_of_is_watched_as_the_one_before() {
        let mut watched = Watched::new("src", make);
        let file = watched.at("src/a.js");
        fs::remove_dir_all(watched.at("src")).unwrap();
        fs::create_dir(watched.at("src")).unwrap();
        watched.told();
        fs::write(&file, "more").unwrap();
        assert_eq!(watched.told(), Some(file.clone()));

        fs::rename(watched.at("src"), watched.at("before")).unwrap();
        fs::rename(watched.at("next"), watched.at("src")).unwrap();
        assert_eq!(watched.told(), Some(file.clone()));
        fs::write(&file, "and more").unwrap();
        assert_eq!(watched.told(), Some(file.clone()));
        // What was moved away is none of it.
        fs::write(watched.at("before/a.js"), "elsewhere").unwrap();
        fs::write(watched.at("other.js"), "elsewhere").unwrap();
        assert!(!watched.watches.wait(Some(Duration::ZERO)).unwrap());
    }

    #[test]
    fn what_is_gone_is_seen_to_come_back_however_much_went_with_it() {
        let mut watched = Watched::new("app/src", |folder| make(&folder.join("app")));
        let file = watched.at("app/src/a.js");
        fs::remove_dir_all(watched.at("app")).unwrap();
        assert_eq!(watched.told(), Some(file.clone()));
        for folder in ["app", "app/src"] {
            fs::create_dir(watched.at(folder)).unwrap();
            assert_eq!(watched.told(), None);
        }
        fs::write(&file, "again").unwrap();
        assert_eq!(watched.told(), Some(file));
    }

    #[test]
    fn a_link_that_comes_to_lead_elsewhere_is_followed() {
        let mut watched = Watched::new("current", |folder| {
            make(folder);
            symlink("src", folder.join("current")).unwrap();
        });
        symlink("next", watched.at("new")).unwrap();
        fs::rename(watched.at("new"), watched.at("current")).unwrap();
        let file = watched.at("current/a.js");
        assert_eq!(watched.told(), Some(file.clone()));
        fs::write(watched.at("next/a.js"), "more").unwrap();
        assert_eq!(watched.told(), Some(file));
    }

    #[test]
    fn a_file_that_is_named_is_watched_in_itself_and_by_its_name() {
        let mut watched = Watched::new("src/a.js", make);
        let file = watched.at("src/a.js");
        fs::write(&file, "more").unwrap();
        assert_eq!(watched.told(), Some(file.clone()));
        fs::rename(watched.at("next/a.js"), &file).unwrap();
        assert_eq!(watched.told(), Some(file.clone()));
        fs::write(&file, "and more").unwrap();
        assert_eq!(watched.told(), Some(file));
        fs::write(watched.at("src/b.js"), "").unwrap();
        assert!(!watched.watches.wait(Some(Duration::ZERO)).unwrap());
    }

    #[test]
    fn a_folder_above_that_may_not_be_read_is_told_and_what_is_below_it_is_watched() {
        let folder = tempfile::tempdir().unwrap();
        let above = folder.path().join("app");
        make(&above);
        fs::set_permissions(&above, fs::Permissions::from_mode(0o300)).unwrap();
        let root = above.join("src");
        let mut tree = Tree::new(vec![root.clone()], Vec::new());
        // Without root's right to read everything; a thread's own, and gone with it.
        let watch = move || {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
            set_capabilities(None, sets).unwrap();
            let (mut watches, mut refusals) = (Watches::new().unwrap(), Vec::new());
            tree.refresh();
            watches.follow(&tree, |error| refusals.push(format!("{error:#}")));
            fs::write(root.join("a.js"), "more").unwrap();
            (refusals, watches.wait(SOON).unwrap(), tree.refresh())
        };
        let (refusals, is_told, changed) = std::thread::spawn(watch).join().unwrap();
        fs::set_permissions(&above, fs::Permissions::from_mode(0o700)).unwrap();
        let (root, above) = (above.join("src"), above.display());
        let expected =
            format!("it is not seen when {} is replaced: watch {above}: Permission denied", root.display());
        assert!(matches!(&refusals[..], [said] if said.starts_with(&expected)), "{refusals:?}");
        assert!(is_told);
        assert_eq!(changed, Some(root.join("a.js")));
    }

    #[test]
    fn what_is_read_is_no_change() {
        let mut watched = Watched::new("src", make);
        fs::read(watched.at("src/a.js")).unwrap();
        assert_eq!(watched.look(), None);
        assert!(!watched.watches.wait(Some(Duration::ZERO)).unwrap());
    }
}
