//! Every store, picked by URL, in one file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use onex_audit::AuditLog;
use onex_db::Db;
use onex_storage::{Location, Storage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// Where things are kept, a URL each. What is left out is embedded, in the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Stores {
    /// The objects: "file:///DIRECTORY", "etcd://HOST:PORT,HOST:PORT", or "memory:" to forget everything at the end. Default: the
    /// directory "storage" in the data directory.
    #[schemars(with = "Option<String>")]
    pub storage: Option<Location>,
    /// Records of who was allowed what, where `apiserver.audit.platform` asks for them: "file:///DIRECTORY", or "memory:" to
    /// forget them at the end. Default: the directory "audit" in the data directory.
    #[schemars(with = "Option<String>")]
    pub audit: Option<Url>,
    /// Rows: users, their key pairs, sessions and policies, and a copy of Chains, MinerSets and Miners to be asked with SQL.
    /// "sqlite:///FILE", "sqlite::memory:" to forget everything at the end, or "mysql://USER@HOST:PORT/DATABASE" with the
    /// password in `db.password_file`. Default: the file "db/onex.sqlite" in the data directory.
    #[schemars(with = "Option<String>")]
    pub db: Option<Url>,
    /// Where miners run: "local:" as processes of this machine, "kubeconfig:///FILE" as Pods of the cluster that FILE names, or
    /// "dry-run:" nowhere: Pods become ready at once, and no process is started for them.
    #[schemars(with = "String")]
    pub pods: Url,
}

/// Where miners run.
pub enum Pods {
    /// Kept by our own node, as processes of this machine or, in a dry run, as if there were any.
    Local,
    /// As Pods of another cluster.
    Cluster(kube::Client),
}

impl Default for Stores {
    fn default() -> Self {
        Self {
            storage: None,
            audit: None,
            db: None,
            pods: Url::parse("local:").expect("a scheme and a colon make a URL"),
        }
    }
}

/// The scheme of a place in which Pods only seem to run.
const DRY_RUN: &str = "dry-run";

impl Stores {
    /// Whether Pods only seem to run.
    pub fn is_dry_run(&self) -> bool {
        self.pods.scheme() == DRY_RUN
    }

    /// Where the storage is, given the data directory.
    pub fn storage_location(&self, directory: &Path) -> Location {
        self.storage.clone().unwrap_or_else(|| Location::File(directory.join("storage")))
    }

    /// The URL of the audit log, given the data directory.
    pub fn audit_url(&self, directory: &Path) -> anyhow::Result<Url> {
        given_or_within(self.audit.as_ref(), directory, "audit")
    }

    /// The URL of the rows, given the data directory.
    pub fn db_url(&self, directory: &Path) -> anyhow::Result<Url> {
        if let Some(url) = &self.db {
            return Ok(url.clone());
        }
        let file = Url::from_file_path(directory.join("db/onex.sqlite"));
        let file = file.ok().context("the data directory is not an absolute path")?;
        Ok(Url::parse(&format!("sqlite://{}", file.path()))?)
    }
}

/// The file of an embedded database. None if the rows are elsewhere, or in memory.
pub fn db_file(url: &Url) -> Option<PathBuf> {
    let embedded = url.scheme() == "sqlite" && url.path() != ":memory:";
    // A file URL of the same path is decoded by the library that made it.
    let file = embedded.then(|| Url::parse(&format!("file://{}", url.path())).ok()?.to_file_path().ok());
    file.flatten()
}

fn given_or_within(url: Option<&Url>, directory: &Path, name: &str) -> anyhow::Result<Url> {
    match url {
        Some(url) => Ok(url.clone()),
        None => {
            Url::from_directory_path(directory.join(name)).ok().context("the data directory is not an absolute path")
        }
    }
}

/// Opens the storage at `location`.
pub async fn storage(location: &Location, settings: &onex_storage::Settings) -> anyhow::Result<Arc<dyn Storage>> {
    onex_storage::open(location, settings).await.with_context(|| format!("could not open the storage {location}"))
}

/// Opens the audit log at `url`.
pub async fn audit(url: &Url, settings: &onex_audit::Settings) -> anyhow::Result<Arc<dyn AuditLog>> {
    onex_audit::open(url, settings).await.with_context(|| format!("could not open the audit log {url}"))
}

/// Opens the rows at `url`. Nobody is reached yet: a server may come later.
pub fn db(url: &Url, settings: &onex_db::Settings) -> anyhow::Result<Db> {
    onex_db::open(url, settings).context("the setting stores.db")
}

/// Opens the place where miners run.
pub async fn pods(url: &Url) -> anyhow::Result<Pods> {
    match url.scheme() {
        "local" | DRY_RUN => Ok(Pods::Local),
        "kubeconfig" => Ok(Pods::Cluster(onex_client::over_kubeconfig(Path::new(url.path())).await?)),
        other => bail!(
            "the setting stores.pods is {url}, but {other:?} is none of \"local\", \"dry-run\" and \"kubeconfig\""
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pods_run_here_or_seem_to_and_a_place_that_nobody_knows_is_refused() {
        for (place, is_dry_run) in [("local:", false), ("dry-run:", true)] {
            let stores = Stores { pods: Url::parse(place).unwrap(), ..Stores::default() };
            assert!(matches!(pods(&stores.pods).await.unwrap(), Pods::Local));
            assert_eq!(stores.is_dry_run(), is_dry_run);
        }
        let Err(error) = pods(&Url::parse("moon:").unwrap()).await else { panic!("it was taken") };
        assert!(error.to_string().contains("\"dry-run\""), "{error}");
    }
}
