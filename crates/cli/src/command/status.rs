//! `allcores status`: one app and its workers.

use std::fmt::{Display, Write as _};
use std::io;
use std::time::{Duration, SystemTime};

use super::{ANSWER_PATIENCE, ago, ask, print, print_json};
use crate::args::StatusArgs;
use crate::client::Client;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::paint::{Paint, Tone};
use crate::readable;
use crate::runtime_folder::RuntimeFolder;
use crate::screen;
use crate::table::{Cell, Column, Table};
use crate::view::{
    ExitView, FailedReloadView, HealthView, LastExitView, RungView, StateView, StatusView, WorkerView,
};

/// Asks the app and shows what it says.
pub(super) async fn execute(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let folder = RuntimeFolder::from_env()?.find(&args.name)?;
    let status = ask(&folder, "status of", ANSWER_PATIENCE, Client::new(&folder).status()).await?;
    if args.json {
        print_json(&status)
    } else {
        let stdout = io::stdout();
        print(render(&status, Paint::for_stream(&stdout), screen::width(&stdout)).as_bytes())
    }
}

/// Shows a whole status.
pub(super) fn render(status: &StatusView, paint: Paint, width: Option<usize>) -> String {
    let mut text = String::new();
    let uptime = ago(&status.since).map(readable::duration).unwrap_or_default();
    let facts = [
        ("listening", listening(status)),
        (
            "workers",
            format!(
                "{} of {} ready{}",
                status.ready(),
                status.target,
                if status.stopping { "; stopping" } else { "" }
            ),
        ),
        ("policy", status.policy.0.to_string()),
        (
            "primary",
            format!("pid {}, up {uptime}, allcores {}{}", status.pid, status.version, upgrades(status)),
        ),
        ("generation", status.generation.to_string()),
    ];
    // Writing to a string can't fail.
    let _ = writeln!(text, "{}", paint.tone(Tone::Bold, &status.name));
    for (name, fact) in facts {
        fact_line(&mut text, paint.tone(Tone::Dim, format_args!("{name:<10}")), &fact, width);
    }
    if status.strays > 0 {
        let _ = writeln!(text, "  {}  {}", paint.tone(Tone::Warning, "strays    "), status.strays);
    }
    if status.output.dropped > 0 {
        let mut dropped =
            format!("{} of the workers' output lost", readable::count(status.output.dropped, "line"));
        if let (Some(reason), Some(log)) = (&status.output.reason, &status.output.log) {
            let _ = write!(dropped, "; {log} could not be written: {reason}");
        }
        fact_line(&mut text, paint.tone(Tone::Warning, "dropped   "), &dropped, width);
    }
    if let Some(FailedReloadView { at, reason }) = &status.failed_reload {
        let when = ago(at).map(|age| format!("{} ago", readable::duration(age)));
        let failed = format!("the last one failed {}: {reason}", when.as_ref().unwrap_or(at));
        fact_line(&mut text, paint.tone(Tone::Warning, "reload    "), &failed, width);
    }
    if let Some(hint) = &status.hint {
        fact_line(&mut text, paint.tone(Tone::Warning, "hint      "), hint, width);
    }
    if let Some(reason) = status.health.as_ref().and_then(complaint) {
        fact_line(&mut text, paint.tone(Tone::Warning, "health    "), &reason, width);
    }
    text.push('\n');
    let mut table = workers(&status.workers);
    table.fit(width, &EXPENDABLE);
    text.push_str(&table.render(paint));
    text.push_str(&remarks(&status.workers, table.shows(LAST_EXIT), paint, width));
    text
}

/// A fact beside its name; what does not fit goes on below.
fn fact_line(text: &mut String, name: impl Display, fact: &str, width: Option<usize>) {
    // Writing to a string can't fail.
    let _ = writeln!(text, "  {name}  {}", screen::wrap(fact, 14, width));
}

fn upgrades(status: &StatusView) -> String {
    match status.upgrades {
        0 => String::new(),
        1 => ", upgraded once".into(),
        times => format!(", upgraded {times} times"),
    }
}

/// What there is to say about single workers: what fails, what they say themselves, and what the table has no room for.
fn remarks(workers: &[WorkerView], has_exits: bool, paint: Paint, width: Option<usize>) -> String {
    let mut text = String::new();
    for worker in workers {
        let name = format!("slot {}, worker {}", worker.slot, worker.id);
        if let Some(reason) = worker.health.as_ref().and_then(complaint) {
            let reason = screen::wrap(&reason, name.len() + 2, width);
            let _ = writeln!(text, "{}: {reason}", paint.tone(Tone::Warning, &name));
        }
        if let Some(status) = &worker.said_status {
            let says = screen::wrap(&format!("says \u{201c}{status}\u{201d}"), name.len() + 2, width);
            let _ = writeln!(text, "{}: {says}", paint.tone(Tone::Dim, &name));
        }
        let slot = format!("slot {}", worker.slot);
        if let Some(outlook) = outlook(worker) {
            let outlook = screen::wrap(&outlook, slot.len() + 2, width);
            let _ = writeln!(text, "{}: {outlook}", paint.tone(Tone::Bad, &slot));
        }
        if let Some(exit) = worker.last_exit.as_ref().filter(|_| !has_exits) {
            let exit = format!("the worker before ended by {}", ended_by(exit));
            let exit = screen::wrap(&exit, slot.len() + 2, width);
            let _ = writeln!(text, "{}: {exit}", paint.tone(Tone::Dim, &slot));
        }
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// What becomes of a slot whose workers do not live.
fn outlook(worker: &WorkerView) -> Option<String> {
    let next = worker.respawn_at.as_deref().map(|at| {
        let at = humantime::parse_rfc3339(at).ok();
        let wait = at.and_then(|at| at.duration_since(SystemTime::now()).ok()).unwrap_or_default();
        format!("it gets a new worker in {}", readable::duration(wait))
    });
    match (worker.crash_loop, next) {
        (false, next) => next,
        (true, None) => Some("crash loop: one worker after another has ended early".into()),
        (true, Some(next)) => Some(format!("crash loop: one worker after another has ended early; {next}")),
    }
}

/// What is wrong, if anything is.
fn complaint(health: &HealthView) -> Option<String> {
    let reason = health.reason.as_deref().unwrap_or("unknown");
    let checks = readable::count(health.failures, "health check");
    (health.failures > 0).then(|| format!("{checks} failed in a row: {reason}"))
}

/// The addresses, and what waits at each to be handed to a worker.
fn listening(status: &StatusView) -> String {
    if status.listening.is_empty() {
        return if status.ready() > 0 { "nowhere" } else { "nowhere yet" }.into();
    }
    let pending = |address: &str| {
        let view = status.addresses.iter().find(|view| view.address == address)?;
        view.pending.filter(|count| *count > 0)
    };
    let show = |address: &String| match pending(address) {
        Some(count) => format!("{address} ({count} pending)"),
        None => address.clone(),
    };
    status.listening.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// Which column is the last.
const LAST_EXIT: usize = 10;

/// What leaves the table where it does not fit: LAST EXIT, which then is said below; BY, CPU and ID.
const EXPENDABLE: [usize; 4] = [LAST_EXIT, 4, 8, 1];

fn workers(workers: &[WorkerView]) -> Table<11> {
    let columns = [
        Column::Right("SLOT"),
        Column::Right("ID"),
        Column::Right("PID"),
        Column::Left("STATE"),
        Column::Left("BY"),
        Column::Right("SINCE"),
        Column::Right("RESTARTS"),
        Column::Right("MEMORY"),
        Column::Right("CPU"),
        Column::Right("QUEUE"),
        Column::Left("LAST EXIT"),
    ];
    Table::new(columns, workers.iter().map(row).collect())
}

fn row(worker: &WorkerView) -> [Cell; 11] {
    let none = || Cell::new("-", Tone::Dim);
    let cpu = worker.cpu_seconds.and_then(|cpu| Duration::try_from_secs_f64(cpu).ok());
    [
        Cell::new(worker.slot.to_string(), Tone::Slot(worker.slot)),
        worker.id.into(),
        worker.pid.map_or_else(none, Cell::from),
        state(worker.state),
        worker.rung.map_or_else(none, |rung| Cell::from(self::rung(rung))),
        ago(&worker.since).map_or_else(none, |age| readable::duration(age).into()),
        worker.restarts.into(),
        worker.rss_bytes.map_or_else(none, |bytes| readable::bytes(bytes).into()),
        cpu.map_or_else(none, |cpu| readable::duration(cpu).into()),
        queue(worker),
        worker.last_exit.as_ref().map_or_else(none, |exit| ended_by(exit).into()),
    ]
}

fn state(state: StateView) -> Cell {
    let (text, tone) = match state {
        StateView::Starting => ("starting", Tone::Dim),
        StateView::Online => ("online", Tone::Plain),
        StateView::Listening => ("listening", Tone::Plain),
        StateView::Ready => ("ready", Tone::Good),
        StateView::Hung => ("hung", Tone::Bad),
        StateView::Draining => ("draining", Tone::Warning),
        StateView::Exited => ("exited", Tone::Bad),
    };
    Cell::new(text, tone)
}

fn rung(rung: RungView) -> &'static str {
    match rung {
        RungView::Crate => "crate",
        RungView::Node => "node",
        RungView::Adopted => "adopted",
        RungView::Inherited => "inherited",
    }
}

/// The connections that wait, over all its lanes.
fn queue(worker: &WorkerView) -> Cell {
    match worker.lanes.iter().filter_map(|lane| lane.depth).reduce(u32::saturating_add) {
        None => Cell::new("-", Tone::Dim),
        Some(0) => Cell::from(0),
        Some(depth) => Cell::new(depth.to_string(), Tone::Warning),
    }
}

fn ended_by(exit: &LastExitView) -> String {
    let how = match &exit.status {
        ExitView { signal: Some(signal), .. } => signal.clone(),
        ExitView { code: Some(code), .. } => format!("exit code {code}"),
        ExitView { .. } => "unknown".into(),
    };
    let memory = if exit.oom { ", out of memory" } else { "" };
    let when = ago(&exit.at).map(|age| format!(", {} ago", readable::duration(age))).unwrap_or_default();
    format!("{how}{memory}{when}")
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::paint::Paint;
    use crate::view::tests::web;
    use crate::view::{StateView, StatusView};

    #[test]
    fn a_status_shows_workers_with_their_last_exit() {
        let text = render(&web(), Paint::off(), None);
        assert!(
            text.starts_with("web\n  listening   127.0.0.1:8080 (2 pending)\n  workers     1 of 2 ready\n"),
            "{text}"
        );
        assert!(text.contains("hint        use shared"), "{text}");
        let worker = text.lines().find(|line| line.contains("SIGKILL, out of memory")).unwrap();
        assert!(text.contains("slot 0, worker 3: 1 health check failed in a row: it answered 500"), "{text}");
        assert!(text.contains("slot 0, worker 3: says \u{201c}warm\u{201d}\n"), "{text}");
        assert!(
            text.contains(
                "slot 1: crash loop: one worker after another has ended early; it gets a new worker in 0"
            ),
            "{text}"
        );
        assert!(
            text.contains(" ago: too slow\n") && text.contains("  reload      the last one failed "),
            "{text}"
        );
        assert!(worker.contains("ready   adopted") && worker.contains("48.2 MiB"), "{text}");
    }

    #[test]
    fn a_status_says_why_lines_were_lost_where_that_is_known() {
        let mut status = web();
        status.output.dropped = 1;
        assert!(
            render(&status, Paint::off(), None).contains("dropped     1 line of the workers' output lost\n")
        );
        status.output.log = Some("/var/log/web.log".into());
        status.output.reason = Some("No space left on device (os error 28)".into());
        let text = render(&status, Paint::off(), None);
        let why =
            "output lost; /var/log/web.log could not be written: No space left on device (os error 28)\n";
        assert!(text.contains(why), "{text}");
    }

    /// As wide as it gets: many addresses, large numbers, long words.
    fn crowded() -> StatusView {
        let mut status = web();
        status.name = "a-name-that-somebody-took-from-the-address-of-a-repository".into();
        status.listening =
            (0..9).map(|port| format!("[2001:db8:1234:5678:9abc:def0:1234:{port}]:54321")).collect();
        status.hint = Some("so many words that they go on and on ".repeat(5).trim_end().into());
        status.strays = u64::MAX;
        for worker in &mut status.workers {
            (worker.id, worker.pid, worker.restarts) = (4_000_000, Some(4_194_304), 123_456);
            (worker.rss_bytes, worker.cpu_seconds) = (Some(1_099_000_000_000), Some(9_999_999.0));
            worker.state = StateView::Listening;
            worker.since = "2020-01-01T00:00:00.000Z".into();
        }
        status
    }

    #[test]
    fn a_status_fits_eighty_columns_and_leaves_no_exit_out() {
        let text = render(&crowded(), Paint::off(), Some(80));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}\n{text}");
        }
        for part in ["RESTARTS", "123456", "[2001:db8:1234:5678:9abc:def0:1234:8]:54321", "ended by SIGKILL"]
        {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn what_goes_to_a_pipe_is_whole() {
        let text = render(&crowded(), Paint::off(), None);
        assert!(text.contains("LAST EXIT") && text.contains("0]:54321, [2001"), "{text}");
    }
}
