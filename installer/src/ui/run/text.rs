//! Times and sizes as they stand on the screen, and text of commands made fit for it.

/// A time in words of at most seven characters: `0.4 s`, `12 s`, `3:05`, `1:02:03`.
pub fn time(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..10 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// How long something still takes, as coarse as such a number deserves: `45 s`, `3 min`, `2 h 10 min`.
pub fn left(milliseconds: u64) -> String {
    let seconds = milliseconds.div_ceil(1000);
    match seconds {
        0..60 => format!("{} s", seconds.div_ceil(5) * 5),
        60..3600 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A size: `512 kB`, `12.3 MB`, `4.7 GB`.
pub fn size(bytes: u64) -> String {
    let tenths = |unit: u64, name: &str| format!("{}.{} {name}", bytes / unit, bytes % unit / (unit / 10));
    match bytes {
        0..1_000_000 => format!("{} kB", bytes / 1000),
        1_000_000..1_000_000_000 => tenths(1_000_000, "MB"),
        _ => tenths(1_000_000_000, "GB"),
    }
}

/// One line without anything that a terminal would act upon.
pub fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect::<String>().trim_end().to_owned()
}

/// Text broken into lines of at most `width` characters, at blanks where there are any.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in plain(paragraph).split(' ') {
            let mut word = word.to_owned();
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            } else if !line.is_empty() {
                line.push(' ');
            }
            while word.chars().count() > width {
                let cut = word.char_indices().nth(width).map_or(word.len(), |(at, _)| at);
                let rest = word.split_off(cut);
                lines.push(std::mem::replace(&mut word, rest));
            }
            line.push_str(&word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{left, plain, size, time, wrap};

    #[test]
    fn times_and_sizes() {
        for (milliseconds, text) in
            [(0, "0.0 s"), (940, "0.9 s"), (59_999, "59 s"), (185_000, "3:05"), (3_723_000, "1:02:03")]
        {
            assert_eq!(time(milliseconds), text);
        }
        for (milliseconds, text) in
            [(0, "0 s"), (1, "5 s"), (44_000, "45 s"), (61_000, "2 min"), (7_800_000, "2 h 10 min")]
        {
            assert_eq!(left(milliseconds), text);
        }
        for (bytes, text) in [(999, "0 kB"), (512_000, "512 kB"), (12_345_678, "12.3 MB"), (4_700_000_000, "4.7 GB")] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "18446744073.7 GB");
    }

    #[test]
    fn what_commands_print_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2J\tb\u{7}\r\n"), "a [2J b");
    }

    #[test]
    fn wrapping() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("a\n\nb", 4), ["a", "", "b"]);
        assert_eq!(wrap("x", 0), ["x"]);
    }
}
