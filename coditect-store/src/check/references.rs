//! References between records: the records that must exist as long as others do.
//!
//! One entry per subspace. Subspaces without references have none; that the tenant of a row exists
//! is checked for all.

use crate::{
    Entity, Result,
    engine::KeyValue,
    entity::{EventStream, decode_at, decode_event_at, record_key},
    keyspace::Root,
    model::{
        AuthSession, ClientSequence, ClientState, Conversation, ConversationId, Deleted, Deletion,
        Draft, File, FileRoot, FileVersion, IdempotencyEntry, Membership, Message, Session,
        SessionId, SessionMemory, SessionState, Setting, SettingScope, TenantId, Ticket, User,
        UserId,
    },
};

/// A record that must exist.
pub(super) struct Reference {
    /// Subspace of the record.
    pub(super) space: &'static str,
    pub(super) key: Vec<u8>,
    /// Keys that may exist instead: a pending deletion of the record, whose dependents still exist,
    /// or an alternative record.
    pub(super) instead: Vec<Vec<u8>>,
}

type Needed = fn(&Root, &KeyValue) -> Result<Vec<Reference>>;

/// The references of a record, by its subspace.
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
            FileRoot::Session(session) => vec![to_session(root, file.tenant_id, *session)],
            FileRoot::Workspace(_) => Vec::new(),
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
        let (_, message): (_, Message) = decode_event_at(root, &row.key, &row.value)?;
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

/// Returns the references of a row of `space`.
pub(super) fn of(space: &str, root: &Root, row: &KeyValue) -> Result<Vec<Reference>> {
    let needed = REFERENCES.iter().find(|(name, _)| *name == space);
    needed.map_or(Ok(Vec::new()), |(_, needed)| needed(root, row))
}

fn read<E: Entity>(root: &Root, row: &KeyValue) -> Result<E> {
    decode_at(root, &row.key, &row.value)
}

/// Returns a reference to the record `key` of `tenant`.
pub(super) fn to<E>(root: &Root, tenant: TenantId, key: &E::Key) -> Reference
where
    E: Entity<Scope = TenantId>,
{
    let instead = vec![Deletion::key_of(root, tenant, Deleted::Tenant)];
    Reference { space: E::SPACE.name(), key: record_key::<E>(root, tenant, key), instead }
}

/// Returns a reference to a user of the tenant, or to a current or former member.
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
