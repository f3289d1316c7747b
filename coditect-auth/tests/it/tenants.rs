//! Tenants with several users.

use chrono::TimeDelta;
use coditect_auth::{Credential, Device, Error, Identity, NewInvitation, SignIn, SignedIn};
use coditect_store::model::{Membership, Role};

use crate::installation::{Installation, PASSWORD, sign_in};

struct Team {
    home: Installation,
    owner: SignedIn,
    guest: SignedIn,
}

impl Team {
    async fn new() -> Self {
        let home = Installation::new().await;
        let owner = home.register("owner@example.org").await.unwrap();
        let guest = home.register("guest@example.org").await.unwrap();
        Self { home, owner, guest }
    }

    async fn identity(&self, of: &SignedIn) -> Identity {
        self.home.caller(of.tokens.access.expose()).await.unwrap()
    }

    async fn invite(&self, by: &Identity, email: &str, role: Role) -> Result<String, Error> {
        let new = NewInvitation::new(email, role)?;
        let tx = self.home.store.begin();
        self.home.auth.invite(&tx, by, &new, &Device::default()).await?;
        tx.commit().await?;
        Ok(new.text().expose().to_owned())
    }

    async fn accept(&self, by: &Identity, text: &str) -> Result<Membership, Error> {
        let tx = self.home.store.begin();
        let accepted = self.home.auth.accept_invitation(&tx, by, text, &Device::default()).await?;
        tx.commit().await?;
        Ok(accepted)
    }

    /// The guest as a member, and signed in there.
    async fn join(&self, role: Role) -> SignedIn {
        let owner = self.identity(&self.owner).await;
        let text = self.invite(&owner, "guest@example.org", role).await.unwrap();
        let guest = self.identity(&self.guest).await;
        self.accept(&guest, &text).await.unwrap();
        self.sign_in("guest@example.org").await.unwrap()
    }

    async fn sign_in(&self, email: &str) -> Result<SignedIn, Error> {
        let tenant = Some(self.owner.user.tenant_id);
        let sign_in = SignIn { tenant, ..sign_in(email, PASSWORD) };
        self.home.auth.login(sign_in, &Device::default()).await
    }
}

#[tokio::test]
async fn an_invitation_makes_its_address_a_member_once() {
    let team = Team::new().await;
    let (owner, guest) = (team.identity(&team.owner).await, team.identity(&team.guest).await);
    let text = team.invite(&owner, " Guest@Example.org ", Role::Member).await.unwrap();
    let stranger = team.home.register("stranger@example.org").await.unwrap();
    let stranger = team.identity(&stranger).await;
    for by in [&stranger, &owner] {
        let refused = team.accept(by, &text).await;
        assert!(matches!(refused, Err(Error::InvitationInvalid)), "it is not for them");
    }
    let joined = team.accept(&guest, &text).await.unwrap();
    assert_eq!((joined.tenant_id, joined.role), (owner.tenant_id, Role::Member));
    let again = team.accept(&guest, &text).await;
    assert!(matches!(again, Err(Error::InvitationInvalid)));

    let tx = team.home.store.begin();
    let tenants = team.home.auth.tenants_of(&tx, &guest).await.unwrap();
    let tenants: Vec<_> = tenants.iter().map(|(tenant, role)| (tenant.id, *role)).collect();
    assert_eq!(tenants, [(guest.tenant_id, Role::Owner), (owner.tenant_id, Role::Member)]);
    let members = team.home.auth.members(&tx, &owner).await.unwrap();
    let members: Vec<_> = members.iter().map(|it| (it.user.id, it.role)).collect();
    assert_eq!(members, [(owner.user.id, Role::Owner), (guest.user.id, Role::Member)]);
}

#[tokio::test]
async fn an_invitation_ends_after_a_week_or_when_it_is_taken_back() {
    let team = Team::new().await;
    let (owner, guest) = (team.identity(&team.owner).await, team.identity(&team.guest).await);
    let text = team.invite(&owner, "guest@example.org", Role::Member).await.unwrap();
    let tx = team.home.store.begin();
    let open = team.home.auth.invitations(&tx, &owner).await.unwrap();
    let (auth, id, from) = (&team.home.auth, open[0].id, &Device::default());
    auth.withdraw_invitation(&tx, &owner, id, from).await.unwrap();
    tx.commit().await.unwrap();
    assert!(matches!(team.accept(&guest, &text).await, Err(Error::InvitationInvalid)));

    let text = team.invite(&owner, "guest@example.org", Role::Member).await.unwrap();
    team.home.clock.advance(TimeDelta::days(7));
    assert!(matches!(team.accept(&guest, &text).await, Err(Error::InvitationInvalid)));
    team.home.clock.advance(TimeDelta::hours(2));
    assert!(team.home.auth.sweep().await.unwrap() > 0);
}

#[tokio::test]
async fn a_member_chooses_the_tenant_at_login_or_at_a_refresh_and_keeps_it() {
    let team = Team::new().await;
    let there = Some(team.owner.user.tenant_id);
    assert!(matches!(team.sign_in("guest@example.org").await, Err(Error::NotAMember)));
    let member = team.join(Role::Member).await;
    let caller = team.identity(&member).await;
    assert_eq!((Some(caller.tenant_id), caller.role), (there, Role::Member));
    assert_eq!(caller.user.tenant_id, team.guest.user.tenant_id);

    let from = &Device::default();
    let auth = &team.home.auth;
    let kept = auth.refresh(member.tokens.refresh.expose(), None, from).await.unwrap();
    assert_eq!(Some(kept.tenant_id), there);
    let own = Some(team.guest.user.tenant_id);
    let back = auth.refresh(kept.refresh.expose(), own, from).await.unwrap();
    assert_eq!(Some(back.tenant_id), own);
    let caller = team.home.caller(back.access.expose()).await.unwrap();
    assert_eq!((caller.tenant_id, caller.role), (team.guest.user.tenant_id, Role::Owner));
    let strange = auth
        .refresh(back.refresh.expose(), Some(coditect_store::model::TenantId::new()), from)
        .await;
    assert!(matches!(strange, Err(Error::NotAMember)));
    auth.refresh(back.refresh.expose(), None, from).await.unwrap();
}

#[tokio::test]
async fn who_is_removed_is_out_at_once_and_goes_on_in_their_own() {
    let team = Team::new().await;
    let member = team.join(Role::Member).await;
    let owner = team.identity(&team.owner).await;
    let tx = team.home.store.begin();
    let guest = team.guest.user.id;
    team.home.auth.remove_member(&tx, &owner, guest, &Device::default()).await.unwrap();
    tx.commit().await.unwrap();
    let refused = team.home.caller(member.tokens.access.expose()).await;
    assert!(matches!(refused, Err(Error::NotAMember)));
    let tokens = team.home.refresh(&member.tokens).await.unwrap();
    assert_eq!(tokens.tenant_id, team.guest.user.tenant_id, "the login is not lost");
    assert!(team.home.holds(&tokens).await);
    assert!(matches!(team.sign_in("guest@example.org").await, Err(Error::NotAMember)));
    // They can sign out everywhere, from there too.
    let credential = Credential::Refresh(tokens.refresh.expose());
    team.home.logout_everywhere(credential).await.unwrap();
}

#[tokio::test]
async fn roles_bound_what_somebody_may_do() {
    let team = Team::new().await;
    let device = &Device::default();
    let member = team.join(Role::Member).await;
    let member = team.identity(&member).await;
    let owner = team.identity(&team.owner).await;
    let tx = team.home.store.begin();
    let auth = &team.home.auth;
    let invited = team.invite(&member, "x@example.org", Role::Member).await;
    assert!(matches!(invited, Err(Error::Forbidden(_))));
    assert!(matches!(auth.invitations(&tx, &member).await, Err(Error::Forbidden(_))));
    let change = auth.change_role(&tx, &member, member.user.id, Role::Owner, device).await;
    assert!(matches!(change, Err(Error::Forbidden(_))), "nobody promotes themselves");

    auth.change_role(&tx, &owner, member.user.id, Role::Admin, device).await.unwrap();
    tx.commit().await.unwrap();
    let admin = team.sign_in("guest@example.org").await.unwrap();
    let admin = team.identity(&admin).await;
    team.invite(&admin, "x@example.org", Role::Admin).await.unwrap();
    let above = team.invite(&admin, "x@example.org", Role::Owner).await;
    assert!(matches!(above, Err(Error::Forbidden(_))));
    let tx = team.home.store.begin();
    let change = auth.change_role(&tx, &admin, admin.user.id, Role::Owner, device).await;
    assert!(matches!(change, Err(Error::Forbidden(_))));
    let remove = auth.remove_member(&tx, &admin, owner.user.id, device).await;
    assert!(matches!(remove, Err(Error::NotFound)), "whose own it is cannot be removed");
    auth.remove_member(&tx, &admin, admin.user.id, device).await.unwrap();
}

#[tokio::test]
async fn an_invitation_into_a_tenant_that_is_deleted_opens_nothing() {
    let team = Team::new().await;
    let (owner, guest) = (team.identity(&team.owner).await, team.identity(&team.guest).await);
    let text = team.invite(&owner, "guest@example.org", Role::Member).await.unwrap();
    let (store, now) = (&team.home.store, team.home.now());
    let delete = |tx: coditect_store::Transaction| {
        let tenant = owner.tenant_id;
        async move { tx.delete_tenant(tenant, now).await }
    };
    let deletion = store.run(delete).await.unwrap().unwrap();
    assert!(matches!(team.accept(&guest, &text).await, Err(Error::InvitationInvalid)));
    store.complete(&deletion).await.unwrap();
    assert!(matches!(team.accept(&guest, &text).await, Err(Error::InvitationInvalid)));
}
