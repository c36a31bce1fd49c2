//! The command line.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use onex_daemon::settings::Layers;

/// A control plane for blockchains: declare a chain with kubectl, and miners mine.
#[derive(Debug, Parser)]
#[command(name = "onex", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole platform in this process, until Ctrl-C.
    Up(Up),
    /// Run only the storage and the apiserver.
    Apiserver(Up),
    /// Run only the usercenter, over the database in the settings.
    Usercenter(Up),
    /// Run only the controllers, against the apiserver that a kubeconfig names.
    Controllers(Part),
    /// Run only the node. It shares the apiserver's data directory, because it shares its certificate authority.
    Node(Part),
    /// Copy the objects and the keys of a platform, which may go on running, into a directory of their own.
    Backup(Backup),
    /// Put a backup where there is no data yet.
    Restore(Restore),
    /// Look for what is wrong with the data of a platform, and with the machine it stands on.
    Doctor(Place),
    /// Measure a platform of its own, or another one: creates, reads, lists, watches, memory.
    Bench(onex_bench::Arguments),
    /// Print all settings with their meaning, as the file that --config takes.
    Config(SettingsFlags),
    /// Run one blockchain node.
    Toyblc(onex_toyblc::Arguments),
    /// Print the version.
    Version,
}

/// Which platform.
#[derive(Debug, Args)]
pub struct Place {
    /// Where everything is kept [default: onex in the user's data folder]
    #[arg(long, value_name = "DIR", env = "ONEX_DATA_DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub settings: SettingsFlags,
}

/// What differs from one start to the next.
#[derive(Debug, Args)]
pub struct Up {
    #[command(flatten)]
    pub place: Place,
    /// Listen on the ports in the settings, or on free ones
    #[arg(long, value_enum, default_value_t = Ports::Default)]
    pub ports: Ports,
}

/// What is to be copied, and where to.
#[derive(Debug, Args)]
pub struct Backup {
    /// The directory to make; it must not be there
    #[arg(value_name = "TARGET")]
    pub target: PathBuf,
    #[command(flatten)]
    pub place: Place,
}

/// What is to be put back, and where.
#[derive(Debug, Args)]
pub struct Restore {
    /// A directory that `onex backup` made
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,
    #[command(flatten)]
    pub place: Place,
}

/// A part that needs an apiserver.
#[derive(Debug, Args)]
pub struct Part {
    /// How to reach the apiserver, and as whom
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub kubeconfig: PathBuf,
    #[command(flatten)]
    pub up: Up,
}

/// Which ports to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ports {
    /// Those in the settings.
    Default,
    /// Any that are free; endpoints.json in the data directory says which.
    Auto,
}

/// Where settings come from.
#[derive(Debug, Args)]
pub struct SettingsFlags {
    /// A settings file; `onex config` prints one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, written as in the file, over the file and ONEX_SECTION__KEY in the environment; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
}

impl SettingsFlags {
    /// The layers these flags name, with the environment of this process.
    pub fn layers(&self) -> Layers {
        // A variable that is not text cannot be a setting.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Layers {
            file: self.config.clone(),
            environment: std::env::vars_os().filter_map(text).collect(),
            overrides: self.overrides.clone(),
        }
    }
}

impl Place {
    /// The data directory as an absolute path.
    pub fn directory(&self) -> anyhow::Result<PathBuf> {
        let directory = match &self.data_dir {
            Some(directory) => directory.clone(),
            None => default_directory(|name| std::env::var_os(name).map(PathBuf::from))
                .context("there is no HOME to keep data in; choose a place with --data-dir")?,
        };
        std::path::absolute(&directory)
            .with_context(|| format!("could not find the data directory {}", directory.display()))
    }
}

/// Where the XDG base directory specification puts a user's data.
fn default_directory(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let folder = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let at_home = || variable("HOME").filter(|path| !path.as_os_str().is_empty());
    folder.or_else(|| at_home().map(|home| home.join(Path::new(".local/share")))).map(|folder| folder.join("onex"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn data_is_kept_where_the_users_data_is() {
        let with = |data: &'static str, home: &'static str| {
            default_directory(move |name| Some(PathBuf::from(if name == "HOME" { home } else { data })))
        };
        assert_eq!(with("/data", "/home/u"), Some(PathBuf::from("/data/onex")));
        assert_eq!(with("relative", "/home/u"), Some(PathBuf::from("/home/u/.local/share/onex")));
        assert_eq!(with("", ""), None);
        assert_eq!(default_directory(|_| None), None);
    }
}
