//! `allcores describe`: how an app was made.

use std::fmt::Write as _;
use std::io;

use super::{ANSWER_PATIENCE, ask, print, print_json};
use crate::args::DescribeArgs;
use crate::client::Client;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::paint::{Paint, Tone};
use crate::runtime_folder::RuntimeFolder;
use crate::screen;
use crate::view::DescriptionView;

/// Asks the app and shows what it says.
pub(super) async fn execute(args: &DescribeArgs) -> Result<ExitCode, Failure> {
    let folder = RuntimeFolder::from_env()?.find(&args.name)?;
    let description = ask(&folder, "describe", ANSWER_PATIENCE, Client::new(&folder).describe()).await?;
    if args.json {
        print_json(&description)
    } else {
        let stdout = io::stdout();
        print(render(&description, Paint::for_stream(&stdout), screen::width(&stdout)).as_bytes())
    }
}

fn render(description: &DescriptionView, paint: Paint, width: Option<usize>) -> String {
    let mut facts = vec![
        ("command", description.command_line.clone()),
        ("folder", description.folder.clone()),
        ("primary", format!("pid {}, allcores {}", description.pid, description.version)),
    ];
    if let Some(file) = &description.config {
        let environment = file.environment.as_ref().map(|name| format!(", environment {name}"));
        facts.push(("config", format!("{}, app {}{}", file.path, file.app, environment.unwrap_or_default())));
    }
    facts.push(("run by", if description.background { "allcores start" } else { "allcores run" }.to_owned()));
    facts.push(("socket", description.socket.clone()));
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
    use super::render;
    use crate::paint::Paint;
    use crate::view::tests::description;

    #[test]
    fn a_description_has_what_there_is_and_no_values_of_variables() {
        let text = render(&description(), Paint::off(), None);
        for part in [
            "web\n  command    node server.js\n",
            "  config     /srv/allcores.toml, app web, environment production\n",
            "  secrets    DB_PASSWORD\n",
            "  options\n    kill-timeout  5s\n    listen        :80 :81\n",
            "  waiting    policy (changed; for `allcores restart --hard`)\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
