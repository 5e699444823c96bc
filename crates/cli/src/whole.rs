//! Files that are there whole or not at all, whatever happens while they are written.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Whether a file may be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Then nothing is written.
    Stays,
    /// It is replaced: where its path leads, if that is a link.
    Goes,
}

/// Writes a file that others may read. It is on the disk when this returns.
///
/// # Errors
///
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) where the one that is there stays, or it can't be written: then nothing is changed.
pub(crate) fn write(path: &Path, text: &str, existing: Existing) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = match existing {
        Existing::Goes => fs::metadata(&path).map_or(0o666, |metadata| metadata.permissions().mode() & 0o777),
        Existing::Stays => 0o666,
    };
    let mut draft =
        tempfile::Builder::new().prefix(".").permissions(Permissions::from_mode(mode)).tempfile_in(folder)?;
    draft.write_all(text.as_bytes())?;
    draft.as_file().sync_all()?;
    match existing {
        Existing::Stays => draft.persist_noclobber(&path)?,
        Existing::Goes => draft.persist(&path)?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::{Existing, write};

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
        assert!(write(&folder.path().join("no/such"), "", Existing::Goes).is_err());
    }
}
