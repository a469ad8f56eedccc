//! Runs `tenantd::fuzzing`'s target `jsonrpc`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tenantd_fuzz::check("jsonrpc", bytes));
