//! Refresh token families: the decision on a presented refresh token.
//!
//! [`decide`] is a pure function of the stored session, the presented token and the time. It runs
//! in the transaction that carries out its decision, so concurrent refreshes are decided one by
//! one.
//!
//! # Invariants
//!
//! - At each moment exactly one secret of a family rotates it: the newest.
//! - A rotation is unconfirmed until its successor is first used: the new refresh token, or an
//!   access token issued with it. Until then the predecessor returns the *same* successor, up to
//!   the session's expiry.
//! - After confirmation the predecessor returns that successor for the grace time, counted from the
//!   confirmation and never extended, and ends the family afterwards.
//! - No refresh moves the absolute expiry.
//!
//! Boundaries: a session has ended at its expiry; a replay at exactly the grace's age is inside it;
//! a grace of zero is none, at any clock reading. A clock that was set back makes a confirmation
//! appear to be in the future: such a replay is inside the grace, never theft.
//!
//! # Threat model
//!
//! The adversary holds a copy of a client's refresh token and races the client (RFC 9700, 4.14.2).
//! Rotation does not prevent the first use of the copy; it bounds the time for which both can use
//! the family unnoticed.
//!
//! - **The copy is of a replaced token.** While the rotation is unconfirmed it yields the successor
//!   that the client may hold too: no further credential, but the same session. It is the state
//!   before the rotation, in which the copy rotated the family itself. The client's first
//!   authenticated request, normally milliseconds after the refresh, closes the window but for the
//!   grace; from then on the copy ends the family.
//! - **Both hold the newest token.** Whichever uses it second, after the other has used the
//!   successor and the grace is over, ends the family. An adversary cannot keep the rotation
//!   unconfirmed and use it: each use of the access token confirms.
//! - **The response to a refresh is lost** (sleep, network change, crash before the client stored
//!   it). Nothing of the successor is ever used, so the client's retry returns the same successor
//!   after any time. This is why the window is not a fixed number of seconds.
//! - **Several tabs hold the predecessor** when a lost response is retried. The first tab confirms;
//!   the grace, counted from there, covers the others.
//!
//! An access token that is verified by its signature alone (JWKS) confirms nothing, as the store is
//! not asked. A client that uses its tokens nowhere else confirms by its next refresh.
//!
//! **A valid tag with an unknown secret.** The tag proves that this installation issued the token.
//! A secret that differs from the stored one of its generation means that the store was restored
//! from an older copy and has diverged, or that the keys have leaked. Neither shows that *this*
//! family's holder was robbed, so nothing is revoked: [`Decision::StoreDiverged`], an alarm. Hashes
//! of generations before the previous one are not stored; for those the tag is sufficient proof
//! that they were replaced, and they end the family.

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::model::{AuthSession, Revocation, RevocationReason, UserStatus};
use subtle::ConstantTimeEq as _;

use crate::tokens::refresh::{RefreshToken, Salt};

/// Lifetimes of sessions, and the grace of replaced refresh tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lifetimes {
    /// Time without a refresh after which a session expires.
    pub idle: TimeDelta,
    /// Time after the login at which a session expires in any case.
    pub absolute: TimeDelta,
    /// Time from the confirmation of a rotation for which the replaced token still returns its
    /// successor. Zero: none.
    pub grace: TimeDelta,
}

impl Lifetimes {
    /// Sets `idle`.
    #[must_use]
    pub fn idle(mut self, idle: TimeDelta) -> Self {
        self.idle = idle;
        self
    }

    /// Sets `absolute`.
    #[must_use]
    pub fn absolute(mut self, absolute: TimeDelta) -> Self {
        self.absolute = absolute;
        self
    }

    /// Sets `grace`.
    #[must_use]
    pub fn grace(mut self, grace: TimeDelta) -> Self {
        self.grace = grace;
        self
    }
}

impl Default for Lifetimes {
    /// Seven days idle, thirty days in all, ten seconds of grace.
    fn default() -> Self {
        Self {
            idle: TimeDelta::days(7),
            absolute: TimeDelta::days(30),
            grace: TimeDelta::seconds(10),
        }
    }
}

/// Stored state of a family.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Session of the family.
    pub session: &'a AuthSession,
    /// Status of its user.
    pub user: UserStatus,
    /// The user's [login epoch](coditect_store::model::User::login_epoch): sessions of another one
    /// are revoked.
    pub login_epoch: u64,
}

/// A presented token.
#[derive(Clone, Copy, Debug)]
pub struct PresentedToken {
    /// Generation of the token.
    pub generation: u32,
    /// Hash of its secret.
    pub secret_hash: [u8; 32],
    /// Salt with which this request rotates; drawn once per request, outside of the transaction.
    pub salt: Salt,
}

/// Decision on a presented token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// Store [`rotated`]; return the successor.
    Rotate,
    /// Write nothing; return the successor for the *stored* salt.
    ReplayWithinGrace,
    /// Store [`revoked`] for [`RevocationReason::Reuse`] with an audit entry, commit, then refuse:
    /// 401 `REFRESH_REUSED`.
    Reused,
    /// The token is newer than the store, which was restored from an older copy. Write an alarm,
    /// revoke nothing, refuse: 401 `REFRESH_INVALID`.
    TokenAheadOfStore,
    /// The token was issued here, but its secret differs from the stored one. As for
    /// [`TokenAheadOfStore`](Self::TokenAheadOfStore).
    StoreDiverged,
    /// The session has expired. Refuse: 401 `SESSION_EXPIRED`.
    Expired,
    /// The session was revoked or is unknown, or its user is disabled. Refuse: 401
    /// `SESSION_REVOKED`.
    Revoked,
}

impl PresentedToken {
    /// Returns a presented token, for a request with this salt.
    pub fn new(token: &RefreshToken, salt: Salt) -> Self {
        Self { generation: token.generation, secret_hash: token.secret.hash(), salt }
    }
}

/// Returns the decision on a presented token. `stored` is `None` if the family or its user does not
/// exist.
pub fn decide(
    stored: Option<Stored<'_>>,
    presented: &PresentedToken,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Decision {
    let Some(Stored { session, user, login_epoch }) = stored else {
        return Decision::Revoked;
    };
    let is_revoked = session.revocation.is_some() || session.login_epoch != login_epoch;
    if is_revoked || user != UserStatus::Enabled {
        return Decision::Revoked;
    }
    // A family of exhausted generations cannot rotate any more.
    if now >= session.expires_at() || session.generation == u32::MAX {
        return Decision::Expired;
    }
    if presented.generation > session.generation {
        return Decision::TokenAheadOfStore;
    }
    match session.generation - presented.generation {
        0 if same(&presented.secret_hash, &session.secret_hash) => Decision::Rotate,
        0 => Decision::StoreDiverged,
        1 if !is_previous(session, presented) => Decision::StoreDiverged,
        1 if is_own_rotation(session, &presented.salt) => Decision::ReplayWithinGrace,
        1 if may_repeat(session, now, grace) => Decision::ReplayWithinGrace,
        _ => Decision::Reused,
    }
}

/// Returns whether the newest rotation was made by the request with this salt: a retry after an
/// unknown commit outcome finds its own write.
pub fn is_own_rotation(session: &AuthSession, salt: &Salt) -> bool {
    session.generation > 0 && same(&session.salt, salt)
}

/// Returns the session after a rotation with `salt`, to a secret whose hash is `secret_hash`:
/// unconfirmed, and with an idle expiry that is never moved back, nor past the absolute one.
#[must_use]
pub fn rotated(
    session: &AuthSession,
    salt: Salt,
    secret_hash: [u8; 32],
    now: DateTime<Utc>,
    idle: TimeDelta,
) -> AuthSession {
    let idle_expires_at = now
        .checked_add_signed(idle)
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
        .max(session.idle_expires_at)
        .min(session.absolute_expires_at);
    AuthSession {
        generation: session.generation.saturating_add(1),
        secret_hash,
        previous_secret_hash: Some(session.secret_hash),
        salt,
        rotated_at: now,
        confirmed_at: None,
        last_used_at: now.max(session.last_used_at),
        idle_expires_at,
        ..session.clone()
    }
}

/// Returns the session as revoked. A session that was revoked before keeps its first reason and
/// time.
#[must_use]
pub fn revoked(session: &AuthSession, reason: RevocationReason, now: DateTime<Utc>) -> AuthSession {
    AuthSession {
        revocation: session.revocation.or(Some(Revocation { at: now, reason })),
        ..session.clone()
    }
}

fn is_previous(session: &AuthSession, presented: &PresentedToken) -> bool {
    session.previous_secret_hash.is_some_and(|previous| same(&presented.secret_hash, &previous))
}

/// Returns the session with its newest rotation confirmed at `now`, if an access token of
/// `generation` confirms it: the first of the newest generation.
pub fn confirmed(
    session: &AuthSession,
    generation: u32,
    now: DateTime<Utc>,
) -> Option<AuthSession> {
    let is_first = session.confirmed_at.is_none() && session.generation == generation;
    // Before the first rotation there is no predecessor.
    (is_first && generation > 0).then(|| AuthSession { confirmed_at: Some(now), ..session.clone() })
}

/// Returns whether the predecessor of the newest secret still returns its successor. The age is
/// negative if the clock was set back: inside the grace.
fn may_repeat(session: &AuthSession, now: DateTime<Utc>, grace: TimeDelta) -> bool {
    session.confirmed_at.is_none_or(|confirmed_at| {
        grace > TimeDelta::zero() && now.signed_duration_since(confirmed_at) <= grace
    })
}

fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests;
