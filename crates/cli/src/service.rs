//! Speaking to who started us and wants to know how we do, as of sd_notify(3): systemd, a container's supervisor, or
//! `allcores start`.
//!
//! Says nothing that isn't true: READY=1 when all workers are ready, not before.

mod post;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use allcores::primary::{Depot, Event};
use sd_notify::NotifyState;
use tokio::task::JoinHandle;

use post::Post;

/// The variable that names the socket.
pub(crate) const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// The variable that says how many descriptors it stores for us.
const FDSTORE: &str = "FDSTORE";

/// systemd's descriptor store, as of sd_notify(3): what is in it is passed to whoever is started next for this unit.
#[derive(Debug)]
pub(crate) struct Store(Post);

impl Depot for Store {
    fn put(&self, name: &str, listener: BorrowedFd<'_>) {
        // A worker may shut a listener down, which is made to listen again. What has hung up would be thrown away.
        self.0.send(format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n"), Some(listener));
    }

    fn discard(&self, name: &str) {
        self.0.send(format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), None);
    }
}

/// Tells a service manager, where there is one, why the app could not be begun.
pub(crate) fn not_begun(reason: &str) {
    if let Some(post) = Post::find() {
        // It may have gone, and the reason is told otherwise, too.
        let _ = post.send_now(&letter(&[NotifyState::Status(&in_a_line(reason))]), None);
    }
}

/// A letter of these words.
fn letter(words: &[NotifyState<'_>]) -> String {
    let lines: Vec<String> = words.iter().map(NotifyState::to_string).collect();
    lines.join("\n")
}

/// A status that is nothing else: what comes in another line is another word.
fn in_a_line(status: &str) -> String {
    status.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Tells a service manager, where there is one.
#[derive(Debug)]
pub(crate) struct Service {
    post: Option<Post>,
    is_ready: bool,
    /// It has been told that something began which is not over.
    is_under_way: bool,
    heartbeat: Option<JoinHandle<()>>,
}

impl Service {
    /// Looks whether there is one, and begins to give it signs of life if it wants them. `is_ready` if it was told so
    /// already, by the program before.
    pub(crate) fn find(is_ready: bool) -> Self {
        let post = Post::find();
        let limit = post.clone().zip(sd_notify::watchdog_enabled());
        let heartbeat = limit.map(|(post, limit)| tokio::spawn(beat(post, limit)));
        Self { post, is_ready, is_under_way: false, heartbeat }
    }

    /// Its store for descriptors, if it has one, which systemd 254 and later say.
    pub(crate) fn store(&self) -> Option<Store> {
        let room: u64 = std::env::var(FDSTORE).ok()?.parse().ok()?;
        self.post.clone().filter(|_| room > 0).map(Store)
    }

    /// All workers are ready for the first time.
    pub(crate) fn ready(&mut self, status: &str) {
        self.is_ready = true;
        self.say(status, &[NotifyState::Ready]);
    }

    /// Tells what of an event is of interest to it.
    pub(crate) fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Reloading { generation, .. } => {
                self.reloading(&format!("reloading, to generation {generation}"));
            }
            Event::Reloaded { generation, .. } => {
                self.reloaded(&format!("reloaded, generation {generation} serves"));
            }
            Event::ReloadFailed { failure, .. } => {
                let (id, reason) = (failure.id, &failure.reason);
                self.reloaded(&format!("reload failed, the old version serves: worker {id}: {reason}"));
            }
            Event::Upgrading { executable } => {
                self.reloading(&format!("upgrading, to {}", executable.display()));
            }
            Event::UpgradeRefused { reason, was_asked: true, .. } => {
                self.reloaded(&format!("upgrade refused, the old program goes on: {reason}"));
            }
            Event::Upgraded { before, .. } => {
                let version = env!("CARGO_PKG_VERSION");
                self.reloaded(&format!("upgraded from allcores {before} to {version}"));
            }
            Event::CrashLoop { slot, exits, status, .. } => {
                let text =
                    format!("crash loop in slot {slot}: {exits} workers ended early, the last by {status}");
                self.say(&text, &[]);
            }
            // Whoever waits for the app learns what keeps it.
            Event::Notice { text } if !self.is_ready => self.say(text, &[]),
            Event::Stopping => self.say("stopping", &[NotifyState::Stopping]),
            _ => {}
        }
    }

    /// A reload that it may wait for is refused, and so is over as soon as it has begun.
    pub(crate) fn refused(&mut self, status: &str) {
        // One that is under way says itself when it is over.
        let is_over = !self.is_under_way;
        self.reloading(status);
        if is_over {
            self.reloaded(status);
        }
    }

    /// Its last word.
    pub(crate) fn conclude(&mut self, status: &str) {
        self.say(status, &[NotifyState::Stopping]);
    }

    fn reloading(&mut self, status: &str) {
        self.is_under_way = true;
        match NotifyState::monotonic_usec_now() {
            Ok(now) if self.is_ready => self.say(status, &[NotifyState::Reloading, now]),
            _ => self.say(status, &[]),
        }
    }

    fn reloaded(&mut self, status: &str) {
        self.is_under_way = false;
        if self.is_ready {
            self.say(status, &[NotifyState::Ready]);
        } else {
            self.say(status, &[]);
        }
    }

    fn say(&self, status: &str, words: &[NotifyState<'_>]) {
        if let Some(post) = &self.post {
            let status = in_a_line(status);
            let words: Vec<_> = words.iter().cloned().chain([NotifyState::Status(&status)]).collect();
            post.send(letter(&words), None);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.abort();
        }
    }
}

/// Gives a sign of life twice as often as is wanted, from the task that everything else runs on: if that stands still, so
/// does this.
async fn beat(post: Post, limit: Duration) {
    let mut due = tokio::time::interval(limit / 2);
    loop {
        due.tick().await;
        // Where there is no room for it, there are signs of life enough that were not read.
        let _ = post.send_now(&letter(&[NotifyState::Watchdog]), None);
    }
}

/// Something that an app says of itself, on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Ready,
    Status(String),
    Other,
}

impl Word {
    /// The status that it is, if it is one.
    pub(crate) fn into_status(self) -> Option<String> {
        if let Self::Status(status) = self { Some(status) } else { None }
    }

    /// Reads a datagram: the status first, wherever it stands.
    pub(crate) fn read(datagram: &[u8]) -> Vec<Self> {
        let text = String::from_utf8_lossy(datagram);
        let mut words: Vec<Self> = text
            .lines()
            .map(|line| match line.split_once('=') {
                Some(("READY", "1")) => Self::Ready,
                Some(("STATUS", status)) => Self::Status(status.to_owned()),
                _ => Self::Other,
            })
            .collect();
        words.sort_by_key(|word| matches!(word, Self::Ready));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::{Word, in_a_line};

    #[test]
    fn a_status_can_say_nothing_else() {
        assert_eq!(in_a_line("no good: x\nMAINPID=1\r\n"), "no good: x MAINPID=1");
    }

    #[test]
    fn the_status_is_read_before_the_readiness_that_it_is_about() {
        let words = Word::read(b"READY=1\nX=2\nSTATUS=4 workers = ready\n");
        assert_eq!(words, [Word::Other, Word::Status("4 workers = ready".into()), Word::Ready]);
        assert_eq!(Word::read(b"READY=0"), [Word::Other]);
    }
}
