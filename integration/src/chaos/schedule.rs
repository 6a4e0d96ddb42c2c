//! What happens when: drawn from the seed before anything starts, so that a seed repeats it.
//!
//! Every part of the fleet has a timeline of its own, on which one fault follows the other.

use super::dice::Dice;
use std::fmt;
use std::time::Duration;

/// A part of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Coordinator,
    Postgres,
    Agent(usize),
    /// The network between an agent and the coordinator.
    Link(usize),
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    /// SIGKILL; for Postgres SIGQUIT, its immediate shutdown.
    Kill,
    /// SIGTERM; for Postgres SIGINT, its fast shutdown.
    Term,
    /// SIGSTOP. A link forwards nothing and keeps its connections.
    Pause,
    /// A link's connections end, and new ones are possible at once.
    Cut,
    /// A link's connections end, and new ones too.
    Refuse,
    /// The end of the fault: it runs again.
    Mend,
}

/// A part and what happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) part: Part,
    pub(super) blow: Blow,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part {
            Part::Coordinator => "coordinator".to_owned(),
            Part::Postgres => "postgres".to_owned(),
            Part::Agent(index) => format!("agent {index}"),
            Part::Link(index) => format!("link of agent {index}"),
        };
        write!(f, "{part}: {}", format!("{:?}", self.blow).to_lowercase())
    }
}

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// A job of this kind on the host of this agent.
    Job(usize, Work),
    /// The end of one of the last few jobs, counted from the latest.
    Cancel(usize),
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    SmallBackup,
    /// Some seconds long, by its bandwidth.
    SlowBackup,
    Forget,
    Check,
    Prune,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// After the start.
    pub(super) at: Duration,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Ask(Wish),
    Break(Fault),
}

/// A timeline: the time between two faults and how long each lasts, in milliseconds, and which there are.
struct Habit {
    part: Part,
    gap: (u64, u64),
    lasts: (u64, u64),
    blows: &'static [Blow],
}

/// Everything that happens, in the order of time.
pub(super) fn draw(seed: u64, length: Duration, agents: usize) -> Vec<Event> {
    let dice = Dice::new(seed);
    let end = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let mut events = wishes(&mut dice.fork(1), end, agents);
    for (habit, purpose) in habits(agents).iter().zip(2..) {
        events.extend(faults(&mut dice.fork(purpose), end, habit));
    }
    events.sort_by_key(|event| event.at);
    events
}

fn habits(agents: usize) -> Vec<Habit> {
    let process = &[Blow::Kill, Blow::Kill, Blow::Term, Blow::Pause];
    let mut habits = vec![
        Habit { part: Part::Coordinator, gap: (3_000, 12_000), lasts: (200, 3_000), blows: process },
        Habit { part: Part::Postgres, gap: (6_000, 20_000), lasts: (300, 7_000), blows: process },
    ];
    for index in 0..agents {
        habits.push(Habit { part: Part::Agent(index), gap: (6_000, 20_000), lasts: (100, 3_000), blows: process });
        let link = &[Blow::Cut, Blow::Refuse, Blow::Pause];
        habits.push(Habit { part: Part::Link(index), gap: (4_000, 15_000), lasts: (100, 3_000), blows: link });
    }
    habits
}

fn faults(dice: &mut Dice, end: u64, habit: &Habit) -> Vec<Event> {
    let mut events = Vec::new();
    let mut at = dice.between(habit.gap.0 / 2, habit.gap.1);
    while at < end {
        let choice = usize::try_from(dice.between(0, habit.blows.len() as u64)).unwrap_or(0);
        let until = at + dice.between(habit.lasts.0, habit.lasts.1);
        for (at, blow) in [(at, habit.blows[choice]), (until.min(end), Blow::Mend)] {
            let what = What::Break(Fault { part: habit.part, blow });
            events.push(Event { at: Duration::from_millis(at), what });
        }
        at = until + dice.between(habit.gap.0, habit.gap.1);
    }
    events
}

fn wishes(dice: &mut Dice, end: u64, agents: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let mut at = 0;
    while at < end {
        let agent = usize::try_from(dice.between(0, agents as u64)).unwrap_or(0);
        let wish = match dice.between(0, 100) {
            0..52 => Wish::Job(agent, Work::SmallBackup),
            52..72 => Wish::Job(agent, Work::SlowBackup),
            72..80 => Wish::Job(agent, Work::Forget),
            80..84 => Wish::Job(agent, Work::Check),
            84..88 => Wish::Job(agent, Work::Prune),
            _ => Wish::Cancel(usize::try_from(dice.between(0, 4)).unwrap_or(0)),
        };
        events.push(Event { at: Duration::from_millis(at), what: What::Ask(wish) });
        at += dice.between(600, 2_400);
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(300);

    #[test]
    fn a_seed_repeats_its_schedule_and_another_has_another() {
        assert_eq!(draw(7, LENGTH, 3), draw(7, LENGTH, 3));
        assert_ne!(draw(7, LENGTH, 3), draw(8, LENGTH, 3));
    }

    #[test]
    fn every_part_is_struck_and_mended_in_turn() {
        let events = draw(7, LENGTH, 3);
        assert!(events.is_sorted_by_key(|event| event.at) && events.iter().all(|event| event.at <= LENGTH));
        for habit in habits(3) {
            let blows: Vec<_> = events
                .iter()
                .filter_map(|event| match event.what {
                    What::Break(fault) if fault.part == habit.part => Some(fault.blow),
                    _ => None,
                })
                .collect();
            assert!(blows.len() >= 10, "{:?}: {blows:?}", habit.part);
            assert!(blows.chunks(2).all(|pair| pair[0] != Blow::Mend && pair[1] == Blow::Mend), "{blows:?}");
            assert!(habit.blows.iter().all(|blow| blows.contains(blow)), "{:?}: {blows:?}", habit.part);
        }
    }
}
