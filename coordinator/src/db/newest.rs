//! The newest of what many hosts have: a page of a list for whoever may see these hosts only. It is read little for it,
//! however many hosts there are and however much they have.

use diesel::prelude::*;
use diesel::sql_types::{Timestamptz, Uuid as SqlUuid};
use fleet_wire::Timestamp;
use std::cmp::Reverse;
use uuid::Uuid;

/// Hosts that are asked before the others.
const FEW: usize = 16;

/// A place in a list: when something was made, and its id.
pub type Place = (Timestamp, Uuid);

/// A place as a statement gives it.
#[derive(QueryableByName)]
#[allow(missing_docs, reason = "the columns")]
pub struct PlaceRow {
    #[diesel(sql_type = Timestamptz)]
    pub created_at: Timestamp,
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
}

/// The newest `limit` places of `hosts`, newest first. `read` gives the newest `limit` of some hosts that are not before a place. A
/// few hosts are asked first: if what they have fills the page, the others are asked only for what is newer than its end.
///
/// # Errors
/// Those of reading.
pub async fn newest(
    hosts: &[Uuid],
    limit: i64,
    mut read: impl AsyncFnMut(&[Uuid], Option<Place>) -> QueryResult<Vec<Place>>,
) -> QueryResult<Vec<Place>> {
    let (few, others) = hosts.split_at(hosts.len().min(FEW));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found = read(few, None).await?;
    if !others.is_empty() {
        let floor = limit.checked_sub(1).and_then(|last| found.get(last).copied());
        found.extend(read(others, floor).await?);
        found.sort_unstable_by_key(|place| Reverse(*place));
        found.dedup();
        found.truncate(limit);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use proptest::prelude::*;

    fn place(at: i64) -> Place {
        (DateTime::from_timestamp(at, 0).expect("a time"), Uuid::from_u128(at.unsigned_abs().into()))
    }

    proptest! {
        #[test]
        fn the_page_is_that_of_all_hosts(
            mut all in proptest::collection::vec((0..40_u128, 0..1_000_i64), 0..300),
            limit in 1..50_usize,
        ) {
            // What several hosts have is one thing.
            let hosts: Vec<Uuid> = (0..40).map(Uuid::from_u128).collect();
            let mut looked = Vec::new();
            let read = async |some: &[Uuid], floor: Option<Place>| {
                let seen = all.iter().filter(|(host, _)| some.contains(&Uuid::from_u128(*host)));
                let mut places: Vec<Place> =
                    seen.map(|(_, at)| place(*at)).filter(|place| floor.is_none_or(|floor| *place >= floor)).collect();
                places.sort_unstable_by_key(|place| Reverse(*place));
                places.dedup();
                places.truncate(limit);
                looked.push(some.len());
                Ok(places)
            };
            let page = actix::System::new().block_on(newest(&hosts, i64::try_from(limit).expect("small"), read));
            prop_assert_eq!(looked, [16, 24]);
            all.sort_unstable_by_key(|(_, at)| Reverse(*at));
            let mut whole: Vec<Place> = all.iter().map(|(_, at)| place(*at)).collect();
            whole.dedup();
            whole.truncate(limit);
            prop_assert_eq!(page.expect("read"), whole);
        }
    }
}
