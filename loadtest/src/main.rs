//! The binary `loadtest`: everything is in the library, see [`forebay_loadtest::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    forebay_loadtest::cli::main()
}
