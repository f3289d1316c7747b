//! Why keys cannot be used. Most of these are for an operator, at the start of the program.

use std::{io, path::PathBuf};

use chrono::{DateTime, Utc};

use crate::key_id::KeyId;

/// Why a key cannot be used. None of the variants holds a part of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The store's keys were sealed before, and what opens them is not there: a new master key would
    /// void all logins, so none is made.
    #[error(
        "the store's signing keys were sealed with a master key, which is not at {}: put it back",
        path.display()
    )]
    MasterKeyMissing {
        /// Where it is looked for.
        path: PathBuf,
    },
    /// The master key's text is no text of bytes.
    #[error("the master key is neither hexadecimal nor Base64 text")]
    MasterKeyText,
    /// The master key has another length.
    #[error("the master key must have 32 bytes, but has {found_bytes}")]
    MasterKeyLength {
        /// How many there are.
        found_bytes: usize,
    },
    /// The master key's file cannot be read or made.
    #[error("the master key's file {} cannot be used", path.display())]
    MasterKeyFile {
        /// Where it is looked for.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Everybody can read or change the master key's file.
    #[error("the master key's file {} has mode {mode:o}; make it 600", path.display())]
    MasterKeyExposed {
        /// Where it is.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The master key is not the one that the store's keys were sealed with.
    #[error("this is not the master key that the store's keys were sealed with")]
    WrongMasterKey,
    /// A signing key does not open: it was sealed under another root key, or was tampered with.
    #[error("signing key {kid} does not open: its record is damaged, or another store's")]
    DoesNotOpen {
        /// Which.
        kid: KeyId,
    },
    /// A state that does not follow the present one.
    #[error("signing key {kid} is {from} and cannot become {to}")]
    IllegalTransition {
        /// Which.
        kid: KeyId,
        /// Its state.
        from: &'static str,
        /// The state it was to have.
        to: &'static str,
    },
    /// A key cannot be forgotten while tokens that it signed may still hold.
    #[error("signing key {kid} verifies tokens until {until}")]
    StillNeeded {
        /// Which.
        kid: KeyId,
        /// When it may be forgotten.
        until: DateTime<Utc>,
    },
    /// No key of the ring signs.
    #[error("no signing key is active")]
    NoneActive,
    /// More than one key of the ring signs.
    #[error("signing keys {first} and {second} are both active")]
    SeveralActive {
        /// One of them.
        first: KeyId,
        /// Another.
        second: KeyId,
    },
    /// A key is in the ring twice.
    #[error("signing key {kid} is in the ring twice")]
    Duplicate {
        /// Which.
        kid: KeyId,
    },
}
