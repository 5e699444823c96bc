//! `allcores status`: one app and its workers.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::{ANSWER_PATIENCE, ago, explain, print, print_json, unresponsive};
use crate::args::StatusArgs;
use crate::client::Client;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::paint::{Paint, Tone};
use crate::readable;
use crate::runtime_folder::RuntimeFolder;
use crate::table::{self, Cell, Column};
use crate::view::{ExitView, HealthView, LastExitView, RungView, StateView, StatusView, WorkerView};

/// Asks the app and shows what it says.
pub(super) async fn execute(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let folder = RuntimeFolder::from_env()?.find(&args.name)?;
    let status = match timeout(ANSWER_PATIENCE, Client::new(&folder).status()).await {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return Err(explain(&folder, "status of", error)),
        Err(_) => return Err(unresponsive(&folder, "status of", ANSWER_PATIENCE)),
    };
    if args.json {
        print_json(&status)
    } else {
        print(render(&status, Paint::for_stream(&io::stdout())).as_bytes())
    }
}

/// Shows a whole status.
pub(super) fn render(status: &StatusView, paint: Paint) -> String {
    let mut text = String::new();
    let uptime = ago(&status.since).map(readable::duration).unwrap_or_default();
    let facts = [
        ("listening", listening(status)),
        ("workers", format!("{} of {} ready", status.ready(), status.target)),
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
        let _ = writeln!(text, "  {}  {fact}", paint.tone(Tone::Dim, format_args!("{name:<10}")));
    }
    if status.strays > 0 {
        let _ = writeln!(text, "  {}  {}", paint.tone(Tone::Warning, "strays    "), status.strays);
    }
    if status.output.dropped > 0 {
        let dropped = format!(
            "{} of the workers' output lost",
            readable::count(usize::try_from(status.output.dropped).unwrap_or(usize::MAX), "line")
        );
        let _ = writeln!(text, "  {}  {dropped}", paint.tone(Tone::Warning, "dropped   "));
    }
    if let Some(hint) = &status.hint {
        let _ = writeln!(text, "  {}  {hint}", paint.tone(Tone::Warning, "hint      "));
    }
    if let Some(reason) = status.health.as_ref().and_then(complaint) {
        let _ = writeln!(text, "  {}  {reason}", paint.tone(Tone::Warning, "health    "));
    }
    text.push('\n');
    text.push_str(&workers(&status.workers, paint));
    text.push_str(&remarks(&status.workers, paint));
    text
}

fn upgrades(status: &StatusView) -> String {
    match status.upgrades {
        0 => String::new(),
        1 => ", upgraded once".into(),
        times => format!(", upgraded {times} times"),
    }
}

/// What there is to say about single workers: what fails, and what they say themselves.
fn remarks(workers: &[WorkerView], paint: Paint) -> String {
    let mut text = String::new();
    for worker in workers {
        let name = format!("slot {}, worker {}", worker.slot, worker.id);
        if let Some(reason) = worker.health.as_ref().and_then(complaint) {
            let _ = writeln!(text, "{}: {reason}", paint.tone(Tone::Warning, &name));
        }
        if let Some(status) = &worker.said_status {
            let _ = writeln!(text, "{}: says \u{201c}{status}\u{201d}", paint.tone(Tone::Dim, &name));
        }
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// What is wrong, if anything is.
fn complaint(health: &HealthView) -> Option<String> {
    let reason = health.reason.as_deref().unwrap_or("unknown");
    let checks = readable::count(usize::try_from(health.failures).unwrap_or(usize::MAX), "health check");
    (health.failures > 0).then(|| format!("{checks} failed in a row: {reason}"))
}

/// The addresses, and what waits at each to be handed to a worker.
fn listening(status: &StatusView) -> String {
    if status.listening.is_empty() {
        return "nowhere yet".into();
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

fn workers(workers: &[WorkerView], paint: Paint) -> String {
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
    let rows: Vec<_> = workers.iter().map(row).collect();
    table::render(columns, &rows, paint)
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
        worker.last_exit.as_ref().map_or_else(none, last_exit),
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

fn last_exit(exit: &LastExitView) -> Cell {
    let how = match &exit.status {
        ExitView { signal: Some(signal), .. } => signal.clone(),
        ExitView { code: Some(code), .. } => format!("exit code {code}"),
        ExitView { .. } => "unknown".into(),
    };
    let memory = if exit.oom { ", out of memory" } else { "" };
    let when = ago(&exit.at).map(|age| format!(", {} ago", readable::duration(age))).unwrap_or_default();
    Cell::from(format!("{how}{memory}{when}"))
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::paint::Paint;
    use crate::view::tests::web;

    #[test]
    fn a_status_shows_workers_with_their_last_exit() {
        let text = render(&web(), Paint::off());
        assert!(
            text.starts_with("web\n  listening   127.0.0.1:8080 (2 pending)\n  workers     1 of 2 ready\n"),
            "{text}"
        );
        assert!(text.contains("hint        use shared"), "{text}");
        let worker = text.lines().find(|line| line.contains("SIGKILL, out of memory")).unwrap();
        assert!(text.contains("slot 0, worker 3: 1 health check failed in a row: it answered 500"), "{text}");
        assert!(text.ends_with("slot 0, worker 3: says \u{201c}warm\u{201d}\n"), "{text}");
        assert!(worker.contains("ready   adopted") && worker.contains("48.2 MiB"), "{text}");
    }
}
