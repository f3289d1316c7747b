//! The tenants of a user, and the members and invitations of the active tenant.

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
        idempotency::{Created, Idempotency},
        merge_patch,
    },
    http::{
        HandlerResult, Query, Request,
        conditions::{ETag, Preconditions, with_etag},
        problem::Problem,
        respond,
    },
    openapi::{self, Operation},
    state::App,
};

/// A partial tenant; missing members are unchanged.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TenantChange")]
struct Change {
    #[schemars(length(max = 200), regex(pattern = openapi::LINE))]
    #[serde(default)]
    #[schemars(with = "String")]
    name: merge_patch::PatchField<String>,
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
    /// Whether to grant access to the IDE. By default granted if the inviter has access from an
    /// operator and invites to their own tenant.
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
    /// Whether it is the user's own tenant.
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
    /// Entity tag for `If-Match`.
    etag: String,
    email: &'a str,
    role: Role,
    /// Whether it grants access to the IDE.
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
    /// Token that accepts the invitation. Returned once.
    token: &'a str,
    /// Whether it is mailed to the address: false if no mail is set up, or too many invitations
    /// were mailed lately to the address or by the inviter. Pass the token on in another way then.
    mailed: bool,
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
        Operation::get(
            "/api/v5/auth/tenants",
            "listMyTenants",
            "List the tenants that I am a member of",
        )
        .page::<MyTenant<'static>>(),
        Operation::post(
            "/api/v5/auth/invitations/accept",
            "acceptInvitation",
            "Accept an invitation to a tenant",
        )
        .request::<Accepting>()
        .response::<Joined>()
        .idempotent()
        .fails(&[409]),
        Operation::get(TENANT, "getTenant", "Get the active tenant")
            .response::<TenantView<'static>>()
            .with_etag(),
        Operation::patch(TENANT, "patchTenant", "Rename the active tenant")
            .merge_patch::<Change>()
            .response::<TenantView<'static>>()
            .with_etag(),
        Operation::delete(TENANT, "deleteTenant", "Delete the active tenant and all its data")
            .request::<Deletion>()
            .no_content()
            .fails(&[404, 429]),
        Operation::get("/api/v5/tenant/members", "listMembers", "List the members of the tenant")
            .details(
                "Users of the tenant itself come first. A page may have fewer items than `limit`.",
            )
            .page::<MemberView<'static>>(),
        Operation::patch(MEMBER, "patchMember", "Change the role of a member")
            .request::<NewRole>()
            .response::<Joined>(),
        Operation::delete(MEMBER, "deleteMember", "Remove a member")
            .details(
                "Also revokes the member's tokens for the tenant and their invitations, and \
                 deletes their settings. Their sessions and conversations are kept.",
            )
            .no_content(),
        Operation::get(INVITATIONS, "listInvitations", "List the open invitations")
            .details("A page may have fewer items than `limit`.")
            .page::<InvitationView<'static>>(),
        Operation::post(INVITATIONS, "createInvitation", "Invite an e-mail address to the tenant")
            .request::<Inviting>()
            .created::<InvitedView<'static>>()
            .idempotent()
            .link("deleteInvitation", "id", "/data/id")
            .fails(&[409]),
        Operation::delete(
            "/api/v5/tenant/invitations/{id}",
            "deleteInvitation",
            "Withdraw an invitation",
        )
        .no_content()
        .conditional(),
    ]
}

/// Handles `GET /auth/tenants`: the caller's own tenant first.
pub(crate) async fn mine(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let query = Query::of(&request)?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let (home, tenants) = caller::transact(&app, &caller, |tx, identity| {
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

/// Handles `GET /tenant`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let conditions = Preconditions::of(&request)?;
    let tenant = caller::transact(&app, &caller, |tx, identity| async move {
        Ok(tx.get_required::<Tenant>(identity.tenant_id, ()).await?)
    })
    .await?;
    conditions.read(respond::ok(&TenantView::from(&tenant))?, &tag_of(&tenant)?)
}

/// Handles `DELETE /tenant`, for its owner with their password. Keys of the tenant are deleted in
/// the background.
pub(crate) async fn delete(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let Deletion { password } = request.json().await?;
    let credential = caller.into_credential();
    app.auth.delete_tenant(&credential, &password, &client_info(&request)).await?;
    app.upkeep.resume_deletions();
    Ok(respond::no_content())
}

/// Handles `PATCH /tenant`, for owners and admins.
pub(crate) async fn change(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let conditions = Preconditions::of(&request)?;
    let Change { name } = request.json().await?;
    let name = name.required("name")?;
    let name = name.check(|name| checks::line("name", checks::NAME, &name))?;
    let (client, now) = (client_info(&request), app.clock.now());
    let tenant = caller::transact(&app, &caller, |tx, identity| {
        let (app, client, name, conditions) = (&app, &client, &name, &conditions);
        async move {
            identity.require_role(Role::Admin)?;
            let mut tenant = tx.get_required::<Tenant>(identity.tenant_id, ()).await?;
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
    with_etag(respond::ok(&TenantView::from(&tenant))?, &tag_of(&tenant)?)
}

/// Handles `GET /tenant/members`.
pub(crate) async fn members(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let query = Query::of(&request)?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let members = caller::transact(&app, &caller, |tx, identity| {
        let (app, page) = (&app, (limit, cursor.as_ref()));
        async move {
            let members = app.auth.members(&tx, &identity, page).await;
            members.map_err(Problem::of_auth_page)
        }
    })
    .await?;
    respond::page_of(&members, MemberView::from)
}

/// Handles `PATCH /tenant/members/{user}`.
pub(crate) async fn change_role(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (member, client) = (request.parse_param("user")?, client_info(&request));
    let NewRole { role } = request.json().await?;
    let membership = caller::transact(&app, &caller, |tx, identity| {
        let (app, client) = (&app, &client);
        async move { Ok(app.auth.change_role(&tx, &identity, member, role, client).await?) }
    })
    .await?;
    revoke_invitations(&app, membership.tenant_id, member).await;
    respond::ok(&Joined { tenant_id: membership.tenant_id, role: membership.role })
}

/// Deletes void invitations of a member. After a failure they remain void until they expire.
async fn revoke_invitations(app: &App, tenant: TenantId, member: UserId) {
    if let Err(error) = app.auth.revoke_invitations(tenant, member).await {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "void invitations not deleted");
    }
}

/// Handles `DELETE /tenant/members/{user}`. Members may remove themselves.
pub(crate) async fn remove(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (member, client) = (request.parse_param("user")?, &client_info(&request));
    let tenant = caller::transact(&app, &caller, |tx, identity| {
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

/// Handles `POST /tenant/invitations`. The token is in the response and is sent to the address.
pub(crate) async fn invite(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let inviting: Inviting = request.json().await?;
    let new = &NewInvitation::new(&inviting.email, inviting.role)?.with_ide(inviting.ide);
    let (idempotency, client) = (Idempotency::of(&request)?, &client_info(&request));
    let work = |tx: Transaction, identity: Identity| {
        let app = &app;
        async move {
            let invitation = app.auth.invite(&tx, &identity, new, client).await?;
            let tenant = tx.get_required::<Tenant>(identity.tenant_id, ()).await?;
            let mailed = app.auth.may_send_invitation(&tx, &identity, new).await?;
            let location = format!("/api/v5/tenant/invitations/{}", invitation.id);
            let view = InvitationView::from(&invitation);
            let invited = InvitedView { view, token: new.text().expose(), mailed };
            Ok((Created::secret_at(location, &invited)?, mailed.then_some(tenant)))
        }
    };
    let (outcome, tenant) = idempotency.run_with(&app, &caller, work).await?;
    // The caller has the token and can pass it on, so a failed delivery is only logged.
    if let Some(tenant) = tenant.flatten()
        && let Err(error) = app.auth.send_invitation(new, &tenant).await
    {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "invitation not sent");
    }
    outcome.answer()
}

/// Handles `GET /tenant/invitations`. Lists invitations that can still be accepted.
pub(crate) async fn invitations(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let query = Query::of(&request)?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let invitations = caller::transact(&app, &caller, |tx, identity| {
        let (app, page) = (&app, (limit, cursor.as_ref()));
        async move {
            let invitations = app.auth.invitations(&tx, &identity, page).await;
            invitations.map_err(Problem::of_auth_page)
        }
    })
    .await?;
    respond::page_of(&invitations, InvitationView::from)
}

/// Handles `DELETE /tenant/invitations/{id}`.
pub(crate) async fn withdraw(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, client) = (request.parse_param("id")?, &client_info(&request));
    let conditions = Preconditions::of(&request)?;
    caller::transact(&app, &caller, |tx, identity| {
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

/// Handles `POST /auth/invitations/accept`. A refresh returns tokens for the joined tenant.
pub(crate) async fn accept(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let Accepting { token } = request.json().await?;
    let (idempotency, client) = (Idempotency::of(&request)?, client_info(&request));
    idempotency
        .run(&app, &caller, |tx, identity| {
            let (app, token, client) = (&app, &token, &client);
            async move {
                let membership = app.auth.accept_invitation(&tx, &identity, token, client).await?;
                let joined = Joined { tenant_id: membership.tenant_id, role: membership.role };
                Created::changed(&joined, None)
            }
        })
        .await
}

/// Returns the entity tag of an invitation, which never changes.
fn tag_of_invitation(invitation: &Invitation) -> ETag {
    ETag::digest(&[invitation.id.0.as_bytes()])
}

fn tag_of(tenant: &Tenant) -> Result<ETag, Problem> {
    Ok(ETag::of(tenant)?.modified(tenant.updated_at))
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
