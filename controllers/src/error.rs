//! What stops a pass of a controller. The pass is tried again, later each time.

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
    /// Somebody else wrote the object first, or the name is taken; a fresh look will tell.
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

    /// The whole story in one line: what was being done, and every cause.
    pub fn story(&self) -> String {
        let mut story = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            // Of an answer of the apiserver only the sentence is for people.
            match error.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref) {
                Some(kube::Error::Api(status)) => return format!("{story}: {}", status.message),
                _ => story = format!("{story}: {error}"),
            }
            cause = error.source();
        }
        story
    }
}

/// Whether the apiserver said that the object is not there.
pub(crate) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
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
}
