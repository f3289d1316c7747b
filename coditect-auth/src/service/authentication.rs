//! Who makes a request.

use coditect_store::{
    Transaction,
    model::{AuthSession, User, UserStatus},
};

use super::{Auth, Identity};
use crate::{Claims, Error, TokenError};

impl Auth {
    /// What an access token says, if it was signed here and is of the time. That is half an answer:
    /// [`authenticate`](Self::authenticate) is the other.
    ///
    /// # Errors
    ///
    /// [`Error::TokenInvalid`], [`Error::TokenExpired`]; [`Error::Store`] if its key is not known
    /// yet and the ring could not be read again.
    pub async fn verify(&self, token: &str) -> Result<Claims, Error> {
        let now = self.clock.now();
        match self.access.verify(&self.ring(), token, now) {
            // Another server may have rotated the keys.
            Err(TokenError::UnknownKey) => {
                self.reload_ring().await?;
                Ok(self.access.verify(&self.ring(), token, now)?)
            }
            verified => Ok(verified?),
        }
    }

    /// Who makes a request with a token that says `claims`, as of `tx`: two reads by key, at once.
    ///
    /// # Errors
    ///
    /// [`Error::SessionRevoked`], [`Error::SessionExpired`], [`Error::Store`].
    pub async fn authenticate(&self, tx: &Transaction, claims: &Claims) -> Result<Identity, Error> {
        let (session, user) = tokio::try_join!(
            tx.get::<AuthSession>(claims.tenant_id, claims.session_id),
            tx.get::<User>(claims.tenant_id, claims.sub),
        )?;
        let (Some(session), Some(user)) = (session, user) else {
            return Err(Error::SessionRevoked);
        };
        let is_theirs = session.user_id == user.id && session.token_family == claims.token_family;
        if !is_theirs || session.revocation.is_some() || user.status != UserStatus::Enabled {
            return Err(Error::SessionRevoked);
        }
        if !session.holds_at(self.clock.now()) {
            return Err(Error::SessionExpired);
        }
        Ok(Identity { user, session })
    }
}
