//! Where the next worker gets its slot of the scoreboard, and when the next attempt may be made.

use std::io;
use std::sync::Arc;

use super::backoff::{Backoff, Delay};
use super::children::{Children, roomy_scoreboard};
use super::fork::max_lifetime;
use super::fork_server::ForkServers;
use super::rollout::Rollout;
use super::worker_handle::Birth;
use crate::scoreboard::Scoreboard;

/// Why the next worker has no slot.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimError {
    #[error("the scoreboard is full; reload to grow it")]
    ScoreboardFull,
    #[error(transparent)]
    NoMemory(#[from] io::Error),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Spawner {
    scoreboard: Arc<Scoreboard>,
    backoff: Backoff,
    /// Between attempts to preload.
    preload_delay: Delay,
    /// Of the youngest worker.
    last_age: u64,
}

impl Spawner {
    pub(super) fn new(scoreboard: Arc<Scoreboard>) -> Self {
        Self {
            scoreboard,
            backoff: Backoff::default(),
            preload_delay: Delay::default(),
            last_age: 0,
        }
    }

    pub(super) fn scoreboard(&self) -> &Arc<Scoreboard> {
        &self.scoreboard
    }

    pub(super) fn backoff(&mut self) -> &mut Backoff {
        &mut self.backoff
    }

    pub(super) fn preload_delay(&mut self) -> &mut Delay {
        &mut self.preload_delay
    }

    /// Milliseconds until the next attempt to start a process. `None` when none waits.
    pub(super) fn next_attempt(&self, now: u64) -> Option<u64> {
        let preload = Some(self.preload_delay.remaining(now)).filter(|left| *left > 0);
        let waits = [preload, self.backoff.next_attempt(now)];
        waits.into_iter().flatten().min()
    }

    /// The operator has changed something: nothing waits.
    pub(super) fn reset_delays(&mut self) {
        self.backoff.reset();
        self.preload_delay = Delay::default();
    }

    /// How many workers there have been.
    pub(super) fn spawned(&self) -> u64 {
        self.last_age
    }

    pub(super) fn next_age(&self) -> u64 {
        self.last_age + 1
    }

    /// The worker of this age exists, or has been asked for.
    pub(super) fn use_age(&mut self, age: u64) {
        self.last_age = age;
    }

    /// The scoreboard for the next worker: a larger one when all slots are taken, or threads were added at a reload. It is
    /// for the workers from now on.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn roomy_scoreboard(
        &mut self,
        children: &Children,
        rollout: &Rollout,
    ) -> io::Result<Arc<Scoreboard>> {
        let threads = rollout.config().workers.threads;
        let has_room = children.free_slots(&self.scoreboard).next().is_some();
        if !has_room || self.scoreboard.threads() < threads {
            let workers = rollout.num_workers().max(children.len());
            self.scoreboard = roomy_scoreboard(workers, threads)?;
        }
        Ok(Arc::clone(&self.scoreboard))
    }

    /// A fork server is about to be forked. Its workers find their slots on the scoreboard of now, so there must
    /// be room for all that may still be wanted; and they are to be adopted by this process.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn grow_for_preload(
        &mut self,
        children: &Children,
        rollout: &Rollout,
    ) -> io::Result<()> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let workers = rollout.num_workers() + children.len();
        let threads = rollout.config().workers.threads;
        if self.scoreboard.slots() < workers * 2 || self.scoreboard.threads() < threads {
            self.scoreboard = roomy_scoreboard(workers, threads)?;
        }
        Ok(())
    }

    /// A slot for the next worker, marked as booting.
    ///
    /// # Errors
    /// The scoreboard has none. That of a fork server does not grow.
    pub(super) fn claim(
        &self,
        scoreboard: Arc<Scoreboard>,
        children: &Children,
        fork_servers: &ForkServers,
        rollout: &Rollout,
        now: u64,
    ) -> Result<Birth, ClaimError> {
        let free = children.free_slots(&scoreboard);
        let free = free.filter(|slot| !fork_servers.holds_slot(*slot));
        let slot = self.backoff.choose(free, now);
        let slot = slot.ok_or(ClaimError::ScoreboardFull)?;
        scoreboard.slot(slot).claim(rollout.generation());
        let lifetime = max_lifetime(&rollout.config().lifecycle);
        Ok(Birth {
            age: self.next_age(),
            generation: rollout.generation(),
            scoreboard,
            slot,
            at: now,
            expires_at: lifetime.map(|lifetime| now.saturating_add(lifetime)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arbiter::worker_handle::tests::on_paper;
    use crate::config::Config;

    #[test]
    fn a_failed_place_is_tried_again_after_its_wait() {
        let scoreboard = Arc::new(Scoreboard::new(3, 1).unwrap());
        let mut spawner = Spawner::new(Arc::clone(&scoreboard));
        let mut children = Children::new().unwrap();
        children.add(on_paper(&scoreboard, 0));
        let (fork_servers, rollout) = (
            ForkServers::default(),
            Rollout::new(Arc::new(Config::default())),
        );
        let slot = |spawner: &Spawner, now| {
            let scoreboard = Arc::clone(&scoreboard);
            let birth = spawner.claim(scoreboard, &children, &fork_servers, &rollout, now);
            birth.ok().map(|birth| birth.slot)
        };
        assert_eq!(slot(&spawner, 1000), Some(1));
        spawner.backoff().boot_failed(2, 1000, 10);
        assert_eq!(slot(&spawner, 1000), Some(1), "the other waits");
        assert_eq!(spawner.next_attempt(1000), Some(100));
        assert_eq!(slot(&spawner, 1100), Some(2));
        spawner.reset_delays();
        assert_eq!(slot(&spawner, 1000), Some(1));
    }

    #[test]
    fn a_scoreboard_grows_when_it_must() {
        let scoreboard = Arc::new(Scoreboard::new(1, 1).unwrap());
        let mut spawner = Spawner::new(Arc::clone(&scoreboard));
        let mut children = Children::new().unwrap();
        let rollout = Rollout::new(Arc::new(Config::default()));
        let same = spawner.roomy_scoreboard(&children, &rollout).unwrap();
        assert!(Arc::ptr_eq(&same, &scoreboard));
        children.add(on_paper(&scoreboard, 0));
        assert!(
            spawner
                .roomy_scoreboard(&children, &rollout)
                .unwrap()
                .slots()
                > 1
        );
        let mut config = Config::default();
        config.workers.threads = 40;
        let rollout = Rollout::new(Arc::new(config));
        let larger = spawner.roomy_scoreboard(&children, &rollout).unwrap();
        assert!(larger.threads() >= 40);
    }
}
