//! Shell completions and man pages, made from the definitions that the command line is parsed by.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man as Page;
use serde_json::json;

use super::Cli;
use super::failure::{Exit, Failure, Format};
use super::output::Output;

/// Print completions for a shell
#[derive(Args)]
#[command(
    after_help = "Examples:\n  roundtable completions bash > ~/.local/share/bash-completion/completions/roundtable\n  \
                        roundtable completions zsh > ~/.zfunc/_roundtable      # with `fpath+=~/.zfunc` before compinit\n  \
                        roundtable completions fish > ~/.config/fish/completions/roundtable.fish\n\nThey hold in \
                        shells that are started afterwards."
)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "roundtable", &mut script);
        let script = String::from_utf8_lossy(&script);
        output.line(|_| script.trim_end().to_owned(), || json!({"shell": self.shell.to_string(), "script": script}))?;
        Ok(())
    }
}

/// Print the man page, or write one for each command
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable man | man -l -\n  \
                        roundtable man --output ~/.local/share/man/man1      # then `man roundtable-create`\n\nWith \
                        --output the directory is made if it is not there, and pages of these names are replaced.")]
pub(crate) struct Man {
    /// Write all pages into this directory: roundtable.1, roundtable-create.1, …
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let pages = pages();
        let Some(directory) = &self.output else {
            let page = pages.into_iter().next().map(|(_, page)| page).unwrap_or_default();
            output.line(|_| page.trim_end().to_owned(), || json!({"page": page}))?;
            return Ok(());
        };
        write_all(directory, &pages).map_err(|error| {
            let place = directory.display();
            Failure::new(Exit::Refused, "OUTPUT", format!("cannot write man pages into {place}: {error}"))
        })?;
        for (name, _) in &pages {
            let path = directory.join(name).display().to_string();
            match output.format() {
                Format::Human => output.say(|_| path)?,
                Format::Json => output.line(|_| String::new(), || json!({"page": path}))?,
            }
        }
        Ok(())
    }
}

fn write_all(directory: &Path, pages: &[(String, String)]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    pages.iter().try_for_each(|(name, page)| fs::write(directory.join(name), page))
}

/// The names and texts of all pages, the program's own first.
fn pages() -> Vec<(String, String)> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut pages = vec![("roundtable.1".to_owned(), render(program.clone()))];
    add_pages("roundtable", &program, &mut pages);
    pages
}

/// A page for each command below one, and for those below it.
fn add_pages(above: &str, command: &Command, pages: &mut Vec<(String, String)>) {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        let name = format!("{above}-{}", command.get_name());
        let bin = name.replace('-', " ");
        pages.push((format!("{name}.1"), render(command.clone().display_name(&name).bin_name(bin))));
        add_pages(&name, command, pages);
    }
}

fn render(command: Command) -> String {
    let mut page = Vec::new();
    Page::new(command).render(&mut page).expect("memory takes what is written");
    String::from_utf8_lossy(&page).into_owned()
}
