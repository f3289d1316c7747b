//! Verifies access tokens in another service, with the published keys and without the store.
//!
//! `cargo run -p coditect-examples --bin verify_jwks`

use coditect_auth::{
    AccessSettings, Auth, ClientInfo, Error, JwksVerifier, MasterKey, Registration, Settings,
    TokenError, entities,
};
use coditect_store::{Clock, Store, engine::Database};

/// Authenticates a request in the other service.
struct Billing {
    verifier: JwksVerifier,
    clock: Clock,
}

impl Billing {
    /// Returns the user of a token. `document` fetches the keys, as from `GET
    /// /.well-known/jwks.json`. A service limits how often it fetches them, since a client can send
    /// any key id.
    fn whose_bill(
        &mut self,
        token: &str,
        document: impl Fn() -> serde_json::Value,
    ) -> Result<String, Error> {
        let now = self.clock.now();
        let claims = match self.verifier.verify(token, now) {
            Err(Error::TokenInvalid(TokenError::UnknownKey)) => {
                self.verifier.replace_keys(&document())?;
                self.verifier.verify(token, now)?
            }
            verified => verified?,
        };
        Ok(format!("the bill of tenant {}", claims.tenant_id))
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    // The service that signs in users, usually another process.
    let store = entities(Store::options()).open(Database::temporary()?).await?;
    let (master, clock) = (MasterKey::generate()?, Clock::system());
    let auth = Auth::open(store, master, clock.clone(), Settings::default()).await?;
    let new = Registration {
        email: "ada@example.org",
        password: "correct horse battery",
        first_name: None,
        last_name: None,
    };
    let ada = auth.register(new, &ClientInfo::default()).await?;

    let verifier = JwksVerifier::new(&auth.jwks(), AccessSettings::default())?;
    let mut billing = Billing { verifier, clock };
    let bill = billing.whose_bill(ada.tokens.access.expose(), || auth.jwks())?;
    assert_eq!(bill, format!("the bill of tenant {}", ada.user.tenant_id));

    // Two rotations later the signing key is unknown to the verifier.
    auth.rotate_keys().await?;
    auth.rotate_keys().await?;
    let tokens = auth.refresh(ada.tokens.refresh.expose(), None, &ClientInfo::default()).await?;
    assert_eq!(billing.whose_bill(tokens.access.expose(), || auth.jwks())?, bill);

    // Tokens of other issuers and refresh tokens are refused.
    let refused = billing.whose_bill(tokens.refresh.expose(), || auth.jwks());
    assert!(matches!(refused, Err(Error::TokenInvalid(_))));
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::main().unwrap();
    }
}
