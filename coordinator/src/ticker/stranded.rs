//! Maintenance that waits for a host which went offline is taken from it once another can do it: its run is due again, and
//! the next look starts it there.

use super::look::NoLook;
use super::maintenance::candidates;
use crate::db::planning::OfRepositories;
use crate::db::runs::{self, Stranded};
use crate::dispatcher::Overrule;
use crate::job::Decide;
use crate::job::transitions::HANDED_ON;
use crate::maintenance::can_start;
use crate::services::Services;
use uuid::Uuid;

/// Jobs that are looked at together.
const JOBS: i64 = 256;

/// See the module's text.
pub(super) async fn look(services: &Services) -> Result<(), NoLook> {
    let mut after = (Uuid::nil(), Uuid::nil());
    loop {
        let stranded = services.database.read(async |reader| runs::stranded(reader, after, JOBS).await).await?;
        let Some(Stranded { run: last, .. }) = stranded.last() else { return Ok(()) };
        after = (last.repository_id.unwrap_or_default(), last.id);
        hand_on(services, stranded).await?;
    }
}

async fn hand_on(services: &Services, stranded: Vec<Stranded>) -> Result<(), NoLook> {
    let ids: Vec<Uuid> = stranded.iter().filter_map(|stranded| stranded.run.repository_id).collect();
    let hosts = services.database.read(async |reader| OfRepositories::find(reader, &ids).await).await?;
    for Stranded { run, hostname } in stranded {
        let of_repository = run.repository_id.and_then(|id| hosts.get(&id)).map(Vec::as_slice).unwrap_or_default();
        let repository = of_repository.first().and_then(|planning| planning.repository.as_deref());
        let Some((repository, job_id)) = repository.zip(run.job_id) else { continue };
        // While that is paused no host can do it: it keeps its place until then.
        let paused = services.pauses.stop_repository(repository.id);
        if !paused && can_start(&run, repository, &candidates(services, of_repository)) {
            log::info!(job:% = job_id; "maintenance is given to another host, for {hostname} went offline");
            let reason = format!("{HANDED_ON}{hostname} went offline before it began");
            services.dispatcher.do_send(Overrule { job_id, decision: Decide::Withdraw { reason } });
        }
    }
    Ok(())
}
