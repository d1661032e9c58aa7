//! What each path of `admin_bind` answers.

use std::sync::Arc;

use super::admin_response::{Asked, Method, Response};
use super::children::Children;
use super::dashboard::{Dashboard, Page, is_own_host};
use super::metrics::Format;
use crate::control::View;
use crate::http::Status;
use crate::logging::Log;
use crate::scoreboard::{Scoreboard, Unready};

/// What the answers are made of.
pub(super) struct AdminPages<'a> {
    pub(super) view: View<'a>,
    pub(super) children: &'a Children,
    pub(super) scoreboard: &'a Arc<Scoreboard>,
    pub(super) dashboard: &'a Dashboard,
    pub(super) log: Log,
    pub(super) certificate_end: Option<i64>,
    /// The server stops, or is about to.
    pub(super) is_stopping: bool,
    /// `admin_token` is set.
    pub(super) has_actions: bool,
}

impl AdminPages<'_> {
    pub(super) fn answer(&self, asked: &Asked) -> Response {
        if asked.method() != Method::Read {
            return Response::only_read();
        }
        match asked.path() {
            b"/live" => Response::text(Status::OK, "alive\n"),
            b"/ready" => match self.why_not_ready() {
                None => Response::text(Status::OK, "ready\n"),
                Some(reason) => {
                    let text = format!("not ready: {reason}\n");
                    Response::text(Status::SERVICE_UNAVAILABLE, text)
                }
            },
            b"/metrics" => {
                let format = Format::accepted(asked.accept());
                let text = self.children.metrics(
                    format,
                    self.scoreboard,
                    self.view.target,
                    self.log,
                    self.certificate_end,
                );
                Response::metrics(text, format.content_type())
            }
            path => match Page::at(path) {
                None => Response::not_found(),
                Some(page) => self.answer_browser(page, asked),
            },
        }
    }

    fn answer_browser(&self, page: Page, asked: &Asked) -> Response {
        if !is_own_host(asked.host(), &self.view.config.control) {
            return Response::misdirected();
        }
        let counters = self.children.all_counters();
        let counters: Vec<_> = counters.named(self.log.dropped_lines()).collect();
        self.dashboard
            .answer(page, &self.view, &counters, self.has_actions)
    }

    fn why_not_ready(&self) -> Option<&'static str> {
        if self.is_stopping {
            return Some("the server stops");
        }
        let max_queue = self.view.config.workers.max_queue;
        self.children
            .readiness(max_queue)
            .err()
            .map(Unready::reason)
    }
}
