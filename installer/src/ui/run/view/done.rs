//! Page 13: the site is there; how to reach it, and what comes next.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{below, put, put_line};
use crate::layout;
use crate::ui::run::session::Session;
use crate::ui::run::text::{time, wrap};
use crate::ui::theme::Theme;

pub(super) fn draw(session: &Session, theme: Theme, area: Rect, picture: &mut Buffer) {
    let plan = &session.plan;
    let mark = theme.mark(crate::check::Outcome::Pass);
    let head = Line::from(vec![
        Span::styled(format!("{mark} "), theme.good()),
        Span::styled(format!("Site {} is ready", plan.site), theme.strong()),
        Span::styled(format!("  {}, after {}", plan.bundle, time(session.run.elapsed())), theme.muted()),
    ]);
    let rest = below(put_line(&head, area, picture), 1);
    let fingerprint = session.site.as_ref().map_or("(is being read)", |site| site.state.ca_fingerprint.as_str());
    let rest = put_pair("Cluster", &format!("https://{}:{}", plan.fqdn, layout::API_PORT), theme, rest, picture);
    let rest = put_pair("Kubeconfig", layout::ADMIN_KUBECONFIG, theme, rest, picture);
    let rest = put_pair("Registry", &format!("https://{}:{}", plan.fqdn, layout::REGISTRY_PORT), theme, rest, picture);
    let rest = put_pair("Site CA", &format!("{}/site-ca.crt", layout::TLS), theme, rest, picture);
    let rest = put_pair("  SHA-256", fingerprint, theme, rest, picture);
    let rest = below(rest, 1);
    let rest = put_line(&Line::styled("Next", theme.strong()), rest, picture);
    let mut steps = vec![
        "Give the site CA to those who will use the site; let them compare the fingerprint.",
        "`cofferdam status` shows the site, `cofferdam dashboard` keeps it on this console.",
    ];
    if !plan.destroys.is_empty() {
        steps.push("Carry the recovery key, or the escrow in /var/lib/cofferdam/escrow, to a safe place.");
    }
    let mut rest = rest;
    for step in steps {
        let lines = wrap(step, usize::from(rest.width).saturating_sub(4));
        let lines: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(at, line)| format!("{} {line}", if at == 0 { "  •" } else { "   " }))
            .collect();
        rest = put(&lines, theme.text(), rest, picture);
    }
    if let Some(seconds) = session.countdown() {
        let text = format!("The dashboard follows in {seconds} s; any key stops that.");
        put_line(&Line::styled(text, theme.muted()), below(rest, 1), picture);
    }
}

/// A name and its value, which is broken over lines rather than cut.
pub(super) fn put_pair(name: &str, value: &str, theme: Theme, area: Rect, picture: &mut Buffer) -> Rect {
    if area.height == 0 {
        return area;
    }
    picture.set_stringn(area.x, area.y, name, 12, theme.muted());
    let inner = Rect { x: area.x + 13, width: area.width.saturating_sub(13), ..area };
    let lines = wrap(value, inner.width.into());
    put(&lines, theme.text(), inner, picture);
    below(area, u16::try_from(lines.len()).unwrap_or(1))
}
