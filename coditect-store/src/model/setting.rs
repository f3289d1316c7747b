//! Settings of tenants, and overrides of their users.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};

use super::{Json, TenantId, UserId};
use crate::{
    Entity, Error, ErrorKind, Result, Transaction,
    entity::Indexed,
    indexes,
    keyspace::{KeyPart, KeyRange, Subspace},
};

/// A setting: any JSON under a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Tenant.
    pub tenant_id: TenantId,
    /// Scope.
    pub scope: SettingScope,
    /// Key.
    pub key: String,
    /// Value.
    pub value: Json,
    /// Time of the last change.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
}

/// The scope of a [`Setting`]. Persisted: add at the end, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettingScope {
    /// All users of the tenant, who may override it.
    Tenant,
    /// One user.
    User(UserId),
}

impl Entity for Setting {
    type Scope = TenantId;
    type Key = (SettingScope, String);
    const SPACE: Subspace<TenantId> = Subspace::tenant("settings").keyed(&["scope", "key"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> (SettingScope, String) {
        (self.scope, self.key.clone())
    }
}

indexes! { Setting => }

impl Setting {
    /// Returns the setting `key` of `user`: their own, or else the tenant's. Two concurrent reads.
    ///
    /// # Errors
    ///
    /// Errors of [`Transaction::get`].
    pub async fn effective(
        tx: &Transaction,
        tenant: TenantId,
        user: UserId,
        key: &str,
    ) -> Result<Option<Self>> {
        let get = |scope| tx.get::<Self>(tenant, (scope, key.to_owned()));
        let (own, shared) =
            try_join(get(SettingScope::User(user)), get(SettingScope::Tenant)).await?;
        Ok(own.or(shared))
    }

    /// Deletes all settings of a scope, by clearing one range.
    pub fn delete_all(tx: &Transaction, tenant: TenantId, scope: SettingScope) {
        const { assert!(Self::INDEXES.is_empty(), "clearing a range bypasses indexes") };
        let range = KeyRange::tuples(&Self::SPACE.key(tx.root(), tenant, &scope));
        tx.engine().clear_range(&range.begin, &range.end);
    }

    /// Returns all settings of `user`, by key: their own, and the tenant's others. Two concurrent
    /// scans.
    ///
    /// # Errors
    ///
    /// `Limit` if there are more than `at_most`; errors of [`Scan::all`](crate::Scan::all).
    pub async fn all_effective(
        tx: &Transaction,
        tenant: TenantId,
        user: UserId,
        at_most: usize,
    ) -> Result<Vec<Self>> {
        let all =
            async |scope: SettingScope| tx.list_keys::<Self>(tenant, (scope,)).all(at_most).await;
        let (shared, own) =
            try_join(all(SettingScope::Tenant), all(SettingScope::User(user))).await?;
        let by_key = shared.into_iter().chain(own).map(|setting| (setting.key.clone(), setting));
        let settings: Vec<_> = by_key.collect::<BTreeMap<_, _>>().into_values().collect();
        if settings.len() > at_most {
            let message = format!("more than {at_most} settings");
            return Err(Error::new(ErrorKind::Limit, message));
        }
        Ok(settings)
    }
}

/// Stands for the tenant in keys, in place of a user's UUID.
const TENANT: &str = "tenant";

/// One element: `"tenant"`, or the user's UUID.
impl KeyPart for SettingScope {
    const ELEMENTS: usize = 1;

    fn element_types() -> Vec<String> {
        vec!["string or uuid".to_owned()]
    }

    fn pack(&self, key: &mut Vec<u8>) {
        match self {
            Self::Tenant => TENANT.to_owned().pack(key),
            Self::User(user) => user.pack(key),
        }
    }

    fn unpack(rest: &mut &[u8]) -> Result<Self> {
        let mut uuid = *rest;
        if let Ok(user) = UserId::unpack(&mut uuid) {
            *rest = uuid;
            return Ok(Self::User(user));
        }
        if String::unpack(rest)? == TENANT {
            return Ok(Self::Tenant);
        }
        Err(Error::new(ErrorKind::Corrupt, "a setting has an unknown scope"))
    }
}
