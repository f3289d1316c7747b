//! What was done in the tenant: for its owner to read, and for nobody to change.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use coditect_store::model::{AuditEntry, Role, UserId};
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
    /// The client's address; null if it is unknown (then `details.nearest_hop` is the proxy's), or if the
    /// operator acted.
    ip: Option<&'a str>,
    #[serde(serialize_with = "respond::time")]
    at: DateTime<Utc>,
}

/// What the API's description says of these.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        Operation::get("/api/v5/audit", "listAudit", "What was done, newest first")
            .query("actor", openapi::id(), "By this user.")
            .query("action", json!({"type": "string"}), "This was done.")
            .query("since", openapi::time(), "From then on.")
            .query("until", openapi::time(), "Before then.")
            .pages::<EntryView<'static>>(),
    ]
}

/// `GET /audit`: newest first; of an `actor`, of an `action`, `since` and `until` a time.
pub(crate) async fn list(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let query = Query::of(&request)?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let (actor, action) = (query.parsed::<UserId>("actor")?, query.value("action"));
    let (since, until) = (query.time("since")?, query.time("until")?);
    let page = caller::run(&app, &caller, |tx, identity| {
        let cursor = cursor.as_ref();
        async move {
            identity.require_role(Role::Owner)?;
            let tenant = identity.tenant_id;
            let entries = match (actor, action) {
                (Some(actor), _) => tx.scan_log(&AuditEntry::BY_ACTOR, tenant, actor),
                (None, Some(action)) => {
                    tx.scan_log(&AuditEntry::BY_ACTION, tenant, action.to_owned())
                }
                (None, None) => tx.log::<AuditEntry>(tenant, (), ..),
            };
            let filter = format!("{action:?} {since:?} {until:?}");
            let page = entries
                .newest_first()
                .filter(filter, |entry| {
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
    respond::page_of(&page, |logged| EntryView::from(&logged.record))
}

impl<'a> From<&'a AuditEntry> for EntryView<'a> {
    fn from(entry: &'a AuditEntry) -> Self {
        let AuditEntry { actor, action, target, details, ip, at, .. } = entry;
        let (target, ip) = (target.as_deref(), ip.as_deref());
        Self { actor: *actor, action, target, details: &details.0, ip, at: *at }
    }
}
