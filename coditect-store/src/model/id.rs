//! Ids of the product's records.

crate::ids! {
    /// Id of a [`User`](super::User).
    UserId
    /// Id of an [`AuthSession`](super::AuthSession): one login on one device.
    AuthSessionId
    /// Id shared by all refresh tokens of one login.
    TokenFamilyId
    /// Id of a [`Membership`](super::Membership): one period of a user in a tenant.
    MembershipId
    /// Id of a workspace [`Session`](super::Session).
    SessionId
    /// Id of a [`Conversation`](super::Conversation).
    ConversationId
    /// Id of a [`Message`](super::Message).
    MessageId
    /// Id of a [`File`](super::File).
    FileId
    /// Id of a [`Ticket`](super::Ticket).
    TicketId
    /// Id of an [`Agent`](super::Agent).
    AgentId
}
