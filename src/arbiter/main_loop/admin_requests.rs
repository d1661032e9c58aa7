//! What the operator asks for at `admin_bind`: pages, and actions with `admin_token`. The loop calls it.

use std::sync::Arc;

use super::Arbiter;
use crate::arbiter::admin_actions::{Action, AdminActions};
use crate::arbiter::admin_pages::AdminPages;
use crate::arbiter::admin_response::Answered;
use crate::arbiter::admin_token::AdminToken;
use crate::scoreboard::monotonic_ms;

/// Serves `admin_bind`, if there is one.
pub(super) fn serve(arbiter: &mut Arbiter<'_>) {
    let Some(mut admin) = arbiter.admin.take() else {
        return;
    };
    let config = Arc::clone(arbiter.rollout.config());
    let now = monotonic_ms();
    admin.serve(now, &config, &mut |asked, token, number| {
        let Some(action) = Action::at(&asked.path) else {
            return Answered::Now(pages(arbiter, token).answer(asked));
        };
        let mut actions = AdminActions {
            pid: arbiter.pid,
            config: &config,
            children: &arbiter.children,
            stacks: arbiter.control.stacks(),
            num_workers: arbiter.rollout.num_workers(),
            is_stopping: arbiter.stopping.is_stopping(),
            now,
        };
        actions.answer((action, asked), token, number)
    });
    arbiter.admin = Some(admin);
}

fn pages<'a>(arbiter: &'a Arbiter<'_>, token: &AdminToken) -> AdminPages<'a> {
    AdminPages {
        has_actions: token.is_set(),
        view: arbiter.view(),
        children: &arbiter.children,
        scoreboard: arbiter.spawner.scoreboard(),
        dashboard: &arbiter.dashboard,
        log: arbiter.log,
        certificate_end: arbiter.certificates.not_after(),
        is_stopping: arbiter.stopping.is_underway(),
    }
}
