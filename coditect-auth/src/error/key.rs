//! Errors of the master key and the signing keys. Most concern an operator, at the start of the
//! program.

use std::{io, path::PathBuf};

use chrono::{DateTime, Utc};

use crate::key_id::KeyId;

/// Reason for which a key is unusable. No variant holds a part of a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The store has keys that were wrapped by a master key which is missing. None is created in
    /// its place, since that would void all logins.
    #[error(
        "the store's signing keys were sealed with a master key, which is not at {}: put it back",
        path.display()
    )]
    MasterKeyMissing {
        /// Expected path.
        path: PathBuf,
    },
    /// The data directory has a master key, which is created after the store, and no store. None is
    /// created in its place.
    #[error(
        "the data directory has the master key {} and no store: put store.redb and the files of \
         its log back, or import a backup; to begin with an empty store, move the key away, or use \
         another directory",
        key.display()
    )]
    StoreMissing {
        /// Path of the master key.
        key: PathBuf,
    },
    /// The text of the master key is neither hexadecimal nor Base64.
    #[error("the master key is neither hexadecimal nor Base64 text")]
    MasterKeyText,
    /// The master key is not 32 bytes long.
    #[error("the master key must have 32 bytes, but has {found_bytes}")]
    MasterKeyLength {
        /// Length found, in bytes.
        found_bytes: usize,
    },
    /// The file of the master key cannot be read or created.
    #[error("the master key's file {} cannot be used", path.display())]
    MasterKeyFile {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file of the master key is accessible to all users.
    #[error("the master key's file {} has mode {mode:o}; make it 600", path.display())]
    MasterKeyExposed {
        /// Path of the file.
        path: PathBuf,
        /// File mode.
        mode: u32,
    },
    /// The master key did not wrap the keys of this store.
    #[error("this is not the master key that the store's keys were sealed with")]
    WrongMasterKey,
    /// A signing key does not decrypt: it was sealed under another root key, or is damaged.
    #[error("signing key {kid} does not open: its record is damaged, or another store's")]
    DoesNotOpen {
        /// Key.
        kid: KeyId,
    },
    /// A transition that the key's state does not allow.
    #[error("signing key {kid} is {from} and cannot become {to}")]
    IllegalTransition {
        /// Key.
        kid: KeyId,
        /// Current state.
        from: &'static str,
        /// Requested state.
        to: &'static str,
    },
    /// A key cannot be destroyed while tokens that it signed may be valid.
    #[error("signing key {kid} verifies tokens until {until}")]
    StillNeeded {
        /// Key.
        kid: KeyId,
        /// Time from which it may be destroyed.
        until: DateTime<Utc>,
    },
    /// No key of the ring is active.
    #[error("no signing key is active")]
    NoneActive,
    /// More than one key of the ring is active.
    #[error("signing keys {first} and {second} are both active")]
    SeveralActive {
        /// First active key.
        first: KeyId,
        /// Second active key.
        second: KeyId,
    },
    /// The ring has a key twice.
    #[error("signing key {kid} is in the ring twice")]
    Duplicate {
        /// Key.
        kid: KeyId,
    },
}
