//! What the children of a job have said that an agent was killed in: the rest of their records goes into its log.

use super::hooks::HookLog;
use crate::credentials::Credentials;
use crate::process::{self, Mark, Role, Spool};
use crate::report::Reporter;
use crate::restic::listen::{Listen, Listener};
use crate::restic::redact::Redactor;
use fleet_wire::{JobId, LogStream};

/// Reports everything behind `mark`, as the job itself would have done. To be called when the children are over.
pub async fn read_out(job: &JobId, credentials: &Credentials, spool: &Spool, mark: Option<Mark>, reporter: &Reporter) {
    let redactor = Redactor::new(credentials);
    let listener = |how| Listener::new(job.clone(), reporter, &redactor, how);
    for record in spool.records() {
        let read = match record.role {
            Role::Hook => process::replay(&record, mark, &mut HookLog::new(reporter, &redactor)).await,
            Role::Command => process::replay(&record, mark, &mut listener(Listen::Log)).await,
            Role::Query => process::replay(&record, mark, &mut listener(Listen::Keep)).await,
        };
        if let Err(error) = read {
            log::error!(job = job.as_str(); "{} can't be read: {error}", record.path.display());
            let line = format!("fleet-agent: the rest of what this job's children have said can't be read: {error}");
            reporter.log(LogStream::Stderr, line).await;
        }
    }
}
