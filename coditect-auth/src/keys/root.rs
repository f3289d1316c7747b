//! The root key's record, wrapped by the master key.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity, indexes,
    keyspace::{Global, Subspace},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{Error, KeyError, MasterKey, RootKey, random::random, seal::Sealed, subkey::Purpose};

/// Associated data of the seal. Persisted: never change it.
const BELONGS_TO: &[u8] = b"root";

/// Record of the root key, a singleton.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedRootKey {
    /// Sealed key.
    pub sealed: Sealed,
    /// Time of the seal: the first start, or the last replacement of the master key.
    #[serde(with = "ts_microseconds")]
    pub sealed_at: DateTime<Utc>,
}

impl Entity for WrappedRootKey {
    type Scope = Global;
    type Key = ();
    const SPACE: Subspace<Global> = Subspace::global("root_key").keyed(&[]);
    const VERSION: u8 = 1;
    const SECRETS: &'static [&'static str] = &["sealed"];

    fn scope(&self) -> Global {
        Global
    }

    fn key(&self) {}
}

indexes! { WrappedRootKey => }

impl WrappedRootKey {
    /// Wraps `root` with `master`.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if the system has no randomness.
    pub fn seal(root: &RootKey, master: &MasterKey, now: DateTime<Utc>) -> Result<Self, Error> {
        let key = master.subkey(Purpose::SealRootKey);
        Ok(Self { sealed: Sealed::seal(&key, root.expose(), BELONGS_TO)?, sealed_at: now })
    }

    /// Unwraps the root key.
    ///
    /// # Errors
    ///
    /// [`KeyError::WrongMasterKey`].
    pub fn open(&self, master: &MasterKey) -> Result<RootKey, KeyError> {
        let opened = self.sealed.open(&master.subkey(Purpose::SealRootKey), BELONGS_TO);
        let opened = opened.map_err(|_| KeyError::WrongMasterKey)?;
        let bytes = opened.as_slice().try_into().map_err(|_| KeyError::WrongMasterKey)?;
        Ok(RootKey::new(Zeroizing::new(bytes)))
    }
}

impl RootKey {
    /// Returns a new random key.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if the system has no randomness.
    pub fn generate() -> Result<Self, Error> {
        random().map(Self::new)
    }

    /// Returns the root key of a store whose keys were derived from the master key directly.
    pub(crate) fn of_first_installations(master: &MasterKey) -> Self {
        Self::new(Zeroizing::new(*master.expose()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_key_unwraps_with_its_master_key_only() {
        let [master, other] = [1, 2].map(|byte| MasterKey::new(Zeroizing::new([byte; 32])));
        let root = RootKey::generate().unwrap();
        let sealed = WrappedRootKey::seal(&root, &master, DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(sealed.open(&master).unwrap(), root);
        assert!(matches!(sealed.open(&other), Err(KeyError::WrongMasterKey)));
        let anew = WrappedRootKey::seal(&root, &other, DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(anew.open(&other).unwrap(), root);
    }

    #[test]
    fn keys_derived_from_the_master_key_are_stable() {
        let master = MasterKey::new(Zeroizing::new([1; 32]));
        let root = RootKey::of_first_installations(&master);
        let purpose = Purpose::RefreshTag;
        assert_eq!(root.subkey(purpose), master.subkey(purpose));
    }
}
