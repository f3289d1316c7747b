//! What rows hang on: the records that must be there as long as these are.
//!
//! One line a space. A space that has none is not checked; that a tenant's rows have their tenant is
//! checked for all.

use crate::{
    Entity, Result,
    engine::KeyValue,
    entity::{Log, decode_at, decode_logged_at, record_key},
    keyspace::Root,
    model::{
        AuthSession, ClientSequence, ClientState, Conversation, ConversationId, Deleted, Deletion,
        Draft, File, FileHome, FileVersion, IdempotencyEntry, Membership, Message, Session,
        SessionId, SessionMemory, SessionState, Setting, SettingScope, TenantId, Ticket, User,
        UserId,
    },
};

/// A record that must be there.
pub(super) struct Reference {
    /// The space that it lies in.
    pub(super) space: &'static str,
    pub(super) key: Vec<u8>,
    /// What may be there in its place: a deletion that it is gone by (until that is complete, what hangs
    /// on it is still there), or another record that does as well.
    pub(super) instead: Vec<Vec<u8>>,
}

type Needed = fn(&Root, &KeyValue) -> Result<Vec<Reference>>;

/// By space, what a record of it needs.
const REFERENCES: &[(&str, Needed)] = &[
    (AuthSession::SPACE.name(), |root, row| {
        let login: AuthSession = read(root, row)?;
        Ok(vec![to::<User>(root, login.tenant_id, &login.user_id)])
    }),
    (Session::SPACE.name(), |root, row| {
        let session: Session = read(root, row)?;
        let Session { tenant_id, user_id, conversation_id, .. } = session;
        let user = to_member(root, tenant_id, user_id);
        let conversation = conversation_id.map(|id| to_conversation(root, tenant_id, id));
        Ok(std::iter::once(user).chain(conversation).collect())
    }),
    (SessionState::SPACE.name(), |root, row| {
        let state: SessionState = read(root, row)?;
        Ok(vec![to_session(root, state.tenant_id, state.session_id)])
    }),
    (SessionMemory::SPACE.name(), |root, row| {
        let memory: SessionMemory = read(root, row)?;
        Ok(vec![to_session(root, memory.tenant_id, memory.session_id)])
    }),
    (ClientState::SPACE.name(), |root, row| {
        let state: ClientState = read(root, row)?;
        Ok(vec![to_session(root, state.tenant_id, state.session_id)])
    }),
    (ClientSequence::SPACE.name(), |root, row| {
        let sequence: ClientSequence = read(root, row)?;
        Ok(vec![to_session(root, sequence.tenant_id, sequence.session_id)])
    }),
    (Draft::SPACE.name(), |root, row| {
        let draft: Draft = read(root, row)?;
        Ok(vec![to_session(root, draft.tenant_id, draft.session_id)])
    }),
    (File::SPACE.name(), |root, row| {
        let file: File = read(root, row)?;
        Ok(match &file.home {
            FileHome::Session(session) => vec![to_session(root, file.tenant_id, *session)],
            FileHome::Workspace(_) => Vec::new(),
        })
    }),
    (Conversation::SPACE.name(), |root, row| {
        let conversation: Conversation = read(root, row)?;
        let Conversation { tenant_id, user_id, session_id, .. } = conversation;
        let user = to_member(root, tenant_id, user_id);
        let session = session_id.map(|session| to_session(root, tenant_id, session));
        Ok(std::iter::once(user).chain(session).collect())
    }),
    (Message::SPACE.name(), |root, row| {
        let (_, message): (_, Message) = decode_logged_at(root, &row.key, &row.value)?;
        let Message { tenant_id, conversation_id, .. } = message;
        Ok(vec![to_conversation(root, tenant_id, conversation_id)])
    }),
    (FileVersion::SPACE.name(), |root, row| {
        let version: FileVersion = read(root, row)?;
        Ok(vec![to::<File>(root, version.tenant_id, &version.file_id)])
    }),
    (Ticket::SPACE.name(), |root, row| {
        let ticket: Ticket = read(root, row)?;
        Ok(vec![to_member(root, ticket.tenant_id, ticket.user_id)])
    }),
    (IdempotencyEntry::SPACE.name(), |root, row| {
        let entry: IdempotencyEntry = read(root, row)?;
        Ok(vec![to_member(root, entry.tenant_id, entry.user_id)])
    }),
    (Setting::SPACE.name(), |root, row| {
        let setting: Setting = read(root, row)?;
        Ok(match &setting.scope {
            SettingScope::User(user) => vec![to_member(root, setting.tenant_id, *user)],
            SettingScope::Tenant => Vec::new(),
        })
    }),
];

/// What a row of `space` needs.
pub(super) fn of(space: &str, root: &Root, row: &KeyValue) -> Result<Vec<Reference>> {
    let needed = REFERENCES.iter().find(|(name, _)| *name == space);
    needed.map_or(Ok(Vec::new()), |(_, needed)| needed(root, row))
}

fn read<E: Entity>(root: &Root, row: &KeyValue) -> Result<E> {
    decode_at(root, &row.key, &row.value)
}

/// The record `key` of the tenant's.
pub(super) fn to<E>(root: &Root, tenant: TenantId, key: &E::Key) -> Reference
where
    E: Entity<Scope = TenantId>,
{
    let instead = vec![Deletion::key_of(root, tenant, Deleted::Tenant)];
    Reference { space: E::SPACE.name(), key: record_key::<E>(root, tenant, key), instead }
}

/// A user of the tenant's, or somebody who is a member of it, or was.
fn to_member(root: &Root, tenant: TenantId, id: UserId) -> Reference {
    let mut reference = to::<User>(root, tenant, &id);
    reference.instead.push(record_key::<Membership>(root, tenant, &id));
    reference
}

fn to_session(root: &Root, tenant: TenantId, id: SessionId) -> Reference {
    let mut reference = to::<Session>(root, tenant, &id);
    reference.instead.push(Deletion::key_of(root, tenant, Deleted::Session(id)));
    reference
}

fn to_conversation(root: &Root, tenant: TenantId, id: ConversationId) -> Reference {
    let mut reference = to::<Conversation>(root, tenant, &id);
    reference.instead.push(Deletion::key_of(root, tenant, Deleted::Conversation(id)));
    reference
}
