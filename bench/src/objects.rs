//! What is created: objects of about 1 KB, in a namespace of their own.

use anyhow::{Result, bail};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::http::Server;

const NAMESPACE: &str = "onex-bench";
const JSON: &str = "application/json";
/// Stands where a name is to come.
const NAME: &str = "@name@";

/// A kind of object to measure with.
pub(crate) struct Objects {
    sets: bool,
    /// What comes before and after the name: making objects costs what is measured.
    around: (String, String),
}

impl Objects {
    pub(crate) fn new(resource: &str) -> Result<Self> {
        let sets = match resource {
            "configmaps" => false,
            "minersets" => true,
            other => bail!("{other} cannot be measured; configmaps and minersets can"),
        };
        Ok(Self::of(sets, if sets { 400 } else { 850 }))
    }

    fn of(sets: bool, filler: usize) -> Self {
        let object = sample(sets, NAME, filler).to_string();
        let (before, after) = object.split_once(NAME).expect("an object has its name in it");
        Self { sets, around: (before.to_owned(), after.to_owned()) }
    }

    /// The same kind, with so many bytes that mean nothing.
    pub(crate) fn of_bytes(&self, filler: u64) -> Self {
        Self::of(self.sets, usize::try_from(filler).unwrap_or(usize::MAX))
    }

    /// Where they are.
    pub(crate) fn path(&self) -> String {
        match self.sets {
            true => format!("/apis/apps.onex.io/v1beta1/namespaces/{NAMESPACE}/minersets"),
            false => format!("/api/v1/namespaces/{NAMESPACE}/configmaps"),
        }
    }

    /// One of them.
    pub(crate) fn object(&self, name: &str) -> Bytes {
        let (before, after) = &self.around;
        Bytes::from([before, name, after].concat())
    }

    /// A change of one of them.
    pub(crate) fn change(&self, value: &str) -> Bytes {
        Bytes::from(json!({"metadata": {"annotations": {"bench/value": value}}}).to_string())
    }

    /// Makes the namespace, anew.
    pub(crate) async fn prepare(&self, server: &Server) -> Result<()> {
        self.clean(server).await?;
        let body = json!({"metadata": {"name": NAMESPACE}}).to_string();
        server.connect().await?.send(Method::POST, "/api/v1/namespaces", JSON, JSON, body.into()).await?;
        Ok(())
    }

    /// Deletes the namespace with all that is in it, and waits until it is gone.
    pub(crate) async fn clean(&self, server: &Server) -> Result<()> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}");
        let mut connection = server.connect().await?;
        for _ in 0..600 {
            let answer = connection.start(Method::DELETE, &path, JSON, JSON, Bytes::new()).await?;
            let status = answer.status();
            http_body_util::BodyExt::collect(answer.into_body()).await?;
            if status == http::StatusCode::NOT_FOUND {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        bail!("the namespace {NAMESPACE} does not go")
    }
}

fn sample(sets: bool, name: &str, filler: usize) -> Value {
    let filler = "x".repeat(filler);
    let metadata = json!({"name": name, "namespace": NAMESPACE, "labels": {"app": "bench"}});
    match sets {
        true => json!({
            "apiVersion": "apps.onex.io/v1beta1", "kind": "MinerSet", "metadata": metadata,
            "spec": {"replicas": 0, "displayName": filler, "template": {"spec": {"chainName": "genesis", "minerType": "M1.MEDIUM2"}}},
        }),
        false => json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"filler": filler}}),
    }
}

/// The names that client number `client` of `clients` uses out of `count`.
pub(crate) fn share(prefix: &str, count: usize, client: usize, clients: usize) -> Vec<String> {
    (client..count).step_by(clients).map(|n| format!("{prefix}-{n:06}")).collect()
}

/// The items of a list.
pub(crate) fn items(list: &Value) -> usize {
    list["items"].as_array().or(list["rows"].as_array()).map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_its_name_where_names_are() {
        for resource in ["configmaps", "minersets"] {
            let object: Value = serde_json::from_slice(&Objects::new(resource).unwrap().object("many-000001")).unwrap();
            assert_eq!(object["metadata"]["name"], "many-000001");
            assert_eq!(object["metadata"]["labels"]["app"], "bench");
        }
        assert!(Objects::new("pods").is_err());
    }
}
