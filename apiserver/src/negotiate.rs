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
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
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

/// The media types that are served, as errors name them. Only kinds that are compiled in have a protobuf form.
pub const SERVED: &[&str] = &["application/json", "application/yaml", PROTOBUF];
/// The media type of protobuf.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

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
            PROTOBUF => Some(Media::Protobuf),
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

/// The first clause that can be served and that `allowed` agrees with. `protobuf` says whether what is asked for has such
/// a form; tables have none.
pub fn form(accept: &str, pretty: bool, protobuf: impl Fn() -> bool, allowed: impl Fn(View) -> bool) -> Result<Form> {
    for clause in clauses(accept) {
        let (Some(media), Some(view)) = (clause.media(), clause.view()) else { continue };
        let served = media != Media::Protobuf || (!matches!(view, View::Table(_)) && protobuf());
        if served && allowed(view) {
            let media = if pretty && media == Media::Json { Media::PrettyJson } else { media };
            return Ok(Form { media, view });
        }
    }
    Err(Status::not_acceptable(if protobuf() { SERVED } else { &SERVED[..2] }))
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

    const WHOLE: Form = Form { media: Media::Json, view: View::Whole };
    const METADATA: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

    #[test]
    fn what_real_clients_send_is_understood() {
        let table = Form { media: Media::Json, view: View::Table(MetaVersion::V1) };
        let binary = Form { media: Media::Protobuf, view: View::Whole };
        let cases = [
            (KUBECTL, table),
            ("", WHOLE),
            ("*/*", WHOLE),
            ("application/vnd.kubernetes.protobuf,application/json", binary),
            ("application/vnd.kubernetes.protobuf, */*", binary),
            ("application/json,application/vnd.kubernetes.protobuf", WHOLE),
            ("application/vnd.kubernetes.protobuf;q=0.5,application/json", WHOLE),
            (METADATA, Form { media: Media::Protobuf, view: View::MetadataList(MetaVersion::V1) }),
            ("application/json;q=0.1, application/yaml", Form { media: Media::Yaml, view: View::Whole }),
        ];
        for (accept, wanted) in cases {
            assert_eq!(form(accept, false, || true, |_| true).unwrap(), wanted, "{accept}");
        }
        assert_eq!(form(KUBECTL, false, || true, |v| v == View::Whole).unwrap(), WHOLE);
        let refused = form("image/png", false, || true, |_| true).unwrap_err();
        assert_eq!((refused.code, &*refused.reason), (406, "NotAcceptable"));
        assert_eq!(
            refused.message,
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
    }

    #[test]
    fn what_has_no_protobuf_form_is_answered_in_the_next_one() {
        let no = |accept: &str| form(accept, false, || false, |_| true);
        assert_eq!(no("application/vnd.kubernetes.protobuf,application/json").unwrap(), WHOLE);
        assert_eq!(no(METADATA).unwrap(), Form { media: Media::Json, view: View::MetadataList(MetaVersion::V1) });
        let refused = no("application/vnd.kubernetes.protobuf").unwrap_err();
        assert_eq!(refused.message, "only the following media types are accepted: application/json, application/yaml");
        let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(form(table, false, || true, |_| true).unwrap_err().code, 406);
        assert_eq!(form(&format!("{table},application/json"), false, || true, |_| true).unwrap(), WHOLE);
    }

    #[test]
    fn aggregated_discovery_is_only_served_to_those_who_ask() {
        let asks = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(aggregated(asks), Some("v2"));
        assert_eq!(aggregated("application/json"), None);
        assert_eq!(aggregated(""), None);
    }
}
