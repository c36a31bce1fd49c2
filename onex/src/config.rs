//! `onex config`: all settings, each with what it means, as a file that can be read back.

use anyhow::Context as _;
use schemars::schema_for;
use serde_json::Value as Json;
use toml::{Table, Value};

use crate::meanings;
use crate::settings::Settings;

/// How wide a comment gets.
const COLUMNS: usize = 100;

/// `settings` as TOML, with the meaning of each as a comment above it.
pub fn print(settings: &Settings) -> anyhow::Result<String> {
    let table = Table::try_from(settings).context("could not write the settings as TOML")?;
    let schema = schema_for!(Settings).to_value();
    let root = Place { path: Vec::new(), schema: &schema, definitions: &schema["$defs"] };
    let mut text = String::new();
    root.section(&mut text, &table);
    Ok(text.trim_end().to_owned())
}

/// A setting or a section: its path, and its part of the JSON schema, which carries the doc comments of the code.
struct Place<'a> {
    path: Vec<&'a str>,
    schema: &'a Json,
    definitions: &'a Json,
}

impl<'a> Place<'a> {
    fn inner(&self, key: &'a str) -> Self {
        let path = [self.path.as_slice(), &[key]].concat();
        Self { path, schema: &self.body()["properties"][key], definitions: self.definitions }
    }

    fn meaning(&self) -> Option<&'a str> {
        self.schema["description"].as_str().or_else(|| meanings::of(&self.path))
    }

    /// The keys that the schema names and `table` has no value for.
    fn keys_without_value(&self, table: &Table) -> impl Iterator<Item = &'a String> {
        let properties = self.body()["properties"].as_object().into_iter().flatten();
        properties.map(|(key, _)| key).filter(|key| !table.contains_key(*key))
    }

    /// The schema itself, or the one it points to.
    fn body(&self) -> &'a Json {
        let name = self.schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"));
        name.map_or(self.schema, |name| &self.definitions[name])
    }

    fn section(&self, text: &mut String, table: &'a Table) {
        for (key, value) in table.iter().filter(|(_, value)| !value.is_table()) {
            comment(text, self.inner(key).meaning());
            text.push_str(&format!("{} = {value}\n\n", quoted(key)));
        }
        for key in self.keys_without_value(table) {
            comment(text, self.inner(key).meaning());
            text.push_str(&format!("# {} =\n\n", quoted(key)));
        }
        for (key, value) in table {
            let Value::Table(values) = value else { continue };
            let inner = self.inner(key);
            let path: Vec<String> = inner.path.iter().map(|part| quoted(part)).collect();
            comment(text, inner.meaning());
            text.push_str(&format!("[{}]\n\n", path.join(".")));
            inner.section(text, values);
        }
    }
}

/// A key as it may stand in TOML.
fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { Value::from(key).to_string() }
}

fn comment(text: &mut String, meaning: Option<&str>) {
    let mut column = 0;
    for word in meaning.unwrap_or_default().split_whitespace() {
        if column > 0 && column + 1 + word.len() > COLUMNS {
            text.push('\n');
            column = 0;
        }
        let before = if column == 0 { "# " } else { " " };
        text.push_str(before);
        text.push_str(word);
        column += before.len() + word.len();
    }
    if column > 0 {
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_read_back() {
        let printed = print(&Settings::default()).unwrap();
        let read: Settings = toml::from_str(&printed).unwrap();
        assert_eq!(print(&read).unwrap(), printed);
    }

    #[test]
    fn every_setting_is_printed_with_what_it_means() {
        let printed = print(&Settings::default()).unwrap();
        let paragraphs = printed.split("\n\n");
        let bare: Vec<&str> =
            paragraphs.filter(|paragraph| !paragraph.starts_with("# ") || !paragraph.contains('\n')).collect();
        assert!(bare.is_empty(), "settings without a meaning: {bare:?}");
        assert!(printed.contains("\n# storage =\n"), "a setting without a value is printed too");
    }

    #[test]
    fn no_meaning_is_left_over_from_a_setting_that_is_gone() {
        let table = Table::try_from(Settings::default()).unwrap();
        let mut paths = Vec::new();
        walk(&mut Vec::new(), &table, &mut paths);
        for (key, _) in meanings::MEANINGS {
            let used = paths.iter().any(|path: &Vec<&str>| meanings::stands_for(key, path));
            assert!(used, "there is no setting {key}");
        }
    }

    fn walk<'a>(at: &mut Vec<&'a str>, table: &'a Table, paths: &mut Vec<Vec<&'a str>>) {
        for (key, value) in table {
            at.push(key);
            paths.push(at.clone());
            if let Value::Table(inner) = value {
                walk(at, inner, paths);
            }
            at.pop();
        }
    }
}
