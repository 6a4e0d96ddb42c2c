//! A short run of the chaos scenario; `./dev chaos` has long ones.

use fleet_integration::chaos::{Settings, run};
use std::time::Duration;

/// Any seed must do; a fixed one repeats what it finds.
const SEED: u64 = 20_260_301;

#[test]
fn nothing_is_lost_doubled_or_stuck_in_a_short_chaos() {
    let mut told = format!("seed {SEED}\n");
    let settings = Settings { seed: SEED, length: Duration::from_secs(14), agents: 3 };
    let verdict = run(settings, &mut |text| told.push_str(&format!("{text}\n"))).unwrap();
    assert!(verdict.is_good(), "{told}{verdict}");
    assert!(verdict.jobs >= 6 && verdict.lines >= 100, "too little happened: {told}{verdict}");
}
