//! The files that count among those below some folders, and when each was changed.
//!
//! Read again whenever the kernel says that something has happened: what has, is seen by comparing. So files that come, go and
//! are renamed are told like those that are written, and what is ignored is ignored in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ignore::WalkBuilder;
use ignore::overrides::OverrideBuilder;
use twox_hash::XxHash3_64;

/// Folders that programs write to by being run.
const NEVER: [&str; 2] = ["node_modules", "__pycache__"];

/// The last change and the length of each file.
type Files = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// What is below some folders.
#[derive(Debug)]
pub(super) struct Tree {
    roots: Vec<PathBuf>,
    ignored: Vec<String>,
    files: Files,
    /// What was there at the last look since, if there was one.
    seen: Option<Files>,
    places: BTreeSet<PathBuf>,
}

impl Tree {
    /// Below these folders, whether they are there or not; nothing has been read.
    pub(super) fn new(roots: Vec<PathBuf>, ignored: Vec<String>) -> Self {
        Self { roots, ignored, files: Files::new(), seen: None, places: BTreeSet::new() }
    }

    /// Reads it again; one of the files that have changed, if any has.
    pub(super) fn refresh(&mut self) -> Option<PathBuf> {
        let (files, places) = self.look();
        self.seen = None;
        self.places = places;
        let before = std::mem::replace(&mut self.files, files);
        let changed = self.files.iter().find(|(path, about)| before.get(*path) != Some(about));
        let gone = || before.keys().find(|path| !self.files.contains_key(*path));
        changed.map(|(path, _)| path).or_else(gone).cloned()
    }

    /// Whether files have changed since this was asked last, or since they were read.
    pub(super) fn is_moving(&mut self) -> bool {
        let (files, _) = self.look();
        let is_moving = self.seen.as_ref().unwrap_or(&self.files) != &files;
        self.seen = Some(files);
        is_moving
    }

    fn look(&self) -> (Files, BTreeSet<PathBuf>) {
        let (mut files, mut places) = (Files::new(), BTreeSet::new());
        for entry in self.roots.iter().flat_map(|root| walk(root, &self.ignored)).flatten() {
            let is_root = entry.depth() == 0;
            // It may be a link to what is meant.
            let about = if is_root { fs::metadata(entry.path()).ok() } else { entry.metadata().ok() };
            let Some(about) = about else { continue };
            if !about.is_dir() {
                files.insert(entry.path().to_owned(), (about.modified().ok(), about.len()));
            }
            if is_root || about.is_dir() {
                places.insert(entry.into_path());
            }
        }
        (files, places)
    }

    /// What tells the files as they were read last from others, also for another program.
    pub(super) fn digest(&self) -> u64 {
        let mut bytes = Vec::new();
        for (path, (changed, length)) in &self.files {
            let changed = changed.and_then(|changed| changed.duration_since(SystemTime::UNIX_EPOCH).ok());
            bytes.extend(path.as_os_str().as_bytes());
            bytes.push(0);
            bytes.extend(changed.unwrap_or_default().as_nanos().to_le_bytes());
            bytes.extend(length.to_le_bytes());
        }
        XxHash3_64::oneshot(&bytes)
    }

    /// The folders that were read last, and what is no folder and was named itself. Each folder stands before what is in it.
    pub(super) fn places(&self) -> &BTreeSet<PathBuf> {
        &self.places
    }

    /// What is named leads to what is to be read, and may come to be something else: which name counts in which folder, from
    /// above.
    pub(super) fn above(&self) -> Vec<(PathBuf, OsString)> {
        let steps = self.roots.iter().flat_map(|root| root.ancestors());
        let named = steps.filter_map(|path| Some((path.parent()?, path.file_name()?)));
        let mut above: Vec<_> = named.map(|(folder, name)| (of_name(folder), name.to_owned())).collect();
        above.sort();
        above
    }
}

/// A folder by a name that can be opened.
fn of_name(parent: &Path) -> PathBuf {
    if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() }
}

fn walk(root: &Path, ignored: &[String]) -> ignore::Walk {
    let mut overrides = OverrideBuilder::new(root);
    for glob in NEVER.iter().copied().chain(ignored.iter().map(String::as_str)) {
        // They were read before, when they were typed.
        let _ = overrides.add(&format!("!{glob}"));
    }
    let mut walk = WalkBuilder::new(root);
    walk.require_git(false).follow_links(false);
    if let Ok(overrides) = overrides.build() {
        walk.overrides(overrides);
    }
    walk.build()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with these files, and what is read of it.
    fn tree(files: &[&str], ignored: &[&str]) -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            write(folder.path(), file, "");
        }
        let ignored = ignored.iter().map(|glob| (*glob).to_owned()).collect();
        let mut tree = Tree::new(vec![folder.path().to_owned()], ignored);
        tree.refresh();
        (folder, tree)
    }

    fn write(folder: &Path, file: &str, text: &str) {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_file_that_is_written_made_renamed_or_removed_is_a_change_and_nothing_else_is() {
        let (folder, mut tree) = tree(&["a.js", "src/b.js"], &[]);
        let (at, path) = (|file| Some(folder.path().join(file)), folder.path());
        assert_eq!(tree.refresh(), None);
        write(path, "src/b.js", "more");
        assert_eq!((tree.refresh(), tree.refresh()), (at("src/b.js"), None));
        write(path, "src/deep/c.js", "");
        assert_eq!((tree.refresh(), tree.refresh()), (at("src/deep/c.js"), None));
        fs::rename(path.join("a.js"), path.join("d.js")).unwrap();
        assert_eq!((tree.refresh(), tree.refresh()), (at("d.js"), None));
        fs::remove_file(path.join("d.js")).unwrap();
        assert_eq!((tree.refresh(), tree.refresh()), (at("d.js"), None));
    }

    #[test]
    fn what_is_ignored_is_no_change() {
        let (folder, mut tree) = tree(&["a.js", "src/b.js"], &["*.log", "cache/"]);
        write(folder.path(), ".gitignore", "build/\n");
        write(folder.path(), "src/.ignore", "made-*\n");
        assert_eq!(tree.refresh(), None, "hidden files are none");
        let ignored =
            ["x.log", "src/y.log", "cache/z", ".env", "build/out", "src/made-up", "node_modules/m/i.js"];
        for file in ignored.into_iter().chain(["src/__pycache__/b.pyc"]) {
            write(folder.path(), file, "1");
            assert_eq!(tree.refresh(), None, "{file}");
        }
    }

    #[test]
    fn another_program_tells_by_a_digest_whether_files_have_changed() {
        let (folder, mut tree) = tree(&["a.js", "src/b.js"], &[]);
        let path = folder.path();
        let digest = || {
            let mut other = Tree::new(vec![path.to_owned()], Vec::new());
            other.refresh();
            other.digest()
        };
        let before = tree.digest();
        assert_eq!(digest(), before);
        fs::rename(path.join("src/b.js"), path.join("src/c.js")).unwrap();
        let renamed = digest();
        write(path, "a.js", "more");
        assert!(renamed != before && digest() != renamed);
        assert_eq!(tree.digest(), before, "it is of what was read");
        tree.refresh();
        assert_eq!(tree.digest(), digest());
    }

    #[test]
    fn it_moves_while_files_that_count_change_and_that_is_no_reading_of_them() {
        let (folder, mut tree) = tree(&["a.js"], &["*.log"]);
        write(folder.path(), "x.log", "1");
        assert!(!tree.is_moving(), "an ignored file is none");
        write(folder.path(), "a.js", "1");
        assert!(tree.is_moving() && !tree.is_moving());
        write(folder.path(), "x.log", "22");
        assert!(!tree.is_moving());
        assert_eq!(tree.refresh(), Some(folder.path().join("a.js")));
        assert!(!tree.is_moving());
    }

    #[test]
    fn the_folders_that_count_are_those_that_are_read() {
        let (folder, mut tree) = tree(&["a.js", "src/b.js", "node_modules/m/i.js"], &[]);
        let path = folder.path();
        assert!(tree.places().iter().eq(&[path.to_owned(), path.join("src")]));
        write(path, "src/deep/c.js", "");
        tree.refresh();
        assert!(tree.places().iter().eq(&[path.to_owned(), path.join("src"), path.join("src/deep")]));
    }

    #[test]
    fn of_a_file_that_is_named_nothing_else_in_its_folder_counts() {
        let (folder, _) = tree(&["a.js", "b.js"], &[]);
        let (path, file) = (folder.path(), folder.path().join("a.js"));
        let mut tree = Tree::new(vec![file.clone()], Vec::new());
        tree.refresh();
        assert!(tree.places().iter().eq([&file]));
        assert_eq!(tree.above().pop(), Some((path.to_owned(), "a.js".into())));
        write(path, "b.js", "more");
        assert_eq!(tree.refresh(), None);
        fs::rename(path.join("b.js"), &file).unwrap();
        assert_eq!(tree.refresh(), Some(file));
    }

    #[test]
    fn what_leads_to_a_root_is_named_from_above() {
        let above = |root: &str| Tree::new(vec![root.into()], Vec::new()).above();
        let pair = |(folder, name): (&str, &str)| (PathBuf::from(folder), OsString::from(name));
        assert_eq!(above("/srv/web/src"), [("/", "srv"), ("/srv", "web"), ("/srv/web", "src")].map(pair));
        assert_eq!(above("./web/src"), [(".", "web"), ("./web", "src")].map(pair));
        assert_eq!(above("web"), [(".", "web")].map(pair));
        assert_eq!(above("."), []);
    }
}
