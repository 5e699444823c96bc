//! Single values of a config file, as they would be typed.

use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::DeValue;

use super::super::catalogue::{Key, Kind};
use super::super::layer::Value;
use super::{Words, wanted};
use crate::args::SecretSource;

/// What is wrong with a value, and where.
type Wrong = (Range<usize>, String);

/// What TOML calls a value.
pub(super) fn called(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Reads the value of an option. Paths are taken from `folder`.
///
/// # Errors
///
/// All that is wrong in it.
pub(super) fn read(key: Key<'_>, value: &Spanned<DeValue<'_>>, folder: &Path) -> Result<Value, Vec<Wrong>> {
    let Some(kind) = key.kind() else {
        return Err(vec![(value.span(), format!("`{}` can't be set in a file", key.name()))]);
    };
    match (kind, value.get_ref()) {
        (_, DeValue::Boolean(false)) => Ok(Value::Off),
        (Kind::Flag, DeValue::Boolean(true)) => Ok(Value::Times(1)),
        (Kind::Tally, DeValue::Integer(number)) => {
            let count = number.to_string().parse().ok().filter(|count| *count < 10);
            count.map(Value::Times).ok_or_else(|| vec![wrong(key, kind, value)])
        }
        (Kind::Variables | Kind::Sources, DeValue::Table(table)) => all(table.iter().map(|(name, value)| {
            let variable = name.get_ref().as_ref();
            check_name(variable).map_err(|reason| (name.span(), reason))?;
            let text = variable_value(kind, value, folder)?;
            Ok(format!("{variable}={text}").into())
        })),
        (_, DeValue::Array(values)) if key.is_list() && !matches!(kind, Kind::Variables | Kind::Sources) => {
            all(values.iter().map(|value| word(key, kind, value, folder)))
        }
        _ => all(std::iter::once(word(key, kind, value, folder))),
    }
}

/// The words, or all that is wrong with them.
fn all(read: impl Iterator<Item = Result<OsString, Wrong>>) -> Result<Value, Vec<Wrong>> {
    let (mut words, mut wrong) = (Vec::new(), Vec::new());
    for word in read {
        match word {
            Ok(word) => words.push(word),
            Err(reason) => wrong.push(reason),
        }
    }
    if wrong.is_empty() { Ok(Value::Words(words)) } else { Err(wrong) }
}

fn wrong(key: Key<'_>, kind: Kind, value: &Spanned<DeValue<'_>>) -> Wrong {
    let list = match (key.is_list(), kind) {
        (false, _) | (true, Kind::Variables | Kind::Sources) => "",
        (true, _) => ", or an array of such",
    };
    let text =
        format!("`{}` takes {}{list}, and this is {}", key.name(), wanted(kind), called(value.get_ref()));
    (value.span(), text)
}

/// One word, if the option takes such a value.
fn word(key: Key<'_>, kind: Kind, value: &Spanned<DeValue<'_>>, folder: &Path) -> Result<OsString, Wrong> {
    let takes_number =
        matches!(kind, Kind::Count | Kind::Workers | Kind::Size | Kind::Account | Kind::Address);
    let takes_text =
        !matches!(kind, Kind::Flag | Kind::Tally | Kind::Count | Kind::Variables | Kind::Sources);
    match value.get_ref() {
        DeValue::Integer(number) if takes_number => Ok(number.to_string().into()),
        DeValue::String(text) if takes_text => {
            check_text(text).map_err(|reason| (value.span(), reason))?;
            match kind {
                Kind::Path => Ok(folder.join(text.as_ref()).into()),
                _ => Ok(text.as_ref().into()),
            }
        }
        _ => Err(wrong(key, kind, value)),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err("no name for a variable: it must not be empty, nor have a `=` in it".into());
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("there is a NUL in it, which nothing that is run can be given".into());
    }
    Ok(())
}

fn variable_value(kind: Kind, value: &Spanned<DeValue<'_>>, folder: &Path) -> Result<String, Wrong> {
    let text = match (kind, value.get_ref()) {
        (_, DeValue::String(text)) => text.to_string(),
        (Kind::Variables, DeValue::Integer(number)) => number.to_string(),
        (Kind::Variables, DeValue::Boolean(is_so)) => is_so.to_string(),
        (Kind::Variables, other) => {
            let text = format!("a variable is a string, and this is {}: put it in quotes", called(other));
            return Err((value.span(), text));
        }
        (_, other) => {
            let text = format!("a secret is named by a string, and this is {}", called(other));
            return Err((value.span(), text));
        }
    };
    check_text(&text).map_err(|reason| (value.span(), reason))?;
    match kind {
        Kind::Sources => {
            let source: SecretSource = text.parse().map_err(|reason| (value.span(), reason))?;
            Ok(source.below(folder).to_string())
        }
        _ => Ok(text),
    }
}

/// Reads a command: words, or a line of them.
pub(super) fn command(value: &DeValue<'_>) -> Result<Words, String> {
    let words: Vec<String> = match value {
        DeValue::String(line) => split(line)?,
        DeValue::Array(words) => {
            let words = words.iter().map(|word| match word.get_ref() {
                DeValue::String(word) => Ok(word.to_string()),
                DeValue::Integer(number) => Ok(number.to_string()),
                other => Err(format!("`command` is made of strings, and one of them is {}", called(other))),
            });
            words.collect::<Result<_, _>>()?
        }
        other => {
            return Err(format!(
                "`command` takes an array of strings, or one string with spaces, and this is {}",
                called(other)
            ));
        }
    };
    if words.first().is_none_or(String::is_empty) {
        return Err("`command` is empty".into());
    }
    words.iter().try_for_each(|word| check_text(word))?;
    Ok(words.into_iter().map(OsString::from).collect())
}

/// Splits a line as a shell would. What only a shell could do is refused: nobody would do it.
fn split(line: &str) -> Result<Vec<String>, String> {
    if let Some(char) = unquoted(line).find(|char| "|&;<>()$`*?~#\n".contains(*char)) {
        return Err(format!(
            "`command` is not run by a shell, and {char:?} would mean nothing: put it in quotes, or give the whole to \
             one: command = [\"sh\", \"-c\", \"…\"]"
        ));
    }
    shlex::split(line).ok_or_else(|| "`command` has a quote that is not closed".into())
}

/// The characters of a line that stand in no quotes.
fn unquoted(line: &str) -> impl Iterator<Item = char> {
    let mut quote = None;
    let mut is_escaped = false;
    line.chars().filter(move |char| {
        if std::mem::take(&mut is_escaped) {
            return false;
        }
        match (quote, char) {
            (None | Some('"'), '\\') => {
                is_escaped = true;
                false
            }
            (None, '\'' | '"') => {
                quote = Some(*char);
                false
            }
            (None, _) => true,
            (Some(open), char) => {
                if *char == open {
                    quote = None;
                }
                false
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_line_is_split_as_by_a_shell() {
        let words = split(r#"node --title "my app" server.js 'a|b' c\ d "#).unwrap();
        assert_eq!(words, ["node", "--title", "my app", "server.js", "a|b", "c d"]);
    }

    #[test]
    fn what_only_a_shell_could_do_is_refused() {
        for line in
            ["a | b", "a && b", "cd x; y", "echo $HOME", "a > b", "ls *", "a `b`", "~/x", "a\nb", "a # b"]
        {
            assert!(split(line).unwrap_err().contains("shell"), "{line}");
        }
        assert!(split("a 'b").unwrap_err().contains("quote"));
    }
}
