//! What workers are made of.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use allcores::{Builder, ClusterSettings, ErrorKind, Event, ExitStatus, Fork, Signal, Stdio};
use allcores_parity::Stage;
use allcores_parity::stage::Seen;
use serde_json::json;

use crate::{WORKER, builder, play, stage, text};

/// cluster-cwd
#[test]
fn cwd() {
    play(async {
        let mut stage = stage(json!(["folder"])).await;
        let folder = tempfile::tempdir().unwrap();
        let ours = std::env::current_dir().unwrap();
        let first = stage.fork().await;
        assert_eq!(stage.message(&first).await, text(&ours));
        stage.cluster.setup(ClusterSettings::new().cwd(folder.path())).unwrap();
        let second = stage.fork().await;
        assert_eq!(stage.message(&second).await, text(folder.path()));
        first.send("folder").unwrap();
        assert_eq!(stage.message(&first).await, text(&ours));
    });
}

/// cluster-fork-env
#[test]
fn fork_env() {
    play(async {
        let script = json!([{ "variable": "PATH" }, { "variable": "HOME" }, { "variable": "OWN" }]);
        let mut stage = stage(script).await;
        let fork = Fork::new().env("HOME", "/nowhere").env("OWN", "its own");
        let worker = stage.cluster.fork_with(fork).await.unwrap();
        assert_eq!(stage.message(&worker).await, std::env::var("PATH").unwrap(), "the primary's");
        assert_eq!(stage.message(&worker).await, "/nowhere", "overridden");
        assert_eq!(stage.message(&worker).await, "its own", "added");
        let other = stage.fork().await;
        stage.message(&other).await;
        stage.message(&other).await;
        assert!(stage.message(&other).await.is_null(), "of that worker alone");
    });
}

/// cluster-fork-stdio, child-process-fork-stdio: the channel is number 3, and what is given follows.
#[test]
fn fork_stdio() {
    play(async {
        let mut stage = stage(json!([{ "pipe": 4 }])).await;
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let worker = stage.cluster.fork_with(Fork::new().descriptor(theirs)).await.unwrap();
        ours.write_all(b"there and back\n").unwrap();
        assert_eq!(stage.message(&worker).await, "there and back\n");
        let mut line = String::new();
        BufReader::new(&ours).read_line(&mut line).unwrap();
        assert_eq!(line, "there and back\n");
        assert_eq!(worker.disconnect().await, ExitStatus::Code(0));
    });
}

/// cluster-setup-primary, child-process-fork-args, child-process-fork-no-shell
#[test]
fn setup_primary() {
    play(async {
        let mut stage = stage(json!([])).await;
        let hostile = "$(exit 1) ; \"quoted\" *";
        let args = [json!(["arguments"]).to_string(), hostile.into()];
        stage.cluster.setup(ClusterSettings::new().args(args.clone()).silent(true)).unwrap();
        let settings = stage.cluster.settings();
        assert_eq!(settings.exec.unwrap(), WORKER);
        assert_eq!(settings.args.unwrap(), args.map(std::ffi::OsString::from));
        assert_eq!(settings.stdio, Some(Stdio::Piped));
        let worker = stage.fork().await;
        assert_eq!(stage.message(&worker).await, json!([hostile]), "as it is, past no shell");
    });
}

/// cluster-setup-primary-cumulative
#[test]
fn setup_primary_cumulative() {
    play(async {
        // Before anything is set: our own program, with our own arguments.
        let cluster = Builder::new().start().await.unwrap();
        let first = cluster.settings();
        assert_eq!(first.exec.unwrap(), std::env::current_exe().unwrap());
        assert_eq!(first.args.unwrap(), std::env::args_os().skip(1).collect::<Vec<_>>());
        assert_eq!((first.stdio, first.cwd), (Some(Stdio::Inherit), None));
        cluster.setup(ClusterSettings::new().exec("overridden").args(["one"])).unwrap();
        cluster.setup(ClusterSettings::new().args(["two"])).unwrap();
        let settings = cluster.settings();
        assert_eq!(
            (settings.exec.unwrap(), settings.args.unwrap()),
            ("overridden".into(), vec!["two".into()])
        );
        let before = cluster.settings();
        cluster.setup(ClusterSettings::new()).unwrap();
        assert_eq!(cluster.settings(), before, "naming nothing changes nothing");
    });
}

/// cluster-setup-primary-emit, cluster-setup-primary-multiple: one event for each call, with what was then current.
#[test]
fn setup_primary_emit() {
    play(async {
        let mut cluster = builder(json!([])).start().await.unwrap();
        for exec in ["one", "two", "three"] {
            cluster.setup(ClusterSettings::new().exec(exec)).unwrap();
        }
        for exec in ["one", "two", "three"] {
            let Some(Event::Setup { settings }) = cluster.next_event().await else {
                panic!("not told of {exec}")
            };
            assert_eq!(settings.exec.unwrap(), exec);
        }
        cluster.stop().await.unwrap();
    });
}

/// child-process-silent
#[test]
fn silent() {
    play(async {
        let script = json!([{ "print": "to stdout" }, { "complain": "to stderr" }, { "say": "by channel" }]);
        let mut stage = Stage::open(builder(script).silent(true)).await;
        let worker = stage.fork().await;
        assert_eq!(stage.message(&worker).await, "by channel");
        for line in ["to stdout", "to stderr"] {
            let seen = Seen::Output(worker.id(), line.into());
            stage.until(line, |all| all.contains(&seen).then_some(())).await;
        }
    });
}

/// child-process-fork-exec-path: another program, whatever it is. One that does not exist is an error of the fork.
#[test]
fn exec_path() {
    play(async {
        let mut stage = Stage::open(Builder::new().exec("sh").args(["-c", "exit 7"])).await;
        let worker = stage.fork().await;
        assert_eq!(stage.gone(&worker).await, ExitStatus::Code(7));
        stage.cluster.setup(ClusterSettings::new().exec("/there/is/none")).unwrap();
        assert_eq!(stage.cluster.fork().await.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(stage.cluster.workers().is_empty());
        stage.cluster.setup(ClusterSettings::new().exec(WORKER)).unwrap();
        let worker = stage.fork().await;
        stage.online(&worker).await;
    });
}

/// child-process-fork-timeout-kill-signal, child-process-fork-abort-signal: as tokio has timeouts.
#[test]
fn timeout_kill_signal() {
    play(async {
        let mut stage = stage(json!(["spin"])).await;
        let worker = stage.fork().await;
        let timeout = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(timeout, worker.exited()).await.is_err());
        worker.kill(Signal::KILL).unwrap();
        assert_eq!(stage.gone(&worker).await, ExitStatus::Signal(9));
    });
}
