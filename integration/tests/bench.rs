//! The benchmarks work: a small run of some, of which only the counts are looked at. `./dev bench` has the real ones.

use fleet_integration::bench::{ALL, Row, Scale};

/// Runs one, which fails by itself where what was counted is not in the database.
fn run(name: &str) -> Vec<Row> {
    let benchmark = ALL.iter().find(|benchmark| benchmark.name == name).unwrap();
    let rows = benchmark.run(Scale { quick: true, agents: None }).unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|row| row.figure.is_finite()), "{rows:?}");
    rows
}

#[test]
fn jobs_are_dispatched_and_every_one_succeeds() {
    assert!(run("dispatch").iter().all(|row| row.ratio.is_some_and(|ratio| ratio > 0.0)));
}

#[test]
fn log_lines_are_stored_as_they_were_sent() {
    run("logs");
}

#[test]
fn agents_reconnect_beside_a_bare_server() {
    run("reconnect");
}
