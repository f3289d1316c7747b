#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| coditect_server::fuzzing::http_request(bytes));
