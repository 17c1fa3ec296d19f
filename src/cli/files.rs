//! `forebay files`, `completions` and `man`: what belongs to the binary and lives outside of it.

use clap::{Args, Command};
use clap_complete::Shell;
use std::io::{self, Write};
use std::process::ExitCode;

/// What each file is for, and its text. Their sources are in `src/deploy/`.
pub static FILES: &[(&str, &str, &str)] = &[
    (
        "forebay.service",
        "systemd unit: hardened, notifies, with a watchdog",
        include_str!("../deploy/forebay.service"),
    ),
    (
        "forebay.socket",
        "systemd socket: held by systemd, so a restart refuses nobody",
        include_str!("../deploy/forebay.socket"),
    ),
    ("Containerfile", "container image: small, not root", include_str!("../deploy/Containerfile")),
    (
        "seccomp-io_uring.json",
        "seccomp rules that a container engine's profile lacks for io_uring",
        include_str!("../deploy/seccomp-io_uring.json"),
    ),
    ("alerts.yml", "Prometheus alert rules", include_str!("../deploy/alerts.yml")),
    ("dashboard.json", "Grafana dashboard", include_str!("../deploy/dashboard.json")),
];

/// Which file.
#[derive(Debug, Args)]
pub struct FilesArgs {
    /// File to print; without it, the list of all.
    #[arg(value_parser = names())]
    pub name: Option<String>,
}

/// Which shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

fn names() -> clap::builder::PossibleValuesParser {
    FILES.iter().map(|(name, ..)| *name).into()
}

/// Prints a file, or the list.
///
/// # Errors
/// Standard output can't be written.
pub fn run(args: &FilesArgs) -> Result<ExitCode, String> {
    let text = match &args.name {
        Some(name) => {
            let file = FILES.iter().find(|(known, ..)| known == name);
            file.map_or(String::new(), |(.., text)| (*text).to_owned())
        }
        None => FILES.iter().map(|(name, what, _)| format!("{name:<24} {what}\n")).collect(),
    };
    print(text.as_bytes())
}

/// Prints a shell's completions.
///
/// # Errors
/// Standard output can't be written.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> Result<ExitCode, String> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "forebay", &mut text);
    print(&text)
}

/// Prints the manual page: the program, then each of its commands.
///
/// # Errors
/// Standard output can't be written.
pub fn man(command: Command) -> Result<ExitCode, String> {
    let told = |error: io::Error| error.to_string();
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text).map_err(told)?;
    let mut built = command;
    built.build();
    for sub in built.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = sub.get_bin_name().unwrap_or_else(|| sub.get_name()).to_uppercase();
        writeln!(text, ".SH {name}").map_err(told)?;
        let page = clap_mangen::Man::new(sub.clone());
        page.render_synopsis_section(&mut text).map_err(told)?;
        page.render_description_section(&mut text).map_err(told)?;
        // The settings are the same everywhere: they stand once, with `serve`.
        if sub.get_name() == "serve" || sub.get_arguments().all(|arg| arg.get_id() != "config") {
            page.render_options_section(&mut text).map_err(told)?;
        }
    }
    print(&text)
}

fn print(text: &[u8]) -> Result<ExitCode, String> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        // Who reads the beginning only has had enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::command;
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_shell_has_its_completions() {
        command().debug_assert();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command(), "forebay", &mut text);
            let text = String::from_utf8_lossy(&text);
            for word in ["serve", "egress-allow", "completions"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }
}
