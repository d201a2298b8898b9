//! A QR code in characters: two modules in one cell where there are half blocks, two cells for one module in ASCII.
//!
//! Drawn with light modules bright and dark ones dark, as on paper, so that any reader takes it. Pure.

use qrcodegen::{QrCode, QrCodeEcc};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use zeroize::Zeroizing;

use crate::ui::theme::Mode;

/// Light modules around the code; the standard wants four, readers are content with two.
const QUIET: i32 = 2;

/// The code's lines, or `None` when the text is too long for any code.
pub(super) fn lines(text: &str, mode: Mode) -> Option<Vec<Zeroizing<String>>> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    // Outside of the code modules count as light.
    let is_light = |x: i32, y: i32| !code.get_module(x, y);
    let range = -QUIET..code.size() + QUIET;
    Some(match mode {
        Mode::Colour => (-QUIET..code.size() + QUIET)
            .step_by(2)
            .map(|y| {
                let cell = |x: i32| match (is_light(x, y), is_light(x, y + 1)) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                };
                Zeroizing::new(range.clone().map(cell).collect())
            })
            .collect(),
        Mode::Basic => range
            .clone()
            .map(|y| Zeroizing::new(range.clone().map(|x| if is_light(x, y) { "##" } else { "  " }).collect()))
            .collect(),
    })
}

/// Width and height of the code's lines.
pub(super) fn size(lines: &[Zeroizing<String>]) -> (u16, u16) {
    let length = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    (lines.first().map_or(0, |line| length(line.chars().count())), length(lines.len()))
}

/// Draws the lines into an area that is large enough.
pub(super) fn draw(lines: &[Zeroizing<String>], area: Rect, picture: &mut Buffer) {
    let style = Style::new().fg(Color::Indexed(231)).bg(Color::Indexed(16));
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        picture.set_stringn(area.x, y, line.as_str(), area.width.into(), style);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Mode, lines, size};

    const KEY: &str = "cccbcdce-cfcgchci-cjckclcn-crctcucv-bcbbbdbe-bfbgbhbi-bjbkblbn-brbtbubv";

    #[test]
    fn a_recovery_key_fits_beside_its_text() {
        let half_blocks = lines(KEY, Mode::Colour).unwrap();
        assert_eq!(size(&half_blocks), (37, 19));
        let ascii = lines(KEY, Mode::Basic).unwrap();
        assert_eq!(size(&ascii), (74, 37));
        // Both are the same code: each ASCII line is one module row.
        for (row, line) in ascii.iter().enumerate() {
            let half: Vec<char> = half_blocks[row / 2].chars().collect();
            for (column, pair) in line.as_bytes().chunks(2).enumerate() {
                let bright = if row % 2 == 0 { ['█', '▀'] } else { ['█', '▄'] };
                assert_eq!(pair == b"##", bright.contains(&half[column]), "{row} {column}");
            }
        }
    }

    #[test]
    fn what_is_too_long_has_no_code() {
        assert!(lines(&"x".repeat(5000), Mode::Colour).is_none());
    }
}
