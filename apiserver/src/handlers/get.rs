//! GET of one object: a lookup.

use std::time::Duration;

use axum::response::Response;

use super::Context;
use crate::{
    registry::Part,
    status::{Result, Status},
};

/// How long a read waits for a revision that has not happened yet.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Answers the object.
pub(super) async fn get(cx: &Context, _part: Part) -> Result<Response> {
    let form = cx.object_form()?;
    wait_for(cx, cx.revision()?).await?;
    let item = cx.server.registry.get(&cx.kind, cx.namespace(), &cx.target.name)?;
    cx.answer(form)?.stored(&item.stored, item.revision)
}

/// Waits until the windows show `revision`, or answers that it is in the future.
pub(super) async fn wait_for(cx: &Context, revision: Option<u64>) -> Result<()> {
    let Some(revision) = revision else { return Ok(()) };
    let windows = &cx.server.windows;
    if windows.reached(revision, PATIENCE).await {
        return Ok(());
    }
    Err(Status::future_revision(revision, windows.revision()))
}
