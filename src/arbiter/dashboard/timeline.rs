//! What has happened of late: boots, reloads, replacements, crashes, timeouts, shedding. Bounded, in the order of time.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::arbiter::children::Children;
use crate::arbiter::supervision::{ExitStatus, Stage};
use crate::arbiter::worker_handle::WorkerHandle;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    events: VecDeque<Event>,
    /// Age and stage of the workers when they were last looked at, by age.
    seen: Vec<(u64, Stage)>,
}

#[derive(Debug)]
struct Event {
    /// Unix time in milliseconds.
    at: u64,
    kind: Kind,
    text: String,
}

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::arbiter) enum Kind {
    Boot,
    Reload,
    ReloadFailed,
    Leave,
    Crash,
    Timeout,
    Shedding,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Reload => "reload",
            Self::ReloadFailed => "reload failed",
            Self::Leave => "leave",
            Self::Crash => "crash",
            Self::Timeout => "timeout",
            Self::Shedding => "shedding",
        }
    }
}

impl Timeline {
    pub(super) fn note(&mut self, kind: Kind, text: String) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        // Of a traceback the end says why.
        let text = match text.trim_end().split_once('\n') {
            Some((first, rest)) => format!("{first} {}", rest.rsplit('\n').next().unwrap_or(rest)),
            None => text,
        };
        let text = text.chars().take(TEXT_CHARS_MAX).collect();
        let at = unix_ms();
        self.events.push_back(Event { at, kind, text });
    }

    /// Notes which workers have entered another stage.
    pub(super) fn observe(&mut self, children: &Children) {
        let stages = children.iter().map(|one| (one.age(), one.stage()));
        if stages.eq(self.seen.iter().copied()) {
            return;
        }
        let seen = std::mem::take(&mut self.seen);
        for worker in children.iter() {
            let (age, stage) = (worker.age(), worker.stage());
            let at = seen.binary_search_by_key(&age, |(age, _)| *age);
            let before = at.map_or(Stage::Booting, |at| seen[at].1);
            self.seen.push((age, stage));
            if stage != before {
                self.entered(worker);
            }
        }
    }

    fn entered(&mut self, worker: &WorkerHandle) {
        let pid = worker.pid();
        match worker.stage() {
            Stage::Serving => self.note(Kind::Boot, format!("Worker (pid:{pid}) serves")),
            Stage::Retiring if worker.wants_replacement() => {
                let why = "max_requests, max_worker_lifetime or max_worker_memory";
                self.note(
                    Kind::Leave,
                    format!("Worker (pid:{pid}) is replaced: {why}"),
                );
            }
            Stage::Retiring => self.note(Kind::Leave, format!("Worker (pid:{pid}) stops")),
            Stage::Aborted => {
                let text = format!("Worker (pid:{pid}) was silent for too long and is aborted");
                self.note(Kind::Timeout, text);
            }
            Stage::Booting | Stage::Killed => {}
        }
    }

    /// A worker has been reaped, and `lost` requests ended with it.
    pub(super) fn ended(&mut self, worker: &WorkerHandle, status: ExitStatus, lost: usize) {
        let was_asked = worker.stage() == Stage::Retiring;
        let (pid, kind) = match status {
            ExitStatus::Code(0) => return,
            _ if was_asked => (worker.pid(), Kind::Leave),
            _ => (worker.pid(), Kind::Crash),
        };
        let cut = match lost {
            0 => String::new(),
            1 => ", 1 request was cut".to_owned(),
            _ => format!(", {lost} requests were cut"),
        };
        self.note(kind, format!("Worker (pid:{pid}) ended: {status}{cut}"));
    }

    /// Oldest first.
    pub(super) fn to_json(&self) -> Value {
        let events = self.events.iter();
        events
            .map(|event| json!({"at": event.at, "kind": event.kind.name(), "text": event.text}))
            .collect()
    }
}

pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// With [`TEXT_CHARS_MAX`], at most some 200 KiB.
const EVENTS_MAX: usize = 200;
const TEXT_CHARS_MAX: usize = 250;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::arbiter::worker_handle::tests::on_paper;
    use crate::scoreboard::{Scoreboard, SlotState};

    fn texts(timeline: &Timeline) -> Vec<&str> {
        let events = timeline.events.iter();
        events.map(|event| event.kind.name()).collect()
    }

    #[test]
    fn stages_that_workers_enter_are_noted_once() {
        let scoreboard = Arc::new(Scoreboard::new(1, 1).unwrap());
        let (mut children, mut timeline) = (Children::new().unwrap(), Timeline::default());
        children.add(on_paper(&scoreboard, 0));
        timeline.observe(&children);
        assert!(timeline.events.is_empty(), "it boots");
        scoreboard.slot(0).set_state(SlotState::Serving);
        children.read_slots(2000);
        timeline.observe(&children);
        timeline.observe(&children);
        assert_eq!(texts(&timeline), ["boot"]);
        scoreboard.slot(0).ask_to_go();
        scoreboard.slot(0).set_state(SlotState::Draining);
        children.read_slots(2000);
        timeline.observe(&children);
        assert_eq!(texts(&timeline), ["boot", "leave"]);
        assert!(timeline.events[1].text.contains("max_requests"));
    }

    #[test]
    fn a_worker_that_ends_by_itself_has_crashed() {
        let scoreboard = Arc::new(Scoreboard::new(1, 1).unwrap());
        let (worker, mut timeline) = (on_paper(&scoreboard, 0), Timeline::default());
        timeline.ended(&worker, ExitStatus::Code(0), 0);
        assert!(timeline.events.is_empty());
        timeline.ended(&worker, ExitStatus::Signal(11), 1);
        assert_eq!(texts(&timeline), ["crash"]);
        assert!(timeline.events[0].text.ends_with("1 request was cut"));
    }

    #[test]
    fn events_and_their_texts_are_bounded() {
        let mut timeline = Timeline::default();
        for count in 0..EVENTS_MAX * 2 {
            timeline.note(Kind::Reload, format!("{count} {}", "é".repeat(1000)));
        }
        assert_eq!(timeline.events.len(), EVENTS_MAX);
        assert!(timeline.events[0].text.starts_with("200 "));
        assert!(timeline.to_json().to_string().len() < 256 * 1024);
        timeline.note(
            Kind::ReloadFailed,
            "conf.py:\nTraceback\nNameError: x\n".to_owned(),
        );
        assert_eq!(
            timeline.events.back().unwrap().text,
            "conf.py: NameError: x"
        );
    }
}
