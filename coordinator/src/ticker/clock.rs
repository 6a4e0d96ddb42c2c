//! The coordinator's clock has gone back, or nobody knows what it showed before the start: what it has put into the future by
//! mistake is put right. A clock that was a year ahead for a moment would stop all maintenance for a year.

use super::look::{NoLook, write};
use crate::db::runs::{Moved, SetRight};
use crate::db::{maintenance, schedules};
use crate::services::Services;
use crate::timetable::Timetable;
use fleet_wire::Timestamp;
use uuid::Uuid;

/// Timetables that are looked at together.
const TIMETABLES: i64 = 1_024;

/// See the module's text; `now` is the time that it is. True if all is right.
pub async fn set_right(services: &Services, now: Timestamp) -> bool {
    let outcome = all(services, now).await;
    if let Err(error) = &outcome {
        log::warn!("it could not be looked at what is due too far in the future, it is tried again: {error}");
    }
    outcome.is_ok()
}

async fn all(services: &Services, now: Timestamp) -> Result<(), NoLook> {
    let mut sooner = of_schedules(services, now).await?;
    sooner.extend(of_repositories(services, now).await?);
    if !sooner.is_empty() {
        log::warn!(timetables = sooner.len(); "the clock was ahead: what was put into the future is due when it should be");
    }
    write(services, SetRight { sooner, now }).await?;
    services.pauses.began_by(now);
    Ok(())
}

async fn of_schedules(services: &Services, now: Timestamp) -> Result<Vec<Moved>, NoLook> {
    let (mut sooner, mut after) = (Vec::new(), Uuid::nil());
    loop {
        let read = async |reader: &mut _| schedules::timetables(reader, after, TIMETABLES).await;
        let rows = services.database.read(read).await?;
        let Some(last) = rows.last() else { return Ok(sooner) };
        after = last.id;
        sooner.extend(rows.into_iter().filter_map(|row| {
            let moved = Moved { id: row.id, kind: None, last: row.next_due_at?, next: None };
            due_sooner(moved, &row.cron, &row.timezone, now)
        }));
    }
}

async fn of_repositories(services: &Services, now: Timestamp) -> Result<Vec<Moved>, NoLook> {
    let rows = services.database.read(async |reader| maintenance::timetables(reader).await).await?;
    let sooner = rows.into_iter().filter_map(|row| {
        let moved = Moved { id: row.repository_id, kind: Some(row.kind), last: row.next_due_at?, next: None };
        due_sooner(moved, &row.cron, &row.timezone, now)
    });
    Ok(sooner.collect())
}

/// Moves what is due after the timetable's next time from now. Pure.
fn due_sooner(moved: Moved, cron: &str, timezone: &str, now: Timestamp) -> Option<Moved> {
    let next = Timetable::parse(cron, timezone).ok()?.next_after(now)?;
    (next < moved.last).then_some(Moved { next: Some(next), ..moved })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_due_later_than_it_should_be_is_moved() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let now = at("2026-03-01T12:00:00Z");
        let moved = |last: &str| {
            let moved = Moved { id: Uuid::nil(), kind: None, last: at(last), next: None };
            due_sooner(moved, "0 2 * * *", "UTC", now).and_then(|moved| moved.next)
        };
        assert_eq!(moved("2027-03-02T02:00:00Z"), Some(at("2026-03-02T02:00:00Z")));
        assert_eq!(moved("2026-03-03T02:00:00Z"), Some(at("2026-03-02T02:00:00Z")));
        assert_eq!((moved("2026-03-02T02:00:00Z"), moved("2026-03-01T02:00:00Z")), (None, None));
    }
}
