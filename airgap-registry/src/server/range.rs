//! `Range` of downloads (RFC 9110, 14) and `Content-Range` of chunks (OCI distribution-spec, "Pushing a blob in
//! chunks"). Pure. Called by the blob and upload handlers.

/// Which part of a blob is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requested {
    /// All of it.
    Whole,
    /// From the first byte up to and not including the second.
    Part(u64, u64),
    /// Nothing that there is.
    Unsatisfiable,
}

/// Reads a `Range` header. Another unit than bytes is ignored, and so is a list of ranges, as RFC 9110 allows.
pub(crate) fn requested(header: Option<&str>, size: u64) -> Requested {
    let Some(ranges) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
        return Requested::Whole;
    };
    if ranges.contains(',') {
        return Requested::Whole;
    }
    let Some((first, last)) = ranges.trim().split_once('-') else { return Requested::Unsatisfiable };
    let (start, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, size.min(last.saturating_add(1))),
        (Some(first), None) if last.is_empty() => (first, size),
        (None, Some(count)) if first.is_empty() && count > 0 => (size.saturating_sub(count), size),
        _ => return Requested::Unsatisfiable,
    };
    if start < end { Requested::Part(start, end) } else { Requested::Unsatisfiable }
}

/// Reads the `Content-Range` of a chunk: `FIRST-LAST`, both inclusive. `None` when it is nonsense.
pub(crate) fn chunk(header: &str) -> Option<(u64, u64)> {
    let range = header.trim();
    let range = range.strip_prefix("bytes ").unwrap_or(range);
    let range = range.split_once('/').map_or(range, |(range, _)| range);
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// Digits only: `parse` alone would take a plus sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use Requested::{Part, Unsatisfiable, Whole};

    #[test]
    fn ranges_of_a_blob_of_ten_bytes() {
        for (header, expected) in [
            ("bytes=0-9", Part(0, 10)),
            ("bytes=0-0", Part(0, 1)),
            ("bytes=5-", Part(5, 10)),
            ("bytes=9-100", Part(9, 10)),
            ("bytes=-3", Part(7, 10)),
            ("bytes=-30", Part(0, 10)),
            ("bytes=0-18446744073709551615", Part(0, 10)),
            ("bytes=10-", Unsatisfiable),
            ("bytes=10-11", Unsatisfiable),
            ("bytes=5-4", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=-", Unsatisfiable),
            ("bytes=", Unsatisfiable),
            ("bytes=a-b", Unsatisfiable),
            ("bytes=+1-2", Unsatisfiable),
            ("bytes=1-2x", Unsatisfiable),
            ("bytes=99999999999999999999-", Unsatisfiable),
            ("bytes=0-1,3-4", Whole),
            ("lines=0-1", Whole),
        ] {
            assert_eq!(requested(Some(header), 10), expected, "{header}");
        }
        assert_eq!(requested(None, 10), Whole);
        assert_eq!(requested(Some("bytes=0-"), 0), Unsatisfiable);
    }

    #[test]
    fn ranges_of_chunks() {
        assert_eq!(chunk("0-9"), Some((0, 9)));
        assert_eq!(chunk("bytes 5-5/*"), Some((5, 5)));
        for bad in ["", "-", "5", "5-4", "-1", "1-", "a-b", "1--2", "+1-2"] {
            assert_eq!(chunk(bad), None, "{bad}");
        }
    }
}
