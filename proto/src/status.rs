//! Errors on gRPC: the code, and the reason with its metadata in an `ErrorInfo`.

use std::collections::HashMap;

use prost::Message as _;
use tonic::{Code, Status};

use crate::error::{Body, Error};
use crate::text::Language;

/// `google.rpc.Status`, as it travels in the trailer `grpc-status-details-bin`.
#[derive(Clone, PartialEq, prost::Message)]
struct Details {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: HashMap<String, String>,
}

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// The gRPC code for an HTTP status, as OneX maps them.
fn code(http: u16) -> Code {
    match http {
        400 | 413 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::Aborted,
        429 => Code::ResourceExhausted,
        405 | 501 => Code::Unimplemented,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        500 => Code::Internal,
        _ => Code::Unknown,
    }
}

impl Error {
    /// The error as gRPC tells it, in `language`.
    #[must_use]
    pub fn status(&self, language: Language) -> Status {
        let Body { code: http, reason, message, metadata } = self.body(language);
        let code = code(http);
        let info = ErrorInfo { reason, domain: String::new(), metadata: metadata.into_iter().collect() };
        let any = prost_types::Any { type_url: ERROR_INFO.to_owned(), value: info.encode_to_vec() };
        let details = Details { code: code as i32, message: message.clone(), details: vec![any] };
        Status::with_details(code, message, details.encode_to_vec().into())
    }
}

impl Body {
    /// What a gRPC status says, if one of our services said it: a client sees the same error on either wire.
    #[must_use]
    pub fn of_status(status: &Status) -> Option<Self> {
        let details = Details::decode(status.details()).ok()?;
        let any = details.details.iter().find(|any| any.type_url == ERROR_INFO)?;
        let info = ErrorInfo::decode(any.value.as_slice()).ok()?;
        let code = crate::Reason::ALL.iter().find(|reason| reason.name() == info.reason).map_or(500, |r| r.code());
        Some(Self {
            code,
            reason: info.reason,
            message: status.message().to_owned(),
            metadata: info.metadata.into_iter().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    #[test]
    fn every_reason_comes_through_grpc_as_it_is_told_over_rest() {
        for &reason in Reason::ALL {
            let error = Error::new(reason, "internal").and("key", "value");
            let status = error.status(Language::Chinese);
            assert_ne!(status.code(), Code::Unknown, "{reason:?}");
            assert_eq!(Body::of_status(&status), Some(error.body(Language::Chinese)), "{reason:?}");
        }
    }
}
