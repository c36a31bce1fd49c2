//! The contract of the services: messages, errors, rules and routes, once for REST and gRPC.
//!
//! The `.proto` files under `proto/` name everything as OneX does. [`usercenter`] and [`gateway`] hold what is generated from them, with the
//! JSON form that protobuf prescribes (`int64` as text, what is zero left out, unknown fields refused). [`Error`] is how every
//! call fails, on either wire; [`Rules`] is what a message must keep to; [`routes`] says where REST finds each call;
//! [`openapi`] describes all of it; [`token`] is how people and programs show who they are. No I/O.

mod error;
pub mod openapi;
mod routes;
mod rules;
mod status;
mod text;
mod timestamp;
pub mod token;

pub use error::{Body, Error, Reason};
pub use routes::{Method, Route, Who, gateway_routes, routes, usercenter_routes};
pub use rules::{Check, Rule, Rules, Value, Violation, constraints};
pub use text::Language;
pub use timestamp::Timestamp;

/// Every `.proto` file with its comments, as a `FileDescriptorSet`: for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `usercenter.v1`: users, key pairs, sessions and policies.
#[allow(missing_docs, clippy::all)]
pub mod usercenter {
    include!(concat!(env!("OUT_DIR"), "/usercenter.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/usercenter.v1.serde.rs"));
}

/// Packages that refer to each other, and so stand as protobuf nests them.
#[allow(missing_docs, clippy::all)]
mod packages {
    pub mod gateway {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/gateway.v1.rs"));
            include!(concat!(env!("OUT_DIR"), "/gateway.v1.serde.rs"));
        }
    }
    pub mod apps {
        pub mod v1beta1 {
            include!(concat!(env!("OUT_DIR"), "/apps.v1beta1.rs"));
        }
    }
}

/// `apps.v1beta1`: Chains, MinerSets and Miners, in the JSON of the apiserver: what is not known here is left out.
pub use packages::apps::v1beta1 as apps;
/// `gateway.v1`: what programs ask for.
pub use packages::gateway::v1 as gateway;

/// What Kubernetes leaves out of JSON.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
