//! What the client wants to read: media type and representation, from `Accept`.

use crate::{
    status::{Result, Status},
    table::MetaVersion,
};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/json`, compact.
    Json,
    /// `application/json`, indented.
    PrettyJson,
    /// `application/yaml`.
    Yaml,
}

/// What an answer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The object itself.
    Whole,
    /// A `Table` in this version of meta.k8s.io.
    Table(MetaVersion),
    /// A `PartialObjectMetadata` in this version of meta.k8s.io.
    Metadata(MetaVersion),
    /// A `PartialObjectMetadataList` in this version of meta.k8s.io.
    MetadataList(MetaVersion),
}

/// What the client wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// How it is written.
    pub media: Media,
    /// What it shows.
    pub view: View,
}

/// The media types that are served, as errors name them.
pub const SERVED: &[&str] = &["application/json", "application/yaml"];

/// One clause of an `Accept` header.
struct Clause<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl<'a> Clause<'a> {
    fn read(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters: Vec<_> = parts.filter_map(|p| p.split_once('=')).map(|(k, v)| (k.trim(), v.trim())).collect();
        let quality = parameters.iter().find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
        Self { media, parameters, quality }
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(k, _)| *k == name).map(|(_, v)| *v)
    }

    fn media(&self) -> Option<Media> {
        match self.media {
            "" | "*/*" | "application/*" | "application/json" => Some(Media::Json),
            "application/yaml" => Some(Media::Yaml),
            _ => None,
        }
    }

    fn view(&self) -> Option<View> {
        let Some(view) = self.parameter("as") else { return Some(View::Whole) };
        if self.parameter("g") != Some("meta.k8s.io") {
            return None;
        }
        let version = match self.parameter("v") {
            Some("v1") => MetaVersion::V1,
            Some("v1beta1") => MetaVersion::V1beta1,
            _ => return None,
        };
        match view {
            "Table" => Some(View::Table(version)),
            "PartialObjectMetadata" => Some(View::Metadata(version)),
            "PartialObjectMetadataList" => Some(View::MetadataList(version)),
            _ => None,
        }
    }
}

fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<_> = accept.split(',').map(|c| Clause::read(c.trim())).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality)); // stable: equals stay in the client's order
    clauses
}

/// The first clause that can be served and that `allowed` agrees with.
pub fn form(accept: &str, pretty: bool, allowed: impl Fn(View) -> bool) -> Result<Form> {
    for clause in clauses(accept) {
        let (Some(media), Some(view)) = (clause.media(), clause.view()) else { continue };
        if allowed(view) {
            let media = if pretty && media == Media::Json { Media::PrettyJson } else { media };
            return Ok(Form { media, view });
        }
    }
    Err(Status::not_acceptable(SERVED))
}

/// The version of aggregated discovery that the client prefers; nothing if it wants the legacy documents.
pub fn aggregated(accept: &str) -> Option<&'static str> {
    for clause in clauses(accept) {
        match (clause.media, clause.parameter("as"), clause.parameter("g"), clause.parameter("v")) {
            ("application/json", Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                return Some("v2");
            }
            ("application/json", Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
                return Some("v2beta1");
            }
            ("" | "*/*" | "application/*" | "application/json", None, _, _) => return None,
            _ => {}
        }
    }
    None
}

/// The first of `served` that the client accepts.
pub fn first<'a>(accept: &str, served: &[&'a str]) -> Option<&'a str> {
    for clause in clauses(accept) {
        if matches!(clause.media, "" | "*/*" | "application/*") {
            return served.first().copied();
        }
        if let Some(found) = served.iter().find(|s| **s == clause.media) {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECTL: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

    #[test]
    fn what_real_clients_send_is_understood() {
        let table = Form { media: Media::Json, view: View::Table(MetaVersion::V1) };
        let whole = Form { media: Media::Json, view: View::Whole };
        let metadata = Form { media: Media::Json, view: View::MetadataList(MetaVersion::V1) };
        let cases = [
            (KUBECTL, table),
            ("", whole),
            ("*/*", whole),
            ("application/vnd.kubernetes.protobuf,application/json", whole),
            ("application/vnd.kubernetes.protobuf, */*", whole),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                metadata,
            ),
            ("application/json;q=0.1, application/yaml", Form { media: Media::Yaml, view: View::Whole }),
        ];
        for (accept, wanted) in cases {
            assert_eq!(form(accept, false, |_| true).unwrap(), wanted, "{accept}");
        }
        assert_eq!(form("image/png", false, |_| true).unwrap_err().code, 406);
        assert_eq!(form(KUBECTL, false, |v| v == View::Whole).unwrap(), whole);
    }

    #[test]
    fn aggregated_discovery_is_only_served_to_those_who_ask() {
        let asks = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(aggregated(asks), Some("v2"));
        assert_eq!(aggregated("application/json"), None);
        assert_eq!(aggregated(""), None);
    }
}
