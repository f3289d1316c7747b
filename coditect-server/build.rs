//! Lists the frontend that the program brings along, `frontend/dist`, for
//! `src/frontend/embedded.rs`: what is in the folder is in the program, and nobody keeps a list.
//! Hidden files stay out.

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let missing = |name| move |_| io::Error::other(format!("cargo sets {name}"));
    let root = env::var("CARGO_MANIFEST_DIR").map_err(missing("CARGO_MANIFEST_DIR"))?;
    let target = env::var("OUT_DIR").map_err(missing("OUT_DIR"))?;
    let folder = Path::new(&root).join("frontend/dist");
    writeln!(io::stdout(), "cargo::rerun-if-changed={}", folder.display())?;

    let mut files = Vec::new();
    list(&folder, "", &mut files)?;
    files.sort();
    let mut table = fs::File::create(Path::new(&target).join("frontend.rs"))?;
    writeln!(table, "&[")?;
    for (name, path) in files {
        // As a literal of Rust has it, for which a path must be text.
        let path = path.into_os_string().into_string().map_err(|_| unreadable(&folder))?;
        writeln!(table, "    ({name:?}, include_bytes!({path:?})),")?;
    }
    writeln!(table, "]")
}

/// Adds what is in `folder` to `files`, each with its name as a path of a URL has it.
fn list(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|_| unreadable(folder))?;
        if name.starts_with('.') {
            continue;
        }
        let name = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.push((name, entry.path()));
        }
    }
    Ok(())
}

fn unreadable(folder: &Path) -> io::Error {
    io::Error::other(format!("a name in {} is not UTF-8", folder.display()))
}
