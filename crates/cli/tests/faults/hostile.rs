//! Workers that mistreat the channel to their primary, each beside a good one: it goes on serving as if nothing was, and
//! what the primary spends on the other is bounded.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpListener};

use allcores_testing::address::unused;
use allcores_testing::app::RunningApp;
use allcores_testing::load::Load;
use allcores_testing::process::Event;
use allcores_testing::runtimes::{Runtime, fixture, require};

use crate::support::{LONG, app, bad, bad_node, has, status_line, stop};

/// What the primary of this build may have been in memory at most, in MiB, where nobody may have it keep anything.
const SMALL: u64 = 48;

/// The same where a line may be 64 MiB long: it is kept until it is whole, in twice as much as it needs at worst, and
/// then copied.
const LARGE: u64 = SMALL + 3 * 64;

/// An app of two workers, of which one does this and the other is a node server.
struct Beside {
    app: RunningApp,
    address: SocketAddr,
    good: u32,
}

impl Beside {
    /// `None` where there is no node.
    fn start(hostile: &str, policy: &str) -> Option<Self> {
        Self::start_with(hostile, policy, |app| app)
    }

    fn start_with(
        hostile: &str,
        policy: &str,
        change: impl FnOnce(allcores_testing::app::App) -> allcores_testing::app::App,
    ) -> Option<Self> {
        let node = require(Runtime::Node)?.program().unwrap();
        let address = unused();
        let command = [bad("hostile/node.py").into(), fixture("node-http/server.js").into_os_string()];
        let app = app::<OsString>(command).address(address).env("NODE", node).env("HOSTILE", hostile);
        Some(Self::ready(change(app.policy(policy)).env("PYTHONDONTWRITEBYTECODE", "1"), address))
    }

    fn ready(app: allcores_testing::app::App, address: SocketAddr) -> Self {
        // Most of those workers do not go when they are asked to.
        let app = app.workers(2).option("--kill-timeout=200ms").start().unwrap();
        let is_good = |event: &Event| event.kind() == "ready" && event.slot() == Some(1);
        let ready = app.wait_for(is_good, LONG).unwrap_or_else(|error| panic!("{error:#}"));
        Self { app, address, good: ready.worker_pid().unwrap() }
    }

    /// Waits for what the hostile worker prints.
    fn hears(&self, what: &str) -> serde_json::Value {
        let said = |event: &Event| {
            let line = event.value["line"].as_str()?;
            serde_json::from_str::<serde_json::Value>(line).ok().filter(|said| said["hostile"] == what)
        };
        let event = self.app.wait_for(|event| said(event).is_some(), LONG);
        said(&event.unwrap_or_else(|error| panic!("{error:#}"))).unwrap()
    }

    fn notice(&self, parts: &[&str]) {
        let is_it = |event: &Event| {
            let text = event.value["text"].as_str().unwrap_or_default();
            event.kind() == "notice" && text.contains(parts[0])
        };
        let notice = self.app.wait_for(is_it, LONG).unwrap_or_else(|error| panic!("{error:#}"));
        has(notice.value["text"].as_str().unwrap(), parts);
    }

    /// Claims that the good worker, and no other, answers many requests, and the primary questions.
    #[track_caller]
    fn others_are_served(&self) {
        let report = Load::new(self.address).clients(4).requests(300).run_blocking();
        let served = report.by_body.keys().map(String::as_str).collect::<Vec<_>>();
        assert!(report.is_clean() && served == [self.good.to_string()], "{report}");
        let status = self.app.status().unwrap();
        let good = status["workers"].as_array().unwrap().iter().find(|worker| worker["pid"] == self.good);
        assert!(good.is_some_and(|good| good["state"] == "ready"), "{status:#}");
    }

    /// Claims that the primary has never had more memory than this, in MiB, and ends it.
    #[track_caller]
    fn ends_below(self, most: u64) {
        let peak = peak_mib(self.app.pid());
        eprintln!("the primary's memory at its peak: {peak} MiB");
        assert!(peak <= most, "{peak} MiB");
        assert!(fs::metadata(format!("/proc/{}", self.good)).is_ok(), "the good worker went");
        stop(&self.app);
    }
}

/// The most memory that a process has had, in MiB.
fn peak_mib(pid: u32) -> u64 {
    let peak = status_line(pid, "VmHWM");
    peak.trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn one_that_never_reads_is_hung_up_on_and_told_to_go() {
    let Some(beside) = Beside::start("never_reads", "round-robin") else { return };
    beside.notice(&["has not read its channel", "4 MiB", "slot 0"]);
    let gone = beside.app.wait_for(|event| event.kind() == "exited", LONG).unwrap();
    assert_eq!(gone.slot(), Some(0));
    beside.others_are_served();
    beside.ends_below(SMALL);
}

#[test]
fn one_that_was_hung_up_on_and_does_not_go_is_killed() {
    let start = |app: allcores_testing::app::App| app.env("STUBBORN", "1");
    let Some(beside) = Beside::start_with("never_reads", "lanes", start) else { return };
    beside.notice(&["has not read its channel"]);
    beside.hears("told_to_go");
    let gone = beside.app.wait_for(|event| event.kind() == "exited", LONG).unwrap();
    assert_eq!((gone.slot(), gone.value["signal"].as_str()), (Some(0), Some("SIGKILL")), "{:#}", gone.value);
    beside.others_are_served();
    beside.ends_below(SMALL);
}

#[test]
fn one_that_floods_the_channel_costs_others_nothing() {
    let Some(beside) = Beside::start("floods", "round-robin") else { return };
    beside.hears("begun");
    beside.others_are_served();
    beside.ends_below(SMALL);
}

#[test]
fn a_real_node_that_floods_the_channel_costs_others_nothing() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let address = unused();
    let beside = Beside::ready(bad_node("floods.js", address).policy("round-robin"), address);
    beside.hears("begun");
    beside.others_are_served();
    beside.ends_below(SMALL);
}

#[test]
fn one_that_asks_again_and_again_for_what_a_stranger_has_is_told_of_once() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port().to_string();
    let start = |app: allcores_testing::app::App| app.env("STRANGER", port);
    let Some(beside) = Beside::start_with("asks_in_vain", "round-robin", start) else { return };
    beside.hears("begun");
    beside.others_are_served();
    let told = |event: &Event| event.kind() == "address_unavailable";
    let first = beside.app.wait_for(told, LONG).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(first.value["holder"]["pid"], std::process::id(), "{:#}", first.value);
    assert_eq!(beside.app.events().iter().filter(|event| told(event)).count(), 1);
    beside.ends_below(SMALL);
}

#[test]
fn one_that_stops_within_a_message_costs_others_nothing() {
    let Some(beside) = Beside::start("half_a_message", "round-robin") else { return };
    beside.hears("done");
    beside.others_are_served();
    beside.ends_below(SMALL);
}

#[test]
fn one_that_writes_a_gigabyte_without_a_line_end_is_hung_up_on() {
    let Some(beside) = Beside::start("long_line", "round-robin") else { return };
    beside.notice(&["a line of more than 67108864 bytes"]);
    beside.others_are_served();
    beside.ends_below(LARGE);
}

#[test]
fn one_that_sends_the_longest_messages_costs_others_nothing() {
    let Some(beside) = Beside::start("long_messages", "round-robin") else { return };
    beside.others_are_served();
    beside.hears("done");
    beside.ends_below(LARGE);
}

#[test]
fn one_that_closes_its_channel_costs_others_nothing() {
    for hostile in ["closes", "closes_half"] {
        let Some(beside) = Beside::start(hostile, "round-robin") else { return };
        beside.hears("done");
        beside.others_are_served();
        beside.ends_below(SMALL);
    }
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let Some(beside) = Beside::start("descriptors", "round-robin") else { return };
    let said = beside.hears("answered");
    assert_eq!((&said["NODE_HANDLE_ACK"], &said["NODE_HANDLE_NACK"]), (&600.into(), &300.into()), "{said}");
    let fresh = Beside::start("half_a_message", "round-robin").unwrap();
    fresh.hears("done");
    let (after, usual) = (descriptors(beside.app.pid()), descriptors(fresh.app.pid()));
    assert!(after <= usual + 2, "{after} instead of {usual}");
    stop(&fresh.app);
    beside.others_are_served();
    beside.ends_below(SMALL);
}

/// Asks for three thousand listeners, and gets a thousand and twenty-four.
fn has_enough(policy: &str) {
    let Some(beside) = Beside::start("listeners", policy) else { return };
    let before = descriptors(beside.app.pid());
    let refused = beside.hears("refused");
    assert_eq!((&refused["had"], &refused["errno"]), (&1024.into(), &serde_json::json!([-24])), "{refused}");
    beside.notice(&["it has 1024 listeners, and no worker may have more", "slot 0"]);
    let notices = beside.app.events();
    let limits = notices
        .iter()
        .filter(|event| event.value["text"].as_str().is_some_and(|text| text.contains("listeners, and no")));
    assert_eq!(limits.count(), 1);
    let after = descriptors(beside.app.pid());
    // A lane, and where one may be handed connections a queue for when all are busy.
    assert!(after <= before + 2 * 1024, "{before}, {after}");
    beside.others_are_served();
    beside.ends_below(SMALL);
}

#[test]
fn one_that_asks_for_listeners_without_end_has_enough_lanes_some_day() {
    has_enough("lanes");
}

#[test]
fn one_that_asks_for_listeners_without_end_has_enough_of_the_primarys_some_day() {
    has_enough("round-robin");
}

#[test]
fn one_that_answers_for_what_it_was_not_handed_is_not_believed() {
    let Some(beside) = Beside::start("lies", "round-robin") else { return };
    beside.hears("done");
    beside.others_are_served();
    beside.ends_below(SMALL);
}

#[test]
fn one_that_sends_all_back_leaves_it_to_the_other() {
    let Some(beside) = Beside::start("refuses", "round-robin") else { return };
    beside.hears("listens");
    beside.others_are_served();
    beside.ends_below(SMALL);
}

#[test]
fn what_a_child_of_one_that_is_gone_goes_on_printing_is_not_waited_for() {
    let Some(beside) = Beside::start("shouts", "round-robin") else { return };
    beside.app.wait_for(|event| event.kind() == "exited" && event.slot() == Some(0), LONG).unwrap();
    beside.others_are_served();
    beside.ends_below(SMALL);
}
