//! How a call fails, whichever wire it came on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::rules::Violation;
use crate::text::{self, Language};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $text:literal $code:literal,)*) => {
        /// What went wrong, as programs tell situations apart. Each has one HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name on the wire.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The HTTP status.
            #[must_use]
            pub fn code(self) -> u16 {
                match self { $(Self::$name => $code),* }
            }
        }
    };
}

reasons! {
    /// Name and password do not belong together; which of them is wrong is not said.
    UserLoginFailed "UserLoginFailed" 401,
    /// The name of a user is taken.
    UserAlreadyExists "UserAlreadyExists" 409,
    /// There is no such user.
    UserNotFound "UserNotFound" 404,
    /// A user could not be made.
    UserCreateFailed "UserCreateFailed" 500,
    /// The caller may not do this to this user.
    UserOperationForbidden "UserOperationForbidden" 403,
    /// The caller has as many key pairs as one may have.
    SecretReachMaxCount "SecretReachMaxCount" 400,
    /// There is no such key pair.
    SecretNotFound "SecretNotFound" 404,
    /// The name of a key pair is taken.
    SecretAlreadyExists "SecretAlreadyExists" 409,
    /// A key pair could not be made.
    SecretCreateFailed "SecretCreateFailed" 500,
    /// There is no such policy.
    PolicyNotFound "PolicyNotFound" 404,
    /// There is such a policy already.
    PolicyAlreadyExists "PolicyAlreadyExists" 409,
    /// Nobody could manage policies any more.
    PolicyLocksOut "PolicyLocksOut" 409,
    /// A field breaks its rules.
    InvalidParameter "InvalidParameter" 400,
    /// The body or a parameter cannot be read.
    Codec "CODEC" 400,
    /// Who asks did not show who they are, or not so that it is believed.
    Unauthorized "Unauthorized" 401,
    /// Who asks may not do this.
    Forbidden "Forbidden" 403,
    /// There is no such thing.
    NotFound "NotFound" 404,
    /// There is no such page.
    PageNotFound "PageNotFound" 404,
    /// The page takes other methods.
    MethodNotAllowed "MethodNotAllowed" 405,
    /// Something else changed the object meanwhile.
    Conflict "Conflict" 409,
    /// The body is longer than is taken.
    TooLarge "TooLarge" 413,
    /// Too many requests, or too many failed logins.
    RateLimit "RATELIMIT" 429,
    /// The request takes an idempotency token, and has none.
    IdempotentMissingToken "IdempotentMissingToken" 400,
    /// The idempotency token is unknown or used up.
    IdempotentTokenExpired "IdempotentTokenExpired" 400,
    /// A bug.
    Unknown "Unknown" 500,
    /// Something that is needed cannot be reached; later it may be.
    Unavailable "Unavailable" 503,
    /// It took too long.
    Timeout "Timeout" 504,
}

/// A failed call: a reason for programs, and a text for people in the language they ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub reason: Reason,
    /// What is said about it.
    text: &'static str,
    arguments: Vec<String>,
    violations: Vec<Violation>,
    metadata: BTreeMap<String, String>,
}

/// An error as REST tells it. All four fields are always there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The HTTP status.
    pub code: u16,
    /// The name of the [`Reason`].
    pub reason: String,
    /// What happened, for people.
    pub message: String,
    /// More about it: for [`Reason::InvalidParameter`] each field with what is wrong with it.
    pub metadata: BTreeMap<String, String>,
}

impl Error {
    /// An error whose text is the one named `text`.
    ///
    /// # Panics
    /// In tests, when there is no such text.
    #[must_use]
    pub fn new(reason: Reason, text: &'static str) -> Self {
        debug_assert!(text::exists(text), "there is no text named {text:?}");
        Self { reason, text, arguments: Vec::new(), violations: Vec::new(), metadata: BTreeMap::new() }
    }

    /// All rules that a message breaks.
    #[must_use]
    pub fn invalid(violations: Vec<Violation>) -> Self {
        Self { violations, ..Self::new(Reason::InvalidParameter, "parameter.invalid") }
    }

    /// Fills the next gap of the text.
    #[must_use]
    pub fn with(mut self, argument: impl ToString) -> Self {
        self.arguments.push(argument.to_string());
        self
    }

    /// Adds something for programs.
    #[must_use]
    pub fn and(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// What programs are told besides the reason.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The error in `language`.
    #[must_use]
    pub fn body(&self, language: Language) -> Body {
        let mut metadata = self.metadata.clone();
        let mut message = text::fill(self.text, language, &self.arguments);
        for (place, violation) in self.violations.iter().enumerate() {
            let what = violation.text(language);
            message.push_str(if place == 0 { ": " } else { "; " });
            message.push_str(&violation.field);
            message.push(' ');
            message.push_str(&what);
            metadata
                .entry(violation.field.clone())
                .and_modify(|told| {
                    told.push_str("; ");
                    told.push_str(&what);
                })
                .or_insert(what);
        }
        Body { code: self.reason.code(), reason: self.reason.name().to_owned(), message, metadata }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.body(Language::English).message)
    }
}

impl std::error::Error for Error {}
