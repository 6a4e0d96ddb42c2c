//! The schema that the coordinator is compiled against is the one that the migrations make.

use fleet_integration::{Coordinator, CoordinatorSettings, Database, leak_free_dir};
use std::env;
use std::path::Path;
use std::process::Command;

#[test]
fn schema_rs_is_what_the_migrations_make() {
    let diesel = env::var_os("FLEET_TEST_DIESEL");
    let diesel = diesel.expect("FLEET_TEST_DIESEL must name the Diesel CLI, which ./dev test installs: run that");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let database = Database::create().unwrap();
    let dir = leak_free_dir("fleet-schema.").unwrap();
    // The coordinator's own migrations, those that are part of the program.
    let settings = CoordinatorSettings { database_url: Some(database.url()), ..CoordinatorSettings::default() };
    drop(Coordinator::start(&dir.path().join("coordinator"), &settings).unwrap());

    let mut print = Command::new(diesel);
    print.arg("print-schema").current_dir(&workspace).env("DATABASE_URL", database.url());
    let output = print.output().expect("FLEET_TEST_DIESEL can be run");
    assert!(output.status.success(), "diesel print-schema: {}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let path = workspace.join("coordinator/src/db/schema.rs");
    let kept = std::fs::read_to_string(&path).unwrap();
    let differs = || {
        let lines = kept.lines().zip(printed.lines()).find(|(kept, printed)| kept != printed);
        format!("{} is not what `diesel print-schema` gives: {lines:?}", path.display())
    };
    assert!(kept == printed, "{}", differs());
}
