//! Who may speak for a worker.

use std::ffi::OsString;

use allcores_core::channel::Serialization;
use allcores_core::policy::Policy;
use allcores_core::pool::PoolSettings;
use allcores_core::worker::Slot;

use super::*;
use crate::primary::launch::Launcher;
use crate::primary::{Host, Output, Reload, Settings, Upkeep};

/// Those of an app that is never started.
pub(in crate::primary::engine) fn settings(uid: Option<u32>) -> Settings {
    Settings {
        name: "test".into(),
        command: vec![OsString::from("true")],
        cwd: None,
        mark: None,
        env: Vec::new(),
        uid,
        gid: None,
        policy: Policy::Auto,
        pending: 1,
        listen: Vec::new(),
        given: Vec::new(),
        pass_given: false,
        adopt: false,
        output: Output::Inherit,
        stop_signal: crate::Signal::TERM,
        host: Host::Process,
        serialization: Serialization::Json,
        inspect_port: None,
        pool: PoolSettings::default(),
        upkeep: Upkeep::default(),
    }
}

#[tokio::test]
async fn who_has_gone_is_believed_as_the_user_of_its_worker() {
    let mut engine = Engine::new(settings(Some(4001)), None, mpsc::channel(1).0, Box::new(|_| {})).unwrap();
    let wish = Reload { settings: Some(Box::new(settings(Some(4002)))), ..Reload::default() };
    engine.generations.begin(2, 1, &wish);
    for (generation, own, other) in [(1, 4001, 4002), (2, 4002, 4001)] {
        let nothing = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let mut worker = Worker::new(Slot(0), WorkerId(generation), generation, std::process::id(), nothing);
        worker.user = engine.generations.of(generation).and_then(Launcher::user);
        // No process has this number.
        let may_speak = |uid| engine.may_speak(&worker, Sender { pid: i32::MAX.unsigned_abs(), uid });
        assert!(may_speak(own) && may_speak(0));
        assert!(!may_speak(other));
    }
}
