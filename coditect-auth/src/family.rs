//! The life of a refresh token family: what a refresh token that comes in means.
//!
//! [`decide`] is a pure function of what the store has, what came in, and the time. It is asked inside
//! the transaction that then does what it says, so two refreshes at once are decided one after the
//! other. What stays true:
//!
//! - At each moment exactly one secret of a family rotates it: the newest.
//! - A secret that was replaced gives the *same* successor for the grace time, counted from the
//!   replacement and never moved on, and ends the family ever after.
//! - No refresh moves the absolute expiry.
//!
//! Boundaries: at its expiry a session is over; at exactly the grace's age a repeat is still inside it;
//! a grace of zero is none at all, whatever the clock says. A clock that went backwards makes a
//! replacement look as if it were to come: that is inside the grace, and never reads as theft.
//!
//! **What a valid tag with the wrong secret means.** The tag says that this installation made the token,
//! so a stranger cannot get here with a made-up one. If its secret still isn't the one the store has for
//! that generation, then the store was set back (restored from an older copy) and has gone another way
//! since, or the keys have leaked. Neither tells that *this* family's holder was robbed, so nothing is
//! revoked: [`Decision::Diverged`], an alarm. Secrets older than the one before the newest cannot be
//! compared any more, their hashes are gone; for them the tag is proof enough that they were replaced,
//! and they end the family.

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::model::{AuthSession, Revocation, RevocationReason, UserStatus};
use subtle::ConstantTimeEq as _;

use crate::refresh::{RefreshToken, Salt};

/// How long sessions live, and how long a replaced refresh token may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// A session that isn't refreshed for this long ends.
    pub idle: TimeDelta,
    /// A session ends after this long whatever happens.
    pub absolute: TimeDelta,
    /// For this long after a rotation the token before it gives the same successor again. Zero: never.
    pub grace: TimeDelta,
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

/// What the store has on a family.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// The session the family belongs to.
    pub session: &'a AuthSession,
    /// Whether its user may sign in.
    pub user: UserStatus,
}

/// What came in.
#[derive(Clone, Copy, Debug)]
pub struct Presented {
    /// The token's generation.
    pub generation: u32,
    /// The hash of its secret.
    pub secret_hash: [u8; 32],
    /// The salt with which this request would rotate, or has tried to: one per request, drawn
    /// outside the transaction.
    pub salt: Salt,
}

/// What to do, and what the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Store [`rotated`]; give the successor.
    Rotate,
    /// Write nothing; compute and give the successor by the *stored* salt.
    Repeat,
    /// Store [`revoked`] for [`RevocationReason::Reuse`] with an audit entry, commit, then refuse: 401
    /// `REFRESH_REUSED`.
    Reused,
    /// The token is newer than the store, which was set back. Write an alarm, revoke nothing, refuse:
    /// 401 `REFRESH_INVALID`.
    Ahead,
    /// The token was made here, but the store knows another one of its generation. As for
    /// [`Ahead`](Self::Ahead).
    Diverged,
    /// The session is over by itself. Refuse: 401 `SESSION_EXPIRED`.
    Expired,
    /// The session was ended, or is unknown, or its user may not sign in. Refuse: 401
    /// `SESSION_REVOKED`.
    Revoked,
}

impl Presented {
    /// A token that came in with a request whose salt is `salt`.
    pub fn new(token: &RefreshToken, salt: Salt) -> Self {
        Self { generation: token.generation, secret_hash: token.secret.hash(), salt }
    }
}

/// What a refresh token means. `stored` is none where the family, or its user, is not in the store.
pub fn decide(
    stored: Option<Stored<'_>>,
    presented: &Presented,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Decision {
    let Some(Stored { session, user }) = stored else {
        return Decision::Revoked;
    };
    if session.revocation.is_some() || user != UserStatus::Enabled {
        return Decision::Revoked;
    }
    // A family whose generations are used up could not tell its tokens apart any more.
    if now >= session.expires_at() || session.generation == u32::MAX {
        return Decision::Expired;
    }
    if presented.generation > session.generation {
        return Decision::Ahead;
    }
    match session.generation - presented.generation {
        0 if same(&presented.secret_hash, &session.secret_hash) => Decision::Rotate,
        0 => Decision::Diverged,
        1 if !is_previous(session, presented) => Decision::Diverged,
        1 if is_own_rotation(session, &presented.salt) || in_grace(session, now, grace) => {
            Decision::Repeat
        }
        _ => Decision::Reused,
    }
}

/// Whether the newest rotation is the one that the request with this salt made: so it is when the
/// outcome of its commit was unknown, it ran again, and finds its own work. [`decide`] asks this.
pub fn is_own_rotation(session: &AuthSession, salt: &Salt) -> bool {
    session.generation > 0 && same(&session.salt, salt)
}

/// The session after a rotation with `salt`, to a secret whose hash is `secret_hash`. Its idle expiry
/// is moved on, never back, and never past the absolute one.
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
        last_used_at: now.max(session.last_used_at),
        idle_expires_at,
        ..session.clone()
    }
}

/// The session, ended. One that was ended before keeps its first reason and time.
#[must_use]
pub fn revoked(session: &AuthSession, reason: RevocationReason, now: DateTime<Utc>) -> AuthSession {
    AuthSession {
        revocation: session.revocation.or(Some(Revocation { at: now, reason })),
        ..session.clone()
    }
}

fn is_previous(session: &AuthSession, presented: &Presented) -> bool {
    session.previous_secret_hash.is_some_and(|previous| same(&presented.secret_hash, &previous))
}

/// The age is negative when the clock went backwards, and then inside.
fn in_grace(session: &AuthSession, now: DateTime<Utc>, grace: TimeDelta) -> bool {
    let age = now.signed_duration_since(session.rotated_at);
    grace > TimeDelta::zero() && age <= grace
}

fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests;
