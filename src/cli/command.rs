//! The whole command line as clap knows it: what parses it, and what completions and the man page
//! are made of.

use super::settings::{ConfigArgs, with_settings};
use super::{crawl, demo, files, hdr, key, run, top};
use clap::{Args, Command};

/// Every command with its arguments and settings.
#[must_use]
pub fn command() -> Command {
    Command::new("forebay")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Fetches web pages, extracts their content in a WASM sandbox, streams each result the moment it is ready")
        .after_help("Every setting is also a variable (FOREBAY_EGRESS_ALLOW) and a key of the file (allow under [egress]).\nFlags win over variables, variables over the file.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(serving())
        .subcommands(tools())
}

/// Commands that take settings.
fn serving() -> [Command; 6] {
    [
        Command::new("serve")
            .about("Run the server until SIGTERM or SIGINT")
            .after_help("The first signal stops accepting and lets streams end for server.drain_timeout_s; a second one ends at once. SIGHUP reads the settings, keys and certificate again."),
        demo::DemoArgs::augment_args(Command::new("demo"))
            .about("Crawl a synthetic web on loopback and show the stream and its latencies; needs nothing else"),
        crawl::CrawlArgs::augment_args(Command::new("crawl"))
            .about("Crawl URLs once: NDJSON on stdout, a progress bar on stderr")
            .after_help("Exit status: 0 every URL has its document; 1 some have not; 2 the request was refused or the crawl broke off."),
        run::ExtractArgs::augment_args(Command::new("extract"))
            .about("Extract one HTML file in the sandbox and print the document as JSON"),
        Command::new("check").about("Validate the configuration, and say what this kernel allows"),
        ConfigArgs::augment_args(Command::new("config"))
            .about("Print the settings in effect, and where each came from"),
    ]
    .map(with_settings)
}

/// Commands that need none.
fn tools() -> [Command; 6] {
    [
        key::KeyArgs::augment_args(Command::new("key"))
            .about("Make API keys for the file that auth.keys_file names"),
        top::TopArgs::augment_args(Command::new("top"))
            .about("Watch a running server: its cores, streams and percentiles"),
        hdr::HdrArgs::augment_args(Command::new("hdr"))
            .about("Print, merge and compare latency histograms (hgrm and hlog files)"),
        files::FilesArgs::augment_args(Command::new("files")).about(
            "Print files for operating a server: systemd units, container file, alerts, dashboard",
        ),
        files::CompletionsArgs::augment_args(Command::new("completions"))
            .about("Print a shell's completions"),
        Command::new("man").about("Print the manual page, for man -l -"),
    ]
}
