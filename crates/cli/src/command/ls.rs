//! `allcores ls`: the apps of this user, those that run and those that were stopped.

use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ANSWER_PATIENCE, ago, not_running, print, print_json};
use crate::args::LsArgs;
use crate::client::{Client, RequestError};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::paint::{Paint, Tone};
use crate::readable;
use crate::runtime_folder::{AppFolder, Presence, RuntimeFolder};
use crate::screen;
use crate::settings::AppName;
use crate::state_folder::StateFolder;
use crate::table::{Cell, Column, Table};
use crate::target::Target;
use crate::view::StatusView;

/// One app of the list.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum App {
    Answered(Box<StatusView>),
    Silent {
        name: String,
        /// As its lock file says.
        pid: Option<u32>,
        error: String,
    },
    Stopped {
        name: String,
        stopped: bool,
        /// Its primary was, and could not clear up.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        killed: bool,
        /// The processes that it has left.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        left: Vec<u32>,
    },
}

impl App {
    fn name(&self) -> &str {
        match self {
            Self::Answered(status) => &status.name,
            Self::Silent { name, .. } | Self::Stopped { name, .. } => name,
        }
    }

    /// Whether nothing of it runs.
    fn is_over(&self) -> bool {
        matches!(self, Self::Stopped { left, .. } if left.is_empty())
    }
}

/// Asks all apps at once, and lists them by name.
pub(super) async fn execute(args: &LsArgs) -> Result<ExitCode, Failure> {
    let mut asked = JoinSet::new();
    let runtime = RuntimeFolder::from_env()?;
    for folder in runtime.apps()? {
        asked.spawn(ask(folder));
    }
    let mut apps: Vec<App> = asked.join_all().await.into_iter().flatten().collect();
    let known = StateFolder::find()?.map_or_else(|| Ok(Vec::new()), |state| state.names())?;
    let is_known = |app: &App| known.iter().any(|name| name.as_str() == app.name());
    apps.retain(|app| !app.is_over() || is_known(app));
    let is_listed = |name: &AppName, apps: &[App]| apps.iter().any(|app| app.name() == name.as_str());
    for name in &known {
        if !is_listed(name, &apps) {
            apps.push(App::Stopped {
                name: name.to_string(),
                stopped: true,
                killed: false,
                left: Vec::new(),
            });
        }
    }
    apps.sort_by(|one, other| one.name().cmp(other.name()));
    if let Some(names) = only(&args.names) {
        if let Some(unknown) = names.iter().find(|name| !is_listed(name, &apps)) {
            return Err(not_running(&runtime.find(unknown)?, "ls"));
        }
        apps.retain(|app| names.iter().any(|name| name.as_str() == app.name()));
    }
    if args.json {
        print_json(&apps)
    } else if apps.is_empty() {
        // A hint for people on stderr: stdout stays empty, for programs.
        screen::tell("no app is running; start one: allcores run -- COMMAND, or allcores start");
        Ok(ExitCode::Success)
    } else {
        let stdout = io::stdout();
        print(render(&apps, Paint::for_stream(&stdout), screen::width(&stdout)).as_bytes())
    }
}

/// The apps that were named; `None` if all are meant.
fn only(targets: &[Target]) -> Option<Vec<&AppName>> {
    let name = |target| match target {
        &Target::All => None,
        Target::App(name) => Some(name),
    };
    targets.iter().map(name).collect::<Option<Vec<_>>>().filter(|names| !names.is_empty())
}

/// `None` for one that is not there any more.
async fn ask(folder: AppFolder) -> Option<App> {
    let silent =
        |error: String| Some(App::Silent { name: folder.name().to_string(), pid: folder.holder(), error });
    match timeout(ANSWER_PATIENCE, Client::new(&folder).status()).await {
        Ok(Ok(status)) => Some(App::Answered(Box::new(status))),
        Ok(Err(RequestError::NotRunning)) => match folder.look() {
            Presence::Free => None,
            // It ends what a killed one has left, or is about to go.
            Presence::Held { .. } => silent("it does not listen (yet)".into()),
            Presence::Left(left) => {
                let name = folder.name().to_string();
                Some(App::Stopped { name, stopped: true, killed: true, left: left.pids() })
            }
        },
        Ok(Err(error)) => silent(error.to_string()),
        Err(_) => silent(format!("no answer within {}", readable::duration(ANSWER_PATIENCE))),
    }
}

/// What is left out where it does not fit: CPU, MEMORY, RESTARTS, PID, UPTIME. `status` has them.
const EXPENDABLE: [usize; 5] = [5, 4, 3, 1, 6];

/// What stays, with NAME and where an app listens.
const READY: usize = 2;

/// How much there is room for of what stands in the last column.
#[derive(Clone, Copy)]
struct Room {
    /// For one address: columns make room for it.
    address: usize,
    /// For all of several.
    addresses: usize,
    /// For why an app does not answer, or what it has left.
    text: usize,
}

fn render(apps: &[App], paint: Paint, width: Option<usize>) -> String {
    let whole = Room { address: usize::MAX, addresses: usize::MAX, text: usize::MAX };
    let mut table = table_of(apps, whole);
    if let Some(width) = width {
        let address = table.room(width, READY);
        table = table_of(apps, Room { address, addresses: width / 3, text: address.min(width / 2) });
        table.fit(Some(width), &EXPENDABLE);
    }
    table.render(paint)
}

fn table_of(apps: &[App], room: Room) -> Table<8> {
    let columns = [
        Column::Left("NAME"),
        Column::Right("PID"),
        Column::Right("READY"),
        Column::Right("RESTARTS"),
        Column::Right("MEMORY"),
        Column::Right("CPU"),
        Column::Right("UPTIME"),
        Column::Left("LISTENING"),
    ];
    Table::new(columns, apps.iter().map(|app| row(app, room)).collect())
}

/// The addresses of an app; or the first, and how many others there are. What has no room of it is not its port.
fn addresses(status: &StatusView, room: Room) -> String {
    let all = status.listening.join(", ");
    let [first, others @ ..] = status.listening.as_slice() else { return all };
    let others = match others.len() {
        0 => String::new(),
        _ if all.len() <= room.addresses => return all,
        count => format!(" +{count}"),
    };
    let port = first.rfind(':').filter(|at| first[at + 1..].starts_with(|char: char| char.is_ascii_digit()));
    let (host, port) = first.split_at(port.unwrap_or(first.len()));
    let host = screen::cut(host, room.address.saturating_sub(port.len() + others.len()));
    format!("{host}{port}{others}")
}

fn row(app: &App, room: Room) -> [Cell; 8] {
    let none = || Cell::new("-", Tone::Dim);
    match app {
        App::Answered(status) => {
            let memory =
                status.workers.iter().filter_map(|worker| worker.rss_bytes).reduce(u64::saturating_add);
            let cpu: f64 = status.workers.iter().filter_map(|worker| worker.cpu_seconds).sum();
            let restarts: u64 = status.workers.iter().map(|worker| u64::from(worker.restarts)).sum();
            [
                Cell::new(&status.name, Tone::Bold),
                status.pid.into(),
                ready(status),
                restarts.into(),
                memory.map_or_else(none, |memory| readable::bytes(memory).into()),
                readable::duration(Duration::try_from_secs_f64(cpu).unwrap_or_default()).into(),
                ago(&status.since).map_or_else(none, |age| readable::duration(age).into()),
                addresses(status, room).into(),
            ]
        }
        App::Stopped { name, killed, left, .. } => [
            Cell::new(name, Tone::Bold),
            none(),
            if *killed { Cell::new("killed", Tone::Bad) } else { Cell::new("stopped", Tone::Dim) },
            none(),
            none(),
            none(),
            none(),
            if left.is_empty() {
                none()
            } else {
                let left = format!("left {}", readable::list(left));
                Cell::new(screen::cut(&left, room.text), Tone::Bad)
            },
        ],
        App::Silent { name, pid, error } => [
            Cell::new(name, Tone::Bold),
            pid.map_or_else(none, Cell::from),
            none(),
            none(),
            none(),
            none(),
            none(),
            Cell::new(screen::cut(error, room.text), Tone::Bad),
        ],
    }
}

fn ready(status: &StatusView) -> Cell {
    if status.stopping {
        return Cell::new("stopping", Tone::Warning);
    }
    let (ready, target) = (status.ready(), usize::from(status.target));
    let tone = match ready {
        0 => Tone::Bad,
        _ if ready < target => Tone::Warning,
        _ => Tone::Good,
    };
    Cell::new(format!("{ready}/{target}"), tone)
}

#[cfg(test)]
mod tests {
    use super::{App, render};
    use crate::paint::Paint;
    use crate::view::tests::{explained, web};

    #[test]
    fn a_silent_app_is_shown_as_such() {
        let silent = App::Silent { name: "api".into(), pid: Some(7), error: "no answer within 2s".into() };
        let stopped = App::Stopped { name: "zoo".into(), stopped: true, killed: false, left: Vec::new() };
        let killed = App::Stopped { name: "zot".into(), stopped: true, killed: true, left: vec![7, 8] };
        let text = render(&[silent, App::Answered(Box::new(web())), stopped, killed], Paint::off(), None);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("api") && lines[1].ends_with("no answer within 2s"), "{text}");
        assert!(
            lines[2].starts_with("web") && lines[2].contains("1/2") && lines[2].contains("127.0.0.1:8080")
        );
        assert!(lines[3].starts_with("zoo") && lines[3].contains("stopped"), "{text}");
        assert!(lines[4].contains("killed") && lines[4].ends_with("left 7, 8"), "{text}");
    }

    #[test]
    fn a_list_fits_eighty_columns_with_long_names_many_addresses_and_large_numbers() {
        let long = "a-name-that-somebody-took-from-the-address-of-a-repository";
        let mut status = web();
        status.name = long.into();
        status.listening =
            (0..9).map(|port| format!("[2001:db8:1234:5678:9abc:def0:1234:{port}]:54321")).collect();
        for worker in &mut status.workers {
            (worker.rss_bytes, worker.cpu_seconds) = (Some(1_099_000_000_000), Some(9_999_999.0));
            worker.restarts = 123_456;
        }
        let error =
            "connect to the control socket /run/user/1000/allcores/web/control.sock: permission denied";
        let silent = App::Silent { name: format!("{long}-2"), pid: Some(4_194_304), error: error.into() };
        let apps = [App::Answered(Box::new(status)), silent];
        let text = render(&apps, Paint::off(), Some(80));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}\n{text}");
        }
        for part in ["READY", "1/2", ":54321 +8"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let whole = render(&apps, Paint::off(), None);
        assert!(whole.contains(long) && whole.contains("8]:54321") && whole.contains(error), "{whole}");
    }

    #[test]
    fn a_narrow_list_has_names_states_and_ports_and_what_else_fits() {
        let stopped = App::Stopped { name: "zoo".into(), stopped: true, killed: false, left: Vec::new() };
        let silent = App::Silent { name: "api".into(), pid: Some(7), error: "no answer within 2s".into() };
        let apps = [silent, App::Answered(Box::new(web())), stopped];
        for (width, head) in [
            (24, "NAME    READY  LISTENING\n"),
            (40, "NAME    READY  LISTENING\n"),
            (60, "NAME   PID    READY"),
        ] {
            let text = render(&apps, Paint::off(), Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}\n{text}");
            assert!(text.starts_with(head), "{width}\n{text}");
            for part in ["zoo", "stopped", "1/2", ":8080"] {
                assert!(text.contains(part), "{part} in {width}\n{text}");
            }
            if width >= 40 {
                assert!(!text.contains('…') && text.contains("127.0.0.1:8080"), "{width}\n{text}");
            }
        }
        let mut status = web();
        for (name, address, shown) in [
            ("web", "[2001:db8:1234:5678:9abc:def0:1234:1]:54321", "[2001:db8:1234:5678:…:54321"),
            ("a-shop-with-quite-a-long-name", "127.0.0.1:8080", "a-shop-with-quit…    1/2  127.0.0.1:8080"),
            ("web", "/run/a-folder/with/long/names/web.sock", "/run/a-folder/with/long/na…"),
        ] {
            (status.name, status.listening) = (name.into(), vec![address.into()]);
            let text = render(&[App::Answered(Box::new(status.clone()))], Paint::off(), Some(40));
            assert!(text.contains(shown) && text.lines().all(|line| line.chars().count() <= 40), "{text}");
        }
    }

    #[test]
    fn every_field_of_an_app_that_does_not_answer_is_explained() {
        let silent = App::Silent { name: "api".into(), pid: Some(7), error: "no answer within 2s".into() };
        let killed = App::Stopped { name: "zot".into(), stopped: true, killed: true, left: vec![7, 8] };
        for app in [silent, killed] {
            let json = serde_json::to_value(app).unwrap();
            let heading = "`allcores ls --json` has the status of each app that answers, and of any other:";
            explained(heading, json.as_object().unwrap().keys());
        }
    }

    #[test]
    fn a_list_that_fits_is_the_same_on_a_terminal() {
        let apps = [App::Answered(Box::new(web()))];
        assert_eq!(render(&apps, Paint::off(), Some(80)), render(&apps, Paint::off(), None));
    }
}
