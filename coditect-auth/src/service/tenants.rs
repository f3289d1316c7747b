//! Tenants of a user, and the deletion of one.

use coditect_store::{
    Cursor, Page, Transaction,
    keyspace::Global,
    model::{Membership, Role, Tenant, TenantId, User, UserStatus},
    records::{MAX_PAGE_RECORDS, Stopped},
};
use futures_util::future::try_join_all;

use super::{
    Auth, ClientInfo, Identity, VerifiedCredential,
    audit::{Action, Entry},
};
use crate::Error;

impl Auth {
    /// Returns a page of the caller's tenants: the primary one, then the tenants of their
    /// memberships, without deleted ones.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] of kind `Invalid` if `after` belongs to another list.
    pub async fn tenants_of(
        &self,
        tx: &Transaction,
        identity: &Identity,
        (limit, after): (usize, Option<&Cursor>),
    ) -> Result<Page<(Tenant, Role)>, Error> {
        let user = &identity.user;
        let memberships = tx.scan(&Membership::BY_USER, Global, user.id);
        let mut all = Vec::new();
        if after.is_none() {
            all.push((user.tenant_id, Role::Owner));
        }
        let (next, stopped) = if all.len() < limit {
            let page = memberships.page(limit - all.len(), after).await?;
            all.extend(page.items.iter().map(|it| (it.tenant_id, it.role)));
            (page.next, page.stopped)
        } else {
            (Some(memberships.start()), Stopped::Rows)
        };
        let tenants = all.iter().map(|(tenant, _)| tx.get::<Tenant>(*tenant, ()));
        let tenants = try_join_all(tenants).await?.into_iter().zip(&all);
        let items = tenants.filter_map(|(tenant, (_, role))| Some((tenant?, *role))).collect();
        Ok(Page { items, next, stopped })
    }

    /// Deletes the active tenant of `credential`, for an owner who also presents their password.
    /// Takes effect at once: its users are disabled, their logins revoked, and its members locked
    /// out; the deletion, resumed in the background, deletes the records. The audit log is
    /// deleted too: an owner from another tenant finds an entry in their own.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`] if the password is wrong; [`Error::Forbidden`] unless the
    /// caller is an owner, and for a personal access token; [`Error::Throttled`], [`Error::Busy`],
    /// [`Error::Store`]; as for [`authenticate`](Self::authenticate).
    pub async fn delete_tenant(
        &self,
        credential: &VerifiedCredential,
        password: &str,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        let owner = |tx: Transaction| async move {
            let identity = self.authenticate(&tx, credential).await?;
            identity.session()?;
            if identity.role < Role::Owner {
                return Err(Error::Forbidden("this is for the tenant's owners"));
            }
            Ok(identity)
        };
        let identity = self.store.run(owner).await?;
        let proof = self.verify_password(&identity.user, password, client).await?;
        let now = self.clock.now();
        self.store
            .run(|tx| {
                let (owner, proof) = (&owner, &proof);
                async move {
                    let identity = owner(tx.clone()).await?;
                    let user = proof.recheck(&tx).await?;
                    proof.attempt.record_success(&tx, now).await?;
                    let tenant = identity.tenant_id;
                    tx.delete_tenant(tenant, now).await?.ok_or(Error::NotFound)?;
                    disable_users(&tx, tenant).await?;
                    if user.tenant_id == tenant {
                        return Ok(());
                    }
                    let entry =
                        Entry::new(Action::TenantDeleted, user.tenant_id, Some(user.id), client);
                    Ok(entry.target(tenant.0).write(&tx, now).await?)
                }
            })
            .await
    }
}

/// Disables the users of a deleted tenant, so that no login or token of theirs is accepted until
/// the deletion completes. Registration creates one user per tenant.
async fn disable_users(tx: &Transaction, tenant: TenantId) -> coditect_store::Result<()> {
    for user in tx.list::<User>(tenant).page(MAX_PAGE_RECORDS, None).await?.items {
        let user = user.with_logins_revoked();
        tx.update(&User { status: UserStatus::Disabled, ..user }).await?;
    }
    Ok(())
}
