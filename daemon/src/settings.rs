//! One `onex.toml`, and what overrides it.
//!
//! Four layers, each over the one before: the defaults in the code, the file, `ONEX_SECTION__KEY` in the environment,
//! `--set section.key=value` on the command line. A mistake is reported with the key and the layer it stands in.

use std::io;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Environment variables that start with this and hold a `__` are settings.
const PREFIX: &str = "ONEX_";

/// Why settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("could not read the settings file {path}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML, or holds a key or value that is not a setting.
    #[error("in the settings file {path}: {reason}")]
    File {
        /// Which file.
        path: PathBuf,
        /// The place in the file and what is wrong there.
        reason: String,
    },
    /// An override on the command line is not of the form `section.key=value`.
    #[error("--set {0:?} is not of the form SECTION.KEY=VALUE")]
    Form(String),
    /// An override names no setting, or its value does not fit.
    #[error("{layer} cannot be used as the setting {key}: {reason}")]
    Override {
        /// The environment variable or `--set`.
        layer: String,
        /// The setting as it would stand in the file.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The defaults in the code do not survive being written and read: a bug.
    #[error("the default settings are not valid: {0}")]
    Defaults(String),
}

/// Where settings come from, besides the defaults in the code.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The file, if one is used.
    pub file: Option<PathBuf>,
    /// The environment. Variables that are no settings are ignored.
    pub environment: Vec<(String, String)>,
    /// What `--set` was given, in order; a later one wins.
    pub overrides: Vec<String>,
}

impl Layers {
    /// Reads the settings: defaults, then file, then environment, then overrides.
    ///
    /// `T` should deny unknown fields and have a default for every field, so that a typo is an error and an empty file is
    /// not. A value on the command line or in the environment is read as TOML, and as plain text if that does not fit:
    /// `ONEX_STORES__STORAGE=memory:` needs no quotes.
    ///
    /// # Errors
    /// Names the layer and the key that cannot be used.
    pub fn read<T: Serialize + DeserializeOwned + Default>(&self) -> Result<T, Error> {
        let mut settings = Table::try_from(T::default()).map_err(|error| Error::Defaults(error.to_string()))?;
        if let Some(path) = &self.file {
            let text =
                std::fs::read_to_string(path).map_err(|source| Error::Unreadable { path: path.clone(), source })?;
            let wrong = |error: toml::de::Error| Error::File { path: path.clone(), reason: error.to_string() };
            toml::from_str::<T>(&text).map_err(wrong)?;
            merge(&mut settings, toml::from_str(&text).map_err(wrong)?);
        }
        for (name, value) in &self.environment {
            if let Some(key) = key_of_variable(name) {
                settings = overridden::<T>(&settings, name, &key, value)?;
            }
        }
        for given in &self.overrides {
            let (key, value) = given.split_once('=').ok_or_else(|| Error::Form(given.clone()))?;
            settings = overridden::<T>(&settings, &format!("--set {given}"), key, value)?;
        }
        T::deserialize(Value::Table(settings)).map_err(|error| Error::Defaults(error.to_string()))
    }
}

/// `ONEX_NODE__POD_NETWORK` is `node.pod_network`.
fn key_of_variable(name: &str) -> Option<String> {
    let key = name.strip_prefix(PREFIX)?;
    key.contains("__").then(|| key.to_lowercase().replace("__", "."))
}

/// `settings` with one key replaced, when the result is still valid settings.
fn overridden<T: DeserializeOwned>(settings: &Table, layer: &str, key: &str, value: &str) -> Result<Table, Error> {
    // What is TOML as it stands was meant as that, and its complaint is the one to tell; else it was meant as text.
    let (mut reason, mut was_toml) = (None, false);
    let quoted = Value::String(value.to_owned()).to_string();
    for value in [value, quoted.as_str()] {
        // The key is read by TOML itself, so that `node.images."busybox:1"` means what it means in the file.
        match toml::from_str::<Table>(&format!("{key} = {value}")) {
            Err(error) => drop(reason.get_or_insert(error.message().to_owned())),
            Ok(change) => {
                let mut changed = settings.clone();
                merge(&mut changed, change);
                match T::deserialize(Value::Table(changed.clone())) {
                    Ok(_) => return Ok(changed),
                    Err(_) if was_toml => {}
                    Err(error) => reason = Some(error.message().to_owned()),
                }
                was_toml = true;
            }
        }
    }
    let reason = reason.unwrap_or_default();
    Err(Error::Override { layer: layer.to_owned(), key: key.to_owned(), reason })
}

/// Lays `upper` over `lower`: tables are merged key by key, everything else is replaced.
fn merge(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        node: Node,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Node {
        port: u16,
        name: String,
        provider: Option<String>,
        images: BTreeMap<String, String>,
    }

    impl Default for Node {
        fn default() -> Self {
            Self { port: 1, name: "local".into(), provider: None, images: BTreeMap::new() }
        }
    }

    fn read(file: Option<&str>, environment: &[(&str, &str)], overrides: &[&str]) -> Result<Settings, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = file.map(|text| {
            let path = directory.path().join("onex.toml");
            std::fs::write(&path, text).unwrap();
            path
        });
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let overrides = overrides.iter().map(|given| (*given).to_owned()).collect();
        Layers { file: path, environment, overrides }.read()
    }

    #[test]
    fn without_any_layer_the_defaults_hold() {
        assert_eq!(read(None, &[("HOME", "/"), ("ONEX_DATA", "x")], &[]).unwrap(), Settings::default());
    }

    #[test]
    fn each_layer_overrides_the_one_before_and_leaves_other_keys_alone() {
        let file = Some("[node]\nport = 2\nname = 'file'\n");
        assert_eq!(read(file, &[], &[]).unwrap().node.port, 2);
        let environment = [("ONEX_NODE__PORT", "3")];
        assert_eq!(read(file, &environment, &[]).unwrap().node.port, 3);
        let settings = read(file, &environment, &["node.port=4", "node.port=5"]).unwrap();
        assert_eq!((settings.node.port, settings.node.name.as_str()), (5, "file"));
    }

    #[test]
    fn text_needs_no_quotes_even_if_it_looks_like_something_else() {
        for text in ["file:///a b", "true", "7", "say \"so\"", ""] {
            assert_eq!(read(None, &[], &[&format!("node.name={text}")]).unwrap().node.name, text);
        }
        assert_eq!(read(None, &[("ONEX_NODE__PROVIDER", "x")], &[]).unwrap().node.provider.unwrap(), "x");
    }

    #[test]
    fn a_key_with_dots_is_quoted_as_in_the_file() {
        let settings = read(None, &[], &["node.images.\"docker.io/busybox:1\"=/bin/busybox"]).unwrap();
        assert_eq!(settings.node.images["docker.io/busybox:1"], "/bin/busybox");
    }

    #[test]
    fn a_mistake_names_the_key_and_the_layer() {
        let unknown = read(Some("[node]\nprot = 2\n"), &[], &[]).unwrap_err().to_string();
        assert!(unknown.contains("prot") && unknown.contains("onex.toml") && unknown.contains("line 2"), "{unknown}");
        let variable = read(None, &[("ONEX_NODE__PORT", "many")], &[]).unwrap_err().to_string();
        assert!(variable.contains("ONEX_NODE__PORT") && variable.contains("node.port"), "{variable}");
        let set = read(None, &[], &["nod.port=1"]).unwrap_err().to_string();
        assert!(set.contains("--set nod.port=1") && set.contains("unknown field"), "{set}");
        assert!(matches!(read(None, &[], &["node.port"]), Err(Error::Form(_))));
        // The quoted reading is only tried for what is no TOML: its complaint would hide the true one.
        let list = read(None, &[], &["node.images={\"a\" = 7}"]).unwrap_err().to_string();
        assert!(list.contains("expected a string"), "{list}");
    }
}
