//! The same over gRPC: the same messages, the same errors.

use axum::body::Body;
use axum::http::Request as HttpRequest;
use futures::StreamExt as _;
use onex_daemon::listener::{Draining, Peer};
use onex_proto::Body as ErrorBody;
use onex_proto::usercenter as v1;
use onex_proto::usercenter::user_center_client::UserCenterClient;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use tower::ServiceExt as _;

use crate::world::{PASSWORD, World};

type Client = UserCenterClient<
    tower::util::BoxCloneService<HttpRequest<tonic::body::Body>, axum::response::Response, std::convert::Infallible>,
>;

async fn client(world: &World, draining: &CancellationToken) -> Client {
    let (router, draining) = (world.center.grpc().await, draining.clone());
    let service = router.map_request(move |mut request: HttpRequest<tonic::body::Body>| {
        request.extensions_mut().insert(Peer::new("192.0.2.2:1".parse().unwrap(), &[]));
        request.extensions_mut().insert(Draining(draining.clone()));
        request.map(Body::new)
    });
    UserCenterClient::new(tower::util::BoxCloneService::new(service))
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[track_caller]
fn fails<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, reason: &str) -> ErrorBody {
    let status = outcome.unwrap_err();
    let body = ErrorBody::of_status(&status).unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!((status.code(), body.reason.as_str()), (code, reason));
    body
}

#[tokio::test]
async fn the_walk_of_a_user_is_the_same_as_over_rest() {
    let world = World::new().await;
    let mut client = client(&world, &CancellationToken::new()).await;
    let user = v1::CreateUserRequest { username: "alice".into(), password: PASSWORD.into(), ..Default::default() };
    let id = client.create_user(user.clone()).await.unwrap().into_inner().user_id;
    fails(client.create_user(user).await, Code::Aborted, "UserAlreadyExists");
    let login = v1::LoginRequest { username: "alice".into(), password: PASSWORD.into() };
    let tokens = client.login(login.clone()).await.unwrap().into_inner();
    let access = tokens.access_token;
    let wrong = v1::LoginRequest { password: "wrong horse 1".into(), ..login };
    fails(client.login(wrong).await, Code::Unauthenticated, "UserLoginFailed");
    let get = v1::GetUserRequest { user_id: id.clone() };
    let user = client.get_user(with(&access, get.clone())).await.unwrap().into_inner().user.unwrap();
    assert_eq!((user.username.as_str(), user.password.as_str()), ("alice", ""));
    fails(client.get_user(get).await, Code::Unauthenticated, "Unauthorized");
    let update = v1::UpdateUserRequest { user_id: id.clone(), nickname: Some("Ali".into()), ..Default::default() };
    client.update_user(with(&access, update)).await.unwrap();
    fails(
        client.list_user(with(&access, v1::ListUserRequest::default())).await,
        Code::PermissionDenied,
        "UserOperationForbidden",
    );
    let secret = v1::CreateSecretRequest { name: "ci".into(), ..Default::default() };
    let pair = client.create_secret(with(&access, secret)).await.unwrap().into_inner();
    let signed = world.signed(&(pair.secret_id, pair.secret_key));
    let whose = client.authenticate(v1::AuthenticateRequest { token: signed.clone() }).await.unwrap().into_inner();
    assert_eq!(whose.user_id, id);
    let auth = v1::AuthRequest { token: signed.clone(), obj: "*".into(), act: "/gateway.v1.Gateway/ListMiner".into() };
    assert!(client.auth(auth).await.unwrap().into_inner().allowed);
    let ask = v1::AuthorizeRequest { sub: id.clone(), obj: "*".into(), act: "other".into() };
    assert!(!client.authorize(with(&signed, ask)).await.unwrap().into_inner().allowed);
    let why = v1::ExplainRequest { sub: id.clone(), obj: "*".into(), act: "other".into() };
    assert_eq!(client.explain(with(&signed, why)).await.unwrap().into_inner().reason, "no policy allows it");
    let list = client.list_secret(with(&access, v1::ListSecretRequest::default())).await.unwrap().into_inner();
    assert_eq!((list.total, list.secrets[0].name.as_str()), (1, "ci"));
    let off = v1::UpdateSecretRequest { name: "ci".into(), status: Some(0), ..Default::default() };
    client.update_secret(with(&access, off)).await.unwrap();
    fails(client.authenticate(v1::AuthenticateRequest { token: signed }).await, Code::Unauthenticated, "Unauthorized");
    let name = "ci".to_owned();
    assert_eq!(
        client
            .get_secret(with(&access, v1::GetSecretRequest { name: name.clone() }))
            .await
            .unwrap()
            .into_inner()
            .secret
            .unwrap()
            .status,
        0
    );
    client.delete_secret(with(&access, v1::DeleteSecretRequest { name: name.clone() })).await.unwrap();
    fails(client.get_secret(with(&access, v1::GetSecretRequest { name })).await, Code::NotFound, "SecretNotFound");
    let renewed =
        client.refresh_token(with(&tokens.refresh_token, v1::RefreshTokenRequest {})).await.unwrap().into_inner();
    let password = v1::UpdatePasswordRequest {
        user_id: id.clone(),
        username: String::new(),
        old_password: PASSWORD.into(),
        new_password: "another horse 2".into(),
    };
    client.update_password(with(&renewed.access_token, password)).await.unwrap();
    fails(
        client.logout(with(&renewed.access_token, v1::LogoutRequest {})).await,
        Code::Unauthenticated,
        "Unauthorized",
    );
    let login = v1::LoginRequest { username: "alice".into(), password: "another horse 2".into() };
    let access = client.login(login).await.unwrap().into_inner().access_token;
    client.delete_user(with(&access, v1::DeleteUserRequest { user_id: id })).await.unwrap();
    fails(client.logout(with(&access, v1::LogoutRequest {})).await, Code::Unauthenticated, "Unauthorized");
    let admin = world.admin().await;
    let policy = v1::Policy { ptype: "g".into(), sub: "x".into(), role: "y".into(), ..Default::default() };
    let made = client.create_policy(with(&admin, v1::CreatePolicyRequest { policy: Some(policy) })).await.unwrap();
    let policy_id = made.into_inner().policy_id;
    let list = v1::ListPolicyRequest { sub: "x".into(), ..Default::default() };
    assert_eq!(client.list_policy(with(&admin, list)).await.unwrap().into_inner().policies[0].policy_id, policy_id);
    client.delete_policy(with(&admin, v1::DeletePolicyRequest { policy_id })).await.unwrap();
    fails(
        client.delete_policy(with(&admin, v1::DeletePolicyRequest { policy_id })).await,
        Code::NotFound,
        "PolicyNotFound",
    );
    assert_eq!(client.list_user(with(&admin, v1::ListUserRequest::default())).await.unwrap().into_inner().total, 1);
}

#[tokio::test]
async fn violations_are_told_at_once_and_in_chinese() {
    let world = World::new().await;
    let mut client = client(&world, &CancellationToken::new()).await;
    let mut request = Request::new(v1::CreateUserRequest { username: "a!".into(), ..Default::default() });
    request.metadata_mut().insert("accept-language", "zh".parse().unwrap());
    let body = fails(client.create_user(request).await, Code::InvalidArgument, "InvalidParameter");
    assert_eq!(body.metadata["password"], "不能为空");
    assert!(body.metadata.contains_key("username"));
}

#[tokio::test]
async fn a_watcher_learns_of_each_change_until_the_part_stops() {
    let world = World::new().await;
    let draining = CancellationToken::new();
    let mut client = client(&world, &draining).await;
    let mut revisions = client.watch_revision(v1::WatchRevisionRequest {}).await.unwrap().into_inner();
    let before = revisions.next().await.unwrap().unwrap().revision;
    world.register("alice").await;
    let after = revisions.next().await.unwrap().unwrap().revision;
    assert!(after > before);
    draining.cancel();
    assert!(revisions.next().await.is_none());
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::health_client::HealthClient;
    let world = World::new().await;
    let router = world.center.grpc().await;
    let service = router.map_request(|request: HttpRequest<tonic::body::Body>| request.map(Body::new));
    let mut health = HealthClient::new(service.clone());
    let check = tonic_health::pb::HealthCheckRequest { service: onex_usercenter::SERVICE.to_owned() };
    assert_eq!(health.check(check).await.unwrap().into_inner().status, 1);
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(service);
    let answer = reflection.server_reflection_info(futures::stream::iter([request])).await.unwrap();
    let answer = format!("{:?}", answer.into_inner().next().await.unwrap().unwrap());
    assert!(answer.contains(onex_usercenter::SERVICE), "{answer}");
}
