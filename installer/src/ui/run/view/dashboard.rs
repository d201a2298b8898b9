//! Page 13 as it remains: the console of the running site. Nothing on it is a secret.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::done::put_pair;
use super::{below, put_line};
use crate::check::Outcome;
use crate::layout;
use crate::site::{Expiry, Overview};
use crate::ui::theme::Theme;

/// Fewer days than this are a warning, as in the host checks.
const FEW_DAYS: i64 = 90;

/// Draws it; without a site it says that it is being looked at.
pub fn draw(site: Option<&Overview>, theme: Theme, area: Rect, picture: &mut Buffer) {
    let Some(site) = site else {
        put_line(&Line::styled("The site is being looked at …", theme.muted()), area, picture);
        return;
    };
    let state = &site.state;
    let rest =
        put_line(&Line::styled(format!("https://{}:{}", state.fqdn, layout::API_PORT), theme.strong()), area, picture);
    let about = format!("site {}, {} {}, installed {}", state.site, state.bundle, state.version, day(&state.installed));
    let rest = put_line(&Line::styled(about, theme.muted()), rest, picture);
    let rest = put_pair("Site CA", &state.ca_fingerprint, theme, below(rest, 1), picture);
    let mut rest = below(rest, 1);
    for (name, outcome, text) in lines(site) {
        let row = rest;
        picture.set_stringn(row.x, row.y, name, 12, theme.muted());
        let inner = Rect { x: row.x + 13, width: row.width.saturating_sub(13), ..row };
        rest = put_line(&marked(outcome, &text, theme), inner, picture);
        rest = Rect { x: row.x, width: row.width, ..rest };
    }
    rest = below(rest, 1);
    certificates(&site.certificates, theme, rest, picture);
    let clock = format!("as of {} UTC", site.time.strftime("%Y-%m-%d %H:%M:%S"));
    let width = u16::try_from(clock.len()).unwrap_or(0);
    picture.set_stringn(area.right().saturating_sub(width), area.y, &clock, width.into(), theme.muted());
}

fn lines(site: &Overview) -> Vec<(&'static str, Outcome, String)> {
    let mut lines = Vec::new();
    match &site.nodes {
        Err(why) => lines.push(("Nodes", Outcome::Fail, format!("no answer from the API: {why}"))),
        Ok(nodes) if nodes.is_empty() => lines.push(("Nodes", Outcome::Fail, "the cluster has none".to_owned())),
        Ok(_) => {}
    }
    for node in site.nodes.iter().flatten() {
        let (outcome, word) = if node.ready { (Outcome::Pass, "Ready") } else { (Outcome::Fail, "NOT READY") };
        lines.push(("Node", outcome, format!("{} {word}, Kubernetes {}", node.name, node.version)));
    }
    let volume = &site.volume;
    lines.push(match (volume.encryption.as_str(), volume.opened) {
        ("luks2", true) => {
            let cipher = volume.cipher.as_deref().unwrap_or("LUKS2");
            let by = if volume.key_slots.iter().any(|slot| slot.contains("TPM")) { ", opened by the TPM" } else { "" };
            ("Encryption", Outcome::Pass, format!("LUKS2 {cipher}{by}"))
        }
        ("luks2", false) => ("Encryption", Outcome::Fail, "the data volume is NOT OPEN".to_owned()),
        _ => ("Encryption", Outcome::Warn, "NONE: the configuration said so with its token".to_owned()),
    });
    let registry = if site.registry.is_ready { Outcome::Pass } else { Outcome::Fail };
    lines.push(("Registry", registry, site.registry.text.clone()));
    for id in &site.state.accepted {
        lines.push(("Accepted", Outcome::Warn, format!("failing check {id}")));
    }
    lines
}

fn certificates(all: &[Expiry], theme: Theme, area: Rect, picture: &mut Buffer) {
    let mut rest = put_line(&Line::styled("Certificates, days left", theme.muted()), area, picture);
    for pair in all.chunks(3) {
        for (column, expiry) in (0..).zip(pair) {
            let x = rest.x + column * (rest.width / 3);
            let (outcome, text) = match &expiry.days {
                Ok(days) if *days < 0 => (Outcome::Fail, format!("{} ENDED", expiry.name)),
                Ok(days) if *days < FEW_DAYS => (Outcome::Warn, format!("{} {days}", expiry.name)),
                Ok(days) => (Outcome::Pass, format!("{} {days}", expiry.name)),
                Err(_) => (Outcome::Unknown, format!("{} unknown", expiry.name)),
            };
            let cell = Rect { x, width: rest.width / 3, ..rest };
            put_line(&marked(outcome, &text, theme), cell, picture);
        }
        rest = below(rest, 1);
    }
}

fn marked(outcome: Outcome, text: &str, theme: Theme) -> Line<'static> {
    let style: Style = theme.outcome(outcome);
    Line::from(vec![
        Span::styled(format!("{:<3}", theme.mark(outcome)), style),
        Span::styled(text.to_owned(), theme.text()),
    ])
}

/// The day of an RFC 3339 time.
fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or(time)
}
