//! A job that has waited goes out with other settings than it was made with.

use super::json::Json;
use super::schema::jobs;
use crate::persistence::Write;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::CommandRun;
use uuid::Uuid;

/// Notes what a job goes out with.
#[derive(Clone, Debug)]
pub struct Replan {
    /// The job, which is not out yet.
    pub job_id: Uuid,
    /// What its agent is sent.
    pub command: Json<CommandRun>,
}

impl Write for Replan {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        let job = jobs::table.find(self.job_id);
        diesel::update(job).set(jobs::command.eq(&self.command)).execute(connection).await?;
        Ok(())
    }
}
