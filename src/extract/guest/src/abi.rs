//! The five exports (the crate's documentation defines them), the only unsafe code of the guest.
#![allow(unsafe_code, reason = "the ABI hands over raw addresses")]

use std::alloc::Layout;

use crate::{ABI_VERSION, Options};

/// The version of this interface.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn abi_version() -> u32 {
    ABI_VERSION
}

/// Room for `len` bytes; 0 when there is none.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn alloc(len: u32) -> u32 {
    let Ok(layout) = Layout::array::<u8>(len.max(1) as usize) else { return 0 };
    // SAFETY: the layout's size is at least 1.
    let ptr = unsafe { std::alloc::alloc(layout) };
    address(ptr)
}

/// Takes back what `alloc(len)` or `extract` gave.
///
/// # Safety
///
/// `ptr` and `len` come from one earlier `alloc` or `extract` of this instance, once.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dealloc(ptr: u32, len: u32) {
    let Ok(layout) = Layout::array::<u8>(len.max(1) as usize) else { return };
    // SAFETY: the caller gives what `alloc` or `extract` made with this very layout.
    unsafe { std::alloc::dealloc(ptr as usize as *mut u8, layout) };
}

/// Extracts one page; 0 when an input is not UTF-8 or the options name an unknown extractor.
///
/// # Safety
///
/// Each (address, length) is a region that `alloc` gave and the host filled.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn extract(
    html_ptr: u32,
    html_len: u32,
    url_ptr: u32,
    url_len: u32,
    options_ptr: u32,
    options_len: u32,
) -> u64 {
    // SAFETY: passed on from this function's own contract, for each of the three.
    let (html, url, options) = unsafe {
        (input(html_ptr, html_len), input(url_ptr, url_len), input(options_ptr, options_len))
    };
    let (Some(html), Some(url), Some(options)) = (html, url, options) else { return 0 };
    let Some(options) = Options::parse(options) else { return 0 };
    let answer = crate::extract(html, url, &options).into_boxed_slice();
    let Ok(len) = u32::try_from(answer.len()) else { return 0 };
    let ptr = address(Box::into_raw(answer).cast::<u8>());
    (u64::from(ptr) << 32) | u64::from(len)
}

/// # Safety
///
/// `ptr` is not null and `len` bytes from it are initialized and stay unchanged while they are read.
unsafe fn input<'a>(ptr: u32, len: u32) -> Option<&'a str> {
    if len == 0 {
        return Some("");
    }
    // SAFETY: the caller's contract; an address of `alloc` is never null.
    let bytes = unsafe { std::slice::from_raw_parts(ptr as usize as *const u8, len as usize) };
    std::str::from_utf8(bytes).ok()
}

fn address(ptr: *mut u8) -> u32 {
    u32::try_from(ptr.addr()).unwrap_or(0)
}
