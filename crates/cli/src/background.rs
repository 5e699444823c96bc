//! Starting an app in the background: this very program again, in a session of its own, and waiting until it says that it is
//! ready.
//!
//! Who starts is to the app what systemd would be: it listens on a NOTIFY_SOCKET (sd_notify(3)). When it has been told, or has
//! lost patience, it goes, and nothing stays between the app and the kernel.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};
use tokio::net::UnixDatagram;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::command::logs;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::log;
use crate::readable;
use crate::runtime_folder::RuntimeFolder;
use crate::screen::{self, Parting};
use crate::service::{NOTIFY_SOCKET, Word};
use crate::settings::AppName;
use crate::state_folder::{Record, StateFolder};

/// How the names of the sockets begin on which who starts an app listens; its process and the app's name follow.
const EAR: &str = "start-";

/// How many of the last lines of its log a failure shows.
const SHOWN_LINES: usize = 20;

/// How much of its end is looked at for them.
const SHOWN_BYTES: u64 = 16 * 1024;

/// After which time it is said what is waited for.
const SILENCE: Duration = Duration::from_secs(3);

/// An app that is ready.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    /// How it put it.
    pub(crate) status: String,
}

/// How the waiting ended.
enum End {
    Ready { status: String },
    Gone { status: ExitStatus, said: Option<String> },
    Patience { status: Option<String> },
}

/// What who starts an app in the background tells it, besides what stands behind `allcores run`. Over its standard input,
/// as it has an environment in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) record: Record,
    /// How many workers it is to have, where that is another number than it says itself.
    pub(crate) workers: Option<u16>,
    /// Where it is to keep the record once it has its name.
    pub(crate) state: StateFolder,
}

/// Reads what this process was told by who started it in the background, and closes its standard input.
pub(crate) fn told() -> Result<Option<Told>, Failure> {
    let read = || -> anyhow::Result<Option<Told>> {
        let mut text = Vec::new();
        io::stdin().read_to_end(&mut text)?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        // Nobody has started it but a person who has looked closely.
        Ok(if text.is_empty() { None } else { Some(serde_json::from_slice(&text)?) })
    };
    read().context("read how the app is started").map_err(Failure::from)
}

/// Starts an app as it is recorded, with so many workers if that is not what it says itself, and waits until all of them are
/// ready. It keeps the record itself.
///
/// # Errors
///
/// It ended, with its own exit code; or was not ready in time, and goes on.
pub(crate) async fn start(
    record: &Record,
    workers: Option<u16>,
    state: &StateFolder,
    patience: Duration,
) -> Result<Started, Failure> {
    let name = record.name();
    let runtime = RuntimeFolder::from_env()?;
    runtime.prepare()?;
    state.prepare()?;
    let log = record.log();
    let (file, before) = open_log(&log)?;
    let ear = Ear::open(&runtime, name)?;
    let mut command = command(record, workers, state)?;
    let same = file.try_clone().context("share the log between the app's two streams")?;
    command.env(NOTIFY_SOCKET, &ear.path).stdout(file).stderr(same);
    let child = spawn(record, command.args(record.arguments()))?;
    let pid = child.id();
    let parting = Parting::new(format!("{name} goes on (pid {pid}); to end it: allcores stop {name}"));
    let end = wait(&ear, child, patience, |status| {
        let status = status.map(|status| format!(" ({status})")).unwrap_or_default();
        screen::tell(&format!(
            "{name}: not all workers are ready so far{status}; waited for {} at most; to look: allcores status {name}",
            readable::duration(patience)
        ));
    })
    .await;
    parting.spare();
    let end = end?;
    let output = || last_lines(&log, before);
    match end {
        End::Ready { status } => Ok(Started { pid, status }),
        End::Gone { status, said } => {
            let mut output = output();
            if output.is_empty() {
                // Where there is no room for its log, it says so all the same.
                output.extend(said);
            }
            Err(ended(name, status, &log, &output))
        }
        End::Patience { status } => {
            let patience = readable::duration(patience);
            let mut output = output();
            if let Some(status) = &status {
                // It is in the log, too, and said once is enough.
                output.retain(|line| !line.ends_with(status.as_str()));
            }
            let status = status.map(|status| format!(": {status}")).unwrap_or_default();
            let text = format!("start {name}: not ready after {patience}{status}; it goes on trying");
            Err(Failure::from(anyhow!(with_output(text, &log, &output))).next(format!(
                "see how far it is: allcores status {name}; or give it up: allcores stop {name}"
            )))
        }
    }
}

fn open_log(path: &Path) -> Result<(File, u64), Failure> {
    let open = || -> io::Result<(File, u64)> {
        let file = log::open(path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    };
    open()
        .with_context(|| format!("open the log {}", path.display()))
        .map_err(|error| Failure::new(ExitCode::StateFolder, error).next(log::remedy(path)))
}

/// A file that nobody else can get at.
fn memory(name: &str) -> anyhow::Result<File> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).context("make a file in memory")?;
    Ok(file.into())
}

/// Writes down what is told, for one reader.
fn tell(told: &Told) -> Result<File, Failure> {
    let tell = || -> anyhow::Result<File> {
        let mut file = memory("told")?;
        file.write_all(&serde_json::to_vec(told)?)?;
        file.rewind()?;
        Ok(file)
    };
    tell().context("write down how the app is started").map_err(Failure::from)
}

/// Looks whether an app could be started as it is recorded, as far as that can be seen while it runs: by the program that would
/// run it, in its folder and its environment.
///
/// # Errors
///
/// It could not; with the exit code with which it would end.
pub(crate) async fn check(record: &Record, state: &StateFolder) -> Result<(), Failure> {
    open_log(&record.log())?;
    let mut complaint = memory("complaint")?;
    let mut command = command(record, None, state)?;
    let written = complaint.try_clone().context("share what is written")?;
    command.arg("--check").stdout(Stdio::null()).stderr(written);
    let child = spawn(record, command.args(record.arguments()))?;
    let status = exit_of(child)?.await.context("the thread that waits for the look at the app died")?;
    let status = status.context("wait for the look at the app")?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    complaint.rewind().and_then(|()| complaint.read_to_string(&mut said)).context("read what is wrong")?;
    let mut text = format!("restart {} --hard: it could not be started again, and runs on", record.name());
    for line in said.lines() {
        text.push_str("\n  ");
        text.push_str(line);
    }
    Err(Failure::new(code_of(status), anyhow!(text)))
}

/// This very program again, to run an app of these arguments in the background.
fn command(record: &Record, workers: Option<u16>, state: &StateFolder) -> Result<Command, Failure> {
    let program = std::env::current_exe().context("find the program `allcores` itself, to run it again")?;
    let mut command = Command::new(program);
    command
        .arg("run")
        .arg("--background")
        .current_dir(record.folder())
        .env_clear()
        .envs(record.environment().filter(|(name, _)| !is_place(name)))
        .envs(std::env::vars_os().filter(|(name, _)| is_place(name)))
        .stdin(tell(&Told { record: record.clone(), workers, state: state.clone() })?);
    Ok(command)
}

fn spawn(record: &Record, command: &mut Command) -> Result<Child, Failure> {
    // What this process was left open is no business of a process that stays.
    allcores::primary::keep_descriptors_private().context("close what was inherited")?;
    command.spawn().map_err(|error| {
        let folder = record.folder();
        let what = format!("start {} in {}", command.get_program().display(), folder.display());
        Failure::from(anyhow::Error::new(error).context(what)).next("see that the folder is still there")
    })
}

/// Waits for the end. Says what is waited for, once, when that takes longer than one waits without a word.
async fn wait(
    ear: &Ear,
    child: Child,
    patience: Duration,
    say: impl FnOnce(Option<&str>),
) -> Result<End, Failure> {
    let (begun, mut say) = (Instant::now(), Some(say));
    let deadline = begun + patience;
    let mut gone = exit_of(child)?;
    let mut last = None;
    loop {
        tokio::select! {
            words = ear.hear() => {
                for word in words.context("listen to the app that starts")? {
                    match word {
                        Word::Ready => return Ok(End::Ready { status: last.unwrap_or_default() }),
                        Word::Status(status) => last = Some(status),
                        Word::Other => {}
                    }
                }
            }
            status = &mut gone => {
                let status = status.context("the thread that waits for the app died")?;
                let status = status.context("wait for the app")?;
                while let Some(words) = ear.has_heard() {
                    last = words.into_iter().rev().find_map(Word::into_status).or(last);
                }
                return Ok(End::Gone { status, said: last });
            }
            () = sleep_until(begun + SILENCE), if say.is_some() => {
                if let Some(say) = say.take() {
                    say(last.as_deref());
                }
            }
            _ = timeout_at(deadline, std::future::pending::<()>()) => {
                return Ok(End::Patience { status: last });
            }
        }
    }
}

/// Waits on a thread, which ends with the app or with this program.
fn exit_of(mut child: Child) -> Result<oneshot::Receiver<io::Result<ExitStatus>>, Failure> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new()
        .name("wait".into())
        .spawn(move || tell.send(child.wait()))
        .context("start the thread that waits for the app")?;
    Ok(told)
}

fn ended(name: &AppName, status: ExitStatus, log: &Path, output: &[String]) -> Failure {
    let text = match status.code() {
        Some(0) => format!("start {name}: it was stopped before it was ready"),
        Some(_) => format!("start {name}: it ended before it was ready"),
        None => format!("start {name}: it ended before it was ready ({status})"),
    };
    Failure::new(code_of(status), anyhow!(with_output(text, log, output)))
        .next(format!("put it right, and again; to see it end before your eyes: allcores run instead of allcores start; the whole log: {}", log.display()))
}

/// With which code who waits for it ends.
fn code_of(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok()).and_then(ExitCode::from_number);
    code.filter(|code| *code != ExitCode::Success).unwrap_or(ExitCode::Failure)
}

fn with_output(mut text: String, log: &Path, output: &[String]) -> String {
    if output.is_empty() {
        text.push_str("; it wrote nothing to ");
        text.push_str(&log.display().to_string());
        return text;
    }
    text.push_str("\n  the last lines of its log:");
    for line in output {
        text.push_str("\n    ");
        text.push_str(line);
    }
    text
}

/// The last lines that were written to a log since it had this length.
fn last_lines(path: &Path, since: u64) -> Vec<String> {
    if log::is_odd(path) {
        return Vec::new();
    }
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(since.max(length.saturating_sub(SHOWN_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(SHOWN_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // It is shown besides; where it can't be, the rest still holds.
    let bytes = read().unwrap_or_default();
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let lines = lines.strip_suffix(&[&[][..]]).unwrap_or(&lines);
    lines[lines.len().saturating_sub(SHOWN_LINES)..].iter().map(|line| logs::in_words(line)).collect()
}

/// A socket for what the app says of itself.
struct Ear {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Ear {
    /// Opens one in the runtime folder, where nobody else can get at it.
    fn open(runtime: &RuntimeFolder, name: &AppName) -> Result<Self, Failure> {
        let path = runtime.hidden(&format!("{EAR}{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        for left in runtime.hidden_files(EAR).iter().filter(|path| is_left(path)) {
            let _ = std::fs::remove_file(left);
        }
        let socket = UnixDatagram::bind(&path)
            .with_context(|| format!("make the socket {}", path.display()))
            .map_err(|error| {
                Failure::new(ExitCode::RuntimeFolder, error)
                    .next("set ALLCORES_RUNTIME_DIR to a folder of yours with a shorter path")
            })?;
        Ok(Self { socket, path })
    }

    async fn hear(&self) -> io::Result<Vec<Word>> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).await?;
        Ok(Word::read(&buffer[..length]))
    }

    /// What was said already; `None` if there is nothing more.
    fn has_heard(&self) -> Option<Vec<Word>> {
        let mut buffer = [0; 4096];
        let length = self.socket.try_recv(&mut buffer).ok()?;
        Some(Word::read(&buffer[..length]))
    }
}

/// Whether a start that was killed has left this file: nobody listens there, and who did is not on the point of it. Another
/// process of that number is one that may be.
fn is_left(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let pid = name.split('-').nth(1).and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    let is_gone = |pid| matches!(test_kill_process(pid), Err(Errno::SRCH));
    let is_deaf = || {
        let tried = std::os::unix::net::UnixDatagram::unbound().and_then(|socket| socket.connect(path));
        tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    pid.is_some_and(is_gone) && is_deaf()
}

impl Drop for Ear {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a variable says where our own files are: an app is looked for where who starts it would look.
fn is_place(name: &OsStr) -> bool {
    let places = ["ALLCORES_RUNTIME_DIR", "ALLCORES_STATE_DIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"];
    places.iter().any(|place| name == *place)
}

/// The environment of this process, as an app that is started gets it.
pub(crate) fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    // What is between us and who started us is not the app's.
    let own =
        ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
    let is_own = move |name: &OsString| own.iter().any(|own| name == own);
    std::env::vars_os().filter(move |(name, _)| !is_own(name))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{SHOWN_LINES, last_lines};

    #[test]
    fn only_what_was_written_since_is_shown_and_no_more_than_the_end_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(last_lines(&path, 0).is_empty());
        fs::write(&path, "old\nnew 1\nnew \u{fc}2").unwrap();
        assert_eq!(last_lines(&path, 4), ["new 1", "new \u{fc}2"]);
        let many: Vec<String> = (0..5000).map(|number| format!("line {number}")).collect();
        let many = many.join("\n");
        fs::write(&path, many).unwrap();
        let lines = last_lines(&path, 0);
        assert_eq!((lines.len(), lines.last().unwrap().as_str()), (SHOWN_LINES, "line 4999"));
    }
}
