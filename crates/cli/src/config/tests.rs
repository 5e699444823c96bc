//! What config files mean, and what is said about those that mean nothing.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use allcores_testing::page::current;
use clap::CommandFactory as _;
use serde_json::Value as Json;

use super::catalogue::{Catalogue, Key, Kind};
use super::{App, File, Typed, schema};
use crate::args::{AppOptions, Cli, Command, SecretSource, Workers};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use clap::FromArgMatches as _;

fn file(text: &str) -> Result<File, Failure> {
    File::parse(Path::new("allcores.toml"), "/srv/app".into(), text.to_owned())
}

/// The app `web` of a file, in an environment, with nothing typed.
fn web_in(environment: Option<&str>, text: &str) -> App {
    let file = file(text).unwrap_or_else(|failure| panic!("{failure}"));
    file.alone(&"web".parse().unwrap(), environment).unwrap_or_else(|failure| panic!("{failure}"))
}

fn web(text: &str) -> App {
    web_in(None, text)
}

/// A file whose app `web` has these lines.
fn of(lines: &str) -> String {
    format!("[apps.web]\ncommand = [\"./web\"]\n{lines}\n")
}

#[track_caller]
fn mistakes(text: &str) -> String {
    let failure = file(text).map(|_| ()).expect_err(text);
    assert_eq!(failure.code(), ExitCode::Config);
    failure.to_string()
}

/// A good value for each option, as TOML has it.
fn sample(name: &str, kind: Kind) -> String {
    match (name, kind) {
        ("metrics", _) => "9145".into(),
        ("health-http", _) => "\"/healthz\"".into(),
        ("stop-signal", _) => "\"QUIT\"".into(),
        ("cron-restart", _) => "\"0 4 * * *\"".into(),
        ("cgroup", _) => "[\"memory.max=512M\", \"pids.max=64\"]".into(),
        (_, Kind::Flag) => "true".into(),
        (_, Kind::Tally | Kind::Count) => "1".into(),
        (_, Kind::Workers) => "3".into(),
        (_, Kind::Size) => "\"512M\"".into(),
        (_, Kind::Account) => "\"root\"".into(),
        (_, Kind::Duration) => "\"7s\"".into(),
        (_, Kind::Address) => "[8080, \"127.0.0.1:8081\"]".into(),
        (_, Kind::Text) => "\"true\"".into(),
        (_, Kind::Choice) => "\"json\"".into(),
        (_, Kind::Policy) => "\"sticky:cookie=sid\"".into(),
        (_, Kind::Path) => "\"x\"".into(),
        (_, Kind::Variables) => "{ A = \"b\", PORT = 80 }".into(),
        (_, Kind::Sources) => "{ A = \"credential:a\" }".into(),
    }
}

#[test]
fn every_option_of_run_is_a_key_and_nothing_else_is() {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").unwrap();
    // What says where options come from, and what names the app, is no option of the app.
    let own = ["name", "background", "check", "config", "app", "env-name"];
    let options: Vec<&str> = run.get_arguments().filter_map(|arg| arg.get_long()).collect();
    let options: Vec<&str> = options.into_iter().filter(|name| !own.contains(name)).collect();
    let catalogue = Catalogue::new();
    let keys: Vec<&str> = catalogue.keys().map(Key::name).collect();
    assert_eq!(keys, options);
    assert!(keys.len() > 25, "{keys:?}");
}

#[test]
fn every_option_can_be_set_in_a_file_and_taken_back() {
    for key in Catalogue::new().keys() {
        let kind = key.kind().unwrap_or_else(|| {
            panic!("{}: the word {:?} of its value says no kind", key.name(), key.value_name())
        });
        let line = format!("{} = {}", key.name(), sample(key.name(), kind));
        let set = format!("{:?}", web(&of(&line)).options);
        let without = format!("{:?}", web(&of("")).options);
        assert_ne!(set, without, "{line}");
        let off = format!("[defaults]\n{line}\n{}", of(&format!("{} = false", key.name())));
        assert_eq!(format!("{:?}", web(&off).options), without, "{}", key.name());
    }
}

#[test]
fn values_are_those_of_the_command_line() {
    let app = web(&of(
        "workers = -1\nlisten = 8080\nkill-timeout = \"2m\"\nmax-memory = \"2G\"\nno-adopt = true\nverbose = 2
env = { A = \"b=c\", PORT = 80, DEBUG = true }\nuid = 7\nsecret = { DB = \"keys/db\", K = \"credential:k\" }
env-file = [\"one.env\", \"/two.env\"]",
    ));
    let AppOptions { workers, listen, kill_timeout, upkeep, no_adopt, output, env, uid, .. } = &app.options;
    assert_eq!(*workers, Workers::Fewer(1));
    assert_eq!(listen, &["0.0.0.0:8080".parse().unwrap()]);
    assert_eq!((*kill_timeout, upkeep.max_memory), (Duration::from_mins(2), Some(2 << 30)));
    assert_eq!((*no_adopt, output.verbose, uid.as_deref()), (true, 2, Some("7")));
    let pair = |key: &str, value: &str| (OsString::from(key), OsString::from(value));
    assert_eq!(env, &[pair("A", "b=c"), pair("PORT", "80"), pair("DEBUG", "true")]);
    assert_eq!(
        app.options.secret,
        [
            ("DB".into(), SecretSource::File("/srv/app/keys/db".into())),
            ("K".into(), SecretSource::Credential("k".into())),
        ]
    );
    assert_eq!(app.options.env_file, [Path::new("/srv/app/one.env"), Path::new("/two.env")]);
}

#[test]
fn an_app_runs_in_the_folder_of_the_file() {
    assert_eq!(web(&of("")).options.cwd.as_deref(), Some(Path::new("/srv/app")));
    assert_eq!(web(&of("cwd = \"current\"")).options.cwd.as_deref(), Some(Path::new("/srv/app/current")));
    assert_eq!(web(&of("cwd = \"/\"")).options.cwd.as_deref(), Some(Path::new("/")));
}

#[test]
fn a_command_is_words_or_a_line() {
    let command = |text: &str| web(&format!("[apps.web]\ncommand = {text}")).command;
    assert_eq!(command("[\"node\", \"a b.js\", 1]"), ["node", "a b.js", "1"]);
    assert_eq!(command("'node \"a b.js\"'"), ["node", "a b.js"]);
    for (text, part) in [
        ("\"\"", "empty"),
        ("[]", "empty"),
        ("\"a | b\"", "not run by a shell"),
        ("\"a 'b\"", "quote"),
        ("7", "array of strings"),
        ("[true]", "boolean"),
    ] {
        let shown = mistakes(&format!("[apps.web]\ncommand = {text}"));
        assert!(shown.contains(part) && shown.contains(":2:11:"), "{text}: {shown}");
    }
}

const LAYERS: &str = "
[defaults]
workers = 2
kill-timeout = \"1s\"
health-http = \"/healthz\"
env = { A = \"default\", B = \"default\" }
listen = [1, 2]

[defaults.environments.production]
workers = 4
env = { B = \"default production\" }

[apps.web]
command = \"web\"
kill-timeout = \"2s\"
health-tcp = true
env = { C = \"web\" }
listen = 3

[apps.web.environments.production]
command = \"web --fast\"
env = { A = \"web production\" }

[apps.api]
command = \"api\"
[apps.api.environments.test]
workers = 1
";

#[test]
fn what_is_nearer_to_the_app_wins_and_variables_are_added() {
    let env = |app: &App| {
        let text = |text: &OsString| text.to_str().unwrap().to_owned();
        let pairs = app.options.env.iter().map(|(key, value)| (text(key), text(value)));
        pairs.collect::<std::collections::BTreeMap<_, _>>()
    };
    let plain = web(LAYERS);
    assert_eq!(plain.command, ["web"]);
    assert_eq!(
        (plain.options.workers, plain.options.kill_timeout),
        (Workers::Exactly(2), Duration::from_secs(2))
    );
    let port = |app: &App| app.options.listen.iter().map(SocketAddr::port).collect::<Vec<_>>();
    assert_eq!(port(&plain), [3]);
    assert_eq!(env(&plain)["A"], "default");
    assert_eq!(env(&plain)["C"], "web");

    let production = web_in(Some("production"), LAYERS);
    assert_eq!(production.command, ["web", "--fast"]);
    assert_eq!(production.options.workers, Workers::Exactly(4));
    assert_eq!(
        [&env(&production)["A"], &env(&production)["B"], &env(&production)["C"]],
        ["web production", "default production", "web"]
    );
}

#[test]
fn an_option_takes_the_place_of_one_that_excludes_it() {
    let app = web(LAYERS);
    assert!(app.options.upkeep.health_tcp && app.options.upkeep.health_http.is_none());
}

#[test]
fn an_environment_of_another_app_leaves_an_app_as_it_is() {
    assert_eq!(web_in(Some("test"), LAYERS).options.workers, Workers::Exactly(2));
}

#[test]
fn an_environment_that_there_is_nowhere_is_refused() {
    let file = file(LAYERS).unwrap();
    let failure = file.alone(&"web".parse().unwrap(), Some("prodution")).unwrap_err();
    assert_eq!(failure.code(), ExitCode::Config);
    assert!(failure.to_string().contains("did you mean `production`?"), "{failure}");
}

#[test]
fn the_app_that_is_meant_is_the_only_one_or_named() {
    assert_eq!(file(&of("")).unwrap().pick(None).unwrap().as_str(), "web");
    let file = file(LAYERS).unwrap();
    assert_eq!(file.pick(Some(&"api".parse().unwrap())).unwrap().as_str(), "api");
    let failure = file.pick(None).unwrap_err().to_string();
    assert!(failure.contains("web, api") && failure.contains("--app"), "{failure}");
    let failure = file.pick(Some(&"wed".parse().unwrap())).unwrap_err().to_string();
    assert!(failure.contains("did you mean `web`?"), "{failure}");
}

/// What `run` makes of a command line.
fn typed(line: &[&str]) -> Result<App, Failure> {
    let matches = Cli::command().try_get_matches_from(["allcores", "run"].iter().chain(line)).unwrap();
    let Command::Run(args) = Cli::from_arg_matches(&matches).unwrap().command else { panic!() };
    Typed::of_run(&args, matches.subcommand_matches("run").unwrap()).resolve()
}

#[test]
fn what_is_typed_wins_over_the_file_and_what_is_not_typed_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    std::fs::write(&path, LAYERS).unwrap();
    let path = path.to_str().unwrap();
    let app = typed(&["--config", path, "--app", "web", "-w", "7", "--env", "A=typed", "--health-http", "/"]);
    let app = app.unwrap();
    assert_eq!(app.name.unwrap().as_str(), "web");
    assert_eq!(
        (app.options.workers, app.options.kill_timeout),
        (Workers::Exactly(7), Duration::from_secs(2))
    );
    assert_eq!(app.options.env.last().unwrap(), &("A".into(), "typed".into()));
    assert!(app.options.upkeep.health_http.is_some() && !app.options.upkeep.health_tcp);
    assert_eq!(app.options.cwd.as_deref(), Some(folder.path()));
    let app = typed(&["--config", path, "--app", "api", "--name", "other", "--", "api", "2"]).unwrap();
    assert_eq!((app.name.unwrap().as_str(), app.command), ("other", vec!["api".into(), "2".into()]));
    let failure = typed(&["--config", "/no/such.toml"]).unwrap_err();
    assert_eq!(failure.code(), ExitCode::Config);
    assert!(failure.to_string().contains("/no/such.toml"), "{failure}");
}

#[test]
fn without_a_file_what_is_typed_is_all_there_is() {
    let app = typed(&["-w", "2", "-vv", "--no-adopt", "--env", "A=b", "--", "x", "-y"]).unwrap();
    assert_eq!((app.name, app.command), (None, vec!["x".into(), "-y".into()]));
    assert_eq!((app.options.workers, app.options.output.verbose), (Workers::Exactly(2), 2));
    assert!(app.options.no_adopt && app.options.cwd.is_none());
}

#[test]
fn unknown_keys_are_shown_with_their_place_and_the_nearest_known_one() {
    for (text, place, part) in [
        ("[defaluts]\n[apps.web]\ncommand = \"x\"", "1:2", "did you mean `defaults`?"),
        ("workers = 2\n[apps.web]\ncommand = \"x\"", "1:1", "belongs below [defaults]"),
        ("[apps.web]\ncommand = \"x\"\nkill_timeout = \"5s\"", "3:1", "did you mean `kill-timeout`?"),
        ("[apps.web]\ncommand = \"x\"\nkillTimout = \"5s\"", "3:1", "did you mean `kill-timeout`?"),
        ("[apps.web]\ncomand = \"x\"", "2:1", "did you mean `command`?"),
        ("[apps.web]\ncommand = \"x\"\nname = \"y\"", "3:1", "[apps.NAME]"),
        ("[defaults]\ncommand = \"x\"\n[apps.web]\ncommand = \"x\"", "2:1", "belongs to an app"),
        ("[apps.web]\ncommand = \"x\"\nzzz = 1", "3:1", "unknown key `zzz`"),
        ("[apps.web]\ncommand = \"x\"\n[apps.web.environments.a]\nwokers = 1", "4:1", "`workers`"),
        ("[apps.web]\ncommand=\"x\"\n[apps.web.environments.a.environments.b]", "3:26", "none of its own"),
        ("[apps.\"a b\"]\ncommand = \"x\"", "1:7", "letters, digits"),
    ] {
        let shown = mistakes(text);
        assert!(
            shown.contains(&format!("allcores.toml:{place}: ")) && shown.contains(part),
            "{text}\n{shown}"
        );
    }
}

#[test]
fn wrong_values_are_shown_with_their_place_and_what_would_do() {
    for (line, place, part) in [
        ("workers = \"many\"", "3:11", "`auto`, a number"),
        ("workers = 0", "3:11", "at least one worker"),
        ("workers = true", "3:11", "a number, or \"auto\", and this is a boolean"),
        ("kill-timeout = \"500000000000y\"", "3:16", "more than 100 years"),
        ("kill-timeout = 5", "3:16", "a duration such as \"500ms\" or \"5s\", and this is an integer"),
        ("kill-timeout = \"5\"", "3:16", "500ms, 5s"),
        ("hang-timeout = \"0s\"", "3:16", "leave the option out"),
        ("listen = [\":80\", \"localhost:80\"]", "3:10", "127.0.0.1:80"),
        ("listen = [\":80\", 1.5]", "3:18", "this is a float"),
        ("no-adopt = \"yes\"", "3:12", "true or false, and this is a string"),
        ("verbose = 10", "3:11", "from 0 to 9"),
        ("log-format = \"jsn\"", "3:14", "did you mean `json`?"),
        ("policy = \"fastest\"", "3:10", "round-robin"),
        ("max-restarts = -1", "3:16", "-1"),
        ("max-memory = \"lots\"", "3:14", "512M"),
        ("env = \"A=b\"", "3:7", "a table of variables"),
        ("env = { A = 1.10 }", "3:13", "put it in quotes"),
        ("env = { \"A=B\" = \"x\" }", "3:9", "no name for a variable"),
        ("env = { A = \"\\u0000\" }", "3:13", "NUL"),
        ("secret = { A = \"credential:\" }", "3:16", "credential:db-password"),
        ("secret = { A = 1 }", "3:16", "named by a string"),
        ("env-file = { A = \"b\" }", "3:12", "a path, as a string, or an array of such"),
        ("health-tcp = true\nhealth-http = \"/\"", "3:1", "can't be given together with `health-http`"),
        ("environments = 1", "3:16", "`environments` is a table"),
    ] {
        let shown = mistakes(&of(line));
        assert!(
            shown.contains(&format!("allcores.toml:{place}: ")) && shown.contains(part),
            "{line}\n{shown}"
        );
    }
}

#[test]
fn what_is_no_toml_is_shown_with_its_place() {
    for (text, place) in [("[apps.web\n", "1:10"), ("a = \n", "1:5"), ("[apps.web]\ncommand = \"x", "2:13")] {
        let shown = mistakes(text);
        assert!(shown.contains(&format!("allcores.toml:{place}")), "{text}\n{shown}");
    }
    for text in ["", "[apps]", "[defaults]\nworkers = 1"] {
        assert!(mistakes(text).contains("no app in this file"), "{text}");
    }
    assert!(mistakes("[apps.web]\nworkers = 1").contains("the app has no `command`"));
    assert!(mistakes("apps = 1").contains("`apps` is a table"));
}

#[test]
fn all_mistakes_are_shown_at_once() {
    let shown = mistakes(&of("wokers = 1\nkill-timeout = 5\nenv = 7"));
    assert!(shown.contains("has 3 mistakes"), "{shown}");
    for part in ["3 | wokers = 1\n", "^^^^^^\n", "4 | kill-timeout = 5\n", "5 | env = 7\n"] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn all_that_is_wrong_in_one_table_or_array_is_shown() {
    let shown = mistakes(&of("env = { \"A=B\" = \"x\", \"\" = \"y\", C = 1.5 }\nlisten = [true, 1.5]"));
    assert!(shown.contains("has 5 mistakes"), "{shown}");
    for place in ["3:9", "3:22", "3:36", "4:11", "4:17"] {
        assert!(shown.contains(&format!("allcores.toml:{place}: ")), "{place}\n{shown}");
    }
}

#[test]
fn all_that_is_wrong_on_this_machine_is_shown_at_once() {
    let failure = crate::settings::of_app(&web(&of(
        "cwd = \"/no/such\"\nuid = \"no-such\"\ngid = \"no-such\"\nenv-file = [\"a.env\", \"b.env\"]\n\
         secret = { A = \"no\", B = \"nor\" }\nwatch = [\"x\", \"y\"]",
    )));
    let failure = failure.unwrap_err();
    assert_eq!(failure.code(), ExitCode::Config);
    let shown = failure.to_string();
    for part in
        ["3:1: cwd", "4:1: uid", "5:1: gid", "app/a.env", "app/b.env", "A=/srv/app/no\"", "B=/srv/app/nor\""]
    {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert_eq!(shown.matches("8:1: watch").count(), 2, "{shown}");
}

#[test]
fn a_program_that_is_not_there_is_shown_with_its_place() {
    let check = |text: &str| crate::settings::check_program(&web(text));
    let of =
        |command: &str, more: &str| format!("[apps.web]\ncwd = \"/\"\ncommand = \"{command}\"\n{more}\n");
    check(&of("sh -c true", "")).unwrap();
    check(&of("bin/sh -c true", "")).unwrap();
    check("[apps.web]\ncwd = \"/no/such\"\ncommand = \"./x\"\n").unwrap();
    for (command, more, part) in [
        ("no-such-program app.js", "", "no-such-program is in no folder of PATH"),
        ("sh", "env = { PATH = \"/no/such\" }", "sh is in no folder of PATH"),
        ("./no/such", "", "No such file"),
        ("./etc/passwd", "", "Permission denied"),
        ("./etc", "", "directory"),
    ] {
        let failure = check(&of(command, more)).unwrap_err();
        assert_eq!(failure.code(), ExitCode::Config);
        let shown = failure.to_string();
        assert!(shown.contains("allcores.toml:3:1: command = ") && shown.contains(part), "{shown}");
    }
}

#[test]
fn what_is_wrong_only_on_this_machine_is_shown_with_its_place() {
    for (line, part) in [
        ("cwd = \"/no/such\"", "allcores.toml:3:1: cwd = \"/no/such\": "),
        ("cwd = \"/\"\nuid = \"no-such\"", "allcores.toml:4:1: uid = \"no-such\": "),
        ("cwd = \"/\"\nenv-file = \"no.env\"", "allcores.toml:4:1: env-file = \"/srv/app/no.env\": "),
        ("cwd = \"/\"\nsecret = { A = \"no\" }", "allcores.toml:4:1: secret = \"A=/srv/app/no\": "),
    ] {
        let failure = crate::settings::of_app(&web(&of(line))).unwrap_err();
        assert_eq!(failure.code(), ExitCode::Config);
        assert!(failure.to_string().contains(part), "{line}\n{failure}");
    }
}

/// All keys of the schema's tables of options.
fn keys(table: &Json) -> Vec<&str> {
    table["properties"].as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_schema_has_every_key_where_a_file_may_have_it() {
    let schema = schema();
    let catalogue = Catalogue::new();
    let sorted = |also: &[&'static str]| {
        let mut names: Vec<&str> = catalogue.keys().map(Key::name).chain(also.iter().copied()).collect();
        names.sort_unstable();
        names
    };
    let (defaults, app) =
        (&schema["properties"]["defaults"], &schema["properties"]["apps"]["additionalProperties"]);
    let environment = |table: &'_ Json| table["properties"]["environments"]["additionalProperties"].clone();
    let expected =
        [sorted(&["environments"]), sorted(&["command", "environments"]), sorted(&[]), sorted(&["command"])];
    let (of_defaults, of_app) = (environment(defaults), environment(app));
    for (table, expected) in [defaults, app, &of_defaults, &of_app].into_iter().zip(expected) {
        let mut found = keys(table);
        found.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(table["additionalProperties"], false);
        for (name, property) in table["properties"].as_object().unwrap() {
            assert!(property["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
        }
    }
}

#[test]
fn the_published_schema_is_current() {
    current(
        "docs/reference/allcores.schema.json",
        &(serde_json::to_string_pretty(&schema()).unwrap() + "\n"),
    );
}

#[test]
fn the_published_reference_of_options_is_current() {
    current("docs/reference/options.md", &super::reference::page());
}
