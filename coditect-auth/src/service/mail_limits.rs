//! Limits on the mails that others can have sent to an address.
//!
//! # Invariants
//!
//! - The time between two mails of a kind to one address doubles from [`FIRST_INTERVAL`] to the
//!   longest interval of the kind, and is forgotten after [`FORGOTTEN_AFTER`] without one. Where
//!   the mail has a token, the longest interval is at most the token's life: a withheld mail has a
//!   predecessor that still works, so that mails requested by a stranger never lock out the owner
//!   of the address.
//! - The response to a client is the same whether or not a mail was withheld.
//! - A time that is further ahead than the longest interval, of a clock that was set back, delays
//!   nothing.

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{Transaction, keyspace::Global, model::UserId};

use super::Auth;
use crate::{Email, model::LoginFailures, subkey::mac, throttle};

/// Time after a first mail until the second.
const FIRST_INTERVAL: TimeDelta = TimeDelta::minutes(1);

/// Time without a mail after which those before do not count.
const FORGOTTEN_AFTER: TimeDelta = TimeDelta::hours(24);

/// Maximum number of invitation mails that one user has sent in 24 hours.
pub const MAX_INVITATION_MAILS: u32 = 200;

/// A kind of mail that a client can have sent to an address that may not be theirs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mail {
    /// A token that resets a password.
    PasswordReset,
    /// A token that verifies an address, or the notice that it has an account.
    Verification,
    /// An invitation into a tenant, whichever it is.
    Invitation,
}

impl Mail {
    /// Part of the HMAC that counts are stored by. Its length is not the 16 bytes of an IP address,
    /// which is at its place in the HMACs of [`throttle`]: each key has one meaning.
    const fn label(self) -> &'static [u8] {
        match self {
            Self::PasswordReset => b"mail: password reset",
            Self::Verification => b"mail: address verification",
            Self::Invitation => b"mail: invitation into a tenant",
        }
    }

    const fn longest_interval(self) -> TimeDelta {
        match self {
            Self::PasswordReset => TimeDelta::minutes(30),
            Self::Verification | Self::Invitation => TimeDelta::hours(4),
        }
    }
}

impl Auth {
    /// Counts a mail to `email` and returns true, or returns false if it must not be sent. One
    /// read.
    ///
    /// # Errors
    ///
    /// Fails if the store does.
    pub(super) async fn take_mail(
        &self,
        tx: &Transaction,
        (mail, email): (Mail, &Email),
        now: DateTime<Utc>,
    ) -> coditect_store::Result<bool> {
        let key = self.mail_key(mail, email);
        let before = tx.get::<LoginFailures>(Global, key).await?;
        let before = before.filter(|it| is_within(it.last_at, now, FORGOTTEN_AFTER));
        let count = before.as_ref().map_or(0, |it| it.count);
        if before.is_some_and(|it| is_within(it.last_at, now, interval(mail, it.count))) {
            return Ok(false);
        }
        write(tx, (key, count.saturating_add(1)), (now, now + FORGOTTEN_AFTER)).await?;
        Ok(true)
    }

    /// Forgets the mails of a kind to `email` after its owner has used the token in one.
    pub(super) async fn forget_mails(
        &self,
        tx: &Transaction,
        (mail, email): (Mail, &Email),
    ) -> coditect_store::Result<()> {
        tx.delete::<LoginFailures>(Global, self.mail_key(mail, email)).await.map(|_| ())
    }

    /// Counts an invitation mail of `inviter` and returns true, or returns false if they have had
    /// [`MAX_INVITATION_MAILS`] sent in the 24 hours since the first of them. One read.
    ///
    /// # Errors
    ///
    /// Fails if the store does.
    pub(super) async fn take_mail_of(
        &self,
        tx: &Transaction,
        inviter: UserId,
        now: DateTime<Utc>,
    ) -> coditect_store::Result<bool> {
        let label: &[u8] = b"mail: inviter";
        let key = *mac(self.throttle_key.expose(), &[inviter.0.as_bytes(), label]);
        let before = tx.get::<LoginFailures>(Global, key).await?;
        let before =
            before.filter(|it| is_within(it.expires_at - FORGOTTEN_AFTER, now, FORGOTTEN_AFTER));
        let (count, expires_at) =
            before.map_or((0, now + FORGOTTEN_AFTER), |it| (it.count, it.expires_at));
        if count >= MAX_INVITATION_MAILS {
            return Ok(false);
        }
        write(tx, (key, count + 1), (now, expires_at)).await?;
        Ok(true)
    }

    fn mail_key(&self, mail: Mail, email: &Email) -> [u8; 32] {
        let account = throttle::account_key(&self.throttle_key, email);
        *mac(self.throttle_key.expose(), &[&account, mail.label()])
    }
}

/// Returns whether `at` is less than `length` from `now`, in either direction.
fn is_within(at: DateTime<Utc>, now: DateTime<Utc>, length: TimeDelta) -> bool {
    now.signed_duration_since(at).abs() < length
}

/// Returns the time after the last of `count` mails until the next.
fn interval(mail: Mail, count: u32) -> TimeDelta {
    let doublings = count.saturating_sub(1).min(10);
    (FIRST_INTERVAL * 2_i32.pow(doublings)).min(mail.longest_interval())
}

async fn write(
    tx: &Transaction,
    (key, count): ([u8; 32], u32),
    (last_at, expires_at): (DateTime<Utc>, DateTime<Utc>),
) -> coditect_store::Result<()> {
    tx.upsert(&LoginFailures { key, count, last_at, expires_at }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RESET_TOKEN_LIFETIME, VERIFICATION_LIFETIME};

    #[test]
    fn interval_doubles_up_to_its_longest() {
        let minutes = |mail, count| interval(mail, count).num_minutes();
        let resets: Vec<_> = (1..8).map(|count| minutes(Mail::PasswordReset, count)).collect();
        assert_eq!(resets, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(minutes(Mail::Verification, u32::MAX), 240);
    }

    #[test]
    fn withheld_mail_has_a_predecessor_whose_token_works() {
        assert!(Mail::PasswordReset.longest_interval() <= RESET_TOKEN_LIFETIME);
        assert!(Mail::Verification.longest_interval() <= VERIFICATION_LIFETIME);
    }

    #[test]
    fn labels_are_no_address_of_a_client() {
        for mail in [Mail::PasswordReset, Mail::Verification, Mail::Invitation] {
            assert_ne!(mail.label().len(), 16);
        }
    }
}
