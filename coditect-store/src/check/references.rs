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
        AuthSession, ClientState, Conversation, File, FileHome, Message, Session, SessionMemory,
        SessionState, Setting, SettingScope, User,
    },
};

/// A record that must be there.
pub(super) struct Reference {
    /// The space that it lies in.
    pub(super) space: &'static str,
    pub(super) key: Vec<u8>,
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
        Ok(vec![to::<User>(root, session.tenant_id, &session.user_id)])
    }),
    (SessionState::SPACE.name(), |root, row| {
        let state: SessionState = read(root, row)?;
        Ok(vec![to::<Session>(root, state.tenant_id, &state.session_id)])
    }),
    (SessionMemory::SPACE.name(), |root, row| {
        let memory: SessionMemory = read(root, row)?;
        Ok(vec![to::<Session>(root, memory.tenant_id, &memory.session_id)])
    }),
    (ClientState::SPACE.name(), |root, row| {
        let state: ClientState = read(root, row)?;
        Ok(vec![to::<Session>(root, state.tenant_id, &state.session_id)])
    }),
    (File::SPACE.name(), |root, row| {
        let file: File = read(root, row)?;
        Ok(match &file.home {
            FileHome::Session(session) => vec![to::<Session>(root, file.tenant_id, session)],
            FileHome::Workspace(_) => Vec::new(),
        })
    }),
    (Conversation::SPACE.name(), |root, row| {
        let conversation: Conversation = read(root, row)?;
        Ok(vec![to::<User>(root, conversation.tenant_id, &conversation.user_id)])
    }),
    (Message::SPACE.name(), |root, row| {
        let (_, message): (_, Message) = decode_logged_at(root, &row.key, &row.value)?;
        let Message { tenant_id, conversation_id, .. } = message;
        Ok(vec![to::<Conversation>(root, tenant_id, &conversation_id)])
    }),
    (Setting::SPACE.name(), |root, row| {
        let setting: Setting = read(root, row)?;
        Ok(match &setting.scope {
            SettingScope::User(user) => vec![to::<User>(root, setting.tenant_id, user)],
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

/// The record `key` in `scope`.
pub(super) fn to<E: Entity>(root: &Root, scope: E::Scope, key: &E::Key) -> Reference {
    Reference { space: E::SPACE.name(), key: record_key::<E>(root, scope, key) }
}
