//! What a request asks for: verb, group, resource and name, read from its method and path.

use http::Method;

/// What a request asks for. The words are those of Kubernetes' authorization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the method in
    /// lower case.
    pub verb: &'static str,
    /// The path, if it is no resource's.
    pub path: String,
    /// The path is a resource's.
    pub is_resource: bool,
    /// The API group; empty for the core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The plural resource name.
    pub resource: String,
    /// The subresource, such as `status`; may be empty.
    pub subresource: String,
    /// The namespace; empty for cluster-scoped objects, and for lists over all namespaces.
    pub namespace: String,
    /// The object's name; empty for collections.
    pub name: String,
}

impl Target {
    /// Reads method, path and query.
    pub fn read(method: &Method, path: &str, query: &str) -> Self {
        let mut target = Self { verb: method_verb(method), path: path.to_owned(), ..Self::default() };
        let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let rest = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                target.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                target.group = (*group).to_owned();
                target.version = (*version).to_owned();
                rest
            }
            _ => return target,
        };
        target.is_resource = true;
        let (watching, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            rest => (false, rest),
        };
        target.read_resource(rest);
        target.verb = target.resource_verb(method, query, watching);
        target
    }

    fn read_resource(&mut self, rest: &[&str]) {
        let (namespace, rest) = match rest {
            // `namespaces/x/status` and `namespaces/x/finalize` are subresources of the namespace itself.
            ["namespaces", name, sub @ ("status" | "finalize")] => {
                self.namespace = (*name).to_owned();
                self.resource = "namespaces".to_owned();
                self.name = (*name).to_owned();
                self.subresource = (*sub).to_owned();
                return;
            }
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            ["namespaces", name] => (*name, rest),
            rest => ("", rest),
        };
        self.namespace = namespace.to_owned();
        self.resource = rest.first().copied().unwrap_or_default().to_owned();
        self.name = rest.get(1).copied().unwrap_or_default().to_owned();
        self.subresource = rest.get(2..).unwrap_or_default().join("/");
    }

    fn resource_verb(&self, method: &Method, query: &str, watching: bool) -> &'static str {
        let watch = || watching || pairs(query).find(|(k, _)| k == "watch").is_some_and(|(_, v)| is_true(&v));
        match (method.as_str(), self.name.is_empty()) {
            ("GET" | "HEAD", _) if self.subresource.is_empty() && watch() => "watch",
            ("GET" | "HEAD", true) => "list",
            ("GET" | "HEAD", false) => "get",
            _ if watching => "", // `/watch/` is a way to read
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            _ => "",
        }
    }

    /// The request may last as long as it likes: it is no subject of deadlines and of limits in flight.
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || matches!(
                self.subresource.split('/').next().unwrap_or_default(),
                "log" | "exec" | "attach" | "portforward" | "proxy"
            )
    }

    /// The request changes nothing.
    pub fn is_read_only(&self) -> bool {
        matches!(self.verb, "get" | "list" | "watch" | "head" | "options")
    }
}

fn method_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "",
    }
}

fn decoded(part: &str) -> String {
    url::form_urlencoded::parse(format!("x={}", part.replace('+', "%2B")).as_bytes())
        .next()
        .map(|(_, v)| v.into_owned())
        .unwrap_or_default()
}

/// Whether a flag in a query is set, as Go reads it: all but `false` and `0` is true.
pub fn is_true(text: &str) -> bool {
    !(text == "0" || text.eq_ignore_ascii_case("false"))
}

/// The pairs of a query, decoded. `?`, `?&a=b` and `a` alone are fine.
pub fn pairs(query: &str) -> impl Iterator<Item = (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)> {
    url::form_urlencoded::parse(query.as_bytes()).filter(|(k, _)| !k.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: Method, path: &str) -> (&'static str, String, String, String, String) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let t = Target::read(&method, path, query);
        (t.verb, t.namespace, t.resource, t.name, t.subresource)
    }

    fn want(
        verb: &'static str,
        namespace: &str,
        resource: &str,
        name: &str,
        sub: &str,
    ) -> (&'static str, String, String, String, String) {
        (verb, namespace.into(), resource.into(), name.into(), sub.into())
    }

    #[test]
    fn paths_are_read_as_kubernetes_reads_them() {
        let g = Method::GET;
        assert_eq!(read(g.clone(), "/api/v1/pods"), want("list", "", "pods", "", ""));
        assert_eq!(read(g.clone(), "/api/v1/namespaces"), want("list", "", "namespaces", "", ""));
        assert_eq!(read(g.clone(), "/api/v1/namespaces/a"), want("get", "a", "namespaces", "a", ""));
        assert_eq!(
            read(Method::PUT, "/api/v1/namespaces/a/finalize"),
            want("update", "a", "namespaces", "a", "finalize")
        );
        assert_eq!(read(g.clone(), "/api/v1/namespaces/a/pods/p/log"), want("get", "a", "pods", "p", "log"));
        assert_eq!(read(g.clone(), "/apis/g/v1/namespaces/a/ms?watch=true"), want("watch", "a", "ms", "", ""));
        assert_eq!(read(g.clone(), "/apis/g/v1/watch/namespaces/a/ms"), want("watch", "a", "ms", "", ""));
        assert_eq!(read(Method::DELETE, "/apis/g/v1/namespaces/a/ms/"), want("deletecollection", "a", "ms", "", ""));
        assert_eq!(read(Method::PATCH, "/apis/g/v1/namespaces/a/ms/x/scale"), want("patch", "a", "ms", "x", "scale"));
        assert_eq!(read(Method::POST, "/apis/g/v1/watch/namespaces/a/ms").0, "");
        assert_eq!(read(g.clone(), "/api/v1/namespaces/a/pods/p/log/more"), want("get", "a", "pods", "p", "log/more"));
        assert!(!Target::read(&g, "/apis/g/v1", "").is_resource);
        assert!(!Target::read(&g, "/api/", "").is_resource);
    }
}
