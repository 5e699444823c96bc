//! Where an app's options come from besides the command line, and the commands about config files.

use std::path::PathBuf;

use crate::settings::AppName;

/// A config file, and what of it is meant.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Config file")]
pub(crate) struct SourceArgs {
    /// Take the app from this file; options win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Which app of the file [default: the only one]
    #[arg(long, requires = "config")]
    pub(crate) app: Option<AppName>,

    /// Which of its environments, for example production
    #[arg(long, value_name = "NAME", requires = "config")]
    pub(crate) env_name: Option<String>,
}

/// Check a config file: every app of it, in every environment
///
/// Each mistake is shown with its line: keys that there are not, values that can't be read, and folders, users, files and programs
/// that are not on this machine. Exit code 10 says that there is one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores check                                allcores.toml in this folder
  allcores check deploy/web.toml --elsewhere    a file for another machine")]
pub(crate) struct CheckArgs {
    /// The file
    #[arg(default_value = "allcores.toml")]
    pub(crate) file: PathBuf,

    /// Don't look for folders, users and files: it is for another machine
    #[arg(long)]
    pub(crate) elsewhere: bool,
}

/// Make a config file out of an ecosystem file of PM2's
///
/// What has no equivalent is listed on stderr, and why. Programs (`ecosystem.config.js`) are run by node. PM2 stops apps by
/// SIGINT, so that is what these get.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores import ecosystem.config.js -o allcores.toml
  allcores import ecosystem.json                          print it only")]
pub(crate) struct ImportArgs {
    /// The ecosystem file: .json, .yml, .yaml, .js, .cjs, .mjs
    #[arg(default_value = "ecosystem.config.js")]
    pub(crate) file: PathBuf,

    /// Write this file [default: print it]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Replace it if it is there
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
}

/// Print the JSON schema of config files, for editors
///
/// An editor that knows TOML completes keys by it, when the first line of allcores.toml is
/// #:schema ./allcores.schema.json
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores schema > allcores.schema.json")]
pub(crate) struct SchemaArgs {}
