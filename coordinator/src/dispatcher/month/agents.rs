//! The agents of the month.

use super::{
    Agent, End, Event, HOSTS, JobState, Month, Scope, Told, Work, host, kind_of, new_job, number_of, repository_of,
};
use fleet_wire::Kind;
use uuid::Uuid;

impl Month {
    fn agent(&mut self, number: u128) -> &mut Agent {
        &mut self.agents[number as usize]
    }

    pub(super) fn connect(&mut self, number: u128) {
        if std::mem::replace(&mut self.agent(number).connected, true) {
            return;
        }
        let moment = self.moment();
        if let Some(lanes) = &mut self.lanes {
            lanes.host_ready(host(number), moment);
        }
        self.tell_schedule(number);
        if self.random(3) == 0
            && let Some((due_at, job)) = self.agent(number).last_fired
            && self.agent(number).journal.is_empty()
        {
            self.judge(number, due_at, job);
        }
        self.tell(number);
        self.grant(repository_of(number));
        if self.is_on() {
            let there = 6 * 3600 + self.random(4 * 24 * 3600);
            self.after(there, Event::Disconnect(number));
        }
    }

    pub(super) fn disconnect(&mut self, number: u128) {
        let (now, moment) = (self.now, self.moment());
        let agent = self.agent(number);
        (agent.connected, agent.seen) = (false, now);
        if let Some(lanes) = &mut self.lanes {
            lanes.host_gone(host(number), moment);
        }
        self.grant(repository_of(number));
    }

    /// The agents that a pause concerns learn what their schedules are now.
    pub(super) fn tell_schedules(&mut self, scope: Scope) {
        let concerned = |number: &u128| match scope {
            Scope::Host(only) => *number == only,
            Scope::Repository(of) => repository_of(*number) == repository_of(of),
            Scope::Fleet => true,
        };
        for number in (0..HOSTS).filter(concerned) {
            self.tell_schedule(number);
        }
    }

    fn tell_schedule(&mut self, number: u128) {
        let enabled = self.pauses.why(Some(host(number)), Some(repository_of(number))).is_none();
        let agent = self.agent(number);
        if agent.connected && agent.enabled != enabled {
            agent.enabled = enabled;
            agent.told += 1;
            self.await_firing(number);
        }
    }

    /// A schedule that is on counts from now on.
    pub(super) fn await_firing(&mut self, number: u128) {
        let (now, end) = (self.now, self.end());
        let agent = self.agent(number);
        let next = agent.timetable.next_after(now).expect("a next time");
        let fire = Event::Fire(number, agent.told);
        if agent.enabled && next <= end {
            self.at(next, fire);
        }
    }

    pub(super) fn fire(&mut self, number: u128, told: u32) {
        if told != self.agent(number).told {
            return;
        }
        let job = Uuid::from_u128(u128::from(self.queued) << 64 | number);
        let due_at = self.now;
        self.agent(number).journal.push(Told::Fired(due_at, job));
        self.agent(number).last_fired = Some((due_at, job));
        self.tell(number);
        self.after(30, Event::Alone(number, job));
        self.await_firing(number);
    }

    pub(super) fn run_alone(&mut self, number: u128, job: Uuid) {
        let untold = self.agent(number).journal.iter().any(|told| matches!(told, Told::Fired(_, id) if *id == job));
        let busy = self.at_work.iter().any(|job| self.work[job].new.host_id == host(number));
        if untold && !busy {
            let new = new_job(job, Kind::Backup, number, self.now);
            let (state, asked) = (JobState::new(), self.now);
            let work =
                Work { new, state, made_at: asked, asked, begun: true, alone: true, dispatched: false, over: false };
            self.work.insert(job, work);
            self.agent(number).journal.push(Told::Started(job));
            self.work_on(job);
        }
    }

    /// An agent is at work from now on.
    pub(super) fn work_on(&mut self, job: Uuid) {
        self.at_work.insert(job);
        let new = &self.work[&job].new;
        let (least, more) = match kind_of(new) {
            Kind::Prune => (3_600, 7_200),
            Kind::Backup => self.agents[number_of(new.host_id) as usize].backup_takes,
            _ => (300, 1_800),
        };
        let length = least + self.random(more);
        self.after(length, Event::End(job));
    }

    /// A job is over, somehow.
    pub(super) fn finish(&mut self, job: Uuid) {
        let work = &self.work[&job];
        let (number, alone, kind) = (number_of(work.new.host_id), work.alone, kind_of(&work.new));
        let end = match (self.random(100), kind) {
            (0..8, _) => End::Failed,
            (8..12, Kind::Backup) => End::Partial,
            (12..14, Kind::Backup) if !alone => End::Refused,
            (14, _) => End::Cancelled,
            _ => End::Succeeded,
        };
        self.at_work.remove(&job);
        self.agent(number).journal.push(Told::Ended(job, end));
        self.tell(number);
    }

    /// The agent says what is in its journal, and the coordinator writes it down.
    pub(super) fn tell(&mut self, number: u128) {
        if self.lanes.is_none() || !self.agent(number).connected {
            return;
        }
        for told in std::mem::take(&mut self.agent(number).journal) {
            match told {
                Told::Fired(due_at, job) => self.judge(number, due_at, job),
                Told::Started(job) => self.heard_of(number, job),
                Told::Ended(job, end) => self.over(job, end),
            }
        }
    }
}
