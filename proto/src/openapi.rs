//! The OpenAPI 3.1 document of a service, made from its `.proto` file, its routes and its rules.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use serde_json::{Map, Value as Json, json};

use crate::routes::{Route, Who, routes};
use crate::rules::{Check, constraints};
use crate::{DESCRIPTORS, Reason};

/// Reasons for which every call may fail.
const EVERY: &[Reason] = &[
    Reason::Codec,
    Reason::InvalidParameter,
    Reason::TooLarge,
    Reason::RateLimit,
    Reason::Unknown,
    Reason::Unavailable,
    Reason::Timeout,
];

/// The document of `service`, by its full name: `usercenter.v1.UserCenter`.
///
/// # Panics
/// Never for a service that has routes: the descriptors are our own.
#[must_use]
pub fn document(service: &str) -> Json {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("made by our own build");
    let (package, name) = service.rsplit_once('.').expect("a package and a name");
    let contract = Contract { files: &set.file, package };
    let mut paths = Map::new();
    for route in routes(service) {
        let page = paths.entry(route.path).or_insert_with(|| json!({}));
        page[route.method.name()] = contract.operation(name, route);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": format!("OneX {name}"), "version": package.rsplit('.').next() },
        "paths": paths,
        "components": {
            "schemas": contract.schemas(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
        },
    })
}

struct Contract<'a> {
    files: &'a [FileDescriptorProto],
    /// That of the service.
    package: &'a str,
}

/// A message, and where it stands.
#[derive(Clone, Copy)]
struct Message<'a> {
    file: &'a FileDescriptorProto,
    index: usize,
}

impl<'a> Message<'a> {
    fn of(self) -> &'a DescriptorProto {
        &self.file.message_type[self.index]
    }

    /// What its fields must keep to.
    fn constraints(self, field: &FieldDescriptorProto) -> Vec<Check> {
        let rules = constraints(self.of().name()).into_iter();
        rules.filter(|(name, _)| *name == field.json_name()).flat_map(|(_, checks)| checks.iter().copied()).collect()
    }

    fn field_comment(self, field: &FieldDescriptorProto) -> String {
        let place =
            self.of().field.iter().position(|other| other.name() == field.name()).expect("it is of this message");
        comment(self.file, &[4, index_of(self.index), 2, index_of(place)])
    }
}

impl<'a> Contract<'a> {
    fn operation(&self, service: &str, route: &Route) -> Json {
        let file = self.files.iter().find(|file| file.package() == self.package).expect("a service of ours");
        let mut services = file.service.iter().enumerate();
        let (index, described) = services.find(|(_, other)| other.name() == service).expect("it has routes");
        let mut methods = described.method.iter().enumerate();
        let (place, method) = methods.find(|(_, method)| method.name() == route.rpc).expect("every route has an RPC");
        let request = self.message(method.input_type());
        let in_path = |field: &FieldDescriptorProto| route.path.contains(&format!("{{{}}}", field.json_name()));
        let mut parameters = Vec::new();
        for field in &request.of().field {
            let path = in_path(field);
            if path || !route.method.has_body() {
                parameters.push(json!({
                    "name": field.json_name(),
                    "in": if path { "path" } else { "query" },
                    "required": path,
                    "description": request.field_comment(field),
                    "schema": self.field(request, field),
                }));
            }
        }
        let mut operation = json!({
            "operationId": format!("{service}_{}", route.rpc),
            "tags": [service],
            "summary": comment(file, &[6, index_of(index), 2, index_of(place)]),
            "parameters": parameters,
            "responses": self.responses(method.output_type(), route),
        });
        if route.method.has_body() {
            let content = json!({ "schema": self.schema(request, &in_path) });
            operation["requestBody"] = json!({ "required": true, "content": { "application/json": content } });
        }
        if route.who == Who::Users {
            operation["security"] = json!([{ "token": [] }]);
        }
        operation
    }

    fn responses(&self, answer: &str, route: &Route) -> Json {
        let refused = if route.who == Who::Users { &[Reason::Unauthorized][..] } else { &[] };
        let mut responses = Map::new();
        let content = json!({ "application/json": { "schema": self.reference(answer) } });
        responses.insert("200".into(), json!({ "description": "OK", "content": content }));
        let reasons = || route.reasons.iter().chain(refused).chain(EVERY);
        let codes: BTreeSet<u16> = reasons().map(|reason| reason.code()).collect();
        for code in codes {
            let names: BTreeSet<&str> = reasons().filter(|reason| reason.code() == code).map(|r| r.name()).collect();
            let description = names.into_iter().collect::<Vec<_>>().join(", ");
            let content = json!({ "application/json": { "schema": reference("Error") } });
            responses.insert(code.to_string(), json!({ "description": description, "content": content }));
        }
        responses.into()
    }

    /// Those of the service's file, and of the files that it imports messages from.
    fn schemas(&self) -> Json {
        let own = self.files.iter().find(|file| file.package() == self.package).expect("a service of ours");
        let files = self.files.iter().filter(|file| {
            let imported = own.dependency.iter().any(|name| name == file.name());
            file.package() == self.package || (imported && file.package() != "google.protobuf")
        });
        let mut schemas = Map::new();
        for file in files {
            for index in 0..file.message_type.len() {
                let message = Message { file, index };
                let name = self.name(&format!(".{}.{}", file.package(), message.of().name()));
                schemas.insert(name, self.schema(message, &|_| false));
            }
        }
        schemas.insert(
            "Error".into(),
            json!({
                "type": "object",
                "required": ["code", "reason", "message", "metadata"],
                "properties": {
                    "code": { "type": "integer", "description": "The HTTP status." },
                    "reason": { "type": "string", "description": "What went wrong, for programs." },
                    "message": { "type": "string", "description": "What went wrong, for people." },
                    "metadata": { "type": "object", "additionalProperties": { "type": "string" } },
                },
            }),
        );
        schemas.into()
    }

    fn schema(&self, message: Message<'a>, without: &dyn Fn(&FieldDescriptorProto) -> bool) -> Json {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in message.of().field.iter().filter(|field| !without(field)) {
            let mut schema = self.field(message, field);
            schema["description"] = message.field_comment(field).into();
            properties.insert(field.json_name().to_owned(), schema);
            if self.is_own(message) && message.constraints(field).contains(&Check::Required) {
                required.push(field.json_name());
            }
        }
        // Of the apiserver's objects only the most important fields are known here.
        let mut schema =
            json!({ "type": "object", "properties": properties, "additionalProperties": !self.is_own(message) });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }

    fn field(&self, message: Message<'a>, field: &FieldDescriptorProto) -> Json {
        if is_map(message.of(), field) {
            return json!({ "type": "object", "additionalProperties": { "type": "string" } });
        }
        let mut schema = match field.r#type() {
            Type::String => json!({ "type": "string" }),
            Type::Bool => json!({ "type": "boolean" }),
            Type::Int32 => json!({ "type": "integer", "format": "int32" }),
            Type::Int64 if !self.is_own(message) => json!({ "type": "integer", "format": "int64" }),
            // Numbers of JSON are doubles to many readers, which lose the end of long ones.
            Type::Int64 => json!({ "type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$" }),
            Type::Message if field.type_name() == ".google.protobuf.Timestamp" => {
                json!({ "type": "string", "format": "date-time" })
            }
            Type::Message => self.reference(field.type_name()),
            _ => json!({}),
        };
        if self.is_own(message) {
            message.constraints(field).into_iter().for_each(|check| constrain(&mut schema, field, check));
        }
        if field.label() == Label::Repeated { json!({ "type": "array", "items": schema }) } else { schema }
    }

    /// Whether it is of the service's own package. Others have the JSON of Kubernetes.
    fn is_own(&self, message: Message<'_>) -> bool {
        message.file.package() == self.package
    }

    /// The name of a schema: two packages may have messages of one name.
    fn name(&self, message: &str) -> String {
        let full = message.trim_start_matches('.');
        let short = full.strip_prefix(self.package).and_then(|rest| rest.strip_prefix('.'));
        short.unwrap_or(full).to_owned()
    }

    fn reference(&self, message: &str) -> Json {
        reference(&self.name(message))
    }

    fn message(&self, name: &str) -> Message<'a> {
        let (package, short) = name.trim_start_matches('.').rsplit_once('.').expect("a package and a name");
        let file = self.files.iter().find(|file| file.package() == package).expect("a package of ours");
        let index = file.message_type.iter().position(|message| message.name() == short).expect("a message of it");
        Message { file, index }
    }
}

fn is_map(message: &DescriptorProto, field: &FieldDescriptorProto) -> bool {
    let entry = field.type_name().rsplit('.').next().unwrap_or_default();
    let nested = message.nested_type.iter().find(|nested| nested.name() == entry);
    nested.is_some_and(|nested| nested.options.as_ref().is_some_and(|options| options.map_entry()))
}

fn comment(file: &FileDescriptorProto, path: &[i32]) -> String {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let found = locations.into_iter().find(|location| location.path == path);
    found.map_or(String::new(), |location| location.leading_comments().trim().replace("\n ", "\n"))
}

fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn index_of(place: usize) -> i32 {
    i32::try_from(place).expect("a file has not so many")
}

fn constrain(schema: &mut Json, field: &FieldDescriptorProto, check: Check) {
    let text = field.r#type() == Type::String;
    match check {
        Check::Required if text => {
            if schema.get("minLength").is_none() {
                schema["minLength"] = json!(1);
            }
        }
        Check::Length(least, most) => {
            schema["minLength"] = json!(least);
            schema["maxLength"] = json!(most);
        }
        Check::Username => schema["pattern"] = json!("^[A-Za-z0-9_]*$"),
        Check::Name => schema["pattern"] = json!("^[A-Za-z0-9][A-Za-z0-9._-]*$"),
        Check::Phone => schema["pattern"] = json!(r"^\+?[0-9]{5,15}$"),
        Check::Email => schema["format"] = json!("email"),
        Check::Password => schema["format"] = json!("password"),
        Check::OneOf(values) => schema["enum"] = json!(values),
        Check::Pattern => schema["pattern"] = json!(r"^[^*]*\*?$"),
        // Numbers of 64 bits are text, which has no least and no most.
        Check::Range(least, most) if field.r#type() == Type::Int32 => {
            schema["minimum"] = json!(least);
            schema["maximum"] = json!(most);
        }
        Check::Required | Check::Range(..) | Check::Plain => {}
    }
}

/// A page on which people try the calls of the document at `openapi.json` beside it. It loads nothing from elsewhere.
pub const PAGE: &str = include_str!("page.html");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rpc_but_the_streams_has_a_route_and_every_route_an_rpc() {
        let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        for file in &set.file {
            for service in &file.service {
                let full = format!("{}.{}", file.package(), service.name());
                let mut rpcs: Vec<&str> =
                    service.method.iter().filter(|m| !m.server_streaming()).map(|m| m.name()).collect();
                let mut routed: Vec<&str> = routes(&full).iter().map(|route| route.rpc).collect();
                rpcs.sort_unstable();
                routed.sort_unstable();
                assert_eq!(rpcs, routed, "{full}");
            }
        }
    }

    #[test]
    fn the_document_tells_rules_descriptions_and_declared_errors() {
        let document = document("usercenter.v1.UserCenter");
        assert_eq!(document["openapi"], "3.1.0");
        let create = &document["paths"]["/v1/users"]["post"];
        let body = &create["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["required"], json!(["username", "password"]));
        assert_eq!(body["properties"]["username"]["maxLength"], 20);
        assert!(create["responses"]["409"]["description"].as_str().unwrap().contains("UserAlreadyExists"));
        assert_eq!(create["security"], Json::Null);
        let get = &document["paths"]["/v1/users/{userID}"]["get"];
        assert_eq!(get["parameters"][0]["in"], "path");
        assert_eq!(get["summary"], "One user.");
        assert_eq!(get["security"], json!([{ "token": [] }]));
        let user = &document["components"]["schemas"]["User"]["properties"];
        assert_eq!(user["secrets"]["type"], "string", "64-bit numbers are text");
        assert_eq!(user["createdAt"]["format"], "date-time");
        assert_eq!(user["userID"]["description"], "The id, which is the user's namespace too.");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for service in ["usercenter.v1.UserCenter", "gateway.v1.Gateway"] {
            let document = document(service);
            let text = document.to_string();
            for reference in text.split("#/components/schemas/").skip(1) {
                let name = reference.split('"').next().unwrap();
                assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
            }
        }
    }
}
