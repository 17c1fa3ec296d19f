//! `forebay key`: API keys. A key is shown once, here; the server knows its digest only.

use crate::serve::access::keys::{Scope, generate};
use clap::{Args, Subcommand};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// What to do with keys.
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key: the key itself goes to standard error, once; its entry for the file to standard output.
    New(NewArgs),
}

#[derive(Debug, Args)]
struct NewArgs {
    /// What the log calls it: letters, digits and -_.@
    #[arg(long)]
    name: String,
    /// What it may be used for.
    #[arg(long, value_delimiter = ',', required = true, value_parser = scope, value_name = "LIST")]
    scopes: Vec<Scope>,
}

/// Runs the command.
///
/// # Errors
/// A name that can't be one, or what the system says.
pub fn run(args: &KeyArgs) -> Result<ExitCode, String> {
    let KeyCommand::New(new) = &args.command;
    let (key, entry) = generate(&new.name, &new.scopes)?;
    // So `>> keys.toml` takes the entry and leaves the key on the screen.
    let mut stderr = io::stderr().lock();
    let told = if stderr.is_terminal() {
        writeln!(stderr, "The key, shown only now; give it to who is to use it:\n\n{key}\n")
    } else {
        writeln!(stderr, "{key}")
    };
    told.and_then(|()| io::stdout().lock().write_all(entry.as_bytes()))
        .map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn scope(text: &str) -> Result<Scope, String> {
    let known = Scope::ALL.into_iter().find(|scope| scope.as_str() == text);
    known.ok_or_else(|| format!("one of {}", Scope::ALL.map(Scope::as_str).join(", ")))
}
