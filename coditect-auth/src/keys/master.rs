//! Loading and replacing the master key.
//!
//! The master key is 32 random bytes, given as text in the environment, or kept in a file that the
//! first start creates. The file is created atomically, never overwritten, and readable by its
//! owner only; concurrent starts end up with the same key. The master key wraps only the [root
//! key](crate::RootKey), so it can be replaced.
//!
//! Text of the wrong length is rejected rather than stretched, and so is a file that all users can
//! read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD,
};
use coditect_store::filesystem;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{Error, KeyError, MasterKey, random::random};

/// Accepts Base64 with or without padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Maximum number of bytes read from a file; a longer file is no key.
const MAX_FILE_BYTES: u64 = 4096;

impl MasterKey {
    /// Returns a new random key.
    pub fn generate() -> Result<Self, Error> {
        random().map(Self::new)
    }

    /// Parses 64 hexadecimal digits, or Base64 (either alphabet, padded or not) of 32 bytes. White
    /// space around it is ignored.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let bytes = Zeroizing::new(decode(text).ok_or(KeyError::MasterKeyText)?);
        let found_bytes = bytes.len();
        let key = <[u8; 32]>::try_from(bytes.as_slice())
            .map_err(|_| KeyError::MasterKeyLength { found_bytes })?;
        Ok(Self::new(Zeroizing::new(key)))
    }

    /// Reads the key in the file at `path`, and creates it first if it does not exist. The
    /// directory must exist; the file gets mode 0600 and is durable, with its name, before this
    /// returns.
    ///
    /// # Errors
    ///
    /// [`KeyError`] with the path if the file cannot be read or created, holds no key, or is
    /// readable by all users.
    pub fn load_or_create(path: &Path) -> Result<Self, Error> {
        match load(path) {
            Err(KeyError::MasterKeyFile { source, .. })
                if source.kind() == io::ErrorKind::NotFound => {}
            loaded => return loaded.map_err(Error::from),
        }
        create(path, &Self::generate()?)?;
        // Read back, since another process may have been first.
        Ok(load(path)?)
    }
}

/// Decodes hexadecimal or Base64 text. The two are unambiguous: Base64 of 32 bytes has 43 digits,
/// which is odd, or a trailing `=`.
fn decode(text: &str) -> Option<Vec<u8>> {
    if text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
            .collect();
    }
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

/// Returns the path of the key that replaces the one at `path`.
pub(crate) fn replacement_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// Renames the replacement to `path`, durably.
pub(crate) fn install_replacement(path: &Path) -> Result<(), Error> {
    let failed = |source| KeyError::MasterKeyFile { path: path.to_owned(), source };
    fs::rename(replacement_path(path), path).map_err(failed)?;
    Ok(filesystem::sync_name(path).map_err(failed)?)
}

fn load(path: &Path) -> Result<MasterKey, KeyError> {
    let failed = |source| KeyError::MasterKeyFile { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    refuse_exposed(path, &file.metadata().map_err(failed)?)?;
    // The capacity prevents a reallocation, which would leave a copy in memory.
    let mut text = Zeroizing::new(String::with_capacity(8192));
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    MasterKey::parse(&text)
}

/// Writes the key to a temporary name and links it to `path`, which fails if the file exists: no
/// partial key is visible, and no key is overwritten.
fn create(path: &Path, key: &MasterKey) -> Result<(), KeyError> {
    let failed = |source| KeyError::MasterKeyFile { path: path.to_owned(), source };
    let draft = draft_of(path);
    let written = write(&draft, key).and_then(|()| filesystem::rename_new(&draft, path));
    match written {
        Ok(()) => {}
        Err(error) => {
            let removed = fs::remove_file(&draft);
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(failed(error));
            }
            removed.map_err(failed)?;
        }
    }
    filesystem::sync_name(path).map_err(failed)
}

fn write(draft: &Path, key: &MasterKey) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(draft)?;
    let mut text = Zeroizing::new(BASE64_STANDARD.encode(key.expose()));
    text.push('\n');
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Returns a unique temporary name beside `path`.
fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.draft", Uuid::new_v4()));
    name.into()
}

/// Group access is allowed: mounted secrets often have it.
fn refuse_exposed(path: &Path, metadata: &fs::Metadata) -> Result<(), KeyError> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    if mode & 0o007 != 0 {
        return Err(KeyError::MasterKeyExposed { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    const BYTES: [u8; 32] = [0xfb; 32];

    fn key_file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        (folder, path)
    }

    #[test]
    fn hexadecimal_and_both_base64_alphabets_give_the_same_key() {
        let texts = [
            "fb".repeat(32),
            "FB".repeat(32),
            BASE64_STANDARD.encode(BYTES),
            BASE64_URL_SAFE_NO_PAD.encode(BYTES),
            format!("  {}\n", BASE64_STANDARD.encode(BYTES)),
        ];
        for text in texts {
            assert_eq!(MasterKey::parse(&text).unwrap().expose(), &BYTES, "{text}");
        }
    }

    #[test]
    fn key_of_wrong_length_is_rejected_with_its_length() {
        for (text, found) in [
            ("", 0),
            ("c2hvcnQ=", 5),
            (&"ab".repeat(31), 31),
            (&"ab".repeat(33), 33),
            (&BASE64_STANDARD.encode([7; 33]), 33),
        ] {
            let error = MasterKey::parse(text).unwrap_err();
            let KeyError::MasterKeyLength { found_bytes } = error else {
                panic!("{text}: {error}");
            };
            assert_eq!(found_bytes, found, "{text}");
        }
    }

    #[test]
    fn malformed_key_is_rejected_without_echoing_it() {
        let error = MasterKey::parse("hunter2 hunter2").unwrap_err();
        assert!(matches!(error, KeyError::MasterKeyText));
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn missing_file_is_created_once() {
        let (folder, path) = key_file();
        let made = MasterKey::load_or_create(&path).unwrap();
        assert_eq!(MasterKey::load_or_create(&path).unwrap(), made);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn file_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_folder, path) = key_file();
        MasterKey::load_or_create(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn world_readable_file_is_rejected() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_folder, path) = key_file();
        MasterKey::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            MasterKey::load_or_create(&path),
            Err(Error::Key(KeyError::MasterKeyExposed { mode: 0o644, .. }))
        ));
    }

    #[test]
    fn damaged_file_is_rejected_and_unchanged() {
        let (_folder, path) = key_file();
        MasterKey::load_or_create(&path).unwrap();
        fs::write(&path, "c2hvcnQ=").unwrap();
        assert!(MasterKey::load_or_create(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "c2hvcnQ=");
    }

    #[test]
    fn concurrent_starts_create_one_key() {
        let (folder, path) = key_file();
        let keys: Vec<MasterKey> = std::thread::scope(|scope| {
            let starts: Vec<_> =
                (0..8).map(|_| scope.spawn(|| MasterKey::load_or_create(&path).unwrap())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn missing_directory_is_named() {
        let (folder, _) = key_file();
        let path = folder.path().join("missing").join("master.key");
        let Err(Error::Key(error)) = MasterKey::load_or_create(&path) else {
            panic!("made a key in a folder that is not there");
        };
        assert!(error.to_string().contains("missing"));
    }
}
