//! From a definition to the kinds that it defines, one for each version.

use std::{collections::BTreeMap, sync::Arc};

use onex_crds::Invalid;
use serde_json::{Map, Value, json};

use super::{Custom, compile, list, text};
use crate::{
    builtin::schemas,
    kinds::{Column, Conversion, Kind, Published, Scale},
    registry::is_terminating,
    structural::Structural,
    table::{self, column, name_column, path},
    window::Window,
};

/// The compiled schemas of a definition, by version.
pub(super) type Schemas = Vec<(String, Arc<Structural>)>;

/// Where the objects of a definition are stored.
pub(super) fn prefix(crd: &Value) -> String {
    format!("/registry/{}/{}/", text(&crd["spec"], "group"), text(&crd["spec"]["names"], "plural"))
}

/// The paths of all fields that any version selects by. All versions share one window.
pub(super) fn paths(crd: &Value) -> Vec<Vec<String>> {
    let mut paths: Vec<Vec<String>> = Vec::new();
    for version in list(&crd["spec"], "versions") {
        for field in list(version, "selectableFields") {
            let path = split(text(field, "jsonPath"));
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    paths
}

/// Compiles the schemas of all versions.
pub(super) fn schemas_of(crd: &Value) -> Result<Schemas, Vec<Invalid>> {
    let mut all = Vec::new();
    for (index, version) in list(&crd["spec"], "versions").iter().enumerate() {
        let at = format!("spec.versions[{index}].schema.openAPIV3Schema");
        let structural = compile(&version["schema"]["openAPIV3Schema"], &at)?;
        all.push((text(version, "name").to_owned(), Arc::new(structural)));
    }
    Ok(all)
}

/// Takes out the schemas, which may be larger than all the rest.
pub(super) fn leave_out_schemas(crd: &mut Value) {
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        version.remove("schema");
    }
}

/// The kinds of a definition, one for each version that is served.
pub(super) fn kinds(crd: &Value, schemas: &Schemas, window: &Arc<Window>) -> Vec<Arc<Kind>> {
    let served = list(&crd["spec"], "versions").iter().filter(|version| version["served"] == true);
    served
        .filter_map(|version| {
            let (_, structural) = schemas.iter().find(|(name, _)| name == text(version, "name"))?;
            Some(Arc::new(kind(crd, version, structural, window)))
        })
        .collect()
}

/// A kind whose objects are only to be found and deleted.
pub(super) fn bare(crd: &Value, window: &Arc<Window>) -> Arc<Kind> {
    let storage = list(&crd["spec"], "versions").iter().find(|version| version["storage"] == true);
    let nothing = Published::new(|| (String::new(), BTreeMap::new()));
    let mut kind = named(crd, storage.map(|version| text(version, "name")).unwrap_or_default(), nothing);
    kind.custom = Some(Box::new(Custom { structural: None, window: window.clone(), ending: true }));
    Arc::new(kind)
}

fn named(crd: &Value, version: &str, published: Published) -> Kind {
    let (spec, names) = (&crd["spec"], &crd["status"]["acceptedNames"]);
    let texts = |name: &str| list(names, name).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let mut kind = Kind::new(text(spec, "group"), version, text(names, "kind"), text(names, "plural"), published);
    kind.list_kind = text(names, "listKind").to_owned();
    kind.singular = text(names, "singular").to_owned();
    kind.short_names = texts("shortNames");
    kind.categories = texts("categories");
    kind.namespaced = text(spec, "scope") == "Namespaced";
    kind.prefix = prefix(crd);
    kind.strategic = false;
    kind.unconditional_update = false;
    kind.generation = true;
    kind
}

fn kind(crd: &Value, version: &Value, structural: &Arc<Structural>, window: &Arc<Window>) -> Kind {
    let name = text(version, "name");
    let published = {
        let (crd, version, structural) = (crd["spec"].clone(), name.to_owned(), structural.clone());
        Published::new(move || publish(&crd, &version, &structural))
    };
    let mut kind = named(crd, name, published);
    kind.status = version["subresources"]["status"].is_object();
    kind.scale = Some(&version["subresources"]["scale"]).filter(|scale| scale.is_object()).map(|scale| Scale {
        spec: split(text(scale, "specReplicasPath")),
        status: split(text(scale, "statusReplicasPath")),
        selector: split(text(scale, "labelSelectorPath")),
    });
    kind.columns = columns(version);
    let own: Vec<Vec<String>> =
        list(version, "selectableFields").iter().map(|field| split(text(field, "jsonPath"))).collect();
    // In the order of the window, which has the fields of all versions. No selector can name one of another version.
    let label = |path: &Vec<String>| if own.contains(path) { path.join(".") } else { "\0".to_owned() };
    kind.selectable = window.paths().iter().map(|path| (label(path), path.clone())).collect();
    kind.conversion = conversion(crd, &kind, structural);
    kind.deprecation = (version["deprecated"] == true).then(|| match version["deprecationWarning"].as_str() {
        Some(warning) => warning.to_owned(),
        None => format!("{} {} is deprecated", kind.api_version(), kind.kind),
    });
    let ending = is_terminating(crd);
    kind.custom = Some(Box::new(Custom { structural: Some(structural.clone()), window: window.clone(), ending }));
    kind
}

/// How this version differs from what is stored: in its `apiVersion`, and in what is filled in by now. Nothing where the
/// stored bytes can be answered as they are.
fn conversion(crd: &Value, kind: &Kind, structural: &Arc<Structural>) -> Option<Conversion> {
    let storage = list(&crd["spec"], "versions").iter().find(|version| version["storage"] == true)?;
    let storage = text(storage, "name");
    let only = |stored: &[Value]| matches!(stored, [one] if one == storage);
    let as_stored = storage == kind.version && only(list(&crd["status"], "storedVersions"));
    let first = crd["metadata"]["generation"].as_i64().is_none_or(|generation| generation <= 1);
    let fills = has_default(structural.published());
    if as_stored && (first || !fills) {
        return None;
    }
    let (served, stored) = (kind.api_version(), format!("{}/{storage}", kind.group));
    let structural = fills.then(|| structural.clone());
    let named = |mut object: Value, version: &str| {
        if let Some(fields) = object.as_object_mut() {
            fields.insert("apiVersion".to_owned(), version.into());
        }
        object
    };
    Some(Conversion {
        store: Arc::new(move |object| named(object, &stored)),
        serve: Arc::new(move |object| {
            let mut object = named(object, &served);
            if let Some(structural) = &structural {
                structural.fill(&mut object);
            }
            object
        }),
    })
}

fn has_default(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields.contains_key("default") || fields.values().any(has_default),
        Value::Array(items) => items.iter().any(has_default),
        _ => false,
    }
}

fn columns(version: &Value) -> Vec<Column> {
    let own = list(version, "additionalPrinterColumns");
    if own.is_empty() {
        return table::usual_columns();
    }
    let own = own.iter().map(|defined| {
        let at = text(defined, "jsonPath");
        let description = match text(defined, "description") {
            "" => format!("Custom resource definition column (in JSONPath format): {at}"),
            described => described.to_owned(),
        };
        Column {
            format: text(defined, "format").to_owned(),
            priority: defined["priority"].as_i64().and_then(|priority| i32::try_from(priority).ok()).unwrap_or(0),
            ..column(text(defined, "name"), text(defined, "type"), &description, path(at))
        }
    });
    std::iter::once(name_column()).chain(own).collect()
}

/// The name of the schema, and it with what it refers to.
fn publish(spec: &Value, version: &str, structural: &Structural) -> (String, BTreeMap<String, Value>) {
    let (group, kind) = (text(spec, "group"), text(&spec["names"], "kind"));
    let reversed: Vec<&str> = group.rsplit('.').collect();
    let name = format!("{}.{version}.{kind}", reversed.join("."));
    let mut schema = structural.published().clone();
    describe_embedded(&mut schema);
    schemas::make_root(&mut schema);
    schema["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
    let found = list(spec, "versions").iter().find(|found| text(found, "name") == version);
    let selectable = found.map(|found| list(found, "selectableFields")).unwrap_or_default();
    if !selectable.is_empty() {
        let fields: Vec<Value> = selectable
            .iter()
            .map(|field| json!({"fieldPath": text(field, "jsonPath").trim_start_matches('.')}))
            .collect();
        schema["x-kubernetes-selectable-fields"] = fields.into();
    }
    let mut all = schemas::object_meta().clone();
    all.insert(name.clone(), schema);
    (name, all)
}

/// What is a whole object inside another has what every object has.
fn describe_embedded(schema: &mut Value) {
    if schema["x-kubernetes-embedded-resource"] == true {
        schemas::make_root(schema);
    }
    let Some(keywords) = schema.as_object_mut() else { return };
    for below in ["items", "additionalProperties"] {
        keywords.get_mut(below).filter(|below| below.is_object()).into_iter().for_each(describe_embedded);
    }
    let properties = keywords.get_mut("properties").and_then(Value::as_object_mut);
    properties
        .into_iter()
        .flatten()
        .map(|(_, property)| property)
        .filter(|p| p.is_object())
        .for_each(describe_embedded);
}

fn split(path: &str) -> Vec<String> {
    path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// What decides over the kinds of a definition, to know whether they changed.
pub(super) fn fingerprint(crd: &Value) -> Value {
    let mut print = Map::new();
    for field in ["uid", "generation"] {
        print.insert(field.to_owned(), crd["metadata"][field].clone());
    }
    for field in ["acceptedNames", "storedVersions"] {
        print.insert(field.to_owned(), crd["status"][field].clone());
    }
    print.insert("ending".to_owned(), is_terminating(crd).into());
    Value::Object(print)
}
