//! Nodes: where Pods run.

use k8s_openapi::api::core::v1::Node;

use super::{columns, kubernetes, selectable};
use crate::kinds::Kind;

/// Nodes. They are stored as `minions`, which is what Kubernetes called them when it began.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<Node>("nodes", &["no"]);
    kind.prefix = "/registry/minions/".to_owned();
    kind.namespaced = false;
    kind.status = true;
    kind.labels_by_status = true;
    kind.status_on_create = true;
    kind.columns = columns::node();
    kind.selectable = selectable(&["spec.unschedulable"]);
    kind
}
