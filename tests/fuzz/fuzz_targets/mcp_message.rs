//! A JSON-RPC message of the Model Context Protocol.
#![no_main]

use forebay_fuzz::serve::mcp::rpc;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rpc::fuzz(data));
