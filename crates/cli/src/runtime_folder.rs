//! The runtime folder: where running apps are found. One folder per app, with its control socket and its lock.
//!
//! Decides which folder that is, and refuses one in which somebody else could put things. An app that the same user has begun from
//! another environment, and so in another folder, is found there. What is said over the
//! socket is not known here.

mod claim;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use allcores::primary::Leftovers;
use anyhow::{Context as _, anyhow, bail, ensure};

pub(crate) use claim::{Claim, wait_until_free};
use claim::{ClaimError, Look};

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::settings::AppName;

/// The environment variable that names the runtime folder.
pub(crate) const VARIABLE: &str = "ALLCORES_RUNTIME_DIR";

/// `sun_path` of unix(7), without the zero at its end.
const MAX_SOCKET_PATH: usize = 107;

/// The folder of all apps of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuntimeFolder {
    place: Place,
    /// Where else a process of the same user keeps its apps: what it finds in its environment depends on whether that was made
    /// by a login, by cron or by sudo.
    others: Vec<Place>,
}

/// Where a runtime folder is or may be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    /// Stands where anybody may make folders, so that no other than 0700 can be trusted.
    is_in_public: bool,
}

impl RuntimeFolder {
    /// Finds the folder that this process is to use.
    ///
    /// # Errors
    ///
    /// The present folder can't be told, and `ALLCORES_RUNTIME_DIR` is relative to it.
    pub(crate) fn from_env() -> Result<Self, Failure> {
        let uid = rustix::process::geteuid().as_raw();
        let mut folder = Self::choose(|name| std::env::var_os(name), uid);
        let path = &mut folder.place.path;
        *path = std::path::absolute(&*path)
            .with_context(|| format!("make {} absolute", path.display()))
            .map_err(unusable)?;
        Ok(folder)
    }

    fn choose(variable: impl Fn(&str) -> Option<OsString>, uid: u32) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let alone = |path| Self { place: Place { path, is_in_public: false }, others: Vec::new() };
        if let Some(path) = set(VARIABLE) {
            return alone(path);
        }
        if uid == 0 {
            return alone(PathBuf::from("/run/allcores"));
        }
        let session = PathBuf::from(format!("/run/user/{uid}"));
        let is_there = is_of(&session, uid);
        let sessions = set("XDG_RUNTIME_DIR").filter(|path| path.is_absolute()).into_iter();
        let mut places: Vec<Place> = sessions
            .chain(is_there.then_some(session))
            .map(|path| Place { path: path.join("allcores"), is_in_public: false })
            .chain([Place { path: PathBuf::from(format!("/tmp/allcores-{uid}")), is_in_public: true }])
            .collect();
        places.dedup();
        let place = places.remove(0);
        Self { place, others: places }
    }

    /// Names one alone.
    #[cfg(test)]
    pub(crate) fn at(path: PathBuf, is_in_public: bool) -> Self {
        Self { place: Place { path, is_in_public }, others: Vec::new() }
    }

    /// Names an app's folder, for a primary to claim: where somebody has the name, to find that it is taken. Make sure of the whole
    /// with [`RuntimeFolder::prepare`] first.
    pub(crate) fn app(&self, name: &AppName) -> AppFolder {
        let here = self.place.app(name);
        let elsewhere = || self.trusted_others().map(|place| place.app(name)).find(|app| !app.is_free());
        if here.is_free() { elsewhere().unwrap_or(here) } else { here }
    }

    /// Names the folder of an app that somebody wants to speak to, whether it exists or not.
    ///
    /// # Errors
    ///
    /// The runtime folder is there and can't be trusted.
    pub(crate) fn find(&self, name: &AppName) -> Result<AppFolder, Failure> {
        if self.place.path.exists() {
            self.place.check(Role::Client).map_err(unusable)?;
        }
        Ok(self.app(name))
    }

    /// Makes the folder where it is missing, and refuses one that can't be trusted.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        let path = &self.place.path;
        let made = match path.parent() {
            Some(parent) => DirBuilder::new().recursive(true).mode(0o700).create(parent),
            None => Ok(()),
        };
        made.and_then(|()| make_private_folder(path))
            .with_context(|| format!("make the runtime folder {}", path.display()))
            .map_err(unusable)?;
        self.place.check(Role::Primary).map_err(unusable)
    }

    /// Names a file beside the apps' folders that is taken for none of them.
    pub(crate) fn hidden(&self, name: &str) -> PathBuf {
        self.place.path.join(format!(".{name}"))
    }

    /// Finds such files by how their names begin.
    pub(crate) fn hidden_files(&self, beginning: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.place.path).into_iter().flatten().flatten();
        let beginning = format!(".{beginning}");
        entries
            .filter(|entry| entry.file_name().as_bytes().starts_with(beginning.as_bytes()))
            .map(|entry| entry.path())
            .collect()
    }

    /// Lists the folders of apps, running or left over, by name.
    ///
    /// # Errors
    ///
    /// The folder is there and can't be read or trusted. A missing one has no apps in it.
    pub(crate) fn apps(&self) -> Result<Vec<AppFolder>, Failure> {
        let mut names = self.place.names().map_err(unusable)?;
        names.extend(self.trusted_others().filter_map(|place| place.names().ok()).flatten());
        Ok(names.iter().map(|name| self.app(name)).collect())
    }

    /// The others that are there. One that can't be trusted has none of our apps.
    fn trusted_others(&self) -> impl Iterator<Item = &Place> {
        self.others.iter().filter(|place| place.path.exists() && place.check(Role::Client).is_ok())
    }
}

impl Place {
    fn app(&self, name: &AppName) -> AppFolder {
        AppFolder { name: name.clone(), path: self.path.join(name.as_str()) }
    }

    /// The apps that have a folder in it; none where it is missing.
    fn names(&self) -> anyhow::Result<BTreeSet<AppName>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries.with_context(|| format!("read the runtime folder {}", self.path.display()))?,
        };
        self.check(Role::Client)?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
    }

    fn check(&self, role: Role) -> anyhow::Result<()> {
        let path = self.path.display();
        let metadata =
            if self.is_in_public { fs::symlink_metadata(&self.path) } else { fs::metadata(&self.path) }
                .with_context(|| format!("look at the runtime folder {path}"))?;
        let (own, mode) = (rustix::process::geteuid().as_raw(), metadata.mode() & 0o777);
        ensure!(metadata.is_dir(), "use the runtime folder {path}: it is not a folder");
        if metadata.uid() != own && !(role == Role::Client && own == 0) {
            bail!(
                "use the runtime folder {path}: it belongs to user {} and this is user {own}",
                metadata.uid()
            );
        }
        let refused = if self.is_in_public { mode & 0o077 } else { mode & 0o022 };
        ensure!(
            refused == 0,
            "use the runtime folder {path}: others have access to it (mode {mode:03o}, not 700)"
        );
        Ok(())
    }
}

/// Who wants to use the folder. Root may look into anybody's, and keeps its own apps in its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Primary,
    Client,
}

/// What of an app there is.
pub(crate) enum Presence {
    /// Nothing.
    Free,
    /// A primary has the name.
    Held {
        /// The file that it keeps locked for as long as it lives, to wait for it; `None` if somebody has removed it.
        lock: Option<File>,
    },
    /// One was killed: the processes that it has left, maybe none.
    Left(Leftovers),
}

/// The folder of one app.
#[derive(Clone, Debug)]
pub(crate) struct AppFolder {
    name: AppName,
    path: PathBuf,
}

impl AppFolder {
    /// Names a folder outside of any runtime folder.
    pub(crate) fn at(name: AppName, path: &Path) -> Self {
        Self { name, path: path.to_path_buf() }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The app.
    pub(crate) fn name(&self) -> &AppName {
        &self.name
    }

    /// Looks whether a primary has the name.
    pub(crate) fn look(&self) -> Presence {
        match claim::look(&self.path, &self.socket()) {
            Look::Free => Presence::Free,
            Look::Held { lock } => Presence::Held { lock },
            Look::Left { mark } => Presence::Left(Leftovers::find(&mark)),
        }
    }

    /// Whether nobody has it, or has left anything under it.
    fn is_free(&self) -> bool {
        matches!(claim::look(&self.path, &self.socket()), Look::Free)
    }

    /// Whether one has.
    pub(crate) fn is_running(&self) -> bool {
        matches!(claim::look(&self.path, &self.socket()), Look::Held { .. })
    }

    /// The processes that a killed primary has left, maybe none; `None` if one has the name, or the last has cleared up.
    pub(crate) fn left(&self) -> Option<Leftovers> {
        if let Presence::Left(left) = self.look() { Some(left) } else { None }
    }

    /// Where the control socket is or would be.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Takes the name for this process, as what is tried needs it.
    ///
    /// # Errors
    ///
    /// [`ExitCode::NameInUse`] if another primary has it, [`ExitCode::RuntimeFolder`] if the folder can't be used.
    pub(crate) fn claim(&self, tried: &str) -> Result<Claim, Failure> {
        let length = self.socket().as_os_str().len();
        if length > MAX_SOCKET_PATH {
            return Err(unusable(anyhow!(
                "use the runtime folder {}: its control socket's path would have {length} bytes and a Unix socket's \
                 can have {MAX_SOCKET_PATH}",
                self.path.display()
            )));
        }
        Claim::new(&self.path, &self.socket()).map_err(|error| match error {
            ClaimError::Held { pid } => self.in_use(tried, pid),
            ClaimError::Foreign { owner } => {
                let (name, path) = (&self.name, self.path.display());
                let own = rustix::process::geteuid().as_raw();
                unusable(anyhow!(
                    "claim the name {name} in {path}: it belongs to user {owner} and this is user {own}"
                ))
                .next(format!("do that as its user: sudo -u '#{owner}'"))
            }
            ClaimError::Io(error) => {
                let context = format!("claim the name {} in {}", self.name, self.path.display());
                unusable(anyhow::Error::new(error).context(context))
            }
        })
    }

    /// Goes on with a name that the program before in this process has claimed, by its lock.
    ///
    /// # Errors
    ///
    /// It is no lock that this process has.
    pub(crate) fn claim_again(&self, lock: File) -> io::Result<Claim> {
        Claim::again(&self.path, &self.socket(), lock)
    }

    /// Says that the control socket could not be made.
    pub(crate) fn unusable_socket(&self, error: io::Error) -> Failure {
        unusable(
            anyhow::Error::new(error).context(format!("make the control socket {}", self.socket().display())),
        )
    }

    /// Says that the name is taken.
    pub(crate) fn in_use(&self, tried: &str, pid: Option<u32>) -> Failure {
        let name = &self.name;
        let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
        Failure::new(ExitCode::NameInUse, anyhow!("{tried} {name}: {holder} already runs an app of this name")).next(
            format!("choose another name (--name), or look at it (allcores status {name}) or stop it (allcores stop {name})"),
        )
    }

    /// Reads which process has, or last had, the name.
    pub(crate) fn holder(&self) -> Option<u32> {
        claim::holder(&self.path)
    }
}

fn unusable(error: anyhow::Error) -> Failure {
    Failure::new(ExitCode::RuntimeFolder, error).of_folder(VARIABLE)
}

/// Whether a path leads to a folder of this user's.
fn is_of(path: &Path, uid: u32) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == uid)
}

/// Makes a folder for its owner only; one that is there already is left as it is.
fn make_private_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests;
