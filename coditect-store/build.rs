//! Reports missing dependencies of the feature `fdb` before a long build fails.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Where FoundationDB's packages put their library.
const LIBRARY_FOLDERS: [&str; 4] = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for variable in ["LIBCLANG_PATH", "LLVM_CONFIG_PATH", "FDB_CLIENT_LIB_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if env::var_os("CARGO_FEATURE_FDB").is_none() {
        return;
    }
    if !has_libclang() {
        println!(
            "cargo::error=the feature `fdb` needs libclang to build: install libclang-dev (Debian, \
             Ubuntu), clang-devel (Fedora) or llvm (Homebrew), or set LIBCLANG_PATH to its \
             directory"
        );
    }
    // A warning only, since `cargo check` does not link.
    if !has_libfdb_c() {
        // Repeats the search until the library is installed.
        println!("cargo::rerun-if-changed={}/libfdb_c.so", LIBRARY_FOLDERS[0]);
        println!(
            "cargo::warning=the feature `fdb` needs libfdb_c to link, or the linker will not find \
             -lfdb_c: install foundationdb-clients 7.3 (a package on FoundationDB's page of \
             releases), or set FDB_CLIENT_LIB_PATH to the directory of libfdb_c"
        );
    }
}

fn has_libclang() -> bool {
    let named = ["LIBCLANG_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let mut folders: Vec<_> = named.collect();
    let llvm_config = env::var_os("LLVM_CONFIG_PATH").unwrap_or_else(|| "llvm-config".into());
    if let Ok(told) = Command::new(llvm_config).arg("--libdir").output() {
        folders.push(String::from_utf8_lossy(&told.stdout).trim().into());
    }
    let usual = [
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/opt/homebrew/opt/llvm/lib",
        "/usr/local/opt/llvm/lib",
        "/Library/Developer/CommandLineTools/usr/lib",
        "/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib",
    ];
    folders.extend(usual.map(PathBuf::from));
    // Debian's are /usr/lib/llvm-14/lib, and /usr/lib/x86_64-linux-gnu.
    for folder in below(Path::new("/usr/lib")) {
        folders.push(folder.join("lib"));
        folders.push(folder);
    }
    folders.iter().any(|folder| has_file(folder, &["libclang.", "libclang-"]) || folder.is_file())
}

fn has_libfdb_c() -> bool {
    let named = env::var_os("FDB_CLIENT_LIB_PATH").map(PathBuf::from);
    let mut folders: Vec<_> = named.into_iter().collect();
    folders.extend(LIBRARY_FOLDERS.map(PathBuf::from));
    folders.extend(below(Path::new("/usr/lib")));
    folders.iter().any(|folder| has_file(folder, &["libfdb_c.", "fdb_c."]))
}

/// The folders in `folder`.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Whether a file in `folder` begins so.
fn has_file(folder: &Path, beginnings: &[&str]) -> bool {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.any(|name| beginnings.iter().any(|beginning| name.starts_with(beginning)))
}
