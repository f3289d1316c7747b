//! An agent: somebody to talk to who is no person.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{AgentId, Json, TenantId};
use crate::{
    Entity, Result, Transaction, entity::Unique, indexes, keyspace::Space, repository::Counter,
};

/// An agent that a tenant has set up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// What it is called by: no two of a tenant's have the same name.
    pub name: String,
    /// What it does, for people.
    pub description: String,
    /// What it is run with (model, instructions, tools): a JSON object.
    pub settings: Json,
    /// When it was set up.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
}

impl Entity for Agent {
    type Scope = TenantId;
    type Key = AgentId;
    const SPACE: Space<TenantId> = Space::tenant("agents");
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> AgentId {
        self.id
    }
}

indexes! { Agent =>
    /// The one of that name.
    BY_NAME ("agents_by_name", name): Unique<String> = |agent| Some(agent.name.clone());
}

impl Agent {
    /// Creates the agent and counts it: a tenant has at most `limit`. It is removed by
    /// [`remove`](Self::remove).
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if the tenant has as many; those of [`create`](Transaction::create).
    pub async fn set_up(&self, tx: &Transaction, limit: i64) -> Result<()> {
        tx.create(self).await?;
        tx.charge(self.tenant_id, Counter::AGENTS, 1, limit).await
    }

    /// Removes an agent and its count, and returns it; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Those of [`delete`](Transaction::delete).
    pub async fn remove(tx: &Transaction, tenant: TenantId, id: AgentId) -> Result<Option<Self>> {
        let removed = tx.delete::<Self>(tenant, id).await?;
        if removed.is_some() {
            tx.release(tenant, Counter::AGENTS, 1)?;
        }
        Ok(removed)
    }
}
