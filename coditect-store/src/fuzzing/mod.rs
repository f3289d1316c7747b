//! Fuzz targets: each function takes arbitrary bytes, and panics on a violated invariant. The tests
//! run them on the corpus in `.ci/fuzz` and mutations of it; libFuzzer generates further inputs.
//!
//! Where a checksum would reject nearly all inputs, a target also computes it over the input.

#![expect(clippy::unwrap_used, reason = "to fail is what it is for")]

mod archives;
mod input;
mod keys;
mod records;
#[cfg(test)]
#[path = "../../../.ci/fuzz/stable.rs"]
mod stable;

pub use archives::export_file;
pub use keys::tuple_keys;
pub use records::record_codec;

pub(crate) use input::Input;

use crate::engine;

/// See the engine.
pub fn database_file(bytes: &[u8]) {
    engine::database_file(bytes);
}

/// See the engine.
pub fn log_segment(bytes: &[u8]) {
    engine::log_segment(bytes);
}

#[cfg(test)]
mod tests {
    use super::stable::run;

    #[test]
    fn keys_decode_to_their_parts_and_sort_like_them() {
        run("tuple_keys", 20_000, super::tuple_keys);
    }

    #[test]
    fn arbitrary_records_decode_or_are_rejected() {
        run("record_codec", 20_000, super::record_codec);
    }

    #[test]
    fn arbitrary_archives_are_valid_or_rejected() {
        run("export_file", 300, super::export_file);
    }

    #[test]
    fn damaged_file_is_read_rejected_or_found_by_the_check() {
        run("database_file", 60, super::database_file);
    }

    #[test]
    fn log_yields_a_prefix_of_its_frames_or_is_rejected() {
        run("log_segment", 2_000, super::log_segment);
    }
}
