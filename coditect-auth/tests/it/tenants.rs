//! Tenants with several users.

use chrono::TimeDelta;
use coditect_auth::{
    ClientInfo, Credential, Error, Identity, NewInvitation, NewPersonalToken, Scopes, SignIn,
    SignedIn, model::Invitation,
};
use coditect_store::model::{AuditEntry, Membership, Role, UserStatus};

use crate::env::{PASSWORD, TestEnv, sign_in};

struct Team {
    env: TestEnv,
    owner: SignedIn,
    guest: SignedIn,
}

impl Team {
    async fn new() -> Self {
        let env = TestEnv::new().await;
        let owner = env.register("owner@example.org").await.unwrap();
        let guest = env.register("guest@example.org").await.unwrap();
        Self { env, owner, guest }
    }

    async fn identity(&self, of: &SignedIn) -> Identity {
        self.env.caller(of.tokens.access.expose()).await.unwrap()
    }

    async fn invite(&self, by: &Identity, email: &str, role: Role) -> Result<String, Error> {
        let new = NewInvitation::new(email, role)?;
        let tx = self.env.store.begin();
        self.env.auth.invite(&tx, by, &new, &ClientInfo::default()).await?;
        tx.commit().await?;
        Ok(new.text().expose().to_owned())
    }

    async fn accept(&self, by: &Identity, text: &str) -> Result<Membership, Error> {
        let tx = self.env.store.begin();
        let accepted =
            self.env.auth.accept_invitation(&tx, by, text, &ClientInfo::default()).await?;
        tx.commit().await?;
        Ok(accepted)
    }

    /// Makes the guest a member, logged in there.
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
        self.env.auth.login(sign_in, &ClientInfo::default()).await
    }
}

#[tokio::test]
async fn invitation_is_accepted_once_by_its_address() {
    let team = Team::new().await;
    let (owner, guest) = (team.identity(&team.owner).await, team.identity(&team.guest).await);
    let text = team.invite(&owner, " Guest@Example.org ", Role::Member).await.unwrap();
    let stranger = team.env.register("stranger@example.org").await.unwrap();
    let stranger = team.identity(&stranger).await;
    for by in [&stranger, &owner] {
        let refused = team.accept(by, &text).await;
        assert!(matches!(refused, Err(Error::InvitationInvalid)), "it is not for them");
    }
    let joined = team.accept(&guest, &text).await.unwrap();
    assert_eq!((joined.tenant_id, joined.role), (owner.tenant_id, Role::Member));
    let again = team.accept(&guest, &text).await;
    assert!(matches!(again, Err(Error::InvitationInvalid)));

    let tx = team.env.store.begin();
    let tenants = team.env.auth.tenants_of(&tx, &guest, (50, None)).await.unwrap();
    let tenants: Vec<_> = tenants.items.iter().map(|(tenant, role)| (tenant.id, *role)).collect();
    assert_eq!(tenants, [(guest.tenant_id, Role::Owner), (owner.tenant_id, Role::Member)]);
    let members = team.env.auth.members(&tx, &owner, (50, None)).await.unwrap();
    let members: Vec<_> = members.items.iter().map(|it| (it.user.id, it.role)).collect();
    assert_eq!(members, [(owner.user.id, Role::Owner), (guest.user.id, Role::Member)]);
}

#[tokio::test]
async fn invitation_ends_after_a_week_or_when_withdrawn() {
    let team = Team::new().await;
    let (owner, guest) = (team.identity(&team.owner).await, team.identity(&team.guest).await);
    let text = team.invite(&owner, "guest@example.org", Role::Member).await.unwrap();
    let tx = team.env.store.begin();
    let open = team.env.auth.invitations(&tx, &owner, (50, None)).await.unwrap();
    let (auth, id, from) = (&team.env.auth, open.items[0].id, &ClientInfo::default());
    auth.withdraw_invitation(&tx, &owner, id, from).await.unwrap();
    tx.commit().await.unwrap();
    assert!(matches!(team.accept(&guest, &text).await, Err(Error::InvitationInvalid)));

    let text = team.invite(&owner, "guest@example.org", Role::Member).await.unwrap();
    team.env.clock.advance(TimeDelta::days(7));
    assert!(matches!(team.accept(&guest, &text).await, Err(Error::InvitationInvalid)));
    team.env.clock.advance(TimeDelta::hours(2));
    assert!(team.env.auth.purge_expired().await.unwrap() > 0);
}

#[tokio::test]
async fn active_tenant_is_chosen_at_login_or_refresh_and_kept() {
    let team = Team::new().await;
    let there = Some(team.owner.user.tenant_id);
    assert!(matches!(team.sign_in("guest@example.org").await, Err(Error::NotAMember)));
    let member = team.join(Role::Member).await;
    let caller = team.identity(&member).await;
    assert_eq!((Some(caller.tenant_id), caller.role), (there, Role::Member));
    assert_eq!(caller.user.tenant_id, team.guest.user.tenant_id);

    let from = &ClientInfo::default();
    let auth = &team.env.auth;
    let kept = auth.refresh(member.tokens.refresh.expose(), None, from).await.unwrap();
    assert_eq!(Some(kept.tenant_id), there);
    let own = Some(team.guest.user.tenant_id);
    let back = auth.refresh(kept.refresh.expose(), own, from).await.unwrap();
    assert_eq!(Some(back.tenant_id), own);
    let caller = team.env.caller(back.access.expose()).await.unwrap();
    assert_eq!((caller.tenant_id, caller.role), (team.guest.user.tenant_id, Role::Owner));
    let strange = auth
        .refresh(back.refresh.expose(), Some(coditect_store::model::TenantId::new()), from)
        .await;
    assert!(matches!(strange, Err(Error::NotAMember)));
    auth.refresh(back.refresh.expose(), None, from).await.unwrap();
}

#[tokio::test]
async fn removed_member_is_locked_out_at_once_and_keeps_their_own_tenant() {
    let team = Team::new().await;
    let member = team.join(Role::Member).await;
    let owner = team.identity(&team.owner).await;
    let tx = team.env.store.begin();
    let guest = team.guest.user.id;
    team.env.auth.remove_member(&tx, &owner, guest, &ClientInfo::default()).await.unwrap();
    tx.commit().await.unwrap();
    let refused = team.env.caller(member.tokens.access.expose()).await;
    assert!(matches!(refused, Err(Error::NotAMember)));
    let tokens = team.env.refresh(&member.tokens).await.unwrap();
    assert_eq!(tokens.tenant_id, team.guest.user.tenant_id, "the login is not lost");
    assert!(team.env.holds(&tokens).await);
    assert!(matches!(team.sign_in("guest@example.org").await, Err(Error::NotAMember)));
    // They can log out everywhere from there too.
    let credential = Credential::Refresh(tokens.refresh.expose());
    team.env.logout_everywhere(credential).await.unwrap();
}

#[tokio::test]
async fn roles_limit_operations() {
    let team = Team::new().await;
    let device = &ClientInfo::default();
    let member = team.join(Role::Member).await;
    let member = team.identity(&member).await;
    let owner = team.identity(&team.owner).await;
    let tx = team.env.store.begin();
    let auth = &team.env.auth;
    let invited = team.invite(&member, "x@example.org", Role::Member).await;
    assert!(matches!(invited, Err(Error::Forbidden(_))));
    assert!(matches!(auth.invitations(&tx, &member, (50, None)).await, Err(Error::Forbidden(_))));
    let change = auth.change_role(&tx, &member, member.user.id, Role::Owner, device).await;
    assert!(matches!(change, Err(Error::Forbidden(_))), "nobody promotes themselves");

    auth.change_role(&tx, &owner, member.user.id, Role::Admin, device).await.unwrap();
    tx.commit().await.unwrap();
    let admin = team.sign_in("guest@example.org").await.unwrap();
    let admin = team.identity(&admin).await;
    team.invite(&admin, "x@example.org", Role::Admin).await.unwrap();
    let above = team.invite(&admin, "x@example.org", Role::Owner).await;
    assert!(matches!(above, Err(Error::Forbidden(_))));
    let tx = team.env.store.begin();
    let change = auth.change_role(&tx, &admin, admin.user.id, Role::Owner, device).await;
    assert!(matches!(change, Err(Error::Forbidden(_))));
    let remove = auth.remove_member(&tx, &admin, owner.user.id, device).await;
    assert!(matches!(remove, Err(Error::NotFound)), "whose own it is cannot be removed");
    auth.remove_member(&tx, &admin, admin.user.id, device).await.unwrap();
}

#[tokio::test]
async fn invitation_into_a_deleted_tenant_is_invalid() {
    let team = Team::new().await;
    let (owner, guest) = (team.identity(&team.owner).await, team.identity(&team.guest).await);
    let text = team.invite(&owner, "guest@example.org", Role::Member).await.unwrap();
    let (store, now) = (&team.env.store, team.env.now());
    let delete = |tx: coditect_store::Transaction| {
        let tenant = owner.tenant_id;
        async move { tx.delete_tenant(tenant, now).await }
    };
    let deletion = store.run(delete).await.unwrap().unwrap();
    assert!(matches!(team.accept(&guest, &text).await, Err(Error::InvitationInvalid)));
    store.resume_deletion(&deletion).await.unwrap();
    assert!(matches!(team.accept(&guest, &text).await, Err(Error::InvitationInvalid)));
}

/// Returns an access token and a personal token of a member of the owner's tenant.
async fn issued(team: &Team, member: &SignedIn) -> [String; 2] {
    let caller = team.identity(member).await;
    let scopes = Scopes::new(&["write"]).unwrap();
    let new = NewPersonalToken::new("bot", scopes, TimeDelta::days(9)).unwrap();
    let tx = team.env.store.begin();
    team.env.auth.create_personal_token(&tx, &caller, &new, &ClientInfo::default()).await.unwrap();
    tx.commit().await.unwrap();
    [member.tokens.access.expose().to_owned(), new.text().expose().to_owned()]
}

async fn remove(team: &Team, by: &Identity, member: &SignedIn) {
    let tx = team.env.store.begin();
    let from = &ClientInfo::default();
    team.env.auth.remove_member(&tx, by, member.user.id, from).await.unwrap();
    tx.commit().await.unwrap();
    team.env.clock.advance(TimeDelta::seconds(1));
}

#[tokio::test]
async fn invitations_of_a_removed_member_are_void() {
    let team = Team::new().await;
    let member = team.join(Role::Admin).await;
    let (owner, guest) = (team.identity(&team.owner).await, team.identity(&team.guest).await);
    let alt = team.env.register("alt@example.org").await.unwrap();
    let alt = team.identity(&alt).await;
    let admin = team.identity(&member).await;
    let spare = team.invite(&admin, "alt@example.org", Role::Member).await.unwrap();
    let own = team.invite(&admin, "guest@example.org", Role::Admin).await.unwrap();
    let of_owner = team.invite(&owner, "guest@example.org", Role::Admin).await.unwrap();
    let refused = team.accept(&guest, &own).await;
    assert!(matches!(refused, Err(Error::InvitationInvalid)), "one's own");
    team.env.clock.advance(TimeDelta::seconds(1));
    remove(&team, &owner, &member).await;
    for (by, text) in [(&alt, &spare), (&guest, &own), (&guest, &of_owner)] {
        let refused = team.accept(by, text).await;
        assert!(matches!(refused, Err(Error::InvitationInvalid)));
    }
    // Nor by a later membership.
    let again = team.invite(&owner, "guest@example.org", Role::Admin).await.unwrap();
    team.accept(&guest, &again).await.unwrap();
    assert!(matches!(team.accept(&alt, &spare).await, Err(Error::InvitationInvalid)));
}

#[tokio::test]
async fn invitations_of_a_demoted_member_are_void_for_good() {
    let team = Team::new().await;
    let member = team.join(Role::Owner).await;
    let (owner, co_owner) = (team.identity(&team.owner).await, team.identity(&member).await);
    let alt = team.env.register("alt@example.org").await.unwrap();
    let alt = team.identity(&alt).await;
    // More than one transaction's batch.
    for n in 0..150 {
        team.invite(&co_owner, &format!("x{n}@example.org"), Role::Member).await.unwrap();
    }
    let spare = team.invite(&co_owner, "alt@example.org", Role::Member).await.unwrap();
    let (auth, from) = (&team.env.auth, &ClientInfo::default());
    for role in [Role::Admin, Role::Owner] {
        let tx = team.env.store.begin();
        auth.change_role(&tx, &owner, co_owner.user.id, role, from).await.unwrap();
        tx.commit().await.unwrap();
        assert!(matches!(team.accept(&alt, &spare).await, Err(Error::InvitationInvalid)));
        let tx = team.env.store.begin();
        let listed = auth.invitations(&tx, &owner, (200, None)).await.unwrap();
        assert_eq!(listed.items, [], "void ones are not listed");
    }
    auth.revoke_invitations(owner.tenant_id, co_owner.user.id).await.unwrap();
    let left = team.env.store.begin().list::<Invitation>(owner.tenant_id).all(1_000).await;
    assert_eq!(left.unwrap(), []);
    let fresh = team.invite(&co_owner, "alt@example.org", Role::Member).await.unwrap();
    team.accept(&alt, &fresh).await.unwrap();
}

#[tokio::test]
async fn invitations_to_a_demoted_member_are_void() {
    let team = Team::new().await;
    let owner = team.identity(&team.owner).await;
    let spare = team.invite(&owner, "guest@example.org", Role::Admin).await.unwrap();
    let other = team.invite(&owner, "other@example.org", Role::Admin).await.unwrap();
    team.join(Role::Admin).await;
    team.env.clock.advance(TimeDelta::seconds(1));
    let guest = team.identity(&team.guest).await;
    let latest = team.invite(&owner, "Guest@example.org", Role::Admin).await.unwrap();
    team.env.clock.advance(TimeDelta::seconds(1));
    let (auth, from) = (&team.env.auth, &ClientInfo::default());
    let tx = team.env.store.begin();
    auth.change_role(&tx, &owner, guest.user.id, Role::Member, from).await.unwrap();
    tx.commit().await.unwrap();
    for text in [&spare, &latest] {
        let refused = team.accept(&guest, text).await;
        assert!(matches!(refused, Err(Error::InvitationInvalid)), "{refused:?}");
    }
    let tx = team.env.store.begin();
    let listed = auth.invitations(&tx, &owner, (200, None)).await.unwrap().items;
    let listed: Vec<_> = listed.iter().map(|it| it.email.as_str()).collect();
    assert_eq!(listed, ["other@example.org"], "those to others stay");
    assert_eq!(auth.tenants_of(&tx, &guest, (50, None)).await.unwrap().items[1].1, Role::Member);
    let member = team.env.register("other@example.org").await.unwrap();
    team.accept(&team.identity(&member).await, &other).await.unwrap();
    // An invitation created after the change raises the role.
    let fresh = team.invite(&owner, "guest@example.org", Role::Admin).await.unwrap();
    assert_eq!(team.accept(&guest, &fresh).await.unwrap().role, Role::Admin);
}

#[tokio::test]
async fn invitation_older_than_the_last_change_of_a_membership_does_not_raise_its_role() {
    let team = Team::new().await;
    let owner = team.identity(&team.owner).await;
    let guest = team.identity(&team.guest).await;
    let spare = team.invite(&owner, "guest@example.org", Role::Admin).await.unwrap();
    team.env.clock.advance(TimeDelta::seconds(1));
    team.join(Role::Member).await;
    let refused = team.accept(&guest, &spare).await;
    assert!(matches!(refused, Err(Error::InvitationInvalid)), "{refused:?}");
    let member = team.sign_in("guest@example.org").await.unwrap();
    assert_eq!(team.identity(&member).await.role, Role::Member);
}

#[tokio::test]
async fn repeated_refresh_that_enters_a_tenant_is_audited() {
    let team = Team::new().await;
    team.join(Role::Member).await;
    let (auth, from) = (&team.env.auth, &ClientInfo::default());
    let there = team.owner.user.tenant_id;
    let entries = async || {
        let log = team.env.store.begin().events::<AuditEntry>(there, (), ..);
        let entries = log.page(200, None).await.unwrap().items;
        entries.iter().filter(|entry| entry.record.action == "tenant.entered").count()
    };
    let first = team.env.login("guest@example.org", PASSWORD).await.unwrap().tokens;
    let before = entries().await;
    let own = auth.refresh(first.refresh.expose(), None, from).await.unwrap();
    assert_eq!(own.tenant_id, team.guest.user.tenant_id);
    assert_eq!(entries().await, before);
    let entered = auth.refresh(first.refresh.expose(), Some(there), from).await.unwrap();
    assert_eq!(entered.tenant_id, there);
    assert_eq!(entries().await, before + 1);
    // A repeat for the active tenant adds no entry.
    let second = auth.refresh(own.refresh.expose(), Some(there), from).await.unwrap();
    assert_eq!(entries().await, before + 2);
    auth.refresh(own.refresh.expose(), Some(there), from).await.unwrap();
    auth.refresh(own.refresh.expose(), None, from).await.unwrap();
    assert_eq!(entries().await, before + 2);
    auth.refresh(second.refresh.expose(), None, from).await.unwrap();
}

#[tokio::test]
async fn invitation_of_a_disabled_admin_is_void_while_they_are() {
    let team = Team::new().await;
    let owner = team.identity(&team.owner).await;
    let guest = team.identity(&team.guest).await;
    let text = team.invite(&owner, "guest@example.org", Role::Member).await.unwrap();
    let auth = &team.env.auth;
    auth.set_status("owner@example.org", UserStatus::Disabled).await.unwrap();
    assert!(matches!(team.accept(&guest, &text).await, Err(Error::InvitationInvalid)));
    auth.set_status("owner@example.org", UserStatus::Enabled).await.unwrap();
    team.accept(&guest, &text).await.unwrap();
}

#[tokio::test]
async fn tokens_of_an_ended_membership_do_not_revive() {
    let team = Team::new().await;
    let member = team.join(Role::Admin).await;
    let tokens = issued(&team, &member).await;
    let owner = team.identity(&team.owner).await;
    remove(&team, &owner, &member).await;
    for token in &tokens {
        assert!(team.env.caller(token).await.is_err());
    }
    let again = team.join(Role::Member).await;
    for token in &tokens {
        let refused = team.env.caller(token).await;
        assert!(matches!(refused, Err(Error::NotAMember | Error::SessionRevoked)), "{refused:?}");
    }
    let kept = team.env.refresh(&member.tokens).await.unwrap();
    assert_eq!(kept.tenant_id, team.guest.user.tenant_id, "the login acts in their own again");
    assert_eq!(team.identity(&again).await.tenant_id, owner.tenant_id);
    let tx = team.env.store.begin();
    let guest = team.identity(&team.guest).await;
    assert_eq!(team.env.auth.personal_tokens(&tx, &guest, (50, None)).await.unwrap().items, []);
}

#[tokio::test]
async fn members_and_tenants_are_paged_without_gaps() {
    let team = Team::new().await;
    let owner = team.identity(&team.owner).await;
    let mut expected = vec![owner.user.id];
    let mut removed = Vec::new();
    for n in 0..7 {
        let email = format!("guest{n}@example.org");
        let guest = team.env.register(&email).await.unwrap();
        let text = team.invite(&owner, &email, Role::Member).await.unwrap();
        team.accept(&team.identity(&guest).await, &text).await.unwrap();
        if n % 3 == 0 {
            removed.push(guest);
        } else {
            expected.push(guest.user.id);
        }
    }
    for guest in &removed {
        remove(&team, &owner, guest).await;
    }
    expected.sort_unstable();
    for limit in [1, 2, 3, 50] {
        let (mut listed, mut next) = (Vec::new(), None);
        loop {
            let tx = team.env.store.begin();
            let page = team.env.auth.members(&tx, &owner, (limit, next.as_ref())).await.unwrap();
            assert!(page.items.len() <= limit);
            listed.extend(page.items.iter().map(|member| member.user.id));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(listed[0], owner.user.id, "whose own it is come first");
        listed.sort_unstable();
        assert_eq!(listed, expected, "by {limit}");
    }
}

#[tokio::test]
async fn tenant_being_deleted_is_locked() {
    let team = Team::new().await;
    let member = team.join(Role::Owner).await;
    let [_, program] = issued(&team, &member).await;
    let [_, own_program] = issued(&team, &team.owner).await;
    let (auth, from) = (&team.env.auth, &ClientInfo::default());
    let credential = auth.verify_credential(member.tokens.access.expose()).await.unwrap();
    auth.delete_tenant(&credential, PASSWORD, from).await.unwrap();
    for token in [member.tokens.access.expose(), &*program] {
        assert!(matches!(team.env.caller(token).await, Err(Error::NotAMember)));
    }
    for token in [team.owner.tokens.access.expose(), &*own_program] {
        assert!(matches!(team.env.caller(token).await, Err(Error::SessionRevoked)));
    }
    let refused = team.env.login("owner@example.org", PASSWORD).await;
    assert!(matches!(refused, Err(Error::InvalidCredentials)));
    assert!(matches!(team.env.refresh(&team.owner.tokens).await, Err(Error::SessionRevoked)));
    assert!(matches!(team.sign_in("guest@example.org").await, Err(Error::NotAMember)));
    let enabled = auth.set_status("owner@example.org", UserStatus::Enabled).await;
    assert!(matches!(enabled, Err(Error::NotFound)));
    let back = team.env.refresh(&member.tokens).await.unwrap();
    assert_eq!(back.tenant_id, team.guest.user.tenant_id);
    let tx = team.env.store.begin();
    let guest = team.env.caller(back.access.expose()).await.unwrap();
    let tenants = auth.tenants_of(&tx, &guest, (1, None)).await.unwrap();
    assert_eq!(tenants.items.len(), 1);
    let rest = auth.tenants_of(&tx, &guest, (1, tenants.next.as_ref())).await.unwrap();
    assert!(rest.items.is_empty() && rest.next.is_none());

    team.env.store.resume_deletions().await.unwrap();
    assert!(matches!(
        team.env.login("owner@example.org", PASSWORD).await,
        Err(Error::InvalidCredentials)
    ));
    let left = team.env.store.begin().events::<AuditEntry>(team.owner.user.tenant_id, (), ..);
    assert!(left.page(1, None).await.unwrap().items.is_empty(), "nothing is left behind");
}
