//! The records of identity, beside users and logins: one file each.
//!
//! What somebody holds (a reset token, an invitation, a personal access token) is kept as its SHA-256
//! only: it is random, so that a plain hash is enough.

mod clock_mark;
mod failures;
mod ide_grant;
mod invitation;
mod password_reset;
mod personal_token;
mod second_factor;

pub use clock_mark::{CLOCK_SETTLE_TIME, ClockMark, MAX_DOWNTIME};
pub use failures::LoginFailures;
pub use ide_grant::IdeGrant;
pub use invitation::{Grant, Invitation, InvitationId};
pub use password_reset::{PasswordReset, PasswordResetId, ResetOrigin};
pub use personal_token::{PersonalToken, PersonalTokenId};
pub use second_factor::SecondFactor;
