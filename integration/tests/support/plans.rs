//! The plans of what a PostgreSQL really ran, from its own log.

#![allow(unreachable_pub, reason = "a part of a test")]

use fleet_integration::Server;
use serde_json::Value;

/// Settings of a server that logs the plan of every statement, with the rows that it touched; those of triggers too.
pub const LOG_PLANS: &[&str] = &[
    "shared_preload_libraries=auto_explain",
    "auto_explain.log_min_duration=0",
    "auto_explain.log_format=json",
    "auto_explain.log_analyze=on",
    "auto_explain.log_timing=off",
    "auto_explain.log_nested_statements=on",
    "log_line_prefix=",
];

/// One statement that was run.
#[derive(Debug)]
pub struct Plan {
    /// The statement.
    pub text: String,
    root: Value,
}

/// A part of a plan.
#[derive(Debug)]
pub struct Node<'a> {
    pub kind: &'a str,
    /// The table it reads.
    pub table: Option<&'a str>,
    /// Rows that it had in hand, those included that it threw away.
    pub rows: f64,
}

/// The plans in what a server has logged after its first `from` bytes.
pub fn plans(server: &Server, from: usize) -> Vec<Plan> {
    let log = server.log();
    // Each is `LOG:  duration: … plan:`, and its JSON on lines that begin with a tab.
    let after = log[from..].split(" plan:\n").skip(1);
    after
        .map(|text| {
            let json: String = text.lines().take_while(|line| line.starts_with('\t')).collect::<Vec<_>>().join("\n");
            let plan: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error} in the plan {json}"));
            Plan { text: plan["Query Text"].as_str().unwrap().to_owned(), root: plan["Plan"].clone() }
        })
        .collect()
}

impl Plan {
    /// All its parts.
    pub fn nodes(&self) -> Vec<Node<'_>> {
        let mut nodes = Vec::new();
        visit(&self.root, &mut nodes);
        nodes
    }

    /// For people.
    pub fn describe(&self) -> String {
        format!("{}\n{:#}", self.text, self.root)
    }
}

fn visit<'a>(node: &'a Value, nodes: &mut Vec<Node<'a>>) {
    let number = |name: &str| node[name].as_f64().unwrap_or(0.0);
    let thrown_away = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    let mut rows = number("Actual Rows") + thrown_away;
    let below = node["Plans"].as_array().map(Vec::as_slice).unwrap_or_default();
    if node["Node Type"] == "Sort" {
        // A sort that stops early gives a few of the many that it took.
        rows = below.iter().map(|below| below["Actual Rows"].as_f64().unwrap_or(0.0)).sum();
    }
    nodes.push(Node {
        kind: node["Node Type"].as_str().unwrap(),
        table: node["Relation Name"].as_str(),
        rows: rows * number("Actual Loops"),
    });
    below.iter().for_each(|below| visit(below, nodes));
}
