//! Personal access tokens, and tickets of WebSockets.

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{
    Cursor, Page, Transaction,
    keyspace::Global,
    model::{Membership, Tenant, Ticket, TicketId, User},
};

use super::{
    Auth, ClientInfo, Identity, VerifiedCredential,
    audit::{Action, Entry},
};
use crate::{
    Error, Notice, OpaqueToken, Scopes,
    model::{PersonalToken, PersonalTokenId},
    text::require_plain,
    tokens::opaque::Kind,
};

/// Maximum lifetime of a personal token.
pub const MAX_PERSONAL_TOKEN_LIFETIME: TimeDelta = TimeDelta::days(366);

/// Maximum length of a personal token's name, in characters.
pub const MAX_TOKEN_NAME_CHARS: usize = 100;

/// Maximum number of personal tokens per user.
const MAX_PERSONAL_TOKENS: usize = 100;

/// Validity of a ticket.
pub const TICKET_LIFETIME: TimeDelta = TimeDelta::seconds(30);

/// A new personal token. Its text is drawn once, however often its transaction runs.
#[derive(Debug)]
pub struct NewPersonalToken {
    text: OpaqueToken,
    hash: [u8; 32],
    id: PersonalTokenId,
    name: String,
    scopes: Scopes,
    life: TimeDelta,
}

/// A new ticket.
#[derive(Debug)]
pub struct NewTicket {
    text: OpaqueToken,
    hash: [u8; 32],
    id: TicketId,
}

impl NewPersonalToken {
    /// Creates a token named `name`, truncated to 100 characters, valid for `life`, at most 366
    /// days.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`]; [`Error::Internal`] if the system has no randomness.
    pub fn new(name: &str, scopes: Scopes, life: TimeDelta) -> Result<Self, Error> {
        require_plain(name)?;
        let (text, hash) = Kind::Personal.generate()?;
        let name = name.chars().take(MAX_TOKEN_NAME_CHARS).collect();
        let life = life.min(MAX_PERSONAL_TOKEN_LIFETIME);
        Ok(Self { text, hash, id: PersonalTokenId::new(), name, scopes, life })
    }

    /// Returns the token. It cannot be recovered later.
    pub fn text(&self) -> &OpaqueToken {
        &self.text
    }
}

impl NewTicket {
    /// Creates a ticket.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if the system has no randomness.
    pub fn new() -> Result<Self, Error> {
        let (text, hash) = Kind::Ticket.generate()?;
        Ok(Self { text, hash, id: TicketId::new() })
    }

    /// Returns the ticket.
    pub fn text(&self) -> &OpaqueToken {
        &self.text
    }
}

impl Auth {
    /// Creates a personal token of the caller, for their active tenant. It outlives their access
    /// token: call [`require_fresh_login`](Self::require_fresh_login) first, and
    /// [`notify_token_created`](Self::notify_token_created) after the commit.
    ///
    /// # Errors
    ///
    /// [`Error::TooMany`]; [`Error::Forbidden`] for a personal access token; [`Error::Store`].
    pub async fn create_personal_token(
        &self,
        tx: &Transaction,
        identity: &Identity,
        new: &NewPersonalToken,
        client: &ClientInfo,
    ) -> Result<PersonalToken, Error> {
        let (user, now) = (&identity.user, self.clock.now());
        let mut held = 0;
        identity.session()?;
        for token in all_tokens(tx, user).await? {
            // Expired tokens make room.
            if now >= token.expires_at {
                tx.delete::<PersonalToken>(user.tenant_id, token.id).await?;
            } else {
                held += 1;
            }
        }
        if held >= MAX_PERSONAL_TOKENS {
            return Err(Error::TooMany("personal tokens"));
        }
        let token = PersonalToken {
            id: new.id,
            tenant_id: user.tenant_id,
            user_id: user.id,
            active_membership: identity.membership,
            name: new.name.clone(),
            scopes: new.scopes.clone(),
            hash: new.hash,
            created_at: now,
            last_used_at: now,
            expires_at: now.checked_add_signed(new.life).unwrap_or(DateTime::<Utc>::MAX_UTC),
        };
        tx.insert(&token).await?;
        audit_token(tx, Action::TokenCreated, &token, (client, now)).await?;
        Ok(token)
    }

    /// Notifies the caller of a new personal token. Call it after the commit.
    pub fn notify_token_created(&self, identity: &Identity) {
        self.notify(&identity.user, Notice::TokenCreated);
    }

    /// Returns a page of the caller's personal tokens, oldest first, expired ones included.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] for a personal access token; [`Error::Store`], with `Invalid` if
    /// `after` belongs to another list.
    pub async fn personal_tokens(
        &self,
        tx: &Transaction,
        identity: &Identity,
        (limit, after): (usize, Option<&Cursor>),
    ) -> Result<Page<PersonalToken>, Error> {
        identity.session()?;
        let user = &identity.user;
        let tokens = tx.scan(&PersonalToken::BY_USER, user.tenant_id, user.id);
        Ok(tokens.page(limit, after).await?)
    }

    /// Revokes a personal token.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] unless it belongs to the caller; [`Error::Forbidden`] for a personal
    /// access token; [`Error::Store`].
    pub async fn revoke_personal_token(
        &self,
        tx: &Transaction,
        identity: &Identity,
        id: PersonalTokenId,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        identity.session()?;
        let user = &identity.user;
        let token = tx.get::<PersonalToken>(user.tenant_id, id).await?;
        let token = token.filter(|token| token.user_id == user.id).ok_or(Error::NotFound)?;
        tx.delete::<PersonalToken>(user.tenant_id, id).await?;
        Ok(audit_token(tx, Action::TokenRevoked, &token, (client, self.clock.now())).await?)
    }

    /// Creates a ticket for the caller's session and active tenant: valid once, for [30
    /// seconds](TICKET_LIFETIME), and for pages of `origin` if one is given.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] for a personal access token; [`Error::Store`].
    pub async fn create_ticket(
        &self,
        tx: &Transaction,
        identity: &Identity,
        new: &NewTicket,
        origin: Option<String>,
    ) -> Result<(), Error> {
        let session = identity.session()?;
        let now = self.clock.now();
        let ticket = Ticket {
            id: new.id,
            tenant_id: session.tenant_id,
            user_id: session.user_id,
            auth_session_id: session.id,
            active_membership: identity.membership,
            hash: new.hash,
            origin,
            created_at: now,
            expires_at: now + TICKET_LIFETIME,
        };
        Ok(tx.insert(&ticket).await?)
    }

    /// Consumes a ticket and returns its credential.
    ///
    /// # Errors
    ///
    /// [`Error::TicketInvalid`] if it is unknown, used, expired or for another origin;
    /// [`Error::Store`].
    pub async fn consume_ticket(
        &self,
        text: &str,
        origin: Option<&str>,
    ) -> Result<VerifiedCredential, Error> {
        let hash = Kind::Ticket.hash_of(text).ok_or(Error::TicketInvalid)?;
        let now = self.clock.now();
        let taken = self.store.run(|tx| async move {
            let ticket = tx.find(&Ticket::BY_HASH, Global, hash).await?;
            if let Some(ticket) = &ticket {
                tx.delete::<Ticket>(ticket.tenant_id, ticket.id).await?;
            }
            Ok::<_, coditect_store::Error>(ticket)
        });
        let ticket = taken.await?.ok_or(Error::TicketInvalid)?;
        let is_for_them = ticket.origin.as_deref().is_none_or(|wanted| Some(wanted) == origin);
        if now >= ticket.expires_at || !is_for_them {
            return Err(Error::TicketInvalid);
        }
        Ok(VerifiedCredential::Session {
            primary_tenant: ticket.tenant_id,
            id: ticket.auth_session_id,
            user: ticket.user_id,
            active_membership: ticket.active_membership,
        })
    }
}

/// Audits a change of a personal token, in the tenant of its user and in its active tenant.
async fn audit_token(
    tx: &Transaction,
    action: Action,
    token: &PersonalToken,
    (client, now): (&ClientInfo, DateTime<Utc>),
) -> coditect_store::Result<()> {
    let elsewhere = token.active_membership.map(|membership| membership.tenant_id);
    for tenant in std::iter::once(token.tenant_id).chain(elsewhere) {
        // The membership's tenant may have been deleted.
        if tenant != token.tenant_id && tx.get::<Tenant>(tenant, ()).await?.is_none() {
            continue;
        }
        let entry = Entry::new(action, tenant, Some(token.user_id), client).target(token.id);
        let details = serde_json::json!({ "name": token.name, "scopes": token.scopes });
        entry.details(details).write(tx, now).await?;
    }
    Ok(())
}

async fn all_tokens(tx: &Transaction, user: &User) -> Result<Vec<PersonalToken>, Error> {
    Ok(tx
        .scan(&PersonalToken::BY_USER, user.tenant_id, user.id)
        .all(MAX_PERSONAL_TOKENS + 1)
        .await?)
}

/// Revokes the personal tokens of `membership`, and returns their number, at most 100.
pub(super) async fn revoke_tokens_of(
    tx: &Transaction,
    membership: &Membership,
) -> Result<usize, Error> {
    let (primary_tenant, user) = (membership.primary_tenant, membership.user_id);
    let tokens = tx
        .scan(&PersonalToken::BY_USER, primary_tenant, user)
        .page(MAX_PERSONAL_TOKENS, None)
        .await?
        .items;
    let (reference, mut revoked) = (Some(membership.reference()), 0);
    for token in tokens {
        if token.active_membership == reference {
            tx.delete::<PersonalToken>(primary_tenant, token.id).await?;
            revoked += 1;
        }
    }
    Ok(revoked)
}

/// Revokes all personal tokens of `user`.
pub(super) async fn revoke_all_tokens(tx: &Transaction, user: &User) -> Result<(), Error> {
    for token in all_tokens(tx, user).await? {
        tx.delete::<PersonalToken>(user.tenant_id, token.id).await?;
    }
    Ok(())
}
