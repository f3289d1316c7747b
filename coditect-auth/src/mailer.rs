//! Delivery of tokens to the addresses that they belong to. The operator provides the
//! implementation, by e-mail as a rule.

use std::{error::Error as StdError, fmt, future::Future, pin::Pin};

use chrono::TimeDelta;

use crate::OpaqueToken;

/// Future of a delivery.
pub type Sending<'a> =
    Pin<Box<dyn Future<Output = Result<(), Box<dyn StdError + Send + Sync>>> + Send + 'a>>;

/// Delivers tokens. Called after the record of the token has committed, and not awaited by
/// responses whose timing would reveal whether an account exists.
pub trait Mailer: fmt::Debug + Send + Sync {
    /// Delivers a token that resets the password of the account of `email` and is valid for `life`.
    fn password_reset<'a>(
        &'a self,
        email: &'a str,
        token: &'a OpaqueToken,
        life: TimeDelta,
    ) -> Sending<'a>;

    /// Delivers an invitation of `email` into the tenant named `tenant`, valid for `life`.
    fn invitation<'a>(
        &'a self,
        email: &'a str,
        tenant: &'a str,
        token: &'a OpaqueToken,
        life: TimeDelta,
    ) -> Sending<'a>;

    /// Delivers a token that verifies `email` for a registration, valid for `life`.
    fn verification<'a>(
        &'a self,
        email: &'a str,
        token: &'a OpaqueToken,
        life: TimeDelta,
    ) -> Sending<'a>;

    /// Notifies the owner of the account of `email` of a change. The notice holds no secret.
    fn notice<'a>(&'a self, email: &'a str, notice: Notice) -> Sending<'a>;
}

/// A change of an account that its owner is notified of, whether they made it or not (OWASP ASVS 5,
/// 6.3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A second factor was enabled.
    SecondFactorEnabled,
    /// The second factor was removed.
    SecondFactorRemoved,
    /// Codes are refused after too many wrong ones; a recovery code is still accepted.
    SecondFactorLocked,
    /// A recovery code was used.
    RecoveryCodeUsed,
    /// The password was changed, or reset.
    PasswordChanged,
    /// A personal access token was created.
    TokenCreated,
    /// Someone tried to register with the address of the account.
    AlreadyRegistered,
}

impl Notice {
    /// Returns the notice in one sentence.
    pub const fn text(self) -> &'static str {
        match self {
            Self::SecondFactorEnabled => "Two-factor authentication was enabled for your account.",
            Self::SecondFactorRemoved => "Two-factor authentication was removed from your account.",
            Self::SecondFactorLocked => {
                "Your authenticator codes are refused after too many wrong ones. Sign in with a \
                 recovery code. If these attempts were not yours, change your password."
            }
            Self::RecoveryCodeUsed => "A recovery code of your account was used.",
            Self::PasswordChanged => "The password of your account was changed.",
            Self::TokenCreated => "A personal access token was created for your account.",
            Self::AlreadyRegistered => {
                "There was an attempt to register with your address. You have an account already: \
                 sign in, or reset your password."
            }
        }
    }
}

/// Writes tokens to the log, for trying the service out locally. It is the only code that logs a
/// secret, and never the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogMailer;

impl Mailer for LogMailer {
    fn password_reset<'a>(
        &'a self,
        email: &'a str,
        token: &'a OpaqueToken,
        life: TimeDelta,
    ) -> Sending<'a> {
        let (token, minutes) = (token.expose(), life.num_minutes());
        tracing::warn!(email, token, minutes, "password reset token");
        Box::pin(async { Ok(()) })
    }

    fn invitation<'a>(
        &'a self,
        email: &'a str,
        tenant: &'a str,
        token: &'a OpaqueToken,
        life: TimeDelta,
    ) -> Sending<'a> {
        let (token, days) = (token.expose(), life.num_days());
        tracing::warn!(email, tenant, token, days, "invitation token");
        Box::pin(async { Ok(()) })
    }

    fn verification<'a>(
        &'a self,
        email: &'a str,
        token: &'a OpaqueToken,
        life: TimeDelta,
    ) -> Sending<'a> {
        let (token, hours) = (token.expose(), life.num_hours());
        tracing::warn!(email, token, hours, "address verification token");
        Box::pin(async { Ok(()) })
    }

    fn notice<'a>(&'a self, email: &'a str, notice: Notice) -> Sending<'a> {
        tracing::warn!(email, notice = notice.text(), "security notice");
        Box::pin(async { Ok(()) })
    }
}
