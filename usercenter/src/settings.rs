//! What can be set of the usercenter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{password, throttle};

/// What can be set of the usercenter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where it takes REST calls. Port 0 takes a free one.
    pub listen: String,
    /// Where it takes gRPC calls. Port 0 takes a free one.
    pub grpc_listen: String,
    /// The file with the key from which those are made that sign tokens and hide the keys of key pairs. It is made if it is
    /// missing; all usercenters over one database need the same. Empty: in the data directory.
    pub key_file: String,
    /// Whether everybody may register, or administrators only.
    pub registration: bool,
    /// How long an access token is good, in seconds.
    pub access_seconds: u32,
    /// How long a refresh token is good, in seconds. A session ends when its last one does.
    pub refresh_seconds: u32,
    /// How far in the future the end of a token may be that was signed with a key pair, in seconds. 0: as far as one likes.
    pub self_signed_seconds: u32,
    /// By how many seconds the clock of whoever signs a token may be ahead.
    pub leeway_seconds: u32,
    /// How many key pairs a user may have.
    pub secrets_per_user: u16,
    /// How many sessions a user may have. The oldest ends when one more begins.
    pub sessions_per_user: u16,
    /// How many rows a list has, if its caller does not say.
    pub page: u16,
    /// How hard passwords are to guess for whoever steals their hashes.
    pub password: password::Settings,
    /// How often somebody may try to log in, or to register.
    pub throttle: throttle::Settings,
    /// Calls that are worked on at the same time. More are answered 429.
    pub calls_in_flight: u32,
    /// A call is answered 504 after so many seconds.
    pub call_seconds: u32,
    /// The longest body of a request, in bytes.
    pub body_bytes: u32,
    /// How many keys and sessions are remembered, so that their tokens are verified without asking the database.
    pub remembered: u32,
    /// Every so many milliseconds a shared database is asked whether another usercenter changed something. 0: never.
    pub follow_milliseconds: u32,
    /// Whether decisions are recorded in the platform's audit log. A decision that cannot be recorded is not told.
    pub audit: bool,
    /// Whether /openapi shows what calls there are, and a page to try them.
    pub openapi: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:50843".to_owned(),
            grpc_listen: "127.0.0.1:50090".to_owned(),
            key_file: String::new(),
            registration: true,
            access_seconds: 2 * 60 * 60,
            refresh_seconds: 24 * 60 * 60,
            self_signed_seconds: 0,
            leeway_seconds: 5,
            secrets_per_user: 10,
            sessions_per_user: 32,
            page: 20,
            password: password::Settings::default(),
            throttle: throttle::Settings::default(),
            calls_in_flight: 1024,
            call_seconds: 30,
            body_bytes: 64 * 1024,
            remembered: 10_000,
            follow_milliseconds: 100,
            audit: false,
            openapi: true,
        }
    }
}
