//! Tenants with several users: mine, and who is in the one that my token is for.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use coditect_auth::{
    Action, Identity, Member, NewInvitation,
    model::{Invitation, InvitationId},
};
use coditect_store::{
    Transaction,
    model::{Role, Tenant, TenantId, UserId},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{TenantView, caller, client_info};
use crate::{
    api::v5::checks,
    extract::{
        idempotency::{Made, Once},
        merge_patch,
    },
    http::{
        HandlerResult, Query, Request,
        conditions::{Conditions, Tag, tagged},
        problem::Problem,
        respond,
    },
    openapi::{self, Operation},
    state::App,
};

/// A partial tenant: what is missing stays as it is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TenantChange")]
struct Change {
    #[schemars(length(max = 200), regex(pattern = openapi::LINE))]
    #[serde(default)]
    #[schemars(with = "String")]
    name: merge_patch::Member<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewRole {
    role: Role,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "InvitationRequest")]
struct Inviting {
    email: String,
    role: Role,
    /// Whether it gives the right to use the IDE; by default it does if the inviter has it
    /// from an operator and invites into their own tenant.
    ide: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "InvitationAcceptance")]
struct Accepting {
    token: String,
}

#[derive(Serialize, JsonSchema)]
struct MyTenant<'a> {
    #[serde(flatten)]
    tenant: TenantView<'a>,
    role: Role,
    /// Whether my record is in it.
    own: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Member")]
struct MemberView<'a> {
    user_id: UserId,
    email: &'a str,
    first_name: Option<&'a str>,
    last_name: Option<&'a str>,
    role: Role,
    #[serde(serialize_with = "respond::time")]
    joined_at: DateTime<Utc>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Invitation")]
struct InvitationView<'a> {
    id: InvitationId,
    /// For `If-Match`.
    etag: String,
    email: &'a str,
    role: Role,
    /// Whether it gives the right to use the IDE.
    ide: bool,
    invited_by: UserId,
    #[serde(serialize_with = "respond::time")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    expires_at: DateTime<Utc>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NewInvitation")]
struct InvitedView<'a> {
    #[serde(flatten)]
    view: InvitationView<'a>,
    /// What whoever was invited accepts with, this once.
    token: &'a str,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TenantDeletion")]
struct Deletion {
    password: String,
}

#[derive(Serialize, JsonSchema)]
struct Joined {
    tenant_id: TenantId,
    role: Role,
}

pub(super) fn operations() -> Vec<Operation> {
    const TENANT: &str = "/api/v5/tenant";
    const INVITATIONS: &str = "/api/v5/tenant/invitations";
    const MEMBER: &str = "/api/v5/tenant/members/{user}";
    vec![
        Operation::get("/api/v5/auth/tenants", "myTenants", "List the tenants that I may act in")
            .pages::<MyTenant<'static>>(),
        Operation::post("/api/v5/auth/invitations/accept", "acceptInvitation", "Joins a tenant")
            .takes::<Accepting>()
            .gives::<Joined>()
            .once()
            .fails(&[409]),
        Operation::get(TENANT, "getTenant", "The tenant that my token is for")
            .gives::<TenantView<'static>>()
            .tagged(),
        Operation::patch(TENANT, "changeTenant", "Names it")
            .merges::<Change>()
            .gives::<TenantView<'static>>()
            .tagged(),
        Operation::delete(TENANT, "deleteTenant", "Deletes it, with every key of it")
            .takes::<Deletion>()
            .gives_nothing()
            .fails(&[404, 429]),
        Operation::get("/api/v5/tenant/members", "listMembers", "List the members of the tenant")
            .details("First the users whose own it is. A page may hold fewer than `limit`.")
            .pages::<MemberView<'static>>(),
        Operation::patch(MEMBER, "changeRole", "What somebody may do")
            .takes::<NewRole>()
            .gives::<Joined>(),
        Operation::delete(MEMBER, "removeMember", "End a membership")
            .details(
                "With it end the member's tokens for the tenant, the invitations that they made, and \
                their own settings. Their sessions and conversations stay.",
            )
            .gives_nothing(),
        Operation::get(INVITATIONS, "listInvitations", "List the invitations that can be accepted")
            .details("A page may hold fewer than `limit`.")
            .pages::<InvitationView<'static>>(),
        Operation::post(INVITATIONS, "invite", "Invites somebody")
            .takes::<Inviting>()
            .creates::<InvitedView<'static>>()
            .once()
            .leads_to("withdrawInvitation", "id", "/data/id")
            .fails(&[409]),
        Operation::delete("/api/v5/tenant/invitations/{id}", "withdrawInvitation", "Takes it back")
            .gives_nothing()
            .conditional(),
    ]
}

/// `GET /auth/tenants`: those that I may act in, my own first.
pub(crate) async fn mine(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let query = Query::of(&request)?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let (home, tenants) = caller::run(&app, &caller, |tx, identity| {
        let (app, page) = (&app, (limit, cursor.as_ref()));
        async move {
            let tenants = app.auth.tenants_of(&tx, &identity, page).await;
            Ok((identity.user.tenant_id, tenants.map_err(Problem::of_auth_page)?))
        }
    })
    .await?;
    respond::page_of(&tenants, |(tenant, role)| MyTenant {
        tenant: tenant.into(),
        role: *role,
        own: tenant.id == home,
    })
}

/// `GET /tenant`: the one that my token is for.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let conditions = Conditions::of(&request)?;
    let tenant = caller::run(&app, &caller, |tx, identity| async move {
        Ok(tx.require::<Tenant>(identity.tenant_id, ()).await?)
    })
    .await?;
    conditions.read(respond::ok(&TenantView::from(&tenant))?, &tag_of(&tenant)?)
}

/// `DELETE /tenant`: for its owner, who shows their password once more. It is gone with the answer, and
/// every key of it soon after.
pub(crate) async fn delete(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let Deletion { password } = request.json().await?;
    let credential = caller.into_credential();
    app.auth.delete_tenant(&credential, &password, &client_info(&request)).await?;
    app.upkeep.complete_deletions();
    Ok(respond::no_content())
}

/// `PATCH /tenant`: another name, for its owners and admins to give.
pub(crate) async fn change(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let conditions = Conditions::of(&request)?;
    let Change { name } = request.json().await?;
    let name = name.required("name")?;
    let name = name.check(|name| checks::line("name", checks::NAME, &name))?;
    let (client, now) = (client_info(&request), app.clock.now());
    let tenant = caller::run(&app, &caller, |tx, identity| {
        let (app, client, name, conditions) = (&app, &client, &name, &conditions);
        async move {
            identity.require_role(Role::Admin)?;
            let mut tenant = tx.require::<Tenant>(identity.tenant_id, ()).await?;
            conditions.require(Some(&tag_of(&tenant)?))?;
            let before = tenant.name.clone();
            name.change_required(&mut tenant.name);
            tenant.updated_at = now;
            tx.update(&tenant).await?;
            let of = (Action::TenantChanged, &tenant.id);
            let details = json!({ "name": tenant.name, "before": before });
            app.auth.audit(&tx, &identity, of, details, client).await?;
            Ok(tenant)
        }
    })
    .await?;
    tagged(respond::ok(&TenantView::from(&tenant))?, &tag_of(&tenant)?)
}

/// `GET /tenant/members`: who may work in the tenant.
pub(crate) async fn members(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let query = Query::of(&request)?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let members = caller::run(&app, &caller, |tx, identity| {
        let (app, page) = (&app, (limit, cursor.as_ref()));
        async move {
            let members = app.auth.members(&tx, &identity, page).await;
            members.map_err(Problem::of_auth_page)
        }
    })
    .await?;
    respond::page_of(&members, MemberView::from)
}

/// `PATCH /tenant/members/{user}`: another role.
pub(crate) async fn change_role(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let (member, client) = (request.parse_param("user")?, client_info(&request));
    let NewRole { role } = request.json().await?;
    let membership = caller::run(&app, &caller, |tx, identity| {
        let (app, client) = (&app, &client);
        async move { Ok(app.auth.change_role(&tx, &identity, member, role, client).await?) }
    })
    .await?;
    revoke_invitations(&app, membership.tenant_id, member).await;
    respond::ok(&Joined { tenant_id: membership.tenant_id, role: membership.role })
}

/// Deletes what is left of the void invitations of a member. What fails is void, and expires.
async fn revoke_invitations(app: &App, tenant: TenantId, member: UserId) {
    if let Err(error) = app.auth.revoke_invitations(tenant, member).await {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "void invitations not deleted");
    }
}

/// `DELETE /tenant/members/{user}`: ends a membership, my own too.
pub(crate) async fn remove(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let (member, client) = (request.parse_param("user")?, &client_info(&request));
    let tenant = caller::run(&app, &caller, |tx, identity| {
        let app = &app;
        async move {
            app.auth.remove_member(&tx, &identity, member, client).await?;
            Ok(identity.tenant_id)
        }
    })
    .await?;
    revoke_invitations(&app, tenant, member).await;
    Ok(respond::no_content())
}

/// `POST /tenant/invitations`: invites an address. The token is in the answer, and sent there.
pub(crate) async fn invite(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let inviting: Inviting = request.json().await?;
    let new = &NewInvitation::new(&inviting.email, inviting.role)?.with_ide(inviting.ide);
    let (once, client) = (Once::of(&request)?, &client_info(&request));
    let work = |tx: Transaction, identity: Identity| {
        let app = &app;
        async move {
            let invitation = app.auth.invite(&tx, &identity, new, client).await?;
            let tenant = tx.require::<Tenant>(identity.tenant_id, ()).await?;
            let location = format!("/api/v5/tenant/invitations/{}", invitation.id);
            let view = InvitationView::from(&invitation);
            let invited = InvitedView { view, token: new.text().expose() };
            Ok((Made::secret_at(location, &invited)?, tenant))
        }
    };
    let (outcome, tenant) = once.run_with(&app, &caller, work).await?;
    // The invitation exists and the caller has its token, so they can pass it on themselves.
    if let Some(tenant) = tenant
        && let Err(error) = app.auth.send_invitation(new, &tenant).await
    {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "an invitation could not be sent");
    }
    outcome.answer()
}

/// `GET /tenant/invitations`: those that can still be accepted.
pub(crate) async fn invitations(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let query = Query::of(&request)?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let invitations = caller::run(&app, &caller, |tx, identity| {
        let (app, page) = (&app, (limit, cursor.as_ref()));
        async move {
            let invitations = app.auth.invitations(&tx, &identity, page).await;
            invitations.map_err(Problem::of_auth_page)
        }
    })
    .await?;
    respond::page_of(&invitations, InvitationView::from)
}

/// `DELETE /tenant/invitations/{id}`: takes one back.
pub(crate) async fn withdraw(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let (id, client) = (request.parse_param("id")?, &client_info(&request));
    let conditions = Conditions::of(&request)?;
    caller::run(&app, &caller, |tx, identity| {
        let (app, conditions) = (&app, &conditions);
        async move {
            identity.require_role(Role::Admin)?;
            if !conditions.is_unconditional()
                && let Some(invitation) = tx.get::<Invitation>(identity.tenant_id, id).await?
            {
                conditions.require(Some(&tag_of_invitation(&invitation)))?;
            }
            Ok(app.auth.withdraw_invitation(&tx, &identity, id, client).await?)
        }
    })
    .await?;
    Ok(respond::no_content())
}

/// `POST /auth/invitations/accept`: makes me a member. Tokens for that tenant come from a refresh.
pub(crate) async fn accept(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let Accepting { token } = request.json().await?;
    let (once, client) = (Once::of(&request)?, client_info(&request));
    once.run(&app, &caller, |tx, identity| {
        let (app, token, client) = (&app, &token, &client);
        async move {
            let membership = app.auth.accept_invitation(&tx, &identity, token, client).await?;
            let joined = Joined { tenant_id: membership.tenant_id, role: membership.role };
            Made::changed(&joined, None)
        }
    })
    .await
}

/// The tag of an invitation, which never changes.
fn tag_of_invitation(invitation: &Invitation) -> Tag {
    Tag::digest(&[invitation.id.0.as_bytes()])
}

fn tag_of(tenant: &Tenant) -> Result<Tag, Problem> {
    Ok(Tag::of(tenant)?.modified(tenant.updated_at))
}

impl<'a> From<&'a Member> for MemberView<'a> {
    fn from(member: &'a Member) -> Self {
        let Member { user, role, membership } = member;
        Self {
            user_id: user.id,
            email: &user.email,
            first_name: user.first_name.as_deref(),
            last_name: user.last_name.as_deref(),
            role: *role,
            joined_at: membership.as_ref().map_or(user.created_at, |it| it.created_at),
        }
    }
}

impl<'a> From<&'a Invitation> for InvitationView<'a> {
    fn from(invitation: &'a Invitation) -> Self {
        Self {
            id: invitation.id,
            etag: tag_of_invitation(invitation).quoted(),
            email: &invitation.email,
            role: invitation.role,
            ide: invitation.ide,
            invited_by: invitation.invited_by,
            created_at: invitation.created_at,
            expires_at: invitation.expires_at,
        }
    }
}
