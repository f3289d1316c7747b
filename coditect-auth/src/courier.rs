//! How what only its addressee is to have gets to them: by e-mail, as a rule, which is the operator's.

use std::{error::Error as StdError, fmt, future::Future, pin::Pin};

use chrono::TimeDelta;

use crate::OpaqueText;

/// Whether it is on its way.
pub type Sending<'a> =
    Pin<Box<dyn Future<Output = Result<(), Box<dyn StdError + Send + Sync>>> + Send + 'a>>;

/// Sends tokens to addresses. It is called when what it sends is in the store already, and nobody who
/// asked waits for it in a way that tells them anything.
pub trait Courier: fmt::Debug + Send + Sync {
    /// A token that resets the password of the account of `email`, good for `life`.
    fn password_reset<'a>(
        &'a self,
        email: &'a str,
        token: &'a OpaqueText,
        life: TimeDelta,
    ) -> Sending<'a>;

    /// An invitation of `email` into the tenant of that name, good for `life`.
    fn invitation<'a>(
        &'a self,
        email: &'a str,
        tenant: &'a str,
        token: &'a OpaqueText,
        life: TimeDelta,
    ) -> Sending<'a>;
}

/// Sends nothing: who wants their password reset asks an operator.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCourier;

/// Writes tokens to the log, for whoever tries the service out on their own machine. It is the one place
/// where a secret gets into a log, and is never the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogCourier;

impl Courier for NoCourier {
    fn password_reset<'a>(&'a self, _: &'a str, _: &'a OpaqueText, _: TimeDelta) -> Sending<'a> {
        Box::pin(async { Ok(()) })
    }

    fn invitation<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a OpaqueText,
        _: TimeDelta,
    ) -> Sending<'a> {
        Box::pin(async { Ok(()) })
    }
}

impl Courier for LogCourier {
    fn password_reset<'a>(
        &'a self,
        email: &'a str,
        token: &'a OpaqueText,
        life: TimeDelta,
    ) -> Sending<'a> {
        let (token, minutes) = (token.expose(), life.num_minutes());
        tracing::warn!(email, token, minutes, "a password reset");
        Box::pin(async { Ok(()) })
    }

    fn invitation<'a>(
        &'a self,
        email: &'a str,
        tenant: &'a str,
        token: &'a OpaqueText,
        life: TimeDelta,
    ) -> Sending<'a> {
        let (token, days) = (token.expose(), life.num_days());
        tracing::warn!(email, tenant, token, days, "an invitation");
        Box::pin(async { Ok(()) })
    }
}
