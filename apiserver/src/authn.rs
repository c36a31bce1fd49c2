//! Who is asking: a client certificate, a bearer token, or nobody.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, Version, header};
use onex_daemon::listener::{Closing, Peer};
use sha2::{Digest, Sha256};

use crate::{
    Error, Inner, audit,
    authz::{Asked, MASTERS, refusal},
    handlers::PATIENCE,
    registry::behind,
    request::Target,
    router::Next,
    service_accounts::Bearer,
    status::Status,
};

/// Who is asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name, such as `admin`, `system:anonymous`.
    pub name: String,
    /// Tells apart users who had the same name one after the other. May be empty.
    pub uid: String,
    /// The groups, such as `system:masters`.
    pub groups: Arc<[String]>,
    /// What else the credentials said.
    pub extra: Arc<BTreeMap<String, Vec<String>>>,
}

/// Who really asks, when they are taken for somebody else.
#[derive(Clone, Debug)]
pub(crate) struct Impersonator(pub(crate) Arc<User>);

static ANONYMOUS: LazyLock<User> = LazyLock::new(|| User {
    name: "system:anonymous".to_owned(),
    groups: Arc::new(["system:unauthenticated".to_owned()]),
    ..User::default()
});

impl User {
    /// Somebody who has shown who they are.
    pub fn new(name: &str, mut groups: Vec<String>) -> Self {
        groups.push("system:authenticated".to_owned());
        Self { name: name.to_owned(), groups: groups.into(), ..Self::default() }
    }

    /// Whether the user is in the group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Whether this is a part of the platform itself, under the names that `onex` gives to its parts.
    pub fn is_own_part(&self) -> bool {
        ["system:onex-", "system:node:"].iter().any(|prefix| self.name.starts_with(prefix))
    }
}

/// Static tokens. Only their hashes are kept.
#[derive(Default)]
pub(crate) struct Tokens(HashMap<[u8; 32], User>);

impl Tokens {
    /// Reads a file of `token,user,uid,"group,group"` lines. No path, no tokens.
    pub(crate) fn read(path: &str) -> Result<Self, Error> {
        if path.is_empty() {
            return Ok(Self::default());
        }
        let wrong = |why: String| Error::Tokens { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let mut tokens = HashMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#')) {
            let fields: Vec<&str> = line.splitn(4, ',').map(str::trim).collect();
            let [token, user, uid, groups @ ..] = fields.as_slice() else {
                return Err(wrong(format!("line {} has fewer than three fields", number + 1)));
            };
            if token.is_empty() || user.is_empty() {
                return Err(wrong(format!("line {} lacks a token or a user", number + 1)));
            }
            let groups = groups.first().map_or("", |g| g.trim_matches('"'));
            let groups = groups.split(',').map(str::trim).filter(|g| !g.is_empty()).map(str::to_owned).collect();
            let user = User { uid: (*uid).to_owned(), ..User::new(user, groups) };
            tokens.insert(Sha256::digest(token.as_bytes()).into(), user);
        }
        Ok(Self(tokens))
    }

    fn find(&self, token: &str) -> Option<User> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        self.0.get(&hash).cloned()
    }
}

/// Finds out who asks, and refuses those whose credentials are wrong. Those without any are anonymous.
pub(crate) async fn authenticate(server: &Arc<Inner>, mut request: Request, next: impl Next) -> Response {
    // A client in this process was introduced by the composition root.
    let known = request.extensions().get::<Arc<User>>().cloned();
    if known.is_none() && bears_a_token(&request) && !server.windows.current_here(PATIENCE).await {
        return behind().into_response(); // the token may be good no longer, which cannot be seen
    }
    let Some(user) = known.or_else(|| identify(server, &request).map(Arc::new)) else {
        close_after(&request);
        let response = Status::unauthorized().into_response();
        audit::refused(server, &request, None, &response);
        return response;
    };
    if user.name == ANONYMOUS.name {
        close_after(&request);
    }
    let user = match impersonated(server, &user, request.headers()).await {
        Ok(None) => user,
        Ok(Some(other)) => {
            request.extensions_mut().insert(Impersonator(user));
            Arc::new(other)
        }
        Err(refusal) => {
            let response = refusal.into_response();
            audit::refused(server, &request, Some(user), &response);
            return response;
        }
    };
    request.extensions_mut().insert(user);
    request.headers_mut().remove(header::AUTHORIZATION); // nobody further in needs to see it
    next(request).await
}

/// Whom the user wants to be taken for, if they may. Never ignored: a request that asks for less must not get more.
async fn impersonated(server: &Inner, user: &User, headers: &HeaderMap) -> Result<Option<User>, Status> {
    let asks = |name: &HeaderName| name.as_str().starts_with("impersonate-");
    if !headers.keys().any(asks) {
        return Ok(None);
    }
    let values = |name: &str| {
        let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned);
        headers
            .get_all(name)
            .iter()
            .map(text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Status::bad_request(format!("{name} is not text")))
    };
    let wanted = Wanted {
        name: values("impersonate-user")?.into_iter().next().unwrap_or_default(),
        uid: values("impersonate-uid")?.into_iter().next().unwrap_or_default(),
        groups: values("impersonate-group")?,
        extra: extra(headers)?,
    };
    if wanted.name.is_empty() {
        return Err(Status::bad_request("requested groups, a uid or extras without impersonating a user"));
    }
    // Who was told that they may must not be turned away.
    if !user.is_in(MASTERS) && !server.windows.current_here(PATIENCE).await {
        return Err(behind());
    }
    wanted.hold(server, user)?;
    Ok(Some(wanted.user()))
}

/// Whom somebody wants to be taken for.
struct Wanted {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// No request may ask for more groups, or more of anything else, than this.
const MOST_WANTED: usize = 1000;

fn extra(headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, Status> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        let Some(name) = header.as_str().strip_prefix("impersonate-extra-") else { continue };
        let name = url::form_urlencoded::parse(format!("x={}", name.replace('+', "%2B")).as_bytes())
            .next()
            .map(|(_, name)| name.into_owned())
            .unwrap_or_default();
        let value = value.to_str().map_err(|_| Status::bad_request(format!("{header} is not text")))?;
        extra.entry(name).or_default().push(value.to_owned());
    }
    Ok(extra)
}

impl Wanted {
    /// A service account, as its namespace and its name.
    fn account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// Each part of who somebody wants to be must be allowed.
    fn hold(&self, server: &Inner, user: &User) -> Result<(), Status> {
        let of_core = |resource, name| Asked { resource, name, ..Asked::default() };
        let named = |group, resource, name| Asked { group, resource, name, ..Asked::default() };
        let mut asked = vec![match self.account() {
            Some((namespace, name)) => Asked { namespace, ..of_core("serviceaccounts", name) },
            None => of_core("users", self.name.as_str()),
        }];
        asked.extend(self.groups.iter().map(|group| of_core("groups", group)));
        if !self.uid.is_empty() {
            asked.push(named("authentication.k8s.io", "uids", &self.uid));
        }
        for (key, values) in &self.extra {
            let of = |value| Asked { subresource: key, ..named("authentication.k8s.io", "userextras", value) };
            asked.extend(values.iter().map(|value| of(value)));
        }
        if asked.len() > MOST_WANTED {
            return Err(Status::bad_request(format!("nobody is in more than {MOST_WANTED} groups")));
        }
        for asked in asked {
            let asked = Asked { verb: "impersonate", is_resource: true, ..asked };
            let decision = server.authorizer.decide(user, &asked);
            if !decision.allowed {
                return Err(refusal(user, &asked, &decision.reason));
            }
        }
        Ok(())
    }

    fn user(self) -> User {
        let account = self.account().map(|(namespace, _)| namespace.to_owned());
        let mut groups = self.groups;
        if let Some(namespace) = account.filter(|_| groups.is_empty()) {
            groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        }
        let general = if self.name == ANONYMOUS.name { "system:unauthenticated" } else { "system:authenticated" };
        if !groups.iter().any(|group| group == general) {
            groups.push(general.to_owned());
        }
        User { name: self.name, uid: self.uid, groups: groups.into(), extra: Arc::new(self.extra) }
    }
}

fn identify(server: &Inner, request: &Request) -> Option<User> {
    if let Some(peer) = request.extensions().get::<Peer>().filter(|peer| !peer.certificates.is_empty()) {
        let subject = peer.subject.as_ref().filter(|subject| !subject.common_name.is_empty())?;
        // The handshake looked at it too, but the connection may be older than what it showed then is good for.
        let valid = subject.validity.contains(&server.now());
        return valid.then(|| User::new(&subject.common_name, subject.organizations.clone()));
    }
    match request.headers().get(header::AUTHORIZATION).map(|v| v.to_str().unwrap_or_default()) {
        None => Some(ANONYMOUS.clone()),
        Some(value) => {
            let (scheme, token) = value.split_once(' ')?;
            let is_bearer = scheme.eq_ignore_ascii_case("bearer");
            let bearer = is_bearer.then(|| bearer(server, token.trim(), &[]))?;
            bearer.inspect_err(|why| tracing::debug!(why, "a token was refused")).ok().map(|bearer| bearer.user)
        }
    }
}

/// Only a resource's answer depends on what the windows show; health must be told when they show nothing.
fn bears_a_token(request: &Request) -> bool {
    request.headers().contains_key(header::AUTHORIZATION)
        && request.extensions().get::<Arc<Target>>().is_some_and(|target| target.is_resource)
}

/// Whose bearer token this is, and for which of `audiences` it is good: for this apiserver, if none are named.
///
/// The one answer for requests and for reviews. The windows must show what anybody was told of.
///
/// # Errors
/// Why the token is good for nothing, in words that hold nothing of it.
pub(crate) fn bearer(server: &Inner, token: &str, audiences: &[String]) -> Result<Bearer, String> {
    const UNKNOWN: &str = "invalid bearer token";
    let own = server.service_accounts.audiences();
    let audiences = if audiences.is_empty() { own } else { audiences };
    if let Some(user) = server.tokens.find(token) {
        // A token of the file names no audience: it is good for this apiserver.
        let good: Vec<String> = own.iter().filter(|one| audiences.contains(one)).cloned().collect();
        return if good.is_empty() { Err(UNKNOWN.to_owned()) } else { Ok(Bearer { user, audiences: good }) };
    }
    let Inner { service_accounts, windows, kinds, .. } = server;
    service_accounts
        .authenticate(token, audiences, windows, kinds, server.now())
        .unwrap_or_else(|| Err(UNKNOWN.to_owned()))
}

/// Whoever does not say who they are may ask once per connection of HTTP/2, so that a stranger cannot keep many streams busy.
fn close_after(request: &Request) {
    if let Some(closing) = request.extensions().get::<Closing>().filter(|_| request.version() == Version::HTTP_2) {
        closing.after_this();
    }
}
