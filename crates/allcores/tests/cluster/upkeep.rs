//! What the engine does for workers while they serve, and new versions of them.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use allcores::{
    Builder, Cluster, ClusterSettings, ErrorKind, Event, Health, HealthCheck, Reason, Reload, Signal,
    WorkerHandle, WorkerId,
};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{exists, script, start, until, within};

/// Serves at any port, and answers with what its environment says.
const SERVER: &str = "
const answer = (q, s) => { s.statusCode = q.url === '/ill' ? 500 : 200; s.end(process.env.RELEASE ?? 'first'); };
require('node:http').createServer(answer).listen(0, '127.0.0.1');";

/// Serves, and is well until it is told otherwise.
const FRAIL: &str = "
let isWell = true;
process.on('message', (message) => { isWell = message; });
const answer = (q, s) => { s.statusCode = isWell ? 200 : 500; s.end(); };
require('node:http').createServer(answer).listen(0, '127.0.0.1');";

async fn ready(cluster: &mut Cluster, count: usize) {
    for _ in 0..count {
        until(cluster, |event| matches!(event, Event::Ready { .. }).then_some(())).await;
    }
}

fn ids(cluster: &Cluster) -> Vec<u32> {
    cluster.workers().iter().map(|worker| worker.id().0).collect()
}

/// What a worker's environment says. The kernel shows none in the moment in which a process becomes its program.
fn release(worker: &WorkerHandle) -> Option<String> {
    let read = || std::fs::read(format!("/proc/{}/environ", worker.pid())).unwrap();
    let environment = std::iter::repeat_with(read).find(|environment| !environment.is_empty()).unwrap();
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(b"RELEASE="))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

#[tokio::test]
async fn a_worker_that_fails_its_health_checks_is_told_of_and_replaced() {
    let health = Health::http("/").interval(Duration::from_millis(50)).threshold(2);
    let mut cluster = start(script(FRAIL).workers(2).keep(true).health(health)).await;
    ready(&mut cluster, 2).await;
    let sick = cluster.worker(WorkerId(1)).unwrap();
    sick.send(&false).unwrap();
    let (id, reason) = until(&mut cluster, |event| match event {
        Event::Unhealthy { worker, reason } => Some((worker.id(), reason.clone())),
        _ => None,
    })
    .await;
    assert_eq!(id, sick.id());
    assert!(reason.contains("500"), "{reason}");
    let renewed = until(&mut cluster, |event| match event {
        Event::Renewing { worker, reason } => Some((worker.id(), *reason)),
        _ => None,
    })
    .await;
    assert_eq!(renewed, (sick.id(), Reason::Unhealthy));
    within("the sick one's end", sick.exited()).await;
    within("the stop", cluster.stop()).await.unwrap();
}

/// Checks that take a minute, and the file in which they leave their processes' ids.
fn slow_checks() -> (Health, NamedTempFile) {
    let ids = NamedTempFile::new().unwrap();
    let command = format!("echo $$ >> {}; exec sleep 60", ids.path().display());
    (Health::exec(command).interval(Duration::from_millis(50)), ids)
}

fn ids_in(file: &NamedTempFile) -> Vec<u32> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[tokio::test]
async fn nothing_is_left_of_commands_that_take_too_long() {
    let (health, ids) = slow_checks();
    let cluster = start(script(SERVER).workers(1).health(health.timeout(Duration::from_millis(200)))).await;
    let all_gone = async {
        // One runs at any time.
        while ids_in(&ids).iter().filter(|id| !exists(**id)).count() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the commands' ends", all_gone).await;
    within("the stop", cluster.stop()).await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_of_a_command_that_runs_when_the_cluster_stops() {
    let (health, ids) = slow_checks();
    let cluster = start(script(SERVER).workers(1).health(health.timeout(Duration::from_mins(1)))).await;
    let begun = async {
        while ids_in(&ids).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("a command", begun).await;
    within("the stop", cluster.stop()).await.unwrap();
    assert!(ids_in(&ids).iter().all(|id| !exists(*id)), "a zombie is there still");
}

#[tokio::test]
async fn a_worker_that_never_passes_its_health_check_is_never_ready() {
    let health = Health::http("/ill").interval(Duration::from_millis(50));
    let builder =
        script(SERVER).workers(1).keep(true).health(health).ready_timeout(Duration::from_millis(500));
    let mut cluster = start(builder).await;
    until(&mut cluster, |event| match event {
        Event::Ready { .. } => panic!("it fails its checks"),
        Event::NotReady { worker, limit, .. } => {
            assert_eq!((worker.id(), *limit), (WorkerId(1), Duration::from_millis(500)));
            Some(())
        }
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_is_to_say_so_is_not_ready_before() {
    const LATE: &str = "
process.on('message', () => process.send('ready'));
require('node:http').createServer().listen(0, '127.0.0.1');";
    let mut cluster = start(script(LATE).workers(1).wait_ready(true)).await;
    until(&mut cluster, |event| match event {
        Event::Ready { .. } => panic!("it has not said so"),
        Event::Listening { worker, .. } => Some(worker.send(&"say it").unwrap()),
        _ => None,
    })
    .await;
    ready(&mut cluster, 1).await;
}

#[tokio::test]
async fn a_worker_with_too_much_memory_is_replaced() {
    let mut cluster = start(script(SERVER).workers(1).keep(true).max_memory(1024)).await;
    let reason = until(&mut cluster, |event| match event {
        Event::Renewing { reason, .. } => Some(*reason),
        _ => None,
    })
    .await;
    assert_eq!(reason, Reason::Memory);
}

#[tokio::test]
async fn a_reload_replaces_every_worker_by_the_present_settings() {
    let mut cluster = start(script(SERVER).workers(2).keep(true)).await;
    ready(&mut cluster, 2).await;
    cluster.setup(ClusterSettings::new().env("RELEASE", "second")).unwrap();
    within("the reload", cluster.reload(Reload::new())).await.unwrap();
    assert_eq!(ids(&cluster), [3, 4]);
    for worker in cluster.workers() {
        assert_eq!(release(&worker).as_deref(), Some("second"));
    }
    let mut told = Vec::new();
    until(&mut cluster, |event| {
        told.extend(match event {
            Event::Reloading { generation: 2, slots: 2 } => Some("reloading"),
            Event::Replaced { done: 1, slots: 2, .. } => Some("half of it"),
            Event::Replaced { done: 2, slots: 2, .. } => Some("all of it"),
            _ => None,
        });
        matches!(event, Event::Reloaded { generation: 2, .. }).then_some(())
    })
    .await;
    assert_eq!(told, ["reloading", "half of it", "all of it"]);
}

/// Serves at a port, and answers nobody.
const SILENT: &str = "require('node:http').createServer(() => {}).listen(process.env.PORT, '127.0.0.1');";

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A cluster that was led to another address by a reload, while a worker that was disconnected before has a client still.
async fn moved(builder: Builder, from: SocketAddr, to: SocketAddr) -> (Cluster, WorkerHandle, TcpStream) {
    let port = |address: SocketAddr| address.port().to_string();
    let mut cluster = start(builder.env("PORT", port(from)).workers(1).keep(true)).await;
    ready(&mut cluster, 1).await;
    let mut client = TcpStream::connect(from).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // Until it has it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let left = cluster.workers()[0].clone();
    drop(left.disconnect());
    ready(&mut cluster, 1).await;
    cluster.setup(ClusterSettings::new().env("PORT", port(to))).unwrap();
    within("the reload", cluster.reload(Reload::new().may_move(true))).await.unwrap();
    until(&mut cluster, |event| matches!(event, Event::Reloaded { .. }).then_some(())).await;
    assert!(!left.is_dead());
    (cluster, left, client)
}

#[tokio::test]
async fn an_address_that_a_reload_leaves_is_free_when_the_last_has_gone_who_listened_there() {
    let (from, to) = (free_address(), free_address());
    let (cluster, left, client) = moved(script(SILENT), from, to).await;
    drop(client);
    within("its end", left.exited()).await;
    std::net::TcpListener::bind(from).expect("nobody listens there any more");
    within("the stop", cluster.stop()).await.unwrap();
}

#[tokio::test]
async fn nobody_has_to_listen_where_one_does_that_was_let_go() {
    let (from, to) = (free_address(), free_address());
    // It knows nothing of its channel, and listens until it has gone; if need be by itself.
    let code = format!("process.on('SIGTERM', () => {{}}); setTimeout(process.exit, 60000); {SILENT}");
    let words = ["-u", "NODE_UNIQUE_ID", "-u", "NODE_CHANNEL_FD", "node", "-e", &code];
    let builder = Builder::new().exec("env").args(words).adopt(true);
    let (mut cluster, left, _client) = moved(builder, from, to).await;
    let worker = |cluster: &Cluster| cluster.workers().into_iter().find(|worker| *worker != left).unwrap();
    worker(&cluster).kill(Signal::KILL).unwrap();
    ready(&mut cluster, 1).await;
    within("another reload", cluster.reload(Reload::new())).await.unwrap();
    assert!(!left.is_dead());
    left.kill(Signal::KILL).unwrap();
    within("the stop", cluster.stop()).await.unwrap();
}

/// Waits until a reload is under way.
async fn reloading(cluster: &Cluster) {
    let mut events = cluster.events();
    while !matches!(within("a reload", events.next()).await, Some(Event::Reloading { .. })) {}
}

#[tokio::test]
async fn settings_that_change_during_a_reload_hold_after_it() {
    let mut cluster = start(script(SERVER).workers(1).keep(true)).await;
    ready(&mut cluster, 1).await;
    cluster.setup(ClusterSettings::new().env("RELEASE", "second")).unwrap();
    let third = async {
        reloading(&cluster).await;
        cluster.setup(ClusterSettings::new().env("RELEASE", "third")).unwrap();
    };
    within("the reload", async { tokio::join!(third, cluster.reload(Reload::new())) }).await.1.unwrap();
    assert_eq!(release(&cluster.workers()[0]).as_deref(), Some("second"));
    let forked = within("a fork", cluster.fork()).await.unwrap();
    assert_eq!(release(&forked).as_deref(), Some("third"));
}

#[tokio::test]
async fn a_reload_that_waits_for_another_brings_the_settings_of_its_time() {
    let mut cluster = start(script(SERVER).workers(1).keep(true)).await;
    ready(&mut cluster, 1).await;
    cluster.setup(ClusterSettings::new().env("RELEASE", "second")).unwrap();
    let next = async {
        reloading(&cluster).await;
        cluster.setup(ClusterSettings::new().env("RELEASE", "third")).unwrap();
        cluster.reload(Reload::new()).await
    };
    let both = within("both reloads", async { tokio::join!(next, cluster.reload(Reload::new())) }).await;
    assert!(matches!(both, (Ok(()), Ok(()))), "{both:?}");
    assert_eq!(release(&cluster.workers()[0]).as_deref(), Some("third"));
    let forked = within("a fork", cluster.fork()).await.unwrap();
    assert_eq!(release(&forked).as_deref(), Some("third"));
}

#[tokio::test]
async fn a_cluster_whose_workers_are_sent_away_reloads_nothing() {
    let mut cluster = start(script(SERVER).workers(1).keep(true)).await;
    ready(&mut cluster, 1).await;
    let next = async {
        reloading(&cluster).await;
        tokio::join!(cluster.reload(Reload::new()), cluster.disconnect()).0
    };
    let both = within("both answers", async { tokio::join!(next, cluster.reload(Reload::new())) }).await;
    for result in <[_; 2]>::from(both) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreached);
        assert_eq!(error.source().unwrap().to_string(), "they were all disconnected");
    }
    cluster.fork().await.unwrap();
    within("another reload", cluster.reload(Reload::new())).await.unwrap();
}

#[tokio::test]
async fn what_a_failed_reload_puts_back_is_as_it_was_before_the_settings_changed() {
    // The second new worker is no good, so the first one's slot is put back.
    const FAILS: &str = "if (process.env.NODE_APP_INSTANCE === '1') process.exit(3);";
    let mut cluster = start(script(SERVER).workers(2).keep(true)).await;
    ready(&mut cluster, 2).await;
    let good = cluster.settings();
    let bad = ClusterSettings::new().args(["-e", &format!("{FAILS}{SERVER}"), "worker"]);
    cluster.setup(bad).unwrap();
    let error = within("the reload", cluster.reload(Reload::new())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReloadFailed);
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("(slot 1)") && why.contains("exit code 3"), "{why}");
    let command = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let commands: Vec<_> = cluster.workers().iter().map(|worker| command(worker.pid())).collect();
    assert_eq!(commands.len(), 2);
    assert_eq!(commands[0], commands[1], "what was put back is what is there");
    assert!(!String::from_utf8_lossy(&commands[0]).contains("exit(3)"));
    // Settings are what was set, and hold for what is forked.
    assert_ne!(format!("{:?}", cluster.settings()), format!("{good:?}"));
    let failed = until(&mut cluster, |event| match event {
        Event::ReloadFailed { failure } => Some((failure.generation, failure.slot.0)),
        _ => None,
    })
    .await;
    assert_eq!(failed, (2, 1));
    cluster.setup(good).unwrap();
    within("another reload", cluster.reload(Reload::new().surge(2))).await.unwrap();
}

#[tokio::test]
async fn a_cluster_that_keeps_nobody_has_nothing_to_reload() {
    let cluster = start(script(SERVER).workers(1)).await;
    let error = within("an answer", cluster.reload(Reload::new())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("keep"));
}

#[test]
fn checks_are_as_the_command_lines_are() {
    let health = Health::tcp();
    assert_eq!((health.check, health.timeout), (HealthCheck::Tcp, Duration::from_secs(2)));
    let health = Health::exec("true").timeout(Duration::from_secs(1)).threshold(7);
    assert_eq!((health.timeout, health.settings.threshold), (Duration::from_secs(1), 7));
}
