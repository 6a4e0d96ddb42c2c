//! `./dev bench`: measures speed and size against floors in the same run, and prints a table.

use clap::{Parser, Subcommand};
use fleet_integration::bench::{ALL, Benchmark, Row, Scale, raise_open_files, serve_echo, table};
use fleet_integration::{Context, Failure};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// More than one machine's ports and files suffice for.
const MOST_AGENTS: usize = 100_000;

/// Measures the coordinator and the agent beside floors in the same run. Needs a quiet machine: nothing else should run.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    /// Only these; see --list
    names: Vec<String>,
    /// In small, in seconds: shows that everything works, its figures say little
    #[arg(long)]
    quick: bool,
    /// So many agents, in benchmarks that are about their number: memory, reconnect, heartbeats, operation, and growth,
    /// for which it is the largest
    #[arg(long, value_name = "N", value_parser = parse_agents)]
    agents: Option<usize>,
    /// Also writes what was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Names the benchmarks
    #[arg(long)]
    list: bool,
    #[command(subcommand)]
    inner: Option<Inner>,
}

#[derive(Debug, Subcommand)]
enum Inner {
    /// The bare server that figures are held against
    #[command(hide = true)]
    EchoServer {
        /// Where it listens
        port: u16,
    },
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.inner {
        Some(Inner::EchoServer { port }) => serve_echo(port).map(|()| true),
        None => run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            tell(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

fn parse_agents(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=MOST_AGENTS).contains(&count) => Ok(count),
        _ => Err(format!("a number from 1 to {MOST_AGENTS}")),
    }
}

fn run(options: &Options) -> Result<bool, Failure> {
    if options.list {
        ALL.iter().for_each(|benchmark| tell(&format!("{:12} {}", benchmark.name, benchmark.about)));
        return Ok(true);
    }
    let unknown = options.names.iter().find(|name| ALL.iter().all(|benchmark| benchmark.name != name.as_str()));
    if let Some(name) = unknown {
        return Err(Failure::new(format!("there is no benchmark {name}; see --list")));
    }
    let wanted =
        |benchmark: &&Benchmark| options.names.is_empty() || options.names.iter().any(|name| name == benchmark.name);
    let scale = Scale { quick: options.quick, agents: options.agents };
    raise_open_files()?;
    let (mut rows, mut record, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for benchmark in ALL.iter().filter(wanted) {
        let began = Instant::now();
        match benchmark.run(scale) {
            Ok(found) => {
                tell(&format!("{} ({:.0} s)\n{}", benchmark.name, began.elapsed().as_secs_f64(), table(&found)));
                record.extend(found.iter().map(|row| json!({"benchmark": benchmark.name, "row": row})));
                rows.extend(found);
            }
            Err(failure) => {
                tell(&format!("{} FAILED: {failure}\n", benchmark.name));
                record.push(json!({"benchmark": benchmark.name, "failed": failure.to_string()}));
                failed.push(benchmark.name);
            }
        }
    }
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&json!({"quick": options.quick, "rows": record}))?;
        std::fs::write(path, text + "\n").context(path.display())?;
    }
    tell(&summary(&rows, &failed));
    Ok(failed.is_empty())
}

fn summary(rows: &[Row], failed: &[&str]) -> String {
    let count = |met: bool| rows.iter().filter(|row| row.met == Some(met)).count();
    let failed = if failed.is_empty() { String::new() } else { format!("; failed: {}", failed.join(", ")) };
    format!("{} goals are met, {} are missed{failed}\n\n{}", count(true), count(false), table(rows))
}

#[allow(clippy::print_stdout, reason = "what the command is for")]
fn tell(text: &str) {
    println!("{text}");
}
