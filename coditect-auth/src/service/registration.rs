//! Registration, and the information that it reveals.
//!
//! # Invariants
//!
//! - The operator opens registration to all, to invited users, or to none, and creates accounts in
//!   each mode.
//! - An account and the membership of its invitation are created in one transaction.
//! - With a mailer, a registration without an invitation gets the same response at the same time
//!   for a taken and for a free address: a mail goes to the address, and its token proves that the
//!   client can read it. Without a mailer, and with an invitation for the address, a taken address
//!   is reported.
//! - Registrations are throttled by address, whatever their outcome, and by the nearest known hop
//!   for clients of unknown address.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{Transaction, keyspace::Global, model::AuthSession};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{
    Auth, ClientInfo, Registration, SignedIn,
    accounts::{create_user, email_taken},
    mail_limits::Mail,
    rate_limit::throttled,
};
use crate::{
    Email, Error, Notice, OpaqueToken, Password, model::Invitation, subkey::mac,
    tokens::opaque::Kind,
};

/// Access to registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegistrationMode {
    /// Open to everyone.
    #[default]
    Open,
    /// Requires an invitation into a tenant.
    Invited,
    /// Only operators create accounts.
    Closed,
}

/// Proof that a registering client can read the mail of its address.
#[derive(Clone, Copy, Debug)]
pub enum AddressProof<'a> {
    /// None.
    None,
    /// Token of an invitation of that address, which is accepted.
    Invitation(&'a str),
    /// Token of a [verification mail](SignUp::VerificationSent).
    Verification(&'a str),
}

/// Result of a registration.
#[derive(Debug)]
pub enum SignUp {
    /// The account was created.
    SignedIn(Box<SignedIn>),
    /// A mail was sent to the address. If the address is free, its token, sent with the same
    /// registration, creates the account.
    VerificationSent,
}

/// Validity of a verification token.
pub const VERIFICATION_LIFETIME: TimeDelta = TimeDelta::hours(24);

/// Prefix of verification tokens, for people and for secret scanners.
const PREFIX: &str = "cvt_";

impl Auth {
    /// Returns the registration mode.
    pub fn registration_mode(&self) -> RegistrationMode {
        self.registration
    }

    /// Returns whether a registration without an invitation is confirmed by mail.
    pub fn verifies_addresses(&self) -> bool {
        self.mailer.is_some()
    }

    /// Registers an account as the [mode](RegistrationMode) allows, and logs in.
    ///
    /// # Errors
    ///
    /// [`Error::RegistrationClosed`], [`Error::InvitationRequired`]; [`Error::InvalidEmail`],
    /// [`Error::WeakPassword`], [`Error::InvalidName`]; [`Error::InvitationInvalid`],
    /// [`Error::VerificationInvalid`]; [`Error::EmailTaken`]; [`Error::Throttled`],
    /// [`Error::Busy`], [`Error::Store`].
    pub async fn sign_up(
        &self,
        registration: Registration<'_>,
        proof: AddressProof<'_>,
        client: &ClientInfo,
    ) -> Result<SignUp, Error> {
        let mode = self.registration;
        if mode == RegistrationMode::Closed {
            return Err(Error::RegistrationClosed);
        }
        let now = self.clock.now();
        if let Some(ip) = client.throttled_ip() {
            self.registrations.try_acquire(ip, now).map_err(throttled)?;
        }
        let email = Email::parse(registration.email)?;
        Password::choose(registration.password, &email)?;
        let signed_in = match proof {
            AddressProof::Invitation(text) => {
                self.require_invitation(&email, text, now).await?;
                self.register_with(registration, Some(text), client).await?
            }
            _ if mode == RegistrationMode::Invited => return Err(Error::InvitationRequired),
            AddressProof::Verification(text) => {
                let holds = self.is_verification(&email, text, now);
                holds.then_some(()).ok_or(Error::VerificationInvalid)?;
                self.register_with(registration, None, client).await?
            }
            AddressProof::None if self.mailer.is_some() => {
                return Ok(SignUp::VerificationSent);
            }
            AddressProof::None => self.register_with(registration, None, client).await?,
        };
        Ok(SignUp::SignedIn(Box::new(signed_in)))
    }

    /// Sends the mail of [`SignUp::VerificationSent`]: a token to a free address, a notice to a
    /// taken one. Does nothing if one was sent lately: from the second on the interval doubles,
    /// from a minute to four hours, which is less than the [lifetime](VERIFICATION_LIFETIME) of a
    /// token. Do not await it in a request: its duration would reveal whether the address is taken.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]; [`Error::Internal`] if the delivery failed.
    pub async fn send_verification(&self, email: &str) -> Result<(), Error> {
        let Some(mailer) = &self.mailer else { return Ok(()) };
        let email = &Email::parse(email)?;
        let now = self.clock.now();
        let take = |tx: Transaction| async move {
            self.take_mail(&tx, (Mail::Verification, email), now).await
        };
        if !self.store.run(take).await? {
            return Ok(());
        }
        let sent = if let Some(user) = self.user_by_email(email).await? {
            mailer.notice(&user.email, Notice::AlreadyRegistered).await
        } else {
            let token = self.verification(email, now + VERIFICATION_LIFETIME);
            mailer.verification(email.display(), &token, VERIFICATION_LIFETIME).await
        };
        sent.map_err(Error::Internal)
    }

    /// Creates the account, the membership of its invitation, and a first session, active in that
    /// tenant.
    pub(super) async fn register_with(
        &self,
        registration: Registration<'_>,
        invitation: Option<&str>,
        client: &ClientInfo,
    ) -> Result<SignedIn, Error> {
        let (tenant, user) = self.new_user(registration).await?;
        let now = user.created_at;
        let (session, token) = self.new_session(&user, client, now)?;
        let made = self.store.run(|tx| {
            let (tenant, user, session) = (&tenant, &user, &session);
            async move {
                create_user(&tx, tenant, user, Some(user.id), client).await?;
                let active_membership = match invitation {
                    Some(text) => Some(self.join(&tx, user, text, client).await?.reference()),
                    None => None,
                };
                let session = AuthSession { active_membership, ..session.clone() };
                tx.insert(&session).await?;
                Ok::<_, Error>(session)
            }
        });
        let session = made.await.map_err(|error| match error {
            Error::Store(error) => email_taken(error),
            error => error,
        })?;
        let tokens = self.tokens(&session, &user, &token, now).await?;
        Ok(SignedIn { user, tokens })
    }

    /// Fails unless there is an open invitation of `email`; checked before hashing a password.
    async fn require_invitation(
        &self,
        email: &Email,
        text: &str,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let hash = Kind::Invitation.hash_of(text).ok_or(Error::InvitationInvalid)?;
        let found =
            self.store.run(|tx| async move { tx.find(&Invitation::BY_HASH, Global, hash).await });
        let found = found.await.map_err(Error::Store)?;
        found
            .filter(|it| now < it.expires_at && it.email_normalized == email.normalized())
            .map(|_| ())
            .ok_or(Error::InvitationInvalid)
    }

    /// Returns the token that verifies `email` until `expires_at`: the expiry and an HMAC of both.
    /// It is not stored, and useless once the account exists.
    fn verification(&self, email: &Email, expires_at: DateTime<Utc>) -> OpaqueToken {
        let expires = expires_at.timestamp().to_be_bytes();
        let tag = mac(self.verification_key.expose(), &[&expires, email.normalized().as_bytes()]);
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str(PREFIX);
        let bytes = [expires.as_slice(), tag.as_slice()].concat();
        BASE64_URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        OpaqueToken::new(text)
    }

    fn is_verification(&self, email: &Email, text: &str, now: DateTime<Utc>) -> bool {
        let read = || {
            let encoded = text.strip_prefix(PREFIX).filter(|encoded| encoded.len() < 64)?;
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?;
            let expires = i64::from_be_bytes(*bytes.first_chunk()?);
            DateTime::from_timestamp(expires, 0)
        };
        let Some(expires_at) = read() else { return false };
        let expected = self.verification(email, expires_at);
        let is_ours = bool::from(expected.expose().as_bytes().ct_eq(text.as_bytes()));
        is_ours && now < expires_at
    }
}
