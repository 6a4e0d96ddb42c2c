//! The tokens that are good, in memory: a request costs no query for its token, and a token that is revoked is so at once,
//! for what is open too. The ledger has them all; a coordinator is alone with its ledger, so what is here is what is there.

use crate::access::{Labels, Scope};
use crate::db::json::Json;
use crate::db::tokens::ApiToken;
use crate::rates::Bucket;
use chrono::Utc;
use fleet_wire::Timestamp;
use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, watch};
use uuid::Uuid;

/// The name of the built-in admin.
pub const ADMIN: &str = "admin";
/// How long a wait for an expiry sleeps at most: the clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// A token that is good.
#[derive(Debug)]
pub struct Token {
    /// Its id; the built-in admin has none.
    pub id: Option<Uuid>,
    /// What it is called.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    /// The labels of the hosts that it is limited to.
    pub labels: Option<Labels>,
    /// How much of its requests is used up.
    pub bucket: Bucket,
    expires_at: Option<Timestamp>,
    /// When it was last used, in milliseconds since 1970, and what of that is written down.
    used: AtomicI64,
    written: AtomicI64,
    revoked: watch::Sender<bool>,
}

impl Token {
    fn new(id: Option<Uuid>, name: String, scope: Scope) -> Self {
        Self {
            id,
            name,
            scope,
            labels: None,
            bucket: Bucket::default(),
            expires_at: None,
            used: AtomicI64::new(0),
            written: AtomicI64::new(0),
            revoked: watch::Sender::new(false),
        }
    }

    /// Whether it still opens anything.
    pub fn is_good(&self) -> bool {
        !*self.revoked.borrow() && !self.is_expired()
    }

    fn is_expired(&self) -> bool {
        self.expires_at.is_some_and(|at| at <= Utc::now())
    }

    /// Ready when the token is not good any more.
    pub async fn ended(&self) {
        let mut revoked = self.revoked.subscribe();
        let revoked = async {
            if revoked.wait_for(|revoked| *revoked).await.is_err() {
                pending::<()>().await; // it is revoked before it goes
            }
        };
        tokio::select! {
            () = revoked => {}
            () = self.expired() => {}
        }
    }

    async fn expired(&self) {
        let Some(at) = self.expires_at else { return pending().await };
        while let Ok(left) = (at - Utc::now()).to_std() {
            tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        }
    }
}

impl From<ApiToken> for Token {
    fn from(row: ApiToken) -> Self {
        // The column's CHECK allows the three words only.
        let scope = Scope::ALL.into_iter().find(|scope| scope.as_str() == row.scope).unwrap_or(Scope::Read);
        Self {
            labels: row.host_labels.map(|Json(labels)| labels),
            expires_at: row.expires_at,
            ..Self::new(Some(row.id), row.name, scope)
        }
    }
}

/// See the module's text. The lock of the map is held for a look-up, never across an await.
#[derive(Debug)]
pub struct Tokens {
    good: RwLock<HashMap<Vec<u8>, Arc<Token>>>,
    changing: Mutex<()>,
}

impl Tokens {
    /// The built-in admin, whose token has this hash, and the living tokens of the ledger.
    pub fn new(admin_token_hash: Vec<u8>, living: Vec<ApiToken>) -> Self {
        let of_ledger = living.into_iter().map(|row| (row.token_hash.clone(), Arc::new(Token::from(row))));
        let admin = Arc::new(Token::new(None, ADMIN.to_owned(), Scope::Admin));
        let good = RwLock::new(of_ledger.chain([(admin_token_hash, admin)]).collect());
        Self { good, changing: Mutex::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Vec<u8>, Arc<Token>>> {
        self.good.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Vec<u8>, Arc<Token>>> {
        self.good.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever makes or revokes a token in the ledger holds this until memory has heard of it: otherwise one that is revoked
    /// a moment after it was made might be added here after it was taken away, and be good until a restart.
    pub async fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// The token with this hash, if it is good; that it is used is noted. Hashes may be compared in the time that it takes:
    /// who could learn one from that can't choose the hash of what is sent.
    pub fn find(&self, hash: &[u8]) -> Option<Arc<Token>> {
        let token = self.read().get(hash).filter(|token| token.is_good()).cloned()?;
        token.used.fetch_max(Utc::now().timestamp_millis(), Ordering::Relaxed);
        Some(token)
    }

    /// A token that is in the ledger is good from now on. One that is here stays what it is: somebody may watch it.
    pub fn add(&self, row: ApiToken) {
        self.write().entry(row.token_hash.clone()).or_insert_with(|| Arc::new(row.into()));
    }

    /// A token that is revoked in the ledger is not good any more, and what it has open ends.
    pub fn revoke(&self, id: Uuid) {
        self.write().retain(|_, token| {
            let stays = token.id != Some(id);
            if !stays {
                token.revoked.send_replace(true);
            }
            stays
        });
    }

    /// When the tokens were last used that were used since this was last asked.
    pub fn take_used(&self) -> Vec<(Uuid, Timestamp)> {
        let tokens = self.read();
        let used = |token: &Arc<Token>| {
            let used = token.used.load(Ordering::Relaxed);
            let new = token.written.swap(used, Ordering::Relaxed) < used;
            Some((token.id.filter(|_| new)?, Timestamp::from_timestamp_millis(used)?))
        };
        tokens.values().filter_map(used).collect()
    }

    /// When a token was last used, as far as this process knows.
    pub fn last_used(&self, id: Uuid) -> Option<Timestamp> {
        let tokens = self.read();
        let token = tokens.values().find(|token| token.id == Some(id))?;
        Some(token.used.load(Ordering::Relaxed)).filter(|used| *used > 0).and_then(Timestamp::from_timestamp_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn row(id: u128, expires_in: Option<TimeDelta>) -> ApiToken {
        ApiToken {
            id: Uuid::from_u128(id),
            name: format!("t{id}"),
            token_hash: id.to_be_bytes().to_vec(),
            scope: "operate".to_owned(),
            host_labels: None,
            created_at: Utc::now(),
            created_by: ADMIN.to_owned(),
            expires_at: expires_in.map(|time| Utc::now() + time),
            last_used_at: None,
            revoked_at: None,
        }
    }

    #[actix::test]
    async fn what_is_revoked_or_expired_is_not_good_and_what_it_has_open_ends() {
        let tokens = Tokens::new(vec![0], vec![row(1, None), row(2, Some(TimeDelta::seconds(-1)))]);
        tokens.add(row(3, Some(TimeDelta::milliseconds(200))));
        let find = |id: u128| tokens.find(&id.to_be_bytes());
        assert!(find(2).is_none());
        let (first, third) = (find(1).expect("good"), find(3).expect("good"));
        third.ended().await;
        assert!(find(3).is_none());
        assert!(tokio::time::timeout(Duration::ZERO, first.ended()).await.is_err(), "it is good");
        tokens.revoke(Uuid::from_u128(1));
        first.ended().await;
        assert!(find(1).is_none());
        assert_eq!(tokens.find(&[0]).map(|token| token.scope), Some(Scope::Admin));
    }

    #[actix::test]
    async fn what_is_made_again_is_the_same() {
        let tokens = Tokens::new(vec![0], Vec::new());
        tokens.add(row(1, None));
        let open = tokens.find(&1_u128.to_be_bytes()).expect("good");
        tokens.add(row(1, None));
        tokens.revoke(Uuid::from_u128(1));
        tokio::time::timeout(Duration::ZERO, open.ended()).await.expect("what it has open ends");
        assert!(!open.is_good());
    }

    #[test]
    fn a_use_is_told_once() {
        let tokens = Tokens::new(vec![0], vec![row(1, None), row(2, None)]);
        assert!(tokens.take_used().is_empty());
        tokens.find(&1_u128.to_be_bytes());
        tokens.find(&[0]);
        let used = tokens.take_used();
        assert_eq!(used.iter().map(|(id, _)| id.as_u128()).collect::<Vec<_>>(), [1]);
        assert_eq!(tokens.last_used(used[0].0), Some(used[0].1));
        assert!(tokens.take_used().is_empty());
    }
}
