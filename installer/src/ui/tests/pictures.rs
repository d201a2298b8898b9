//! The pictures of the documentation: drawn by the same code as the screens, written as SVG, and compared.
//! `COFFERDAM_PICTURES=write cargo nextest run -p installer pictures` draws them anew.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use super::Operator;
use super::snapshots::{good, warning};
use crate::config::Page;

const CELL: (u32, u32) = (9, 19);
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/pictures");

/// xterm's 256 colours (ctlseqs, "256 color"): 16 names, a cube of 6×6×6, 24 greys.
fn colour(colour: Color, otherwise: &str) -> String {
    let Color::Indexed(index) = colour else { return otherwise.to_owned() };
    let level = |part: u8| if part == 0 { 0 } else { 55 + 40 * u32::from(part) };
    match index {
        16..=231 => {
            let at = index - 16;
            format!("#{:02x}{:02x}{:02x}", level(at / 36), level(at / 6 % 6), level(at % 6))
        }
        232..=255 => {
            let grey = 8 + 10 * u32::from(index - 232);
            format!("#{grey:02x}{grey:02x}{grey:02x}")
        }
        _ => otherwise.to_owned(),
    }
}

fn look(cell: &Cell) -> (String, String, bool) {
    let (mut front, mut back) = (colour(cell.fg, "#d0d0d0"), colour(cell.bg, "#1c1c1c"));
    if cell.modifier.contains(Modifier::REVERSED) {
        std::mem::swap(&mut front, &mut back);
    }
    (front, back, cell.modifier.contains(Modifier::BOLD))
}

/// One rectangle and one text for each run of cells that look the same.
pub(super) fn svg(picture: &Buffer) -> String {
    let (columns, rows) = (u32::from(picture.area.width), u32::from(picture.area.height));
    let (width, height) = (columns * CELL.0 + 16, rows * CELL.1 + 16);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"15\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#1c1c1c\"/>\n"
    );
    for (row, cells) in (0_u32..).zip(picture.content.chunks(usize::from(picture.area.width))) {
        let mut column = 0_u32;
        for run in cells.chunk_by(|one, other| look(one) == look(other)) {
            let text: String = run.iter().map(Cell::symbol).collect();
            let (front, back, bold) = look(&run[0]);
            let (x, y) = (8 + column * CELL.0, 8 + row * CELL.1);
            let length = u32::try_from(run.len()).unwrap() * CELL.0;
            if back != "#1c1c1c" {
                let _ = writeln!(
                    out,
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{length}\" height=\"{}\" fill=\"{back}\"/>",
                    CELL.1
                );
            }
            if !text.trim().is_empty() {
                let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                let weight = if bold { " font-weight=\"bold\"" } else { "" };
                let _ = writeln!(
                    out,
                    "<text x=\"{x}\" y=\"{}\" fill=\"{front}\"{weight} textLength=\"{length}\" xml:space=\"preserve\">{escaped}</text>",
                    y + 14
                );
            }
            column += u32::try_from(run.len()).unwrap();
        }
    }
    out.push_str("</svg>\n");
    out
}

#[test]
fn pictures_of_the_documentation() {
    let mut drawn = Vec::new();
    let mut show = |name: &str, operator: &Operator| drawn.push((name.to_owned(), svg(&operator.picture(80, 24))));
    let mut operator = good();
    for (page, name) in [
        (Page::Welcome, "welcome"),
        (Page::Host, "host"),
        (Page::Disks, "disks"),
        (Page::Network, "network"),
        (Page::Identity, "identity"),
        (Page::Bundle, "bundle"),
        (Page::Cluster, "cluster"),
        (Page::Review, "review"),
    ] {
        operator.open(page);
        show(name, &operator);
    }
    operator.control('n');
    operator.write("2345");
    show("confirm", &operator);
    let mut operator = warning();
    operator.open(Page::Certificates);
    show("certificates", &operator);
    operator.open(Page::Administrator);
    show("administrator", &operator);
    for (name, picture) in drawn {
        let path = format!("{FOLDER}/{name}.svg");
        if std::env::var("COFFERDAM_PICTURES").as_deref() == Ok("write") {
            std::fs::create_dir_all(FOLDER).unwrap();
            std::fs::write(&path, &picture).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == picture,
            "{path} shows another screen than the program; COFFERDAM_PICTURES=write draws it anew"
        );
    }
}
