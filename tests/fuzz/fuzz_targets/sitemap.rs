//! A sitemap.
#![no_main]

use forebay_fuzz::crawl::sitemap;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sitemap::fuzz(data));
