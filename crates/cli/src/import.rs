//! Apps of a PM2 ecosystem file, as a config file of ours; and what of them has no equivalent, and why.
//!
//! Only translates. Whether folders and programs exist is for `allcores check` to say.

mod read;
mod write;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

pub(crate) use read::read;
use write::Table;

use crate::settings::{AppName, MAX_NAME, interpreter};

/// What became of an ecosystem file.
#[derive(Debug)]
pub(crate) struct Imported {
    /// The text of a config file.
    pub(crate) text: String,
    /// The names of its apps; not of those that are written as comments.
    pub(crate) apps: Vec<String>,
    /// What is otherwise from now on, or is not there: app, option, why.
    pub(crate) notes: Vec<Note>,
}

/// Something that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) app: String,
    pub(crate) option: String,
    pub(crate) text: String,
}

/// Options that mean nothing here, and what there is instead.
const ABSENT: &[(&str, &str)] = &[
    ("autostart", "`allcores start` starts what it is asked to; `allcores resurrect` what was saved"),
    ("stop_exit_codes", "a worker that ends is replaced, whatever its exit code"),
    ("kill_retry_time", "the kernel tells at once when a process is gone"),
    ("treekill", "all that a worker has started always goes with it"),
    ("shutdown_with_message", "node workers are always told over their channel: process.on('disconnect')"),
    ("namespace", "apps have names only; `allcores.toml` holds those that belong together"),
    ("name_prefix", "give the app the whole name"),
    ("append_env_to_name", "give the app the whole name"),
    ("increment_var", "a worker knows its number by ALLCORES_SLOT"),
    (
        "filter_env",
        "start allcores with the environment that the workers are to have: `env -i`, or a systemd unit",
    ),
    ("restart_delay", "the wait grows from `backoff` with each early exit, and there is none otherwise"),
    ("merge_logs", "an app has one log; each line says which worker wrote it"),
    ("combine_logs", "an app has one log; each line says which worker wrote it"),
    ("error_file", "an app has one log; each line says whether it came from stderr"),
    ("log_file", "an app has one log: `log-file`"),
    ("log_type", "`allcores logs --json`"),
    ("log_date_format", "a log has times in UTC; `allcores logs` shows them"),
    ("time", "each line of a log has its time"),
    ("disable_logs", "only apps in the background have a log that nobody asked for"),
    ("pid_file", "`allcores status NAME --json` has the primary's pid, which stays over upgrades"),
    ("force", "an app's name is its own: a second one is refused"),
    ("execute_command", "the command is written out"),
    ("write", "PM2's own"),
    ("vizion", "PM2's own; see what runs with `allcores describe NAME`"),
    ("username", "PM2's own"),
    ("install_url", "PM2's own"),
    ("post_update", "PM2's own: run such a step before `allcores reload`"),
    ("windowsHide", "for Windows"),
    ("source_map_support", "node has it: NODE_OPTIONS=--enable-source-maps"),
    ("disable_source_map_support", "node has it, off by default: NODE_OPTIONS=--enable-source-maps"),
    ("pmx", "PM2's own; `allcores run --metrics` is for Prometheus"),
    ("automation", "PM2's own"),
    ("trace", "PM2's own"),
    ("v8", "PM2's own"),
    ("event_loop_inspector", "PM2's own"),
    ("deep_monitoring", "PM2's own"),
    ("io", "PM2's own"),
    ("watch_options", "`watch`, `watch-ignore` and `watch-delay` are all there is"),
];

/// Why an app with `autorestart: false` is none here.
const JOB: &str = "workers are kept running; what runs to its end and no more is for systemd timers, cron or a job of Kubernetes";

/// Translates what an ecosystem file holds.
///
/// # Errors
///
/// If it is no ecosystem file, or an app of it does not say what to run; in words.
pub(crate) fn import(file: &Value) -> Result<Imported, String> {
    let apps = match file {
        Value::Array(apps) => apps,
        Value::Object(file) if file.contains_key("script") => std::slice::from_ref(&Value::Null),
        Value::Object(file) => match file.get("apps") {
            Some(Value::Array(apps)) => apps,
            Some(app @ Value::Object(_)) => std::slice::from_ref(app),
            _ => return Err("it has no `apps`".into()),
        },
        _ => return Err("it has no `apps`".into()),
    };
    let mut imported = Imported { text: String::new(), apps: Vec::new(), notes: Vec::new() };
    let mut taken: Vec<String> = Vec::new();
    for (nth, app) in (1..).zip(apps) {
        // A file may be a single app.
        let app = if app.is_null() { file } else { app };
        let options = app.as_object().ok_or_else(|| format!("app {nth} of it is no object"))?;
        let mut app = App::new(options, nth, &taken)?;
        app.translate()?;
        imported.notes.append(&mut app.notes);
        taken.push(app.name.clone());
        if app.is_job() {
            imported.text.push_str(&app.table.commented(&format!("autorestart: {JOB}")));
        } else {
            imported.text.push_str(&app.table.finish());
            imported.apps.push(app.name);
        }
    }
    if taken.is_empty() {
        return Err("it has no app".into());
    }
    let others = file.as_object().into_iter().flat_map(Map::keys);
    for other in others.filter(|key| ["deploy", "static"].contains(&key.as_str())) {
        let text = match other.as_str() {
            "deploy" => "bring the files by what you have (git, rsync, CI), then `allcores reload NAME`",
            _ => "a web server serves files better: nginx, caddy",
        };
        imported.notes.push(Note { app: "the file".into(), option: other.clone(), text: text.into() });
    }
    Ok(imported)
}

/// An app that is being translated.
struct App<'a> {
    name: String,
    options: &'a Map<String, Value>,
    table: Table,
    notes: Vec<Note>,
}

impl<'a> App<'a> {
    fn new(options: &'a Map<String, Value>, nth: usize, taken: &[String]) -> Result<Self, String> {
        let script = text_of(options, &["script", "exec", "cmd", "command"]);
        let stem = script.as_deref().map(|script| script.rsplit('/').next().unwrap_or(script));
        let stem = stem.map(|stem| stem.split('.').next().unwrap_or(stem).to_owned());
        let wanted = text_of(options, &["name"]).or(stem).unwrap_or_else(|| format!("app-{nth}"));
        let name = name_of(&wanted, nth, taken);
        let mut app = Self { table: Table::new(&name), name, options, notes: Vec::new() };
        if app.name != wanted {
            app.note(
                "name",
                &format!("`{wanted}` can't be a name here, or is another app's: it is `{}`", app.name),
            );
        }
        if script.is_none() {
            return Err(format!("the app {wanted} does not say what to run: it has no `script`"));
        }
        Ok(app)
    }

    fn note(&mut self, option: &str, text: &str) {
        self.notes.push(Note { app: self.name.clone(), option: option.into(), text: text.into() });
    }

    fn text(&self, names: &[&str]) -> Option<String> {
        text_of(self.options, names)
    }

    /// Whether it runs to its end, once: kept running, a migration would be repeated.
    fn is_job(&self) -> bool {
        self.options.get("autorestart") == Some(&Value::Bool(false))
    }

    fn translate(&mut self) -> Result<(), String> {
        self.command()?;
        self.workers();
        // Programs that were run by PM2 know its signal.
        self.table.text("stop-signal", "INT");
        for (name, value) in self.options {
            self.option(name, value);
        }
        self.variables();
        Ok(())
    }

    fn command(&mut self) -> Result<(), String> {
        let script = self.text(&["script", "exec", "cmd", "command"]).unwrap_or_default();
        let given = self.text(&["interpreter", "exec_interpreter"]);
        if script.contains(' ') && given.as_deref().is_none_or(|given| given == "none") {
            self.table.words("command", ["bash", "-c", script.as_str()].map(str::to_owned));
            return Ok(());
        }
        let extension =
            script.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map(|(_, last)| last);
        let program = match given.as_deref() {
            Some("none" | "") => None,
            Some(given) if given.starts_with("node@") => {
                self.note(
                    "interpreter",
                    "a version of node is chosen by its path: the first word of `command`",
                );
                Some("node".to_owned())
            }
            Some(given) => Some(given.to_owned()),
            None => extension.and_then(interpreter).map(str::to_owned),
        };
        let mut words: Vec<String> = Vec::new();
        words.extend(program.clone());
        if program.is_some() {
            words.extend(self.arguments(&[
                "interpreter_args",
                "interpreterArgs",
                "node_args",
                "node_arguments",
            ])?);
        }
        // A program beside the file is not searched in PATH.
        let is_program = program.is_none() && !script.contains('/') && extension.is_some();
        words.push(if is_program { format!("./{script}") } else { script });
        words.extend(self.arguments(&["args"])?);
        self.table.words("command", words);
        Ok(())
    }

    /// Words, as an array or as one string.
    fn arguments(&self, names: &[&str]) -> Result<Vec<String>, String> {
        let value = names.iter().find_map(|name| self.options.get(*name));
        match value {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(words)) => Ok(words.iter().map(shown).collect()),
            Some(other) => shlex::split(&shown(other)).ok_or_else(|| {
                format!("the app {}: `{}` has a quote that is not closed", self.name, names[0])
            }),
        }
    }

    fn workers(&mut self) {
        let value = self.options.get("instances");
        match value.map(shown) {
            None => self.table.raw("workers", "1"),
            Some(word) if word == "max" || word == "0" => self.table.text("workers", "auto"),
            Some(word) => {
                let count = word.parse::<i32>();
                if count.is_err() {
                    self.note("instances", &format!("{word} is no number: one worker"));
                }
                self.table.raw("workers", &count.unwrap_or(1).to_string());
            }
        }
    }

    fn option(&mut self, name: &str, value: &Value) {
        let is_off = matches!(value, Value::Null | Value::Bool(false));
        match name {
            "cwd" if !is_off => self.table.text("cwd", &shown(value)),
            "wait_ready" if !is_off => self.table.raw("wait-ready", "true"),
            "listen_timeout" => self.millis("ready-timeout", value),
            "kill_timeout" => self.millis("kill-timeout", value),
            "min_uptime" => self.millis("min-uptime", value),
            "exp_backoff_restart_delay" if !is_off => self.millis("backoff", value),
            "max_restarts" => match shown(value).parse::<u32>() {
                Ok(count) => self.table.raw("max-restarts", &count.to_string()),
                Err(_) => self.note(name, &format!("{} is no number", shown(value))),
            },
            "max_memory_restart" if !is_off => self.table.text("max-memory", &shown(value)),
            "cron_restart" | "cron" if !is_off && shown(value) != "0" => {
                self.table.text("cron-restart", &shown(value));
                self.note(name, "a rolling reload; with PM2 all instances are restarted at once");
            }
            "watch" if !is_off => {
                let folders: Vec<String> = self.watched().iter().map(|folder| named(folder)).collect();
                self.table.words("watch", folders);
            }
            "ignore_watch" if !is_off => {
                let globs: Vec<String> = list(value).iter().flat_map(|glob| self.ignored(glob)).collect();
                self.table.words("watch-ignore", globs);
            }
            "watch_delay" => self.millis("watch-delay", value),
            "uid" | "user" => self.table.text("uid", &shown(value)),
            "gid" => self.table.text("gid", &shown(value)),
            "out_file" | "output" | "out" if !is_off => {
                self.table.text("log-file", &named(&self.in_cwd(&shown(value))));
            }
            "autorestart" if self.is_job() => self.note(name, &format!("written as a comment: {JOB}")),
            "instance_var" if shown(value) != "NODE_APP_INSTANCE" => {
                self.note(name, "a worker knows its number by NODE_APP_INSTANCE and ALLCORES_SLOT");
            }
            "exec_mode" if shown(value).contains("fork") && self.options.contains_key("instances") => self.note(
                name,
                "workers always share what they listen on, in any language; give those that shall not a port each by ALLCORES_SLOT",
            ),
            _ => self.absent(name, is_off),
        }
    }

    /// Takes note of what has no equivalent.
    fn absent(&mut self, name: &str, is_off: bool) {
        /// Those that were looked at elsewhere, or say what is so anyway.
        const DONE: [&str; 29] = [
            "name",
            "script",
            "exec",
            "cmd",
            "command",
            "args",
            "interpreter",
            "exec_interpreter",
            "interpreter_args",
            "interpreterArgs",
            "node_args",
            "node_arguments",
            "instances",
            "exec_mode",
            "env",
            "port",
            "autorestart",
            "instance_var",
            "wait_ready",
            "exp_backoff_restart_delay",
            "max_memory_restart",
            "cron_restart",
            "cron",
            "watch",
            "out_file",
            "output",
            "out",
            "error",
            "id",
        ];
        if DONE.contains(&name) || name.starts_with("env_") || is_off {
            return;
        }
        let known = ABSENT.iter().find(|(known, _)| *known == name);
        let text = known.map_or("PM2's documentation does not know it either", |(_, text)| text);
        self.note(name, text);
    }

    /// Where a path leads that PM2 takes from `cwd`: paths of our files are relative to the file's folder, as `cwd` is.
    fn in_cwd(&self, path: &str) -> PathBuf {
        let cwd = self.text(&["cwd"]).unwrap_or_default();
        Path::new(&cwd).join(path).components().filter(|part| *part != Component::CurDir).collect()
    }

    /// What is watched, if anything is.
    fn watched(&self) -> Vec<PathBuf> {
        let folders = match self.options.get("watch") {
            None | Some(Value::Null | Value::Bool(false)) => return Vec::new(),
            Some(Value::Bool(true)) => Vec::new(),
            Some(value) => list(value),
        };
        if folders.is_empty() {
            return vec![self.in_cwd("")];
        }
        folders.iter().map(|folder| self.in_cwd(folder)).collect()
    }

    /// What leaves out the same: PM2 takes a glob with a folder in it from `cwd` as well, and we from each folder that is watched.
    fn ignored(&self, glob: &str) -> Vec<String> {
        if !glob.trim_end_matches('/').contains('/') {
            return vec![glob.to_owned()];
        }
        let (path, watched) = (self.in_cwd(glob), self.watched());
        let below = watched.iter().filter_map(|folder| path.strip_prefix(folder).ok());
        let globs: Vec<String> = below.map(|glob| format!("/{}", glob.display())).collect();
        if globs.is_empty() { vec![glob.to_owned()] } else { globs }
    }

    /// Milliseconds, or a text with a unit.
    fn millis(&mut self, key: &str, value: &Value) {
        let text = shown(value);
        let text = if text.parse::<f64>().is_ok() { format!("{text}ms") } else { text };
        self.table.text(key, &text);
    }

    fn variables(&mut self) {
        let mut base = variables_of(self.options.get("env"));
        if let Some(port) = self.options.get("port") {
            base.insert("PORT".into(), shown(port));
        }
        self.table.variables(None, &base);
        let options = self.options.iter();
        let environments = options.filter_map(|(name, value)| Some((name.strip_prefix("env_")?, value)));
        for (environment, value) in environments {
            self.table.variables(Some(environment), &variables_of(Some(value)));
        }
    }
}

/// The name of an app here, which is no other's.
fn name_of(wanted: &str, nth: usize, taken: &[String]) -> String {
    let name = AppName::sanitized(wanted).map_or_else(|| format!("app-{nth}"), String::from);
    let others = (nth..).map(|number| {
        let suffix = format!("-{number}");
        format!("{}{suffix}", &name[..name.len().min(MAX_NAME - suffix.len())])
    });
    let mut names = std::iter::once(name.clone()).chain(others);
    names.find(|name| !taken.contains(name)).unwrap_or_default()
}

fn text_of(options: &Map<String, Value>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| options.get(*name)).filter(|value| !value.is_null()).map(shown)
}

/// A value as a person would type it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Number(number) => match number.as_f64() {
            // JavaScript has one kind of number.
            Some(whole) if whole.fract() == 0.0 && whole.abs() < 1e15 => format!("{whole:.0}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn list(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().map(shown).collect(),
        other => vec![shown(other)],
    }
}

/// A path as it is written: none at all is the present folder.
fn named(path: &Path) -> String {
    if path.as_os_str().is_empty() { ".".to_owned() } else { path.display().to_string() }
}

fn variables_of(value: Option<&Value>) -> BTreeMap<String, String> {
    let variables = value.and_then(Value::as_object).into_iter().flatten();
    variables.map(|(name, value)| (name.clone(), shown(value))).collect()
}

#[cfg(test)]
mod tests;
