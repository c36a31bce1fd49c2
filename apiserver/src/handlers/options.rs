//! The options that come in the query, checked as Kubernetes checks them.

use onex_crds::Invalid;

use super::Context;
use crate::{
    registry::{Asked, Options},
    request::is_true,
    status::{Result, Status},
};

/// What happens to fields that are unknown or written twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validation {
    Ignore,
    Warn,
    Strict,
}

impl Validation {
    /// Answers the complaints that are warnings, or an error of them all as one text.
    pub(super) fn judge(self, complaints: Vec<String>) -> Result<Vec<String>, String> {
        match self {
            Self::Strict if !complaints.is_empty() => Err(complaints.join(", ")),
            Self::Warn => Ok(complaints),
            _ => Ok(Vec::new()),
        }
    }
}

/// Options of POST, PUT and PATCH.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) options: Options,
    pub(crate) validation: Validation,
    pub(crate) force: Option<bool>,
    /// The client named its field manager.
    pub(crate) named: bool,
}

impl Context {
    /// Reads the options of a write. `kind` is the name of the options in errors: `CreateOptions`.
    pub(super) fn write_options(&self, kind: &str) -> Result<Write> {
        let mut wrong = Vec::new();
        let manager = self.manager(&mut wrong);
        let dry_run = self.dry_run(&mut wrong);
        let (validation, asked) = match self.parameter("fieldValidation").as_deref() {
            None | Some("") => (Validation::Warn, ""),
            Some("Warn") => (Validation::Warn, "Warn"),
            Some("Ignore") => (Validation::Ignore, "Ignore"),
            Some("Strict") => (Validation::Strict, "Strict"),
            Some(other) => {
                wrong.push(Invalid::not_supported("fieldValidation", other, &["", "Ignore", "Strict", "Warn"]));
                (Validation::Warn, "")
            }
        };
        let force = self.parameter("force").map(|f| is_true(&f));
        if !wrong.is_empty() {
            return Err(Status::invalid("meta.k8s.io", kind, "", &wrong));
        }
        let named = !manager.is_empty();
        let manager = if named { manager } else { self.agent() };
        let asked = Asked { patch: kind == "PatchOptions", named, validation: asked, force };
        let notes = self.notes().clone();
        let options = Options { dry_run, manager, user: self.user.clone(), tracked: false, asked, notes };
        Ok(Write { options, validation, force, named })
    }

    /// `fieldManager`; empty if the client names none.
    fn manager(&self, wrong: &mut Vec<Invalid>) -> String {
        let manager = self.parameter("fieldManager").unwrap_or_default();
        if manager.len() > 128 {
            wrong.push(Invalid { field: "fieldManager".to_owned(), problem: onex_crds::Problem::TooLong(128) });
        }
        if manager.chars().any(|c| c.is_control()) {
            wrong.push(Invalid::value("fieldManager", manager.clone(), "should only contain printable characters"));
        }
        manager
    }

    /// `dryRun`, which is `All` or nothing.
    pub(super) fn dry_run(&self, wrong: &mut Vec<Invalid>) -> bool {
        let asked: Vec<String> = self.parameters("dryRun").collect();
        if asked.iter().any(|what| what != "All") {
            wrong.push(Invalid::not_supported("dryRun", asked, &["All"]));
            return false;
        }
        !asked.is_empty()
    }

    /// The field manager of a client that names none: its user agent up to the first slash.
    fn agent(&self) -> String {
        let agent = self.header(http::header::USER_AGENT);
        let name = agent.split('/').next().unwrap_or_default();
        let name: String = name.chars().filter(|c| !c.is_control()).take(128).collect();
        if name.is_empty() { "unknown".to_owned() } else { name }
    }
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Exact,
    NotOlderThan,
}

/// Options of LIST and WATCH.
#[derive(Clone, Debug)]
pub(super) struct List {
    pub(super) limit: usize,
    pub(super) proceed: Option<String>,
    /// The revision asked for; `None` if unset, `Some(0)` for any.
    pub(super) revision: Option<u64>,
    pub(super) matching: Option<Match>,
    pub(super) bookmarks: bool,
    /// `sendInitialEvents`; `None` if unset.
    pub(super) initial_events: Option<bool>,
    pub(super) timeout_seconds: Option<u64>,
}

impl Context {
    /// Reads the options of a LIST or WATCH.
    pub(super) fn list_options(&self) -> Result<List> {
        let watch = self.target.verb == "watch";
        let truth = |name: &str| self.parameter(name).filter(|v| !v.is_empty()).map(|v| is_true(&v));
        let revision = self.revision()?;
        let matching = self.parameter("resourceVersionMatch").filter(|m| !m.is_empty());
        let proceed = self.parameter("continue").filter(|c| !c.is_empty());
        let initial = truth("sendInitialEvents");
        let wrong = list_mistakes(
            watch,
            self.parameter("resourceVersion").as_deref(),
            matching.as_deref(),
            proceed.is_some(),
            initial,
        );
        if !wrong.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "ListOptions", "", &wrong));
        }
        if proceed.is_some() && revision.is_some_and(|r| r > 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let number = |name: &str| match self.parameter(name).filter(|v| !v.is_empty()) {
            None => Ok(None),
            Some(text) => match text.parse::<i64>() {
                Ok(number) => Ok(u64::try_from(number).ok()),
                Err(_) => Err(Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
            },
        };
        Ok(List {
            limit: usize::try_from(number("limit")?.unwrap_or(0)).unwrap_or(usize::MAX),
            proceed,
            revision,
            matching: match matching.as_deref() {
                Some("Exact") => Some(Match::Exact),
                Some(_) => Some(Match::NotOlderThan),
                None => None,
            },
            bookmarks: truth("allowWatchBookmarks").unwrap_or(false),
            initial_events: initial,
            timeout_seconds: number("timeoutSeconds")?.filter(|s| *s > 0),
        })
    }

    /// `resourceVersion`: `None` if unset.
    pub(super) fn revision(&self) -> Result<Option<u64>> {
        match self.parameter("resourceVersion").filter(|v| !v.is_empty()) {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(revision) => Ok(Some(revision)),
                Err(_) => Err(Status::bad_request(format!(
                    "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
                ))),
            },
        }
    }
}

fn list_mistakes(
    watch: bool,
    revision: Option<&str>,
    matching: Option<&str>,
    proceeds: bool,
    initial: Option<bool>,
) -> Vec<Invalid> {
    let field = "resourceVersionMatch";
    let mut wrong = Vec::new();
    let unset = revision.is_none_or(str::is_empty);
    if watch {
        match (initial, matching) {
            (Some(_), Some("NotOlderThan")) | (None, None) => {}
            (Some(_), None) => {
                wrong.push(Invalid::forbidden(
                    field,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            (Some(_), Some(other)) => {
                wrong.push(Invalid::forbidden(
                    field,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
                wrong.push(Invalid::not_supported(field, other, &["NotOlderThan"]));
            }
            (None, Some(_)) => {
                wrong.push(Invalid::forbidden(
                    field,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
        }
        return wrong;
    }
    if initial.is_some() {
        wrong.push(Invalid::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    match matching {
        None => {}
        Some(_) if proceeds => {
            if unset {
                wrong.push(Invalid::forbidden(
                    field,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            wrong.push(Invalid::forbidden(field, "resourceVersionMatch is forbidden when continue is provided"))
        }
        Some(_) if unset => wrong
            .push(Invalid::forbidden(field, "resourceVersionMatch is forbidden unless resourceVersion is provided")),
        Some("Exact") if revision == Some("0") => {
            wrong.push(Invalid::forbidden(
                field,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
        Some("Exact" | "NotOlderThan") => {}
        Some(other) => wrong.push(Invalid::not_supported(field, other, &["Exact", "NotOlderThan", ""])),
    }
    wrong
}
