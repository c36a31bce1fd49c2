//! One verb a file: from a request that is allowed to an answer.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, header};
use onex_crds::Invalid;
use onex_daemon::listener::Peer;
use serde_json::Value;

use crate::{
    Inner,
    admission::Notes,
    answer::Answer,
    audit,
    authn::User,
    body,
    kinds::Kind,
    negotiate::{self, Form, View},
    protobuf,
    registry::Part,
    request::{Target, pairs},
    status::{Result, Status},
};

mod create;
mod delete;
mod evict;
mod frames;
mod get;
mod list;
mod log;
pub(crate) mod options;
mod patch;
mod review;
pub(crate) mod scale;
mod selection;
mod token;
mod update;
mod watch;

/// A request about a resource that exists.
pub(crate) struct Context {
    /// The apiserver.
    pub(crate) server: Arc<Inner>,
    /// What is asked for.
    pub(crate) target: Arc<Target>,
    /// The kind that it is asked of.
    pub(crate) kind: Arc<Kind>,
    /// Who asks.
    pub(crate) user: Arc<User>,
    /// The query, undecoded.
    pub(crate) query: String,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// When the certificate that the client showed is good no longer, in seconds since 1970.
    pub(crate) expires: Option<i64>,
    /// Where to say what the audit log is to know, if this request is recorded.
    pub(crate) record: Option<audit::Notes>,
    /// What the request leaves behind besides its answer, made when there is something.
    notes: OnceLock<Arc<Notes>>,
}

/// How long a request waits until what others were told of can be seen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Answers a request about a resource.
pub(crate) async fn handle(
    server: Arc<Inner>,
    target: Arc<Target>,
    user: Arc<User>,
    request: http::Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    let Some(kind) = server.kinds.find(&target.group, &target.version, &target.resource) else {
        return answered(Err(Status::no_such_path()));
    };
    let query = parts.uri.query().unwrap_or_default().to_owned();
    // Who was told of a change sees it from now on, also when another connection told them, or a run before this one.
    let is_current = match needs_the_newest(&target, &query) {
        true => server.windows.current(PATIENCE).await,
        false => server.windows.current_here(PATIENCE).await,
    };
    if !is_current {
        let filled = server.windows.revision() >= server.ready_at;
        return answered(Err(if filled { crate::registry::behind() } else { Status::initializing() }));
    }
    let record = parts.extensions.get::<audit::Notes>().cloned();
    let subject = parts.extensions.get::<Peer>().and_then(|peer| peer.subject.as_ref());
    let expires = subject.map(|subject| *subject.validity.end());
    let headers = parts.headers;
    let cx = Context { server, target, kind, user, query, headers, expires, record, notes: OnceLock::new() };
    if let Some(deprecation) = &cx.kind.deprecation {
        cx.warn(deprecation.clone());
    }
    let mut response = answered(cx.dispatch(body).await);
    if cx.kind.defines_kinds && !matches!(cx.target.verb, "get" | "list" | "watch") {
        cx.server.definitions.settled(&cx.server.windows, PATIENCE).await;
    }
    if let Some(notes) = cx.notes.get() {
        warn(&mut response, &notes.warnings());
        if let Some(record) = &cx.record {
            notes.annotations().into_iter().for_each(|(name, said)| record.add(name, said));
        }
    }
    response
}

/// Whether what other processes told must be seen. Not by who makes something new, which the store lets happen once whatever was
/// seen, and not by who says how new is new enough.
fn needs_the_newest(target: &Target, query: &str) -> bool {
    let says = || pairs(query).any(|(name, value)| name == "resourceVersion" && !value.is_empty());
    match target.verb {
        "create" => !target.subresource.is_empty(),
        "get" | "list" | "watch" => !says(),
        _ => true,
    }
}

fn answered(result: Result<Response>) -> Response {
    result.unwrap_or_else(axum::response::IntoResponse::into_response)
}

impl Context {
    async fn dispatch(&self, body: Body) -> Result<Response> {
        self.hold_scope()?;
        let target = &self.target;
        if let Some(review) = self.kind.review {
            return match (target.verb, target.name.as_str()) {
                ("create", "") => review::answer(self, review, body).await,
                (_, "") => Err(Status::method_not_allowed()),
                _ => Err(Status::no_such_path()),
            };
        }
        match (target.verb, target.subresource.as_str()) {
            ("update" | "patch", _) if target.name.is_empty() => Err(Status::method_not_allowed()),
            ("get", "") => get::get(self, Part::Main).await,
            ("list", "") => list::list(self).await,
            ("watch", "") => watch::watch(self).await,
            ("create", "") if target.name.is_empty() => create::create(self, body).await,
            ("update", "") => update::update(self, Part::Main, body).await,
            ("patch", "") => patch::patch(self, Part::Main, body).await,
            ("delete", "") => delete::delete(self, body).await,
            ("deletecollection", "") if self.kind.deletes_collections => delete::delete_collection(self, body).await,
            ("get", "status") if self.kind.status => get::get(self, Part::Status).await,
            ("update", "status") if self.kind.status => update::update(self, Part::Status, body).await,
            ("patch", "status") if self.kind.status => patch::patch(self, Part::Status, body).await,
            ("get", "scale") if self.kind.scale.is_some() => scale::get(self),
            ("update", "scale") if self.kind.scale.is_some() => scale::update(self, body).await,
            ("patch", "scale") if self.kind.scale.is_some() => scale::patch(self, body).await,
            ("update", "finalize") if self.has("finalize") => update::update(self, Part::Finalize, body).await,
            ("get", part) if let Some(part) = self.amended(part) => get::get(self, part).await,
            ("update", part) if let Some(part) = self.amended(part) => update::update(self, part, body).await,
            ("patch", part) if let Some(part) = self.amended(part) => patch::patch(self, part, body).await,
            (_, part @ ("exec" | "attach" | "portforward")) if self.has("log") => Err(Status::not_implemented(part)),
            (_, part) if self.is_proxy(part) => Err(Status::not_implemented("proxy")),
            ("get", "log") if self.has("log") => log::log(self).await,
            ("create", "token") if self.has("token") => token::create(self, body).await,
            ("create", "eviction") if self.has("eviction") => evict::evict(self, body).await,
            ("create", "binding") if self.has("binding") => create::bind(self, body).await,
            (_, "") => Err(Status::method_not_allowed()),
            (_, "status") if self.kind.status => Err(Status::method_not_allowed()),
            (_, "scale") if self.kind.scale.is_some() => Err(Status::method_not_allowed()),
            (_, other) if self.has(other) => Err(Status::method_not_allowed()),
            _ => Err(Status::no_such_path()),
        }
    }

    fn has(&self, subresource: &str) -> bool {
        self.kind.subresources.iter().any(|s| s.name == subresource)
    }

    /// The way to a program behind an object, which Kubernetes has for these kinds.
    fn is_proxy(&self, subresource: &str) -> bool {
        let kind = &self.kind;
        kind.group.is_empty()
            && matches!(kind.plural.as_str(), "pods" | "services" | "nodes")
            && subresource.split('/').next() == Some("proxy")
    }

    /// The part of the object that a subresource of this name changes, and nothing else of it.
    fn amended(&self, subresource: &str) -> Option<Part> {
        let parts = [Part::Approval, Part::Resize, Part::EphemeralContainers];
        parts.into_iter().find(|part| part.subresource() == subresource && self.has(subresource))
    }

    /// A namespaced object has a namespace in its path, and a cluster-scoped one has none.
    fn hold_scope(&self) -> Result<()> {
        let target = &self.target;
        let collection_over_all = matches!(target.verb, "list" | "watch") && target.name.is_empty();
        match (self.kind.namespaced, target.namespace.is_empty()) {
            (true, true) if target.name.is_empty() && !collection_over_all => Err(Status::method_not_allowed()),
            (true, true) if !collection_over_all => Err(Status::no_such_path()),
            // A namespace is in no namespace; its path only looks as if it were in itself.
            (false, false) if target.resource != "namespaces" || target.namespace != target.name => {
                Err(Status::no_such_path())
            }
            _ => Ok(()),
        }
    }

    /// The namespace of the objects asked for; empty for cluster-scoped kinds and for all namespaces.
    pub(crate) fn namespace(&self) -> &str {
        if self.kind.namespaced { &self.target.namespace } else { "" }
    }

    /// The value of a query parameter; the first one, if there are several.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).next()
    }

    /// All values of a parameter that may come more than once.
    fn parameters(&self, name: &str) -> impl Iterator<Item = String> {
        pairs(&self.query).filter(move |(k, _)| k == name).map(|(_, v)| v.into_owned())
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The form of an answer that is one object or a list of them.
    pub(crate) fn form(&self, allowed: impl Fn(View) -> bool) -> Result<Form> {
        let agent = self.header(header::USER_AGENT);
        let person = ["curl/", "Wget/", "Mozilla/5.0"].iter().any(|p| agent.starts_with(p));
        let pretty = match self.parameter("pretty") {
            Some(value) => matches!(value.as_str(), "1" | "true"),
            None => person && self.target.verb != "watch",
        };
        negotiate::form(self.header(header::ACCEPT), pretty, || protobuf::speaks(&self.kind), allowed)
    }

    /// The form of an answer that is one object.
    pub(crate) fn object_form(&self) -> Result<Form> {
        self.form(|view| !matches!(view, View::MetadataList(_)))
    }

    /// Starts an answer in the form that the client asked for.
    pub(crate) fn answer(&self, form: Form) -> Result<Answer<'_>> {
        Answer::new(&self.kind, form, self.parameter("includeObject").as_deref(), self.server.now())
    }

    /// Adds a warning to the answer, once.
    fn warn(&self, warning: impl Into<String>) {
        self.notes().warn(warning.into());
    }

    /// What the request leaves behind besides its answer.
    fn notes(&self) -> &Arc<Notes> {
        self.notes.get_or_init(Arc::default)
    }

    /// Warns of the complaints, or answers them as an error.
    fn judge(&self, validation: options::Validation, complaints: Vec<String>) -> Result<(), String> {
        validation.judge(complaints)?.into_iter().for_each(|warning| self.warn(warning));
        Ok(())
    }

    /// Warns of what is legal, and still worth a warning. The object is as this kind shows it.
    fn warn_of(&self, object: &mut Value) {
        (self.kind.hooks.warn)(object).into_iter().for_each(|warning| self.warn(warning));
        let doubles = drop_double_owners(object);
        if !doubles.is_empty() {
            self.warn(format!(
                ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
                 reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
                doubles.join(", ")
            ));
        }
    }

    /// Warns of what is worth it in an object that is not there yet.
    fn warn_of_new(&self, object: &mut Value) {
        (self.kind.hooks.warn_of_new)(object).into_iter().for_each(|warning| self.warn(warning));
        self.warn_of(object);
    }

    /// Reads an object of this kind from a body: decoded, of the right kind, pruned, checked for its types.
    async fn object(&self, body: Body, validation: options::Validation) -> Result<Value> {
        let bytes = body::read(body).await?;
        let decoded = body::decode(body::media_type(&self.headers), &bytes);
        let decoded = decoded.map_err(|wrong| self.unrecognized(wrong, &bytes))?;
        let mut object = decoded.object;
        self.hold_identity(&mut object)?;
        let shape = self.kind.decode(&mut object);
        let mut complaints = Vec::new();
        if !decoded.protobuf {
            complaints.extend(shape.unknown.iter().map(|path| format!("unknown field {path:?}")));
        }
        let is_known = |twice: &String| {
            let path = twice.strip_prefix("duplicate field ").unwrap_or_default().trim_matches('"');
            let below = |unknown: &String| {
                path.strip_prefix(unknown.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            !shape.unknown.iter().any(below)
        };
        complaints.extend(decoded.duplicates.into_iter().filter(is_known));
        if let Some(wrong) = shape.wrong {
            return Err(Status::bad_request(format!("{}: {wrong}", self.cannot_be_handled())));
        }
        self.judge(validation, complaints).map_err(|all| {
            Status::bad_request(format!("{}: strict decoding error: {all}", self.cannot_be_handled()))
        })?;
        let object = self.hold_place(object)?;
        Ok(object)
    }

    /// What cannot even be parsed is told with the kind that was wanted, and the beginning of what came.
    fn unrecognized(&self, wrong: Status, bytes: &[u8]) -> Status {
        const SHOWN: usize = 30;
        if wrong.code != 400 {
            return wrong; // a media type that is not served
        }
        let beginning = &bytes[..bytes.len().min(SHOWN)];
        let more = if bytes.len() > SHOWN { " ..." } else { "" };
        let beginning = match bytes.first() {
            None => "<empty>".to_owned(),
            Some(b'{') => String::from_utf8_lossy(beginning).into_owned(),
            Some(_) => hex::encode(beginning),
        };
        let (kind, why) = (&self.kind.kind, wrong.message);
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({beginning}{more})"
        ))
    }

    fn cannot_be_handled(&self) -> String {
        let kind = &self.kind;
        format!("{} in version {:?} cannot be handled as a {}", kind.kind, kind.version, kind.kind)
    }

    /// The object says which kind it is, or says nothing.
    fn hold_identity(&self, object: &mut Value) -> Result<()> {
        let kind = &self.kind;
        if object.is_null() {
            *object = Value::Object(Default::default()); // as Go has it
        }
        let Some(fields) = object.as_object_mut() else {
            let why = format!(
                "{}: json: cannot unmarshal {} into Go value of type {}",
                self.cannot_be_handled(),
                body::go_name(object),
                kind.kind
            );
            return Err(Status::bad_request(why));
        };
        for name in ["apiVersion", "kind"] {
            if let Some(other) = fields.get(name).filter(|v| !v.is_string() && !v.is_null()) {
                let found = body::go_name(other);
                return Err(Status::bad_request(format!(
                    "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go struct field .{name} of type string"
                )));
            }
        }
        let said = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, named, expected) = (said("apiVersion"), said("kind"), kind.api_version());
        if !named.is_empty() && named != kind.kind {
            if kind.custom.is_some() {
                let name = fields["metadata"]["name"].as_str().unwrap_or_default();
                let wrong = Invalid::value("kind", named.as_str(), format!("must be {}", kind.kind));
                return Err(Status::invalid(&kind.group, &named, name, &[wrong]));
            }
            let own = version.rsplit('/').next().unwrap_or_default();
            let why = format!(
                "{named} in version {own:?} cannot be handled as a {}: converting ({version}.{named}) to ({expected}.{}): unknown conversion",
                kind.kind, kind.kind
            );
            return Err(Status::bad_request(why));
        }
        if !version.is_empty() && version != expected {
            let why =
                format!("the API version in the data ({version}) does not match the expected API version ({expected})");
            return Err(Status::bad_request(why));
        }
        fields.insert("apiVersion".to_owned(), expected.into());
        fields.insert("kind".to_owned(), kind.kind.clone().into());
        Ok(())
    }

    /// The object is where the URL says.
    fn hold_place(&self, mut object: Value) -> Result<Value> {
        let said = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        let (name, namespace) = (said("name"), said("namespace"));
        if self.kind.namespaced && !namespace.is_empty() && namespace != self.namespace() {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let url = &self.target.name;
        if self.target.verb == "update" && name.is_empty() {
            let why = format!("the name of the object ({url} based on URL) was undeterminable: name must be provided");
            return Err(Status::bad_request(why));
        }
        if !url.is_empty() && !name.is_empty() && name != url {
            let why = format!("the name of the object ({name}) does not match the name on the URL ({url})");
            return Err(Status::bad_request(why));
        }
        if !url.is_empty() {
            match &object["metadata"] {
                Value::Object(_) => {}
                Value::Null => object["metadata"] = serde_json::json!({}),
                _ => {
                    return Err(Status::bad_request(format!(
                        "{}: metadata is not an object",
                        self.cannot_be_handled()
                    )));
                }
            }
            object["metadata"]["name"] = url.clone().into();
        }
        Ok(object)
    }

    /// From this kind to the form that is stored.
    pub(crate) fn to_stored(&self, object: Value) -> Value {
        match &self.kind.conversion {
            Some(conversion) => (conversion.store)(object),
            None => object,
        }
    }

    /// From the form that is stored to this kind.
    pub(crate) fn to_served(&self, object: Value) -> Value {
        match &self.kind.conversion {
            Some(conversion) => (conversion.serve)(object),
            None => object,
        }
    }
}

/// Removes owners that are named twice. Answers the uids of those.
fn drop_double_owners(object: &mut Value) -> Vec<String> {
    let Some(owners) = object["metadata"].get_mut("ownerReferences").and_then(Value::as_array_mut) else {
        return Vec::new();
    };
    let mut doubles = Vec::new();
    let mut seen = HashSet::new();
    owners.retain(|owner| {
        let new = seen.insert(owner.to_string());
        if !new {
            doubles.push(owner["uid"].as_str().unwrap_or_default().to_owned());
        }
        new
    });
    doubles
}

/// Adds `Warning` headers, bounded as Kubernetes bounds them: only when all together are too long is each of them cut.
fn warn(response: &mut Response, warnings: &[String]) {
    const TOTAL: usize = 4096;
    const CUT: usize = 256;
    let total: usize = warnings.iter().map(|warning| warning.chars().count()).sum();
    let most = if total > TOTAL { CUT } else { TOTAL };
    let mut spent = 0;
    for warning in warnings {
        if spent >= TOTAL {
            return;
        }
        let text: String = warning.chars().filter(|c| !c.is_control()).take(most).collect();
        spent += text.chars().count();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(warnings: &[String]) -> Vec<usize> {
        let mut response = Response::new(Body::empty());
        warn(&mut response, warnings);
        response.headers().get_all(header::WARNING).iter().map(|v| v.len() - r#"299 - """#.len()).collect()
    }

    #[test]
    fn warnings_are_cut_only_when_all_together_are_too_long() {
        let long = |length: usize| "w".repeat(length);
        assert_eq!(lengths(&[long(3000), long(1096)]), [3000, 1096]);
        assert_eq!(lengths(&[long(3000), long(1097), long(10)]), [256, 256, 10]);
        assert_eq!(lengths(&vec![long(300); 30]), [256; 16]);
    }
}
