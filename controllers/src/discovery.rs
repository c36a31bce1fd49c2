//! What an apiserver serves: every resource once, at the version to use.
//!
//! Read from aggregated discovery (two requests whatever the number of groups), or from the older list of each version
//! where a server knows no aggregated form. A group that cannot be read is named in [`Catalogue::unavailable`] and
//! costs the others nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIResourceList};
use kube::core::PartialObjectMeta;
use kube::core::discovery::v2::{APIGroupDiscovery, APIResourceDiscovery, APIVersionDiscovery};
use kube::core::{ApiResource, DynamicObject, GroupVersion};
use kube::{Api, Client};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// One resource an apiserver serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    /// Its group, its version, its kind and its plural name.
    pub resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What may be done with it.
    pub verbs: BTreeSet<String>,
}

impl Served {
    /// Whether all of `verbs` are served.
    pub fn supports(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.contains(*verb))
    }

    /// `pods` or `minersets.apps.onex.io`: how people write it.
    pub fn qualified(&self) -> String {
        match self.resource.group.as_str() {
            "" => self.resource.plural.clone(),
            group => format!("{}.{group}", self.resource.plural),
        }
    }

    /// A door to the metadata of its objects in `namespace`; an empty namespace means everywhere.
    pub fn metadata(&self, client: &Client, namespace: &str) -> Api<PartialObjectMeta<DynamicObject>> {
        if self.namespaced && !namespace.is_empty() {
            Api::namespaced_with(client.clone(), namespace, &self.resource)
        } else {
            Api::all_with(client.clone(), &self.resource)
        }
    }
}

/// All resources of an apiserver at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalogue {
    resources: Vec<Arc<Served>>,
    known: HashSet<(String, String)>,
    unavailable: Vec<String>,
}

impl PartialEq for Catalogue {
    fn eq(&self, other: &Self) -> bool {
        self.resources == other.resources && self.unavailable == other.unavailable
    }
}

impl Catalogue {
    /// Asks the apiserver what it serves now.
    pub async fn read(client: &Client) -> kube::Result<Self> {
        let core = client.list_core_api_versions_aggregated().await?;
        // A server that knows no aggregated form answers with a document that has no `items`.
        if core.items.is_empty() {
            return Self::read_version_by_version(client).await;
        }
        let mut catalogue = Self::default();
        for group in core.items.into_iter().chain(client.list_api_groups_aggregated().await?.items) {
            catalogue.add_group(group);
        }
        Ok(catalogue)
    }

    async fn read_version_by_version(client: &Client) -> kube::Result<Self> {
        let mut catalogue = Self::default();
        for version in client.list_core_api_versions().await?.versions {
            catalogue.add_list(&version, client.list_core_api_resources(&version).await);
        }
        for group in client.list_api_groups().await?.groups {
            for version in by_preference(group) {
                catalogue.add_list(&version, client.list_api_group_resources(&version).await);
            }
        }
        Ok(catalogue)
    }

    /// Every resource, in the order the server prefers.
    pub fn resources(&self) -> &[Arc<Served>] {
        &self.resources
    }

    /// The group versions that could not be read, as `group/version`.
    pub fn unavailable(&self) -> &[String] {
        &self.unavailable
    }

    /// Whether some version of `group` could not be read, so that a missing resource proves nothing.
    pub fn doubts(&self, group: &str) -> bool {
        self.unavailable.iter().any(|version| version.rsplit_once('/').map_or("", |(name, _)| name) == group)
    }

    /// The resource whose objects are of this kind.
    pub fn find(&self, group: &str, kind: &str) -> Option<&Arc<Served>> {
        self.resources.iter().find(|served| served.resource.group == group && served.resource.kind == kind)
    }

    fn add_group(&mut self, group: APIGroupDiscovery) {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        for version in group.versions {
            self.add_version(&name, version);
        }
    }

    fn add_version(&mut self, group: &str, version: APIVersionDiscovery) {
        let gv = GroupVersion::gv(group, version.version.as_deref().unwrap_or_default());
        if version.freshness.as_deref() == Some("Stale") {
            self.unavailable.push(gv.api_version());
        }
        for resource in version.resources {
            let namespaced = resource.scope.as_deref() == Some("Namespaced");
            if let Some((plural, kind, verbs)) = named(resource) {
                self.add(&gv, plural, kind, namespaced, verbs);
            }
        }
    }

    fn add_list(&mut self, version: &str, list: kube::Result<APIResourceList>) {
        let (Ok(list), Ok(gv)) = (list, version.parse::<GroupVersion>()) else {
            self.unavailable.push(version.to_owned());
            return;
        };
        for resource in list.resources {
            if !resource.name.contains('/') {
                self.add(&gv, resource.name, resource.kind, resource.namespaced, resource.verbs);
            }
        }
    }

    /// The first version that serves a resource is the one to use; later ones show the same objects again.
    fn add(&mut self, gv: &GroupVersion, plural: String, kind: String, namespaced: bool, verbs: Vec<String>) {
        if !self.known.insert((gv.group.clone(), plural.clone())) {
            return;
        }
        let resource = ApiResource {
            group: gv.group.clone(),
            version: gv.version.clone(),
            api_version: gv.api_version(),
            kind,
            plural,
        };
        self.resources.push(Arc::new(Served { resource, namespaced, verbs: verbs.into_iter().collect() }));
    }
}

fn named(resource: APIResourceDiscovery) -> Option<(String, String, Vec<String>)> {
    Some((resource.resource?, resource.response_kind?.kind?, resource.verbs))
}

fn by_preference(group: APIGroup) -> Vec<String> {
    let preferred = group.preferred_version.map(|version| version.group_version);
    let mut versions: Vec<String> = group.versions.into_iter().map(|version| version.group_version).collect();
    versions.sort_by_key(|version| Some(version) != preferred.as_ref());
    versions
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn catalogue(groups: serde_json::Value) -> Catalogue {
        let groups: Vec<APIGroupDiscovery> = serde_json::from_value(groups).unwrap();
        let mut catalogue = Catalogue::default();
        for group in groups {
            catalogue.add_group(group);
        }
        catalogue
    }

    fn resource(plural: &str, kind: &str) -> serde_json::Value {
        json!({"resource": plural, "responseKind": {"kind": kind}, "scope": "Namespaced", "verbs": ["list", "delete"]})
    }

    #[test]
    fn a_resource_of_two_versions_is_listed_once_at_the_preferred_one() {
        let catalogue = catalogue(json!([{"metadata": {"name": "apps.onex.io"}, "versions": [
            {"version": "v1", "resources": [resource("chains", "Chain")]},
            {"version": "v1beta1", "resources": [resource("chains", "Chain"), resource("miners", "Miner")]},
        ]}]));
        let seen: Vec<_> = catalogue.resources().iter().map(|s| (s.qualified(), s.resource.version.clone())).collect();
        assert_eq!(
            seen,
            [
                ("chains.apps.onex.io".to_owned(), "v1".to_owned()),
                ("miners.apps.onex.io".to_owned(), "v1beta1".to_owned()),
            ]
        );
    }

    #[test]
    fn a_stale_group_is_named_and_only_that_group_is_in_doubt() {
        let catalogue = catalogue(json!([
            {"metadata": {"name": "gone.example"}, "versions": [{"version": "v1", "freshness": "Stale"}]},
            {"metadata": {}, "versions": [{"version": "v1", "freshness": "Current", "resources": [resource("pods", "Pod")]}]},
        ]));
        assert_eq!(catalogue.unavailable(), ["gone.example/v1"]);
        assert!(catalogue.doubts("gone.example"));
        assert!(!catalogue.doubts(""));
        assert!(catalogue.find("", "Pod").unwrap().supports(&["list", "delete"]));
        assert!(!catalogue.find("", "Pod").unwrap().supports(&["watch"]));
    }
}
