//! The tenants that a user may act in, and the deletion of one.

use coditect_store::{
    Cursor, Page, Transaction,
    keyspace::Global,
    model::{Membership, Role, Tenant, TenantId, User, UserStatus},
    repository::{PAGE_LIMIT, Stopped},
};
use futures_util::future::try_join_all;

use super::{
    Auth, ClientInfo, Identity, VerifiedCredential,
    audit::{Action, Entry},
};
use crate::Error;

impl Auth {
    /// Returns a page of the tenants that the caller may act in: their own, then those that they are a
    /// member of. Deleted ones are left out.
    ///
    /// # Errors
    ///
    /// [`Error::Store`], with `Invalid` if `after` is of another list.
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

    /// Deletes the tenant that whoever shows `credential` acts in, for an owner of it who shows their password
    /// too. With this it is gone, its own users are disabled and their logins revoked, and its members
    /// cannot act in it; the rest is a deletion to [complete](coditect_store::Store::complete). Its audit
    /// log goes with it: an owner from elsewhere finds an entry in their own tenant.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`] if the password is another; [`Error::Forbidden`] if they are no owner,
    /// and of a program; [`Error::Throttled`], [`Error::Busy`], [`Error::Store`]; those of
    /// [`authenticate`](Self::authenticate).
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

/// Disables the users of a tenant that is deleted, so that neither a login nor a token of theirs is
/// accepted until the deletion is complete. A registration creates one user of a tenant.
async fn disable_users(tx: &Transaction, tenant: TenantId) -> coditect_store::Result<()> {
    for user in tx.list::<User>(tenant).page(PAGE_LIMIT, None).await?.items {
        let user = user.with_logins_revoked();
        tx.update(&User { status: UserStatus::Disabled, ..user }).await?;
    }
    Ok(())
}
