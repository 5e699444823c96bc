//! Ecosystem files, in the forms that PM2 takes: JSON, YAML, and programs for node.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde_json::Value;

use crate::exit_code::ExitCode;
use crate::failure::Failure;

/// Keeps stdout for what is asked for: what the file prints itself goes to stderr. A pipe of node's takes what has room in it.
const ANSWER: &str = "const fs = require('node:fs');
    process.stdout.write = process.stderr.write.bind(process.stderr);
    const answer = (value) => {
        const bytes = Buffer.from(String(JSON.stringify(value)));
        for (let written = 0; written < bytes.length; ) {
            try {
                written += fs.writeSync(1, bytes, written);
            } catch (error) {
                if (error.code !== 'EAGAIN') throw error;
            }
        }
    };";

/// Has node say what such a program exports. The first argument is the file.
const EXPORTS: &str =
    "import(require('node:url').pathToFileURL(require('node:path').resolve(process.argv[1])))
    .then((module) => answer(module.default ?? module));";

/// Has node say what is in a file that is JSON to PM2, which takes it for an expression of JavaScript: with comments, and with
/// commas at the end.
const EXPRESSION: &str = "const text = fs.readFileSync(process.argv[1], 'utf8');
    const value = require('node:vm').runInThisContext('(' + text + ')', { timeout: 1000 });
    answer(value);";

/// Reads an ecosystem file.
///
/// # Errors
///
/// If it can't be read, or is not what its ending says.
pub(crate) fn read(path: &Path) -> Result<Value, Failure> {
    let failed = |error: anyhow::Error| {
        let tried = format!("read the ecosystem file {}", path.display());
        let next = match error.downcast_ref::<std::io::Error>() {
            Some(_) => "name the ecosystem file: allcores import FILE",
            None => "correct it",
        };
        Failure::new(ExitCode::Config, error.context(tried)).next(next)
    };
    let text = || std::fs::read_to_string(path).map_err(anyhow::Error::new);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("js" | "cjs" | "mjs") => {
            text().map_err(failed)?;
            by_node(EXPORTS, path).map_err(|error| {
                let next = match error.downcast_ref::<std::io::Error>() {
                    Some(_) => {
                        "it is a program for node: install that, or save what it exports as JSON elsewhere"
                    }
                    None => "try `node -p 'require(\"./FILE\")'`, or save what it exports as JSON",
                };
                failed(error).next(next)
            })
        }
        Some("yml" | "yaml") => {
            let read = text().and_then(|text| serde_saphyr::from_str(&text).map_err(anyhow::Error::new));
            read.map_err(failed)
        }
        Some("json") => {
            let text = text().map_err(failed)?;
            serde_json::from_str(&text).or_else(|plain| {
                by_node(EXPRESSION, path).map_err(|error| {
                    let next = match error.downcast_ref::<std::io::Error>() {
                        Some(_) => {
                            "PM2 has node read it: install that, or save it as plain JSON, without comments"
                        }
                        None => "correct it; PM2 can't read it like that either",
                    };
                    failed(error.context(format!("it is no plain JSON ({plain}); as PM2 reads it")))
                        .next(next)
                })
            })
        }
        _ => Err(failed(anyhow::anyhow!("its name does not say what it is"))
            .next("PM2 knows .json, .yml, .yaml, .js, .cjs and .mjs")),
    }
}

/// What a program says for which this file is the first argument, as JSON.
fn by_node(program: &str, path: &Path) -> anyhow::Result<Value> {
    let mut node = Command::new("node");
    node.arg("-e").arg(format!("{ANSWER}{program}")).arg("--").arg(path).stdin(Stdio::null());
    let output = node.output().context("run it by node")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let what = said.lines().find(|line| line.contains("Error")).unwrap_or_else(|| said.trim());
        anyhow::bail!("node can't run it: {what}");
    }
    serde_json::from_slice(&output.stdout).context("read what it holds")
}
