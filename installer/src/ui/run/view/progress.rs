//! Page 11: how far the installation is. The same picture serves the second console (`cofferdam monitor`).

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{below, paragraph, put, put_line};
use crate::ui::run::model::{Current, Run, StepState, StepView, Work};
use crate::ui::run::session::Session;
use crate::ui::run::text::{left, size, time};
use crate::ui::theme::Theme;

/// What the page shows.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The run.
    pub run: &'a Run,
    /// For the turning mark.
    pub ticks: u64,
    /// The operator asked to stop.
    pub is_stopping: bool,
    /// The log pane, scrolled back by so many lines.
    pub log: Option<usize>,
    /// What stands in place of the step in work, for example that no installer runs.
    pub remark: Option<&'a str>,
}

impl<'a> Shown<'a> {
    pub(super) fn of(session: &'a Session) -> Self {
        let Session { run, ticks, is_stopping, log, .. } = session;
        Self { run, ticks: *ticks, is_stopping: *is_stopping, log: *log, remark: None }
    }
}

/// A run that is only watched.
pub fn shown<'a>(run: &'a Run, ticks: u64, log: Option<usize>, remark: Option<&'a str>) -> Shown<'a> {
    Shown { run, ticks, is_stopping: false, log, remark }
}

/// Draws it.
pub fn draw(shown: &Shown, theme: Theme, area: Rect, picture: &mut Buffer) {
    let run = shown.run;
    let head = Line::from(vec![
        Span::styled(format!("Installing site {}", run.site), theme.strong()),
        Span::styled(format!("  {}", run.bundle), theme.muted()),
    ]);
    let elapsed = format!("elapsed {}", time(run.elapsed()));
    put_right(&elapsed, theme, area, picture);
    let rest = put_line(&head, area, picture);

    let permille = u64::from(run.estimate.permille());
    let rest = put_line(&bar(permille, 1000, theme, area.width), rest, picture);
    let rest = put_line(&Line::styled(summary(run), theme.muted()), rest, picture);
    let rest = below(rest, 1);

    let rest = match (&run.current, shown.remark) {
        (_, Some(remark)) => {
            let rest = put_line(&Line::styled(remark.to_owned(), theme.warn()), rest, picture);
            below(rest, 3)
        }
        (Some(current), None) => draw_current(shown, current, theme, rest, picture),
        (None, None) => below(rest, 4),
    };
    let rest = below(rest, 1);
    match shown.log {
        Some(back) => draw_log(run, back, theme, rest, picture),
        None => draw_steps(run, shown.ticks, theme, rest, picture),
    }
}

/// Four lines: the step, its bar, its figures, what it says.
fn draw_current(shown: &Shown, current: &Current, theme: Theme, area: Rect, picture: &mut Buffer) -> Rect {
    let run = shown.run;
    let title = run.steps.get(current.position).map_or("", |step| step.title.as_str());
    let mut head = vec![
        Span::styled(format!("{} ", theme.spinner(shown.ticks)), theme.accent()),
        Span::styled(title.to_owned(), theme.strong()),
    ];
    if current.attempt > 1 {
        head.push(Span::styled(format!("  attempt {}", current.attempt), theme.warn()));
    }
    put_right(&time(run.step_elapsed()), theme, area, picture);
    let rest = put_line(&Line::from(head), area, picture);
    let below_head = Rect { height: 3.min(rest.height), ..rest };
    let (rest, rows) = match &current.work {
        Some(work) => {
            let (done, total) = work.counted();
            let inner = Rect { x: rest.x + 2, width: rest.width.saturating_sub(2), ..below_head };
            let inner = put_line(&bar(done, total, theme, inner.width), inner, picture);
            (put_line(&Line::styled(figures(work), theme.text()), inner, picture), 1)
        }
        None => (Rect { x: rest.x + 2, width: rest.width.saturating_sub(2), ..below_head }, 3),
    };
    let (text, style) = match (run.silence(), shown.is_stopping) {
        (Some(silent), _) => {
            let last = run.log.back().map_or("none", |line| line.text.as_str());
            (format!("no progress for {}, last line: {last}", time(silent)), theme.warn())
        }
        (None, true) => ("stopping: this step is brought to its end first".to_owned(), theme.warn()),
        (None, false) => (current.note.clone(), theme.muted()),
    };
    put(&paragraph(&text, rest.width, rows), style, rest, picture);
    below(area, 4)
}

fn figures(work: &Work) -> String {
    match work {
        Work::Bytes { done, total, blobs, rate, .. } => {
            let mut text = blobs.map_or_else(String::new, |blobs| format!("{} of {} blobs, ", blobs.done, blobs.total));
            text.push_str(&format!("{} of {}", size(*done), size(*total)));
            if *rate > 0 {
                let seconds = total.saturating_sub(*done) / rate;
                text.push_str(&format!(", {}/s, {} left", size(*rate), left(seconds.saturating_mul(1000))));
            }
            text
        }
        Work::Items { done, total, .. } => format!("{done} of {total}"),
    }
}

fn summary(run: &Run) -> String {
    let done = format!("{} of {} steps", run.steps_done(), run.steps.len());
    match run.estimate.left() {
        Some(time) if run.estimate.is_at_least() => format!("{done}, at least {} left", left(time)),
        Some(time) => format!("{done}, about {} left", left(time)),
        None => format!("{done}, the time left is being measured"),
    }
}

/// A bar with its share behind it.
fn bar(done: u64, total: u64, theme: Theme, width: u16) -> Line<'static> {
    let room = usize::from(width).saturating_sub(6);
    let (full, empty) = theme.bar(done, total, room);
    let share = u128::from(done.min(total)) * 100 / u128::from(total.max(1));
    Line::from(vec![
        Span::styled(full, theme.accent()),
        Span::styled(empty, theme.faint()),
        Span::styled(format!(" {share:>3} %"), theme.strong()),
    ])
}

fn put_right(text: &str, theme: Theme, area: Rect, picture: &mut Buffer) {
    let width = u16::try_from(text.chars().count()).unwrap_or(area.width).min(area.width);
    if area.height > 0 {
        picture.set_stringn(area.right() - width, area.y, text, width.into(), theme.muted());
    }
}

/// The steps around the one in work, with how long they took.
fn draw_steps(run: &Run, ticks: u64, theme: Theme, area: Rect, picture: &mut Buffer) {
    let rows = usize::from(area.height);
    let at = run
        .current
        .as_ref()
        .map_or_else(|| run.steps.iter().filter(|step| step.state.is_done()).count(), |current| current.position);
    // The one in work stands in the upper two thirds, so that what comes is seen too.
    let first = at.saturating_sub(rows * 2 / 3).min(run.steps.len().saturating_sub(rows));
    for (y, step) in (area.y..area.bottom()).zip(run.steps.iter().skip(first)) {
        let (mark, style, took) = match step.state {
            StepState::Finished(took) => (theme.mark(crate::check::Outcome::Pass), theme.text(), time(took)),
            StepState::Skipped => (theme.mark(crate::check::Outcome::Pass), theme.muted(), "before".to_owned()),
            StepState::Running => (theme.spinner(ticks), theme.strong(), String::new()),
            StepState::Failed => (theme.mark(crate::check::Outcome::Fail), theme.bad(), "failed".to_owned()),
            StepState::Waiting => ("·", theme.faint(), String::new()),
        };
        draw_step(step, mark, style, &took, Rect { y, height: 1, ..area }, picture);
    }
}

fn draw_step(step: &StepView, mark: &str, style: ratatui::style::Style, took: &str, row: Rect, picture: &mut Buffer) {
    picture.set_stringn(row.x, row.y, mark, 2, style);
    let room = usize::from(row.width).saturating_sub(3 + 9);
    picture.set_stringn(row.x + 3, row.y, &step.title, room, style);
    let width = u16::try_from(took.chars().count()).unwrap_or(0);
    picture.set_stringn(row.right().saturating_sub(width), row.y, took, width.into(), style);
}

/// The last lines of the log in a box.
pub(super) fn draw_log(run: &Run, back: usize, theme: Theme, area: Rect, picture: &mut Buffer) {
    let title = if back == 0 { "Log".to_owned() } else { format!("Log, {back} lines back") };
    let inside = crate::ui::frame::draw_box(&title, theme.faint(), theme, area, picture);
    let rows = usize::from(inside.height);
    let end = run.log.len().saturating_sub(back);
    let first = end.saturating_sub(rows);
    for (y, line) in (inside.y..inside.bottom()).zip(run.log.iter().skip(first).take(end - first)) {
        let clock = line.time.strftime("%H:%M:%S").to_string();
        picture.set_stringn(inside.x, y, &clock, inside.width.into(), theme.faint());
        let room = inside.width.saturating_sub(9);
        picture.set_stringn(inside.x + 9, y, &line.text, room.into(), theme.text());
    }
}
