//! The files that count among those below some folders, and when each was changed.
//!
//! Read again whenever the kernel says that something has happened: what has, is seen by comparing. So files that come, go and
//! are renamed are told like those that are written, and what is ignored is ignored in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use ignore::WalkBuilder;
use ignore::overrides::OverrideBuilder;

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
    folders: BTreeSet<PathBuf>,
    /// Those of them that nobody has asked for yet.
    new_folders: Vec<PathBuf>,
}

impl Tree {
    /// Reads what is there.
    ///
    /// # Errors
    ///
    /// If one of the folders can't be read.
    pub(super) fn read(roots: Vec<PathBuf>, ignored: Vec<String>) -> anyhow::Result<Self> {
        for root in &roots {
            std::fs::metadata(root).with_context(|| format!("look at {}", root.display()))?;
        }
        let (files, folders) = (Files::new(), BTreeSet::new());
        let mut tree = Self { roots, ignored, files, seen: None, folders, new_folders: Vec::new() };
        tree.refresh();
        Ok(tree)
    }

    /// Reads it again; one of the files that have changed, if any has.
    pub(super) fn refresh(&mut self) -> Option<PathBuf> {
        let (files, folders) = self.look();
        self.seen = None;
        self.new_folders.extend(folders.difference(&self.folders).cloned());
        self.folders = folders;
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
        let (mut files, mut folders) = (Files::new(), BTreeSet::new());
        for root in &self.roots {
            if !root.is_dir() {
                // A file is often replaced by another of its name: its folder tells of both.
                folders.extend(root.parent().map(folder_of_file));
            }
            for entry in walk(root, &self.ignored).flatten() {
                let Ok(about) = entry.metadata() else { continue };
                if about.is_dir() {
                    folders.insert(entry.into_path());
                } else {
                    files.insert(entry.into_path(), (about.modified().ok(), about.len()));
                }
            }
        }
        (files, folders)
    }

    /// Folders that have come since this was last asked.
    pub(super) fn take_new_folders(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.new_folders)
    }
}

/// The folder by a name that can be opened.
fn folder_of_file(parent: &Path) -> PathBuf {
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
        let tree = Tree::read(vec![folder.path().to_owned()], ignored).unwrap();
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
    fn each_folder_that_counts_is_told_once() {
        let (folder, mut tree) = tree(&["a.js", "src/b.js", "node_modules/m/i.js"], &[]);
        let path = folder.path();
        assert_eq!(tree.take_new_folders(), [path.to_owned(), path.join("src")]);
        write(path, "src/deep/c.js", "");
        tree.refresh();
        assert_eq!(tree.take_new_folders(), [path.join("src/deep")]);
        assert!(tree.take_new_folders().is_empty());
    }

    #[test]
    fn a_file_is_watched_by_its_folder_and_nothing_else_in_it_counts() {
        let (folder, _) = tree(&["a.js", "b.js"], &[]);
        let (path, file) = (folder.path(), folder.path().join("a.js"));
        let mut tree = Tree::read(vec![file.clone()], Vec::new()).unwrap();
        assert_eq!(tree.take_new_folders(), [path.to_owned()]);
        write(path, "b.js", "more");
        assert_eq!(tree.refresh(), None);
        fs::rename(path.join("b.js"), &file).unwrap();
        assert_eq!(tree.refresh(), Some(file));
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let error = Tree::read(vec!["/no/such/folder".into()], Vec::new()).unwrap_err();
        assert!(format!("{error:#}").contains("look at /no/such/folder: No such file"), "{error:#}");
    }
}
