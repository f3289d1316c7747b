#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| coditect_auth::fuzzing::refresh_token(bytes));
