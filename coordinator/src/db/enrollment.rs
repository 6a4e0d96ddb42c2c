//! Enrolment: tokens that are good for one host, and the hosts that come of them.

use super::json::Json;
use super::schema::{enrollment_tokens, hosts};
use crate::persistence::Write;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A token as it stands in its row. The token itself is known to its holder only.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = enrollment_tokens)]
pub struct EnrollmentToken {
    /// See [`crate::vault::hash_token`].
    pub token_hash: Vec<u8>,
    /// The labels that the host gets.
    pub labels: Json<BTreeMap<String, String>>,
    /// The repository that it is assigned to.
    pub repository_id: Option<Uuid>,
    /// The host that is enrolled again; without it the token makes a new one.
    pub host_id: Option<Uuid>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is not good any more.
    pub expires_at: Timestamp,
    /// When a host was enrolled with it.
    pub used_at: Option<Timestamp>,
}

/// Makes a token. A repository or host that is not there violates a foreign key.
#[derive(Clone, Debug)]
pub struct CreateToken(pub EnrollmentToken);

impl Write for CreateToken {
    /// False if the host to enrol again is out of service.
    type Output = bool;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        if let Some(host_id) = self.0.host_id {
            let gone = hosts::table.find(host_id).filter(hosts::decommissioned_at.is_not_null()).count();
            if gone.get_result::<i64>(connection).await? > 0 {
                return Ok(false);
            }
        }
        // Tokens that nobody can use any more are not kept for ever.
        diesel::delete(
            enrollment_tokens::table.filter(enrollment_tokens::expires_at.lt(self.0.created_at - RETENTION)),
        )
        .execute(connection)
        .await?;
        diesel::insert_into(enrollment_tokens::table)
            .values(&self.0)
            .on_conflict(enrollment_tokens::token_hash)
            .do_nothing()
            .execute(connection)
            .await?;
        Ok(true)
    }

    fn is_change(made: &bool) -> bool {
        *made
    }
}

/// How long an expired token is remembered, so that its holder is told what is wrong with it.
const RETENTION: chrono::TimeDelta = chrono::TimeDelta::days(30);

/// Why a token enrols nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such token.
    Unknown,
    /// It has enrolled a host already.
    Used,
    /// Its time is over.
    Expired,
    /// It moves its host to another repository, and the host has jobs that are not over.
    Busy,
    /// It moves its host to another repository, and the host is the runner of the one that it has.
    Runner,
}

/// Enrols a host and uses up its token, both or neither. One hostname twice in a repository violates
/// `hosts_hostname_in_repository`.
#[derive(Clone, Debug)]
pub struct Enroll {
    /// The hash of the token that is used up.
    pub token_hash: Vec<u8>,
    /// The id of the host, if it is a new one.
    pub host_id: Uuid,
    /// What the host calls itself.
    pub hostname: String,
    /// Its operating system, an [`fleet_wire::Os`].
    pub os: String,
    /// Its processor architecture, an [`fleet_wire::Arch`].
    pub arch: String,
    /// The hash of the token that the agent gets.
    pub agent_token_hash: Vec<u8>,
    /// Now.
    pub at: Timestamp,
}

/// The host that was enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Its id.
    pub host_id: Uuid,
    /// Whether it was there before: whoever has its old token is to be sent away.
    pub again: bool,
}

impl Write for Enroll {
    type Output = Result<Enrolled, Refusal>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let token = enrollment_tokens::table.find(&self.token_hash).select(EnrollmentToken::as_select());
        let Some(token) = token.first(connection).await.optional()? else { return Ok(Err(Refusal::Unknown)) };
        let enrolled = Enrolled { host_id: token.host_id.unwrap_or(self.host_id), again: token.host_id.is_some() };
        if token.used_at.is_some() {
            let own = super::hosts::by_token(connection, &self.agent_token_hash).await?.is_some();
            return Ok(if own { Ok(enrolled) } else { Err(Refusal::Used) });
        }
        if token.expires_at <= self.at {
            return Ok(Err(Refusal::Expired));
        }
        if let Some(refusal) = self.cannot_move(connection, &token).await? {
            return Ok(Err(refusal));
        }
        diesel::update(enrollment_tokens::table.find(&self.token_hash))
            .set(enrollment_tokens::used_at.eq(self.at))
            .execute(connection)
            .await?;
        if enrolled.again {
            self.renew(connection, enrolled.host_id, &token).await?;
        } else {
            self.make(connection, &token).await?;
        }
        Ok(Ok(enrolled))
    }

    fn is_change(enrolled: &Self::Output) -> bool {
        enrolled.is_ok()
    }
}

impl Enroll {
    async fn cannot_move(
        &self,
        connection: &mut AsyncPgConnection,
        token: &EnrollmentToken,
    ) -> QueryResult<Option<Refusal>> {
        let (Some(host_id), Some(repository_id)) = (token.host_id, token.repository_id) else { return Ok(None) };
        let host = super::hosts::find(connection, host_id).await?;
        if host.is_none_or(|host| host.repository_id == Some(repository_id)) {
            return Ok(None);
        }
        if super::hosts::has_open_jobs(connection, host_id).await? {
            return Ok(Some(Refusal::Busy));
        }
        let runner = super::maintenance::is_runner(connection, host_id, Some(repository_id)).await?;
        Ok(runner.then_some(Refusal::Runner))
    }

    async fn make(&self, connection: &mut AsyncPgConnection, token: &EnrollmentToken) -> QueryResult<()> {
        diesel::insert_into(hosts::table)
            .values((
                hosts::id.eq(self.host_id),
                hosts::hostname.eq(&self.hostname),
                hosts::os.eq(&self.os),
                hosts::arch.eq(&self.arch),
                hosts::labels.eq(&token.labels),
                hosts::repository_id.eq(token.repository_id),
                hosts::token_hash.eq(&self.agent_token_hash),
                hosts::created_at.eq(self.at),
            ))
            .execute(connection)
            .await?;
        Ok(())
    }

    /// The host keeps its id, history and settings; labels and repository change if the token names any.
    async fn renew(
        &self,
        connection: &mut AsyncPgConnection,
        host_id: Uuid,
        token: &EnrollmentToken,
    ) -> QueryResult<()> {
        let labels = Some(token.labels.clone()).filter(|Json(labels)| !labels.is_empty());
        diesel::update(hosts::table.find(host_id).filter(hosts::decommissioned_at.is_null()))
            .set((
                hosts::hostname.eq(&self.hostname),
                hosts::os.eq(&self.os),
                hosts::arch.eq(&self.arch),
                labels.map(|labels| hosts::labels.eq(labels)),
                token.repository_id.map(|repository| hosts::repository_id.eq(repository)),
                hosts::token_hash.eq(&self.agent_token_hash),
                // The new token is in one place only.
                hosts::previous_journal.eq(None::<String>),
                hosts::cloned_at.eq(None::<Timestamp>),
            ))
            .execute(connection)
            .await?;
        Ok(())
    }
}
