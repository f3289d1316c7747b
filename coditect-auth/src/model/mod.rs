//! The records of identity besides users and sessions, one file each.
//!
//! Tokens held by clients (reset, invitation and personal tokens) are stored as SHA-256 only. They
//! are random, so a plain hash suffices.

mod audit_extent;
mod clock_mark;
mod failures;
mod ide_grant;
mod invitation;
mod password_reset;
mod personal_token;
mod second_factor;

pub use audit_extent::AuditExtent;
pub use clock_mark::{CLOCK_SETTLE_TIME, ClockMark, MAX_DOWNTIME};
pub use failures::LoginFailures;
pub use ide_grant::IdeGrant;
pub use invitation::{Grant, Invitation, InvitationId};
pub use password_reset::{PasswordReset, PasswordResetId, ResetOrigin};
pub use personal_token::{PersonalToken, PersonalTokenId};
pub use second_factor::SecondFactor;
