//! A service that links identity and the store. It authenticates the caller in the transaction that
//! answers, so a revocation is effective for the next request.
//!
//! `cargo run -p coditect-examples --bin authenticate`

use coditect_auth::{
    Auth, ClientInfo, Credential, Error, MasterKey, NewPersonalToken, Registration, Scope, Scopes,
    Settings, SignIn, entities,
};
use coditect_store::{
    Clock, Store,
    engine::Database,
    model::{Json, Setting, SettingScope},
};

/// Stores a colour for the user of `token`, and returns the user.
async fn set_colour(
    store: &Store,
    auth: &Auth,
    token: &str,
    colour: &str,
) -> Result<String, Error> {
    let credential = &auth.verify_credential(token).await?;
    let now = Clock::system().now();
    store
        .run(|tx| async move {
            let caller = auth.authenticate(&tx, credential).await?;
            caller.require_scope(Scope::Write)?;
            let setting = Setting {
                tenant_id: caller.tenant_id,
                scope: SettingScope::User(caller.user.id),
                key: "colour".to_owned(),
                value: Json(serde_json::json!(colour)),
                updated_at: now,
            };
            tx.upsert(&setting).await?;
            Ok(caller.user.email)
        })
        .await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let store = entities(Store::options()).open(Database::temporary()?).await?;
    let (master, clock) = (MasterKey::generate()?, Clock::system());
    let auth = Auth::open(store.clone(), master, clock, Settings::default()).await?;
    let (email, password, client) =
        ("ada@example.org", "correct horse battery", ClientInfo::default());
    let new = Registration { email, password, first_name: None, last_name: None };
    auth.register(new, &client).await?;
    let sign_in = SignIn { email, password, code: None, tenant: None };
    let tokens = auth.login(sign_in, &client).await?.tokens;
    let access = tokens.access.expose();
    assert_eq!(set_colour(&store, &auth, access, "green").await?, email);

    // A personal access token with read access only.
    let reader =
        NewPersonalToken::new("dashboard", Scopes::new(&["read"])?, chrono::TimeDelta::days(90))?;
    let (credential, auth_ref) = (&auth.verify_credential(access).await?, &auth);
    let (reader_ref, client_ref) = (&reader, &client);
    store
        .run(|tx| async move {
            let caller = auth_ref.authenticate(&tx, credential).await?;
            auth_ref.create_personal_token(&tx, &caller, reader_ref, client_ref).await
        })
        .await?;
    let refused = set_colour(&store, &auth, reader.text().expose(), "red").await;
    assert!(matches!(refused, Err(Error::Forbidden(_))));

    // After the logout the next request is refused, although the token has not expired.
    auth.logout(Credential::Refresh(tokens.refresh.expose()), &client).await?;
    let refused = set_colour(&store, &auth, access, "blue").await;
    assert!(matches!(refused, Err(Error::SessionRevoked)));
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::main().unwrap();
    }
}
