//! What is tried with any bytes at all: each function takes some, and panics if something is not as it must
//! be. The tests do it with the corpus in `.ci/fuzz` and changes of that; libFuzzer with what it makes up.
//!
//! Bytes that only a checksum would refuse are not tried for long: where there is one, the input is what it
//! is made over, too.

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

/// See the engine's.
pub fn database_file(bytes: &[u8]) {
    engine::database_file(bytes);
}

/// See the engine's.
pub fn log_segment(bytes: &[u8]) {
    engine::log_segment(bytes);
}

#[cfg(test)]
mod tests {
    use super::stable::run;

    #[test]
    fn keys_say_what_they_were_made_of_and_sort_as_it_does() {
        run("tuple_keys", 20_000, super::tuple_keys);
    }

    #[test]
    fn the_bytes_of_a_record_are_one_or_refused() {
        run("record_codec", 20_000, super::record_codec);
    }

    #[test]
    fn an_archive_is_whole_or_refused_whatever_its_bytes_are() {
        run("export_file", 300, super::export_file);
    }

    #[test]
    fn a_damaged_file_is_right_or_refused_or_found_by_the_check() {
        run("database_file", 60, super::database_file);
    }

    #[test]
    fn a_log_gives_its_first_so_many_frames_or_is_refused() {
        run("log_segment", 2_000, super::log_segment);
    }
}
