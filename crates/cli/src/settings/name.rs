//! An app's name: what may be one, and which one a command gets that was given none.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use allcores::primary::NODE_OPTIONS_WITH_VALUE;
use serde::{Deserialize, Serialize};

use crate::target::ALL;

/// Longer names would not leave room for the path of a Unix socket (108 bytes, unix(7)).
pub(crate) const MAX_NAME: usize = 48;

/// A valid name: `A-Z a-z 0-9 . _ -`, beginning with none of `.` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct AppName(String);

impl AppName {
    /// Derives a name from a command, e.g. `server` from `node server.js`, or from the folder it runs in, e.g. for
    /// `npm start`.
    pub(crate) fn derive(command: &[OsString], folder: &Path) -> Self {
        let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
        let words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
        from_words(&words)
            .and_then(|word| Self::sanitized(&word))
            .or_else(|| Self::sanitized(&folder.file_name()?.to_string_lossy()))
            .unwrap_or_else(|| Self("app".into()))
    }

    /// Makes a name of any text, if anything of it can stay.
    pub(crate) fn sanitized(text: &str) -> Option<Self> {
        let name: String = text.chars().map(|char| if is_allowed(char) { char } else { '-' }).collect();
        let name = name.trim_start_matches(['.', '-']);
        name[..name.len().min(MAX_NAME)].trim_end_matches(['.', '-']).parse().ok()
    }

    /// Lends the text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("a name must not be empty".into())
        } else if text.len() > MAX_NAME {
            Err(format!("a name has at most {MAX_NAME} characters, this has {}", text.len()))
        } else if text.starts_with(['.', '-']) {
            Err("a name must begin with a letter, a digit or `_`".into())
        } else if text == ALL {
            Err(format!("`{ALL}` stands for every app, so none can be called so"))
        } else if let Some(char) = text.chars().find(|char| !is_allowed(*char)) {
            Err(format!("{char:?} can't be in a name: letters, digits, `.`, `_` and `-` can"))
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl TryFrom<String> for AppName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<AppName> for String {
    fn from(name: AppName) -> Self {
        name.0
    }
}

fn is_allowed(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-')
}

/// The word of a command that tells what it serves; `None` where only the folder does.
fn from_words(words: &[&str]) -> Option<String> {
    let (program, arguments) = words.split_first()?;
    let program = stem(program);
    match program.trim_end_matches(|char: char| char.is_ascii_digit() || char == '.') {
        "npm" | "pnpm" | "yarn" | "make" | "cargo" | "go" | "mvn" | "gradle" => None,
        "node" | "nodejs" => Some(script(arguments, &NODE_OPTIONS_WITH_VALUE, program)),
        "bun" | "deno" => after_subcommand(arguments, program),
        "python" | "pypy" => Some(python(arguments, program)),
        "java" => Some(java(arguments, program)),
        "ruby" | "perl" | "sh" | "bash" | "tsx" | "ts-node" | "npx" | "bunx" => {
            Some(script(arguments, &[], program))
        }
        _ => Some(program.to_owned()),
    }
}

/// The first argument that is no option, without folder and extension; the program where there is none.
fn script(arguments: &[&str], with_value: &[&str], program: &str) -> String {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if matches!(*argument, "-e" | "-c" | "-p" | "--eval" | "--print") {
            break;
        } else if with_value.contains(argument) {
            arguments.next();
        } else if !argument.starts_with('-') {
            return stem(argument).to_owned();
        }
    }
    program.to_owned()
}

/// `deno run -A main.ts`, `bun server.ts`; but `bun run start` and `deno task start` name a task of the folder.
fn after_subcommand(arguments: &[&str], program: &str) -> Option<String> {
    let arguments = match arguments.split_first() {
        Some((&("run" | "serve"), rest)) => rest,
        Some((&("task" | "x" | "start"), _)) => return None,
        _ => arguments,
    };
    let is_task = |argument: &&&str| !argument.starts_with('-') && Path::new(argument).extension().is_none();
    match arguments.iter().find(|argument| !argument.starts_with('-')) {
        Some(argument) if is_task(&argument) => None,
        _ => Some(script(arguments, &[], program)),
    }
}

fn python(arguments: &[&str], program: &str) -> String {
    let module = arguments.iter().position(|argument| *argument == "-m").and_then(|at| arguments.get(at + 1));
    match module {
        Some(module) => (*module).to_owned(),
        None => script(arguments, &["-W", "-X"], program),
    }
}

fn java(arguments: &[&str], program: &str) -> String {
    let jar = arguments.iter().position(|argument| *argument == "-jar").and_then(|at| arguments.get(at + 1));
    match jar {
        Some(jar) => stem(jar).to_owned(),
        None => script(arguments, &["-cp", "-classpath", "--class-path", "-p", "--module-path"], program),
    }
}

/// The last part of a path without a script's or archive's extension.
fn stem(path: &str) -> &str {
    const EXTENSIONS: [&str; 16] = [
        "js", "mjs", "cjs", "ts", "mts", "cts", "jsx", "tsx", "py", "rb", "pl", "php", "sh", "jar", "java",
        "exe",
    ];
    let file = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
    match file.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && EXTENSIONS.contains(&extension) => stem,
        _ => file,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use super::{AppName, MAX_NAME};

    fn derived(command: &str) -> String {
        let words: Vec<OsString> = command.split(' ').map(OsString::from).collect();
        AppName::derive(&words, Path::new("/srv/shop")).into()
    }

    #[test]
    fn names_are_derived_as_a_person_would() {
        for (command, name) in [
            ("node server.js", "server"),
            ("node --require ./trace.js --inspect dist/api.mjs --port 80", "api"),
            ("node --env-file .env --import tsx server.ts", "server"),
            ("node -e code", "node"),
            ("python3 -m http.server", "http.server"),
            ("/usr/bin/python3.12 -X dev app.py", "app"),
            ("python3 -c code", "python3"),
            ("npm start", "shop"),
            ("cargo run --release", "shop"),
            ("bun run start", "shop"),
            ("bun server.ts", "server"),
            ("deno run -A main.ts", "main"),
            ("deno task start", "shop"),
            ("java -Xmx1g -jar target/shop-1.2.jar", "shop-1.2"),
            ("java -cp lib shop.Main", "shop.Main"),
            ("./target/release/web", "web"),
            ("./run.sh", "run"),
            ("uvicorn app:app", "uvicorn"),
            ("./caf\u{e9} x", "caf"),
        ] {
            assert_eq!(derived(command), name, "{command}");
        }
    }

    #[test]
    fn something_is_always_left() {
        assert_eq!(String::from(AppName::derive(&["...".into()], Path::new("/"))), "app");
        assert_eq!(derived("..."), "shop");
        assert_eq!(derived(&"x".repeat(99)).len(), MAX_NAME);
    }

    #[test]
    fn derived_names_are_valid_names() {
        for command in ["node server.js", "./-x", "./a b", "./x.", "sh ./.hidden.sh"] {
            let name = derived(command);
            assert!(name.parse::<AppName>().is_ok(), "{command}: {name}");
        }
    }

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for name in ["", ".", "..", "../x", "a/b", "-x", "a b", "\u{e9}", "a\0b", &"x".repeat(MAX_NAME + 1)] {
            assert!(name.parse::<AppName>().is_err(), "{name:?}");
        }
        for name in ["web", "_x", "http.server", "Web-2", "0"] {
            assert!(name.parse::<AppName>().is_ok(), "{name:?}");
        }
    }
}
