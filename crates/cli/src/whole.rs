//! Files that are there whole or not at all, whatever happens while they are written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// How many links are followed, one after another; the kernel follows no more.
const LINKS: usize = 40;

/// Whether a file may be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Then nothing is written.
    Stays,
    /// It is replaced.
    Goes,
}

/// Writes a file that others may read, where its path leads if that is a link. It is on the disk when this returns.
///
/// # Errors
///
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) where the one that is there stays; there is a device or a pipe, which a file would
/// take the place of; or it can't be written. Then nothing is changed.
pub(crate) fn write(path: &Path, text: &str, existing: Existing) -> io::Result<()> {
    // A link may lead to what is not there so far.
    let path = fs::canonicalize(path).unwrap_or_else(|_| real(path));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => return Err(Errno::ISDIR.into()),
        Ok(metadata) if !metadata.is_file() => return Err(io::Error::other("it is no regular file")),
        Ok(metadata) if existing == Existing::Goes => metadata.permissions().mode() & 0o777,
        _ => 0o666,
    };
    let draft = tempfile::Builder::new()
        .prefix(".")
        .make_in(folder, |draft| OpenOptions::new().write(true).create_new(true).mode(mode).open(draft))?;
    // Written as the file that it is: the errors of the draft have its name, which nobody has given.
    draft.as_file().write_all(text.as_bytes())?;
    draft.as_file().sync_all()?;
    match existing {
        Existing::Stays => draft.persist_noclobber(&path)?,
        Existing::Goes => draft.persist(&path)?,
    };
    Ok(())
}

/// Where a file itself is: where its path leads, if that is a link, also while there is none.
pub(crate) fn real(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { break };
        if let Ok(folder) = folder.canonicalize() {
            path = folder.join(name);
        }
        match fs::read_link(&path) {
            // What /dev/stdout is, is another file in each process.
            Ok(target) if !path.starts_with("/proc") => {
                path = path.parent().unwrap_or(Path::new("/")).join(target);
            }
            _ => break,
        }
    }
    path
}

/// What to do about a file that can't be written: make its folder where there is none, or otherwise.
pub(crate) fn remedy(path: &Path, otherwise: &str) -> String {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    match folder {
        Some(folder) => format!("make its folder: mkdir -p {}; or {otherwise}", folder.display()),
        None => otherwise.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::{Existing, remedy, write};

    #[test]
    fn what_is_there_stays_or_goes_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("unit"), folder.path().join("link"));
        write(&path, "first", Existing::Stays).unwrap();
        let refused = write(&path, "second", Existing::Stays).unwrap_err();
        assert_eq!(
            (refused.kind(), fs::read_to_string(&path).unwrap()),
            (ErrorKind::AlreadyExists, "first".into())
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&path, &link).unwrap();
        write(&link, "second", Existing::Goes).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_link_that_leads_to_nothing_stays_and_the_file_is_made_where_it_leads() {
        let folder = tempfile::tempdir().unwrap();
        for existing in [Existing::Stays, Existing::Goes] {
            let (path, link) = (folder.path().join("file"), folder.path().join("link"));
            symlink("file", &link).unwrap();
            write(&link, "text", existing).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "text");
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            fs::remove_file(path).and_then(|()| fs::remove_file(link)).unwrap();
        }
    }

    #[test]
    fn what_is_no_regular_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        symlink(&pipe, &link).unwrap();
        for path in [&pipe, &link] {
            for existing in [Existing::Stays, Existing::Goes] {
                let refused = write(path, "text", existing).unwrap_err();
                assert_eq!(refused.to_string(), "it is no regular file");
            }
        }
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        let refused = write(folder.path(), "text", Existing::Goes).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::IsADirectory);
    }

    #[test]
    fn an_error_has_no_name_but_the_one_that_was_given_and_says_which_folder_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no/such");
        let refused = write(&path, "", Existing::Goes).unwrap_err();
        assert_eq!(refused.to_string(), "No such file or directory (os error 2)");
        let next = format!("make its folder: mkdir -p {}/no; or look", folder.path().display());
        assert_eq!(remedy(&path, "look"), next);
        assert_eq!(remedy(&folder.path().join("such"), "look"), "look");
        assert_eq!(remedy("such".as_ref(), "look"), "look");
    }
}
