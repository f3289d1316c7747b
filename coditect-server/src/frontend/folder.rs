//! The operator's own frontend: a directory, read once.
//!
//! Hidden files, links out of the directory, and special files are skipped. A link to a file within
//! the directory is followed, since some systems assemble directories from links.
//!
//! The files stay in memory, so their total size and number are limited. The size of a file is
//! checked before it is read, and no more than that is read, even if the file grows meanwhile.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use thiserror::Error;

use super::INDEX;

/// Maximum total size of the files, in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// Maximum number of files.
const MAX_FILES: usize = 20_000;

/// Maximum nesting of directories.
const MAX_DEPTH: usize = 32;

/// A directory that cannot be used as a frontend.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory cannot be read.
    #[error("--frontend: cannot read {}", .path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// It has no index page.
    #[error("--frontend: no {INDEX} in {}", .0.display())]
    NoIndex(PathBuf),
    /// Its files are too large in total.
    #[error(
        "--frontend: the folder exceeds {} MiB in total at {}, which has {size_bytes} bytes: \
         move large files elsewhere",
        MAX_BYTES >> 20, .path.display()
    )]
    TooLarge {
        /// First file that exceeds the limit.
        path: PathBuf,
        /// Size of that file.
        size_bytes: u64,
    },
    /// It has too many files.
    #[error("--frontend: {} has more than {MAX_FILES} files", .0.display())]
    TooMany(PathBuf),
    /// Its directories are nested too deeply.
    #[error("--frontend: {} is nested more than {MAX_DEPTH} folders deep", .0.display())]
    TooDeep(PathBuf),
}

/// Reads the files of `folder`, with their names as in URL paths.
pub(super) fn read(folder: &Path) -> Result<Vec<(String, Bytes)>, Error> {
    let root = fs::canonicalize(folder).map_err(of(folder))?;
    let mut reading = Reading { folder, root: &root, files: Vec::new(), left_bytes: MAX_BYTES };
    reading.add(&root, "", MAX_DEPTH)?;
    if !reading.files.iter().any(|(name, _)| name == INDEX) {
        return Err(Error::NoIndex(folder.to_owned()));
    }
    Ok(reading.files)
}

struct Reading<'a> {
    folder: &'a Path,
    root: &'a Path,
    files: Vec<(String, Bytes)>,
    left_bytes: u64,
}

impl Reading<'_> {
    fn add(&mut self, at: &Path, prefix: &str, left_depth: usize) -> Result<(), Error> {
        for entry in fs::read_dir(at).map_err(of(at))? {
            let entry = entry.map_err(of(at))?;
            let path = entry.path();
            // A name that is not UTF-8 cannot occur in a URL.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            let name = format!("{prefix}{name}");
            let kind = entry.file_type().map_err(of(&path))?;
            if kind.is_dir() {
                let depth = left_depth
                    .checked_sub(1)
                    .ok_or_else(|| Error::TooDeep(self.folder.to_owned()))?;
                self.add(&path, &format!("{name}/"), depth)?;
            } else if self.is_file(&path, kind.is_symlink()) {
                if self.files.len() >= MAX_FILES {
                    return Err(Error::TooMany(self.folder.to_owned()));
                }
                let content = self.content(&path)?;
                self.files.push((name, content.into()));
            }
        }
        Ok(())
    }

    /// Returns whether `path` is a file, or a link to one within the directory.
    fn is_file(&self, path: &Path, is_link: bool) -> bool {
        let within = !is_link || fs::canonicalize(path).is_ok_and(|to| to.starts_with(self.root));
        within && path.is_file()
    }

    /// Reads the file at `path`, if it fits into the rest of the total size.
    fn content(&mut self, path: &Path) -> Result<Vec<u8>, Error> {
        let mut file = fs::File::open(path).map_err(of(path))?;
        let size_bytes = file.metadata().map_err(of(path))?.len();
        let too_large = |size_bytes| Error::TooLarge { path: path.to_owned(), size_bytes };
        if size_bytes > self.left_bytes {
            return Err(too_large(size_bytes));
        }
        let mut content = Vec::new();
        let read = file.by_ref().take(self.left_bytes + 1).read_to_end(&mut content);
        let read_bytes = read.map_err(of(path))? as u64;
        self.left_bytes =
            self.left_bytes.checked_sub(read_bytes).ok_or_else(|| too_large(read_bytes))?;
        Ok(content)
    }
}

fn of(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Unreadable { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = read(folder).unwrap().into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }

    #[test]
    fn hidden_files_stay_out_at_any_depth() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["index.html", ".env", "a/b/c.js", "a/.git/config"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        assert_eq!(names(folder.path()), ["a/b/c.js", "index.html"]);
    }

    #[test]
    fn link_is_followed_only_within_the_folder() {
        use std::os::unix::fs::symlink;

        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.txt"), "secret").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("..data")).unwrap();
        fs::write(at("..data/index.html"), "page").unwrap();
        symlink("..data/index.html", at("index.html")).unwrap();
        symlink(outside.path().join("secret.txt"), at("secret.txt")).unwrap();
        symlink(outside.path(), at("folder")).unwrap();
        symlink("nowhere", at("broken.txt")).unwrap();
        symlink(".", at("loop")).unwrap();
        assert_eq!(names(folder.path()), ["index.html"]);
    }

    #[test]
    fn missing_folder_and_folder_without_index_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = read(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("no index.html in"), "{refused}");
        let refused = read(&folder.path().join("nowhere")).unwrap_err().to_string();
        assert!(refused.contains("nowhere"), "{refused}");
    }

    #[test]
    fn file_beyond_the_total_size_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("index.html"), "x").unwrap();
        let path = folder.path().join("video.mp4");
        // A sparse file: it needs no disk space, but reading it would take long and much memory.
        fs::File::create(&path).unwrap().set_len(6 << 30).unwrap();
        let refused = read(folder.path()).unwrap_err();
        assert!(
            matches!(&refused, Error::TooLarge { path: named, size_bytes }
                if named.ends_with("video.mp4") && *size_bytes == 6 << 30),
            "{refused}"
        );
        assert!(refused.to_string().contains("256 MiB"), "{refused}");
    }

    #[test]
    fn folders_nested_too_deeply_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("index.html"), "x").unwrap();
        fs::create_dir_all(folder.path().join("a/".repeat(MAX_DEPTH))).unwrap();
        read(folder.path()).unwrap();
        fs::create_dir_all(folder.path().join("a/".repeat(MAX_DEPTH + 1))).unwrap();
        assert!(matches!(read(folder.path()), Err(Error::TooDeep(_))));
    }
}
