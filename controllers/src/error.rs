//! What stops a pass of a controller. The pass is tried again, later each time.

use std::time::Duration;

/// Why a pass could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The apiserver, or the cluster of the Pods, did not do what was asked.
    #[error("could not {doing}")]
    Refused {
        /// What was being done, as in "create the Pod".
        doing: &'static str,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// Whoever was asked did not answer for so long that it is not worth waiting any longer.
    #[error("could not {doing} in time")]
    Late {
        /// What was being done.
        doing: &'static str,
    },
    /// The object cannot be made, because somebody else's has its name.
    #[error("could not {doing}, because its name is taken: {by}")]
    Taken {
        /// What was being done.
        doing: &'static str,
        /// Whose it is.
        by: String,
    },
    /// Somebody else wrote the object first, or made it, or it is gone; a fresh look will tell.
    #[error("could not {doing}, because what was seen has changed")]
    Stale {
        /// What was being done.
        doing: &'static str,
    },
    /// The object has no name or namespace, which the apiserver does not allow.
    #[error("an object has no {0}")]
    Incomplete(&'static str),
    /// The controller has a bug. It goes on with other objects.
    #[error("the pass panicked: {0}")]
    Panicked(String),
}

/// The result of a step.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Says what was being done when the apiserver answered with an error; a conflict is [`Error::Stale`].
    pub fn doing(doing: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| match &source {
            kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => Self::Stale { doing },
            _ => Self::Refused { doing, source: Box::new(source) },
        }
    }

    /// The same for a change of what was seen a moment ago: that it is gone is [`Error::Stale`], too.
    pub fn changing(doing: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| if is_gone(&source) { Self::Stale { doing } } else { Self::doing(doing)(source) }
    }

    /// Whether a fresh look will tell, so that nobody needs to hear of it.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }

    /// The whole story in one line: what was being done, and every cause.
    pub fn story(&self) -> String {
        match self {
            Self::Refused { source, .. } => format!("{self}: {}", words(source)),
            other => other.to_string(),
        }
    }
}

/// An error of a client, as people should read it: of an answer of the apiserver only the sentence is for them.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => chain_of(error),
    }
}

/// An error and every cause of it in one line.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The outcome of `work`, or [`Error::Late`] if there is none yet after `limit`.
pub(crate) async fn in_time<T>(
    limit: Duration,
    doing: &'static str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Error::Late { doing }))
}

/// Whether the apiserver said that the object is not there.
pub(crate) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// The same answer, for whom it is as good that the object is not there.
pub(crate) fn ignore_gone(answer: kube::Result<()>) -> kube::Result<()> {
    match answer {
        Err(error) if is_gone(&error) => Ok(()),
        answer => answer,
    }
}

/// Whether the apiserver said that the name is taken.
pub(crate) fn is_taken(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_of_a_refusal_is_what_the_apiserver_said() {
        let status = kube::core::Status::failure("the quota is used up", "Forbidden").with_code(403);
        let error = Error::doing("create the Pod")(kube::Error::Api(Box::new(status)));
        assert_eq!(error.story(), "could not create the Pod: the quota is used up");
    }

    #[test]
    fn what_changed_since_it_was_seen_is_stale_and_so_is_what_went_before_it_was_changed() {
        for (reason, doing, changing) in [
            ("Conflict", true, true),
            ("AlreadyExists", true, true),
            ("NotFound", false, true),
            ("Forbidden", false, false),
        ] {
            let answer = || kube::Error::Api(Box::new(kube::core::Status::failure("", reason)));
            assert_eq!(Error::doing("")(answer()).is_stale(), doing, "{reason}");
            assert_eq!(Error::changing("")(answer()).is_stale(), changing, "{reason}");
        }
    }
}
