use serde_json::json;

use super::*;
use crate::config::File;

fn imported(file: &Value) -> Imported {
    import(file).unwrap()
}

/// What an app of these options becomes, without its head and what all have.
fn keys(options: &Value) -> (String, Vec<Note>) {
    let mut options = options.clone();
    let fields = options.as_object_mut().unwrap();
    fields.entry("script").or_insert("server.js".into());
    fields.entry("name").or_insert("web".into());
    let imported = imported(&json!({ "apps": [options] }));
    let common =
        ["[apps.web]", "workers = 1", "stop-signal = \"INT\"", "command = [\"node\", \"server.js\"]", ""];
    let keys: Vec<&str> = imported.text.lines().filter(|line| !common.contains(line)).collect();
    (keys.join("\n"), imported.notes)
}

#[test]
fn what_is_run_is_what_pm2_would_run() {
    for (options, command) in [
        (
            json!({ "script": "server.js", "args": "--port 80 'a b'" }),
            r#"["node", "server.js", "--port", "80", "a b"]"#,
        ),
        (
            json!({ "script": "dist/main.mjs", "node_args": ["--enable-source-maps"] }),
            r#"["node", "--enable-source-maps", "dist/main.mjs"]"#,
        ),
        (json!({ "script": "api.py", "interpreter_args": "-u" }), r#"["python3", "-u", "api.py"]"#),
        (
            json!({ "script": "api.py", "interpreter": "/opt/py/bin/python" }),
            r#"["/opt/py/bin/python", "api.py"]"#,
        ),
        (json!({ "script": "./bin/server", "args": ["-v"] }), r#"["./bin/server", "-v"]"#),
        (json!({ "script": "server.bin", "interpreter": "none" }), r#"["./server.bin"]"#),
        (json!({ "script": "caddy", "args": "run" }), r#"["caddy", "run"]"#),
        (json!({ "script": "npm start -- --fast" }), r#"["bash", "-c", "npm start -- --fast"]"#),
        (
            json!({ "script": "python3 -m http.server", "interpreter": "none" }),
            r#"["bash", "-c", "python3 -m http.server"]"#,
        ),
        (json!({ "script": "main.ts" }), r#"["bun", "main.ts"]"#),
    ] {
        let text = imported(&json!({ "apps": [options] })).text;
        assert!(text.contains(&format!("command = {command}\n")), "{text}");
    }
}

#[test]
fn options_that_both_have_come_along() {
    let (keys, notes) = keys(&json!({
        "cwd": "/srv/web", "instances": "max", "wait_ready": true, "listen_timeout": 8000, "kill_timeout": "3s",
        "min_uptime": 5000, "max_restarts": 3, "exp_backoff_restart_delay": 100, "max_memory_restart": "300M",
        "watch": ["src", "lib"], "ignore_watch": ["*.log"], "watch_delay": 500, "uid": "www", "out_file": "web.log",
        "port": 8080, "env": { "A": "b", "N": 1 }, "env_production": { "NODE_ENV": "production" },
    }));
    for line in [
        "cwd = \"/srv/web\"",
        "workers = \"auto\"",
        "wait-ready = true",
        "ready-timeout = \"8000ms\"",
        "kill-timeout = \"3s\"",
        "min-uptime = \"5000ms\"",
        "max-restarts = 3",
        "backoff = \"100ms\"",
        "max-memory = \"300M\"",
        "watch = [\"/srv/web/src\", \"/srv/web/lib\"]",
        "watch-ignore = [\"*.log\"]",
        "watch-delay = \"500ms\"",
        "uid = \"www\"",
        "log-file = \"/srv/web/web.log\"",
        "env = { A = \"b\", N = \"1\", PORT = \"8080\" }",
        "[apps.web.environments.production]",
        "env = { NODE_ENV = \"production\" }",
    ] {
        assert!(keys.lines().any(|key| key == line), "{line} is missing in\n{keys}");
    }
    assert_eq!(notes, []);
}

#[test]
fn what_pm2_takes_from_cwd_is_written_from_the_folder_of_the_file() {
    for (options, expected) in [
        (json!({ "watch": true, "out_file": "./out.log" }), "watch = [\".\"]\nlog-file = \"out.log\""),
        (
            json!({ "cwd": "/srv/web", "watch": true, "out_file": "logs/out.log" }),
            "cwd = \"/srv/web\"\nwatch = [\"/srv/web\"]\nlog-file = \"/srv/web/logs/out.log\"",
        ),
        (
            json!({ "cwd": "./api", "watch": ["src", "/etc/api"], "output": "/var/log/api.log" }),
            "cwd = \"./api\"\nwatch = [\"api/src\", \"/etc/api\"]\nlog-file = \"/var/log/api.log\"",
        ),
        (json!({ "cwd": "api", "watch": [] }), "cwd = \"api\"\nwatch = [\"api\"]"),
        (json!({ "cwd": null, "watch": "src" }), "watch = [\"src\"]"),
        (
            json!({ "watch": true, "ignore_watch": ["node_modules", "./logs", "a/*.js", "tmp/"] }),
            "watch = [\".\"]\nwatch-ignore = [\"node_modules\", \"/logs\", \"/a/*.js\", \"tmp/\"]",
        ),
        (
            json!({ "cwd": "/srv/web", "watch": ["src", "lib"], "ignore_watch": ["src/made", "/srv/web/lib/x", "**/*.log"] }),
            "cwd = \"/srv/web\"\nwatch = [\"/srv/web/src\", \"/srv/web/lib\"]\nwatch-ignore = [\"/made\", \"/x\", \"**/*.log\"]",
        ),
    ] {
        let (text, notes) = keys(&options);
        let (mut found, mut expected): (Vec<_>, Vec<_>) =
            (text.lines().collect(), expected.lines().collect());
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!((found, notes), (expected, vec![]), "{options}");
    }
}

#[test]
fn what_has_no_equivalent_is_told_with_its_reason() {
    let (keys, notes) = keys(&json!({
        "namespace": "shop", "error_file": "e.log", "treekill": true, "pmx": false, "no_such_option": 1,
        "cron_restart": "0 4 * * *", "interpreter": "node@18.0.0",
    }));
    assert_eq!(keys, "cron-restart = \"0 4 * * *\"");
    let told: Vec<&str> = notes.iter().map(|note| note.option.as_str()).collect();
    for option in ["namespace", "error_file", "treekill", "no_such_option", "cron_restart", "interpreter"] {
        assert!(told.contains(&option), "{option}: {notes:?}");
    }
    assert!(!told.contains(&"pmx"), "what is off is nothing to miss");
    assert!(notes.iter().all(|note| note.app == "web" && note.text.len() > 10), "{notes:?}");
}

#[test]
fn what_runs_to_its_end_is_a_comment_and_no_app_that_would_be_started_again_and_again() {
    let imported = imported(&json!({ "apps": [
        { "name": "web", "script": "server.js" },
        { "name": "migrate", "script": "migrate.py", "autorestart": false, "env_stage": { "A": "b" } },
        { "name": "migrate", "script": "other.js", "autorestart": true },
    ] }));
    assert_eq!(imported.apps, ["web", "migrate-3"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("allcores.toml");
    std::fs::write(&path, &imported.text).unwrap();
    let file = File::read(&path).unwrap_or_else(|failure| panic!("{failure}\n{}", imported.text));
    assert_eq!(file.apps().count(), 2);
    for line in [
        "# autorestart: workers are kept",
        "# [apps.migrate]\n",
        "# command = [\"python3\", \"migrate.py\"]\n",
    ] {
        assert!(imported.text.contains(line), "{}", imported.text);
    }
    let note = imported.notes.iter().find(|note| note.option == "autorestart").unwrap();
    assert!(note.app == "migrate" && note.text.starts_with("written as a comment"), "{note:?}");
}

#[test]
fn files_have_one_app_or_several_in_each_of_pm2s_forms() {
    let app = json!({ "script": "a.js" });
    for file in [json!({ "apps": [app] }), json!({ "apps": app }), json!([app]), app.clone()] {
        assert_eq!(imported(&file).apps, ["a"], "{file}");
    }
    let twice =
        imported(&json!({ "apps": [app, app, { "name": "my shop", "script": "b.py" }], "deploy": {} }));
    assert_eq!(twice.apps, ["a", "a-2", "my-shop"]);
    assert!(twice.notes.iter().any(|note| note.option == "deploy"), "{:?}", twice.notes);
}

#[test]
fn what_is_no_ecosystem_file_is_refused_in_words() {
    for (file, part) in [
        (json!(7), "no `apps`"),
        (json!({ "app": [] }), "no `apps`"),
        (json!({ "apps": [] }), "no app"),
        (json!({ "apps": [7] }), "app 1 of it is no object"),
        (json!({ "apps": [{ "name": "web" }] }), "the app web does not say what to run"),
        (json!({ "apps": [{ "script": "a.js", "args": "'" }] }), "quote"),
    ] {
        let error = import(&file).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_is_written_is_a_good_config_file_whatever_stands_in_strings() {
    let odd = "\"quoted\" \\ \n\t\u{7f} ü";
    let text = imported(&json!({ "apps": [
        { "name": "odd name.v2", "script": "a.js", "args": [odd], "env": { "A B": odd }, "env_stage.1": { "C": odd } },
    ] })).text;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("allcores.toml");
    std::fs::write(&path, &text).unwrap();
    let file = File::read(&path).unwrap_or_else(|failure| panic!("{failure}\n{text}"));
    assert_eq!(file.apps().count(), 1);
    assert_eq!(file.environments(), ["stage.1"]);
}

#[test]
fn names_are_good_and_no_two_apps_have_the_same() {
    let names = |names: &[&str]| {
        let app = |name: &&str| json!({ "name": name, "script": "server.js" });
        imported(&json!({ "apps": names.iter().map(app).collect::<Vec<_>>() })).apps
    };
    assert_eq!(names(&["[a/b c", ".web", "all", "\u{fc}"]), ["a-b-c", "web", "app-3", "app-4"]);
    assert_eq!(names(&["x-3", "x", "x", "x"]), ["x-3", "x", "x-4", "x-5"]);
    let long = "n".repeat(100);
    let shortened = names(&[&long, &long]);
    assert!(shortened[0].len() == 48 && shortened[1].len() == 48 && shortened[0] != shortened[1]);
}

#[test]
fn what_is_no_number_does_not_become_text_of_the_file() {
    let (keys, notes) = keys(&json!({ "max_restarts": "3\n[apps.other]\ncommand = [\"x\"]" }));
    assert_eq!(keys, "");
    assert!(notes.iter().any(|note| note.option == "max_restarts" && note.text.contains("no number")));
}
