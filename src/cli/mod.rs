//! The command line: one file for each family of commands. It talks to servers through `client` alone.

mod bench;
mod care;
mod change;
mod connect;
mod demo;
mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod interrupt;
mod json;
mod manual;
mod members;
mod operate;
mod output;
mod read;
mod say;
mod serve;
#[cfg(feature = "sim")]
mod simulate;
mod text;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use failure::{Failure, Format};
use output::Output;

/// Discussion groups for instant-messaging clusters: one request makes a group, one packet shows it to every member.
#[derive(Parser)]
#[command(
    name = "roundtable",
    version,
    max_term_width = 100,
    after_help = "Begin with:\n  roundtable demo     a group's whole life, on a throw-away server\n  \
                  roundtable serve    a server on 127.0.0.1:7400\n\nExit codes: 0 done, 1 refused, 2 wrong usage, 3 cannot \
                  connect, 4 data damaged, 5 outcome unknown or not delivered, 6 the server cannot start."
)]
struct Cli {
    /// Print one JSON object a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Demo(demo::Demo),
    Token(operate::Token),
    Create(change::Create),
    Add(change::Add),
    Remove(change::Remove),
    Leave(change::Leave),
    Rename(change::Rename),
    Transfer(change::Transfer),
    Dissolve(change::Dissolve),
    Send(say::Send),
    Whisper(say::Whisper),
    Signal(say::Signal),
    Show(read::Show),
    Groups(read::Groups),
    History(read::History),
    Readers(read::Readers),
    Watch(watch::Watch),
    Ping(operate::Ping),
    Stats(operate::Stats),
    Verify(care::Verify),
    Repair(care::Repair),
    Backup(care::Backup),
    Restore(care::Restore),
    Export(care::Export),
    Import(care::Import),
    Connections(operate::Connections),
    Kick(operate::Kick),
    Completions(manual::Completions),
    Man(manual::Man),
    Bench(bench::Bench),
    #[cfg(feature = "sim")]
    Simulate(simulate::Simulate),
}

/// Runs the command that the program was started with.
pub(crate) fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, &arguments),
    };
    let format = if cli.json { Format::Json } else { Format::Human };
    match execute(cli.command, &mut Output::new(format)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(format),
    }
}

fn execute(command: Command, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Serve(command) => command.run(output),
        Command::Demo(command) => command.run(output),
        Command::Token(command) => command.run(output),
        Command::Create(command) => command.run(output),
        Command::Add(command) => command.run(output),
        Command::Remove(command) => command.run(output),
        Command::Leave(command) => command.run(output),
        Command::Rename(command) => command.run(output),
        Command::Transfer(command) => command.run(output),
        Command::Dissolve(command) => command.run(output),
        Command::Send(command) => command.run(output),
        Command::Whisper(command) => command.run(output),
        Command::Signal(command) => command.run(output),
        Command::Show(command) => command.run(output),
        Command::Groups(command) => command.run(output),
        Command::History(command) => command.run(output),
        Command::Readers(command) => command.run(output),
        Command::Watch(command) => command.run(output),
        Command::Ping(command) => command.run(output),
        Command::Stats(command) => command.run(output),
        Command::Verify(command) => command.run(output),
        Command::Repair(command) => command.run(output),
        Command::Backup(command) => command.run(output),
        Command::Restore(command) => command.run(output),
        Command::Export(command) => command.run(output),
        Command::Import(command) => command.run(output),
        Command::Connections(command) => command.run(output),
        Command::Kick(command) => command.run(output),
        Command::Completions(command) => command.run(output),
        Command::Man(command) => command.run(output),
        Command::Bench(command) => command.run(output),
        #[cfg(feature = "sim")]
        Command::Simulate(command) => command.run(output),
    }?;
    output.flush().map_err(Failure::from)
}

/// Help and version are printed as they are; wrong usage becomes one line, like every other error.
fn refuse(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let json = arguments.iter().skip(1).take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    let format = if json { Format::Json } else { Format::Human };
    Failure::usage(usage_line(error, arguments)).report(format)
}

fn usage_line(error: &clap::Error, arguments: &[OsString]) -> String {
    let names: Vec<String> = <Cli as clap::CommandFactory>::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let command =
        arguments.iter().skip(1).filter_map(|word| word.to_str()).find(|word| names.iter().any(|n| n == word));
    let help = command.map_or("roundtable --help".to_owned(), |command| format!("roundtable {command} --help"));
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return format!("no command: see `{help}`, or begin with `roundtable demo`");
    }
    let rendered = error.render().to_string();
    // The first paragraph says what is wrong; the names of missing arguments stand on lines of their own.
    let paragraph: Vec<&str> = rendered
        .trim_start_matches("error:")
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .split('\n')
        .map(str::trim)
        .collect();
    format!("{}: see `{help}`", paragraph.join(" ").trim())
}
