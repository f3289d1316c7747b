//! A frontend of the operator's own: a folder, read once.
//!
//! Hidden files stay out, and so does what a link leads to outside of the folder, and whatever is
//! neither file nor folder. A link to a file within it is followed: some systems put folders together
//! of such.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use thiserror::Error;

use super::INDEX;

/// All of it stays in memory.
const LARGEST_BYTES: u64 = 256 << 20;

/// A folder in a folder in a folder, so deep and no deeper.
const DEEPEST: usize = 32;

/// Why a folder is no frontend.
#[derive(Debug, Error)]
pub enum Error {
    /// Something in it cannot be read.
    #[error("--frontend: {} cannot be read", .path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has no page to begin with.
    #[error("--frontend: there is no {INDEX} in {}", .0.display())]
    NoIndex(PathBuf),
    /// It has more in it than is kept in memory.
    #[error("--frontend: {} is larger than {LARGEST_BYTES} bytes, or deeper than {DEEPEST} folders", .0.display())]
    TooLarge(PathBuf),
}

/// The files of `folder`, by their names as paths of a URL have them.
pub(super) fn read(folder: &Path) -> Result<Vec<(String, Bytes)>, Error> {
    let root = fs::canonicalize(folder).map_err(of(folder))?;
    let mut reading = Reading { folder, root: &root, files: Vec::new(), left_bytes: LARGEST_BYTES };
    reading.add(&root, "", DEEPEST)?;
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
            // No URL has a name that isn't UTF-8.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            let name = format!("{prefix}{name}");
            let kind = entry.file_type().map_err(of(&path))?;
            if kind.is_dir() {
                let depth = left_depth.checked_sub(1).ok_or_else(|| self.too_large())?;
                self.add(&path, &format!("{name}/"), depth)?;
            } else if self.is_file(&path, kind.is_symlink()) {
                let content = fs::read(&path).map_err(of(&path))?;
                let length = content.len() as u64;
                let left_bytes = self.left_bytes.checked_sub(length);
                self.left_bytes = left_bytes.ok_or_else(|| self.too_large())?;
                self.files.push((name, content.into()));
            }
        }
        Ok(())
    }

    /// Whether there is a file at `path`, in the folder or led to within it.
    fn is_file(&self, path: &Path, is_link: bool) -> bool {
        let within = !is_link || fs::canonicalize(path).is_ok_and(|to| to.starts_with(self.root));
        within && path.is_file()
    }

    fn too_large(&self) -> Error {
        Error::TooLarge(self.folder.to_owned())
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

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_within_the_folder_and_not_out_of_it() {
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
    fn a_folder_without_a_page_is_refused_by_name_and_so_is_one_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let refused = read(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("there is no index.html in"), "{refused}");
        let refused = read(&folder.path().join("nowhere")).unwrap_err().to_string();
        assert!(refused.contains("nowhere"), "{refused}");
    }
}
