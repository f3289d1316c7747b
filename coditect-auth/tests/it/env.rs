//! Test environment: a store with identity over it, and a manual clock.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use coditect_auth::{
    Auth, Claims, ClientInfo, Credential, Error, HashParams, Identity, Lifetimes, Mailer,
    MasterKey, Notice, OpaqueToken, Registration, Settings, SignIn, SignedIn, Tokens,
    VerifiedCredential, entities, mailer::Sending,
};
use coditect_store::{Clock, ManualClock, Store, engine::Database, model::User};

pub(crate) struct TestEnv {
    pub(crate) store: Store,
    pub(crate) clock: ManualClock,
    pub(crate) master: MasterKey,
    pub(crate) auth: Auth,
    pub(crate) mailer: Arc<TestMailer>,
}

/// Records sent tokens and notices, by address.
#[derive(Debug, Default)]
pub(crate) struct TestMailer(Mutex<Vec<(String, String)>>, Mutex<Vec<(String, Notice)>>);

impl TestMailer {
    pub(crate) fn sent(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Waits for `count` notices to an address, which are sent in the background, and returns them.
    pub(crate) async fn notices(&self, email: &str, count: usize) -> Vec<Notice> {
        for _ in 0..10_000 {
            let sent = self.1.lock().unwrap().clone();
            let sent: Vec<_> = sent.into_iter().filter(|it| it.0 == email).map(|it| it.1).collect();
            if sent.len() >= count {
                return sent;
            }
            tokio::task::yield_now().await;
        }
        panic!("{count} notices were not sent")
    }

    pub(crate) fn last_token(&self, email: &str) -> Option<String> {
        let sent = self.0.lock().unwrap();
        sent.iter().rev().find(|(to, _)| to == email).map(|(_, token)| token.clone())
    }

    fn keep(&self, email: &str, token: &OpaqueToken) -> Sending<'static> {
        self.0.lock().unwrap().push((email.to_owned(), token.expose().to_owned()));
        Box::pin(async { Ok(()) })
    }
}

impl Mailer for TestMailer {
    fn password_reset<'a>(
        &'a self,
        email: &'a str,
        token: &'a OpaqueToken,
        _: TimeDelta,
    ) -> Sending<'a> {
        self.keep(email, token)
    }

    fn invitation<'a>(
        &'a self,
        email: &'a str,
        _: &'a str,
        token: &'a OpaqueToken,
        _: TimeDelta,
    ) -> Sending<'a> {
        self.keep(email, token)
    }

    fn verification<'a>(
        &'a self,
        email: &'a str,
        token: &'a OpaqueToken,
        _: TimeDelta,
    ) -> Sending<'a> {
        self.keep(email, token)
    }

    fn notice<'a>(&'a self, email: &'a str, notice: Notice) -> Sending<'a> {
        self.1.lock().unwrap().push((email.to_owned(), notice));
        Box::pin(async { Ok(()) })
    }
}

pub(crate) const PASSWORD: &str = "testpass123";

impl TestEnv {
    pub(crate) async fn new() -> Self {
        Self::with_grace(Lifetimes::default().grace).await
    }

    pub(crate) async fn with_grace(grace: TimeDelta) -> Self {
        Self::over(Database::temporary().unwrap(), grace).await
    }

    /// Always in memory, for tests with a paused clock, in which no cluster responds.
    pub(crate) async fn in_memory() -> Self {
        Self::over(Database::memory().unwrap(), Lifetimes::default().grace).await
    }

    async fn over(database: Database, grace: TimeDelta) -> Self {
        let store = entities(Store::options()).open(database).await.unwrap();
        let clock = ManualClock::new(DateTime::UNIX_EPOCH + TimeDelta::days(20_000));
        let master = MasterKey::generate().unwrap();
        let mailer = Arc::new(TestMailer::default());
        let settings = settings(grace).mailer(Some(mailer.clone()));
        let auth = Auth::open(store.clone(), master.clone(), Clock::from(&clock), settings);
        let auth = auth.await.unwrap();
        Self { store, clock, master, auth, mailer }
    }

    /// Opens another server over the same store.
    pub(crate) async fn another(&self, master: MasterKey) -> Result<Auth, Error> {
        let settings = settings(Lifetimes::default().grace);
        Auth::open(self.store.clone(), master, Clock::from(&self.clock), settings).await
    }

    /// Opens another server over the same store, with another limit of logins.
    pub(crate) async fn limited_to(&self, max_logins: usize) -> Auth {
        let settings = settings(Lifetimes::default().grace).max_logins(max_logins);
        let clock = Clock::from(&self.clock);
        Auth::open(self.store.clone(), self.master.clone(), clock, settings).await.unwrap()
    }

    /// Opens another server over the same store, with a mailer and settings changed by `change`.
    pub(crate) async fn with(&self, change: impl FnOnce(&mut Settings)) -> Auth {
        let mut settings = settings(Lifetimes::default().grace).mailer(Some(self.mailer.clone()));
        change(&mut settings);
        let clock = Clock::from(&self.clock);
        Auth::open(self.store.clone(), self.master.clone(), clock, settings).await.unwrap()
    }

    /// Opens another server over the same store, with the default hash parameters.
    pub(crate) async fn with_dearer_hashes(&self) -> Auth {
        let clock = Clock::from(&self.clock);
        let settings = Settings::default();
        Auth::open(self.store.clone(), self.master.clone(), clock, settings).await.unwrap()
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        Clock::from(&self.clock).now()
    }

    pub(crate) async fn register(&self, email: &str) -> Result<SignedIn, Error> {
        let registration =
            Registration { email, password: PASSWORD, first_name: None, last_name: None };
        self.auth.register(registration, &ClientInfo::default()).await
    }

    pub(crate) async fn login(&self, email: &str, password: &str) -> Result<SignedIn, Error> {
        self.auth.login(sign_in(email, password), &ClientInfo::default()).await
    }

    pub(crate) async fn logout(&self, credential: Credential<'_>) -> Result<(), Error> {
        self.auth.logout(credential, &ClientInfo::default()).await
    }

    pub(crate) async fn logout_everywhere(&self, credential: Credential<'_>) -> Result<(), Error> {
        self.auth.logout_everywhere(credential, &ClientInfo::default()).await
    }

    /// Authenticates an access token as a request does.
    pub(crate) async fn caller(&self, access: &str) -> Result<Identity, Error> {
        let credential = self.auth.verify_credential(access).await?;
        self.identity(&credential).await
    }

    pub(crate) async fn identity(
        &self,
        credential: &VerifiedCredential,
    ) -> Result<Identity, Error> {
        let auth = &self.auth;
        self.store.run(|tx| async move { auth.authenticate(&tx, credential).await }).await
    }

    pub(crate) async fn claims(&self, tokens: &Tokens) -> Claims {
        self.auth.verify(tokens.access.expose()).await.unwrap()
    }

    pub(crate) async fn refresh(&self, tokens: &Tokens) -> Result<Tokens, Error> {
        self.auth.refresh(tokens.refresh.expose(), None, &ClientInfo::default()).await
    }

    /// Returns whether the access token is accepted.
    pub(crate) async fn holds(&self, tokens: &Tokens) -> bool {
        self.caller(tokens.access.expose()).await.is_ok()
    }

    pub(crate) async fn update_user(&self, user: &User) {
        self.store.run(|tx| async move { tx.update(user).await }).await.unwrap();
    }
}

/// Returns a login without a second factor, into the primary tenant.
pub(crate) fn sign_in<'a>(email: &'a str, password: &'a str) -> SignIn<'a> {
    SignIn { email, password, code: None, tenant: None }
}

fn settings(grace: TimeDelta) -> Settings {
    Settings::default()
        .hash(HashParams::weak_for_tests())
        .lifetimes(Lifetimes::default().grace(grace))
}
