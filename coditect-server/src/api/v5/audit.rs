//! The audit log of a tenant: readable by its owners, written only by the server.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use coditect_store::{
    Event,
    model::{AuditEntry, Role, UserId},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    extract::caller,
    http::{HandlerResult, Query, Request, problem::Problem, respond},
    openapi::{self, Operation},
    state::App,
};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AuditEntry")]
struct EntryView<'a> {
    actor: Option<UserId>,
    action: &'a str,
    target: Option<&'a str>,
    details: &'a Value,
    /// Address of the client; null if unknown (then `details.nearest_hop` is the address of the
    /// proxy), or for an action of the operator.
    ip: Option<&'a str>,
    #[serde(serialize_with = "respond::time")]
    at: DateTime<Utc>,
}

/// Describes the operations of the audit log for the OpenAPI document.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        Operation::get("/api/v5/audit", "listAuditEntries", "List the audit log, newest first")
            .query("actor", openapi::id(), "Only entries of this user.")
            .query("action", json!({"type": "string"}), "Only entries with this action.")
            .query("since", openapi::time(), "Only entries at or after this time.")
            .query("until", openapi::time(), "Only entries before this time.")
            .page::<EntryView<'static>>(),
    ]
}

/// Handles `GET /audit`: newest first, filtered by `actor`, `action`, `since` and `until`.
pub(crate) async fn list(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let query = Query::of(&request)?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let (actor, action) = (query.parsed::<UserId>("actor")?, query.value("action"));
    let (since, until) = (query.time("since")?, query.time("until")?);
    let page = caller::transact(&app, &caller, |tx, identity| {
        let cursor = cursor.as_ref();
        async move {
            identity.require_role(Role::Owner)?;
            let tenant = identity.tenant_id;
            let entries = match (actor, action) {
                (Some(actor), _) => tx.scan_events(&AuditEntry::BY_ACTOR, tenant, actor),
                (None, Some(action)) => {
                    tx.scan_events(&AuditEntry::BY_ACTION, tenant, action.to_owned())
                }
                (None, None) => tx.events::<AuditEntry>(tenant, (), ..),
            };
            let filter = format!("{action:?} {since:?} {until:?}");
            let page = entries
                .rev()
                .filter(filter, |Event { record: entry, .. }| {
                    action.is_none_or(|action| entry.action == action)
                        && since.is_none_or(|since| entry.at >= since)
                        && until.is_none_or(|until| entry.at < until)
                })
                .page(limit, cursor)
                .await;
            page.map_err(Problem::of_page)
        }
    })
    .await?;
    respond::page_of(&page, |event| EntryView::from(&event.record))
}

impl<'a> From<&'a AuditEntry> for EntryView<'a> {
    fn from(entry: &'a AuditEntry) -> Self {
        let AuditEntry { actor, action, target, details, ip, at, .. } = entry;
        let (target, ip) = (target.as_deref(), ip.as_deref());
        Self { actor: *actor, action, target, details: &details.0, ip, at: *at }
    }
}
