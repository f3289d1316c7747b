//! Agents.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{AgentId, Json, TenantId};
use crate::{
    Entity, Result, Transaction, entity::Unique, indexes, keyspace::Subspace, records::Counter,
};

/// An agent that a tenant has configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Id.
    pub id: AgentId,
    /// Tenant.
    pub tenant_id: TenantId,
    /// Name, unique within the tenant.
    pub name: String,
    /// Description, for display.
    pub description: String,
    /// Configuration (model, instructions, tools): a JSON object.
    pub settings: Json,
    /// Time of creation.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Time of the last change.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
}

impl Entity for Agent {
    type Scope = TenantId;
    type Key = AgentId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("agents");
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> AgentId {
        self.id
    }
}

indexes! { Agent =>
    /// By name.
    BY_NAME ("agents_by_name", name): Unique<String> = |agent| Some(agent.name.clone());
}

impl Agent {
    /// Creates the agent and counts it: a tenant has at most `limit`. It is removed by
    /// [`remove`](Self::remove).
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if the tenant has `limit` agents; errors of
    /// [`insert`](Transaction::insert).
    pub async fn set_up(&self, tx: &Transaction, limit: i64) -> Result<()> {
        tx.insert(self).await?;
        tx.charge(self.tenant_id, Counter::AGENTS, 1, limit).await
    }

    /// Removes an agent and its count, and returns it; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Errors of [`delete`](Transaction::delete).
    pub async fn remove(tx: &Transaction, tenant: TenantId, id: AgentId) -> Result<Option<Self>> {
        let removed = tx.delete::<Self>(tenant, id).await?;
        if removed.is_some() {
            tx.release(tenant, Counter::AGENTS, 1)?;
        }
        Ok(removed)
    }
}
