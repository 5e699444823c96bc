//! Ecosystem files of PM2's, taken over.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use allcores_testing::address;
use allcores_testing::load::Load;
use allcores_testing::runtimes::{Runtime, fixture, require};

use crate::folder::{Folder, Run};

const LONG: Duration = Duration::from_secs(30);

/// Three apps as PM2's users have them: node in cluster mode, python in fork mode, and one that is restarted by the clock.
fn ecosystem(node: Runtime, python: Runtime, addresses: [SocketAddr; 3]) -> String {
    let program = |runtime: Runtime| runtime.program().unwrap().display().to_string();
    let place = |address: SocketAddr| format!("HOST: '{}', PORT: {}", address.ip(), address.port());
    let [web, api, job] = addresses.map(place);
    format!(
        "const base = {{ kill_timeout: 2000 }};
module.exports = {{
  apps: [
    {{ ...base, name: 'web', script: '{}', interpreter: '{}', exec_mode: 'cluster', instances: 2, wait_ready: false,
       max_memory_restart: '500M', namespace: 'shop', env: {{ {web} }}, env_production: {{ NODE_ENV: 'production' }} }},
    {{ ...base, name: 'api', script: '{}', interpreter: '{}', env: {{ {api} }} }},
    {{ ...base, name: 'job', script: '{}', interpreter: '{}', cron_restart: '* * * * * *', env: {{ {job} }} }},
  ],
  deploy: {{ production: {{ user: 'deploy' }} }},
}};
",
        fixture("node-http/server.js").display(),
        program(node),
        fixture("python-http/server.py").display(),
        program(python),
        fixture("node-http/server.js").display(),
        program(node),
    )
}

#[test]
fn an_ecosystem_file_becomes_apps_that_run_are_reloaded_scaled_logged_saved_and_resurrected() {
    let (Some(node), Some(python)) = (require(Runtime::Node), require(Runtime::Python)) else { return };
    let folder = Folder::new();
    let addresses = [address::unused(), address::unused(), address::unused()];
    fs::write(folder.path().join("ecosystem.config.js"), ecosystem(node, python, addresses)).unwrap();
    let run = folder.allcores(&["import", "-o", "allcores.toml"]).code(0).has(&[
        "allcores.toml: web, api, job",
        "web: namespace: apps have names only",
        "job: cron_restart: a rolling reload",
        "the file: deploy: ",
    ]);
    // As it says, so it is done.
    let (_, next) = run.out.split_once("next: ").unwrap();
    assert_eq!(next.trim_end(), "allcores check allcores.toml && allcores start allcores.toml");
    folder.allcores(&["check", "allcores.toml"]).code(0).has(&["3 apps", "environments production"]);
    folder.allcores(&["start", "allcores.toml"]).code(0).has(&[
        "web: 2 workers ready",
        "api: 1 worker ready",
        "job: 1 worker ready",
    ]);
    for address in addresses {
        let report = Load::new(address).requests(20).run_blocking();
        assert!(report.is_clean(), "{address}: {report}");
    }
    let load = Load::new(addresses[0]).clients(2).spawn();
    folder.allcores(&["reload", "web"]).code(0);
    folder.allcores(&["scale", "web", "3"]).code(0).has(&["3 workers ready"]);
    let report = load.stop();
    assert!(report.is_clean(), "{report}");
    // The clock has reloaded it meanwhile, or does so within a second.
    let deadline = Instant::now() + LONG;
    while folder.status("job")["generation"].as_u64() < Some(2) {
        assert!(Instant::now() < deadline, "{:#}", folder.status("job"));
    }
    folder.allcores(&["logs", "job"]).code(0).has(&[": reloading"]);

    folder.allcores(&["save"]).code(0).has(&["saved 3 apps"]);
    folder.allcores(&["stop", "all"]).code(0);
    folder.allcores(&["resurrect"]).code(0).has(&["api: 1 worker ready", "job: 1 worker ready"]);
    assert_eq!(folder.status("web")["target"], 3, "as many as there were");
    let report = Load::new(addresses[1]).requests(5).run_blocking();
    assert!(report.is_clean(), "{report}");
    folder.allcores(&["stop", "all"]).code(0);
}

#[test]
fn json_is_read_as_pm2_reads_it() {
    let folder = Folder::new();
    let text = "// Of the shop.\n{ apps: [ { \"name\": \"web\", \"script\": 'server.js', }, ], }\n";
    fs::write(folder.path().join("eco.json"), text).unwrap();
    let mut without_node = folder.command(&["import", "eco.json"]);
    without_node.env("PATH", folder.path());
    Run::from(without_node.output().unwrap()).code(10).has(&[
        "no plain JSON",
        "line 1",
        "PM2 has node read it",
    ]);
    if require(Runtime::Node).is_none() {
        return;
    }
    assert!(folder.allcores(&["import", "eco.json"]).code(0).out.contains("[apps.web]\n"));
    fs::write(folder.path().join("broken.json"), "{ \"apps\": [ } // }").unwrap();
    folder
        .allcores(&["import", "broken.json"])
        .code(10)
        .has(&["SyntaxError", "PM2 can't read it like that either"]);
}

#[test]
fn what_an_ecosystem_file_prints_itself_is_no_part_of_it() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let folder = Folder::new();
    // More than a pipe has room for.
    let text = "console.log('[dotenv] injected 2 variables'); process.stdout.write('{');
        setTimeout(() => console.info('late'), 10);
        module.exports = { apps: [{ name: 'web', script: 'server.js', env: { LONG: 'x'.repeat(300000) } }] };";
    fs::write(folder.path().join("ecosystem.config.js"), text).unwrap();
    let run = folder.allcores(&["import"]).code(0);
    assert!(run.out.contains("[apps.web]\n") && run.out.contains(&"x".repeat(300_000)), "{}", run.err);
    fs::write(folder.path().join("prints.json"), "{ apps: [{ script: console.log('a') ?? 'b.js' }], }")
        .unwrap();
    let run = folder.allcores(&["import", "prints.json"]).code(0);
    assert!(run.out.contains("b.js"), "{run:?}");
}

#[test]
fn what_can_not_be_imported_is_told_and_nothing_is_written() {
    let folder = Folder::new();
    let at = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    at("broken.json", "{ \"apps\": [ }");
    at("broken.yml", "apps: [\n");
    at("none.json", "{}");
    at("throws.config.js", "throw new Error('no such module');");
    at("eco.toml", "");
    at("good.yml", "apps:\n  - name: web\n    script: server.js\n    instances: max\n");
    at("jobs.json", "[{ \"script\": \"migrate.py\", \"autorestart\": false }]");
    at("there.toml", "mine");
    for (arguments, code, part) in [
        (&["import", "missing.json"][..], 10, "No such file"),
        (&["import"], 10, "ecosystem.config.js"),
        (&["import", "broken.json"], 10, "line 1"),
        (&["import", "broken.yml"], 10, "broken.yml"),
        (&["import", "none.json"], 10, "it has no `apps`"),
        (&["import", "throws.config.js"], 10, "no such module"),
        (&["import", "eco.toml"], 10, "PM2 knows .json"),
        (&["import", "good.yml", "-o", "there.toml"], 1, "have it replaced: --force"),
        (&["import", "jobs.json", "-o", "jobs.toml"], 10, "each of its apps runs to its end"),
        (&["import", "good.yml", "--force"], 2, "--output"),
    ] {
        folder.allcores(arguments).code(code).has(&[part]);
    }
    assert_eq!(fs::read_to_string(folder.path().join("there.toml")).unwrap(), "mine");
    let printed = folder.allcores(&["import", "good.yml"]).code(0);
    assert!(printed.out.contains("workers = \"auto\""), "{printed:?}");
    folder.allcores(&["import", "good.yml", "-o", "there.toml", "--force"]).code(0);
    assert!(fs::read_to_string(folder.path().join("there.toml")).unwrap().contains("[apps.web]"));
}
