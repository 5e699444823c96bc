//! The command that writes units for systemd.

use std::path::PathBuf;

use crate::settings::AppName;

/// Write systemd units for apps
///
/// One for each app of a config file: systemd starts it at boot and after a crash, reloads it, and asks whether it is
/// alive. As root they are the system's; with --user, your own manager's. Nothing is enabled or started: what to run is
/// said.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo allcores startup --as www-data
  allcores startup --user --print    look at them first
  allcores startup --user --saved    what `allcores save` has saved")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that stands for itself")]
pub(crate) struct StartupArgs {
    /// Which apps of the file [default: all]
    #[arg(value_name = "APP")]
    pub(crate) names: Vec<AppName>,

    /// The config file
    #[arg(long, value_name = "FILE", default_value = "allcores.toml")]
    pub(crate) config: PathBuf,

    /// Which of its environments, for example production
    #[arg(long, value_name = "NAME")]
    pub(crate) env_name: Option<String>,

    /// One unit, for what `allcores save` has saved
    #[arg(long, conflicts_with_all = ["names", "config", "env_name", "user_name"])]
    pub(crate) saved: bool,

    /// For your own service manager, not the system's
    #[arg(long)]
    pub(crate) user: bool,

    /// Run the apps as this user [default: root]
    ///
    /// Primary and workers.
    #[arg(id = "user_name", long = "as", value_name = "USER", conflicts_with = "user")]
    pub(crate) user_name: Option<String>,

    /// Write them into this folder
    ///
    /// Without it, /etc/systemd/system, or ~/.config/systemd/user.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) output_folder: Option<PathBuf>,

    /// Replace units that are there and say otherwise
    #[arg(long)]
    pub(crate) force: bool,

    /// Print them, and write nothing
    #[arg(long, conflicts_with = "output_folder")]
    pub(crate) print: bool,
}
