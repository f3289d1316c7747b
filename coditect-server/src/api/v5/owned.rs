//! Records of one user. Records of other users are reported as missing.

use coditect_auth::Identity;
use coditect_store::{
    Transaction,
    model::{Conversation, ConversationId, Session, SessionId},
};

use crate::http::problem::Problem;

/// Returns the caller's session `id`.
///
/// # Errors
///
/// Fails with 404 if it does not exist or belongs to another user.
pub(crate) async fn load_owned_session(
    tx: &Transaction,
    identity: &Identity,
    id: SessionId,
) -> Result<Session, Problem> {
    let session = tx.get::<Session>(identity.tenant_id, id).await?;
    session.filter(|session| session.user_id == identity.user.id).ok_or_else(Problem::not_found)
}

/// Returns the caller's conversation `id`.
///
/// # Errors
///
/// Fails with 404 if it does not exist or belongs to another user.
pub(crate) async fn load_owned_conversation(
    tx: &Transaction,
    identity: &Identity,
    id: ConversationId,
) -> Result<Conversation, Problem> {
    let found = tx.get::<Conversation>(identity.tenant_id, id).await?;
    found.filter(|found| found.user_id == identity.user.id).ok_or_else(Problem::not_found)
}
