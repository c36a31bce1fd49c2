//! node.k8s.io: RuntimeClasses.

use k8s_openapi::api::node::v1::RuntimeClass;
use onex_crds::Invalid;
use serde_json::Value;

use super::{kubernetes, refuse, refuse_change, text};
use crate::{
    kinds::{Hooks, Kind},
    meta,
    table::{age_column, column, name_column, path},
};

/// RuntimeClasses.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<RuntimeClass>("runtimeclasses", &[]);
    kind.namespaced = false;
    kind.create_on_update = true;
    kind.unconditional_update = false;
    kind.columns =
        vec![name_column(), column("Handler", "string", "What runs the containers.", path(".handler")), age_column()];
    kind.hooks = Hooks { check, ..Hooks::default() };
    kind
}

fn check(class: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let handler = text(class, "handler");
    refuse("handler", handler, meta::dns_label(handler), &mut wrong);
    meta::check_labels(&class["scheduling"]["nodeSelector"], "scheduling.nodeSelector", &mut wrong);
    if let Some(old) = old {
        refuse_change("handler", &class["handler"], &old["handler"], &mut wrong);
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_handler_is_a_label_and_stays() {
        assert!(check(&json!({"handler": "runc"}), None).is_empty());
        assert_eq!(check(&json!({"handler": "a/b"}), None).len(), 1);
        assert_eq!(check(&json!({"handler": "b"}), Some(&json!({"handler": "a"}))).len(), 1);
    }
}
