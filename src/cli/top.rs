//! `forebay top`: a live view of a running server, in a terminal or as text.

mod ask;
mod draw;
mod sample;
mod view;

use ask::Server;
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;
use view::View;

/// Which server, and how to show it.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Where the server is.
    #[arg(default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,
    /// File that holds an API key with the scope `metrics`.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// PEM file with the authority of the server's certificate, where no public one has signed it.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Milliseconds between two looks.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub interval_ms: u64,
    /// Seconds that the percentiles are of.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(5..=600))]
    pub window_s: u32,
    /// Print one view as text and end.
    #[arg(long)]
    pub once: bool,
}

/// How long the keyboard is listened to before the screen is looked at again.
const TURN: Duration = Duration::from_millis(50);

/// Runs the command.
///
/// # Errors
/// The server can't be reached or refuses; the terminal can't be used.
pub fn run(args: &TopArgs) -> Result<ExitCode, String> {
    let server = Server::new(args)?;
    let every = Duration::from_millis(args.interval_ms);
    let first = server.sample()?;
    if args.once {
        // Rates need two looks.
        thread::sleep(every);
        let view = View::of(server.name(), Some(&first), &server.sample()?);
        return match io::stdout().lock().write_all(view.text().as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
            _ => Ok(ExitCode::SUCCESS),
        };
    }
    if !io::stdout().is_terminal() {
        return Err("standard output is no terminal: use --once".to_owned());
    }
    let (to, views) = mpsc::channel();
    let _ = to.send(View::of(server.name(), None, &first));
    // Ends when nobody listens any more, at the latest after one more look.
    thread::spawn(move || look(&server, first, every, &to));
    let mut terminal = ratatui::try_init().map_err(|error| format!("the terminal: {error}"))?;
    let shown = show(&mut terminal, &views);
    ratatui::restore();
    shown.map_err(|error| format!("the terminal: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Looks at the server again and again; one that does not answer is shown as lost.
fn look(server: &Server, first: sample::Sample, every: Duration, to: &Sender<View>) {
    let mut before = first;
    loop {
        thread::sleep(every);
        let view = match server.sample() {
            Ok(now) => {
                let view = View::of(server.name(), Some(&before), &now);
                before = now;
                view
            }
            Err(error) => View { lost: Some(error), ..View::of(server.name(), None, &before) },
        };
        if to.send(view).is_err() {
            return;
        }
    }
}

fn show(terminal: &mut ratatui::DefaultTerminal, views: &Receiver<View>) -> io::Result<()> {
    let mut view = View::default();
    let mut changed = true;
    loop {
        match views.recv_timeout(Duration::ZERO) {
            Ok(next) => (view, changed) = (next, true),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if std::mem::take(&mut changed) {
            terminal.draw(|frame| draw::draw(frame, &view))?;
        }
        if event::poll(TURN)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let interrupt = key.modifiers.contains(KeyModifiers::CONTROL)
                        && key.code == KeyCode::Char('c');
                    if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                        return Ok(());
                    }
                }
                Event::Resize(..) => changed = true,
                _ => {}
            }
        }
    }
}
