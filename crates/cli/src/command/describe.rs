//! `allcores describe`: how an app was made.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;

use anyhow::Context as _;
use clap::FromArgMatches as _;
use serde_json::Value;

use super::{ANSWER_PATIENCE, ask, print, print_json};
use crate::app::as_typed;
use crate::args::{self, DescribeArgs, RunArgs};
use crate::client::Client;
use crate::config::{Shown, Typed};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::paint::{Paint, Tone};
use crate::runtime_folder::RuntimeFolder;
use crate::screen;
use crate::settings;
use crate::state_folder::{Record, StateFolder};
use crate::view::DescriptionView;

/// Asks the app and shows what it says.
pub(super) async fn execute(args: &DescribeArgs) -> Result<ExitCode, Failure> {
    let folder = RuntimeFolder::from_env()?.find(&args.name)?;
    let answer = ask(&folder, "describe", ANSWER_PATIENCE, Client::new(&folder).describe()).await;
    let (description, state) = match answer {
        Err(failure) if failure.code() == ExitCode::NotRunning && !folder.is_running() => {
            let record = StateFolder::find()?.map(|state| state.record(&args.name)).transpose()?.flatten();
            let Some(record) = record else { return Err(failure) };
            (of_record(&record)?, Some(if folder.left().is_some() { "killed" } else { "stopped" }))
        }
        answer => (answer?, None),
    };
    if args.json {
        print_json(&json(&description, state)?)
    } else {
        let stdout = io::stdout();
        print(render(&description, state, Paint::for_stream(&stdout), screen::width(&stdout)).as_bytes())
    }
}

/// How an app that does not run would be started again.
fn of_record(record: &Record) -> Result<DescriptionView, Failure> {
    let (name, folder) = (record.name(), record.folder());
    let tried = || format!("describe {name}");
    // What it is made of is named from there.
    std::env::set_current_dir(&folder)
        .with_context(|| format!("go to its folder {}", folder.display()))
        .with_context(tried)
        .map_err(|error| {
            Failure::from(error).next("make the folder again, or start the app anew from another")
        })?;
    let words = ["allcores", "run"].map(OsString::from).into_iter().chain(record.arguments().cloned());
    let matches = args::command_line().try_get_matches_from(words).with_context(tried)?;
    let matches = matches.subcommand_matches("run").context("read how it was started").with_context(tried)?;
    let run = RunArgs::from_arg_matches(matches).with_context(tried)?;
    let app = Typed::of_run(&run, matches).given(record.given()).resolve()?;
    let Shown { options, variables, secrets } = app.layer.shown();
    let workers = settings::workers(app.options.workers)?;
    let log = Some(record.log()).filter(|log| !log.as_os_str().is_empty());
    Ok(DescriptionView {
        name: name.to_string(),
        command: app.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        command_line: as_typed(&app.command),
        workers,
        scaled: record.given().scaled_from(workers),
        folder: app.options.cwd.map_or(folder.clone(), |cwd| folder.join(cwd)).display().to_string(),
        config: app.config,
        background: true,
        log: log.map(|log| log.display().to_string()),
        options,
        variables,
        secrets,
        ..DescriptionView::default()
    })
}

/// As the app itself says it; of one that does not run, without what only one that runs has.
fn json(description: &DescriptionView, state: Option<&str>) -> Result<Value, Failure> {
    let mut json = serde_json::to_value(description).context("write JSON")?;
    if let (Some(state), Some(fields)) = (state, json.as_object_mut()) {
        for name in ["pid", "version", "socket", "waiting"] {
            fields.remove(name);
        }
        fields.insert("stopped".into(), true.into());
        fields.insert("killed".into(), (state == "killed").into());
    }
    Ok(json)
}

fn render(description: &DescriptionView, state: Option<&str>, paint: Paint, width: Option<usize>) -> String {
    let primary = format!("pid {}, allcores {}", description.pid, description.version);
    let workers = match description.scaled {
        Some(scaled) => format!("{scaled} (scaled; its settings say {})", description.workers),
        None => description.workers.to_string(),
    };
    let mut facts = vec![
        ("command", description.command_line.clone()),
        ("folder", description.folder.clone()),
        ("primary", state.map_or(primary, str::to_owned)),
        ("workers", workers),
    ];
    if let Some(file) = &description.config {
        let environment = file.environment.as_ref().map(|name| format!(", environment {name}"));
        facts.push(("config", format!("{}, app {}{}", file.path, file.app, environment.unwrap_or_default())));
    }
    facts.push(("run by", if description.background { "allcores start" } else { "allcores run" }.to_owned()));
    if state.is_none() {
        facts.push(("socket", description.socket.clone()));
    }
    facts.extend(description.log.clone().map(|log| ("log", log)));
    for (what, names) in [("variables", &description.variables), ("secrets", &description.secrets)] {
        if !names.is_empty() {
            facts.push((what, names.join(" ")));
        }
    }
    let mut text = String::new();
    let _ = writeln!(text, "{}", paint.tone(Tone::Bold, &description.name));
    for (name, fact) in facts {
        let _ = writeln!(
            text,
            "  {}  {}",
            paint.tone(Tone::Dim, format_args!("{name:<9}")),
            screen::wrap(&fact, 13, width)
        );
    }
    if !description.options.is_empty() {
        let _ = writeln!(text, "  {}", paint.tone(Tone::Dim, "options"));
        let name_width = description.options.keys().map(String::len).max().unwrap_or(0);
        for (name, values) in &description.options {
            let _ = writeln!(text, "    {name:<name_width$}  {}", values.join(" "));
        }
    }
    if !description.waiting.is_empty() {
        let waiting = format!("{} (changed; for `allcores restart --hard`)", description.waiting.join(" "));
        let _ = writeln!(
            text,
            "  {}  {}",
            paint.tone(Tone::Dim, format_args!("{:<9}", "waiting")),
            screen::wrap(&waiting, 13, width)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{json, render};
    use crate::paint::Paint;
    use crate::view::tests::{description, explained};

    #[test]
    fn a_description_has_what_there_is_and_no_values_of_variables() {
        let text = render(&description(), None, Paint::off(), None);
        for part in [
            "web\n  command    node server.js\n",
            "  workers    3 (scaled; its settings say 2)\n",
            "  config     /srv/allcores.toml, app web, environment production\n",
            "  secrets    DB_PASSWORD\n",
            "  options\n    kill-timeout  5s\n    listen        :80 :81\n",
            "  waiting    policy (changed; for `allcores restart --hard`)\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn one_that_does_not_run_has_no_process_and_no_socket() {
        let text = render(&description(), Some("stopped"), Paint::off(), None);
        assert!(
            text.contains("  primary    stopped\n") && !text.contains("socket") && !text.contains("pid"),
            "{text}"
        );
        let json = json(&description(), Some("killed")).unwrap();
        assert_eq!((&json["stopped"], &json["killed"]), (&true.into(), &true.into()), "{json}");
        assert!(json.get("pid").is_none() && json["command_line"] == "node server.js", "{json}");
        assert_eq!((&json["workers"], &json["scaled"]), (&2.into(), &3.into()), "{json}");
        let running = super::json(&description(), None).unwrap();
        let own = json.as_object().unwrap().keys().filter(|name| running.get(name).is_none());
        explained("Of an app that does not run, `allcores describe --json` has these fields besides:", own);
    }
}
