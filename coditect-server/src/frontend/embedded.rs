//! The frontend that the program brings along: the files of `frontend/dist`, as they were when it was
//! built. `build.rs` lists them.

/// Each file's name, as a path of a URL has it, and its content; sorted by name.
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
    fn what_is_in_the_folder_is_in_the_program() {
        let mut found = BTreeMap::new();
        list(&Path::new(env!("CARGO_MANIFEST_DIR")).join("frontend/dist"), "", &mut found);
        let embedded: BTreeMap<String, Vec<u8>> =
            FILES.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect();
        assert!(embedded.contains_key("index.html"));
        assert_eq!(embedded.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
        assert!(embedded == found, "a content is another one");
    }
}
