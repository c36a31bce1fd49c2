//! What can be done with a kind: a list of operations, and how each version of OpenAPI writes one.

use serde_json::{Map, Value, json};

use super::{AUTOSCALING, META, base, gvk, reference, swagger};
use crate::kinds::Kind;

const OBJECT_TYPES: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const ANSWER_TYPES: &[&str] = &["application/json", "application/yaml"];
const STREAM: &str = "application/json;stream=watch";

/// A query parameter: name, type, what it is for.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter = ("dryRun", "string", "With All, everything happens but the storing.");
const FIELD_MANAGER: Parameter = ("fieldManager", "string", "Who makes the change: at most 128 printable characters.");
const FIELD_VALIDATION: Parameter =
    ("fieldValidation", "string", "What happens to unknown and duplicate fields: Ignore, Warn or Strict.");
const FORCE: Parameter = ("force", "boolean", "Takes fields over from other managers. Only for server-side apply.");
const PRETTY: Parameter = ("pretty", "string", "With true, the answer is indented.");
const CONTINUE: Parameter = ("continue", "string", "Where the last page of the list ended.");
const FIELD_SELECTOR: Parameter = ("fieldSelector", "string", "Limits the objects by their fields.");
const LABEL_SELECTOR: Parameter = ("labelSelector", "string", "Limits the objects by their labels.");
const LIMIT: Parameter = ("limit", "integer", "The most objects in one page.");
const VERSION: Parameter = ("resourceVersion", "string", "How new the answer must be.");
const VERSION_MATCH: Parameter =
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan.");
const INITIAL_EVENTS: Parameter = ("sendInitialEvents", "boolean", "A watch begins with what is there.");
const TIMEOUT: Parameter = ("timeoutSeconds", "integer", "After how many seconds the watch ends.");
const WATCH: Parameter = ("watch", "boolean", "Answers changes as they happen instead of a list.");
const BOOKMARKS: Parameter = ("allowWatchBookmarks", "boolean", "The watch also tells how far it has come.");
const GRACE: Parameter = ("gracePeriodSeconds", "integer", "How long the object may take to end.");
const ORPHAN: Parameter = ("orphanDependents", "boolean", "Old form of propagationPolicy.");
const PROPAGATION: Parameter =
    ("propagationPolicy", "string", "What happens to what the object owns: Orphan, Background or Foreground.");

const LISTING: &[Parameter] = &[
    BOOKMARKS,
    CONTINUE,
    FIELD_SELECTOR,
    LABEL_SELECTOR,
    LIMIT,
    VERSION,
    VERSION_MATCH,
    INITIAL_EVENTS,
    TIMEOUT,
    WATCH,
];
const WRITING: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCHING: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const DELETING: &[Parameter] = &[DRY_RUN, GRACE, ORPHAN, PROPAGATION];
const DELETING_MANY: &[Parameter] =
    &[CONTINUE, DRY_RUN, FIELD_SELECTOR, GRACE, LABEL_SELECTOR, LIMIT, ORPHAN, PROPAGATION, VERSION, VERSION_MATCH];
const LOGGING: &[Parameter] = &[
    ("container", "string", "Whose log it is."),
    ("follow", "boolean", "Goes on with what is written later."),
    ("limitBytes", "integer", "The most bytes."),
    ("previous", "boolean", "The log of the container before its last restart."),
    ("sinceSeconds", "integer", "Only what is at most so old."),
    ("tailLines", "integer", "Only the last lines."),
    ("timestamps", "boolean", "Each line begins with its time."),
];

/// All operations of one path.
pub(super) struct Item {
    /// The variables of the path.
    variables: Vec<&'static str>,
    operations: Vec<Operation>,
}

struct Operation {
    method: &'static str,
    action: &'static str,
    id: String,
    description: String,
    tag: String,
    /// Group, version and kind that the operation is about.
    speaks: Value,
    parameters: &'static [Parameter],
    /// The media types and the schema of the body.
    body: Option<(Vec<&'static str>, String)>,
    /// The schema of the answer; text if there is none.
    answer: Option<String>,
}

/// The operations of a kind, by path.
pub(super) fn of(kind: &Kind) -> Vec<(String, Item)> {
    let base = format!("/{}", base(kind));
    let plural = &kind.plural;
    if kind.review.is_some() {
        let (place, variables) = match kind.namespaced {
            true => (format!("{base}/namespaces/{{namespace}}/{plural}"), vec!["namespace"]),
            false => (format!("{base}/{plural}"), Vec::new()),
        };
        return vec![(place, Item { variables, operations: vec![create(kind)] })];
    }
    let mut items = Vec::new();
    let scoped = if kind.namespaced {
        let everywhere = Operation { id: format!("list{}ForAllNamespaces", title(kind, "")), ..list(kind) };
        items.push((format!("{base}/{plural}"), Item { variables: Vec::new(), operations: vec![everywhere] }));
        format!("{base}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{base}/{plural}")
    };
    let namespace: &[&'static str] = if kind.namespaced { &["namespace"] } else { &[] };
    let mut collection = vec![list(kind), create(kind)];
    collection.extend(kind.deletes_collections.then(|| delete_many(kind)));
    items.push((scoped.clone(), Item { variables: namespace.to_vec(), operations: collection }));
    let variables = || [&["name"], namespace].concat();
    let mut one = part(kind, "", kind.published.name(), own(kind));
    one.push(delete(kind));
    items.push((format!("{scoped}/{{name}}"), Item { variables: variables(), operations: one }));
    for (name, operations) in parts(kind) {
        items.push((format!("{scoped}/{{name}}/{name}"), Item { variables: variables(), operations }));
    }
    items
}

fn parts(kind: &Kind) -> Vec<(&str, Vec<Operation>)> {
    let mut parts = Vec::new();
    if kind.status {
        parts.push(("status", part(kind, "Status", kind.published.name(), own(kind))));
    }
    if kind.scale.is_some() {
        let schema = format!("{AUTOSCALING}Scale");
        parts.push(("scale", part(kind, "Scale", &schema, gvk("autoscaling", "v1", "Scale"))));
    }
    for subresource in &kind.subresources {
        let (group, version, speaks) = subresource.speaks;
        let schema = if speaks == kind.kind {
            kind.published.name().to_owned()
        } else {
            // `authentication.k8s.io` is `authentication` here.
            let package = group.split('.').next().filter(|name| !name.is_empty()).unwrap_or("core");
            format!("io.k8s.api.{package}.{version}.{speaks}")
        };
        let name = title(kind, &capital(subresource.name));
        let make = |method, action, prefix: &str| Operation {
            id: format!("{prefix}{name}"),
            speaks: gvk(group, version, speaks),
            ..operation(kind, method, action, format!("The {} of one of the {}", subresource.name, kind.plural))
        };
        let operations = subresource.verbs.iter().filter_map(|verb| match *verb {
            "get" if subresource.name == "log" => {
                Some(Operation { parameters: LOGGING, answer: None, ..make("get", "connect", "read") })
            }
            "get" => Some(Operation { answer: Some(schema.clone()), ..make("get", "get", "read") }),
            "create" => Some(writing(make("post", "post", "create"), &schema)),
            "update" => Some(writing(make("put", "put", "replace"), &schema)),
            _ => None,
        });
        parts.push((subresource.name, operations.collect()));
    }
    parts
}

fn own(kind: &Kind) -> Value {
    gvk(&kind.group, &kind.version, &kind.kind)
}

/// `AppsOnexIoV1beta1NamespacedMinerSetScale`.
fn title(kind: &Kind, part: &str) -> String {
    let group = kind.group.strip_suffix(".k8s.io").unwrap_or(&kind.group);
    let group: String =
        if group.is_empty() { "Core".to_owned() } else { group.split(['.', '-']).map(capital).collect() };
    let scope = if kind.namespaced { "Namespaced" } else { "" };
    format!("{group}{}{scope}{}{part}", capital(&kind.version), kind.kind)
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn operation(kind: &Kind, method: &'static str, action: &'static str, description: String) -> Operation {
    let group = kind.group.strip_suffix(".k8s.io").unwrap_or(&kind.group);
    let tag = format!("{}_{}", if group.is_empty() { "core" } else { group }, kind.version).replace('.', "_");
    Operation {
        method,
        action,
        id: String::new(),
        description,
        tag,
        speaks: own(kind),
        parameters: &[],
        body: None,
        answer: Some(kind.published.name().to_owned()),
    }
}

fn writing(operation: Operation, schema: &str) -> Operation {
    Operation {
        parameters: WRITING,
        body: Some((OBJECT_TYPES.to_vec(), schema.to_owned())),
        answer: Some(schema.to_owned()),
        ..operation
    }
}

fn list(kind: &Kind) -> Operation {
    Operation {
        id: format!("list{}", title(kind, "")),
        parameters: LISTING,
        answer: Some(format!("{}List", kind.published.name())),
        ..operation(kind, "get", "list", format!("Lists or watches {}", kind.plural))
    }
}

fn create(kind: &Kind) -> Operation {
    let create = operation(kind, "post", "post", format!("Creates one of the {}", kind.plural));
    writing(Operation { id: format!("create{}", title(kind, "")), ..create }, kind.published.name())
}

fn delete_many(kind: &Kind) -> Operation {
    let prefix = "deleteCollection";
    deletion(
        Operation {
            parameters: DELETING_MANY,
            ..operation(kind, "delete", "deletecollection", format!("Deletes many {}", kind.plural))
        },
        format!("{prefix}{}", title(kind, "")),
        None,
    )
}

fn delete(kind: &Kind) -> Operation {
    let answer = kind.returns_deleted.then(|| kind.published.name().to_owned());
    let delete = operation(kind, "delete", "delete", format!("Deletes one of the {}", kind.plural));
    deletion(Operation { parameters: DELETING, ..delete }, format!("delete{}", title(kind, "")), answer)
}

fn deletion(operation: Operation, id: String, answer: Option<String>) -> Operation {
    let answer = Some(answer.unwrap_or_else(|| format!("{META}Status")));
    Operation { id, body: Some((OBJECT_TYPES.to_vec(), format!("{META}DeleteOptions"))), answer, ..operation }
}

/// Reading, replacing and patching an object or a part of it.
fn part(kind: &Kind, part: &str, schema: &str, speaks: Value) -> Vec<Operation> {
    let what = if part.is_empty() { "one".to_owned() } else { format!("the {} of one", part.to_lowercase()) };
    let make = |method, action, prefix: &str, does: &str| Operation {
        id: format!("{prefix}{}", title(kind, part)),
        speaks: speaks.clone(),
        answer: Some(schema.to_owned()),
        ..operation(kind, method, action, format!("{does} {what} of the {}", kind.plural))
    };
    let patch_types = [
        Some("application/json-patch+json"),
        Some("application/merge-patch+json"),
        kind.strategic.then_some("application/strategic-merge-patch+json"),
        Some("application/apply-patch+yaml"),
    ];
    vec![
        make("get", "get", "read", "Reads"),
        writing(make("put", "put", "replace", "Replaces"), schema),
        Operation {
            parameters: PATCHING,
            body: Some((patch_types.into_iter().flatten().collect(), format!("{META}Patch"))),
            ..make("patch", "patch", "patch", "Changes")
        },
    ]
}

impl Item {
    /// The path item of OpenAPI 3.
    pub(super) fn v3(&self) -> Value {
        let mut parameters: Vec<Value> = self.variables.iter().map(|name| variable(name, true)).collect();
        parameters.push(query(&PRETTY, true));
        let mut item: Map<String, Value> =
            self.operations.iter().map(|operation| (operation.method.to_owned(), operation.v3())).collect();
        item.insert("parameters".to_owned(), parameters.into());
        Value::Object(item)
    }

    /// The path item of Swagger 2.
    pub(super) fn v2(&self) -> Value {
        let mut parameters: Vec<Value> = self.variables.iter().map(|name| variable(name, false)).collect();
        parameters.push(query(&PRETTY, false));
        let mut item: Map<String, Value> =
            self.operations.iter().map(|operation| (operation.method.to_owned(), operation.v2())).collect();
        item.insert("parameters".to_owned(), parameters.into());
        Value::Object(item)
    }
}

fn variable(name: &str, newer: bool) -> Value {
    let what = if name == "name" { "The name of the object." } else { "Where the object lives." };
    typed(
        json!({"name": name, "in": "path", "description": what, "required": true, "uniqueItems": true}),
        "string",
        newer,
    )
}

fn query((name, kind, what): &Parameter, newer: bool) -> Value {
    typed(json!({"name": name, "in": "query", "description": what, "uniqueItems": true}), kind, newer)
}

/// OpenAPI 3 has the type of a parameter in a schema, Swagger 2 beside its name.
fn typed(mut parameter: Value, kind: &str, newer: bool) -> Value {
    if newer {
        parameter["schema"] = json!({"type": kind, "uniqueItems": true});
    } else {
        parameter["type"] = kind.into();
    }
    parameter
}

impl Operation {
    fn head(&self) -> Value {
        json!({
            "description": self.description, "operationId": self.id, "tags": [self.tag],
            "x-kubernetes-action": self.action, "x-kubernetes-group-version-kind": self.speaks,
        })
    }

    /// The status codes of success.
    fn codes(&self) -> &'static [(&'static str, &'static str)] {
        match self.action {
            "post" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            "put" | "patch" => &[("200", "OK"), ("201", "Created")],
            "delete" => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        }
    }

    fn v3(&self) -> Value {
        let mut operation = self.head();
        operation["parameters"] = self.parameters.iter().map(|parameter| query(parameter, true)).collect();
        if let Some((types, schema)) = &self.body {
            let content: Map<String, Value> =
                types.iter().map(|media| ((*media).to_owned(), json!({"schema": reference(schema)}))).collect();
            operation["requestBody"] =
                json!({"content": content, "required": self.action != "delete" && self.action != "deletecollection"});
        }
        let content: Map<String, Value> = match &self.answer {
            None => Map::from_iter([("text/plain".to_owned(), json!({"schema": {"type": "string"}}))]),
            Some(schema) => {
                let streams = (self.action == "list").then_some(STREAM);
                let types = ANSWER_TYPES.iter().copied().chain(streams);
                types.map(|media| (media.to_owned(), json!({"schema": reference(schema)}))).collect()
            }
        };
        let mut responses: Map<String, Value> = Map::new();
        for (code, text) in self.codes() {
            responses.insert((*code).to_owned(), json!({"description": text, "content": content}));
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        operation["responses"] = responses.into();
        operation
    }

    fn v2(&self) -> Value {
        let mut operation = self.head();
        let mut parameters: Vec<Value> = self.parameters.iter().map(|parameter| query(parameter, false)).collect();
        if let Some((types, schema)) = &self.body {
            operation["consumes"] = json!(types);
            parameters.push(json!({
                "name": "body", "in": "body", "schema": swagger::schema(reference(schema)),
                "required": self.action != "delete" && self.action != "deletecollection",
            }));
        } else {
            operation["consumes"] = json!(["*/*"]);
        }
        operation["parameters"] = parameters.into();
        operation["produces"] = if self.answer.is_some() { json!(ANSWER_TYPES) } else { json!(["text/plain"]) };
        operation["schemes"] = json!(["https"]);
        let schema = match &self.answer {
            None => json!({"type": "string"}),
            Some(schema) => swagger::schema(reference(schema)),
        };
        let mut responses: Map<String, Value> = Map::new();
        for (code, text) in self.codes() {
            responses.insert((*code).to_owned(), json!({"description": text, "schema": schema}));
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        operation["responses"] = responses.into();
        operation
    }
}
