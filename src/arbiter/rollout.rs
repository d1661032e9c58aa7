//! The settings and the generation that are served, and the way from one to the next: HUP replaces the workers one by
//! one.
//!
//! 1. The runtime reads the settings again. A mistake in them is logged and nothing else happens.
//! 2. Listeners of new addresses are opened; those that stay are kept, so no connection is refused.
//! 3. A worker of the next generation is started with the new settings, beside the old ones. When it cannot
//!    boot, it was the last of its generation and everything is as before: settings, hooks, listeners, number.
//! 4. When it serves, the new generation is proven. From then on there is no way back, only forward: an old
//!    worker gets TERM for each new one that serves (`supervision::reconcile`), never more than `reload_surge`
//!    processes above the number wanted, and a new worker that dies is tried again, after a growing pause.
//! 5. When the last old worker was asked to leave, dropped addresses are closed.
//!
//! Nothing here waits, so other signals are handled at any moment of it.

use std::sync::Arc;

use super::supervision::Desired;
use crate::config::Config;
use crate::net::Bound;

/// See the module.
#[derive(Debug)]
pub(super) struct Rollout {
    config: Arc<Config>,
    /// What TTIN and TTOU made of the setting.
    num_workers: usize,
    /// Of the workers that are started now. The next reload gets `last_generation + 1`, also after one that was given
    /// up.
    generation: u32,
    last_generation: u32,
    progress: Progress,
    /// All workers of the first start have served.
    has_started: bool,
}

#[derive(Debug)]
enum Progress {
    /// All workers are of this generation, or leaving.
    Complete,
    /// No worker of the new generation has served.
    Unproven(Previous),
    Proven(Previous),
}

/// What to go back to while a reload is under way.
#[derive(Debug)]
struct Previous {
    config: Arc<Config>,
    num_workers: usize,
    generation: u32,
    listeners: Vec<Arc<Bound>>,
    /// Sockets that a generation before that one had, whose reload was under way.
    older_listeners: Vec<Arc<Bound>>,
}

impl Previous {
    fn into_listeners(self) -> Vec<Arc<Bound>> {
        let mut listeners = self.listeners;
        listeners.extend(self.older_listeners);
        listeners
    }
}

/// A reload that was given up.
#[derive(Debug)]
pub(super) struct Abandoned {
    pub(super) generation: u32,
    /// Listened on again.
    pub(super) listeners: Vec<Arc<Bound>>,
    pub(super) older_listeners: Vec<Arc<Bound>>,
}

impl Rollout {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self {
            num_workers: config.workers.workers,
            config,
            generation: 1,
            last_generation: 1,
            progress: Progress::Complete,
            has_started: false,
        }
    }

    pub(super) fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub(super) fn num_workers(&self) -> usize {
        self.num_workers
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn has_started(&self) -> bool {
        self.has_started
    }

    pub(super) fn is_unproven(&self) -> bool {
        matches!(self.progress, Progress::Unproven(_))
    }

    /// A worker of `generation` serves.
    pub(super) fn on_serving(&mut self, generation: u32) {
        if generation == self.generation {
            self.progress = match std::mem::replace(&mut self.progress, Progress::Complete) {
                Progress::Unproven(previous) => Progress::Proven(previous),
                other => other,
            };
        }
    }

    pub(super) fn count_serving(&mut self, serving: usize) {
        self.has_started |= serving >= self.num_workers;
    }

    /// TTIN and TTOU. A reload that fails must not take the operator's change back.
    pub(super) fn resize(&mut self, by: isize) -> usize {
        if let Progress::Unproven(previous) | Progress::Proven(previous) = &mut self.progress {
            previous.num_workers = previous.num_workers.saturating_add_signed(by).max(1);
        }
        self.num_workers.saturating_add_signed(by)
    }

    /// Returns the number of before.
    pub(super) fn set_num_workers(&mut self, new: usize) -> usize {
        std::mem::replace(&mut self.num_workers, new)
    }

    pub(super) fn desired(&self) -> Desired {
        Desired {
            target: self.num_workers,
            generation: self.generation,
            unproven: match &self.progress {
                Progress::Unproven(previous) => Some(previous.num_workers),
                _ => None,
            },
            reload_surge: self.config.lifecycle.reload_surge,
            max_retiring: self.config.lifecycle.max_retiring,
        }
    }

    /// A reload begins while another is proven but not complete: that one is now what to fall back to. Returns the
    /// sockets of the generations before it.
    pub(super) fn complete_proven(&mut self) -> Vec<Arc<Bound>> {
        match std::mem::replace(&mut self.progress, Progress::Complete) {
            Progress::Proven(previous) => previous.into_listeners(),
            other => {
                self.progress = other;
                Vec::new()
            }
        }
    }

    /// From now on workers have `config`; `listeners` are those of before, `older_listeners` what
    /// [`Self::complete_proven`] returned.
    pub(super) fn begin(
        &mut self,
        config: Arc<Config>,
        listeners: Vec<Arc<Bound>>,
        mut older_listeners: Vec<Arc<Bound>>,
    ) {
        older_listeners.retain(|bound| !listeners.iter().any(|kept| Arc::ptr_eq(kept, bound)));
        self.progress = Progress::Unproven(Previous {
            config: std::mem::replace(&mut self.config, config),
            num_workers: self.num_workers,
            generation: self.generation,
            listeners,
            older_listeners,
        });
        self.last_generation += 1;
        self.generation = self.last_generation;
    }

    /// The last old worker was asked to leave. Returns the sockets of before, when a reload was under way.
    pub(super) fn finish(&mut self) -> Option<Vec<Arc<Bound>>> {
        match std::mem::replace(&mut self.progress, Progress::Complete) {
            Progress::Proven(previous) => Some(previous.into_listeners()),
            other => {
                self.progress = other;
                None
            }
        }
    }

    /// Back to the settings of before, if there is a reload to give up.
    pub(super) fn abandon(&mut self) -> Option<Abandoned> {
        match std::mem::replace(&mut self.progress, Progress::Complete) {
            Progress::Complete => None,
            Progress::Unproven(previous) | Progress::Proven(previous) => {
                let generation = std::mem::replace(&mut self.generation, previous.generation);
                self.config = previous.config;
                self.num_workers = previous.num_workers;
                Some(Abandoned {
                    generation,
                    listeners: previous.listeners,
                    older_listeners: previous.older_listeners,
                })
            }
        }
    }

    /// At the end of the server: the sockets of generations that were to go.
    pub(super) fn take_listeners(&mut self) -> Vec<Arc<Bound>> {
        match std::mem::replace(&mut self.progress, Progress::Complete) {
            Progress::Complete => Vec::new(),
            Progress::Unproven(previous) | Progress::Proven(previous) => previous.into_listeners(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(workers: usize) -> Arc<Config> {
        let mut config = Config::default();
        config.workers.workers = workers;
        Arc::new(config)
    }

    #[test]
    fn a_reload_is_proven_by_a_worker_of_its_own() {
        let mut rollout = Rollout::new(config(2));
        rollout.begin(config(3), Vec::new(), Vec::new());
        rollout.set_num_workers(3);
        assert_eq!(rollout.desired().unproven, Some(2));
        rollout.on_serving(1);
        assert!(rollout.is_unproven(), "an old worker proves nothing");
        assert!(rollout.finish().is_none());
        rollout.on_serving(2);
        assert_eq!(
            (rollout.desired().target, rollout.desired().unproven),
            (3, None)
        );
        assert!(rollout.finish().is_some() && rollout.finish().is_none());
    }

    #[test]
    fn a_reload_that_fails_goes_back_but_keeps_the_operators_change() {
        let mut rollout = Rollout::new(config(2));
        rollout.begin(config(5), Vec::new(), Vec::new());
        rollout.set_num_workers(5);
        assert_eq!(rollout.resize(1), 6);
        rollout.set_num_workers(6);
        let abandoned = rollout.abandon().unwrap();
        assert_eq!((abandoned.generation, rollout.generation()), (2, 1));
        assert_eq!(rollout.num_workers(), 3);
        assert_eq!(rollout.config().workers.workers, 2);
        assert!(rollout.abandon().is_none());
        rollout.begin(config(2), Vec::new(), Vec::new());
        assert_eq!(rollout.generation(), 3, "a number is not used twice");
    }

    #[test]
    fn the_first_start_is_over_when_all_have_served() {
        let mut rollout = Rollout::new(config(2));
        rollout.count_serving(1);
        assert!(!rollout.has_started());
        rollout.count_serving(2);
        rollout.count_serving(0);
        assert!(rollout.has_started());
    }
}
