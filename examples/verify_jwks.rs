//! Another service that trusts this one's access tokens: by its public keys alone, without its store.
//!
//! `cargo run -p coditect-examples --bin verify_jwks`

use coditect_auth::{
    AccessSettings, Auth, ClientInfo, Error, JwksVerifier, MasterKey, Registration, Settings,
    TokenError, entities,
};
use coditect_store::{Clock, Store, engine::Database};

/// What the other service does with each request.
struct Billing {
    verifier: JwksVerifier,
    clock: Clock,
}

impl Billing {
    /// Whose bill is asked for. `document` gets the keys anew, as from
    /// `GET /.well-known/jwks.json`: a service asks for them at most once in some seconds, since anybody
    /// can make up a key's name.
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
    // The service that signs in users; elsewhere, as a rule.
    let store = entities(Store::options()).open(Database::scratch()?).await?;
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

    // Two rotations later the key that signs is one that it has never seen.
    auth.rotate_keys().await?;
    auth.rotate_keys().await?;
    let tokens = auth.refresh(ada.tokens.refresh.expose(), None, &ClientInfo::default()).await?;
    assert_eq!(billing.whose_bill(tokens.access.expose(), || auth.jwks())?, bill);

    // Nobody else's tokens are taken, and no refresh tokens.
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
