//! The dashboard of `admin_bind`: what its page shows. The arbiter's loop calls it, and only once a second does it count.
//!
//! The page is one document without assets of others; it asks for JSON once a second. While no browser looks, only the sample of
//! each second is taken.

mod history;
mod timeline;

use std::net::IpAddr;

use serde_json::{Value, json};

use self::history::History;
pub(super) use self::timeline::Kind;
use self::timeline::{Timeline, unix_ms};
use super::admin_response::Response;
use super::children::Children;
use super::supervision::ExitStatus;
use super::worker_handle::WorkerHandle;
use crate::config::Control;
use crate::control::{self, Topic, View};
use crate::net::BindAddress;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Dashboard {
    history: History,
    timeline: Timeline,
}

impl Dashboard {
    /// Milliseconds until it wants to look again.
    pub(super) fn patience(&self, now: u64) -> u64 {
        self.history.patience(now)
    }

    /// Looks at the workers. Called in each iteration of the loop.
    pub(super) fn watch(&mut self, children: &Children, now: u64) {
        self.timeline.observe(children);
        let Some((before, sample)) = self.history.record(children, now) else {
            return;
        };
        if sample.shed > 0 && before.shed == 0 {
            let text = format!("Requests are shed: {} in a second", sample.shed);
            self.timeline.note(Kind::Shedding, text);
        }
        if sample.timed_out > 0 && before.timed_out == 0 {
            let text = "Requests run longer than request_timeout".to_owned();
            self.timeline.note(Kind::Timeout, text);
        }
    }

    pub(super) fn note(&mut self, kind: Kind, text: impl Into<String>) {
        self.timeline.note(kind, text.into());
    }

    pub(super) fn ended(&mut self, worker: &WorkerHandle, status: ExitStatus, lost: usize) {
        self.timeline.ended(worker, status, lost);
    }

    pub(super) fn answer(
        &self,
        page: Page,
        view: &View<'_>,
        counters: &[(&'static str, u64)],
        has_actions: bool,
    ) -> Response {
        let samples = match page {
            Page::Document => return Response::page(DOCUMENT, POLICY),
            Page::AllData => usize::MAX,
            Page::LatestData => LATEST,
        };
        let counters: serde_json::Map<_, _> = counters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
            .collect();
        let data = json!({
            "now": unix_ms(),
            "name": view.config.process.proc_name,
            "has_actions": has_actions,
            "stats": control::answer(Topic::Stats, view),
            "workers": control::answer(Topic::Workers, view)["workers"],
            "running": control::answer(Topic::Requests, view),
            "counters": counters,
            "samples": self.history.to_json(samples),
            "events": self.timeline.to_json(),
            "advice": control::advice(&self.history.load()),
        });
        Response::json(data.to_string())
    }
}

/// What can be asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Page {
    Document,
    AllData,
    /// With the last samples only.
    LatestData,
}

impl Page {
    pub(super) fn at(path: &[u8]) -> Option<Self> {
        match path {
            b"/" => Some(Self::Document),
            b"/dashboard.json" => Some(Self::AllData),
            b"/dashboard/latest.json" => Some(Self::LatestData),
            _ => None,
        }
    }
}

/// Whether a browser that asks for `host` can only mean this server. A site of strangers that has its own name point here
/// (DNS rebinding) cannot choose a name that is an address, `localhost` or the name in `admin_bind`.
pub(super) fn is_own_host(host: Option<&[u8]>, settings: &Control) -> bool {
    // Browsers always send it.
    let Some(host) = host else {
        return true;
    };
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    let own = settings.admin_bind.as_deref();
    let own = own.and_then(|address| BindAddress::parse(address).ok());
    let is_bound = matches!(own, Some(BindAddress::Tcp { host, .. }) if host == name);
    name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || (is_bound && !name.is_empty())
}

const DOCUMENT: &str = include_str!("dashboard/page.html");
/// The hashes are those of the page's only script and style; a test compares them.
const POLICY: &str = "default-src 'none'; script-src 'sha256-NqVBQQiInNhskBvtlsV69JWWGDLmM7Q1hgQbaEbJuvc='; \
    style-src 'sha256-L5oiw3WcYUXhf50Q7muACBFloGQnCQsPW9Z9449A8kc='; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// What a page that asks once a second has missed, with some to spare.
const LATEST: usize = 10;

#[cfg(test)]
mod tests {
    use super::is_own_host;
    use crate::config::Config;

    #[test]
    fn names_of_strangers_are_not_this_servers() {
        let bound_to = |address: Option<&str>| {
            let mut settings = Config::default().control;
            settings.admin_bind = address.map(str::to_owned);
            settings
        };
        let settings = bound_to(Some("metrics.lan:9000"));
        let is_own = |host: &str| is_own_host(Some(host.as_bytes()), &settings);
        for host in [
            "127.0.0.1:9000",
            "[::1]:9000",
            "10.1.2.3",
            "localhost:9000",
            "app.localhost",
            "Metrics.LAN:9000",
        ] {
            assert!(is_own(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "[evil.example]",
            "\u{7f}",
        ] {
            assert!(!is_own(host), "{host}");
        }
        assert!(is_own_host(None, &bound_to(None)));
        assert!(
            !is_own_host(Some(b""), &bound_to(Some(":9000"))),
            "every address has no name"
        );
    }
}
