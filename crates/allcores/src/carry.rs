//! What goes from a process's program into the one that it executes next: descriptors, by their numbers, and bytes.
//!
//! Knows nothing of what they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};

use crate::sys::exec;
use crate::sys::process::take_inherited;

/// A descriptor, written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct FdSaved(RawFd);

impl FdSaved {
    /// The descriptor of this number.
    pub(crate) fn of_number(number: RawFd) -> Self {
        Self(number)
    }

    /// Whether it is stdin, stdout or stderr, or none at all.
    pub(crate) fn is_standard(self) -> bool {
        self.0 <= 2
    }
}

/// Which descriptors are to be there in the next program.
#[derive(Debug, Default)]
pub(crate) struct Manifest(BTreeSet<RawFd>);

impl Manifest {
    /// Takes a descriptor down.
    pub(crate) fn note(&mut self, descriptor: impl AsFd) -> FdSaved {
        let number = descriptor.as_fd().as_raw_fd();
        self.0.insert(number);
        FdSaved(number)
    }

    /// All that were taken down.
    pub(crate) fn all(&self) -> Vec<FdSaved> {
        self.0.iter().copied().map(FdSaved).collect()
    }

    /// Says whether they go on into the next program. As long as it is not executed, they have their owners here.
    ///
    /// # Errors
    ///
    /// If one of them is not open any more.
    pub(crate) fn set_carried(&self, are_carried: bool) -> io::Result<()> {
        self.0.iter().try_for_each(|number| exec::set_carried(*number, are_carried))
    }
}

/// Descriptors that the program before has left, until they are taken. What nobody takes is closed.
#[derive(Debug, Default)]
pub(crate) struct Inherited(BTreeMap<RawFd, Arc<OwnedFd>>);

impl Inherited {
    /// Takes over these; they are close-on-exec again.
    ///
    /// # Errors
    ///
    /// If one of them is not there, or was not left.
    pub(crate) fn claim(numbers: &[FdSaved]) -> io::Result<Self> {
        let claim = |number: &FdSaved| Ok((number.0, Arc::new(take_inherited(number.0, |_| true)?)));
        numbers.iter().map(claim).collect::<io::Result<_>>().map(Self)
    }

    /// Gives out one that has one owner.
    ///
    /// # Errors
    ///
    /// If it is not there, or not any more.
    pub(crate) fn take(&mut self, number: FdSaved) -> io::Result<OwnedFd> {
        let descriptor = self.0.remove(&number.0).ok_or_else(|| missing(number))?;
        Arc::try_unwrap(descriptor).map_err(|_| missing(number))
    }

    /// Gives out one that several own.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub(crate) fn share(&mut self, number: FdSaved) -> io::Result<Arc<OwnedFd>> {
        self.0.get(&number.0).cloned().ok_or_else(|| missing(number))
    }
}

fn missing(number: FdSaved) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("descriptor {} was not left to this program", number.0))
}

const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Puts bytes where nobody can change them any more; they are read from the beginning.
pub(crate) fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("allcores-state", flags)?);
    file.write_all(bytes)?;
    file.rewind()?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// Whether nobody can change what is in a file of ours.
pub(crate) fn is_sealed(file: impl AsFd) -> bool {
    rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS))
}

/// Bytes as JSON: text where they are, else numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum BytesSaved {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&[u8]> for BytesSaved {
    fn from(bytes: &[u8]) -> Self {
        std::str::from_utf8(bytes)
            .map_or_else(|_| Self::Bytes(bytes.to_vec()), |text| Self::Text(text.to_owned()))
    }
}

impl From<&OsStr> for BytesSaved {
    fn from(text: &OsStr) -> Self {
        text.as_bytes().into()
    }
}

impl From<BytesSaved> for Vec<u8> {
    fn from(saved: BytesSaved) -> Self {
        match saved {
            BytesSaved::Text(text) => text.into_bytes(),
            BytesSaved::Bytes(bytes) => bytes,
        }
    }
}

impl From<BytesSaved> for OsString {
    fn from(saved: BytesSaved) -> Self {
        Self::from_vec(saved.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn bytes_are_the_same_again_be_they_text_or_not() {
        for bytes in [&b"plain"[..], "ß\u{1f980}\"\\\n".as_bytes(), b"\xff\0\xfe", b""] {
            let json = serde_json::to_string(&BytesSaved::from(bytes)).unwrap();
            let saved: BytesSaved = serde_json::from_str(&json).unwrap();
            assert_eq!(Vec::from(saved), bytes, "{json}");
        }
    }

    #[test]
    fn what_is_sealed_is_read_and_not_written() {
        let sealed = seal(b"for good").unwrap();
        assert!(is_sealed(&sealed));
        let mut file = File::from(sealed);
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "for good");
        file.rewind().unwrap();
        file.write_all(b"x").unwrap_err();
        assert!(!is_sealed(tempfile::tempfile().unwrap()));
    }

    #[test]
    fn a_descriptor_is_claimed_once_and_only_if_it_was_left() {
        let file = File::open("/dev/null").unwrap();
        let mut manifest = Manifest::default();
        let number = manifest.note(&file);
        assert!(Inherited::claim(&[number]).is_err(), "it is close-on-exec, so nobody has left it");
        manifest.set_carried(true).unwrap();
        let mut inherited = Inherited::claim(&[number]).unwrap();
        assert!(Inherited::claim(&[number]).is_err());
        let owned = inherited.take(number).unwrap();
        assert!(inherited.take(number).is_err() && inherited.share(number).is_err());
        // It has two owners here, as it never has in a new program.
        std::mem::forget(owned);
    }
}
