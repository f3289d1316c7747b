//! The built-in frontend: the files of `frontend/dist` at build time, listed by `build.rs`.

/// Name, as in a URL path, and content of each file, sorted by name.
pub(super) const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/frontend.rs"));

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::*;

    fn list(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                list(&entry.path(), &format!("{name}/"), found);
            } else {
                found.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }

    #[test]
    fn all_files_of_dist_are_embedded() {
        let mut found = BTreeMap::new();
        list(&Path::new(env!("CARGO_MANIFEST_DIR")).join("frontend/dist"), "", &mut found);
        let embedded: BTreeMap<String, Vec<u8>> =
            FILES.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect();
        assert!(embedded.contains_key("index.html"));
        assert_eq!(embedded.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
        assert!(embedded == found, "contents differ");
    }
}
