//! Who may be called what: two kinds of a group may not share a name.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{list, status::Condition, text};
use crate::kinds::Kind;

/// The names of a group that others have.
#[derive(Default)]
pub(super) struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    /// Adds the names of a kind that is compiled in.
    pub(super) fn add_kind(&mut self, kind: &Kind) {
        self.resources.extend([kind.plural.clone(), kind.singular.clone()]);
        self.resources.extend(kind.short_names.iter().cloned());
        self.kinds.extend([kind.kind.clone(), kind.list_kind.clone()]);
    }

    /// Adds the names that another definition was given.
    pub(super) fn add(&mut self, accepted: &Value) {
        let named = |name: &str| Some(text(accepted, name).to_owned()).filter(|name| !name.is_empty());
        self.resources.extend(["plural", "singular"].into_iter().filter_map(named));
        self.resources.extend(list(accepted, "shortNames").iter().filter_map(Value::as_str).map(str::to_owned));
        self.kinds.extend(["kind", "listKind"].into_iter().filter_map(named));
    }
}

/// Judges the names that a definition asks for. Answers those that it is given, and the condition that says so.
pub(super) fn judge(crd: &Value, taken: &Taken) -> (Value, Condition) {
    let (wanted, has) = (&crd["spec"]["names"], &crd["status"]["acceptedNames"]);
    let mut accepted = has.as_object().cloned().unwrap_or_else(Map::new);
    let mut refused: Option<(&'static str, String)> = None;
    let singles = [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ];
    for (field, reason, others) in singles {
        let name = text(wanted, field);
        if name != text(has, field) && others.contains(name) {
            refused = Some((reason, in_use(name)));
        } else {
            put(&mut accepted, field, &wanted[field]);
        }
        if field == "singular" {
            let clashes: Vec<String> = list(wanted, "shortNames")
                .iter()
                .filter(|name| !list(has, "shortNames").contains(name))
                .filter_map(Value::as_str)
                .filter(|name| taken.resources.contains(*name))
                .map(in_use)
                .collect();
            match clashes.as_slice() {
                [] => put(&mut accepted, "shortNames", &wanted["shortNames"]),
                [one] => refused = Some(("ShortNamesConflict", one.clone())),
                many => refused = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
            }
        }
    }
    put(&mut accepted, "categories", &wanted["categories"]);
    let condition = match refused {
        Some((reason, message)) => Condition::new("NamesAccepted", false, reason, message),
        None => Condition::new("NamesAccepted", true, "NoConflicts", "no conflicts found"),
    };
    (Value::Object(accepted), condition)
}

fn in_use(name: &str) -> String {
    format!("{name:?} is already in use")
}

fn put(names: &mut Map<String, Value>, field: &str, wanted: &Value) {
    if wanted.is_null() {
        names.remove(field);
    } else {
        names.insert(field.to_owned(), wanted.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn crd(names: Value, accepted: Value) -> Value {
        json!({"spec": {"names": names}, "status": {"acceptedNames": accepted}})
    }

    fn names() -> Value {
        json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList", "shortNames": ["th"]})
    }

    #[test]
    fn names_that_nobody_has_are_given() {
        let (accepted, condition) = judge(&crd(names(), json!({"plural": "", "kind": ""})), &Taken::default());
        assert_eq!(accepted, names());
        assert!(condition.holds && condition.reason == "NoConflicts");
    }

    #[test]
    fn a_name_that_another_has_is_refused_and_the_others_are_given() {
        let cases = [
            (json!({"plural": "things"}), "plural", "PluralConflict", "\"things\" is already in use"),
            (json!({"singular": "thing"}), "singular", "SingularConflict", "\"thing\" is already in use"),
            (json!({"shortNames": ["th"]}), "shortNames", "ShortNamesConflict", "\"th\" is already in use"),
            (json!({"kind": "Thing"}), "kind", "KindConflict", "\"Thing\" is already in use"),
            (json!({"listKind": "ThingList"}), "listKind", "ListKindConflict", "\"ThingList\" is already in use"),
        ];
        for (other, field, reason, message) in cases {
            let mut taken = Taken::default();
            taken.add(&other);
            let (accepted, condition) = judge(&crd(names(), json!({})), &taken);
            assert_eq!((condition.holds, condition.reason, condition.message.as_str()), (false, reason, message));
            assert_eq!(accepted.as_object().unwrap().len(), 4, "{accepted}");
            assert!(accepted[field].is_null(), "{accepted}");
            // What it had before, it keeps.
            let (kept, condition) = judge(&crd(names(), names()), &taken);
            assert!(condition.holds && kept == names());
        }
    }
}
