//! Writes a plan: all of one kind by one statement; what others refer to comes before them and goes after them.

use crate::db::maintenance::Stored;
use crate::db::repositories::{self, Changed, SecretColumn};
use crate::db::runs::expect_all;
use crate::db::schedules;
use crate::db::schema::{hosts, schedules as schedule_rows, source_groups};
use crate::db::source_groups::SourceGroup;
use crate::db::statement::statement;
use crate::expected;
use crate::fleet::plan::{Plan, Step, Work};
use crate::persistence::Write;
use crate::vault::Vault;
use diesel::prelude::*;
use diesel::sql_types::{Array, Text, Uuid as SqlUuid};
use diesel::upsert::excluded;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{Secret, Timestamp};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Rows that one statement inserts: it may have 65,535 parameters.
const ROWS: usize = 1_000;

/// Writes it; gives the hosts whose repositories have changed.
pub(super) async fn carry_out(
    connection: &mut AsyncPgConnection,
    plan: &Plan,
    vault: &Vault,
    at: Timestamp,
) -> QueryResult<BTreeSet<Uuid>> {
    let mut told = BTreeSet::new();
    for step in &plan.steps {
        told.extend(put_repository(connection, &step.work, vault).await?);
    }
    for step in &plan.steps {
        if let Work::ChangeHost(id, changes) = &step.work {
            diesel::update(hosts::table.find(id)).set((**changes).clone()).execute(connection).await?;
        }
    }
    put_groups(connection, &plan.steps).await?;
    put_schedules(connection, &plan.steps, at).await?;
    delete_schedules(connection, &plan.steps, at).await?;
    delete_groups(connection, &plan.steps).await?;
    raise_versions(connection, plan).await?;
    for step in &plan.steps {
        if let Work::Maintain(put) = &step.work
            && let Stored::Done(hosts) = put.apply(connection).await?
        {
            told.extend(hosts);
        }
    }
    for step in &plan.steps {
        if let Work::DeleteRepository(id) = step.work {
            repositories::Delete::new(id).apply(connection).await?;
        }
    }
    Ok(told)
}

/// Makes or changes a repository; gives the hosts that use it.
async fn put_repository(connection: &mut AsyncPgConnection, work: &Work, vault: &Vault) -> QueryResult<Vec<Uuid>> {
    let seal = |id: Uuid, column: SecretColumn, secret: &Secret| {
        let sealed = vault.seal(column.place(id), secret.expose().as_bytes());
        sealed.map_err(|error| diesel::result::Error::SerializationError(Box::new(error)))
    };
    match work {
        Work::CreateRepository(row, secrets) => {
            let mut row = (**row).clone();
            for (column, secret) in secrets {
                let sealed = seal(row.id, *column, secret)?;
                match column {
                    SecretColumn::Password => row.password = sealed,
                    SecretColumn::Credential => row.credential = Some(sealed),
                    SecretColumn::AdminPassword => row.admin_password = Some(sealed),
                    SecretColumn::AdminCredential => row.admin_credential = Some(sealed),
                }
            }
            repositories::Create(row).apply(connection).await?;
            Ok(Vec::new())
        }
        Work::ChangeRepository(id, changes, secrets) => {
            let (id, mut changes) = (*id, (**changes).clone());
            for (column, secret) in secrets {
                let sealed = secret.as_ref().map(|secret| seal(id, *column, secret)).transpose()?;
                match column {
                    // Every repository has one.
                    SecretColumn::Password => changes.password = sealed,
                    SecretColumn::Credential => changes.credential = Some(sealed),
                    SecretColumn::AdminPassword => changes.admin_password = Some(sealed),
                    SecretColumn::AdminCredential => changes.admin_credential = Some(sealed),
                }
            }
            match (repositories::Change { id, changes }).apply(connection).await? {
                Changed::Done(_, hosts) => Ok(hosts),
                Changed::NotFound | Changed::Busy => Err(diesel::result::Error::NotFound),
            }
        }
        _ => Ok(Vec::new()),
    }
}

async fn put_groups(connection: &mut AsyncPgConnection, steps: &[Step]) -> QueryResult<()> {
    use source_groups::dsl;
    let rows = steps.iter().filter_map(|step| if let Work::PutGroup(row) = &step.work { Some(&**row) } else { None });
    let rows: Vec<&SourceGroup> = rows.collect();
    for rows in rows.chunks(ROWS) {
        diesel::insert_into(source_groups::table)
            .values(rows.to_vec())
            .on_conflict((dsl::host_id, dsl::name))
            .do_update()
            .set((
                dsl::includes.eq(excluded(dsl::includes)),
                dsl::excludes.eq(excluded(dsl::excludes)),
                dsl::retention.eq(excluded(dsl::retention)),
                dsl::retry_max.eq(excluded(dsl::retry_max)),
                dsl::retry_backoff_seconds.eq(excluded(dsl::retry_backoff_seconds)),
                dsl::pre_hook.eq(excluded(dsl::pre_hook)),
                dsl::post_hook.eq(excluded(dsl::post_hook)),
                dsl::rpo_seconds.eq(excluded(dsl::rpo_seconds)),
                dsl::updated_at.eq(excluded(dsl::updated_at)),
            ))
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn put_schedules(connection: &mut AsyncPgConnection, steps: &[Step], at: Timestamp) -> QueryResult<()> {
    use schedule_rows::dsl;
    let (mut rows, mut due) = (Vec::new(), Vec::new());
    for step in steps {
        match &step.work {
            Work::PutSchedule(row, before) => {
                rows.push(&**row);
                // What the old one had due until now, which the ticker may not have come to.
                due.extend(before.iter().flat_map(|before| expected::of(before, at, usize::MAX).0));
            }
            Work::NameSchedule(id, name) => {
                diesel::update(schedule_rows::table.find(id)).set(dsl::name.eq(name)).execute(connection).await?;
            }
            _ => {}
        }
    }
    expect_all(connection, &due).await?;
    for rows in rows.chunks(ROWS) {
        diesel::insert_into(schedule_rows::table)
            .values(rows.to_vec())
            .on_conflict(dsl::id)
            .do_update()
            .set((
                dsl::cron.eq(excluded(dsl::cron)),
                dsl::timezone.eq(excluded(dsl::timezone)),
                dsl::enabled.eq(excluded(dsl::enabled)),
                dsl::source_groups.eq(excluded(dsl::source_groups)),
                dsl::catch_up_seconds.eq(excluded(dsl::catch_up_seconds)),
                dsl::bandwidth_up_kbps.eq(excluded(dsl::bandwidth_up_kbps)),
                dsl::bandwidth_down_kbps.eq(excluded(dsl::bandwidth_down_kbps)),
                dsl::interval_seconds.eq(excluded(dsl::interval_seconds)),
                dsl::next_due_at.eq(excluded(dsl::next_due_at)),
                dsl::updated_at.eq(excluded(dsl::updated_at)),
            ))
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn delete_schedules(connection: &mut AsyncPgConnection, steps: &[Step], at: Timestamp) -> QueryResult<()> {
    let ids = steps.iter().filter_map(|step| if let Work::DeleteSchedule(_, id) = step.work { Some(id) } else { None });
    let ids: Vec<Uuid> = ids.collect();
    if ids.is_empty() {
        return Ok(());
    }
    let gone = (schedule_rows::deleted_at.eq(at), schedule_rows::next_due_at.eq(None::<Timestamp>));
    diesel::update(schedule_rows::table.filter(schedule_rows::id.eq_any(ids))).set(gone).execute(connection).await?;
    Ok(())
}

async fn delete_groups(connection: &mut AsyncPgConnection, steps: &[Step]) -> QueryResult<()> {
    let gone = steps.iter().filter_map(|step| match &step.work {
        Work::DeleteGroup(host_id, name) => Some((*host_id, name.as_str())),
        _ => None,
    });
    let (of, names): (Vec<Uuid>, Vec<&str>) = gone.unzip();
    if of.is_empty() {
        return Ok(());
    }
    let query = statement(
        "DELETE FROM source_groups g USING unnest($1, $2) AS gone (host_id, name)
         WHERE g.host_id = gone.host_id AND g.name = gone.name",
    );
    query.bind::<Array<SqlUuid>, _>(of).bind::<Array<Text>, _>(names).execute(connection).await?;
    Ok(())
}

/// The agents of hosts whose schedules have changed are told a new version, which is that of the schedules that have.
async fn raise_versions(connection: &mut AsyncPgConnection, plan: &Plan) -> QueryResult<()> {
    let of: Vec<Uuid> = plan.rescheduled.iter().copied().collect();
    if !of.is_empty() {
        schedules::raise_versions(connection, &of).await?;
    }
    let (mut touched, mut put) = (plan.rescheduled.clone(), Vec::new());
    for step in &plan.steps {
        match &step.work {
            Work::PutSchedule(row, _) => put.push(row.id),
            Work::PutGroup(row) => {
                touched.insert(row.host_id);
            }
            _ => {}
        }
    }
    if !put.is_empty() {
        let query = statement(
            "UPDATE schedules s SET version = h.schedule_version FROM hosts h WHERE s.id = ANY ($1) AND h.id = s.host_id",
        );
        query.bind::<Array<SqlUuid>, _>(put).execute(connection).await?;
    }
    let touched: Vec<Uuid> = touched.into_iter().collect();
    if !touched.is_empty() {
        schedules::expect_success(connection, &touched).await?;
    }
    Ok(())
}
