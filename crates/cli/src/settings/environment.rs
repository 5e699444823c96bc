//! The variables that workers are given: listed in files, said outright, and secret.
//!
//! What a secret contains never goes into an error, nor anywhere but into the workers' environment.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};

use crate::args::{AppOptions, SecretSource};
use crate::config::Places;
use crate::failure::{Failure, Failures};

/// Where systemd puts credentials (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// A variable can't be longer: `MAX_ARG_STRLEN` of execve(2).
const MAX_VALUE: u64 = 128 * 1024;

/// A longer file lists no variables.
const MAX_LIST: u64 = 4 << 20;

/// Makes the variables. Of two of one name the later wins: files in their order, then what was said, then secrets. Of an app
/// that runs they have been read before, and what can be read only once is refused: it would be empty by now.
pub(super) fn of(
    options: &AppOptions,
    places: &Places,
    is_running: bool,
) -> Result<Vec<(OsString, OsString)>, Failure> {
    let check = |path: &Path| if is_running { readable_again(path) } else { Ok(()) };
    let (mut variables, mut wrong) = (Vec::new(), Failures::default());
    for path in &options.env_file {
        let listed = check(path).and_then(|()| read_list(path)).map_err(|error| {
            places.refuse("env-file", &path.to_string_lossy(), error).next(
                "give a file that there is, with a KEY=VALUE in each line and # before what is no variable",
            )
        });
        variables.extend(wrong.keep(listed).into_iter().flatten());
    }
    variables.extend(options.env.iter().cloned());
    for (key, source) in &options.secret {
        let value = place_of(source).and_then(|path| check(&path).and_then(|()| read_secret(&path)));
        let value = value.map_err(|error| {
            let place = format!("{}={source}", key.to_string_lossy());
            let next = match source {
                SecretSource::File(_) => "give a file that this user can read",
                SecretSource::Credential(_) => {
                    "pass it by the unit: LoadCredential=NAME:FILE, or LoadCredentialEncrypted="
                }
            };
            places.refuse("secret", &place, error).next(next)
        });
        variables.extend(wrong.keep(value).map(|value| (key.clone(), value)));
    }
    wrong.none().map(|()| variables)
}

/// The PATH that an app's own variables set, as far as their files can be read.
pub(super) fn path(options: &AppOptions) -> Option<OsString> {
    let listed = options.env_file.iter().filter_map(|path| read_list(path).ok()).flatten();
    let paths = listed.chain(options.env.iter().cloned()).filter(|(key, _)| key == "PATH");
    paths.map(|(_, value)| value).next_back()
}

/// Whether a file contains what it did: not so a pipe, as shells make for `<(COMMAND)`.
fn readable_again(path: &Path) -> anyhow::Result<()> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        bail!("it is a pipe, and what was in it has been read already; in a file it could be read again");
    }
    Ok(())
}

fn place_of(source: &SecretSource) -> anyhow::Result<PathBuf> {
    match source {
        SecretSource::File(path) => Ok(path.clone()),
        SecretSource::Credential(name) => credential(std::env::var_os(CREDENTIALS), name),
    }
}

fn read_secret(path: &Path) -> anyhow::Result<OsString> {
    let mut value = read(path, MAX_VALUE)?;
    // What an editor or `echo` leaves at the end is no part of it.
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
    if value.contains(&0) {
        bail!("there is a NUL in it, which no variable can have");
    }
    Ok(OsString::from_vec(value))
}

fn credential(folder: Option<OsString>, name: &str) -> anyhow::Result<PathBuf> {
    let folder = folder.ok_or_else(|| {
        anyhow!("there are no credentials here: {CREDENTIALS} is not set, as systemd does for a unit that has some")
    })?;
    Ok(Path::new(&folder).join(name))
}

fn read(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
    }
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        bail!("it has more than {limit} bytes");
    }
    Ok(bytes)
}

fn read_list(path: &Path) -> anyhow::Result<Vec<(OsString, OsString)>> {
    let text = String::from_utf8(read(path, MAX_LIST)?).map_err(|_| anyhow!("it is not UTF-8"))?;
    list(&text)
}

/// Reads a list of variables as node's `--env-file` does: quotes `'`, `"` and `` ` `` may span lines, `\n` in double quotes is a
/// line end, `export` before a name and `#` comments are passed over. Nothing is expanded.
fn list(text: &str) -> anyhow::Result<Vec<(OsString, OsString)>> {
    let mut variables = Vec::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    while !rest.is_empty() {
        let number = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let entry = line.trim();
        if entry.is_empty() || entry.starts_with('#') {
            rest = after;
            continue;
        }
        let (key, value) = rest
            .split_once('=')
            .filter(|(key, _)| !key.contains('\n'))
            .with_context(|| format!("line {number} has no `=`"))?;
        let key = key.trim();
        let key = key.strip_prefix("export ").unwrap_or(key).trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            bail!("line {number} has no name before its `=`");
        }
        let (value, after) = value_of(value).with_context(|| format!("line {number}"))?;
        if value.contains('\0') {
            bail!("line {number} has a NUL in it, which no variable can have");
        }
        variables.push((key.into(), value.into()));
        rest = after;
    }
    Ok(variables)
}

/// A value, and what follows its line.
fn value_of(text: &str) -> anyhow::Result<(String, &str)> {
    let start = text.trim_start_matches([' ', '\t']);
    let end_of_line = |text: &'_ str| text.find('\n').map_or(text.len(), |at| at + 1);
    if let Some(quote) = start.chars().next().filter(|char| matches!(char, '\'' | '"' | '`')) {
        let inner = &start[1..];
        let close = inner.find(quote).ok_or_else(|| anyhow!("a quote is not closed"))?;
        let after = &inner[close + 1..];
        let tail = &after[..end_of_line(after)];
        if !tail.trim().is_empty() && !tail.trim_start().starts_with('#') {
            bail!("there is something behind the closing quote");
        }
        let value = &inner[..close];
        let value = if quote == '"' { value.replace("\\n", "\n") } else { value.to_owned() };
        return Ok((value, &after[end_of_line(after)..]));
    }
    let line = &text[..end_of_line(text)];
    // As node has it: a comment may stand behind a value without quotes, too.
    let value = line.split('#').next().unwrap_or_default().trim();
    Ok((value.to_owned(), &text[line.len()..]))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{credential, list, read_secret};

    fn pairs(text: &str) -> Vec<(String, String)> {
        let pairs = list(text).unwrap();
        let text = |text: std::ffi::OsString| text.into_string().unwrap();
        pairs.into_iter().map(|(key, value)| (text(key), text(value))).collect()
    }

    #[test]
    fn a_list_of_variables_is_read_as_node_does() {
        let text = "\u{feff}# a comment\n\nA=1\nexport B = two words # why\nC='it # is'  # so\nD=\"a\\nb\"\nE=\nF=`x\ny`\r\nG=a=b\r\nH=$A";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "it # is"),
            ("D", "a\nb"),
            ("E", ""),
            ("F", "x\ny"),
            ("G", "a=b"),
            ("H", "$A"),
        ];
        assert_eq!(pairs(text), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert!(pairs("").is_empty());
    }

    #[test]
    fn a_bad_list_is_refused_with_its_line_and_without_its_values() {
        for (text, part) in [
            ("A=1\nhunter2\n", "line 2"),
            ("\n=hunter2", "line 2"),
            ("A B=hunter2", "line 1"),
            ("A=1\nB='hunter2\n", "line 2: a quote"),
            ("A=\"x\" hunter2", "behind the closing quote"),
            ("A=hunter2\0", "NUL"),
            ("A\n=hunter2", "line 1"),
        ] {
            let error = format!("{:#}", list(text).unwrap_err());
            assert!(error.contains(part) && !error.contains("hunter2"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_secret_is_the_file_without_its_last_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let read = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            read_secret(&path)
        };
        for (content, value) in [(&b"a b\n"[..], "a b"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b"", "")] {
            assert_eq!(read(content).unwrap(), value);
        }
        let error = read(b"hunter2\0").unwrap_err().to_string();
        assert!(error.contains("NUL") && !error.contains("hunter2"), "{error}");
        assert!(read(&vec![b'x'; 128 * 1024 + 1]).unwrap_err().to_string().contains("more than"));
        assert!(format!("{:#}", read_secret(folder.path()).unwrap_err()).contains("directory"));
    }

    #[test]
    fn a_credential_is_where_systemd_put_it() {
        assert_eq!(credential(Some("/run/c".into()), "db").unwrap().to_str(), Some("/run/c/db"));
        assert!(credential(None, "db").unwrap_err().to_string().contains("CREDENTIALS_DIRECTORY"));
    }
}
