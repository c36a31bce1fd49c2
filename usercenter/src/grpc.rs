//! The calls over gRPC, with health and reflection beside them.

use std::pin::Pin;

use axum::Router;
use onex_proto::usercenter as v1;
use onex_proto::usercenter::user_center_server::{UserCenter, UserCenterServer};
use onex_proto::{DESCRIPTORS, Error, Rules};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::call::{Call, Trace, language};
use crate::calls::calls;
use crate::{Usercenter, around};

/// The service, as tonic sees it.
#[derive(Clone)]
struct Door(Usercenter);

/// All services of the port.
pub async fn router(center: &Usercenter) -> Router {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<UserCenterServer<Door>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("both were made by the compiler of protobuf");
    let most = center.0.settings.body_bytes as usize;
    let service = UserCenterServer::new(Door(center.clone())).max_decoding_message_size(most);
    let routes = Routes::new(service).add_service(health).add_service(reflection);
    routes.into_axum_router().layer(axum::middleware::from_fn_with_state(center.clone(), around::grpc))
}

impl Door {
    async fn answer<M: Rules, A>(
        &self,
        request: Request<M>,
        function: impl AsyncFnOnce(Usercenter, Call, M) -> Result<A, Error>,
    ) -> Result<Response<A>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let headers = metadata.into_headers();
        let call = Call::of(&headers, &as_http(&extensions));
        let language = call.language;
        let violations = message.violations();
        let outcome = if violations.is_empty() {
            function(self.0.clone(), call, message).await
        } else {
            Err(Error::invalid(violations))
        };
        outcome.map(Response::new).map_err(|error| error.status(language))
    }
}

/// What was noted about the connection and the call.
fn as_http(extensions: &tonic::Extensions) -> axum::http::Extensions {
    let mut copied = axum::http::Extensions::new();
    if let Some(peer) = extensions.get::<onex_daemon::listener::Peer>() {
        copied.insert(peer.clone());
    }
    if let Some(trace) = extensions.get::<Trace>() {
        copied.insert(trace.clone());
    }
    copied
}

macro_rules! service {
    ($($rpc:ident $function:ident $request:ident $answer:ident;)*) => {
        #[tonic::async_trait]
        impl UserCenter for Door {
            $(async fn $function(&self, request: Request<v1::$request>) -> Result<Response<v1::$answer>, Status> {
                self.answer(request, async |center: Usercenter, call, message| center.$function(&call, message).await).await
            })*

            type WatchRevisionStream = Pin<Box<dyn Stream<Item = Result<v1::WatchRevisionResponse, Status>> + Send>>;

            async fn watch_revision(
                &self,
                request: Request<v1::WatchRevisionRequest>,
            ) -> Result<Response<Self::WatchRevisionStream>, Status> {
                let ending = request.extensions().get::<onex_daemon::listener::Draining>().cloned();
                let language = language(&request.metadata().clone().into_headers());
                let free = self.0.0.watchers.clone().try_acquire_owned();
                let place = free.map_err(|_| around::busy().status(language))?;
                let revisions = WatchStream::new(self.0.0.revision.subscribe());
                let revisions = revisions.map(move |revision| {
                    // Held for as long as somebody watches.
                    let _place = &place;
                    Ok(v1::WatchRevisionResponse { revision })
                });
                // It has no end of its own, so it ends when the part stops.
                let end = async move {
                    match ending {
                        Some(ending) => ending.0.cancelled().await,
                        None => std::future::pending().await,
                    }
                };
                Ok(Response::new(Box::pin(futures::StreamExt::take_until(revisions, Box::pin(end)))))
            }
        }
    };
}

calls!(service);
