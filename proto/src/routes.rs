//! Where REST finds each call, and who may make it: one table that routers, documents and tests read.

/// How a page is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Makes, or does.
    Post,
    /// Changes.
    Put,
    /// Removes.
    Delete,
}

impl Method {
    /// In lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }

    /// Whether the request has a body; otherwise its fields are in the query.
    #[must_use]
    pub fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put)
    }
}

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Whoever can reach the service.
    Anybody,
    /// Whoever shows a token.
    Users,
}

/// A call over REST.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// How.
    pub method: Method,
    /// Where; `{name}` is a field of the request.
    pub path: &'static str,
    /// The name of the RPC.
    pub rpc: &'static str,
    /// Who may.
    pub who: Who,
    /// The reasons for which it may fail, besides those that every call has.
    pub reasons: &'static [crate::Reason],
}

impl Route {
    /// The name of the operation, which policies use.
    #[must_use]
    pub fn operation(&self, service: &str) -> String {
        format!("/{service}/{}", self.rpc)
    }
}

use crate::Reason as R;

const USERCENTER: &[Route] = &[
    route(Method::Post, "/v1/auth/login", "Login", Who::Anybody, &[R::UserLoginFailed, R::RateLimit]),
    route(Method::Post, "/v1/auth/logout", "Logout", Who::Users, &[]),
    route(Method::Post, "/v1/auth/refresh-token", "RefreshToken", Who::Users, &[]),
    route(Method::Post, "/v1/auth/authenticate", "Authenticate", Who::Anybody, &[R::Unauthorized]),
    route(Method::Post, "/v1/auth/authorize", "Authorize", Who::Users, &[R::Forbidden]),
    route(Method::Post, "/v1/auth/auth", "Auth", Who::Anybody, &[R::Unauthorized]),
    route(Method::Post, "/v1/auth/explain", "Explain", Who::Users, &[R::Forbidden]),
    route(
        Method::Post,
        "/v1/users",
        "CreateUser",
        Who::Anybody,
        &[R::UserAlreadyExists, R::UserCreateFailed, R::UserOperationForbidden, R::RateLimit],
    ),
    route(
        Method::Put,
        "/v1/users/{userID}",
        "UpdateUser",
        Who::Users,
        &[R::UserNotFound, R::UserAlreadyExists, R::UserOperationForbidden],
    ),
    route(
        Method::Delete,
        "/v1/users/{userID}",
        "DeleteUser",
        Who::Users,
        &[R::UserNotFound, R::UserOperationForbidden],
    ),
    route(Method::Get, "/v1/users/{userID}", "GetUser", Who::Users, &[R::UserNotFound, R::UserOperationForbidden]),
    route(Method::Get, "/v1/users", "ListUser", Who::Users, &[R::UserOperationForbidden]),
    route(
        Method::Put,
        "/v1/users/{userID}/update-password",
        "UpdatePassword",
        Who::Users,
        &[R::UserLoginFailed, R::UserNotFound, R::UserOperationForbidden, R::RateLimit],
    ),
    route(
        Method::Post,
        "/v1/secrets",
        "CreateSecret",
        Who::Users,
        &[R::SecretAlreadyExists, R::SecretReachMaxCount, R::SecretCreateFailed],
    ),
    route(Method::Put, "/v1/secrets/{name}", "UpdateSecret", Who::Users, &[R::SecretNotFound]),
    route(Method::Delete, "/v1/secrets/{name}", "DeleteSecret", Who::Users, &[R::SecretNotFound]),
    route(Method::Get, "/v1/secrets/{name}", "GetSecret", Who::Users, &[R::SecretNotFound]),
    route(Method::Get, "/v1/secrets", "ListSecret", Who::Users, &[]),
    route(
        Method::Post,
        "/v1/policies",
        "CreatePolicy",
        Who::Users,
        &[R::Forbidden, R::PolicyAlreadyExists, R::PolicyLocksOut],
    ),
    route(
        Method::Delete,
        "/v1/policies/{policyID}",
        "DeletePolicy",
        Who::Users,
        &[R::Forbidden, R::PolicyNotFound, R::PolicyLocksOut],
    ),
    route(Method::Get, "/v1/policies", "ListPolicy", Who::Users, &[R::Forbidden]),
];

const OBJECT: &[R] = &[R::Forbidden, R::NotFound];
const WRITE: &[R] = &[R::Forbidden, R::NotFound, R::Conflict];
const CREATE: &[R] = &[R::Forbidden, R::Conflict, R::IdempotentMissingToken, R::IdempotentTokenExpired];

const GATEWAY: &[Route] = &[
    route(Method::Get, "/version", "GetVersion", Who::Users, &[R::Forbidden]),
    route(Method::Get, "/v1/idempotents", "GetIdempotentToken", Who::Users, &[R::Forbidden]),
    route(Method::Post, "/v1/minersets", "CreateMinerSet", Who::Users, CREATE),
    route(Method::Put, "/v1/minersets", "UpdateMinerSet", Who::Users, WRITE),
    route(Method::Delete, "/v1/minersets/{name}", "DeleteMinerSet", Who::Users, OBJECT),
    route(Method::Get, "/v1/minersets/{name}", "GetMinerSet", Who::Users, OBJECT),
    route(Method::Get, "/v1/minersets", "ListMinerSet", Who::Users, &[R::Forbidden]),
    route(Method::Put, "/v1/minersets/{name}/scale", "ScaleMinerSet", Who::Users, WRITE),
    route(Method::Post, "/v1/miners", "CreateMiner", Who::Users, CREATE),
    route(Method::Put, "/v1/miners", "UpdateMiner", Who::Users, WRITE),
    route(Method::Delete, "/v1/miners/{name}", "DeleteMiner", Who::Users, OBJECT),
    route(Method::Get, "/v1/miners/{name}", "GetMiner", Who::Users, OBJECT),
    route(Method::Get, "/v1/miners", "ListMiner", Who::Users, &[R::Forbidden]),
    route(Method::Post, "/v1/chains", "CreateChain", Who::Users, CREATE),
    route(Method::Put, "/v1/chains", "UpdateChain", Who::Users, WRITE),
    route(Method::Delete, "/v1/chains/{name}", "DeleteChain", Who::Users, OBJECT),
    route(Method::Get, "/v1/chains/{name}", "GetChain", Who::Users, OBJECT),
    route(Method::Get, "/v1/chains", "ListChain", Who::Users, &[R::Forbidden]),
];

const fn route(
    method: Method,
    path: &'static str,
    rpc: &'static str,
    who: Who,
    reasons: &'static [crate::Reason],
) -> Route {
    Route { method, path, rpc, who, reasons }
}

/// The REST calls of the usercenter.
#[must_use]
pub fn usercenter_routes() -> &'static [Route] {
    USERCENTER
}

/// The REST calls of the gateway.
#[must_use]
pub fn gateway_routes() -> &'static [Route] {
    GATEWAY
}

/// The REST calls of `service`, by its full name in the `.proto` files.
#[must_use]
pub fn routes(service: &str) -> &'static [Route] {
    match service {
        "usercenter.v1.UserCenter" => USERCENTER,
        "gateway.v1.Gateway" => GATEWAY,
        _ => &[],
    }
}
