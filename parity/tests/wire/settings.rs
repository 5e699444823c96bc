//! Settings that a worker sees.

use allcores::ExitStatus;
use allcores_parity::node::fixture;
use allcores_parity::{Run, Stage, on_each_node};
use serde_json::json;

on_each_node!(arguments);
/// cluster-setup-primary, cluster-fork-env, cluster-cwd, child-process-fork-args, -fork-exec-path
async fn arguments(run: Run) {
    let folder = tempfile::tempdir().unwrap();
    let cwd = folder.path().canonicalize().unwrap();
    let builder = run.builder("life.js", "setup", &json!({})).silent(true).cwd(&cwd).env("WORD", "all");
    let mut stage = Stage::open(builder).await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, json!({ "arguments": [], "cwd": cwd, "word": "all" }));
    let worker = stage.fork_with("WORD", "one").await;
    assert_eq!(stage.message(&worker).await["word"], "one");
}

on_each_node!(preload);
/// preload: what `--require` names runs in the worker, and knows that it is one.
async fn preload(run: Run) {
    let preloaded = fixture("preloaded.js").display().to_string();
    let options = ["--require", preloaded.as_str()];
    let mut stage = Stage::open(run.builder_with(options, "life.js", "listens", &json!({}))).await;
    for id in 1..=2 {
        let worker = stage.fork().await;
        assert_eq!(stage.gone(&worker).await, ExitStatus::Code(42 + id));
        assert!(stage.kinds(&worker).contains(&"online"));
    }
}
