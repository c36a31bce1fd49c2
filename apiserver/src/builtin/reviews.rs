//! Questions that are answered and not kept: who may do what, and who is who.

use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, TokenReview},
    authorization::v1::{
        LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
    },
};

use super::kubernetes;
use crate::kinds::{Kind, Review};

/// The kinds of `authentication.k8s.io` and `authorization.k8s.io`.
pub fn kinds() -> Vec<Kind> {
    vec![
        question(kubernetes::<TokenReview>("tokenreviews", &[]), Review::Token),
        question(kubernetes::<SelfSubjectReview>("selfsubjectreviews", &[]), Review::SelfSubject),
        question(kubernetes::<LocalSubjectAccessReview>("localsubjectaccessreviews", &[]), Review::LocalSubjectAccess),
        question(kubernetes::<SelfSubjectAccessReview>("selfsubjectaccessreviews", &[]), Review::SelfSubjectAccess),
        question(kubernetes::<SelfSubjectRulesReview>("selfsubjectrulesreviews", &[]), Review::SelfSubjectRules),
        question(kubernetes::<SubjectAccessReview>("subjectaccessreviews", &[]), Review::SubjectAccess),
    ]
}

fn question(mut kind: Kind, review: Review) -> Kind {
    kind.namespaced = matches!(review, Review::LocalSubjectAccess);
    kind.review = Some(review);
    kind
}
