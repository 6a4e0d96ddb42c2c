//! What a session does between hello and its first job: it takes its host's place, has hello written down, and tells
//! the agent its settings; and what it does when the settings change later.

use super::ledger;
use super::refusal::Refusal;
use super::{Context, Session, Stage, arrivals, settings};
use crate::clock;
use crate::db::greetings::{Greeting, NewHello};
use crate::dispatcher::{EnsureInit, HostReady};
use crate::maintenance::guards;
use crate::persistence::SaveHello;
use crate::registry::Enter;
use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use fleet_wire::{Ack, CAPABILITY_ACK, Hello, JobId, JournalId};
use std::time::Duration;

/// How much of its version an agent may say, in characters.
const LONGEST_VERSION: usize = 64;

/// The pause between tries to read the settings.
const READ_PAUSE: Duration = Duration::from_secs(1);

impl Session {
    /// Writes hello down and goes live.
    pub(super) fn greet(&mut self, hello: Hello, context: &mut Context) {
        self.stage = Stage::Greeting;
        self.set_timer(None, context);
        self.ack = hello.can(CAPABILITY_ACK);
        self.agent_version = hello.agent_version.chars().take(LONGEST_VERSION).collect::<String>().into();
        self.services.board.see(self.host_id);
        let (listed, journal) = (hello.jobs.clone(), hello.journal.clone());
        let (host_id, connection, session) = (self.host_id, self.connection, context.address());
        // Before the settings are read: who changes them later tells the registry after that.
        self.services.registry.do_send(Enter { host_id, connection, session });
        let new = NewHello { host_id, hello: Box::new(hello), at: clock::now() };
        let greet = self.services.persistence.send(SaveHello(new));
        context.spawn(greet.into_actor(self).map(move |outcome, actor, context| match outcome {
            _ if actor.is_seen_off() => actor.leave(),
            Ok(Ok(Some(greeting))) => actor.go_live(&greeting, listed, journal, context),
            Ok(Ok(None)) => actor.close(context, &Refusal::revoked()),
            Ok(Err(error)) => actor.close(context, &Refusal::internal(error.to_string())),
            Err(_) => actor.close(context, &Refusal::stopping()),
        }));
    }

    /// Tells the agent its settings, and only then lets jobs come.
    fn go_live(&mut self, greeting: &Greeting, jobs: Vec<JobId>, journal: Option<JournalId>, context: &mut Context) {
        if !self.send_settings(greeting, context) {
            return;
        }
        let (host_id, connection) = (self.host_id, self.connection);
        arrivals::say(host_id, &greeting.host.hostname);
        self.stage = Stage::Live;
        let (ack, init, cloned) = (self.ack, greeting.init(), greeting.host.cloned_at.is_some());
        let guards = guards(&greeting.host);
        if ack {
            // So that it knows from the first minute on that envelopes are acknowledged here.
            Self::send(context, Ack { up_to: 0.into() });
        }
        self.services.dispatcher.do_send(HostReady { host_id, connection, ack, journal, jobs, init, cloned, guards });
        self.tell_release(context);
        self.settings_sent(context);
        self.hand_on(context);
    }

    /// Tells the agent of a newer one, if there is one.
    pub(super) fn tell_release(&self, context: &mut Context) {
        if let Some(news) = self.services.release.news_for(&self.agent_version) {
            Self::send(context, news);
        }
    }

    /// Lets go what waited for the settings, unless they have changed once more.
    fn settings_sent(&mut self, context: &mut Context) {
        if self.reloading.take() == Some(true) {
            return self.reload(context);
        }
        for message in std::mem::take(&mut self.held) {
            Self::send(context, message);
        }
    }

    /// Reads the settings again and sends them.
    pub(super) fn reload(&mut self, context: &mut Context) {
        self.reloading = Some(false);
        let (database, host_id) = (self.services.database.clone(), self.host_id);
        let read = async move {
            loop {
                match ledger::read(&database, host_id).await {
                    Ok(greeting) => return greeting,
                    Err(error) => log::warn!(host:% = host_id; "the host's settings can't be read yet: {error}"),
                }
                actix::clock::sleep(READ_PAUSE).await;
            }
        };
        context.spawn(read.into_actor(self).map(|greeting, actor, context| {
            if actor.is_seen_off() {
                return;
            }
            let Some(greeting) = greeting else {
                return actor.close(context, &Refusal::revoked());
            };
            if actor.send_settings(&greeting, context) {
                if let Some(repository_id) = greeting.init() {
                    actor.services.dispatcher.do_send(EnsureInit { host_id: actor.host_id, repository_id });
                }
                actor.settings_sent(context);
            }
        }));
    }

    /// False if the settings can't be read, and the connection is closed therefore.
    fn send_settings(&mut self, greeting: &Greeting, context: &mut Context) -> bool {
        let paused = self.services.pauses.why(Some(greeting.host.id), greeting.host.repository_id).is_some();
        match settings::burst(greeting, &self.services.vault, self.ack, paused) {
            Ok(messages) => {
                messages.into_iter().for_each(|message| Self::send(context, message));
                true
            }
            Err(error) => {
                log::error!(host:% = self.host_id; "the repository's secrets can't be opened: {error}");
                self.close(
                    context,
                    &Refusal::internal("the repository's secrets can't be opened; see the coordinator's log"),
                );
                false
            }
        }
    }
}
